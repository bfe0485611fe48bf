"""An exception from a signal handler, at every line of what a caller's thread does for a task.

ctrl-C, Celery's SoftTimeLimitExceeded: whatever is raised reaches the caller, and nothing is left
on the engine that nobody knows of.
"""

from __future__ import annotations

import functools
import gc
import inspect
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path

import pytest
import support
from interrupted import Interrupt, Interrupted, at_every_line
from support import SOON, a_task, answer, wait_until

from vllm_http import AdapterRegistry, End, Timeouts, TokenStream, VllmHttpAdapter
from vllm_http.testing import FakeEngine, Step, Text, Wait


engine = support.engine

Here = Callable[[], AbstractContextManager[Interrupt]]


@pytest.fixture(autouse=True)
def _no_collections() -> Iterator[None]:
    """A collection would run finalizers among the lines that are counted."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


LONG, SHORT = 2000, 1
STALL = 1.0  # seconds; a read that nobody asks for ends as a stall after them


@pytest.fixture
def slow_engine() -> Iterator[FakeEngine]:
    """An engine that takes 100 s for a `LONG` answer."""
    with FakeEngine(token_delay=0.05) as engine:
        yield engine


def check_nothing_is_left(engine: FakeEngine, adapter: VllmHttpAdapter, where: str | None) -> None:
    """The adapter's books are empty and the engine is free."""
    slots = adapter._slots

    def is_over() -> bool:
        return not (engine.running or slots._live or slots._waiting or slots._running)

    with suppress(AssertionError):
        wait_until(is_over)
    left = (engine.running, slots._live, slots._waiting, slots._running)
    assert is_over(), f"interrupted at {where}, left: {left}"


def readers() -> list[threading.Thread]:
    """The reader threads that live."""
    return [thread for thread in threading.enumerate() if thread.name == "vllm_http-reader"]


def by_submit(adapter: VllmHttpAdapter) -> object:
    """One task."""
    return adapter.submit(a_task(max_tokens=LONG))


def by_map(adapter: VllmHttpAdapter) -> object:
    """Two tasks, of which the second answers at once."""
    tasks = (a_task(max_tokens=tokens) for tokens in (LONG, SHORT))
    completions = adapter.map(tasks, in_flight=2, ordered=False)
    assert isinstance(completions, Generator)
    with closing(completions):
        return next(completions)


def by_stream_many(adapter: VllmHttpAdapter) -> object:
    """The same, event by event."""
    tasks = (a_task(max_tokens=tokens) for tokens in (LONG, SHORT))
    events = adapter.stream_many(tasks, in_flight=2)
    assert isinstance(events, Generator)
    with closing(events):
        return next(event for _, event in events if event.type == "end")


@pytest.mark.parametrize("start", [by_submit, by_map, by_stream_many])
def test_interrupted_start_leaves_nothing(
    slow_engine: FakeEngine, start: Callable[[VllmHttpAdapter], object]
) -> None:
    """Wherever it strikes in an adapter's first task: it is raised, no task is left, one reader."""

    def act(here: Here) -> None:
        with VllmHttpAdapter(slow_engine.url) as adapter:
            adapter._version._known = "0"
            kept: list[object] = []  # Python itself swallows what strikes in a finalizer
            place = raised_at(here, lambda: kept.append(start(adapter)))
            kept.clear()
            check_nothing_is_left(slow_engine, adapter, place)
            assert len(readers()) <= 1, place

    print(f"{start.__name__}: interrupted at {at_every_line(act)} lines")


def raised_at(here: Here, work: Callable[[], object]) -> str | None:
    """Do the work; where it was interrupted, which must be what it raises."""
    raised = False
    with here() as interrupt:
        try:
            work()
        except Interrupted:
            raised = True
    assert raised == (interrupt.place is not None), f"swallowed at {interrupt.place}"
    return interrupt.place


@pytest.mark.parametrize("end", [TokenStream.cancel, TokenStream.close])
def test_interrupted_end_ends_all_the_same(
    slow_engine: FakeEngine, end: Callable[[TokenStream], None]
) -> None:
    """Once the stream is over for its caller, it is over for the engine."""

    def act(here: Here) -> None:
        with VllmHttpAdapter(slow_engine.url) as adapter:
            adapter._version._known = "0"
            stream = adapter.submit(a_task(max_tokens=LONG))
            next(stream)
            place = raised_at(here, functools.partial(end, stream))
            del stream  # it may not have got as far as the end; the caller was told
            check_nothing_is_left(slow_engine, adapter, place)

    print(f"{end.__name__}: interrupted at {at_every_line(act)} lines")


