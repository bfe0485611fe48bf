"""`VllmHttpAdapter`: what users hold."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping

from ._adapter_calls import Calls
from ._bulk import map_tasks, stream_many
from ._errors import AdapterClosed
from ._events import Completion, TokenEvent
from ._fork import tell_in_child
from ._frames import frameless
from ._gate import Gate
from ._limits import check_id, flag
from ._options import (
    check_cert,
    check_count,
    check_headers,
    check_proxies,
    check_type,
    check_verify,
    secrets_in,
)
from ._reader import Reader
from ._receiver import Receiver
from ._redact import Redactor
from ._request import parse_base_url
from ._run import Run
from ._settings import Labels, RetryPolicy, Timeouts
from ._slots import Slots
from ._stream import TokenStream
from ._task import TaskRequest
from ._threads import deadline_in
from ._transport_documents import DocumentTransport
from ._transport_endpoint import Endpoint
from ._worker import Worker


class VllmHttpAdapter(Calls):
    """A synchronous, threaded client of one vLLM server. Thread-safe; a context manager.

    Make one for each process and engine, and share it among threads. After a fork the child's
    copy works with connections and threads of its own.

    Args:
        base_url: Such as ``"http://localhost:8000"``; a trailing ``/`` or ``/v1`` is dropped,
            another path prefix is kept. Credentials in it are refused.
        api_key: Sent as ``Authorization: Bearer``; None or "" sends none.
        timeouts: The clocks of each task.
        retry: How often to try again before the first content, or before the answer to a call.
        max_concurrency: Tasks that run at once, each on a connection of its own.
        max_pending: Tasks that may wait beyond those.
        queue_size: Events that may wait for a slow caller before reading stops.
        max_event_bytes: The largest server-sent event that is accepted.
        headers: Sent with every request besides our own.
        proxies: As requests takes them, such as ``{"http": "http://proxy:3128"}``.
        trust_env: Whether the environment's proxies, CA bundle and ~/.netrc count.
        verify: Check the server's certificate: True, False, or a path to a CA bundle.
        cert: A client certificate: a path to a file with its key, or a pair of paths. The key
            has no password.
        pool_id: Labels log records.
        replica_id: Labels log records.

    Raises:
        InvalidRequest: An argument is out of its limits; named with its value.
    """

    @frameless
    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen
        max_concurrency: int = 256,
        max_pending: int = 1024,
        queue_size: int = 1024,
        max_event_bytes: int = 8 * 2**20,
        headers: Mapping[str, str] | None = None,
        proxies: Mapping[str, str] | None = None,
        trust_env: bool = False,
        verify: bool | str | os.PathLike[str] = True,
        cert: str | tuple[str, str] | None = None,
        pool_id: str | None = None,
        replica_id: str | None = None,
    ) -> None:
        self.base_url = parse_base_url(base_url)
        check_type("timeouts", timeouts, Timeouts)
        check_type("retry", retry, RetryPolicy)
        self._timeouts = timeouts
        self._queue_size = check_count("queue_size", queue_size, least=1)
        check_id("pool_id", pool_id)
        check_id("replica_id", replica_id)
        self._labels = Labels(pool_id, replica_id)
        concurrency = check_count("max_concurrency", max_concurrency, least=1)
        self._max_concurrency = concurrency
        flag("trust_env", trust_env)
        endpoint = Endpoint(
            base_url=self.base_url,
            headers=check_headers(headers, api_key),
            proxies=check_proxies(proxies),
            verify=check_verify(verify),
            cert=check_cert(cert),
            trust_env=trust_env,
            connections=concurrency + 4,  # the small calls' as well
        ).with_environment()
        redact = Redactor(secrets_in(endpoint.headers, endpoint.proxies))
        self._transport = DocumentTransport(endpoint, redact)
        max_event_bytes = check_count("max_event_bytes", max_event_bytes, least=1)
        super().__init__(self._transport, timeouts, retry)
        self._worker = Worker(self._transport, self._version, retry, max_event_bytes, redact)
        self._slots = Slots(
            concurrency, check_count("max_pending", max_pending, least=0), self._worker.serve
        )
        self._renew_reader()
        self._pid = os.getpid()
        tell_in_child(self)

    @frameless
    def submit(self, task: TaskRequest, *, timeouts: Timeouts | None = None) -> TokenStream:
        """Start a task and return its stream at once.

        Args:
            task: Read now; later changes to it do nothing.
            timeouts: Instead of the adapter's, for this task.

        Raises:
            InvalidRequest: The task is out of its limits, or its job_id is live.
            CapacityExceeded: `max_concurrency` tasks run and `max_pending` wait.
            AdapterClosed: `close` was called.
        """
        receiver = Receiver(self._queue_size)
        run = self._prepare(task, receiver, timeouts)
        tell_in_child(receiver)
        stream = TokenStream(run, receiver)
        try:
            self._slots.admit(run)
        except BaseException:  # also a signal handler's, after the engine may have it
            run.abandon()
            raise
        return stream

    @frameless
    def map(
        self, tasks: Iterable[TaskRequest], *, in_flight: int | None = None, ordered: bool = True
    ) -> Iterator[Completion]:
        """Run many tasks and yield their completions.

        A task that fails, or is refused, is a `Completion` with ``error`` set and stops nothing.
        Closing or dropping the generator cancels what runs.

        Args:
            tasks: Any iterable, also an endless one: it is advanced on your thread, as places
                come free.
            in_flight: Tasks at once; those that are finished but not yet yielded count. At most,
                and by default, `max_concurrency`.
            ordered: Yield in the order of the tasks; else as they finish.

        Raises:
            InvalidRequest: `in_flight` is less than 1, or `ordered` neither True nor False.
        """
        flag("ordered", ordered)
        room = self._in_flight(in_flight)
        return map_tasks(self._prepare, self._slots.admit, tasks, room, self._queue_size, ordered)

    @frameless
    def stream_many(
        self, tasks: Iterable[TaskRequest], *, in_flight: int | None = None
    ) -> Iterator[tuple[TaskRequest, TokenEvent]]:
        """Run many tasks and yield their events as they come, each with its task.

        All events pass through one queue of `queue_size`, so one thread can drain a thousand
        streams. Each task's events have their usual order; a refused task yields `Error` alone.
        Closing or dropping the generator cancels what runs.

        Args:
            tasks: Any iterable, also an endless one: it is advanced on your thread, as places
                come free.
            in_flight: Tasks at once. At most, and by default, `max_concurrency`.

        Raises:
            InvalidRequest: `in_flight` is less than 1.
        """
        room = self._in_flight(in_flight)
        return stream_many(self._prepare, self._slots.admit, tasks, room, self._queue_size)

    def _in_flight(self, wanted: int | None) -> int:
        if wanted is None:
            return self._max_concurrency
        return min(check_count("in_flight", wanted, least=1), self._max_concurrency)

    def _prepare(self, task: TaskRequest, gate: Gate, timeouts: Timeouts | None = None) -> Run:
        """The run of a task, for `Slots.admit`; nobody else knows of it yet.

        Raises:
            InvalidRequest, CapacityExceeded, AdapterClosed: As `submit`.
        """
        if os.getpid() != self._pid:  # forked past Python's at-fork hooks
            self._forget_in_child()
        check_type("task", task, TaskRequest)
        task.validate()
        timeouts = self._timeouts if timeouts is None else timeouts
        check_type("timeouts", timeouts, Timeouts)
        self._slots.check_room(task.job_id)  # before its JSON is made, which may be large
        return Run(
            task,
            timeouts=timeouts,
            gate=gate,
            reader=self._reader.start(),
            version=self._version.now,
            labels=self._labels,
            on_over=self._slots.leave,
            on_left=self._slots.release,
        )

    @property
    def running(self) -> int:
        """Tasks of this adapter that run, of `max_concurrency`. Any thread may ask.

        A task counts until its connection is free again, a moment after its last event.
        """
        return self._slots.running

    @property
    def waiting(self) -> int:
        """Tasks of this adapter that wait to run, of `max_pending`. Any thread may ask."""
        return self._slots.waiting

    def cancel(self, job_id: str) -> None:
        """End a task as `TokenStream.cancel` does; unknown and finished ids are fine.

        Once it has returned, no further `Token` comes out of the stream.
        """
        run = self._slots.find(job_id)
        if run is not None:
            run.cancel()

    def close(self, timeout: float = 5.0) -> None:
        """End all that runs with `AdapterClosed`, and wait for the threads. Idempotent.

        Args:
            timeout: Seconds to wait at most; infinity for as long as it takes. A thread inside a
                DNS look-up or a TCP connect is left to finish it.
        """
        deadline = deadline_in(timeout)
        for run in self._slots.close():
            run.end_with(AdapterClosed("the adapter was closed"))
        self._asker.close(_left(deadline))
        self._version.join(_left(deadline))
        self._slots.join(_left(deadline))  # what they opened goes to the reader
        self._reader.stop(_left(deadline))
        self._slots.join(_left(deadline))  # what it let go is logged on their threads
        self._transport.close()

    def __enter__(self) -> VllmHttpAdapter:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<VllmHttpAdapter {self.base_url}>"

    def _forget_in_child(self) -> None:
        """After a fork: start anew; called by the at-fork hook."""
        self._pid = os.getpid()
        self._slots._forget_in_child()
        self._asker._forget_in_child()
        self._version._forget_in_child()
        self._transport._forget_in_child()
        self._reader._forget_in_child()
        self._renew_reader()

    def _renew_reader(self) -> None:
        self._reader = self._slots.reader = Reader(self._slots.crash_all)


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())
