"""`vllm-http run` in this process: what it sends, what it prints, how it fails."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

import pytest
from cli_support import Cli, in_process

from vllm_http import End, Metrics, event_from_json
from vllm_http._cli_stream import summary
from vllm_http.testing import Done, ErrorEvent, FakeEngine, Finish, Stall, Status, Text, Usage


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs a command in this process."""
    return in_process(capsys, monkeypatch)


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    """A running engine."""
    with FakeEngine() as engine:
        yield engine


# What comes out.


@pytest.mark.parametrize("texts", [["Hel", "lo"], ["Hello\n"], ["Hello", "\n"]])
def test_run_prints_the_text_and_one_line_end(
    cli: Cli, engine: FakeEngine, texts: list[str]
) -> None:
    """A line end follows only where the text has none."""
    engine.script(*map(Text, texts), Finish(), Usage(), Done())

    assert cli("run", "prompt", "--url", engine.url)[:2] == (0, "Hello\n")


def test_run_prints_nothing_for_no_text(cli: Cli, engine: FakeEngine) -> None:
    """An empty answer is an answer."""
    engine.script(Finish(), Usage(), Done())

    assert cli("run", "prompt", "--url", engine.url)[:2] == (0, "")


def test_run_puts_the_numbers_on_stderr(cli: Cli) -> None:
    """Tokens, time to the first, pace, and why it ended: one line."""
    with FakeEngine(token_delay=0.002) as engine:
        outcome = cli("run", "prompt", "--url", engine.url)
    numbers = r"16 tokens, first after \d+ ms, \d+\.\d tokens/s, finish_reason length\n"

    assert re.fullmatch(numbers, outcome.err)


def test_no_wait_is_told_where_there_is_none(
    cli: Cli, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal, too, gets the numbers alone when the first token comes at once."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    outcome = cli("run", "prompt", "--url", engine.url)

    assert outcome.err.startswith("16 tokens, ")


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (
            Metrics(1, usage_source="engine", latency_first_token_ms=9.6),
            "1 token, first after 10 ms",
        ),
        (Metrics(2, latency_first_token_ms=5), "2 tokens (counted here), first after 5 ms"),
        (Metrics(3, usage_source="engine", decode_time_ms=100), "3 tokens, 20.0 tokens/s"),
        (Metrics(0, usage_source="engine", attempts=3), "0 tokens, 3 attempts"),
    ],
)
def test_summary_tells_only_what_is_known(metrics: Metrics, expected: str) -> None:
    """The pace is that after the first token; a count of ours is called one."""
    assert summary(End(metrics, "stop")) == f"{expected}, finish_reason stop"


def test_json_is_one_event_a_line(cli: Cli, engine: FakeEngine) -> None:
    """The lines are the stream's events, and read back as such."""
    engine.script(Text("a"), Text("b"), Finish(), Usage(), Done())
    outcome = cli("run", "prompt", "--url", engine.url, "--json")
    events = [event_from_json(line) for line in outcome.out.splitlines()]

    assert outcome.code == 0
    assert [event.type for event in events] == ["started", "token", "token", "end"]
    assert len(outcome.err.splitlines()) == 1


# What goes to the engine.


def test_run_sends_only_what_was_given(cli: Cli, engine: FakeEngine) -> None:
    """Without options the engine's own defaults hold, the model included."""
    cli("run", "prompt", "--url", engine.url)
    (request,) = engine.wait_for_requests(1, path="/v1/completions")

    assert request.json.keys() == {"prompt", "stream", "stream_options"}


def test_run_sends_the_options(cli: Cli, engine: FakeEngine) -> None:
    """Each option becomes the field of its name; 0 is a value."""
    options = {"model": "fake-model", "max_tokens": 3, "temperature": 0.0, "seed": 0}
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    cli("run", "prompt", "--url", engine.url, *arguments)
    (request,) = engine.wait_for_requests(1, path="/v1/completions")

    assert {name: request.json[name] for name in options} == options


def test_chat_sends_one_user_message(cli: Cli, engine: FakeEngine) -> None:
    """The prompt becomes a conversation of one message."""
    cli("run", "prompt", "--url", engine.url, "--chat", "--max-tokens", "1")
    (request,) = engine.wait_for_requests(1, path="/v1/chat/completions")

    assert request.json["messages"] == [{"role": "user", "content": "prompt"}]


# Failures.


def test_failure_keeps_what_came(cli: Cli, engine: FakeEngine) -> None:
    """The text stays on stdout with its line end; stderr has the error alone."""
    engine.script(Text("so far"), ErrorEvent("out of memory"), Done())
    code, out, err = cli("run", "prompt", "--url", engine.url)

    assert (code, out) == (1, "so far\n")
    assert re.fullmatch("error: .*out of memory.*\n", err)


def test_failure_is_an_event_in_json(cli: Cli, engine: FakeEngine) -> None:
    """The error event is the last line, and stderr tells it as well."""
    engine.script(Text("so far"), ErrorEvent("out of memory"), Done())
    code, out, err = cli("run", "prompt", "--url", engine.url, "--json")

    assert code == 1
    assert event_from_json(out.splitlines()[-1]).type == "error"
    assert err.startswith("error: ")


def test_refusal_exits_like_bad_usage(cli: Cli, engine: FakeEngine) -> None:
    """A model that the engine lacks is the user's to mend."""
    code, out, err = cli("run", "prompt", "--url", engine.url, "--model", "other")

    assert (code, out) == (2, "")
    assert re.fullmatch("error: .*other.*\n", err)


def test_engines_words_stay_on_one_line(cli: Cli, engine: FakeEngine) -> None:
    """Line breaks and terminal escapes in an engine's message do not come through."""
    engine.script(Status(400, {"error": {"message": "no\n\x1b[31mway", "code": 400}}))
    err = cli("run", "prompt", "--url", engine.url).err

    assert re.fullmatch(r"error: .*no \\x1b\[31mway.*\n", err)


def test_unreachable_engine_is_one_line(cli: Cli, engine: FakeEngine) -> None:
    """After the retries, the reason once."""
    engine.close()
    code, out, err = cli("run", "prompt", "--url", engine.url)

    assert (code, out) == (1, "")
    assert re.fullmatch("error: .*refused\n", err)


def test_timeout_is_for_all_of_it(cli: Cli, engine: FakeEngine) -> None:
    """What came in time is printed; the engine is freed."""
    engine.script(Text("so far"), Stall())
    code, out, err = cli("run", "prompt", "--url", engine.url, "--timeout", "0.5")
    (request,) = engine.wait_for_requests(1, path="/v1/completions")

    assert (code, out, err.count("\n")) == (1, "so far\n", 1)
    assert request.hung_up.wait(5)
