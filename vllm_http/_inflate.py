"""gzip and deflate, which nobody asked for: some gateways compress all the same. No I/O."""

from __future__ import annotations

import contextlib
import zlib


MOST = 65536
"""Bytes that one call gives: what a plain read may hold. Deflate can make them of 64."""

_GZIP_OR_ZLIB = 47  # zlib's window bits for "look which of the two it is"
_RAW = -15  # and for deflate without zlib's frame


class NotAsCoded(zlib.error):
    """The body is not what it is said to be: nothing came out of it."""


class Inflater:
    """Pushed with compressed bytes, gives what is in them as soon as it can be known.

    A gzip body may have many members (RFC 1952, 2.2). What is called deflate should have zlib's
    frame (RFC 9110, 8.4.1.2), and from some servers has none: its first two bytes tell.

    Args:
        encoding: "gzip" or "deflate".

    Attributes:
        failure: Why nothing more will be given, or None. What came before it was given.
    """

    def __init__(self, encoding: str = "gzip") -> None:
        self.failure: zlib.error | None = None
        self._bits = _GZIP_OR_ZLIB
        self._member = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._is_told = encoding != "deflate"  # which of the two forms it has
        self._head = b""  # the first byte, while that is all
        self._wire = b""  # not looked at yet
        # Where zlib was when it last had room, what it was fed since, and how much data it gave.
        self._before, self._fed, self._given = self._member, b"", 0
        self._full = False  # zlib stopped for want of room, and may hold more than it tells
        self._begun = False  # data came out of it

    @property
    def holds_bytes(self) -> bool:
        """Whether there is more to be told of, data or a failure, before more bytes come."""
        return self._full or bool(self._wire) or self.failure is not None

    def feed(self, wire: bytes) -> bytes:
        """The data in these bytes and in those that are held, at most `MOST` of it."""
        if not self._is_told:
            wire = self._tell_form(wire)
        wire = self._wire + wire if self._wire else wire
        data: list[bytes] = []
        room = MOST
        while (wire or self._full) and room > 0 and self.failure is None:
            piece, wire = self._inflate(wire, room)
            data.append(piece)
            room -= len(piece)
            self._full = room <= 0
        self._wire = wire
        self._begun = self._begun or any(data)
        if self.failure is not None and not self._begun:
            self.failure = NotAsCoded(*self.failure.args)
        return b"".join(data)

    def _tell_form(self, wire: bytes) -> bytes:
        """Look at the first two bytes; b"" until they are here."""
        wire = self._head + wire
        if len(wire) < 2:
            self._head = wire
            return b""
        self._is_told = True
        zlibs = wire[0] & 15 == 8 and int.from_bytes(wire[:2], "big") % 31 == 0
        if not (zlibs or wire[:2] == b"\x1f\x8b"):
            self._bits = _RAW
            self._member = zlib.decompressobj(_RAW)
        return wire

    def _inflate(self, wire: bytes, room: int) -> tuple[bytes, bytes]:
        """The data in one member, and the bytes that are left."""
        if self._member.eof and wire:
            self._member = zlib.decompressobj(self._bits)
            self._full = False
        if not self._full:  # else zlib has taken in bytes whose data it has not given yet
            self._before, self._fed, self._given = self._member.copy(), b"", 0
        try:
            piece = self._member.decompress(wire, room)
        except zlib.error as failure:
            self.failure = failure
            return _up_to_the_failure(self._before, self._fed + wire, self._given), b""
        left = self._member.unconsumed_tail or self._member.unused_data
        self._fed += wire[: len(wire) - len(left)]
        self._given += len(piece)
        return piece, left


def _up_to_the_failure(member: zlib._Decompress, wire: bytes, given: int) -> bytes:
    """What zlib keeps back of a call that fails, without what was given of this wire already."""
    data: list[bytes] = []
    with contextlib.suppress(zlib.error):
        for position in range(len(wire)):
            piece = member.decompress(wire[position : position + 1])
            data.append(piece[given:])
            given = max(0, given - len(piece))
    return b"".join(data)
