"""The worker's end of the relay: from a `TokenStream` into Redis."""

from __future__ import annotations

import contextlib
import math
import queue
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from vllm_http import (
    Completion,
    End,
    Error,
    Metrics,
    StreamingError,
    Token,
    TokenEvent,
    TokenStream,
    WorkerError,
)

from .._errors import closed_before_end
from ._relay_channel import BATCH, Cancelled, Channel, Superseded
from ._relay_failures import FAILURES, insist


T = TypeVar("T")

_POLL = 0.5
"""Seconds of silence after which the lease is renewed and a cancel looked for."""


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
            except Cancelled:
                return self._cancelled()
            except Superseded:
                raise
            except WorkerError as error:
                self._give_up(error)
                raise
            except BaseException as interruption:
                self._leave(interruption)
                raise
        return self._stream.result()

    def _publish(self) -> None:
        nonce = uuid.uuid4().hex
        self._generation = self._insist(lambda: self._channel.begin(nonce))
        if self._send():  # before it began: nothing of the answer is wanted, however short it is
            end = self._cancelled()
            self._note(End(end.metrics or Metrics(), finish_reason="cancelled"))
            self._send()
            raise Cancelled
        while self._last is None:
            self._take(self._poll)
            self._gather()
            if self._send():
                self._stream.cancel()
            self._sent_at = time.monotonic()

    def _cancelled(self) -> Completion:
        """What the engine had said until it heard of it; followers have seen "cancelled"."""
        self._stream.cancel()
        try:
            whole = self._stream.result()
        except WorkerError as error:  # it failed as well, as after a long stop of the process
            if error.partial is None:
                raise
            whole = error.partial
        return replace(whole, finish_reason="cancelled", error=None)

    def _gather(self) -> None:
        """Wait until the interval is over, and take what has come."""
        left = self._sent_at + self._channel.terms.interval - time.monotonic()
        if self._last is None and left > 0:
            time.sleep(left)
            self._take(0.0)

    def _take(self, wait: float) -> None:
        """Wait for an event, and take all others that are there, but one: a last word fits in."""
        while self._last is None and len(self._unsent) < BATCH - 1:
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
        away = self._away_for(self._last)
        if away is not None:
            del self._unsent[-1]  # followers do not hear of a failure that is tried again
        ended = self._last is not None and away is None
        cancelled = self._insist(lambda: self._append(ended, away))
        self._sent += len(self._unsent)
        self._unsent.clear()
        return cancelled

    def _away_for(self, last: End | Error | None) -> float | None:
        """Seconds until another publisher takes over, if one will."""
        if isinstance(last, Error) and self._retry_in is not None:
            return self._retry_in(last.error)
        return None

    def _append(self, ended: bool, away: float | None = None, lease: float | None = None) -> bool:
        if lease is None:
            lease = 0.0 if ended else self._channel.terms.lease
        return self._channel.append(
            self._generation,
            self._sent,
            self._unsent,
            ended=ended,
            lease=lease,
            away=away or 0.0,
            tokens=self._tokens,
        )

    def _give_up(self, error: WorkerError) -> None:
        """Tell followers that Redis took no more; one try, which may well fail too."""
        if not self._generation:
            return
        away = self._away_for(Error(error))
        if away is not None:
            self._unsent.clear()  # the next publisher says it all again
        elif self._last is None:
            self._note(Error(error))
        with contextlib.suppress(*FAILURES, Superseded, Cancelled, WorkerError):
            self._append(away is None, away)

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
        with contextlib.suppress(*FAILURES, Superseded, Cancelled, WorkerError):
            self._append(ended, lease=0.0)

    def _insist(self, step: Callable[[], T]) -> T:
        return insist(step, self._channel.terms.outage, self._stream.job_id)
