"""Which connection a task goes over, and what becomes of it."""

from __future__ import annotations

import contextlib
import gc
import queue
import socket
import threading
from functools import partial
from itertools import pairwise

import pytest
import support
from peers import Peer
from support import (
    ONCE,
    SOON,
    a_task,
    answer,
    engine_threads,
    failure,
    kinds,
    posts,
    sent,
    wait_until,
)

from vllm_http import (
    EngineUnavailable,
    StreamingError,
    VllmHttpAdapter,
    _connections,
)
from vllm_http.testing import (
    Cut,
    Done,
    ErrorEvent,
    FakeEngine,
    Finish,
    Headers,
    Stall,
    Status,
    Step,
    Text,
    Wait,
    WireBytes,
)


engine, adapter = support.engine, support.adapter


def connections(engine: FakeEngine) -> list[int]:
    """Which connection each completions request came on."""
    return [post.connection for post in posts(engine, 0)]


def socket_to(engine: FakeEngine) -> socket.socket:
    """The client's end of the only connection."""
    found = []
    for one in gc.get_objects():
        if isinstance(one, socket.socket):
            with contextlib.suppress(OSError):
                found += [one] if one.getpeername()[1] == engine.port else []
    (only,) = found
    return only


def test_request_goes_out_in_one_write() -> None:
    """Headers and body: a second write would wake the engine a second time."""
    first_read: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def talk(sock: socket.socket) -> None:
        first_read.put(sock.recv(2**20))

    with Peer(talk) as peer, VllmHttpAdapter(peer.url(), retry=ONCE) as adapter:
        adapter._version._known = "0"  # nothing else is asked
        stream = adapter.submit(a_task(prompt="x" * 5000))
        request = first_read.get(timeout=SOON)
        failure(stream)

    head, body = request.split(b"\r\n\r\n")
    assert b"content-length: %d" % len(body) in head.lower()
    assert body.endswith(b"}")


def test_sequential_tasks_share_their_connections(
    engine: FakeEngine, adapter: VllmHttpAdapter
) -> None:
    """Thirty tasks one after another take two connections at most, the version's included."""
    for _ in range(30):
        assert adapter.submit(a_task()).result(timeout=SOON).error is None

    assert engine.connections <= 2


def test_end_comes_when_the_connection_is_free(
    engine: FakeEngine, adapter: VllmHttpAdapter
) -> None:
    """A task upon the End of another takes its connection, though its body ends a bit later."""
    adapter.engine_version()
    for _ in range(12):
        engine.script(*answer("a"), Wait(0.002))
    for _ in range(12):
        assert adapter.submit(a_task()).result(timeout=SOON).error is None

    # A few are forgiven: on a busy machine the bit may be longer than the worker waits.
    assert sum(one != other for one, other in pairwise(connections(engine))) <= 3


@pytest.mark.parametrize("status", [b"102 Processing", b"103 Early Hints"])
def test_interim_answer_mixes_nothing_up(engine: FakeEngine, status: bytes) -> None:
    """After a gateway's interim answer two users of a connection get each their own."""
    interim = WireBytes(b"HTTP/1.1 " + status + b"\r\nlink: </x>\r\n\r\n")
    engine.script(interim, Wait(0.05), *answer("for Alice"))
    engine.script(*answer("for Bob"))
    # Bob's turn comes when Alice's connection is free.
    with VllmHttpAdapter(engine.url, retry=ONCE, max_concurrency=1) as adapter:
        adapter.engine_version()
        streams = [adapter.submit(a_task(prompt=prompt)) for prompt in ("Alice", "Bob")]
        texts = [stream.result(timeout=SOON).text for stream in streams]

    assert texts == ["for Alice", "for Bob"]
    assert len(set(connections(engine))) == 1


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([Status(400, {"error": {"message": "no", "code": 400}})], id="400"),
        pytest.param([Status(404, b"<html>gone</html>")], id="HTML 404"),
        pytest.param([Status(501)], id="empty 501"),
    ],
)
def test_connection_survives_a_refusal(engine: FakeEngine, steps: list[Step]) -> None:
    """A refusal that was read to its end leaves the connection usable."""
    with VllmHttpAdapter(engine.url, retry=ONCE) as adapter:
        for _ in range(10):
            engine.script(*steps)
            failure(adapter.submit(a_task()))

    assert engine.connections <= 2


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([ErrorEvent("no", 400), Done()], id="error event"),
        pytest.param([Text("a"), ErrorEvent("died", 500), Done()], id="late error event"),
        pytest.param([Text("a"), Finish("abort"), Done()], id="abort"),
        pytest.param([Text("a"), Cut("rst")], id="reset"),
        pytest.param([Text("a"), ErrorEvent("died", 500), Stall()], id="silence after an error"),
    ],
)
def test_broken_stream_spoils_nothing(engine: FakeEngine, steps: list[Step]) -> None:
    """After a stream that failed, the next task gets its own whole answer."""
    with VllmHttpAdapter(engine.url, retry=ONCE) as adapter:
        engine.script(*steps)
        failure(adapter.submit(a_task()))
        engine.script(*answer("mine"))

        assert adapter.submit(a_task()).result(timeout=SOON).text == "mine"


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([Headers(headers={"connection": "close"}), *answer("a")], id="chunked"),
        pytest.param([Headers(chunked=False), *answer("a")], id="close-delimited"),
    ],
)
def test_last_answer_of_a_connection(
    engine: FakeEngine, adapter: VllmHttpAdapter, steps: list[Step]
) -> None:
    """A body that ends with its connection is whole, and the next task takes another one."""
    engine.script(*steps)

    assert kinds(adapter.submit(a_task())) == ["started", "token", "end"]
    assert adapter.submit(a_task()).result(timeout=SOON).error is None
    first, second = connections(engine)
    assert first != second


