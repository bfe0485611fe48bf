"""The engine's version in Started, which is asked for beside the first task."""

from __future__ import annotations

import threading

import pytest
import responses
import support
from support import SOON, a_task, answer, kinds, stopwatch

from vllm_http import Started, VllmHttpAdapter
from vllm_http.testing import FakeEngine, Headers, Wait


engine, adapter = support.engine, support.adapter


def test_version_is_asked_once(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """Started tells the engine's version, which one request finds out for all tasks."""
    for _ in range(3):
        gate = threading.Event()
        engine.script(Headers(), Wait(gate), *answer("a"))
        with adapter.submit(a_task()) as stream:
            started = stream.get(timeout=SOON)
            gate.set()
            assert isinstance(started, Started)
            assert started.engine_version == "0.32.0"
            assert list(stream)[-1].type == "end"
    assert len(engine.wait_for_requests(1, path="/version")) == 1


def test_unknown_version_is_not_asked_at_once_again(
    engine: FakeEngine, adapter: VllmHttpAdapter
) -> None:
    """An engine without a version streams all the same, and is left in peace for a minute."""
    engine.override("/version", 404, {"detail": "Not Found"})

    for _ in range(2):
        started, *_, end = adapter.submit(a_task())
        assert isinstance(started, Started)
        assert (started.engine_version, end.type) == ("unknown", "end")
    assert len(engine.wait_for_requests(1, path="/version")) == 1


@pytest.mark.parametrize("gated", [False, True], ids=["first token", "half a second"])
def test_started_does_not_wait_long_for_the_version(engine: FakeEngine, gated: bool) -> None:
    """Started says "unknown" when the first token, or half a second, is there first."""
    version, token = threading.Event(), threading.Event()
    if gated:
        engine.script(Headers(), Wait(token), *answer("a"))

    def slow(_: object) -> tuple[int, dict[str, str], str]:
        version.wait(SOON)
        return 200, {}, '{"version": "0.32.0"}'

    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        mock.add_passthru(engine.url + support.COMPLETIONS)
        mock.add_callback(responses.GET, engine.url + "/version", callback=slow)
        with VllmHttpAdapter(engine.url) as adapter, adapter.submit(a_task()) as stream:
            with stopwatch() as watch:
                started = stream.get(timeout=SOON)
            token.set()
            rest = kinds(stream)
            version.set()

    assert isinstance(started, Started)
    assert started.engine_version == "unknown"
    assert watch.seconds >= (0.45 if gated else 0)
    assert watch.seconds < SOON
    assert rest[-1] == "end"
