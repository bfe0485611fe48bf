"""A thread that goes on when it is told, and how a schedule is written down."""

from __future__ import annotations

import _thread
import dataclasses
from collections.abc import Callable
from typing import TypeAlias


Step: TypeAlias = "tuple[str, int, str]"
"""At the n-th decision of its kind ("line", "block", "call", "choice"), what was chosen."""

Plan: TypeAlias = "tuple[Step, ...]"


def raised_by(work: Callable[[], object]) -> type[BaseException] | None:
    """What came out of it; the exception itself would keep alive all that was in reach."""
    try:
        work()
    except Exception as failure:
        return type(failure)
    except KeyboardInterrupt:
        return KeyboardInterrupt
    return None


class Failed(AssertionError):
    """A schedule under which the machine does what it must not.

    Attributes:
        plan: To run it again.
    """

    plan: Plan = ()


class Stop(BaseException):
    """Unwinds what is left of a schedule."""


@dataclasses.dataclass(eq=False)
class Thread:
    """One that takes part.

    Attributes:
        daemon: Nobody waits for its end.
        may_raise: What its body may raise; `raised` tells.
    """

    number: int
    name: str
    body: Callable[[], object]
    daemon: bool = False
    may_raise: tuple[type[BaseException], ...] = ()
    raised: BaseException | None = None
    done: bool = False
    ready: Callable[[], bool] | None = None  # what it waits for
    deadline: float | None = None
    late: bool = False  # its wait was ended by time
    begun: bool = False  # has come to a first point: before that, nothing was done
    ident: int = 0
    handle: object = None  # the model of a `threading.Thread` that stands for it

    def __post_init__(self) -> None:
        self.turn = _thread.allocate_lock()
        self.turn.acquire()

    def can_run(self) -> bool:
        """Whether it would do anything."""
        return not self.done and (self.ready is None or self.ready())