def test_close_delimited_bytes_come_at_once(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """Without chunks a token is not held back until more has come."""
    gate = threading.Event()
    engine.script(Headers(chunked=False), Text("a"), Wait(gate), *answer("b"))

    with adapter.submit(a_task()) as stream:
        early = [stream.get(timeout=SOON), stream.get(timeout=SOON)]
        gate.set()
        rest = kinds(stream)

    assert [event.type for event in early if event] == ["started", "token"]
    assert rest == ["token", "end"]


def test_cut_close_delimited_body_is_an_error(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """A body whose end is the connection's is not whole for that alone."""
    engine.script(Headers(chunked=False), Text("a"), Cut("fin"))

    error, seen = failure(adapter.submit(a_task()))

    assert seen == ["started", "token", "error"]
    assert isinstance(error, StreamingError)


def test_server_drops_idle_connections() -> None:
    """A connection that the server closed meanwhile is no failure."""
    with (
        FakeEngine(keep_alive=0.05) as engine,
        VllmHttpAdapter(engine.url, retry=ONCE) as adapter,
    ):
        for _ in range(3):
            assert adapter.submit(a_task()).result(timeout=SOON).error is None
            wait_until(lambda: not engine_threads())
        assert len(set(connections(engine))) == 3


def keep_a_connection(adapter: VllmHttpAdapter) -> None:
    """Have one idle connection in the pool, and no question about the version left."""
    adapter.engine_version()
    adapter.models()


def test_silent_peer_is_noticed_by_the_system(engine: FakeEngine) -> None:
    """Where no clock runs; and nothing that also counts against an engine too busy to read."""
    with VllmHttpAdapter(engine.url) as adapter:
        keep_a_connection(adapter)
        kept = socket_to(engine)
        ask = partial(kept.getsockopt, socket.IPPROTO_TCP)

        assert kept.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert [ask(o) for o in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL)] == [60, 15]
        assert (ask(socket.TCP_KEEPCNT), ask(socket.TCP_USER_TIMEOUT)) == (2, 0)


def test_dead_kept_connection_is_replaced(engine: FakeEngine) -> None:
    """Even without retries: nobody has read the task. Both sendings are counted."""
    engine.script(Cut("rst"))
    with VllmHttpAdapter(engine.url, retry=ONCE) as adapter:
        keep_a_connection(adapter)
        completion = adapter.submit(a_task()).result()

    assert completion.metrics is not None
    assert (completion.error, completion.metrics.attempts) == (None, 2)
    kept, second = posts(engine, 2)
    assert kept.connection == engine.requests[1].connection != second.connection


def test_only_one_free_retry(engine: FakeEngine) -> None:
    """A new connection that dies counts as an attempt."""
    engine.script(Cut("rst"))
    engine.script(Cut("rst"))
    with VllmHttpAdapter(engine.url, retry=ONCE) as adapter:
        keep_a_connection(adapter)
        error, _ = failure(adapter.submit(a_task()))

    assert isinstance(error, EngineUnavailable)
    assert sent(engine) == 2


def test_old_idle_connections_are_not_used(
    engine: FakeEngine, adapter: VllmHttpAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After four idle seconds a new connection is made, before vLLM drops the old after five."""
    assert _connections.MAX_IDLE == 4
    monkeypatch.setattr(_connections, "MAX_IDLE", 0.2)
    for idle in (0.0, 0.3):
        threading.Event().wait(idle)
        assert adapter.submit(a_task()).result(timeout=SOON).error is None

    first, second = connections(engine)
    assert first != second


def test_old_busy_connections_are_not_used(
    engine: FakeEngine, adapter: VllmHttpAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However busy, a connection ends: a name that has new addresses is looked up again."""
    monkeypatch.setattr(_connections, "MAX_AGE", 0.3)

    def used_and_replaced() -> bool:
        assert adapter.submit(a_task()).result(timeout=SOON).error is None
        return 1 < len(set(connections(engine))) < sent(engine)

    wait_until(used_and_replaced)


def test_many_in_parallel(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """Sixty tasks run at once, each on its own connection, and none gets another's answer."""
    gate = threading.Event()
    for n in range(60):
        engine.script(Wait(gate), *answer(f"{n}"))
    streams = [adapter.submit(a_task()) for _ in range(60)]
    posts(engine, 60)
    gate.set()

    texts = [stream.result(timeout=SOON).text for stream in streams]

    assert sorted(texts, key=int) == [f"{n}" for n in range(60)]
    assert len(set(connections(engine))) == 60


def test_no_more_than_max_concurrency_at_once(engine: FakeEngine) -> None:
    """With a limit of three, ten tasks use three connections and all are served."""
    with VllmHttpAdapter(engine.url, max_concurrency=3) as adapter:
        streams = [adapter.submit(a_task()) for _ in range(10)]
        assert all(stream.result(timeout=SOON).error is None for stream in streams)

    assert len(set(connections(engine))) <= 4
