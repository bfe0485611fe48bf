"""What is let go of: by a thousand streams of mixed faults, and by callers who just leave.

`tox -e soak` runs a hundred thousand. tests/test_stream_release.py and tests/test_process.py have
the callers who leave in ordinary ways.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from subprocess import PIPE

import pytest
import support
from decoding import DONE, text
from faults.figures import Figures
from soak.census import census, left_behind, settled
from soak.engine import engine_process
from soak.load import Load, Tally
from support import SOON, a_task, kinds, posts, stopwatch, wait_until

from vllm_http import TokenStream, VllmHttpAdapter
from vllm_http._transport_body import READ_BYTES
from vllm_http.testing import FakeEngine, Headers, Raw, Stall, Status, Step, Text


adapter, deaf = support.adapter, support.deaf

STREAMS, SEED, CALLERS = 1000, 1, 32


def soaked(url: str) -> Tally:
    """What becomes of all the streams; nothing holds their adapters when this returns."""
    tally, load = Tally(), Load(url, SEED, CALLERS)
    try:
        assert load.run(STREAMS, tally, tell=lambda: None)
    finally:
        load.close()
    return tally


def test_thousand_streams() -> None:
    """None is lost, doubled or without its end, and threads and descriptors are what they were."""
    with engine_process() as url:
        before = census()
        tally = soaked(url)
        after = settled(before)

    assert tally.examples == []
    assert (tally.streams, tally.wrongs.total()) == (STREAMS, 0)
    assert left_behind(before, after) == [0, 0]


def ours(value: object) -> bool:
    """Whether it is of the client: the engine in this process keeps what it received."""
    module = str(type(value).__module__)
    return module.startswith(("vllm_http._", "requests.", "urllib3.", "http.client"))


def objects_after(engine: FakeEngine, adapters: int) -> int:
    """How many objects live once so many adapters have each run a task and are gone."""
    for _ in range(adapters):
        with VllmHttpAdapter(engine.url) as adapter:
            assert adapter.submit(a_task(max_tokens=1)).result(timeout=SOON).error is None
    gc.collect()
    return sum(map(ours, gc.get_objects()))


def test_adapter_for_each_task_leaks_nothing(engine: FakeEngine) -> None:
    """People do it, slow as it is: a hundred of them leave less than an object each."""
    before = objects_after(engine, 10)

    assert objects_after(engine, 100) - before < 100


# Callers who leave.


def begun(engine: FakeEngine, adapter: VllmHttpAdapter) -> TokenStream:
    """A stream in the middle of an answer that stalls."""
    engine.script(Text("a"), Stall())
    stream = adapter.submit(a_task())
    assert kinds([next(stream), next(stream)]) == ["started", "token"]
    return stream


def test_exception_in_a_bare_loop(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """A caller's own exception frees the engine, though it be kept and no `with` was there."""

    def loop() -> None:
        for event in adapter.submit(a_task()):
            raise KeyError(event.type)

    engine.script(Text("a"), Stall())
    with pytest.raises(KeyError) as kept:
        loop()

    assert posts(engine)[0].hung_up.wait(SOON)
    assert kept.value.args == ("started",)


def test_generator_around_a_stream_is_closed(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """GeneratorExit leaves the `with` block inside, as it does when a web server's client goes."""

    def pieces() -> Iterator[str]:
        with adapter.submit(a_task()) as stream:
            yield from stream.text()

    engine.script(Text("a"), Stall())
    generator = pieces()
    assert next(generator) == "a"
    generator.close()  # type: ignore[attr-defined]

    assert posts(engine)[0].hung_up.wait(SOON)


def test_generator_around_a_stream_is_dropped(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """Its last reference is the stream's as well."""

    def pieces() -> Iterator[str]:
        for event in adapter.submit(a_task()):
            yield event.type

    engine.script(Text("a"), Stall())
    generator = pieces()
    assert [next(generator), next(generator)] == ["started", "token"]
    del generator

    assert posts(engine)[0].hung_up.wait(SOON)


def test_stream_dropped_in_a_cycle(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """The garbage collector frees the engine, on whatever thread it runs."""
    cycle: list[object] = [begun(engine, adapter)]
    cycle.append(cycle)

    del cycle
    collector = threading.Thread(target=gc.collect)
    collector.start()
    collector.join()

    assert posts(engine)[0].hung_up.wait(SOON)


def test_caller_who_never_reads(engine: FakeEngine) -> None:
    """At most `queue_size` events wait, and those of one read; the rest stays with the engine."""
    event = text("a")  # the least there is
    engine.script(*[Raw(event * 1000)] * 1000, Raw(text("", "stop") + DONE))
    with VllmHttpAdapter(engine.url, queue_size=8) as adapter, adapter.submit(a_task()) as stream:
        wait_until(lambda: stream.receiver.qsize() >= 8)

        assert not posts(engine)[0].finished.wait(0.3)
        assert stream.receiver.qsize() <= 8 + READ_BYTES // len(event) + 1


# The end of the interpreter.

PROGRAM = """
import sys, threading
from vllm_http import RetryPolicy, TaskRequest, VllmHttpAdapter

def submit():
    return adapter.submit(TaskRequest(prompt="x", model="fake-model"))

adapter = VllmHttpAdapter(sys.argv[1], queue_size=4, retry=RetryPolicy(base=60, cap=60))
streams = [submit() for _ in range(3)]
{before}
print("ready", flush=True)
sys.stdin.readline()
{leaves}
"""
ALL_BEGUN = "for stream in streams: next(stream), next(stream)"
DAEMONS = "for s in streams: threading.Thread(target=list, args=(s,), daemon=True).start()"


@dataclass(frozen=True)
class Exit:
    """A program that ends with three live streams.

    Attributes:
        doing: What the streams are doing.
        steps: What the engine does to each; None: it is not even reached.
        before: What the program does first.
        leaves: Its last lines.
        code: Its exit code.
    """

    doing: str
    steps: list[Step] | None
    before: str = ""
    leaves: str = ""
    code: int = 0

    def __str__(self) -> str:
        return self.doing


EXITS = [
    Exit("mid-stream", [Text("a"), Stall()], ALL_BEGUN),
    Exit("sys.exit in the loop", [Text("a"), Stall()], "", "for e in streams[0]: sys.exit(3)", 3),
    Exit("daemon callers wait", [Text("a"), Stall()], DAEMONS),
    Exit("first token awaited", [Headers(), Stall()]),
    Exit("backoff", [Status(503)]),
    Exit("full queue", [Raw(text("a") * 100)] * 1000, ALL_BEGUN),
    Exit("connecting", None),
]


@pytest.mark.parametrize("case", EXITS, ids=str)
def test_interpreter_exit(case: Exit, engine: FakeEngine, deaf: str, figures: Figures) -> None:
    """It leaves at once, with its exit code and without a word, and the engine is free."""
    for _ in range(3):
        engine.script(*case.steps or [])
    program = PROGRAM.format(before=case.before, leaves=case.leaves)
    command = [sys.executable, "-W", "error", "-c", program, engine.url if case.steps else deaf]
    with subprocess.Popen(command, text=True, stdin=PIPE, stdout=PIPE, stderr=PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        if case.steps:
            posts(engine, 3)
        with stopwatch() as watch:
            stdout, stderr = child.communicate("leave\n", timeout=20)

    figures.exits[case.doing] = watch.seconds
    assert (child.returncode, stdout, stderr) == (case.code, "", "")
    assert watch.seconds < SOON  # a join, or one of our clocks, would take longer
    engine.wait_idle()
