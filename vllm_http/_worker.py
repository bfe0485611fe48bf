"""One task on a worker thread: open (requests, tenacity), then read to the end.

`open` ends with the first content decoded and hands on the body, the decoder and those tokens;
`read` starts there, and is the only part that something other than this thread could take over.
"""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from ._connections import Aborted, Exchange
from ._decoder import Decoder
from ._errors import EngineUnavailable, StreamingError, Timeout, Unknown, WorkerError
from ._events import Token
from ._redact import Redactor
from ._run import Over, Run
from ._settings import RetryPolicy
from ._transport import Body, Transport
from ._transport_errors import StaleConnection


_AT_ONCE = 0.02
_LATER = 0.2
"""Seconds that the end of a body may come after ``[DONE]``: before `End` is told, and after it."""


@dataclass(slots=True)
class _Opened:
    """What `open` hands to `read`."""

    body: Body
    decoder: Decoder
    tokens: list[Token]


class Worker:
    """Serves tasks, each on the thread that calls `serve`; shared by all of an adapter's threads.

    Args:
        transport: To the engine.
        retry: How often to try again.
        max_event_bytes: The largest event that is accepted.
        redact: Applied to the engine's own text.
    """

    def __init__(
        self, transport: Transport, retry: RetryPolicy, max_event_bytes: int, redact: Redactor
    ) -> None:
        self._transport = transport
        self._retry = retry
        self._max_event_bytes = max_event_bytes
        self._redact = redact

    def serve(self, run: Run) -> None:
        """Take the task to its end. Never raises; blocks on the engine, the caller or a backoff."""
        try:
            run.taken()
            self._read(run, self._open(run))
        except Over:
            pass
        except WorkerError as error:
            run.fail(error)
        except BaseException as failure:
            # Its text might hold anything, so the message has the type alone; the cause is kept.
            unknown = Unknown(f"unforeseen {type(failure).__name__} in the worker")
            unknown.__cause__ = failure
            run.fail(unknown)
        finally:
            run.let_go()

    def _open(self, run: Run) -> _Opened:
        retrying = Retrying(
            stop=stop_after_attempt(self._retry.attempts),
            wait=self._backoff,
            retry=retry_if_exception(lambda failure: self._may_retry(run, failure)),
            sleep=run.pause,
            reraise=True,
        )
        return retrying(self._attempt, run)

    def _attempt(self, run: Run) -> _Opened:
        run.timeline.attempts += 1
        try:
            return self._try(run, fresh=False)
        except StaleConnection:
            # The engine never saw it: it had closed the idle connection already.
            return self._try(run, fresh=True)

    def _try(self, run: Run, *, fresh: bool) -> _Opened:
        request_id = uuid.uuid4().hex
        headers = {"X-Request-Id": request_id, "X-Correlation-Id": run.wire.correlation_id}
        exchange = Exchange(run.connected, run.requested, fresh=fresh)
        run.use(exchange)
        try:
            body = self._transport.stream(
                exchange, run.wire.path, run.wire.body, headers, run.timeouts.connect
            )
        except Aborted:
            raise Over from None
        try:
            decoder = Decoder(
                choices=run.wire.choices,
                max_event_bytes=self._max_event_bytes,
                redact=self._redact,
            )
            run.accepted(request_id, decoder)
            return _Opened(body, decoder, _first_tokens(body, decoder))
        except BaseException:
            body.close()  # before the next attempt: two copies would double the engine's load
            raise

    def _read(self, run: Run, opened: _Opened) -> None:
        body, decoder, tokens = opened.body, opened.decoder, opened.tokens
        seen = 0
        try:
            while True:
                if decoder.content != seen:
                    seen = decoder.content
                    run.content_came()
                    if tokens and not run.gate.put_tokens(tokens):
                        return
                if decoder.over or not (chunk := body.read()):
                    break
                tokens = decoder.feed(chunk)
            decoder.finish()
            body.drain(_AT_ONCE)  # so that a task submitted upon the End finds the connection free
            run.succeed()
            body.drain(_LATER)
        finally:
            body.close()

    def _backoff(self, state: RetryCallState) -> float:
        failure = state.outcome.exception() if state.outcome is not None else None
        jitter = random.uniform(0.0, self._retry.bound(state.attempt_number))
        asked = failure.retry_after_ms if isinstance(failure, WorkerError) else None
        return max(jitter, (asked or 0) / 1000)

    def _may_retry(self, run: Run, failure: BaseException) -> bool:
        if run.over or not isinstance(failure, WorkerError):
            return False
        # 500 is ambiguous (vLLM 0.32: engine dead, shutting down, or a passing failure): once more.
        second_500 = failure.status == 500 and run.had_500
        run.had_500 = run.had_500 or failure.status == 500
        run.last_failure = failure
        wait = (failure.retry_after_ms or 0) / 1000
        if wait > min(self._retry.max_retry_after, run.time_left):
            return False
        if failure.status is not None:
            return failure.status in (429, 500, 502, 503, 504) and not second_500
        if isinstance(failure, Timeout):
            return failure.phase == "connect"
        if isinstance(failure, EngineUnavailable):
            return failure.retriable
        return isinstance(failure, StreamingError)


def _first_tokens(body: Body, decoder: Decoder) -> list[Token]:
    """Read until the engine has begun to answer.

    Raises:
        WorkerError: It ended or broke before.
    """
    while True:
        chunk = body.read()
        tokens = decoder.feed(chunk)
        if decoder.begun:
            return tokens
        if decoder.over or not chunk:
            decoder.finish()
            raise StreamingError("stream ended before any content")
