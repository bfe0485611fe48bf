"""Letting go of a stream: by with, by dropping it, by close()."""

from __future__ import annotations

import gc
import threading
from types import FunctionType, ModuleType

import pytest
import support
from support import (
    QUICKLY,
    SOON,
    Signal,
    a_task,
    answer,
    kinds,
    posts,
    stopwatch,
    the_error,
    wait_until,
)

from vllm_http import Token, VllmHttpAdapter
from vllm_http.testing import Cut, Event, FakeEngine, Stall, Status, Step, Text, Tokens, Wait


engine, adapter, gate = support.engine, support.adapter, support.gate


def test_leaving_with_frees_the_engine(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """The end of a with block, a break included, ends the generation at once."""
    engine.script(Text("a"), Stall())

    with adapter.submit(a_task()) as stream:
        for event in stream:
            if isinstance(event, Token):
                break

    assert posts(engine)[0].hung_up.wait(SOON)
    assert list(stream) == []


def test_leaving_with_by_an_exception(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """An exception of the caller's leaves the with block as it is, and frees the engine."""
    engine.script(Text("a"), Stall())

    with pytest.raises(KeyError), adapter.submit(a_task()) as stream:
        raise KeyError(next(stream))

    assert posts(engine)[0].hung_up.wait(SOON)


def test_dropping_the_stream_frees_the_engine(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """Nothing of ours holds a stream, so its last reference is the caller's."""
    engine.script(Tokens(1), Stall())
    stream = adapter.submit(a_task())
    assert kinds([next(stream), next(stream)]) == ["started", "token"]

    del stream

    assert posts(engine)[0].hung_up.wait(SOON)


def test_dropping_the_text_iterator(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """A loop over submit().text() that breaks frees the engine as well."""
    engine.script(Tokens(1), Stall())

    for _ in adapter.submit(a_task()).text():
        break

    assert posts(engine)[0].hung_up.wait(SOON)


def test_break_alone_does_not(
    engine: FakeEngine, adapter: VllmHttpAdapter, gate: threading.Event
) -> None:
    """A stream that is still named after a break can be gone on with."""
    engine.script(Text("a"), Wait(gate), *answer("b"))
    stream = adapter.submit(a_task())

    for event in stream:
        if isinstance(event, Token):
            break
    assert not posts(engine)[0].hung_up.wait(0.2)
    gate.set()

    assert kinds(stream) == ["token", "end"]


def test_close_just_stops(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """After close() by its owner a stream holds no event at all, and closing twice is fine."""
    engine.script(Text("a"), Text("b"), Stall())
    stream = adapter.submit(a_task())
    assert kinds([next(stream), next(stream)]) == ["started", "token"]

    stream.close()
    stream.close()

    assert list(stream) == []
    assert stream.get(timeout=SOON) is None
    assert posts(engine)[0].hung_up.wait(SOON)


def test_close_from_another_thread_wakes_the_caller(
    engine: FakeEngine, adapter: VllmHttpAdapter
) -> None:
    """A caller who waits for an event sees the iteration stop."""
    reached = threading.Event()
    engine.script(Text("a"), Signal(reached), Stall())
    stream = adapter.submit(a_task())

    def close() -> None:
        reached.wait(SOON)
        stream.close()

    closer = threading.Thread(target=close)
    closer.start()

    with stopwatch() as watch:
        seen = kinds(stream)
    closer.join()

    assert seen in (["started", "token"], ["started"], [])
    assert watch.seconds < SOON


def test_close_after_the_end_is_fine(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """Closing a stream that is drained does nothing, and a new task runs."""
    stream = adapter.submit(a_task())
    assert list(stream)[-1].type == "end"

    stream.close()

    assert adapter.submit(a_task()).result().error is None


def test_engine_dies_while_nobody_takes(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """The events of a stream wait for its caller, the Error too."""
    engine.script(Text("a"), Cut("rst"))
    stream = adapter.submit(a_task())

    wait_until(lambda: stream.done)

    assert kinds(stream) == ["started", "token", "error"]


def reachable(start: object) -> list[object]:
    """All that an object keeps alive, code apart."""
    found, seen = [start], {id(start)}
    for thing in found:
        if not isinstance(thing, (type, ModuleType, FunctionType)):
            new = [other for other in gc.get_referents(thing) if id(other) not in seen]
            seen.update(map(id, new))
            found.extend(new)
    return found


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([Status(400)], id="400"),
        pytest.param([Status(503)], id="503"),
        pytest.param([Cut("rst")], id="reset"),
        pytest.param([Text("a"), Cut("rst")], id="cut"),
        pytest.param([Text("a"), Event("garbage")], id="garbage"),
        pytest.param([Stall()], id="deadline"),
    ],
)
def test_kept_error_keeps_nothing_else(engine: FakeEngine, steps: list[Step]) -> None:
    """A list of failures holds neither the prompts nor the tasks that failed."""
    prompt = "a prompt of many pages"
    for _ in range(QUICKLY.attempts + 1):  # one is tried again for free, if it met an idle one
        engine.script(*steps)
    with VllmHttpAdapter(engine.url, retry=QUICKLY) as adapter:
        error = the_error(adapter.submit(a_task(prompt=prompt, deadline_ms=500)))

    kept = reachable(error)
    ours = {type(thing).__qualname__ for thing in kept if "vllm_http" in type(thing).__module__}
    assert ours <= {"EngineUnavailable", "InvalidRequest", "StreamingError", "Timeout"}
    assert not [text for text in kept if isinstance(text, (str, bytes)) and prompt in f"{text!r}"]


def test_error_of_a_refused_port_keeps_nothing_else(engine: FakeEngine) -> None:
    """Nor does that of an engine that was never reached."""
    engine.close()
    with VllmHttpAdapter(engine.url, retry=QUICKLY) as adapter:
        error = the_error(adapter.submit(a_task(prompt="a prompt of many pages")))

    assert not [text for text in reachable(error) if "many pages" in f"{text!r}"]
