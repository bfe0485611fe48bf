"""Signals to the examples: each of them ends, and nothing of what it has started is left."""

from __future__ import annotations

import os
import pty
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from examples.client import Reader, ask
from examples.conftest import CHAT, COMMANDS
from examples.programs import START, Program, documented, free_port, need_program, on_port, running
from support import SOON, answer, stopwatch, wait_until
from wsgi.servers import need

from vllm_http.testing import FakeEngine, Stall, Text


BATCH = documented("celery_batch/run.py", "python")
SCRIPT = documented("plain_script.py", "python")
GRACE = 10.0  # Seconds; examples/with_celery.py leaves them to a worker.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
any_signal = pytest.mark.parametrize("how", SIGNALS, ids=lambda how: how.name)
ctrl_c_or_term = pytest.mark.parametrize("how", SIGNALS[:2], ids=lambda how: how.name)


@pytest.fixture
def with_celery() -> None:
    """What with_celery.py needs, and the scripts that it runs."""
    for module in ("flask", "celery", "redis"):
        need(module)
    need_program("redis-server")


@contextmanager
def started(command: list[str], engine: FakeEngine, folder: Path, **more: str) -> Iterator[Program]:
    """A program on this engine; its temporary files have a folder of their own."""
    temporary(folder).mkdir()
    variables = {"VLLM_URL": engine.url, "TMPDIR": str(temporary(folder)), **more}
    with running(command, folder, **variables) as program:
        yield program


@contextmanager
def serving(command: list[str], engine: FakeEngine, folder: Path) -> Iterator[tuple[Program, int]]:
    """One that serves, and its port."""
    port = free_port()
    options = "--no-control-socket --graceful-timeout=1"
    variables = {"PORT": str(port), "GUNICORN_CMD_ARGS": options}
    with started(on_port(command, port), engine, folder, **variables) as program:
        program.wait_serving(port)
        yield program, port


@contextmanager
def half_an_answer(engine: FakeEngine, port: int, path: Callable[[], str]) -> Iterator[None]:
    """Somebody reads an answer that would never end."""
    engine.script(Text("Once"), Stall())
    with Reader(port, path()) as reader:
        assert reader.token() == "Once"
        yield


def temporary(folder: Path) -> Path:
    """Where a program has its temporary files."""
    return folder / "tmp"


def check_end(program: Program, how: signal.Signals, within: float = SOON) -> int:
    """Send a signal, check that nothing is left when the program has ended, return its code."""
    with stopwatch() as watch:
        program.process.send_signal(how)
        code = program.wait()
    print(f"ended {watch.seconds:.2f} s after {how.name}")

    check_nothing_left(program)
    assert watch.seconds < within
    return code


def check_nothing_left(program: Program) -> None:
    """Check that its processes and its files are gone."""
    assert program.family() == []
    assert list(temporary(program.folder).iterdir()) == []


def check_idle(engine: FakeEngine) -> None:
    """Check that nobody waits for the engine, or is still connected to it."""
    engine.wait_idle()
    engine.wait_disconnected()


def check_free(port: int) -> None:
    """Check that another server could listen there."""
    socket.create_server(("127.0.0.1", port)).close()


# with_celery.py, and all that is around a script.


@any_signal
@pytest.mark.usefixtures("with_celery")
def test_idle_chat(engine: FakeEngine, tmp_path: Path, how: signal.Signals) -> None:
    """The web process, the worker and Redis are gone; the code is a shell's for the signal."""
    command = documented(CHAT, COMMANDS["celery"])
    with serving(command, engine, tmp_path) as (program, port):
        engine.script(*answer("Once"))
        with Reader(port, ask(port, "Tell me a tale")) as reader:
            assert reader.events()[-1].data["type"] == "end"

        assert check_end(program, how, GRACE + SOON) == 128 + how
        check_free(port)
    check_idle(engine)


@ctrl_c_or_term
@pytest.mark.usefixtures("with_celery")
def test_chat_in_mid_answer(engine: FakeEngine, tmp_path: Path, how: signal.Signals) -> None:
    """A worker that does not finish in its grace is killed; impatience leaves nothing behind."""
    command = documented(CHAT, COMMANDS["celery"])
    with serving(command, engine, tmp_path) as (program, port):
        with half_an_answer(engine, port, lambda: ask(port, "Tell me a tale")):
            for _ in range(3):
                program.process.send_signal(how)

            assert check_end(program, how, GRACE + 2 * SOON) == 128 + how
            check_free(port)
        check_idle(engine)


