"""What a caller has seen of a row, and whether it is what the table says."""

from __future__ import annotations

import time
from dataclasses import dataclass

from faults.row import Row
from support import EARLY, PATIENCE, kinds

from vllm_http import End, Error, Timeout, Token, TokenEvent, TokenStream, WorkerError


@dataclass(frozen=True)
class Seen:
    """All events of a stream.

    Attributes:
        events: In their order.
        seconds: From submit to the last one.
        more: What came after the last one.
    """

    events: list[TokenEvent]
    seconds: float
    more: list[TokenEvent]

    @property
    def last(self) -> TokenEvent:
        """The last event."""
        return self.events[-1]

    @property
    def kind(self) -> str:
        """Of the last event, in one word."""
        return type(self.last.error if isinstance(self.last, Error) else self.last).__name__

    @property
    def tokens(self) -> list[Token]:
        """The tokens."""
        return [event for event in self.events if isinstance(event, Token)]

    @property
    def text(self) -> str:
        """All text."""
        return "".join(token.text for token in self.tokens)


@dataclass(frozen=True)
class Outcome:
    """A row, and what was seen of it."""

    row: Row
    seen: Seen


def watch(stream: TokenStream, since: float) -> Seen:
    """Take all events of a stream that was submitted at that time (`time.monotonic`)."""
    events = []
    for event in stream:
        events.append(event)
        if isinstance(event, (End, Error)):
            break
    seconds = time.monotonic() - since
    return Seen(events, seconds, list(stream))


def check_order(seen: Seen, *, starts: bool) -> None:
    """One `Started` if there should be one, the tokens by their index, one last event."""
    order = [*["started"][: int(starts)], *["token"] * len(seen.tokens), seen.last.type]

    assert kinds(seen.events) == order
    assert seen.last.type in ("end", "error")
    assert [token.index for token in seen.tokens] == list(range(len(seen.tokens)))
    assert seen.more == []


def check_time(row: Row, seen: Seen) -> None:
    """The end comes when it is due, and not by the clocks of a row that waits for none."""
    assert row.due - EARLY <= seen.seconds < row.due + PATIENCE


def check_end(row: Row, last: TokenEvent) -> None:
    """The last event is what the row says."""
    if isinstance(last, Error):
        check_error(row, last.error)
    else:
        assert isinstance(last, End)
        assert row.sees.error is None
        assert last.finish_reason == "stop"


def check_error(row: Row, error: WorkerError) -> None:
    """The error is the row's in all that a caller may look at."""
    clock = error.phase if isinstance(error, Timeout) else ""

    assert type(error) is row.sees.error, error
    assert (error.code, error.retriable) == (row.sees.code, row.sees.retriable)
    assert (clock, error.status) == (row.sees.clock, row.status)
    assert row.says in error.message
    if row.retry_after_ms is None:
        assert error.retry_after_ms is None
    else:
        assert error.retry_after_ms in row.retry_after_ms


def brief(text: str) -> str | tuple[str, int, str]:
    """A text as an assertion should show it."""
    return text if len(text) < 100 else (text[:10], len(text), text[-10:])
