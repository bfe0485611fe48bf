"""One task from submit to its end: what its caller, its worker and its clocks share.

Three threads meet here, and one rule keeps them honest: the gate's `finish` is won once.
Whoever wins it wakes the others, and whatever they were doing comes to nothing.
"""

from __future__ import annotations

import contextlib
import math
import time
import uuid
from collections.abc import Callable

from ._bell import Bell
from ._connections_exchange import Exchange
from ._errors import Phase, Timeout, WorkerError, unforeseen
from ._events import End, Error, Started
from ._frames import forget_frames
from ._gate import Gate
from ._metrics import Metrics
from ._reader import Loop
from ._request import WireRequest, encode
from ._settings import Labels, Timeouts
from ._tally import Tally, facts_of
from ._task import TaskRequest
from ._timeline import Timeline


VERSION_PATIENCE = 0.5
"""Seconds that `Started` waits for the engine's version."""

_LATE = 1.0
"""Seconds by which an alarm is late only if the process was stopped (ctrl-Z, a debugger)."""


class Over(Exception):
    """The stream is over; whoever still works on it should leave."""


class Run:
    """The state of one task. Making one does nothing yet; whoever admits it starts its clocks.

    Args:
        task: A valid task.
        timeouts: Its clocks.
        gate: Its events' way out; of this run alone.
        reader: Rings its alarms, and reads its answer: one loop for its whole life.
        version: The engine's version, or None while it is being asked for.
        labels: For the log record.
        on_over: Called once the stream has ended; it may be called again.
        on_left: Called once, when nothing holds on to the engine any more, if a worker had it.
    """

    def __init__(
        self,
        task: TaskRequest,
        *,
        timeouts: Timeouts,
        gate: Gate,
        reader: Loop,
        version: Callable[[], str | None],
        labels: Labels,
        on_over: Callable[[Run], None],
        on_left: Callable[[Run], None],
    ) -> None:
        self.job_id = task.job_id or str(uuid.uuid4())
        self.wire: WireRequest = encode(task, self.job_id)
        self.timeouts = timeouts
        self.gate = gate
        self.timeline = Timeline()
        self.last_failure: WorkerError | None = None
        self.session_id = task.session_id
        self.seed = task.seed
        self.reader = reader
        self.version = version
        self.labels = labels
        self._on_over = on_over
        self._on_left = on_left
        self._leave: Callable[[], None] | None = None
        self._exchange: Exchange | None = None
        self._backoff: Bell | None = None
        self._settled = False
        self.logged = False
        self._answer: Tally | None = None
        self._accepted_id: str | None = None  # the X-Request-Id that Started tells
        self._served_id: str | None = None
        # The clock that runs: its phase, since when (time.monotonic()), and its limit in seconds.
        # One tuple, since the reader's thread reads it while the worker writes.
        self._waits: tuple[Phase, float, float] = _FOR_NOTHING
        self._grace = -math.inf
        budget = (timeouts.total, task.deadline_ms and task.deadline_ms / 1000)
        self._deadline = self.timeline.submitted + min(
            (b for b in budget if b is not None), default=math.inf
        )

    @property
    def over(self) -> bool:
        """Whether the stream has ended; the caller may still have events to take."""
        return self.gate.over

    @property
    def time_left(self) -> float:
        """Seconds to the deadline; infinite without one."""
        return self._deadline - time.monotonic()

    def wait_for_turn(self) -> None:
        """All places are taken; the queued clock runs from submit. Before a worker can see it."""
        self._enter("queued", self.timeouts.queued, since=self.timeline.submitted)

    def admitted(self) -> None:
        """It has its place: from now on the deadline ends it."""
        if self._deadline < math.inf:
            self.reader.at(self._deadline, self.ring)
        if self.reader.ending:  # whoever ended what was live there may have come before
            self.crash(RuntimeError("the reader's thread died"))

    # The worker's side, in the order in which it happens.

    def taken(self) -> None:
        """A worker has it."""
        self.timeline.taken = time.monotonic()
        self._waits = _FOR_NOTHING

    def use(self, exchange: Exchange) -> None:
        """The next request goes out on this exchange; an end aborts it.

        Raises:
            Over: It must not go out any more.
        """
        self._waits = _FOR_NOTHING
        self._exchange = exchange
        self.check_not_over()  # after the line above: whoever ends the stream looks the other way

    def check_not_over(self) -> None:
        """For whoever goes on without waiting for a socket, which an end would shut down.

        Raises:
            Over: There is nothing left to do.
        """
        if self.over:
            raise Over

    def connected(self) -> None:
        """TCP stands; the timeout on the socket starts anew with each byte of a handshake."""
        self._enter("connect", self.timeouts.connect, since=time.monotonic())

    def requested(self) -> None:
        """The connection stands and the request is about to be written."""
        now = self.timeline.requested = time.monotonic()
        self._enter("first_token", self.timeouts.first_token, since=now)

    def accepted(self, request_id: str, answer: Tally) -> None:
        """The engine has answered 200; `Started` may wait a moment for the version."""
        self._served_id = request_id
        self._answer = answer
        if self._accepted_id is None:
            self._accepted_id = request_id
            if self.version() is not None:
                self.announce()
            else:
                self.reader.at(time.monotonic() + VERSION_PATIENCE, self._announce_late)

    def announce(self) -> None:
        """Put `Started`, if the engine has accepted and it is not there yet. From any thread."""
        if self._accepted_id is not None:
            version = self.version() or "unknown"
            self.gate.begin(Started(self.job_id, version, self._accepted_id))

    def version_came(self) -> None:
        """`Started` waits no longer for the version. From any thread; never raises."""
        try:
            self.announce()
        except BaseException as failure:
            self.crash(failure)

    def content_came(self) -> None:
        """Content was decoded."""
        now = self.timeline.last_content = time.monotonic()
        if self.timeline.first_content is None:
            self.timeline.first_content = now
            self.announce()
            self._enter("stall", self.timeouts.stall, since=now)
        else:
            self._waits = ("stall", now, self._waits[2])

    def pause(self, seconds: float) -> None:
        """Wait before the next attempt; an end wakes it.

        Raises:
            Over: The stream has ended meanwhile.
        """
        self._waits = _FOR_NOTHING
        self._backoff = Bell()
        until = time.monotonic() + seconds
        while not self.over and (left := until - time.monotonic()) > 0:
            self._backoff.wait(left)  # it may wake for no reason
        self.check_not_over()

    def handed_over(self, leave: Callable[[], None]) -> None:
        """The reader goes on; an end has it call this."""
        self._leave = leave

    def let_go(self) -> None:
        """Worker or reader leave: nothing is left to end, nor kept alive in a cycle."""
        self._exchange = self._backoff = self._leave = None
        self._on_left(self)

    # The ends. The first one counts.

    def succeed(self) -> None:
        """The engine's answer is whole."""
        assert self._answer is not None
        self.announce()
        choices = self._answer.choices
        end = End(
            self.metrics(),
            finish_reason=choices[0].finish_reason or "",
            stop_reason=choices[0].stop_reason,
            request_id=self._served_id,
            choices=choices,
            info=self._answer.info,
        )
        self._finish(end, wake=False)  # the rest of the body may still be read

    def fail(self, error: WorkerError) -> None:
        """End with an error; what has arrived stays."""
        error.job_id = self.job_id
        forget_frames(error)
        self.announce()
        self._finish(Error(error, self.metrics(), *facts_of(self._answer)))

    def end_with(self, failure: Exception) -> None:
        """End with what was raised: an error to tell, or our own code's. Raises no Exception."""
        if not isinstance(failure, WorkerError):
            self.crash(failure)
            return
        try:
            self.fail(failure)
        except Exception as own:
            self.crash(own)

    def crash(self, failure: BaseException) -> None:
        """End with what our own code has raised, wherever that was. Never raises.

        Invariant: after it the stream is over, though telling of it may fail once more.
        """
        error = unforeseen(failure)
        error.job_id = self.job_id
        with contextlib.suppress(BaseException):
            self.fail(error)
        with contextlib.suppress(BaseException):
            self._finish(Error(error))
        with contextlib.suppress(BaseException):
            self._settle()

    def cancel(self) -> None:
        """End as the caller asked: what was not taken yet is dropped."""
        ends = facts_of(self._answer)
        end = End(self.metrics(), "cancelled", None, self._served_id, *ends)
        try:
            self._finish(end, purge=True)
        except BaseException:  # a signal handler's, between two of its steps
            self.reader.soon(self._end_whole)
            raise

    def abandon(self) -> None:
        """End without a word: nobody listens any more."""
        try:
            self.gate.finish(None)
            self._settle()
            self.gate.drop()
        except BaseException:
            self.abandon_soon()
            raise

    def abandon_soon(self) -> None:
        """`abandon`, for finalizers: takes no lock."""
        try:
            self.reader.soon(self.abandon)
        except BaseException:  # a signal handler's: nobody will come again
            self.reader.soon(self.abandon)
            raise

    def ring(self, now: float) -> float | None:
        """An alarm: end what is due, else say when to look again. Never raises."""
        try:
            return None if self.over else self._end_what_is_due(now)
        except BaseException as failure:
            self.crash(failure)
            return None

    def _end_what_is_due(self, now: float) -> float | None:
        if now >= self._deadline:
            error = Timeout("deadline passed before the answer was whole", phase="deadline")
            error.__cause__ = self.last_failure
            self.fail(error)
            return None
        phase, since, limit = self._waits
        if phase == "stall":
            since = max(since, self.gate.held_back_until(now))
        due = max(since + limit, self._grace)
        if now >= due + _LATE:
            due = self._grace = now + _LATE
        elif now >= due and phase == "connect":
            self._waits = _FOR_NOTHING
            self._give_up_connecting()
            due = math.inf
        elif now >= due:
            self.fail(Timeout(f"{_WAITED_FOR[phase]} within {limit:g} s", phase=phase))
            return None
        due = min(due, self._deadline)
        return due if due < math.inf else None

    def _enter(self, phase: Phase, limit: float | None, *, since: float) -> None:
        self._waits = (phase, since, math.inf if limit is None else limit)
        if limit is not None:
            self.reader.at(since + limit, self.ring)

    def _give_up_connecting(self) -> None:
        """Fail this attempt, not the task: it may be tried again."""
        if self._exchange is not None:
            self._exchange.late = True
            self._exchange.abort()

    def _announce_late(self, now: float) -> None:
        self.version_came()

    def _finish(self, last: End | Error, *, purge: bool = False, wake: bool = True) -> None:
        won = self.gate.finish(last, purge=purge)
        self._settle(wake=wake or not won)  # whoever has won may have been broken off

    def _end_whole(self) -> None:
        """Do what is left of an end that was broken off, if one was begun."""
        self.gate.say_last()
        self._settle()

    def _settle(self, *, wake: bool = True) -> None:
        """What follows from an end, unless it was done: it may have been broken off half-way."""
        if self._settled or not self.over:
            return
        self.gate.bell.ring()
        self._on_over(self)
        if wake:
            self._wake_worker()
        self._settled = True

    def _wake_worker(self) -> None:
        """Whatever the worker blocks on, a socket or a backoff; or the reader, which never does."""
        exchange, backoff, leave = self._exchange, self._backoff, self._leave
        if exchange is not None:
            exchange.abort()
        if backoff is not None:
            backoff.ring()
        if leave is not None:
            self.reader.soon(leave)

    def _forget_in_child(self) -> None:
        """After a fork: the worker is not here; its socket is the parent's."""
        if self._exchange is not None:
            self._exchange._forget_in_child()

    def metrics(self) -> Metrics:
        """What it has cost so far."""
        return self.timeline.metrics(self._answer)


_FOR_NOTHING: tuple[Phase, float, float] = ("queued", 0.0, math.inf)

_WAITED_FOR = {
    "queued": "no worker came free",
    "first_token": "no content came from the engine",
    "stall": "no more content came from the engine",
}
