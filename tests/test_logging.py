"""The log: one record for each task, with what happened to it."""

from __future__ import annotations

from typing import Any

import logging_support as support
import pytest
from logging_support import PROMPT, Play

from vllm_http import (
    AdapterClosed,
    Error,
    TaskRequest,
    VllmHttpAdapter,
    WorkerError,
)
from vllm_http.testing import (
    Cut,
    Done,
    ErrorEvent,
    FakeEngine,
    Finish,
    Stall,
    Status,
    Step,
    Tokens,
    Usage,
)


# What upstream's ORCH-3027 lists; None where the host owns the value. See also AH-1003 and
# ADAPT-3003; ORCH-3310 keeps decode_ms beside decode_time_ms.
FIELDS = {
    *("job_id", "session_id", "correlation_id", "seed"),
    *("engine", "engine_version", "pool_id", "replica_id"),
    *("queue_position", "predicted_start_ms"),
    *("tokens_in", "tokens_out", "decode_time_ms", "decode_ms"),
}

engine, adapter, log, play = support.engine, support.adapter, support.log, support.play


def records(log: pytest.LogCaptureFixture, adapter: VllmHttpAdapter) -> list[dict[str, Any]]:
    """What the package logged about tasks; complete once the workers are joined."""
    adapter.close()
    return [vars(record) for record in log.records if record.name == "vllm_http"]


def only(log: pytest.LogCaptureFixture, adapter: VllmHttpAdapter) -> dict[str, Any]:
    """The one record of the one task, with all its fields."""
    (record,) = records(log, adapter)
    assert record.keys() >= FIELDS
    return record


# One record, in every outcome.


def test_a_finished_task(
    log: pytest.LogCaptureFixture, adapter: VllmHttpAdapter, play: Play
) -> None:
    """It says which task it was, where it ran and what it cost."""
    fields = {"session_id": "s1", "correlation_id": "c1", "seed": 0}
    assert adapter.engine_version() == "0.32.0"  # A quicker task would not wait for it.
    play(Tokens(3), Finish("length"), Usage(), Done(), **fields).result(10)

    record = only(log, adapter)
    expected = {
        "levelname": "INFO",
        "job_id": "j1",
        "session_id": "s1",
        "correlation_id": "c1",
        "seed": 0,
        "engine": "vllm",
        "engine_version": "0.32.0",
        "pool_id": "p",
        "replica_id": "r7",
        "queue_position": None,
        "predicted_start_ms": None,
        "tokens_in": 1,
        "tokens_out": 3,
        "outcome": "length",
    }
    assert expected == {name: record[name] for name in expected}
    assert record["decode_time_ms"] == record["decode_ms"] >= 0


def test_the_correlation_id_is_the_job_id_by_default(
    log: pytest.LogCaptureFixture, adapter: VllmHttpAdapter, play: Play
) -> None:
    """As on the wire."""
    play(Tokens(1), Finish(), Done()).result(10)

    assert only(log, adapter)["correlation_id"] == "j1"


def test_a_cancelled_task(
    log: pytest.LogCaptureFixture, adapter: VllmHttpAdapter, play: Play
) -> None:
    """What it had sent by then is counted; cancelling is no failure."""
    with play(Tokens(2), Stall()) as stream:
        next(stream), next(stream), next(stream)
        stream.cancel()

    record = only(log, adapter)
    assert (
        record["levelname"],
        record["outcome"],
        record["tokens_out"],
    ) == ("INFO", "cancelled", 2)


def test_a_task_cancelled_while_it_waits_for_its_turn(
    log: pytest.LogCaptureFixture, adapter: VllmHttpAdapter, play: Play
) -> None:
    """It never reached the engine, and has its record all the same."""
    with play(Tokens(1), Stall()):
        waiting = adapter.submit(TaskRequest(prompt=PROMPT, job_id="j2"))
        adapter.cancel("j2")
        assert waiting.result(10).finish_reason == "cancelled"

    found = [record for record in records(log, adapter) if record["job_id"] == "j2"]
    assert [(one["outcome"], one["tokens_out"]) for one in found] == [("cancelled", 0)]
    assert found[0].keys() >= FIELDS


