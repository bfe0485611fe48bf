"""The recipe itself: an installation is whole, made once, by one process at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from . import recipe


def test_a_half_made_folder_is_made_anew(tmp_path: Path) -> None:
    """What an interrupted build left behind is gone before the next one begins."""
    folder = tmp_path / "venv"
    folder.mkdir()
    (folder / "rest").touch()

    recipe.make(folder, Path.mkdir)
    left = [path.name for path in folder.iterdir()]

    assert left == [".complete"]


def test_a_finished_folder_stays(tmp_path: Path) -> None:
    """A folder that was finished is not built again."""
    built: list[Path] = []

    def build(folder: Path) -> None:
        folder.mkdir()
        built.append(folder)

    for _ in range(2):
        recipe.make(tmp_path / "model", build)

    assert built == [tmp_path / "model"]


def test_a_build_that_fails_leaves_no_marker(tmp_path: Path) -> None:
    """A step that fails stops the build, and its own last words are in the message."""
    fail = [sys.executable, "-c", "print('no such wheel'); raise SystemExit(3)"]

    with pytest.raises(recipe.RecipeError, match=r"failed: a step\nno such wheel"):
        recipe.make(tmp_path / "venv", lambda folder: recipe.run("a step", fail))

    assert not (tmp_path / "venv" / ".complete").exists()


def test_a_second_process_waits_for_the_first(tmp_path: Path) -> None:
    """Nobody else can take the lock while it is held."""
    attempt = ["flock", "--nonblock", str(tmp_path / "lock"), "true"]

    with recipe.lock(tmp_path / "lock"):
        held = subprocess.run(attempt).returncode
    free = subprocess.run(attempt).returncode

    assert (held, free) == (1, 0)


def test_another_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has no Python 3.11 reads one sentence that says what to do."""
    monkeypatch.setenv("VLLM_PYTHON", "/bin/false")

    with pytest.raises(recipe.RecipeError, match=r"needs Python 3\.11: say in VLLM_PYTHON"):
        recipe.find_python()


def test_a_missing_cpu_build_of_torch_says_what_to_give_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where pip finds no such torch, the message names the variable and an index that has it."""
    monkeypatch.setenv("VLLM_PIP_ARGS", "--no-index --find-links .")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)

    with pytest.raises(recipe.RecipeError, match=r"VLLM_PIP_ARGS='--extra-index-url https://"):
        recipe.build_venv(tmp_path / "venv")


@pytest.mark.parametrize("kind", ["pictures", "sounds"])
def test_a_media_model_is_the_same_each_time(tmp_path: Path, kind: str) -> None:
    """Made anew, it is the one in the cache; if not, that one is older than make_media_model.py."""
    text = recipe.prepare()
    cached = {"pictures": recipe.prepare_pictures, "sounds": recipe.prepare_sounds}[kind]().model

    recipe.build_media_model(kind, tmp_path / kind, text)

    made = {path.name: path.read_bytes() for path in (tmp_path / kind).iterdir()}
    assert {name for name in made if made[name] != (cached / name).read_bytes()} == set()
