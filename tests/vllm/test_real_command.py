"""The command line against a real engine."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .server import MODEL, Server


def command(vllm: Server, prompt: str, max_tokens: int, *more: str) -> list[str]:
    """Return the command that streams one answer to stdout."""
    run = [sys.executable, "-m", "vllm_http", "run", prompt, "--url", vllm.url, "--model", MODEL]
    return [*run, "--max-tokens", str(max_tokens), *more]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the package that is installed: in the checkout `-m` would take the one beside it."""
    monkeypatch.chdir(tmp_path)


def test_run_prints_the_text_and_the_numbers(vllm: Server) -> None:
    """The text alone goes to stdout, the metrics to stderr, and the exit code is 0."""
    greedy = {"prompt": "Once upon a time", "max_tokens": 16, "temperature": 0.0}
    text = vllm.answer(greedy)["choices"][0]["text"]

    done = subprocess.run(
        command(vllm, "Once upon a time", 16, "--temperature", "0"),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.removesuffix("\n") == text.removesuffix("\n")
    assert re.search(r"\b16 tokens", done.stderr)


def test_ctrl_c_frees_the_engine(vllm: Server, measured: Callable[[str], None]) -> None:
    """An interrupt in mid-stream exits with 130 at once, and the engine is idle."""
    with subprocess.Popen(
        command(vllm, "Once upon a time", 1900, "--seed", "1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        assert vllm.running() == 1

        process.send_signal(signal.SIGINT)
        seconds = vllm.seconds_until_idle()
        code = process.wait(timeout=10)

    measured(f"idle {seconds:.2f} s after ctrl-C")
    assert code == 130
    assert seconds < 2.0
