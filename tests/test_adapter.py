"""The adapter's front door: admission, job ids, and what keeps it alive."""

from __future__ import annotations

import threading

import pytest
import support
from support import SOON, a_task, answer, failure, kinds, posts, sent, wait_until

from vllm_http import (
    CapacityExceeded,
    InvalidRequest,
    TokenStream,
    VllmHttpAdapter,
    WorkerAdapter,
)
from vllm_http._run import Run
from vllm_http.testing import FakeEngine, Stall, Status, Text, Tokens, Wait


engine, adapter, gate = support.engine, support.adapter, support.gate


def test_adapter_is_a_worker_adapter(adapter: VllmHttpAdapter) -> None:
    """The adapter fulfils the protocol that registries take."""
    worker: WorkerAdapter = adapter

    assert worker.engine_version() == "0.32.0"


def test_only_so_many_run_and_wait(engine: FakeEngine, gate: threading.Event) -> None:
    """Beyond max_concurrency and max_pending a task is refused at once, and nothing is lost."""
    for _ in range(2):
        engine.script(Wait(gate), *answer("a"))
    with VllmHttpAdapter(engine.url, max_concurrency=2, max_pending=1) as adapter:
        streams = [adapter.submit(a_task()) for _ in range(3)]
        posts(engine, 2)
        with pytest.raises(CapacityExceeded) as caught:
            adapter.submit(a_task())
        assert sent(engine) == 2
        gate.set()
        assert all(stream.result(timeout=SOON).error is None for stream in streams)
        assert adapter.submit(a_task()).result(timeout=SOON).error is None

    assert caught.value.retriable
    assert caught.value.status is None


def test_tasks_are_counted(engine: FakeEngine, gate: threading.Event) -> None:
    """A service can tell how many streams it holds, and sees them all gone in the end."""
    engine.script(Wait(gate), *answer("a"))
    with VllmHttpAdapter(engine.url, max_concurrency=1) as adapter:
        assert (adapter.running, adapter.waiting) == (0, 0)
        streams = [adapter.submit(a_task()) for _ in range(3)]
        assert (adapter.running, adapter.waiting) == (1, 2)

        streams[1].cancel()
        assert (adapter.running, adapter.waiting) == (1, 1)

        gate.set()
        assert streams[2].result(timeout=SOON).error is None
        wait_until(lambda: (adapter.running, adapter.waiting) == (0, 0))


def test_no_pending_at_all(engine: FakeEngine) -> None:
    """With max_pending=0 a task runs now or not at all."""
    engine.script(Stall())
    with VllmHttpAdapter(engine.url, max_concurrency=1, max_pending=0) as adapter:
        with adapter.submit(a_task()):
            posts(engine)
            with pytest.raises(CapacityExceeded):
                adapter.submit(a_task())

        wait_until(lambda: submits(adapter))


def test_one_after_the_other_is_never_refused(engine: FakeEngine) -> None:
    """A place is free with the End of its task, though the worker still drains the body."""
    for _ in range(50):
        engine.script(*answer("a"), Wait(0.03))
    with VllmHttpAdapter(engine.url, max_concurrency=1, max_pending=0) as adapter:
        assert all(adapter.submit(a_task()).result(timeout=SOON).text == "a" for _ in range(50))


def submits(adapter: VllmHttpAdapter) -> bool:
    """Whether the adapter takes a task, and serves it."""
    try:
        return adapter.submit(a_task()).result(timeout=SOON).error is None
    except CapacityExceeded:
        return False


def test_waiting_tasks_go_in_their_order(engine: FakeEngine, gate: threading.Event) -> None:
    """First come, first served."""
    engine.script(Wait(gate), *answer("a"))
    with VllmHttpAdapter(engine.url, max_concurrency=1) as adapter:
        streams = [adapter.submit(a_task(prompt=f"{n}")) for n in range(10)]
        gate.set()
        assert all(stream.result(timeout=SOON).error is None for stream in streams)

    assert [post.json["prompt"] for post in posts(engine)] == [f"{n}" for n in range(10)]


def test_job_id_is_made_or_taken(adapter: VllmHttpAdapter) -> None:
    """Without a job_id each task gets its own, and one that is given is kept."""
    own = [adapter.submit(a_task()).job_id for _ in range(3)]

    assert len(set(own)) == 3
    assert adapter.submit(a_task(job_id="mine")).job_id == "mine"


