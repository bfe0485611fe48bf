"""The plain script, run as its text says."""

from __future__ import annotations

import signal
from pathlib import Path

from examples.programs import documented, running
from support import SOON, answer, wait_until

from vllm_http.testing import FakeEngine, Stall, Status, Text


COMMAND = documented("plain_script.py", "python")


def test_answer(engine: FakeEngine, tmp_path: Path) -> None:
    """The text goes to stdout, the rest to stderr."""
    engine.script(*answer("Once", " upon"))
    with running(COMMAND, tmp_path, VLLM_URL=engine.url) as script:
        code = script.wait()

        (request,) = engine.wait_for_requests(1, path="/v1/chat/completions")
        assert request.json["messages"] == [{"role": "user", "content": "Tell me a tale"}]
        assert (code, script.stdout, script.stderr) == (0, "Once upon\n", "2 tokens\n")


def test_embedded_engine(tmp_path: Path) -> None:
    """Without a server there are words all the same, and it is said what they are worth."""
    with running(COMMAND, tmp_path) as script:
        code = script.wait()

        assert (code, len(script.stdout.split()) > 50) == (0, True)
        assert script.stderr.startswith("no VLLM_URL: an embedded engine answers")


def test_ctrl_c_frees_the_engine(engine: FakeEngine, tmp_path: Path) -> None:
    """What came is kept, the engine sees the hang-up, and the code says that it was stopped."""
    engine.script(Text("Once"), Stall())
    with running(COMMAND, tmp_path, VLLM_URL=engine.url) as script:
        wait_until(lambda: script.stdout == "Once", timeout=20)
        script.process.send_signal(signal.SIGINT)
        code = script.wait()

        (request,) = engine.wait_for_requests(1, path="/v1/chat/completions")
        assert request.hung_up.wait(SOON)
        assert (code, script.stdout, script.stderr) == (130, "Once", "\nstopped\n")


def test_failure_is_told(engine: FakeEngine, tmp_path: Path) -> None:
    """The engine's own words are on stderr."""
    engine.script(Status(400, {"error": {"message": "too hot", "code": 400}}))
    with running(COMMAND, tmp_path, VLLM_URL=engine.url) as script:
        code = script.wait()

        assert (code, script.stdout) == (1, "")
        assert script.stderr == "\nfailed: engine answered 400: too hot\n"