@pytest.mark.usefixtures("with_celery")
def test_terminal_that_closes(engine: FakeEngine, tmp_path: Path) -> None:
    """All are gone that it has started, and it does not mind that nobody reads its words."""
    master, slave = pty.openpty()
    # A shell that leads a session gets the first terminal that it opens for its own.
    onto = f'exec "$@" < {os.ttyname(slave)} > {os.ttyname(slave)}'
    command = ["sh", "-c", onto, "sh", *documented(CHAT, COMMANDS["celery"])]
    with serving(command, engine, tmp_path) as (program, port):
        os.close(slave)
        os.close(master)

        assert program.wait() == 128 + signal.SIGHUP
        check_nothing_left(program)
        check_free(port)
    check_idle(engine)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.usefixtures("with_celery")
def test_moment_of_a_start(engine: FakeEngine, tmp_path: Path, count: int) -> None:
    """A signal that comes just as Redis, the worker or the script begins loses none of them."""
    with started(documented(CHAT, COMMANDS["celery"]), engine, tmp_path) as program:
        wait_until(lambda: len(children(program.process.pid)) >= count, START)

        assert check_end(program, signal.SIGTERM, GRACE + SOON) == 128 + signal.SIGTERM
    check_idle(engine)


def children(pid: int) -> list[str]:
    """The processes that a process without threads has started."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@ctrl_c_or_term
@pytest.mark.usefixtures("with_celery")
def test_batch(engine: FakeEngine, tmp_path: Path, how: signal.Signals) -> None:
    """In the middle of two answers: they are given up, and nobody waits for them any more."""
    (tmp_path / "prompts").write_text("One\nTwo\n")
    for _ in range(2):
        engine.script(Text("Once"), Stall())
    with started([*BATCH, str(tmp_path / "prompts")], engine, tmp_path) as program:
        engine.wait_for_requests(2, timeout=START, path="/v1/completions")

        assert check_end(program, how, GRACE + SOON) == 128 + how
    check_idle(engine)


# The examples that are one program.


@ctrl_c_or_term
def test_chat_in_memory(engine: FakeEngine, tmp_path: Path, how: signal.Signals) -> None:
    """In mid-answer it ends at once, and the engine with it."""
    need("flask")
    command = documented(CHAT, COMMANDS["memory"])
    with serving(command, engine, tmp_path) as (program, port):
        with half_an_answer(engine, port, lambda: ask(port, "Tell me a tale")):
            assert check_end(program, how) == {signal.SIGINT: 0, signal.SIGTERM: -how}[how]
            check_free(port)
        check_idle(engine)


@ctrl_c_or_term
@pytest.mark.parametrize("start", ["python", "gunicorn"])
def test_django(engine: FakeEngine, tmp_path: Path, start: str, how: signal.Signals) -> None:
    """In mid-answer it ends at once; gunicorn after its graceful timeout, which is 1 s here."""
    for module in ("django", "gunicorn"):
        need(module)
    command = documented("django_view/app.py", start)
    with serving(command, engine, tmp_path) as (program, port):
        with half_an_answer(engine, port, lambda: "/say"):
            code = check_end(program, how, within=2 * SOON)
            check_free(port)
        check_idle(engine)
    assert code == (-how if (start, how) == ("python", signal.SIGTERM) else 0)


@ctrl_c_or_term
@pytest.mark.parametrize("said", ["", "Once"], ids=["before the first token", "between tokens"])
def test_plain_script(engine: FakeEngine, tmp_path: Path, said: str, how: signal.Signals) -> None:
    """It ends at once, whether the engine has said something or not; what came is kept."""
    engine.script(*([Text(said)] if said else []), Stall())
    with started(SCRIPT, engine, tmp_path) as program:
        engine.wait_for_requests(1, timeout=START, path="/v1/chat/completions")
        wait_until(lambda: program.stdout == said, START)

        assert check_end(program, how) == {signal.SIGINT: 130, signal.SIGTERM: -how}[how]
        assert program.stdout == said
    check_idle(engine)


@ctrl_c_or_term
def test_plain_script_on_the_embedded_engine(
    engine: FakeEngine, tmp_path: Path, how: signal.Signals
) -> None:
    """It ends at once with the engine that is in it."""
    with started(SCRIPT, engine, tmp_path, VLLM_URL="") as program:
        wait_until(lambda: program.stdout != "", START)

        assert check_end(program, how) == {signal.SIGINT: 130, signal.SIGTERM: -how}[how]
