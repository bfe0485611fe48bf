"""The caller's end of a task."""

from __future__ import annotations

import queue
import time
import weakref
from collections.abc import Iterator

from ._collector import Collector
from ._events import Completion, End, Error, Token, TokenEvent
from ._receiver import Receiver
from ._run import Run


class TokenStream(Iterator[TokenEvent]):
    """The events of one task: `Started`, `Token`s, then one `End` or `Error`. Made by `submit`.

    An iterator and a context manager. Leaving the ``with`` block, or dropping the last reference,
    cancels the task on the engine. Take the events from one thread, by one way only (iteration,
    `get`, `text` or `result`); `cancel` and `close` may be called from any.

    Attributes:
        job_id: The task's job.
        receiver: The `queue.Queue` that the events come through.
    """

    def __init__(self, run: Run, receiver: Receiver) -> None:
        self.job_id: str = run.job_id
        self.receiver: Receiver = receiver
        self._run = run
        self._ended = False  # the last event was taken
        self._collector = Collector(run.job_id)
        # Through the reader's thread: a finalizer may run inside one of our own locks.
        self._abandon = weakref.finalize(self, run.abandon_soon)
        self._abandon.atexit = False  # the process's end closes the sockets anyway

    def __iter__(self) -> TokenStream:
        return self

    def __next__(self) -> TokenEvent:
        if self._ended:
            raise StopIteration
        try:
            event = self.receiver.get()
        except queue.Empty:
            self._ended = True
            raise StopIteration from None
        if isinstance(event, (End, Error)):
            self._end(event)
        return event

    def __enter__(self) -> TokenStream:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "ended" if self._ended else "done" if self.done else "running"
        return f"<TokenStream {self.job_id!r} {state}, {self.receiver.qsize()} events waiting>"

    @property
    def done(self) -> bool:
        """Whether the task is over; events may still wait to be taken."""
        return self._run.over

    def get(self, timeout: float | None = None) -> TokenEvent | None:
        """The next event; None once all were taken.

        Args:
            timeout: Seconds to wait; None waits until there is one.

        Raises:
            queue.Empty: None came in time; the stream goes on.
        """
        if self._ended:
            return None
        try:
            event = self.receiver.get(timeout=timeout)
        except queue.Empty:
            if not self._run.over or self.receiver.qsize():
                raise
            self._ended = True  # closed by its owner
            return None
        if isinstance(event, (End, Error)):
            self._end(event)
        return event

    def text(self) -> Iterator[str]:
        """The text of choice 0, piece by piece.

        Raises:
            WorkerError: What an `Error` event holds.
        """
        for event in self:
            if isinstance(event, Token) and event.choice == 0 and event.text:
                yield event.text
            elif isinstance(event, Error):
                raise event.error

    def result(self, timeout: float | None = None) -> Completion:
        """Drain what is left, and return it as one value.

        After some events were taken otherwise, it covers the rest. May be called again, after a
        timeout (it goes on and returns the whole) and after the end (it says the same).

        Args:
            timeout: Seconds to wait; None waits for the end.

        Raises:
            TimeoutError: It did not end in time. The stream goes on.
            WorkerError: What an `Error` event holds; its ``partial`` is what had come.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._ended:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                event = self.get(timeout=left)
            except queue.Empty:
                raise TimeoutError(f"no end of the stream within {timeout:g} s") from None
            if event is not None:
                self._collector.take(event)
        completion = self._collector.completion()
        if completion.error is not None:
            raise completion.error
        return completion

    def cancel(self) -> None:
        """End the task now, on the engine too. From any thread; idempotent; never blocks.

        Tokens that were not taken yet are dropped, and an `End` with finish_reason "cancelled"
        follows; the engine's own `End` if it was done already.
        """
        self._run.cancel()

    def close(self) -> None:
        """Cancel if unfinished, and drop what was not taken; iteration then just stops."""
        self._run.abandon()
        self._abandon.detach()  # last: it is for those who did not get as far

    def _end(self, last: End | Error) -> None:
        self._ended = True
        self._collector.take(last)  # for a `result` that comes after the end
        self._abandon.detach()
