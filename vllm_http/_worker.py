"""The first half of a task, on a worker thread: it is opened, and tried again where that may help.

It ends with the first content decoded; `Reading` takes the body, the decoder and those tokens.
"""

from __future__ import annotations

import contextlib
import uuid
from dataclasses import dataclass

from ._connections_exchange import Aborted, Exchange
from ._decoder import AnswerDecoder, Decoder, DocumentDecoder
from ._errors import WorkerError
from ._events import Token
from ._failures import CUT
from ._reading import Reading
from ._redact import Redactor
from ._refusal import page_instead
from ._retry import try_again
from ._run import Over, Run
from ._settings import RetryPolicy
from ._transport import Transport
from ._transport_body import Body
from ._version import EngineVersion
from ._web_page import page_in


_LOOKED_AT = 1024  # bytes, for who sends a web page as an event stream


@dataclass(slots=True)
class _Opened:
    """What is handed on."""

    body: Body
    decoder: AnswerDecoder
    tokens: list[Token]


class Worker:
    """Opens tasks, each on the thread that calls `serve`; shared by all of an adapter's threads.

    Args:
        transport: To the engine.
        version: Asked for beside the first task.
        retry: How often to try again.
        max_event_bytes: The largest event that is accepted.
        redact: Applied to the engine's own text.
    """

    def __init__(
        self,
        transport: Transport,
        version: EngineVersion,
        retry: RetryPolicy,
        max_event_bytes: int,
        redact: Redactor,
    ) -> None:
        self._transport = transport
        self._version = version
        self._retry = retry
        self._max_event_bytes = max_event_bytes
        self._redact = redact

    def serve(self, run: Run) -> None:
        """Open the task, and hand it on. Never raises; blocks on the engine or a backoff."""
        try:
            self._serve(run)
        except BaseException as failure:  # of ours, be it in telling of another one
            run.crash(failure)
            with contextlib.suppress(BaseException):
                run.let_go()

    def _serve(self, run: Run) -> None:
        try:
            run.taken()
            self._version.expect(run)
            opened = self._open(run)
        except Over:
            run.let_go()
        except WorkerError as failure:
            run.fail(failure)
            run.let_go()
        else:
            try:
                Reading(run, opened.body, opened.decoder).begin(opened.tokens)
            except BaseException:
                opened.body.close()  # nobody else has it
                raise

    def _open(self, run: Run) -> _Opened:
        try:
            return self._attempt(run)
        except WorkerError as failure:
            failures = [failure]
        return try_again(run, self._retry, lambda: self._attempt(run), failures)

    def _attempt(self, run: Run) -> _Opened:
        run.timeline.attempts += 1
        request_id = uuid.uuid4().hex
        headers = {"X-Request-Id": request_id, "X-Correlation-Id": run.wire.correlation_id}

        def resend(exchange: Exchange) -> None:
            run.timeline.resend()
            run.use(exchange)

        exchange = Exchange(
            run.connected,
            run.requested,
            on_resend=resend,
            on_refusal=run.use,  # its clocks stand still: the status wins
            fresh=run.timeline.resent,
        )
        run.use(exchange)
        try:
            body = self._transport.stream(
                exchange,
                run.wire.path,
                run.wire.body,
                headers,
                run.timeouts.connect,
                run.wire.answer,
            )
        except Aborted:
            raise Over from None
        try:
            decoder = (Decoder if run.wire.streamed else DocumentDecoder)(
                choices=run.wire.choices,
                max_event_bytes=self._max_event_bytes,
                redact=self._redact,
            )
            run.accepted(request_id, decoder)
            return _Opened(body, decoder, self._first_tokens(run, body, decoder))
        except BaseException:
            body.release()  # before the next attempt: two copies would double the engine's load
            raise

    def _first_tokens(self, run: Run, body: Body, decoder: AnswerDecoder) -> list[Token]:
        """Read until the engine has begun to answer.

        Raises:
            WorkerError: It ended or broke before.
            Over: The stream has ended meanwhile: what is held of a flood may last for minutes.
        """
        beginning = b""
        while True:
            run.check_not_over()
            chunk = body.read()
            if len(beginning) < _LOOKED_AT:
                beginning += chunk[:_LOOKED_AT]
            tokens = decoder.feed(chunk)
            if decoder.begun:
                return tokens
            if decoder.over or not chunk:
                if (page := page_in(beginning)) is not None:
                    raise page_instead(self._transport.asked(run.wire.path), self._redact(page))
                decoder.finish()
                raise CUT.error("stream ended before any content")
