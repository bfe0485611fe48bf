"""One run of a scenario: its threads go on one at a time, as a plan says."""

from __future__ import annotations

import _thread
import gc
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from types import FrameType

from exploring.locks import worlds
from exploring.managed import Failed, Plan, Step, Stop, Thread
from exploring.steps import Steps


_MOST_POINTS = 20_000
"""More in one schedule are a livelock."""

_HUNG = 20.0
"""Seconds after which a thread blocks, or loops, where no model sees it."""

_SHORT = 5.0
"""Seconds that may pass though somebody could run; more pass where nobody can."""

_END = 10_000.0
"""When nobody has gone on for so long but clocks that ring again and again, it is a deadlock."""

_FOREVER = 1e5
"""Seconds; a longer timeout is none."""


class World:
    """One run of a scenario.

    Args:
        plan: What is done otherwise than by default.
        budget: What else may follow it: so many preemptions, faults (interrupts, collections),
            and turns (of one who is not the first of those that can go on where one blocks).
        files: Whose lines are points.
        fine: Points are the instructions that touch what may be shared, not lines.
    """

    def __init__(
        self, plan: Plan, budget: Mapping[str, int], files: frozenset[str], fine: bool
    ) -> None:
        self.plan = plan
        self.alternatives: list[tuple[Step, str]] = []  # with what they cost
        self.threads: list[Thread] = []
        self.me: Thread | None = None
        self.now = 1000.0
        self.failure: BaseException | None = None
        self.files: dict[int, list[int]] = {}  # bytes in the pipes
        self.story: list[str] = []
        self.left: list[str] = []  # the threads that had not ended as the check begins
        self.interrupts: dict[str, Callable[[], BaseException]] = {}
        self.collections: dict[str, Callable[[], object]] = {}
        self._left = [*plan][::-1]
        self._budget = budget
        self._steps = Steps(self, files, fine)
        self._counts = {"line": 0, "block": 0, "call": 0, "choice": 0}
        self._stopping = False
        self._main = _thread.allocate_lock()
        self._main.acquire()
        self._where = ""

    # For scenarios.

    def thread(
        self,
        name: str,
        body: Callable[[], object],
        *,
        daemon: bool = False,
        may_raise: tuple[type[BaseException], ...] = (),
    ) -> Thread:
        """Add one; it may run at once."""
        thread = Thread(len(self.threads), name, body, daemon, may_raise)
        self.threads.append(thread)
        _thread.start_new_thread(self._live, (thread,))
        return thread

    def interrupt(self, name: str, make: Callable[[], BaseException] = KeyboardInterrupt) -> None:
        """Let an exception come to that thread wherever Python delivers one: around calls."""
        self.interrupts[name] = make
        if self.me is not None and self.me.name == name:
            sys.setprofile(self._steps.profile)

    def collect(self, name: str, call: Callable[[], object]) -> None:
        """Call a finalizer in that thread, wherever an interrupt might come."""
        self.collections[name] = call

    def choose(self, *options: str) -> str:
        """The first, and in other schedules the others."""
        return self._decide("choice", options[0], [(option, "") for option in options[1:]])

    # For models.

    def block(self, ready: Callable[[], bool], timeout: float = -1) -> bool:
        """Until it is ready; False if time ran out before."""
        me = self.me
        deadline = self.now + timeout if 0 <= timeout < _FOREVER else None
        while not ready():
            if me is None:
                raise AssertionError("this would block for ever")
            if timeout == 0:
                return False
            if self._stopping:
                raise Stop
            self.interruptible()
            me.ready, me.deadline = ready, deadline
            self._pass_on(me)
            self._park(me)
            me.ready = me.deadline = None
            if me.late:
                me.late = False
                return ready()
        return True

    def point(self, frame: FrameType | None = None) -> None:
        """Another may go on here."""
        me = self.me
        if me is None or self._stopping:
            return
        if self._counts["line"] > _MOST_POINTS:
            self._give_up("a livelock")
        if frame is not None:
            self._where = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
        options = []
        if not self._left and self._budget["preemption"] and me.begun:
            options = [
                (t.name, "preemption") for t in self.threads if t is not me and self._soon(t)
            ]
        me.begun = True
        chosen = self._decide("line", me.name, options)
        if chosen != me.name:
            self._hand_to(self._named(chosen))
            self._park(me)

    def interruptible(self) -> None:
        """Python may run a signal handler here, or a collection."""
        me = self.me
        if me is None or self._stopping or not self._is_hit(me):
            return
        options = []
        options += [("interrupt", "fault")] * (me.name in self.interrupts)
        options += [("collect", "fault")] * (me.name in self.collections)
        chosen = self._decide("call", me.name, options)
        if chosen == "interrupt":
            sys.setprofile(None)
            raise self.interrupts[me.name]()
        if chosen == "collect":
            self.collections[me.name]()

    # How it runs.

    def run(self, scenario: Callable[[World], Callable[[], None]]) -> None:
        """From the beginning to the check.

        Raises:
            AssertionError: Something failed.
        """
        worlds[:] = [self]
        check = scenario(self)
        gc.disable()  # finalizers of earlier runs
        try:
            self._pass_on(None)
            if not self._main.acquire(timeout=_HUNG):
                raise Failed(f"somebody hangs{self._stacks()}")
        finally:
            self.left = [thread.name for thread in self.threads if not thread.done]
            logging.disable()  # of what is told of this unwinding; a record asks for the thread
            self._stop_all()
            logging.disable(logging.NOTSET)
            self.me = None
            gc.enable()
        if self.failure is not None:
            raise Failed(_told(self.failure))
        assert not self._left, f"this run differs from the one before: {self._left} did not come"
        check()

    def _stop_all(self) -> None:
        self._stopping = True
        for thread in self.threads:
            if not thread.done:
                self.me = thread
                thread.turn.release()
                self._main.acquire(timeout=_HUNG)

    def _live(self, me: Thread) -> None:
        me.turn.acquire()
        me.ident = _thread.get_ident()
        try:
            if not self._stopping:
                if self._is_hit(me):
                    sys.setprofile(self._steps.profile)
                sys.settrace(self._steps.trace)
                me.body()
        except Stop:
            pass
        except BaseException as failure:
            me.raised = failure
            if not isinstance(failure, me.may_raise) and self.failure is None:
                self.failure = failure
        finally:
            sys.settrace(None)
            sys.setprofile(None)
            me.done = True
            if self._stopping or self.failure is not None:
                self._main.release()
            else:
                self._pass_on(None)

    def _pass_on(self, me: Thread | None) -> None:
        """Somebody else's turn: `me` blocks, or has ended."""
        runnable = [thread for thread in self.threads if thread.can_run()]
        timed = [t for t in self.threads if not t.done and t.deadline is not None]
        if runnable:
            options = [(thread.name, "turn") for thread in runnable[1:]]
            late = [thread for thread in timed if thread not in runnable and self._soon(thread)]
            options += [(thread.name, "preemption") for thread in late]
            self._hand_to(self._named(self._decide("block", runnable[0].name, options)))
        elif all(thread.daemon or thread.done for thread in self.threads):
            self._main.release()
        elif timed and self.now < _END:
            self._hand_to(min(timed, key=lambda thread: thread.deadline or 0.0))
        else:
            self.failure = Failed(f"a deadlock{self._stacks()}")
            self._main.release()

    def _soon(self, thread: Thread) -> bool:
        late = thread.deadline is not None and thread.deadline - self.now <= _SHORT
        return thread.can_run() or (late and not thread.done)

    def _hand_to(self, thread: Thread) -> None:
        if not thread.can_run():
            thread.late = True
            self.now = max(self.now, thread.deadline or 0.0)
        self.story.append(f"{self._where} -> {thread.name}{' (in time)' * thread.late}")
        self.me = thread
        thread.turn.release()

    def _park(self, me: Thread) -> None:
        me.turn.acquire()
        if self._stopping:
            raise Stop

    def _decide(self, kind: str, default: str, options: Iterable[tuple[str, str]]) -> str:
        self._counts[kind] += 1
        number = self._counts[kind]
        if not self._left:
            for option, cost in options:
                if not cost or self._budget[cost]:
                    self.alternatives.append(((kind, number, option), cost))
            return default
        if self._left[-1][:2] == (kind, number):
            chosen = self._left.pop()[2]
            self.story.append(f"{self._where}: {chosen}")
            return chosen
        return default

    def _give_up(self, why: str) -> None:
        self.failure = Failed(f"{why}{self._stacks()}")
        raise Stop

    def _named(self, name: str) -> Thread:
        return next(thread for thread in self.threads if thread.name == name and not thread.done)

    def _stacks(self) -> str:
        frames = sys._current_frames()
        lines = []
        for thread in self.threads:
            if not thread.done and thread.ident in frames:
                lines.append(f"\n  {thread.name}:")
                for one in traceback.extract_stack(frames[thread.ident]):
                    if one.filename in self._steps.files:
                        lines.append(f"\n    {os.path.basename(one.filename)}:{one.lineno} ")
                        lines.append(one.line or "")
        return "".join(lines)

    def _is_hit(self, thread: Thread) -> bool:
        return thread.name in self.interrupts or thread.name in self.collections

    def quiet(self) -> bool:
        """Whether no choice can follow at any line: most of the time goes by faster then."""
        return not (self._left or self._budget["preemption"])


def _told(failure: BaseException) -> str:
    """A thread's failure, as text: its frames would keep alive what is gone for the next run."""
    if isinstance(failure, Failed):
        return str(failure)
    return "".join(traceback.format_exception(type(failure), failure, failure.__traceback__, -3))
