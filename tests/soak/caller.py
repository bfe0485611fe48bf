"""One caller of the soak: takes a stream as planned, and says what was wrong with it."""

from __future__ import annotations

import contextlib
import queue
import time
from dataclasses import dataclass, field

from soak.plan import CANCELS, DAWDLES, DRAINS, DROPS, FAILS, Plan

from vllm_http import End, Error, Started, Token, TokenEvent, TokenStream


PATIENCE = 30.0
"""Seconds after which an event will never come."""

_PAUSE = 0.001
_PAUSES = 30

LOST, DOUBLED, DISORDER = "lost", "doubled", "out of order"
NO_END, TWO_ENDS, WRONG_END = "no terminal event", "two terminal events", "wrong end"
WRONGS = (LOST, DOUBLED, DISORDER, NO_END, TWO_ENDS, WRONG_END)


@dataclass
class Taken:
    """What came out of a stream.

    Attributes:
        events: In their order.
        after: What came after the last one.
        seconds: From submit to the last one.
        hung: No event came for `PATIENCE`.
        cancelled: When another thread has cancelled (`time.monotonic`), if it has.
        since_cancel: Seconds from then to the last event.
    """

    events: list[TokenEvent] = field(default_factory=list)
    after: list[TokenEvent] = field(default_factory=list)
    seconds: float = 0.0
    hung: bool = False
    cancelled: float | None = None
    since_cancel: float | None = None

    @property
    def kind(self) -> str:
        """The end in one word."""
        match self.events[-1:]:
            case [End(finish_reason="cancelled")]:
                return "cancelled"
            case [Error(error)]:
                return type(error).__name__
            case [End()]:
                return "End"
        return "hung" if self.hung else "let go"


class _Whim(Exception):
    """A caller's own."""


def take(stream: TokenStream, plan: Plan, taken: Taken, since: float) -> None:
    """Take what the plan's caller takes of a stream that was submitted at that time."""
    with contextlib.suppress(queue.Empty, _Whim):
        if plan.caller == DROPS:
            cycle: list[object] = [stream]
            cycle.append(cycle)
            _take(stream, plan, taken)
            return
        with stream:
            _take(stream, plan, taken)
            if plan.stays:
                _note_the_end(stream, taken, since)
            if plan.caller == FAILS:
                raise _Whim


def _take(stream: TokenStream, plan: Plan, taken: Taken) -> None:
    limit = None if plan.stays else plan.after
    while limit is None or len(taken.events) < limit:
        try:
            event = stream.get(timeout=PATIENCE)
        except queue.Empty:
            taken.hung = True
            raise
        if event is None:
            return
        taken.events.append(event)
        if isinstance(event, (End, Error)):
            return
        if plan.caller == DAWDLES and len(taken.events) < _PAUSES:
            time.sleep(_PAUSE)


def _note_the_end(stream: TokenStream, taken: Taken, since: float) -> None:
    now = time.monotonic()
    taken.seconds = now - since
    if taken.cancelled is not None and taken.kind == "cancelled":
        taken.since_cancel = now - taken.cancelled
    with contextlib.suppress(queue.Empty):
        while True:
            taken.after.append(stream.receiver.get(block=False))


def wrongs(plan: Plan, taken: Taken) -> list[str]:
    """What is wrong with what came, of `WRONGS`."""
    events = taken.events
    tokens = [event for event in events if isinstance(event, Token)]
    numbers = [int(number) for token in tokens for number in token.text.split()]
    found = []
    if len(set(numbers)) < len(numbers):
        found.append(DOUBLED)
    if numbers != sorted(numbers) or not _well_ordered(events, tokens):
        found.append(DISORDER)
    if set(numbers) != set(range(len(numbers))) or len(numbers) < _least(plan, taken):
        found.append(LOST)
    if taken.hung or (plan.stays and taken.kind == "let go"):
        found.append(NO_END)
    if taken.after:
        found.append(TWO_ENDS)
    if taken.kind not in _ends(plan):
        found.append(WRONG_END)
    return found


def _well_ordered(events: list[TokenEvent], tokens: list[Token]) -> bool:
    """`Started` first, and once; the tokens by their index."""
    starts = [place for place, event in enumerate(events) if isinstance(event, Started)]
    indices = [token.index for token in tokens]
    return starts in ([], [0]) and indices == list(range(len(tokens)))


def _least(plan: Plan, taken: Taken) -> int:
    """How many tokens must have come."""
    sure = plan.caller in (DRAINS, DAWDLES) and (plan.fault.all_come or taken.kind == "End")
    return plan.fault.sent if sure else 0


def _ends(plan: Plan) -> set[str]:
    if plan.caller == CANCELS:
        return {plan.fault.sees, "cancelled"}
    return {plan.fault.sees} if plan.stays else {plan.fault.sees, "let go"}
