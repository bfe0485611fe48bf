"""What is asked about an engine: health, models, metrics, version. Five seconds for each call."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

from ._ask import Asker, Late
from ._engine import EngineMetrics, EngineProps, HealthState, HealthStatus, Model
from ._errors import AdapterClosed, StreamingError, Timeout, WorkerError
from ._metrics_text import read_metrics
from ._redact import printable


WITHIN = 5.0
"""Seconds for one call of the public API, however many requests it makes."""

_MOST_SHOWN = 100
"""Models that are named, characters of a name, and of a version."""


class Probe:
    """Asks the engine about itself. Thread-safe.

    Args:
        asker: To the engine.
    """

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

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
        # Each entry goes when its model is there: 2 MiB may hold 700,000 of them, which together
        # took 200 MB.
        models: list[Model] = []
        entries.reverse()
        while entries:
            entry = entries.pop()
            if isinstance(entry, dict):
                models.append(_model(entry))
        return models

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
        document = self._get("/metrics", time.monotonic() + WITHIN)
        try:
            return read_metrics(document.decode("utf-8", "replace"))
        except StreamingError as failure:
            error = self._asker.unreadable("/metrics", document, failure)
        raise error

    def version(self, until: float | None = None) -> str:
        """What /version says.

        Raises:
            WorkerError: Nothing usable.
        """
        value = self._get_json("/version", until or time.monotonic() + WITHIN)
        version = value.get("version") if isinstance(value, dict) else None
        if not isinstance(version, str) or not 0 < len(version) <= _MOST_SHOWN:
            raise StreamingError("/version: it names no version", retriable=False)
        return printable(version)

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
        return HealthState.HEALTHY, f"serves {_named(models)}"

    def _get_json(self, path: str, until: float) -> Any:
        document = self._get(path, until)
        try:
            return json.loads(document)
        except (ValueError, RecursionError):
            failure = StreamingError(f"{path}: not JSON", retriable=False)
        raise self._asker.unreadable(path, document, failure)

    def _get(self, path: str, until: float) -> bytes:
        """A document of the engine.

        Raises:
            WorkerError: It did not come; `Timeout` when it did not come in time.
        """
        try:
            return self._asker.get(path, until)
        except Late:
            raise Timeout(f"{path}: no answer within {WITHIN:g} s", phase="first_token") from None


def _named(models: list[Model]) -> str:
    """Their names as a log line takes them, however many there are and whatever they hold."""
    names = [printable(model.id[:_MOST_SHOWN])[:_MOST_SHOWN] for model in models[:_MOST_SHOWN]]
    more = len(models) - len(names)
    text = ", ".join(names)
    return f"{text} and {more} more" if more else text


def _about(path: str, error: WorkerError) -> str:
    return error.message if error.message.startswith(path) else f"{path}: {error.message}"


def _model(entry: dict[str, Any]) -> Model:
    length = entry.get("max_model_len")
    return Model(
        id=str(entry.get("id")),
        max_model_len=length if isinstance(length, int) else None,
        root=_text(entry.get("root")),
        parent=_text(entry.get("parent")),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
