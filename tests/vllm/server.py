"""Start a real vLLM on 127.0.0.1, ask it plain questions, and end it with all its children."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .recipe import HEARTBEAT, Installation, cache_folder, say


MODEL = "smollm2"
CONTEXT = 2048  # tokens: the model could do 8192
FLAGS = ["--served-model-name", MODEL, "--max-model-len", str(CONTEXT), "--max-num-seqs", "16"]
# Compiling takes two minutes more at every start, for a tenth more speed.
FLAGS += ["--enforce-eager"]

SETTINGS = {
    # No look-ups, no telemetry.
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB: room for 46,592 tokens
    # Else the first request for logprobs stops the engine for 17 s: it compiles a small function.
    "TORCHDYNAMO_DISABLE": "1",
}

START_LIMIT = "VLLM_START_LIMIT"
"""The variable with the seconds that a start may take. It takes 30 on a quiet machine."""

START = 300.0  # unless that says otherwise: it is a busy machine that needs the patience
POLL = 5.0  # seconds that a server which starts may take for an answer
GRACE = 10.0  # seconds from SIGTERM to SIGKILL; an idle server takes 3
LINGER = 5.0  # seconds that its children may then take to end by themselves


# Such as "(APIServer pid=7) INFO 11-23 10:00:00 [launcher.py:46] ".
_LOG_HEAD = re.compile(r"^(\(\w+ pid=\d+\) )?([A-Z]+ \S+ \S+ \[[^]]*\] )?")


class ServerError(Exception):
    """The server cannot start or did not; the message has the last lines of its log, if kept."""


def start_limit() -> float:
    """Return the seconds that a start may take.

    Raises:
        ServerError: The variable holds no number above 0.
    """
    text = os.environ.get(START_LIMIT, "").strip()
    try:
        limit = float(text) if text else START
    except ValueError:
        limit = 0.0
    if not limit > 0:
        raise ServerError(f"{START_LIMIT}: {text!r} is not a number of seconds above 0")
    return limit


class Server:
    """A vLLM server and its process group: `serving` says what the arguments are."""

    def __init__(
        self,
        installation: Installation,
        port: int,
        flags: Sequence[str] = (),
        log: Path | None = None,
    ) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._log = log
        # -I keeps our PYTHON* variables and the current folder out of it.
        command = [str(installation.venv / "bin" / name) for name in ("python", "vllm")]
        command[1:1] = ["-I"]
        command += ["serve", str(installation.model), "--host", "127.0.0.1", "--port", str(port)]
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(log.open("wb")) if log else None
            self.process = subprocess.Popen(
                [*command, *FLAGS, *flags],
                env={**os.environ, **SETTINGS},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output and subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Return when the model is listed: until then vLLM refuses every connection.

        By the model, since another test's engine may have got the port meanwhile. A heartbeat
        tells how far it is.

        Raises:
            ServerError: It died, or is not ready within the limit; says what to do.
        """
        limit = start_limit()
        began = time.monotonic()
        told = began
        while (now := time.monotonic()) < began + limit:
            if self._is_ready():
                return
            if now >= told + HEARTBEAT:
                told = now
                say(f"vLLM is starting, {now - began:.0f} s of at most {limit:g}{self._doing()}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self.process.wait(timeout=min(0.5, limit))
                raise ServerError(f"vLLM exited with code {code} before it was ready{self.tail()}")
        raise ServerError(
            f"vLLM is not ready after {limit:g} s. On a busy machine, give it longer: set "
            f"{START_LIMIT} (seconds). If its log tells of a failure instead, mend that, or delete "
            f"{cache_folder()} to have all of it made anew.{self.tail()}"
        )

    def _is_ready(self) -> bool:
        try:
            return MODEL.encode() in self.ask("GET", "/v1/models", timeout=POLL)[1]
        except (OSError, http.client.HTTPException):
            return False

    def _doing(self) -> str:
        """Return the last line of its log, without what stands before each; "" if none is kept."""
        lines = [line for line in self.log_lines() if line.strip()]
        return f": {_LOG_HEAD.sub('', lines[-1]).strip()[:120]}" if lines else ""

    def tail(self) -> str:
        """Return the last lines of the log, each on a line of its own."""
        return "".join(f"\n  {line}" for line in self.log_lines()[-25:])

    def log_lines(self) -> list[str]:
        """Return the log so far; none where the output is not kept."""
        return self._log.read_text(errors="replace").splitlines() if self._log else []

    def ask(
        self, method: str, path: str, body: Any = None, timeout: float = 60.0
    ) -> tuple[int, bytes]:
        """Send one plain request and return the status and the body of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        with contextlib.closing(connection):
            headers = {"Content-Type": "application/json"}
            connection.request(method, path, body and json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, response.read()

    def answer(self, body: dict[str, Any], path: str = "/v1/completions") -> dict[str, Any]:
        """Return what the engine answers without streaming: what our streams are held against."""
        status, content = self.ask("POST", path, {"model": MODEL, **body})
        assert status == 200, content
        answer: dict[str, Any] = json.loads(content)
        return answer

    def running(self) -> int:
        """Return the number of requests in the engine, running or waiting, by its own /metrics."""
        _, text = self.ask("GET", "/metrics")
        gauges = re.findall(rb"^vllm:num_requests_(?:running|waiting)\{.*\} (\S+)$", text, re.M)
        assert len(gauges) == 2, text
        return int(sum(map(float, gauges)))

    def running_once_it_is(self, count: int, limit: float = 1.0) -> int:
        """Return `running` when it is *count*, or after *limit*: the gauges lag by some steps."""
        until = time.monotonic() + limit
        while (running := self.running()) != count and time.monotonic() < until:
            time.sleep(0.02)
        return running

    def seconds_until_idle(self, limit: float = 10.0) -> float:
        """Return how long it takes the engine to be rid of every request, at most *limit*."""
        began = time.monotonic()
        while self.running() and time.monotonic() - began < limit:
            time.sleep(0.02)
        return time.monotonic() - began

    def members(self) -> dict[int, str]:
        """Return the living processes of the group: their names by process id."""
        living = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it ended meanwhile
                state, _, group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
                if int(group) == self.process.pid and state not in "ZX":
                    title = (folder / "cmdline").read_bytes().partition(b"\0")[0]
                    living[int(folder.name)] = title.decode()
        return living

    def stop(self) -> None:
        """End the whole group and return when nothing of it is left: SIGTERM, then SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        # With requests in flight vLLM waits for its clients to hang up, so the bound is needed.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=GRACE)
        # The server alone at first: when it has died, a helper process in the group still frees
        # its 400 MB of shared memory, and then ends by itself.
        self.process.kill()
        self.process.wait()
        if not self._wait_until_empty():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self._wait_until_empty()

    def _wait_until_empty(self) -> bool:
        give_up = time.monotonic() + LINGER
        while self.members():
            if time.monotonic() > give_up:
                return False
            time.sleep(0.05)
        return True


@contextlib.contextmanager
def serving(
    installation: Installation,
    port: int,
    flags: Sequence[str] = (),
    log: Path | None = None,
) -> Iterator[Server]:
    """Have a ready server for the length of a `with`, and nothing of it afterwards.

    Args:
        installation: What to start it from.
        port: On 127.0.0.1.
        flags: More flags for ``vllm serve``.
        log: Where its output goes; None: to ours.

    Raises:
        ServerError: It did not start.
    """
    server = Server(installation, port, flags, log)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


def free_port(wanted: int = 0) -> int:
    """Return *wanted* if nobody listens there on 127.0.0.1; 0 stands for any such port.

    Raises:
        ServerError: Somebody does.
    """
    with socket.socket() as probe:
        # As vLLM does: old connections of a server that has just ended do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError as error:
            raise ServerError(f"no server can listen on port {wanted}: {error.strerror}") from None
        port: int = probe.getsockname()[1]
        return port
