"""What becomes of a stream of the soak: drawn from a seed, by the client and the engine alike.

Each token's text is its number, so that what was lost, doubled or out of order can be read.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from decoding import DONE, text

from vllm_http import Timeouts
from vllm_http.testing import (
    Cut,
    Done,
    Drip,
    ErrorEvent,
    Headers,
    Raw,
    Stage,
    Stall,
    Status,
    Step,
    Truncate,
)


Script = list[Step]

PATIENT = Timeouts()
CLOCK = 0.1  # Seconds; a clock that is to run out.
LONGEST = 200  # Tokens.
END = Raw(text("", "stop") + DONE)
HALF_EVENT = Raw(b'data: {"choices": [')
REFUSALS = {400: "InvalidRequest", 429: "CapacityExceeded", 503: "EngineUnavailable"}

DRAINS, DAWDLES, CANCELS, LEAVES, FAILS, DROPS = CALLERS = (
    "drains",  # takes all there is
    "dawdles",  # takes it slowly
    "cancels",  # and another thread does it
    "leaves",  # the with block, after some events
    "fails",  # an exception of its own ends the with block
    "drops",  # lets go of the stream, in a reference cycle
)
_SHARES = (64, 8, 14, 5, 4, 5)


@dataclass(frozen=True)
class Numbers:
    """A step that sends these numbers, each the text of a token, in one chunk."""

    begin: int
    end: int

    def play(self, stage: Stage) -> None:
        stage.answer.chunk(b"".join(text(f"{number} ") for number in range(self.begin, self.end)))


@dataclass(frozen=True)
class Fault:
    """What the engine does to a stream.

    Attributes:
        name: What goes wrong.
        scripts: One for each attempt; the last one is played to all others as well.
        sees: How the stream ends: an error's class, or "End".
        sent: The tokens that the engine sends, numbered from 0.
        all_come: Whether the client is sure to get them: a reset may overtake them.
        timeouts: The task's clocks.
        due: Seconds after which the end is due; the clock that runs out.
    """

    name: str
    scripts: Sequence[Script]
    sees: str = "End"
    sent: int = 0
    all_come: bool = True
    timeouts: Timeouts = PATIENT
    due: float = 0.0


@dataclass(frozen=True)
class Plan:
    """One stream.

    Attributes:
        fault: What the engine does.
        caller: What the caller does, one of `CALLERS`.
        after: The events that a caller who does not stay takes.
        delay: Seconds after which another thread cancels.
        tiny: Whether the queue is tiny.
    """

    fault: Fault
    caller: str
    after: int
    delay: float
    tiny: bool

    @property
    def stays(self) -> bool:
        """Whether the caller waits for the last event."""
        return self.caller in (DRAINS, DAWDLES, CANCELS)

    def script(self, attempt: int) -> Script:
        """What the engine plays to an attempt, the first of which is 0."""
        return self.fault.scripts[min(attempt, len(self.fault.scripts) - 1)]


def plan(seed: int, number: int) -> Plan:
    """The stream of that number."""
    dice = random.Random(f"{seed}/{number}")
    (draw,) = dice.choices(list(_FAULTS), list(_FAULTS.values()))
    (caller,) = dice.choices(CALLERS, _SHARES)
    fault = draw(dice)
    return Plan(
        fault,
        caller,
        after=dice.randint(0, fault.sent),
        delay=dice.choice([0.0, 0.002, 0.02]) * dice.random(),
        tiny=dice.random() < 0.2,
    )


def _some(dice: random.Random) -> tuple[int, Script]:
    """How many tokens, most often few, and the steps that send them in pieces of all sizes."""
    count = round(math.exp(dice.uniform(0, math.log(LONGEST))))
    pieces = min(count, dice.choice([1, 2, 5, 10]))
    marks = [0, *sorted(dice.sample(range(1, count), pieces - 1)), count]
    steps: Script = [Numbers(*ends) for ends in itertools.pairwise(marks)]
    if dice.random() < 0.2:  # events over several reads
        steps[-1] = Drip(steps[-1], size=dice.randint(50, 500))
    return count, steps


def _cut(dice: random.Random) -> Cut:
    return Cut(dice.choice(["rst", "fin"]))


def _whole(dice: random.Random) -> Fault:
    count, steps = _some(dice)
    return Fault("none", [[*steps, END]], sent=count)


def _hang_up_after(dice: random.Random) -> Fault:
    count, steps = _some(dice)
    return Fault("FIN after [DONE]", [[*steps, END, Cut("fin")]], sent=count)


def _cut_before(dice: random.Random) -> Fault:
    begun: Script = [Headers()] if dice.random() < 0.5 else []
    sees = "StreamingError" if begun else "EngineUnavailable"
    return Fault("cut before content", [[*begun, _cut(dice)]], sees)


def _cut_at_first(dice: random.Random) -> Fault:
    count, steps = _some(dice)
    return Fault("cut, then well", [[_cut(dice)], [*steps, END]], sent=count)


def _cut_within(dice: random.Random) -> Fault:
    count, steps = _some(dice)
    cut, half = _cut(dice), [HALF_EVENT] if dice.random() < 0.5 else []
    script = [*steps, *half, cut]
    return Fault("cut in mid-stream", [script], "StreamingError", count, cut.how == "fin")


def _cut_in_headers(dice: random.Random) -> Fault:
    half = Truncate(Headers(), dice.randint(1, 50))
    return Fault("cut in the headers", [[half, Cut("rst")]], "EngineUnavailable")


def _no_end(dice: random.Random) -> Fault:
    count, steps = _some(dice)
    ending: Script = [Raw(text("", "stop"))] if dice.random() < 0.5 else [Done()]
    return Fault("end without an end", [[*steps, *ending]], "StreamingError", count)


def _error(dice: random.Random) -> Fault:
    count, steps = _some(dice)
    code = dice.choice(list(REFUSALS))
    script = [*steps, ErrorEvent("Bad day", code), Done()]
    sees = REFUSALS[503 if code == 400 else code]  # after content it is not the caller's fault
    return Fault("error in mid-stream", [script], sees, count)


def _refused(dice: random.Random) -> Fault:
    code = dice.choice(list(REFUSALS))
    return Fault("status", [[Status(code, {"error": "Bad day"})]], REFUSALS[code])


def _refused_at_first(dice: random.Random) -> Fault:
    count, steps = _some(dice)
    refusal: Script = [Status(dice.choice([429, 502, 503]), b"<html>Bad day")]
    return Fault("status, then well", [refusal, [*steps, END]], sent=count)


def _silence(dice: random.Random) -> Fault:
    begun: Script = [Headers()] if dice.random() < 0.5 else []
    clock = Timeouts(first_token=CLOCK)
    return Fault("silence", [[*begun, Stall()]], "Timeout", timeouts=clock, due=CLOCK)


def _stall(dice: random.Random) -> Fault:
    count, steps = _some(dice)
    script = [*steps, Stall()]
    # On a busy machine the clock may run out between two tokens.
    return Fault("stall", [script], "Timeout", count, False, Timeouts(stall=CLOCK), CLOCK)


_FAULTS: dict[Callable[[random.Random], Fault], int] = {
    _whole: 46,
    _hang_up_after: 3,
    _cut_before: 4,
    _cut_at_first: 5,
    _cut_within: 11,
    _cut_in_headers: 2,
    _no_end: 4,
    _error: 6,
    _refused: 4,
    _refused_at_first: 6,
    _silence: 4,
    _stall: 5,
}
"""Each with its share in a hundred."""