def test_a_stream_that_is_left(
    log: pytest.LogCaptureFixture, adapter: VllmHttpAdapter, play: Play
) -> None:
    """Leaving the `with` block is a cancel."""
    with play(Tokens(1), Stall()) as stream:
        next(stream), next(stream)

    assert only(log, adapter)["outcome"] == "cancelled"


def test_a_stream_that_is_dropped(
    log: pytest.LogCaptureFixture, adapter: VllmHttpAdapter, play: Play, engine: FakeEngine
) -> None:
    """So is forgetting about it."""
    play(Tokens(1), Stall())
    engine.wait_idle()

    assert only(log, adapter)["outcome"] == "cancelled"


@pytest.mark.parametrize(
    ("steps", "code", "status"),
    [
        ((Tokens(2), Cut("rst")), "WORKER_RESET", None),
        ((Tokens(2), ErrorEvent("boom", 500)), "POOL_UNAVAILABLE", 500),
        ((Status(400, {"error": {"message": "no", "code": 400}}),), "INVALID_PARAMS", 400),
        ((Status(401, {"error": "Unauthorized"}),), "UPSTREAM_AUTH", 401),
        ((Status(503, b""),), "POOL_UNAVAILABLE", 503),
    ],
    ids=["cut", "error in the stream", "400", "401", "503"],
)
def test_a_failed_task(
    log: pytest.LogCaptureFixture,
    adapter: VllmHttpAdapter,
    play: Play,
    steps: tuple[Step, ...],
    code: str,
    status: int | None,
) -> None:
    """A warning with code and status, and without the engine's text."""
    *_, last = play(*steps)
    assert isinstance(last, Error)

    record = only(log, adapter)
    expected = {"levelname": "WARNING", "outcome": "error", "code": code, "status": status}
    assert expected == {name: record[name] for name in expected}
    assert last.error.message not in record["message"]


def test_a_deadline(log: pytest.LogCaptureFixture, adapter: VllmHttpAdapter, play: Play) -> None:
    """It is told by its code."""
    *_, last = play(Tokens(1), Stall(), deadline_ms=300)

    assert isinstance(last, Error)
    assert only(log, adapter)["code"] == "DEADLINE_UNMET"


def test_an_engine_that_is_gone(
    log: pytest.LogCaptureFixture, adapter: VllmHttpAdapter, engine: FakeEngine
) -> None:
    """No version is known, and none is made up."""
    engine.close()
    *_, last = adapter.submit(TaskRequest(prompt=PROMPT))

    assert isinstance(last, Error)
    record = only(log, adapter)
    assert (record["code"], record["engine_version"]) == ("POOL_UNAVAILABLE", "unknown")


def test_an_adapter_that_is_closed(
    log: pytest.LogCaptureFixture, adapter: VllmHttpAdapter, play: Play
) -> None:
    """The tasks it ends, running and waiting, have their records."""
    running = play(Tokens(1), Stall())
    waiting = adapter.submit(TaskRequest(prompt=PROMPT, job_id="j2"))

    found = records(log, adapter)
    assert {"j1", "j2"} == {record["job_id"] for record in found}
    assert [AdapterClosed("").code] * 2 == [record["code"] for record in found]
    assert [AdapterClosed] * 2 == [type([*one][-1].error) for one in (running, waiting)]


def test_a_task_that_submit_refuses_has_no_record(
    log: pytest.LogCaptureFixture, adapter: VllmHttpAdapter
) -> None:
    """It was never one; the caller has the exception."""
    with pytest.raises(WorkerError):
        adapter.submit(TaskRequest(prompt=PROMPT, max_tokens=0))

    assert records(log, adapter) == []
