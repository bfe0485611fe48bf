"""What was used in the parent and then forked: the child starts anew, the parent goes on."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

import support
from forking import forks, in_a_child
from support import SOON, a_task, answer, kinds, posts, stopwatch, the_error

from vllm_http import TokenStream, VllmHttpAdapter
from vllm_http.testing import FakeEngine, Text, Wait


engine, adapter, gate = support.engine, support.adapter, support.gate


@forks
def test_child_has_its_own_connections(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """After a fork the same adapter works in the child, on connections of the child's own."""
    assert adapter.submit(a_task()).result(timeout=SOON).error is None

    text = in_a_child(lambda: adapter.submit(a_task(prompt="child")).result(timeout=SOON).text)

    parents, childs = posts(engine, 2)
    assert text != ""
    assert childs.json["prompt"] == "child"
    assert childs.connection != parents.connection
    assert adapter.submit(a_task()).result(timeout=SOON).error is None


@forks
def test_parents_stream_is_dead_in_the_child(
    engine: FakeEngine, adapter: VllmHttpAdapter, gate: threading.Event
) -> None:
    """In the child it yields AdapterClosed at once; in the parent it goes on."""
    engine.script(Text("a"), Text("b"), Wait(gate), *answer("c"))
    stream = adapter.submit(a_task())
    assert kinds([next(stream), next(stream)]) == ["started", "token"]

    def drain() -> list[Any]:
        with stopwatch() as watch:
            events = list(stream)
        return [kinds(events), type(the_error(events)).__name__, watch.seconds < 1]

    assert in_a_child(drain) == [["error"], "AdapterClosed", True]
    assert not posts(engine)[0].hung_up.is_set()
    gate.set()
    assert list(stream.text()) == ["b", "c"]


@forks
def test_parents_many_are_dead_in_the_child(
    engine: FakeEngine, adapter: VllmHttpAdapter, gate: threading.Event
) -> None:
    """What `stream_many` runs is over in the child, and the rest is the parent's to run."""
    engine.script(Text("a"), Wait(gate), *answer("b"))
    many = adapter.stream_many([a_task(), a_task(), a_task()], in_flight=1)
    assert next(many)[1].type == "started"

    seen = in_a_child(lambda: [event.to_dict() for _, event in many])

    assert [event["type"] for event in seen[-1:]] == ["error"]
    assert seen[-1]["error"]["error"] == "AdapterClosed"
    assert len(posts(engine, 1)) == 1
    gate.set()
    assert kinds(event for _, event in many).count("end") == 3


@forks
def test_child_may_drop_and_close_what_it_inherited(
    engine: FakeEngine, adapter: VllmHttpAdapter, gate: threading.Event
) -> None:
    """close() and cancel() in the child do nothing to the parent's task."""
    engine.script(Text("a"), Wait(gate), *answer("b"))
    stream = adapter.submit(a_task(job_id="mine"))
    assert kinds([next(stream), next(stream)]) == ["started", "token"]

    def wreck() -> str:
        adapter.cancel("mine")
        stream.cancel()
        stream.close()
        adapter.close()
        return "done"

    assert in_a_child(wreck) == "done"
    assert not posts(engine)[0].hung_up.is_set()
    gate.set()
    assert list(stream.text()) == ["b"]


@forks
def test_fork_while_other_threads_work(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """A lock that another thread held at the fork does not stop the child."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            adapter.submit(a_task(max_tokens=1)).result(timeout=SOON)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    try:
        reasons = [
            in_a_child(lambda: adapter.submit(a_task()).result(timeout=SOON).finish_reason)
            for _ in range(8)
        ]
    finally:
        stop.set()
        for worker in workers:
            worker.join(SOON)

    assert reasons == ["length"] * 8


# Forks by others.

FORK = multiprocessing.get_context("fork")
CHILDREN = 3
held: dict[str, Any] = {}  # what a prefork server has in its globals


def work(prompt: str) -> tuple[int, str]:
    """A child's task on the adapter that it inherited: who it is, and the text."""
    adapter: VllmHttpAdapter = held["adapter"]
    return os.getpid(), adapter.submit(a_task(prompt=prompt)).result(timeout=SOON).text


def look_and_work(stream: TokenStream, pipe: Connection) -> None:
    """A child's main function: what it sees of the parent's stream, and a task of its own."""
    pipe.send((kinds(stream), work("child")[1]))


@forks
def test_process_of_multiprocessing(
    engine: FakeEngine, adapter: VllmHttpAdapter, gate: threading.Event
) -> None:
    """It works with the adapter, sees no event of the parent's stream, and exits well."""
    engine.script(Text("a"), Wait(gate), *answer("b"))
    stream = adapter.submit(a_task())
    assert kinds([next(stream), next(stream)]) == ["started", "token"]
    held["adapter"] = adapter
    near, far = FORK.Pipe()
    with near, far:
        process = FORK.Process(target=look_and_work, args=(stream, far))
        process.start()
        assert near.poll(SOON)
        seen, text = near.recv()
        process.join(SOON)

    assert process.exitcode == 0
    process.close()
    assert seen == ["error"]
    assert text
    gate.set()
    assert list(stream.text()) == ["b"]


@forks
def test_prefork_pool(engine: FakeEngine, adapter: VllmHttpAdapter, gate: threading.Event) -> None:
    """All children work at once, on connections of their own, while the parent streams."""
    engine.script(Text("a"), Wait(gate), *answer("b"))
    stream = adapter.submit(a_task())
    assert kinds([next(stream), next(stream)]) == ["started", "token"]
    held["adapter"] = adapter
    prompts = [f"task {n}" for n in range(4 * CHILDREN)]

    with ProcessPoolExecutor(CHILDREN, mp_context=FORK) as pool:
        answers = list(pool.map(work, prompts, timeout=4 * SOON))

    alone = [adapter.submit(a_task(prompt=prompt)).result(timeout=SOON).text for prompt in prompts]
    assert [text for _, text in answers] == alone
    assert os.getpid() not in {pid for pid, _ in answers}
    ours, *others = posts(engine, 1 + len(prompts))
    assert ours.connection not in {other.connection for other in others}
    assert not ours.hung_up.is_set()
    gate.set()
    assert list(stream.text()) == ["b"]


@forks
def test_child_of_a_child(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """A child that was used and forks again is a parent like any other."""
    held["adapter"] = adapter
    assert adapter.submit(a_task()).result(timeout=SOON).error is None

    def fork_again() -> list[Any]:
        mine = work("child")[1]
        return [mine, in_a_child(lambda: work("child")[1]), work("child")[1]]

    texts = in_a_child(fork_again)

    assert texts == [texts[0]] * 3
    assert texts[0]
    parents, first, grandchilds, second = (post.connection for post in posts(engine, 4))
    assert len({parents, first, grandchilds}) == 3
    assert second not in (parents, grandchilds)
