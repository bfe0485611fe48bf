"""The caller's end of a task."""

from __future__ import annotations

import queue
import time
import weakref
from collections.abc import Iterator

from ._collector import Collector
from ._errors import closed_before_end
from ._events import Completion, End, Error, Token, TokenEvent
from ._receiver import Receiver
from ._run import Run


class TokenStream(Iterator[TokenEvent]):
    """The events of one task: `Started`, `Token`s, then one `End` or `Error`. Made by `submit`.

    An iterator and a context manager. Leaving the ``with`` block, or dropping the last reference,
    cancels the task on the engine. Take the events from one thread at a time; `cancel` and `close`
    may be called from any. However they are taken (iteration, `get`, `text`, `receiver`), `result`
    returns the whole answer: the stream keeps its events, about 200 bytes each, until it is
    dropped. `VllmHttpAdapter.stream_many` keeps none.

    Attributes:
        job_id: The task's job.
        receiver: The `queue.Queue` that the events come through.
    """

    def __init__(self, run: Run, receiver: Receiver) -> None:
        self.job_id: str = run.job_id
        self.receiver: Receiver = receiver
        self._run = run
        self._ended = False  # the last event was taken
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
            self._end()
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
            self._end()
        return event

    def text(self) -> Iterator[str]:
        """The text of choice 0, piece by piece. It just stops only where an `End` closed it.

        Raises:
            WorkerError: What an `Error` event holds.
            AdapterClosed: The stream was closed before its end.
        """
        for event in self:
            if isinstance(event, Token) and event.choice == 0 and event.text:
                yield event.text
        last = self._last()
        if isinstance(last, Error):
            raise last.error

    def result(self, timeout: float | None = None) -> Completion:
        """Drain what is left, and return the whole answer as one value.

        It has all text, also what was taken before, by whichever way. May be called again, after a
        timeout (it goes on) and after the end (it says the same). After a `cancel` it has what was
        taken before that.

        Args:
            timeout: Seconds to wait; None waits for the end.

        Raises:
            TimeoutError: It did not end in time. The stream goes on.
            WorkerError: What an `Error` event holds; its ``partial`` is what had come.
            AdapterClosed: The stream was closed before its end; its ``partial`` is what was taken.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._ended:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                self.get(timeout=left)
            except queue.Empty:
                raise TimeoutError(f"no end of the stream within {timeout:g} s") from None
        collector = Collector(self.job_id)
        for event in self.receiver.kept:
            collector.take(event)
        collector.take(self._last())
        completion = collector.completion()
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
        """Cancel if unfinished, and drop what was not taken; iteration then just stops.

        `result` still returns the answer if its `End` was taken before; otherwise it raises.
        """
        self._run.abandon()
        self._abandon.detach()  # last: it is for those who did not get as far

    def _last(self) -> End | Error:
        """What closed the stream, which has ended; an `Error` if no event did."""
        last = self.receiver.kept[-1] if self.receiver.kept else None
        if isinstance(last, (End, Error)):
            return last
        return Error(closed_before_end(self.job_id))

    def _end(self) -> None:
        self._ended = True
        self._abandon.detach()