@pytest.mark.parametrize("ending", ["end", "error", "cancel", "close"])
def test_job_id_is_unique_while_it_lives(
    engine: FakeEngine, adapter: VllmHttpAdapter, gate: threading.Event, ending: str
) -> None:
    """A live job's id is refused, and free again once the stream has ended, however it did."""
    engine.script(Text("a"), Wait(gate), *(answer() if ending == "end" else []))
    stream = adapter.submit(a_task(job_id="mine"))
    posts(engine)
    with pytest.raises(InvalidRequest, match="mine"):
        adapter.submit(a_task(job_id="mine"))

    if ending in ("end", "error"):
        gate.set()
    else:
        getattr(stream, ending)()
    list(stream)

    assert adapter.submit(a_task(job_id="mine")).result(timeout=SOON).error is None


def test_waiting_jobs_id_is_taken_too(engine: FakeEngine) -> None:
    """A task that waits for a worker lives."""
    engine.script(Stall())
    with (
        VllmHttpAdapter(engine.url, max_concurrency=1) as adapter,
        adapter.submit(a_task()),
        adapter.submit(a_task(job_id="mine")),
        pytest.raises(InvalidRequest),
    ):
        adapter.submit(a_task(job_id="mine"))


def test_invalid_task_is_refused_here(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """What is wrong by itself never reaches the engine."""
    with pytest.raises(InvalidRequest):
        adapter.submit(a_task(max_tokens=0))
    with pytest.raises(InvalidRequest):
        adapter.submit(a_task(prompt=None))

    assert engine.requests == []


def test_task_is_read_at_submit(engine: FakeEngine) -> None:
    """A task that is changed after submit was sent as it had been."""
    engine.script(Stall())
    with VllmHttpAdapter(engine.url, max_concurrency=1) as adapter:
        blocker = adapter.submit(a_task())
        task = a_task(prompt="before", extra_body={"user": "me"})
        stream = adapter.submit(task)
        task.prompt = "after"
        task.extra_body["user"] = "you"
        posts(engine)
        blocker.close()
        assert stream.result(timeout=SOON).error is None

    body = posts(engine, 2)[1].json
    assert (body["prompt"], body["user"]) == ("before", "me")


def test_one_task_submitted_twice(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """The same TaskRequest makes two jobs."""
    task = a_task()

    streams = [adapter.submit(task), adapter.submit(task)]

    assert streams[0].job_id != streams[1].job_id
    assert task.job_id is None
    assert streams[0].result(timeout=SOON).text == streams[1].result(timeout=SOON).text


def test_dropping_the_adapter_keeps_its_streams(engine: FakeEngine, gate: threading.Event) -> None:
    """A stream works on after the last reference to its adapter is gone."""
    engine.script(Text("a"), Wait(gate), *answer("b"))

    def stream_alone() -> TokenStream:
        return VllmHttpAdapter(engine.url).submit(a_task())

    stream = stream_alone()
    assert kinds([next(stream), next(stream)]) == ["started", "token"]
    gate.set()

    assert kinds(stream) == ["token", "end"]


def test_dropping_adapter_and_stream_frees_the_engine(engine: FakeEngine) -> None:
    """Without close() too, dropping the last reference ends the generation."""
    engine.script(Tokens(1), Stall())
    stream = VllmHttpAdapter(engine.url).submit(a_task())
    assert kinds([next(stream), next(stream)]) == ["started", "token"]

    del stream

    assert posts(engine)[0].hung_up.wait(SOON)


def test_repr_shows_no_secret(engine: FakeEngine) -> None:
    """repr names the engine and neither the key nor the headers."""
    headers = {"X-Api-Key": "hush"}
    with VllmHttpAdapter(engine.url, api_key="secret", headers=headers) as adapter:
        shown = repr(adapter) + str(adapter)

    assert engine.url in shown
    assert "secret" not in shown
    assert "hush" not in shown


def test_echoed_key_is_redacted(engine: FakeEngine) -> None:
    """An engine that repeats the key in its refusal does not get it into the error."""
    engine.script(Status(401, {"error": "bad key sk-very-secret-key"}))
    with VllmHttpAdapter(engine.url, api_key="sk-very-secret-key") as adapter:
        error, _ = failure(adapter.submit(a_task()))

    assert isinstance(error, InvalidRequest)
    assert error.code == "UPSTREAM_AUTH"
    assert "very-secret" not in f"{error} {error!r} {error.to_dict()}"


def test_end_makes_room_at_once(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has seen the End may submit again, under the same job_id too."""
    left = threading.Event()
    with VllmHttpAdapter(engine.url, max_concurrency=1, max_pending=0) as adapter:
        leave = adapter._slots.leave

        def leave_late(run: Run) -> None:
            left.wait(SOON)
            leave(run)

        monkeypatch.setattr(adapter._slots, "leave", leave_late)
        assert adapter.submit(a_task(job_id="job")).result(timeout=SOON).error is None

        second = adapter.submit(a_task(job_id="job"))

        left.set()
        assert second.result(timeout=SOON).error is None
