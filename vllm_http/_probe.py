"""The small calls: health, models, metrics, version. Each answers within five seconds in all."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
import uuid
from typing import Any

from ._connections import Exchange
from ._engine import EngineMetrics, EngineProps, HealthState, HealthStatus, Model
from ._errors import AdapterClosed, StreamingError, Timeout, WorkerError
from ._metrics_text import read_metrics
from ._threads import start_thread
from ._transport import Transport
from ._transport_errors import StaleConnection


WITHIN = 5.0
"""Seconds for one call of the public API, however many requests it makes."""


class Probe:
    """Asks the engine about itself. Thread-safe.

    Each request runs on a thread of its own, since nothing can interrupt a DNS look-up: the
    caller leaves in time, the thread when it can.

    Args:
        transport: To the engine.
        connect_timeout: Seconds; the time for the whole call is the limit anyway.
    """

    def __init__(self, transport: Transport, connect_timeout: float | None) -> None:
        self._transport = transport
        self._connect_timeout = connect_timeout or WITHIN
        self._closed = False
        self._forget_in_child()

    def _forget_in_child(self) -> None:
        """After a fork: the parent's calls are not here."""
        self._lock = threading.RLock()
        self._live: dict[threading.Thread, Exchange] = {}

    def health(self) -> HealthStatus:
        """See `VllmHttpAdapter.health`."""
        began = time.monotonic()
        state, message = self._judge(began + WITHIN)
        return HealthStatus(state, message, round((time.monotonic() - began) * 1000, 3))

    def models(self, until: float | None = None) -> list[Model]:
        """See `VllmHttpAdapter.models`."""
        listed = self._get_json("/v1/models", until or time.monotonic() + WITHIN)
        entries = listed.get("data") if isinstance(listed, dict) else None
        if not isinstance(entries, list):
            raise StreamingError("/v1/models: not a list of models", retriable=False)
        return [_model(entry) for entry in entries if isinstance(entry, dict)]

    def props(self, known_version: str) -> EngineProps:
        """See `VllmHttpAdapter.props`."""
        until = time.monotonic() + WITHIN
        models = self.models(until)
        with contextlib.suppress(WorkerError):
            known_version = known_version or self.version(until)
        return EngineProps(
            engine_type="vllm",
            engine_version=known_version or "unknown",
            models=[model.id for model in models],
            max_model_len=models[0].max_model_len if models else None,
        )

    def metrics(self) -> EngineMetrics:
        """See `VllmHttpAdapter.metrics`."""
        text = self._get("/metrics", time.monotonic() + WITHIN)
        return read_metrics(text.decode("utf-8", "replace"))

    def version(self, until: float | None = None) -> str:
        """What /version says.

        Raises:
            WorkerError: Nothing usable.
        """
        value = self._get_json("/version", until or time.monotonic() + WITHIN)
        version = value.get("version") if isinstance(value, dict) else None
        if not isinstance(version, str) or not version:
            raise StreamingError("/version: it names no version", retriable=False)
        return version

    def close(self, timeout: float) -> None:
        """End the calls under way, and wait so many seconds for their threads."""
        deadline = time.monotonic() + timeout
        with self._lock:
            self._closed = True
            live = list(self._live.items())
        for _, exchange in live:
            exchange.abort()
        for thread, _ in live:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _judge(self, until: float) -> tuple[HealthState, str]:
        try:
            self._get("/health", until)
        except AdapterClosed:
            raise
        except WorkerError as error:
            answered = error.status is not None and error.status < 500
            return HealthState.DEGRADED if answered else HealthState.UNHEALTHY, _about(
                "/health", error
            )
        try:
            models = self.models(until)
        except AdapterClosed:
            raise
        except WorkerError as error:
            return HealthState.DEGRADED, _about("/v1/models", error)
        if not models:
            return HealthState.DEGRADED, "no model is listed"
        return HealthState.HEALTHY, f"serves {', '.join(model.id for model in models)}"

    def _get_json(self, path: str, until: float) -> Any:
        document = self._get(path, until)
        try:
            return json.loads(document)
        except (ValueError, RecursionError):
            raise StreamingError(f"{path}: not JSON", retriable=False) from None

    def _get(self, path: str, until: float) -> bytes:
        """A document of the engine.

        Raises:
            WorkerError: It did not come; `Timeout` when it did not come in time.
        """
        exchange = Exchange()
        answers: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()
        with self._lock:
            if self._closed:
                raise AdapterClosed("the adapter is closed")
            thread = start_thread("probe", self._fetch, exchange, path, until, answers)
            self._live[thread] = exchange
        try:
            answer = answers.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            raise Timeout(f"{path}: no answer within {WITHIN:g} s", phase="first_token") from None
        finally:
            exchange.abort()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _fetch(
        self,
        exchange: Exchange,
        path: str,
        until: float,
        answers: queue.SimpleQueue[bytes | Exception],
    ) -> None:
        """The body of a call's thread."""
        headers = {"X-Correlation-Id": str(uuid.uuid4())}
        connect = max(0.001, min(self._connect_timeout, until - time.monotonic()))
        try:
            try:
                answer = self._transport.get(exchange, path, headers, connect)
            except StaleConnection:
                exchange.fresh = True
                answer = self._transport.get(exchange, path, headers, connect)
            answers.put(answer)
        except Exception as failure:
            closed = AdapterClosed("the adapter was closed")
            answers.put(closed if self._closed else failure)
        finally:
            with self._lock:
                self._live.pop(threading.current_thread(), None)


def _about(path: str, error: WorkerError) -> str:
    return error.message if error.message.startswith(path) else f"{path}: {error.message}"


def _model(entry: dict[str, Any]) -> Model:
    length = entry.get("max_model_len")
    return Model(
        id=str(entry.get("id")),
        max_model_len=length if isinstance(length, int) else None,
        root=entry.get("root"),
        parent=entry.get("parent"),
    )
