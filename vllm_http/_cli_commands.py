"""The commands and their options."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn, TypeVar

import click

from . import HealthState, TaskRequest, Timeouts, VllmHttpAdapter, __version__
from ._cli_exit import DONE, EXPLANATION, FAILED
from ._cli_lines import one_line, say
from ._cli_stream import print_json, print_text


FAKE_TOKEN_DELAY = 0.02
"""Seconds between the fake engine's words: one sees them stream and does not wait for them."""

LEAVE_WITHIN = 1.0
"""Seconds that the adapter's threads may take; one inside a DNS look-up must not hold us up."""

_Command = TypeVar("_Command", bound=Callable[..., int])


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXPLANATION,
    no_args_is_help=True,
)
@click.version_option(__version__, prog_name="vllm-http")
def commands() -> None:
    """Talk to a vLLM server: text to stdout, all else to stderr."""


def engine_options(command: _Command) -> _Command:
    """Which engine, and the key for it."""
    for option in (
        click.option(
            "--api-key",
            metavar="KEY",
            envvar="VLLM_API_KEY",
            help="The server's key. Better in VLLM_API_KEY: others see a command's arguments.",
        ),
        click.option("--fake", is_flag=True, help="An embedded engine; its words mean nothing."),
        click.option(
            "--url", metavar="URL", help="Such as http://localhost:8000. [env: ORCHD_VLLM_URL]"
        ),
    ):
        command = option(command)
    return command


@contextmanager
def connected(
    url: str | None, fake: bool, api_key: str | None, model: str | None = None
) -> Iterator[VllmHttpAdapter]:
    """An adapter for the engine that the options name; the fake one serves any `model`.

    Raises:
        click.UsageError: They name none, or two.
        InvalidRequest: The URL or the key is malformed.
    """
    if fake and url:
        raise click.UsageError("--url and --fake: take one of the two")
    url = url or os.environ.get("ORCHD_VLLM_URL", "").strip()
    with ExitStack() as stack:
        if fake:
            from .testing import FakeEngine

            say("the embedded fake engine answers: its words mean nothing")
            engine = FakeEngine(model or "fake-model", token_delay=FAKE_TOKEN_DELAY)
            url = stack.enter_context(engine).url
        if not url:
            raise click.UsageError("no engine: give --url, set ORCHD_VLLM_URL, or take --fake")
        adapter = VllmHttpAdapter(url, api_key=api_key)
        stack.callback(adapter.close, timeout=LEAVE_WITHIN)
        yield adapter


@commands.command(epilog=EXPLANATION)
@click.argument("prompt", required=False)
@engine_options
@click.option("--model", metavar="NAME", help="The server's first model, if not given.")
@click.option("--max-tokens", type=int, metavar="N", help="vLLM's default: 16 without --chat.")
@click.option("--temperature", type=float, metavar="T", help="0 to 2; 0 is greedy.")
@click.option("--seed", type=int, metavar="N", help="For an answer that can be repeated.")
@click.option("--chat", is_flag=True, help="Send the prompt as a user's message.")
@click.option("--json", "as_json", is_flag=True, help="One event a line, as UTF-8 JSON.")
@click.option("--timeout", type=float, metavar="SECONDS", help="For all of it. [default: no limit]")
def run(
    prompt: str | None,
    url: str | None,
    fake: bool,
    api_key: str | None,
    chat: bool,
    as_json: bool,
    timeout: float | None,
    **fields: Any,
) -> int:
    """Stream an answer to stdout.

    The PROMPT "-" stands for stdin, read as UTF-8 and without its last line end; with --fake none
    is needed. The numbers follow on stderr. Ctrl-C cancels the task on the engine.
    """
    text = read_prompt(prompt, "Hello, world!" if fake else None)
    if chat:
        task = TaskRequest(messages=[{"role": "user", "content": text}], **fields)
    else:
        task = TaskRequest(prompt=text, **fields)
    if as_json and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # JSON is, whatever the terminal is
    with (
        connected(url, fake, api_key, task.model) as adapter,
        adapter.submit(task, timeouts=Timeouts(total=timeout)) as stream,
    ):
        return print_json(stream) if as_json else print_text(stream)


def read_prompt(prompt: str | None, default: str | None) -> str:
    """The prompt itself, or stdin's text for ``-``.

    Raises:
        click.UsageError: There is none.
    """
    if prompt is None:
        if default is None:
            raise click.UsageError("PROMPT is missing; - reads it from stdin")
        return default
    if prompt != "-":
        return prompt
    try:
        with open(0, "rb", closefd=False) as stdin:
            return stdin.read().decode().removesuffix("\n")
    except OSError as failure:  # closed
        raise click.UsageError(f"stdin: {failure.strerror}") from failure
    except UnicodeDecodeError as failure:
        raise click.UsageError(f"stdin: not UTF-8 at byte {failure.start}") from None


@commands.command(epilog=EXPLANATION)
@engine_options
def health(url: str | None, fake: bool, api_key: str | None) -> int:
    """Tell the engine's state, and why.

    healthy: it answers and lists a model. degraded: it answers, but something is wrong.
    unhealthy: it does not answer, or says that it cannot serve.
    """
    with connected(url, fake, api_key) as adapter:
        status = adapter.health()
    print(one_line(f"{status.state.value}: {status.message}"), flush=True)
    return DONE if status.state is HealthState.HEALTHY else FAILED


@commands.command(epilog=EXPLANATION)
@engine_options
def models(url: str | None, fake: bool, api_key: str | None) -> int:
    """List the engine's models.

    One a line: the id, a tab, the context length in tokens or "-" where it tells none.
    """
    with connected(url, fake, api_key) as adapter:
        for model in adapter.models():
            print(one_line(model.id), model.max_model_len or "-", sep="\t", flush=True)
    return DONE


@commands.command(epilog=EXPLANATION)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    metavar="N",
    help="0 takes a free one.",
)
@click.option("--model", default="fake-model", show_default=True, metavar="NAME")
@click.option(
    "--token-delay",
    type=click.FloatRange(min=0),
    default=FAKE_TOKEN_DELAY,
    show_default=True,
    metavar="SECONDS",
)
@click.option("--seed", type=int, default=0, metavar="N", help="Another seed, other words.")
def fake_engine(port: int, model: str, token_delay: float, seed: int) -> NoReturn:
    """Serve a fake vLLM until ctrl-C.

    It listens on 127.0.0.1, prints its URL first, and answers as vLLM does, with words that mean
    nothing.
    """
    from .testing import FakeEngine

    engine = FakeEngine(model, port=port, seed=seed, token_delay=token_delay)
    try:
        engine.start()
    except OSError as failure:
        raise click.ClickException(f"port {port}: {os.strerror(failure.errno or 0)}") from failure
    with engine:
        print(engine.url, flush=True)
        while True:
            time.sleep(1)  # ctrl-C raises here; signal.pause misses one that comes just before
