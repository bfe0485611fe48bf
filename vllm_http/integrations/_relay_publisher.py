"""The worker's end of the relay: from a `TokenStream` into Redis."""

from __future__ import annotations

import contextlib
import math
import queue
import time
from collections.abc import Callable
from typing import TypeVar

from redis import RedisError

from vllm_http import (
    Completion,
    End,
    Error,
    StreamingError,
    Token,
    TokenEvent,
    TokenStream,
    WorkerError,
)

from .._errors import closed_before_end
from ._relay_channel import AWAY, BATCH, Channel, Superseded


T = TypeVar("T")

_POLL = 0.5
"""Seconds of silence after which the lease is renewed and a cancel looked for."""

_PAUSE = 0.05, 0.5
"""The first and the longest wait before Redis is asked again."""


class Publisher:
    """Sends the events of one stream, on the thread that calls `run`.

    Args:
        channel: The job's.
        stream: Not begun yet. It is closed in the end, whatever happens.
        retry_in: See `Relay.publish`.
    """

    def __init__(
        self,
        channel: Channel,
        stream: TokenStream,
        retry_in: Callable[[WorkerError], float | None] | None,
    ) -> None:
        self._channel = channel
        self._stream = stream
        self._retry_in = retry_in
        self._poll = min(_POLL, channel.terms.lease / 3)
        self._generation = ""
        self._sent_at = -math.inf
        self._sent = 0  # events that Redis has acknowledged
        self._tokens = 0  # of the model's, so far
        self._unsent: list[str] = []
        self._last: End | Error | None = None

    def run(self) -> Completion:
        """Publish until the end; see `Relay.publish`."""
        with self._stream:
            try:
                self._publish()
            except (Superseded, WorkerError):
                raise  # Redis takes nothing more of this
            except BaseException as interruption:
                self._leave(interruption)
                raise
        return self._stream.result()

    def _publish(self) -> None:
        self._generation = self._insist(self._channel.begin)
        while self._last is None:
            self._take(self._poll)
            self._gather()
            if self._send():
                self._stream.cancel()
            self._sent_at = time.monotonic()

    def _gather(self) -> None:
        """Wait until the interval is over, and take what has come."""
        left = self._sent_at + self._channel.terms.interval - time.monotonic()
        if self._last is None and left > 0:
            time.sleep(left)
            self._take(0.0)

    def _take(self, wait: float) -> None:
        """Wait for an event, and take all others that are there."""
        while self._last is None and len(self._unsent) < BATCH:
            try:
                event = self._stream.get(timeout=wait)
            except queue.Empty:
                return
            if event is None:
                event = Error(closed_before_end(self._stream.job_id))
            self._note(event)
            wait = 0.0

    def _note(self, event: TokenEvent) -> None:
        self._unsent.append(event.to_json())
        if isinstance(event, Token):
            self._tokens += len(event.token_ids or ()) or 1
        elif isinstance(event, (End, Error)):
            self._last = event

    def _send(self) -> bool:
        """Send what was taken, and return whether a cancel was asked for."""
        lease, ended = self._channel.terms.lease, self._last is not None
        if isinstance(self._last, Error) and self._retry_in is not None:
            again = self._retry_in(self._last.error)
            if again is not None:
                del self._unsent[-1]
                lease, ended = lease + again, False
        if ended:
            lease = 0.0
        cancelled = self._insist(lambda: self._append(ended, lease))
        self._sent += len(self._unsent)
        self._unsent.clear()
        return cancelled

    def _append(self, ended: bool, lease: float) -> bool:
        return self._channel.append(
            self._generation,
            self._sent,
            self._unsent,
            ended=ended,
            lease=lease,
            tokens=self._tokens,
        )

    def _leave(self, interruption: BaseException) -> None:
        """Tell followers that this thread was told to stop; one try, since it must hurry.

        After an Exception (a time limit) nobody will go on, and they need not wait. After a
        SystemExit or the like the process ends, and another may get the task; if it was revoked,
        whoever tells followers so needs the count.
        """
        if not self._generation:
            return
        self._stream.cancel()
        with contextlib.suppress(queue.Empty):
            while (event := self._stream.get(timeout=0)) is not None:
                if isinstance(event, End):
                    self._tokens = event.metrics.tokens_generated
        if ended := isinstance(interruption, Exception):
            name = type(interruption).__name__
            message = f"the worker was interrupted by {name}"
            self._note(Error(StreamingError(message, job_id=self._stream.job_id)))
        with contextlib.suppress(RedisError, Superseded, WorkerError):
            self._append(ended, lease=0.0)

    def _insist(self, step: Callable[[], T]) -> T:
        return insist(step, self._channel.terms.outage, self._stream.job_id)


def insist(step: Callable[[], T], patience: float, job_id: str) -> T:
    """Do a step in Redis; while Redis is away, again and again.

    Raises:
        StreamingError: Redis refused it, or stayed away for `patience` seconds.
    """
    until = time.monotonic() + patience
    pause, longest = _PAUSE
    while True:
        try:
            return step()
        except AWAY as away:
            if time.monotonic() + pause > until:
                message = f"redis cannot be reached since {patience:g} s ({type(away).__name__})"
                raise StreamingError(message, job_id=job_id) from away
            time.sleep(pause)
            pause = min(2 * pause, longest)
        except RedisError as refusal:
            message = f"redis refused a command ({type(refusal).__name__})"
            raise StreamingError(message, retriable=False, job_id=job_id) from refusal
