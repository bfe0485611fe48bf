"""The command line in this process: which engine, what it is, what is wrong, what helps."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator

import pytest
from cli_support import Cli, in_process

from vllm_http import __version__
from vllm_http.cli import main
from vllm_http.testing import FakeEngine


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs a command in this process."""
    return in_process(capsys, monkeypatch)


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    """A running engine."""
    with FakeEngine() as engine:
        yield engine


@pytest.fixture
def dead_url() -> str:
    """Where nobody listens any more."""
    with FakeEngine() as engine:
        return engine.url


# Bad usage.


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["run", "hi"], "--url, set ORCHD_VLLM_URL, or take --fake"),
        (["health"], "--url, set ORCHD_VLLM_URL, or take --fake"),
        (["models"], "--url, set ORCHD_VLLM_URL, or take --fake"),
        (["run", "hi", "--fake", "--url", "http://127.0.0.1:9"], "--url and --fake"),
        (["run", "--url", "http://127.0.0.1:9"], "PROMPT"),
        (["run", "hi", "--url", "localhost"], "'localhost'"),
        (["run", "", "--url", "http://127.0.0.1:9"], "prompt"),
        (["run", "hi", "--url", "http://127.0.0.1:9", "--max-tokens", "0"], "max_tokens"),
        (["run", "hi", "--url", "http://127.0.0.1:9", "--seed", "x"], "--seed"),
        (["run", "hi", "--url", "http://127.0.0.1:9", "--timeout", "0"], "timeouts.total"),
        (["fake-engine", "--port", "65536"], "--port"),
        (["walk"], "walk"),
        (["--walk"], "--walk"),
    ],
)
def test_bad_usage_is_one_line(cli: Cli, arguments: list[str], named: str) -> None:
    """It names what is wrong, and nothing else is printed."""
    code, out, err = cli(*arguments)

    assert (code, out) == (2, "")
    assert re.fullmatch(f"error: .*{re.escape(named)}.*\n", err)


# Which engine, which key.


def test_fake_needs_neither_url_nor_prompt(cli: Cli) -> None:
    """The embedded engine greets the world, under any model's name, and says what it is."""
    bare = cli("run", "--fake", "--temperature", "0")
    named = cli("run", "Hello, world!", "--fake", "--temperature", "0", "--model", "any")

    assert (bare.code, named.code) == (0, 0)
    assert bare.out == named.out != cli("run", "other words", "--fake", "--temperature", "0").out
    assert bare.err.startswith("the embedded fake engine answers: its words mean nothing\n")


@pytest.mark.parametrize("options", [["--url", "{url}"], ["--fake"]], ids=["url", "fake"])
def test_option_beats_environment(
    cli: Cli, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, dead_url: str, options: list[str]
) -> None:
    """Who names an engine gets that one."""
    monkeypatch.setenv("ORCHD_VLLM_URL", dead_url)

    assert cli("health", *(option.format(url=engine.url) for option in options)).code == 0


def test_blank_environment_is_unset(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blank settings are common in unit files, and mean none."""
    monkeypatch.setenv("ORCHD_VLLM_URL", " ")

    assert cli("health").err.startswith("error: no engine")


def test_key_is_sent_and_never_shown(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option beats the environment; help and errors show neither."""
    monkeypatch.setenv("VLLM_API_KEY", "key-of-the-environment")
    with FakeEngine(api_key="key-of-the-option") as engine:
        right = cli("models", "--url", engine.url, "--api-key", "key-of-the-option")
        wrong = cli("models", "--url", engine.url)
        malformed = cli("models", "--url", engine.url, "--api-key", "key-of-the\n")

    assert (right.code, wrong.code, malformed.code) == (0, 2, 2)
    assert "key-of-the" not in "".join([*wrong[1:], *malformed[1:], *cli("run", "--help")[1:]])


# health, models.


def test_healthy_engine(cli: Cli, engine: FakeEngine) -> None:
    """State and message on stdout."""
    assert cli("health", "--url", engine.url) == (0, "healthy: serves fake-model\n", "")


def test_degraded_engine(cli: Cli, engine: FakeEngine) -> None:
    """An engine without a model would disappoint, so it is not 0."""
    engine.override("/v1/models", 200, {"data": []})

    assert cli("health", "--url", engine.url) == (1, "degraded: no model is listed\n", "")


def test_unhealthy_engine(cli: Cli, dead_url: str) -> None:
    """The state of a dead engine is an answer as well."""
    code, out, err = cli("health", "--url", dead_url)

    assert (code, err) == (1, "")
    assert re.fullmatch("unhealthy: .*refused\n", out)


def test_models_are_listed_with_their_context(cli: Cli, engine: FakeEngine) -> None:
    """One a line, for `cut`; a LoRA adapter has no length of its own."""
    data = [{"id": "base", "max_model_len": 4096}, {"id": "lora", "max_model_len": None}]
    engine.override("/v1/models", 200, {"data": data})

    assert cli("models", "--url", engine.url) == (0, "base\t4096\nlora\t-\n", "")


def test_models_of_a_failing_engine(cli: Cli, dead_url: str) -> None:
    """An engine that does not answer has no list, not an empty one."""
    code, out, err = cli("models", "--url", dead_url)

    assert (code, out) == (1, "")
    assert re.fullmatch("error: .*refused\n", err)


# Help.


def test_version(cli: Cli) -> None:
    """The package's own."""
    assert cli("--version") == (0, f"vllm-http, version {__version__}\n", "")


def test_stdout_may_be_any_text_stream() -> None:
    """A program that calls `main` may collect what it prints."""
    collected = io.StringIO()
    with contextlib.redirect_stdout(collected):
        code = main(["--version"])

    assert (code, collected.getvalue()) == (0, f"vllm-http, version {__version__}\n")


@pytest.mark.parametrize("command", [[], ["run"], ["health"], ["models"], ["fake-engine"]])
def test_help_explains_the_exit_codes(cli: Cli, command: list[str]) -> None:
    """Each code stands on a line of its own, and fits a terminal."""
    code, out, err = cli(*command, "-h")

    assert (code, err) == (0, "")
    assert re.findall(r"^ +(\d+) +\w", out, re.MULTILINE) == ["0", "1", "2", "130", "141"]
    assert max(map(len, out.splitlines())) <= 80


def test_no_command_is_bad_usage_with_help(cli: Cli) -> None:
    """Who types the bare name wants to know more than that it was wrong."""
    code, out, err = cli()

    assert (code, out) == (2, "")
    assert "fake-engine" in err
