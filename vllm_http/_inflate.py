"""gzip and deflate, which nobody asked for: some gateways compress all the same. No I/O."""

from __future__ import annotations

import zlib


_GZIP_OR_ZLIB = 47  # zlib's window bits for "look which of the two it is"


class Inflater:
    """Pushed with compressed bytes, gives what is in them as soon as it can be known.

    A gzip body may have many members (RFC 1952, 2.2).

    Attributes:
        failure: Why nothing more will be given, or None. What came before it was given.
    """

    def __init__(self) -> None:
        self.failure: zlib.error | None = None
        self._member = zlib.decompressobj(_GZIP_OR_ZLIB)

    def feed(self, wire: bytes) -> bytes:
        """The data in these bytes."""
        before = self._member.copy()
        try:
            return self._inflate(self._member, wire)
        except zlib.error:
            return self._up_to_the_failure(before, wire)

    def _inflate(self, member: zlib._Decompress, wire: bytes) -> bytes:
        data = member.decompress(wire)
        while member.eof and (rest := member.unused_data):
            member = zlib.decompressobj(_GZIP_OR_ZLIB)
            data += member.decompress(rest)
        self._member = member
        return data

    def _up_to_the_failure(self, member: zlib._Decompress, wire: bytes) -> bytes:
        # zlib keeps back what it had of a call that fails.
        self._member = member
        data = b""
        try:
            for position in range(len(wire)):
                data += self._inflate(self._member, wire[position : position + 1])
        except zlib.error as failure:
            self.failure = failure
        return data
