"""The package stands alone."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import vllm_http.testing


FOLDER = Path(vllm_http.testing.__file__).parent
FILES = sorted(FOLDER.glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_imports_are_its_own_or_standard(file: Path) -> None:
    """Nothing of the rest of vllm_http and nothing from elsewhere is imported."""
    imports = [node for node in ast.walk(ast.parse(file.read_text())) if hasattr(node, "names")]
    foreign = [
        alias.name
        for node in imports
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name.partition(".")[0] not in sys.stdlib_module_names
    ]
    foreign += [
        str(node.module)
        for node in imports
        if isinstance(node, ast.ImportFrom)
        and node.level != 1
        and str(node.module).partition(".")[0] not in sys.stdlib_module_names
    ]

    assert foreign == []


def test_all_names_exist() -> None:
    """Every public name is there, sorted."""
    names = vllm_http.testing.__all__

    assert names == sorted(names)
    assert [name for name in names if not hasattr(vllm_http.testing, name)] == []
