"""The real WSGI servers: how each is started, ended, and talked to."""

from __future__ import annotations

import contextlib
import functools
import http.client
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import wait_until

from vllm_http.testing import FakeEngine


HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
START = 20.0  # Seconds; a server imports the application in less than one.
STOP = 10.0  # Seconds; every server below is told to be graceful for one.


@dataclass(frozen=True)
class Kind:
    """One way to run a server.

    Attributes:
        name: In the tests' ids.
        module: What must be installed.
        command: Takes the port, and a folder of its own.
        reload: The signal that has it start its workers anew; None if it has none.
        patience: Options that limit how long an old worker may go on after that.
        shows_cuts: Whether a client can tell that a body broke off.
        on_ci: Whether CI must have it; not what pip can build only beside Apache's headers.
    """

    name: str
    module: str
    command: Callable[[int, Path], list[str]]
    reload: signal.Signals | None = None
    patience: tuple[str, ...] = ()
    shows_cuts: bool = True
    on_ci: bool = True

    def __str__(self) -> str:
        return self.name


def _gunicorn(worker: str, *options: str) -> Kind:
    def command(port: int, folder: Path) -> list[str]:
        return [
            *(sys.executable, "-m", "gunicorn", "app:application", f"--bind=127.0.0.1:{port}"),
            *(f"--worker-class={worker}", "--graceful-timeout=1", "--no-control-socket", *options),
        ]

    preload = "-preload" if "--preload" in options else ""
    module = "gevent" if worker == "gevent" else "gunicorn"
    return Kind(
        f"gunicorn-{worker}{preload}", module, command, signal.SIGHUP, patience=("--timeout=2",)
    )


def _uwsgi(name: str, *options: str) -> Kind:
    def command(port: int, folder: Path) -> list[str]:
        return [
            *(str(BIN / "uwsgi"), f"--http-socket=127.0.0.1:{port}", "--wsgi-file=app.py"),
            *("--master", "--processes=1", "--die-on-term", "--need-app"),
            # It starts itself anew by this; what it finds is the interpreter outside the venv.
            f"--binary-path={sys.executable}",
            *("--worker-reload-mercy=1", "--reload-mercy=1", *options),
        ]

    return Kind(name, "pyuwsgi", command, signal.SIGHUP, shows_cuts=False)


def _waitress(port: int, folder: Path) -> list[str]:
    listen = f"--listen=127.0.0.1:{port}"
    return [sys.executable, "-m", "waitress", listen, "app:application"]


# Apache serves nothing as root; others may not see root's Python, so they keep that one right.
_NOT_AS_ROOT = (
    *("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"),
    *("--inh-caps=+dac_override", "--ambient-caps=+dac_override"),
)


def _mod_wsgi(port: int, folder: Path) -> list[str]:
    return [
        *(_NOT_AS_ROOT if os.getuid() == 0 else ()),
        *(str(BIN / "mod_wsgi-express"), "start-server", str(HERE / "app.py"), f"--port={port}"),
        *("--host=127.0.0.1", f"--server-root={folder}", "--processes=1", "--threads=5"),
        *("--shutdown-timeout=1", "--graceful-timeout=1", "--log-to-terminal"),
    ]


SYNC = _gunicorn("sync")
KINDS = [
    SYNC,
    _gunicorn("sync", "--preload"),
    _gunicorn("gthread", "--threads=4"),
    _gunicorn("gthread", "--threads=4", "--preload"),
    _gunicorn("gevent"),
    _gunicorn("gevent", "--preload", "--config=gunicorn_gevent.py"),
    _uwsgi("uwsgi"),
    _uwsgi("uwsgi-threads", "--threads=4"),
    Kind("waitress", "waitress", _waitress),
    Kind("mod_wsgi", "mod_wsgi", _mod_wsgi, signal.SIGHUP, shows_cuts=False, on_ci=False),
]
# They end as others do, and each costs seconds.
_ALIKE = ("gunicorn-gthread-preload", "gunicorn-gevent-preload", "uwsgi")
ENDING = [kind for kind in KINDS if kind.name not in _ALIKE]
RELOADING = [kind for kind in ENDING if kind.reload is not None]


def need(module: str, *, on_ci: bool = True) -> None:
    """Skip the test where a package is missing; fail it on CI, if it is to be there."""
    if importlib.util.find_spec(module) is None:
        if on_ci and os.environ.get("CI"):
            pytest.fail(f"{module} is not installed, and CI tests with it")
        pytest.skip(f"{module} is not installed")


@dataclass(frozen=True)
class Served:
    """A server that runs, and the engine behind it."""

    kind: Kind
    engine: FakeEngine
    process: subprocess.Popen[bytes]
    port: int

    def posts(self) -> int:
        """How many tasks have reached the engine so far."""
        return len([r for r in self.engine.requests if r.method == "POST"])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, f"the server ended: {process.returncode}"
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def serving(kind: Kind, folder: Path, *options: str) -> Iterator[Served]:
    """Run a server on a free port, with an engine behind it; both are gone afterwards."""
    # An idle connection would outlive the test that it was for.
    with (
        FakeEngine(keep_alive=0.1) as engine,
        running(kind, folder, *options, VLLM_HTTP_TEST_ENGINE=engine.url) as (process, port),
    ):
        yield Served(kind, engine, process, port)


@contextmanager
def running(
    kind: Kind, folder: Path, *options: str, **environ: str
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a server on a free port; it is gone afterwards."""
    need(kind.module, on_ci=kind.on_ci)
    port = _free_port()
    # Without coverage, which hangs Apache: all that the servers run is measured without them.
    inherited = {name: v for name, v in os.environ.items() if not name.startswith("COVERAGE_")}
    command = [*kind.command(port, folder), *options]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=HERE,
            env=inherited | environ,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            wait_until(functools.partial(_answers, port, process), START)
            yield process, port
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> float:
    """Ask a server to end, and kill it and its workers if it does not; the seconds it took."""
    began = time.monotonic()
    process.terminate()
    try:
        process.wait(STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with contextlib.suppress(ProcessLookupError):  # workers that their master has left behind
        os.killpg(process.pid, signal.SIGKILL)
    return time.monotonic() - began


def last_type(port: int) -> str | None:
    """The type of the last event of a whole answer; None where the server gave none."""
    try:
        with Reader(port) as reader:
            types = [event["type"] for event in iter(reader.event, None)]
    except (OSError, http.client.HTTPException):
        return None
    return types[-1] if types else None


class Reader:
    """A client that takes one response piece by piece.

    Args:
        port: Of the server.
        path: Names the form of the body.
    """

    def __init__(self, port: int, path: str = "/sse") -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START)
        self._connection.request("GET", path)
        self._response: http.client.HTTPResponse | None = None

    @property
    def response(self) -> http.client.HTTPResponse:
        """Its status and headers; waits for them."""
        if self._response is None:
            self._response = self._connection.getresponse()
        return self._response

    def event(self) -> dict[str, Any] | None:
        """The next server-sent event's data; None at the end of the body."""
        for line in iter(self.response.readline, b""):
            if line.startswith(b"data: "):
                data: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
                return data
        return None

    def leave(self) -> None:
        """Close the connection, whatever is still to come."""
        if self._response is not None:
            self._response.close()
        self._connection.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *failure: object) -> None:
        self.leave()
