"""Words of an engine, or of anybody's document, where people read them: one line, no commands."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import tty
from collections.abc import Iterator

import cli_support as support
import pytest
from cli_support import COMMAND

from vllm_http import Completion, InvalidRequest, TaskRequest, VllmHttpAdapter, event_from_dict
from vllm_http.testing import Done, FakeEngine, Finish, Text, Usage


FORGED = "stop\n2026-01-01 root logged in\x1b]0;owned\x07\x9b2J\u202e" + "x" * 100_000

EVIL = "a\x1b]52;c;ZXZpbA==\x07b\x1b[2J\x9b1m\rc\x08\x7f\u202ed\u2066\ufeff\u2028e\x00"
HARMLESS = "Zeile\n\tTabulator, \u00e4\u00f6\u00fc \u65e5\u672c\u3000\U0001f600 \\x1b"


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    """A running engine."""
    with FakeEngine() as engine:
        yield engine


def test_a_finish_reason_is_logged_on_one_line(
    engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """Its first characters, printable, in the line and in the record's extras."""
    caplog.set_level("INFO", "vllm_http")
    engine.script(Text("Hi"), Finish(FORGED), Usage(), Done())
    with VllmHttpAdapter(engine.url) as adapter:
        done = adapter.submit(TaskRequest(prompt="Hi")).result()

    (record,) = caplog.records
    assert done.finish_reason == FORGED  # the caller's own copy is as it came
    assert record.getMessage().isprintable()
    assert len(record.getMessage()) < 300
    assert record.__dict__["outcome"].startswith("stop 2026-01-01 root logged in\\x1b]0;owned")
    assert len(record.__dict__["outcome"]) <= 100


def test_a_finish_reason_is_told_on_one_line(engine: FakeEngine) -> None:
    """By the command line, behind the numbers."""
    engine.script(Text("Hi"), Finish(FORGED), Usage(), Done())
    done = support.finished(*COMMAND, "run", "Hi", "--url", engine.url)

    (line,) = done.stderr.decode().splitlines()
    assert line.isprintable()
    assert len(line) < 300


def on_a_terminal(*command: str) -> str:
    """What a command puts on the terminal that is its stdout."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)  # else the terminal's own line discipline makes \r\n of each \n
    shown = b""
    with (
        open(ours, "rb", buffering=0) as terminal,
        subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE) as process,
    ):
        os.close(theirs)
        with contextlib.suppress(OSError):  # the other end is closed
            while piece := terminal.read(4096):
                shown += piece
        process.communicate(timeout=support.PATIENCE)
    return shown.decode()


def test_a_terminal_gets_no_commands(engine: FakeEngine) -> None:
    """Title, clipboard, clear, C1, direction: each sign is shown by its number."""
    engine.script(Text(EVIL), Text(HARMLESS), Finish(), Usage(), Done())

    shown = on_a_terminal(*COMMAND, "run", "Hi", "--url", engine.url)

    assert shown == (
        r"a\x1b]52;c;ZXZpbA==\x07b\x1b[2J\x9b1m\rc\x08\x7f\u202ed\u2066\ufeff\u2028e\x00"
        + HARMLESS
        + "\n"
    )


def test_a_terminal_gets_json_without_commands(engine: FakeEngine) -> None:
    """The signs are escaped as JSON does it, so what is read back is what came."""
    engine.script(Text(EVIL), Finish(), Usage(), Done())

    shown = on_a_terminal(*COMMAND, "run", "Hi", "--json", "--url", engine.url)

    assert shown.replace("\n", "").isprintable()
    events = [json.loads(line) for line in shown.splitlines()]
    assert [event["text"] for event in events if event["type"] == "token"] == [EVIL]


def test_a_pipe_gets_what_came(engine: FakeEngine) -> None:
    """Programs read it, and the text is theirs."""
    engine.script(Text(EVIL), Finish(), Usage(), Done())

    done = support.finished(*COMMAND, "run", "Hi", "--url", engine.url)

    assert done.stdout.decode() == EVIL + "\n"


@pytest.mark.parametrize("key", ["\x1b]0;owned\x07", "a\nb", "\u202e", "x" * 100_000, "\ud800"])
def test_an_unknown_key_is_told_on_one_short_line(key: str) -> None:
    """Of a task, a completion, an event, an error."""
    for read in (
        lambda: TaskRequest.from_dict({"prompt": "Hi", key: 1}),
        lambda: TaskRequest.from_dict({"prompt": "Hi", "structured_outputs": {key: 1}}),
        lambda: Completion.from_dict({"job_id": "j", key: 1}),
        lambda: event_from_dict({"type": "token", "text": "a", "index": 0, key: 1}),
        lambda: event_from_dict({"type": key}),
        lambda: event_from_dict({"type": "error", "error": {"error": "Unknown", key: 1}}),
    ):
        with pytest.raises(InvalidRequest) as caught:
            read()
        assert caught.value.message.isprintable()
        assert len(caught.value.message) < 400
