"""Every fault in every phase where it can happen: what the caller sees, and by when.

The table is in `rows_*.py`, one line a fault and phase; `row.py` says what the columns mean. All
of it is played by a real server over a real socket. What holds for all rows is said here once.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import cast

import pytest
import support
from decoding import DONE
from faults import (
    rows_connecting,
    rows_cuts,
    rows_framing,
    rows_once_wrong,
    rows_refusals,
    rows_silence,
)
from faults.outcome import Outcome, brief, check_end, check_order, check_time, watch
from faults.row import PHASES, Row
from faults.scripts import HEAD, STOP, A, AtOnce, B, chunked
from support import (
    LIMIT,
    ONCE,
    PATIENCE,
    SOON,
    a_task,
    answer,
)

from vllm_http import (
    End,
    Error,
    RetryPolicy,
    TaskRequest,
    Timeouts,
    VllmHttpAdapter,
    WorkerError,
)
from vllm_http.testing import Cut, FakeEngine, WireBytes


deaf, silent = support.deaf, support.silent

ROWS: list[Row] = [
    *rows_connecting.ROWS,
    *rows_refusals.ROWS,
    *rows_silence.ROWS,
    *rows_cuts.ROWS,
    *rows_framing.ROWS,
    *rows_once_wrong.ROWS,
]
RETRIED = [row for row in ROWS if row.sent > 1 and row.then is None and not row.kept]
STREAMS = [row for row in ROWS if row.phase in PHASES[4:] and not row.due]
PARTIAL = [row for row in STREAMS if row.sees.error is not None and row.text]
THREE = RetryPolicy(attempts=3, base=0.001, cap=0.001)
SHORT = Timeouts(connect=LIMIT, first_token=LIMIT, stall=LIMIT)
LONG = Timeouts(connect=PATIENCE, first_token=PATIENCE, stall=PATIENCE)


def task_of(row: Row) -> TaskRequest:
    """The task that the row is about."""
    messages = [{"role": "user", "content": "Say it"}]
    return a_task(prompt=None, messages=messages) if row.chat else a_task()


def address(row: Row, engine: FakeEngine, request: pytest.FixtureRequest) -> str:
    """Where the row's task goes."""
    if row.at == "closed port":
        engine.close()
    elif row.at.endswith("port"):
        return cast("str", request.getfixturevalue(row.at.removesuffix(" port")))
    elif row.at == "silent TLS":
        return cast("str", request.getfixturevalue("silent")).replace("http:", "https:")
    return engine.url


def adapter_to(url: str, row: Row) -> VllmHttpAdapter:
    """An adapter that tries three times; its clocks are short where the row waits for one."""
    return VllmHttpAdapter(url, retry=THREE, timeouts=SHORT if row.due else LONG)


def keep_a_connection(row: Row, adapter: VllmHttpAdapter, engine: FakeEngine) -> None:
    """Have one idle connection in the pool, and no question about the version left."""
    if row.kept:
        adapter.engine_version()
        adapter.models()
    if row.at == "restarted engine":
        engine.close()
        engine.start()


def requests_to(engine: FakeEngine) -> int:
    """How many requests for text have reached the engine."""
    return sum(request.method == "POST" for request in engine.requests)


def test_no_row_is_there_twice() -> None:
    """A fault strikes once in a phase."""
    names = [str(row) for row in ROWS]

    assert [name for name in names if names.count(name) > 1] == []


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row(
    row: Row, engine: FakeEngine, outcomes: list[Outcome], request: pytest.FixtureRequest
) -> None:
    """The caller sees what the table says, the engine is free at once, and the adapter usable."""
    for script in row.scripts:
        engine.script(*script)
    with adapter_to(address(row, engine, request), row) as adapter:
        keep_a_connection(row, adapter, engine)
        since = time.monotonic()
        seen = watch(adapter.submit(task_of(row)), since)
        outcomes.append(Outcome(row, seen))

        check_order(seen, starts=row.starts)
        check_end(row, seen.last)
        assert brief(seen.text) == brief(row.text)
        check_time(row, seen)
        engine.wait_idle(SOON)
        assert requests_to(engine) == row.sent
        if row.sent:
            engine.script(*answer("z"))
            assert adapter.submit(a_task()).result(timeout=SOON).text == "z"


@pytest.mark.parametrize("row", RETRIED, ids=str)
def test_next_attempt_is_well(row: Row, engine: FakeEngine) -> None:
    """What is tried again shows nothing of the first attempt: one Started, all text, once."""
    engine.script(*row.script)
    engine.script(*answer("x", "y"))
    with adapter_to(engine.url, row) as adapter:
        seen = watch(adapter.submit(task_of(row)), time.monotonic())

    check_order(seen, starts=True)
    assert seen.text == "xy"
    assert isinstance(seen.last, End)
    assert (seen.last.metrics.attempts, requests_to(engine)) == (2, 2)


@pytest.mark.parametrize("row", STREAMS, ids=str)
def test_row_in_one_write(row: Row, engine: FakeEngine) -> None:
    """As a chat, and with all that the engine has to say in one packet, it is the same."""
    for script in row.scripts:
        engine.script(AtOnce(script))
    with adapter_to(engine.url, row) as adapter:
        seen = watch(adapter.submit(task_of(replace(row, chat=True))), time.monotonic())

    check_order(seen, starts=row.starts)
    check_end(row, seen.last)
    assert brief(seen.text) == brief(row.text)
    assert requests_to(engine) == row.sent


@pytest.mark.parametrize("row", PARTIAL, ids=str)
def test_partial_text(row: Row, engine: FakeEngine) -> None:
    """Who asks for the whole is told what there was of it."""
    engine.script(*row.script)
    with adapter_to(engine.url, row) as adapter, pytest.raises(WorkerError) as caught:
        adapter.submit(task_of(row)).result(timeout=row.due + PATIENCE)

    assert caught.value.partial is not None
    assert caught.value.partial.text == row.text


@pytest.mark.parametrize("cut", [Cut("fin"), Cut("rst")], ids=["FIN", "RST"])
def test_cut_at_every_byte(cut: Cut, engine: FakeEngine) -> None:
    """Wherever it is cut, the text is a beginning, and there is an End only after [DONE]."""
    wire = HEAD + chunked(A, B, STOP, DONE)
    needed = wire.index(b"[DONE]\n\n") + len(b"[DONE]\n\n")
    with VllmHttpAdapter(engine.url, retry=ONCE, timeouts=LONG) as adapter:
        for size in range(1, len(wire)):
            engine.script(WireBytes(wire[:size]), cut)
            seen = watch(adapter.submit(a_task()), time.monotonic())

            check_order(seen, starts=seen.events[0].type == "started")
            assert seen.text == text_within(wire[:size])
            assert isinstance(seen.last, End if size >= needed else Error), size


def text_within(wire: bytes) -> str:
    """The text in the events that are whole."""
    return "".join(letter for letter, event in (("a", A), ("b", B)) if event in wire)
