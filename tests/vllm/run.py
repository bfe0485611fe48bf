"""The way in to a real vLLM without a GPU: the tests against it, or the server by itself.

    python tests/vllm/run.py [ARGUMENTS OF PYTEST]            run the tests in this folder
    python tests/vllm/run.py --serve [--port N] [-- FLAGS]    serve in the foreground until ctrl-C
    python tests/vllm/run.py --run PROMPT [ARGUMENTS]         answer one prompt and end
    python tests/vllm/run.py --prepare                        make environment and model only

ARGUMENTS go to `vllm-http run`, FLAGS to `vllm serve`. recipe.py says what is made, where, and
which variables it reads. Only the tests need more than this package with its extra `cli`; with
--install, as tox says it, that is installed here first.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType


HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)  # from where pytest, too, imports this folder as a package

from vllm import recipe  # noqa: E402
from vllm.server import MODEL, ServerError, free_port, serving  # noqa: E402


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# A start takes longer than a test may elsewhere. A test that hangs is failed by a signal: the
# other ways end the program at once, and the server would stay.
PYTEST = ["-p", "vllm.fixtures", "-o", "timeout=400", "-o", "timeout_method=signal"]
PYTEST += ["-o", "faulthandler_timeout=0"]

TEST_TOOLS = ["vllm-http[test,servers]", "openai"]


def main() -> int:
    """Do what the command line says and return the exit code."""
    for number in STOP_SIGNALS:
        signal.signal(number, interrupt_once)
    options, rest = command_line().parse_known_args()
    try:
        installation = recipe.prepare()
        if options.prepare:
            return 0
        if options.serve:
            return serve(installation, options.port, rest)
        if options.run is not None:
            return run(installation, [options.run, *rest])
        if options.install:
            install_test_tools()
        return test(rest)
    except (recipe.RecipeError, ServerError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def command_line() -> argparse.ArgumentParser:
    """Return the parser of our own options; what it does not know goes to pytest or to vLLM."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("--serve", action="store_true", help="no tests, the server alone")
    parser.add_argument("--run", metavar="PROMPT", help="no tests, one answer")
    parser.add_argument("--prepare", action="store_true", help="neither of the two")
    parser.add_argument("--install", action="store_true", help="what the tests need, with pip")
    parser.add_argument("--port", type=int, default=8000, help="where to serve (default: 8000)")
    return parser


def install_test_tools() -> None:
    """Have pip install into this very environment; what is there already costs a second."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    recipe.run("what the tests need", [*pip, *TEST_TOOLS])


def test(arguments: list[str]) -> int:
    """Run the tests in this folder."""
    try:
        import pytest
    except ImportError:
        raise recipe.RecipeError(
            f"the tests need pytest and more: pip install {' '.join(map(repr, TEST_TOOLS))}, or "
            "run them by `tox run -e vllm`"
        ) from None
    return pytest.main([str(HERE), *PYTEST, *arguments])


def serve(installation: recipe.Installation, port: int, flags: list[str]) -> int:
    """Serve until ctrl-C, which is the normal end."""
    recipe.say(f"starting vLLM on port {port}")
    flags = [flag for flag in flags if flag != "--"]
    try:
        with serving(installation, free_port(port), flags) as server:
            recipe.say(f'"{MODEL}" is served at {server.url}; ctrl-C ends it')
            code = server.process.wait()
    except KeyboardInterrupt:
        recipe.say("stopped")
        return 0
    recipe.say(f"vLLM ended by itself, with code {code}")
    return 1


def run(installation: recipe.Installation, arguments: list[str]) -> int:
    """Let the engine answer one prompt through the command line."""
    recipe.say("starting vLLM")
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(installation, free_port(), log=Path(folder) / "server.log") as server,
    ):
        recipe.say(f'"{MODEL}" is ready')
        command = [sys.executable, "-m", "vllm_http", "run", *arguments]
        # Elsewhere: in the checkout `-m` would take the package beside it, not the installed one.
        return subprocess.run(
            [*command, "--url", server.url, "--model", MODEL], cwd=folder, check=False
        ).returncode


def interrupt_once(number: int, frame: FrameType | None) -> None:
    """End the program in order; a second signal, as tox sends one, must not cut that short."""
    for each in STOP_SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
