"""Small calls to an engine that answers too much: some megabytes, and one line."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import support
from floods import DOCUMENT_BOUND, MB, measured
from support import SOON, a_task, stopwatch

from vllm_http import (
    HealthState,
    Started,
    StreamingError,
    VllmHttpAdapter,
)
from vllm_http._transport import MAX_DOCUMENT_BYTES
from vllm_http.testing import FakeEngine


engine, adapter = support.engine, support.adapter

HOSTILE = "a\r\n2026-01-01 INFO forged\x1b[2J\u202e"


# How much.


@pytest.mark.parametrize(
    ("path", "call"),
    [
        ("/metrics", VllmHttpAdapter.metrics),
        ("/v1/models", VllmHttpAdapter.models),
        ("/v1/models", VllmHttpAdapter.props),
    ],
)
def test_document_has_a_limit(
    engine: FakeEngine,
    adapter: VllmHttpAdapter,
    path: str,
    call: Callable[[VllmHttpAdapter], object],
) -> None:
    """One byte more is an error that says so, and that asking again would not mend."""
    good = b'{"data": []}' if path == "/v1/models" else b"a 1\n"
    engine.override(path, 200, good + b"\n" * (MAX_DOCUMENT_BYTES - len(good)))
    call(adapter)

    engine.override(path, 200, good + b"\n" * (MAX_DOCUMENT_BYTES - len(good) + 1))
    with pytest.raises(
        StreamingError, match=f"^{path}: .* more than {MAX_DOCUMENT_BYTES} "
    ) as caught:
        call(adapter)

    assert not caught.value.retriable


def test_health_of_a_document_beyond_the_limit(
    engine: FakeEngine, adapter: VllmHttpAdapter
) -> None:
    """It is an engine that answers, and not well."""
    engine.override("/v1/models", 200, b" " * (16 * MB))
    health = adapter.health()

    assert health.state is HealthState.DEGRADED
    assert "more than" in health.message


def test_many_models(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """The most that a document holds of them is returned, at a bounded cost."""
    entries = b"{}," * (MAX_DOCUMENT_BYTES // 3 - 10) + b"{}"
    engine.override("/v1/models", 200, b'{"data":[' + entries + b"]}")
    with measured() as peak:
        models = adapter.models()

    assert len(models) == entries.count(b"{")
    assert peak.growth < 2 * DOCUMENT_BOUND, f"{peak.growth / MB:.0f} MB"


# How long.


@pytest.mark.parametrize(
    "line", ["a 1\n", 'a{b="' + r"\"" * 8000 + '"} 1\n'], ids=["short", "long"]
)
def test_most_of_metrics_is_read_in_bounded_time(
    engine: FakeEngine, adapter: VllmHttpAdapter, line: str
) -> None:
    """Its length is the limit of the work, 2 s of the caller's own thread on a quiet machine."""
    engine.override("/metrics", 200, line.encode() * (MAX_DOCUMENT_BYTES // len(line)))
    with stopwatch() as watch:
        adapter.metrics()

    assert watch.seconds < 6 * SOON


def test_line_of_metrics_has_a_limit(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """One line can take minutes: the parser's time grows with the square of its length."""
    labels = ",".join(f'b{n}="c"' for n in range(100_000))
    engine.override("/metrics", 200, f"a{{{labels}}} 1\n".encode())
    with stopwatch() as watch, pytest.raises(StreamingError):
        adapter.metrics()

    assert watch.seconds < SOON


# What is shown.


def test_names_of_models_are_one_line(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """health() goes into logs: a name forges no line there, and models() has it as it is."""
    engine.override("/v1/models", 200, {"data": [{"id": HOSTILE}]})

    assert adapter.health().message == r"serves a  2026-01-01 INFO forged\x1b[2J\u202e"
    assert [model.id for model in adapter.models()] == [HOSTILE]


def test_names_of_models_are_few_and_short(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """A dashboard has a line for it, not megabytes."""
    engine.override("/v1/models", 200, {"data": [{"id": "\x1b" * 150}] * 1100})
    health = adapter.health()

    assert health.state is HealthState.HEALTHY
    assert health.message.endswith(" and 1000 more")
    assert len(health.message) < 12_000


@pytest.mark.parametrize(
    ("said", "shown"),
    [(HOSTILE, r"a  2026-01-01 INFO forged\x1b[2J\u202e"), ("9" * 101, "unknown")],
)
def test_version_is_one_short_line(
    engine: FakeEngine, adapter: VllmHttpAdapter, said: str, shown: str
) -> None:
    """So is what an engine calls its version; it stands in each stream's first event."""
    engine.override("/version", 200, {"version": said})
    assert adapter.engine_version() == shown

    started = next(adapter.submit(a_task()))
    assert isinstance(started, Started)
    assert started.engine_version == shown