def test_interrupted_task_costs_the_next_one_nothing(engine: FakeEngine) -> None:
    """The adapter works as before, and what comes out is in order."""

    def act(here: Here) -> None:
        with VllmHttpAdapter(engine.url, max_concurrency=1) as adapter:
            adapter._version._known = "0"
            kept: list[object] = []
            place = raised_at(here, lambda: kept.append(by_submit(adapter)))
            kept.clear()
            result = adapter.submit(a_task(max_tokens=9)).result(timeout=SOON)
            assert result.text == expected, place

    with VllmHttpAdapter(engine.url) as adapter:
        expected = adapter.submit(a_task(max_tokens=9)).result(timeout=SOON).text
    print(f"interrupted at {at_every_line(act)} lines")


def test_interrupt_that_is_kept_keeps_no_task(slow_engine: FakeEngine) -> None:
    """Whoever logs it later holds its traceback, and with that what our frames hold."""

    def act(here: Here) -> None:
        with VllmHttpAdapter(slow_engine.url) as adapter:
            adapter._version._known = "0"
            registry = AdapterRegistry()
            registry.bind("pool", "r0", adapter)
            kept: list[object] = []
            with here() as interrupt:
                try:
                    kept.append(registry.submit("pool", a_task(max_tokens=LONG)))
                except Interrupted as raised:
                    kept.append(raised)
            if not never_hit_by_a_handler(interrupt.place):
                if interrupt.place is None:
                    kept.clear()
                check_nothing_is_left(slow_engine, adapter, interrupt.place)

    print(f"interrupted at {at_every_line(act, step=3)} lines")


def never_hit_by_a_handler(place: str | None) -> bool:
    """Whether it is the return of `submit`: no call, which handlers run behind."""
    name, _, line = (place or ":").partition(":")
    path = Path(inspect.getfile(VllmHttpAdapter))
    return name == path.name and "return stream" in path.read_text().splitlines()[int(line) - 1]


def test_interrupted_cancel_is_an_end_all_the_same(slow_engine: FakeEngine) -> None:
    """Once it was called again: the stream has its one last event, whoever waits for it."""

    def act(here: Here) -> None:
        with VllmHttpAdapter(slow_engine.url) as adapter:
            adapter._version._known = "0"
            stream = adapter.submit(a_task(max_tokens=LONG))
            next(stream)
            place = raised_at(here, stream.cancel)
            stream.cancel()
            assert [type(event) for event in stream] == [End], place

    print(f"interrupted at {at_every_line(act)} lines")


def test_interrupted_cancel_of_one_of_many_is_told_once(slow_engine: FakeEngine) -> None:
    """Where it is called on another thread than the one that waits for the end."""

    def act(here: Here) -> None:
        with VllmHttpAdapter(slow_engine.url) as adapter, ThreadPoolExecutor(1) as pool:
            adapter._version._known = "0"
            events = adapter.stream_many([a_task(job_id="mine", max_tokens=LONG)])
            next(events)
            rest = pool.submit(lambda: [event.type for _, event in events])
            place = raised_at(here, lambda: adapter.cancel("mine"))
            if adapter._slots.find("mine") is not None:
                adapter.cancel("mine")
            assert rest.result(SOON)[-1:] == ["end"], place
            assert rest.result().count("end") == 1, place

    print(f"interrupted at {at_every_line(act)} lines")


def test_interrupted_take_costs_the_answer_nothing(engine: FakeEngine) -> None:
    """A full queue is read on, though the interrupt strikes whoever was to ask for it.

    An event that was taken and not handed over may be lost to the caller, who was told; `result`
    has it.
    """

    def act(here: Here) -> None:
        for text in "abcdefgh":
            steps.extend((Text(text), Wait(0.001)))
        engine.script(*steps, *answer("i"))
        steps.clear()
        timeouts = Timeouts(stall=STALL)
        with VllmHttpAdapter(engine.url, queue_size=2, timeouts=timeouts) as adapter:
            adapter._version._known = "0"
            stream = adapter.submit(a_task())
            wait_until(lambda: stream.receiver.holds_back)
            place = raised_at(here, lambda: list(stream))
            assert stream.result(timeout=SOON).text == "abcdefghi", place

    steps: list[Step] = []
    print(f"interrupted at {at_every_line(act)} lines")


def test_interrupted_small_call_is_not_answered_to_nobody(slow_engine: FakeEngine) -> None:
    """The engine is asked no more, and the next call is answered."""

    def act(here: Here) -> None:
        with VllmHttpAdapter(slow_engine.url) as adapter:
            place = raised_at(here, adapter.models)
            wait_until(lambda: not adapter._asker._live)
            assert adapter.health().message.startswith("serves"), place

    print(f"interrupted at {at_every_line(act)} lines")
