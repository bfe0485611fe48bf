"""What only a process shows: signals, pipes, encodings, what is installed and imported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import COMMAND, PATIENCE, ctrl_c, environment, finished, started, stdout
from support import wait_until

import vllm_http
from vllm_http.testing import Done, FakeEngine, Finish, Stall, Text, Usage, Wait


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    """A running engine in the test's own process."""
    with FakeEngine() as engine:
        yield engine


def run(engine: FakeEngine, *more: str) -> list[str]:
    """The command that streams an answer of the engine."""
    return [*COMMAND, "run", "prompt", "--url", engine.url, *more]


# The way in.


def test_module_is_the_command() -> None:
    """`python -m vllm_http` is `vllm-http`."""
    done = finished(*COMMAND, "--version")

    assert done.stdout == f"vllm-http, version {vllm_http.__version__}\n".encode()
    assert done.returncode == 0


def test_missing_extra_is_named() -> None:
    """Without click one line says what to install."""
    program = "import sys; sys.modules['click'] = None; from vllm_http.cli import main; "
    done = finished(sys.executable, "-c", program + "sys.exit(main(['--help']))")

    assert done.stderr.decode() == (
        "error: the command line needs more packages: pip install 'vllm-http[cli]'\n"
    )
    assert (done.returncode, done.stdout) == (2, b"")


def test_environment_names_the_engine_and_the_key() -> None:
    """ORCHD_VLLM_URL and VLLM_API_KEY spare the options."""
    with FakeEngine(api_key="the-key") as engine:
        env = environment(ORCHD_VLLM_URL=engine.url, VLLM_API_KEY="the-key")
        done = finished(*COMMAND, "models", env=env)

    assert (done.returncode, done.stdout) == (0, b"fake-model\t2048\n")


def test_fake_engine_is_imported_only_where_it_is_used(engine: FakeEngine) -> None:
    """Talking to a real engine costs no import of the fake one."""
    program = (
        "import sys; from vllm_http.cli import main;"
        f"assert main(['health', '--url', {engine.url!r}]) == 0;"
        "sys.exit('vllm_http.testing' in sys.modules)"
    )
    done = finished(sys.executable, "-c", program)

    assert (done.returncode, done.stderr) == (0, b"")


# stdin.


def test_dash_reads_the_prompt_from_stdin(engine: FakeEngine) -> None:
    """The prompt comes as UTF-8, whatever the locale, and without its last line end."""
    command = [*COMMAND, "run", "-", "--url", engine.url]
    prompt = "two lines,\ncafé\n\n"
    done = finished(*command, stdin=prompt.encode(), env=environment(PYTHONIOENCODING="ascii"))
    (request,) = engine.wait_for_requests(1, path="/v1/completions")

    assert done.returncode == 0
    assert request.json["prompt"] == "two lines,\ncafé\n"


def test_stdin_that_is_not_utf_8_is_refused() -> None:
    """Bytes that are no text are named by their place."""
    done = finished(*COMMAND, "run", "-", "--fake", stdin=b"caf\xe9")

    assert (done.returncode, done.stderr) == (2, b"error: stdin: not UTF-8 at byte 3\n")


def test_closed_stdin_is_refused() -> None:
    """There is nothing to read where stdin was closed."""
    done = finished("sh", "-c", 'exec "$@" <&-', "sh", *COMMAND, "run", "-", "--fake")

    assert (done.returncode, done.stderr) == (2, b"error: stdin: Bad file descriptor\n")


# stdout.


def test_text_keeps_to_the_encoding_of_stdout(engine: FakeEngine) -> None:
    """What the encoding cannot hold becomes a question mark, not a crash."""
    engine.script(Text("café 🙂"), Finish(), Done())
    done = finished(*run(engine), env=environment(LC_ALL="C", PYTHONIOENCODING="ascii"))

    assert (done.returncode, done.stdout) == (0, b"caf? ?\n")


def test_json_is_utf_8_always(engine: FakeEngine) -> None:
    """JSON has one encoding, whatever the locale."""
    engine.script(Text("café 🙂"), Finish(), Done())
    done = finished(*run(engine, "--json"), env=environment(LC_ALL="C", PYTHONIOENCODING="ascii"))
    events = [json.loads(line) for line in done.stdout.decode("utf-8").splitlines()]

    assert [event.get("text") for event in events] == [None, "café 🙂", None]


@pytest.mark.parametrize("more", [[], ["--json"]], ids=["text", "json"])
def test_closed_pipe_frees_the_engine_quietly(engine: FakeEngine, more: list[str]) -> None:
    """As with `| head -1`: no word on stderr, 141 as shells count, the task cancelled."""
    go_on = threading.Event()
    engine.script(Text("so far"), Wait(go_on), Text(" and more"), Stall())
    with started(*run(engine, *more)) as process:
        stdout(process).read(1)
        stdout(process).close()
        go_on.set()
        code = process.wait(PATIENCE)
        (request,) = engine.wait_for_requests(1, path="/v1/completions")

        assert process.stderr is not None
        assert (code, process.stderr.read()) == (141, b"")
        assert request.hung_up.wait(PATIENCE)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_disk_is_one_line() -> None:
    """Text that cannot be written is a failure, told once."""
    with open("/dev/full", "wb") as full:
        done = finished(*COMMAND, "models", "--fake", stdout=full)

    assert done.returncode == 1
    assert done.stderr.splitlines()[1:] == [b"error: No space left on device"]


