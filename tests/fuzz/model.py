"""What must be seen of a script, said in a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from faults.row import Script
from support import a_task

from vllm_http import TaskRequest
from vllm_http.testing import Cut, Done, EndBody, ErrorEvent, Event, Finish, Stall, Status, Text


ATTEMPTS = 2

GARBAGE = [Event(data) for data in ("<html>", "{", "null", '{"choices": 5}')]
"""What no vLLM sends."""

IN_WORDS = {400: "InvalidRequest", 429: "CapacityExceeded", 503: "EngineUnavailable"}
RETRIED = ("CapacityExceeded", "EngineUnavailable", "StreamingError")


@dataclass
class Expected:
    """What a caller sees.

    Attributes:
        texts: By choice.
        end: The class of the `End`, or of the error in the `Error`.
        started: Whether `Started` comes first.
        requests: How many are sent.
        hopeless: The end is garbage, which will be garbage the next time.
    """

    texts: dict[int, str] = field(default_factory=dict)
    end: str = ""
    started: bool = False
    requests: int = 0
    hopeless: bool = field(default=False, compare=False)


def expected(scripts: Sequence[Script], choices: int) -> Expected:
    """Each attempt gets its script; one that failed before the engine began is no matter."""
    seen = Expected()
    for script in scripts[:ATTEMPTS]:
        seen.requests += 1
        finished: dict[int, str] = {}
        seen.end = _end(script, seen, finished, choices)
        begun = seen.texts or any(reason != "abort" for reason in finished.values())
        if begun or seen.hopeless or seen.end not in RETRIED:
            break
    return seen


def _end(script: Script, seen: Expected, finished: dict[int, str], choices: int) -> str:
    """Walk the steps up to the one that decides."""
    for step in script:
        if isinstance(step, Status):
            return IN_WORDS[step.code]
        seen.started = True  # all others follow upon the headers
        if isinstance(step, Text):
            seen.texts[step.choice] = seen.texts.get(step.choice, "") + step.text
        elif isinstance(step, Finish):
            finished[step.choice] = step.reason
        elif isinstance(step, ErrorEvent):
            begun = seen.texts or any(reason != "abort" for reason in finished.values())
            # What was answered was good: a 4xx is then the engine's own trouble.
            return IN_WORDS[503 if begun and step.code == 400 else step.code]
        elif isinstance(step, Done):
            whole = len(finished) == choices and "abort" not in finished.values()
            return "End" if whole else "StreamingError"
        elif isinstance(step, Stall):
            return "Timeout"
        elif step in GARBAGE:
            seen.hopeless = True
            return "StreamingError"
        elif isinstance(step, (Cut, EndBody)):
            break
    return "StreamingError"


def task_of(choices: int) -> TaskRequest:
    """A task with so many choices."""
    return a_task(temperature=1.0, extra_body={"n": choices})
