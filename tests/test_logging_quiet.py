"""What the log does not hold: prompts, answers, secrets, and a line for each token."""

from __future__ import annotations

import logging
from typing import Any

import logging_support as support
import pytest
from logging_support import KEY, PROMPT, Play

from vllm_http import (
    VllmHttpAdapter,
)
from vllm_http.testing import (
    Cut,
    Done,
    ErrorEvent,
    Finish,
    Raw,
    Status,
    Step,
    Text,
    Tokens,
)


SAID = "whispered-answer"

engine, adapter, log, play = support.engine, support.adapter, support.log, support.play


def everything(log: pytest.LogCaptureFixture) -> str:
    """All that any handler could write of all records: texts, fields, tracebacks."""
    formatter = logging.Formatter()
    return "\n".join(f"{formatter.format(record)} {vars(record)}" for record in log.records)


def test_the_package_logs_under_one_name(
    log: pytest.LogCaptureFixture, adapter: VllmHttpAdapter, play: Play
) -> None:
    """Also at DEBUG: what a library of its own logs is not the package's to say."""
    play(Tokens(1), Finish(), Done()).result(10)
    adapter.close()

    ours = [record.name for record in log.records if record.name.startswith("vllm_http")]
    assert ours == ["vllm_http"]


def test_nothing_is_logged_for_each_token(
    log: pytest.LogCaptureFixture, adapter: VllmHttpAdapter, play: Play
) -> None:
    """Whatever form the events have, and whoever logs."""
    event = b'data: {"choices":[{"index":0,"text":"a","finish_reason":null}]}'
    odd = event + b"\r\n\r\n: comment\r\n\r\nid: 5\r\n" + event + b"\r\n\r\n"
    steps = [Raw(odd) for _ in range(50)]
    play(Tokens(100), *steps, Finish(), Done()).result(10)
    adapter.close()

    assert len(log.records) < 20


@pytest.mark.parametrize(
    "steps",
    [
        (Text(SAID), Finish(text=SAID), Done()),
        (Text(SAID), Raw(f"data: {{broken {SAID}\r\n\r\n".encode())),
        (Text(SAID), Cut("fin")),
        (Text(SAID), ErrorEvent(f"bad {SAID} {PROMPT} {KEY}")),
        (Status(400, {"error": {"message": f"bad {PROMPT} {KEY}", "code": 400}}),),
        (Status(500, f"<html>{PROMPT} {KEY}".encode()),),
    ],
    ids=["end", "broken", "cut", "error event", "400", "500"],
)
@pytest.mark.parametrize(
    "fields",
    [{}, {"prompt": None, "messages": [{"role": "user", "content": PROMPT}]}],
    ids=["completion", "chat"],
)
def test_nothing_of_what_was_said_is_logged(
    log: pytest.LogCaptureFixture,
    adapter: VllmHttpAdapter,
    play: Play,
    steps: tuple[Step, ...],
    fields: dict[str, Any],
) -> None:
    """No prompt, no answer, no key, at any level, by any library."""
    for _ in play(*steps, **fields):
        pass
    adapter.close()

    written = everything(log)
    assert "POST" in written  # urllib3's, so the net is cast.
    for whispered in (PROMPT, SAID, KEY):
        assert whispered not in written