def test_closed_outputs_are_no_failure(engine: FakeEngine) -> None:
    """The task runs to its end, and nothing of stderr lands in stdout."""
    both = finished("sh", "-c", 'exec "$@" >&- 2>&-', "sh", *run(engine))
    stderr_alone = finished("sh", "-c", 'exec "$@" 2>&-', "sh", *COMMAND, "run", "hi", "--fake")

    assert both.returncode == 0
    assert stderr_alone.returncode == 0
    assert b"tokens" not in stderr_alone.stdout


# Ctrl-C.


def test_ctrl_c_keeps_what_came_and_frees_the_engine(engine: FakeEngine) -> None:
    """In mid-stream: the text, its line end, the numbers, 130, and no traceback."""
    engine.script(Text("so far"), Stall())
    with started(*run(engine)) as process:
        printed = stdout(process).read(6)
        code, out, err = ctrl_c(process)
    (request,) = engine.wait_for_requests(1, path="/v1/completions")

    assert (code, printed + out) == (130, b"so far\n")
    assert err.startswith(b"1 token (counted here), first after ")
    assert err.endswith(b", finish_reason cancelled\n")
    assert request.hung_up.wait(PATIENCE)


def test_ctrl_c_ends_json_with_its_end_event(engine: FakeEngine) -> None:
    """Who reads the events learns from the last one that the task was cancelled."""
    engine.script(Text("so far"), Stall())
    with started(*run(engine, "--json")) as process:
        lines = [stdout(process).readline(), stdout(process).readline()]
        code, out, _ = ctrl_c(process)
    last = json.loads(out)

    assert [json.loads(line)["type"] for line in lines] == ["started", "token"]
    assert (code, last["type"], last["finish_reason"]) == (130, "end", "cancelled")


def test_ctrl_c_before_the_first_token(engine: FakeEngine) -> None:
    """Nothing was printed, so nothing is."""
    engine.script(Stall())
    with started(*run(engine)) as process:
        (request,) = engine.wait_for_requests(1, PATIENCE, path="/v1/completions")
        code, out, err = ctrl_c(process)

    assert (code, out, b"Traceback" in err) == (130, b"", False)
    assert request.hung_up.wait(PATIENCE)


def sleeps(process: subprocess.Popen[bytes]) -> bool:
    """Whether the main thread has been asleep for a while, so that it is back in its write."""
    states = set()
    for _ in range(20):
        stat = Path(f"/proc/{process.pid}/stat").read_text()
        states.add(stat.rpartition(")")[2].split()[0])
        threading.Event().wait(0.002)
    return states == {"S"}


def test_second_ctrl_c_ends_a_blocked_print(engine: FakeEngine) -> None:
    """A reader that stopped reading holds the text up, but neither the engine nor the user."""
    engine.script(Text("x" * 1_000_000), Stall())
    with started(*run(engine)) as process:
        stdout(process).read(1)
        process.send_signal(signal.SIGINT)
        (request,) = engine.wait_for_requests(1, PATIENCE, path="/v1/completions")
        assert request.hung_up.wait(PATIENCE)
        assert process.poll() is None
        # Python does not see a signal that comes in the moment before a write blocks.
        wait_until(lambda: sleeps(process))
        process.send_signal(signal.SIGINT)

        assert process.wait(PATIENCE) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_ignored_ctrl_c_stays_ignored(engine: FakeEngine) -> None:
    """Whoever starts the command with SIGINT ignored, as nohup's relatives do, means it."""
    go_on = threading.Event()
    engine.script(Text("so far"), Wait(go_on), Text(", done"), Finish(), Usage(), Done())
    with started("sh", "-c", 'trap "" INT; exec "$@"', "sh", *run(engine)) as process:
        printed = stdout(process).read(6)
        process.send_signal(signal.SIGINT)
        go_on.set()
        out, _ = process.communicate(timeout=PATIENCE)

    assert (process.returncode, printed + out) == (0, b"so far, done\n")


# A person at a terminal.


def test_wait_for_the_first_token_is_told_on_a_terminal(engine: FakeEngine) -> None:
    """After a second stderr says for how long; the first token wipes the line."""
    go_on = threading.Event()
    engine.script(Wait(go_on), Text("at last"), Finish(), Usage(), Done())
    ours, theirs = os.openpty()
    with open(ours, "rb", buffering=0) as terminal, started(*run(engine), stderr=theirs) as process:
        os.close(theirs)
        told = b""
        while b" s" not in told:
            told += terminal.read(64)
        go_on.set()
        out = stdout(process).read()
        after = terminal.read(200)

    assert told == b"\rwaiting for the first token, 1 s"
    assert after.startswith(b"\r\x1b[K")
    assert out == b"at last\n"


# fake-engine.


def test_fake_engine_serves_until_ctrl_c() -> None:
    """Its first line is the URL, and a client can use it at once."""
    command = [*COMMAND, "fake-engine", "--port", "0", "--model", "made-up"]
    with started(*command) as process:
        url = stdout(process).readline().decode().rstrip("\n")
        listed = finished(*COMMAND, "models", "--url", url)
        code, out, err = ctrl_c(process)

    assert listed.stdout == b"made-up\t2048\n"
    assert (code, out, err) == (130, b"", b"")


def test_fake_engine_names_a_port_in_use(engine: FakeEngine) -> None:
    """One line, no traceback."""
    done = finished(*COMMAND, "fake-engine", "--port", str(engine.port))
    message = f"error: port {engine.port}: Address already in use\n".encode()

    assert (done.returncode, done.stdout, done.stderr) == (1, b"", message)
