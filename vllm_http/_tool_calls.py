"""Tool calls, put together from their pieces: the one place that knows whose a piece is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ._answer import ToolCall, ToolCallDelta, says_nothing


_CUT = (None, "length", "abort", "error")
"""Finish reasons after which more of a call may be missing."""


class Piece(NamedTuple):
    """A piece of a call as the engine sent it; None or "" for what it does not hold.

    The number is its `index`; some engines send none, or the same for all calls.
    """

    number: int | None
    id: str | None
    name: str | None
    arguments: str


class _Growing:
    """What has come of one call."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []

    def news(self, place: int, piece: Piece) -> ToolCallDelta:
        """What a piece tells of this call that was not told before."""
        id = None if self.id else piece.id
        name = (piece.name or "").removeprefix(self.name) or None
        return ToolCallDelta(place, id, name, piece.arguments)

    def add(self, piece: ToolCallDelta) -> None:
        self.id = self.id or piece.id or ""
        self.name += piece.name or ""
        if piece.arguments:
            self.arguments.append(piece.arguments)

    def call(self, finish_reason: str | None) -> ToolCall:
        arguments = "".join(self.arguments)
        complete = bool(self.name) and _is_complete(arguments, finish_reason)
        return ToolCall(self.id, self.name, arguments, complete)


_NOTHING = _Growing()


class ToolCalls:
    """The tool calls of one choice, in the order in which they began."""

    __slots__ = ("_by_id", "_by_number", "_calls", "_latest")

    def __init__(self) -> None:
        self._calls: dict[int, _Growing] = {}  # by place
        self._by_number: dict[int, int] = {}  # the engine's, to the place
        self._by_id: dict[str, int] = {}
        self._latest = 0

    def take(self, pieces: Iterable[Piece]) -> list[ToolCallDelta]:
        """The pieces of one event as the engine sent them, each under the place of its call."""
        before = len(self._calls)
        taken = []
        for piece in pieces:
            if piece.id or piece.name or piece.arguments:
                place = self._place(piece, before)
                if piece.number is not None:
                    self._by_number[piece.number] = place
                if piece.id:
                    self._by_id.setdefault(piece.id, place)
                news = self._calls.get(place, _NOTHING).news(place, piece)
                if news.id or news.name or news.arguments:
                    taken.append(news)
                self.add(news)
        return taken

    def add(self, piece: ToolCallDelta) -> None:
        """A piece whose index is its place, as `take` made it."""
        self._calls.setdefault(piece.index, _Growing()).add(piece)
        self._latest = piece.index

    def so_far(self, finish_reason: str | None) -> list[ToolCall]:
        """All of them, each `complete` or not as the choice's end tells. From any thread."""
        return [self._calls[place].call(finish_reason) for place in sorted(self._calls)]

    def _place(self, piece: Piece, before: int) -> int:
        new = len(self._calls)
        if not new:
            return new
        number, id, name, _ = piece
        place = self._by_number.get(number) if number is not None else None
        if place is None:
            if number is not None and name:
                return new
            place = self._by_id.get(id) if id else None
        if place is None:
            if number is not None and id:
                return new
            place = self._latest
        begins = _begins(self._calls[place], piece, same_event=place >= before)
        return new if begins else place


def _begins(current: _Growing, piece: Piece, *, same_event: bool) -> bool:
    """Whether a piece is not more of the current call, but the first of the next.

    An id alone does not tell: early versions of vLLM made up a new one for each piece. Nor does a
    name alone: some gateways repeat it, though not twice in one event, and some send it in parts.
    """
    _, id, name, arguments = piece
    if not name:
        return False
    if id and id != current.id and (current.id or current.name):
        return True
    if not current.name:
        return False
    if same_event and not id:
        return True
    if name != current.name:
        # A part of the name. Who has given this call an id gives the next one an id as well.
        return bool(same_event or current.arguments or not current.id)
    more = bool(arguments) and _is_object("".join(current.arguments))
    return more and (same_event or not id)


def _is_complete(arguments: str, finish_reason: str | None) -> bool:
    if says_nothing(arguments):
        return finish_reason not in _CUT
    # vLLM 0.32 makes up "{}" for a call that max_tokens cuts just behind its name.
    return _is_object(arguments) and (finish_reason != "length" or arguments != "{}")


def _is_object(arguments: str) -> bool:
    try:
        ToolCall(arguments=arguments).parsed()
    except ValueError:
        return False
    return True
