"""The command line ``vllm-http``: the way in, and every way out.

Text goes to stdout, all else to stderr, and a failure is one line. Needs the extra ``cli``; what
the commands do is in `_cli_commands`, how a stream is printed in `_cli_stream`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Sequence

from ._cli_exit import BAD_USAGE, FAILED, INTERRUPTED, PIPE_CLOSED, exit_code
from ._cli_lines import say
from ._errors import WorkerError


# Without a handler Python prints warnings itself, and a failed task would be told twice.
_NOT_SHOWN = logging.NullHandler()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Without the program's name; those of the process if None.

    Returns:
        The exit code, as ``--help`` explains it.
    """
    _prepare_output()
    logging.getLogger("vllm_http").addHandler(_NOT_SHOWN)
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        _drop_output()
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return PIPE_CLOSED
    except OSError as failure:  # The engine's are WorkerErrors: this is our own output.
        with contextlib.suppress(OSError):
            say(f"error: {failure.strerror}")
        _drop_output()
        return FAILED


def _prepare_output() -> None:
    """Let no state of stdout and stderr crash a `print`."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller, as ">&-" does
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - until the end
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The user's encoding stands; what it cannot hold becomes "?".
        sys.stdout.reconfigure(errors="replace")


def _run(arguments: list[str]) -> int:
    """Run one command. Not click's own `main`: its ctrl-C and closed pipe exit with 1."""
    try:
        import click
    except ModuleNotFoundError:
        say("error: the command line needs more packages: pip install 'vllm-http[cli]'")
        return BAD_USAGE
    from ._cli_commands import commands

    try:
        with commands.make_context("vllm-http", arguments) as context:
            return int(commands.invoke(context))
    except click.exceptions.Exit as done:  # --help, --version
        return done.exit_code
    except click.exceptions.NoArgsIsHelpError as bare:
        bare.show()
        return BAD_USAGE
    except click.ClickException as failure:
        say(f"error: {failure.format_message()}")
        return failure.exit_code
    except WorkerError as error:
        say(f"error: {error.message}")
        return exit_code(error)


def _drop_output() -> None:
    """Nobody reads it any more, or there is no room for it, so what is left goes nowhere.

    The interpreter would fail over it once more on its way out, or block.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
