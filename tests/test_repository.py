"""The house rules that a machine can check: the layout, the imports, and the README's commands."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import vllm_http


ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "vllm_http"
SOURCES = sorted(PACKAGE.rglob("*.py"))

TOP_LEVEL = {
    *("setup.cfg", "setup.py", "tox.ini", ".gitignore", ".ci"),
    *("README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md"),
    *("vllm_http", "MANIFEST.in", "tests", "docs", "examples", "benchmarks"),
}

MAX_LINES = 400

# Who may import whom: a module sees its own row and those above. `_transport` stands for
# `_transport_tls` as well, `testing` for all that is in it, "" for the package itself.
LAYERS: tuple[tuple[str, ...], ...] = (
    (
        "_errors",
        "_failures",
        "_frames",
        "_host",
        "_limits",
        "_threads",
        "_redact",
        "_alarms",
        "_fork",
        "_chunked",
        "_inflate",
        "_sse",
        "_web_page",
    ),
    ("_bell", "_crew"),
    ("_reader",),
    (
        "_values",
        "_settings",
        "_structured",
        "_task",
        "_answer",
        "_tool_calls",
        "_metrics",
        "_events",
        "_engine",
        "_refusal",
        "_metrics_text",
        "_media_types",
        "_media",
        "_options",
        "_version",
    ),
    ("_request", "_chunk", "_tally", "_decoder", "_collector"),
    ("_gate", "_receiver", "_funnel", "_timeline", "_connections", "_transport"),
    ("_run", "_retry", "_ask"),
    ("_probe", "_call"),
    ("_tokenizing", "_pooling"),
    ("_reading", "_worker", "_slots", "_record", "_stream", "_bulk"),
    ("_worker_adapter",),
    ("_adapter",),
    ("_registry",),
    ("",),
    ("testing", "integrations"),
    ("cli", "_cli", "__main__"),
)

# One dependency, one module.
OWNERS: dict[str, tuple[str, ...]] = {
    "dataclasses_json": ("_values",),
    "sseclient": ("_sse",),
    "msgspec": ("_chunk", "_structured", "_values"),
    "requests": ("_transport",),
    "urllib3": ("_connections", "_transport"),
    "tenacity": ("_retry",),
    "prometheus_client": ("_metrics_text",),
    "click": ("cli", "_cli"),
    "pytest": ("testing",),
}

README_COMMANDS = ("run", "test", "vllm")


def module_name(path: Path) -> str:
    """The dotted name inside the package: `_stream`, `testing._engine`, "" for the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_name(path): path for path in SOURCES}


def belongs(module: str, family: str) -> bool:
    """Whether a module is the one named, a part of it, or a file split off from it."""
    first = module.partition(".")[0]
    return first == family or (family.startswith("_") and first.startswith(f"{family}_"))


def layer(module: str) -> int:
    """The row of the most telling name that the module belongs to."""
    found = [
        (len(family), row)
        for row, families in enumerate(LAYERS)
        for family in families
        if belongs(module, family)
    ]
    assert found, f"vllm_http.{module} has no place in LAYERS yet"
    return max(found)[1]


def running_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes, functions' included, but those under `if TYPE_CHECKING:`, which never run."""
    yield node
    children = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        children = iter(node.orelse)
    for child in children:
        yield from running_nodes(child)


def imports(module: str) -> set[str]:
    """The absolute names of all that a module imports, and of what it takes from there."""
    path = MODULES[module]
    package = ["vllm_http", *path.relative_to(PACKAGE).parent.parts]
    names = set()
    for node in running_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *filter(None, [node.module])])
            names |= {f"{source}.{alias.name}" for alias in node.names}
    return names


def inner_imports(module: str) -> set[str]:
    """The modules of this package that a module imports."""
    found = set()
    for name in imports(module):
        if name.partition(".")[0] != "vllm_http":
            continue
        target = name.partition(".")[2]
        while target not in MODULES:  # What was taken from a module is not one itself.
            target = target.rpartition(".")[0]
        found.add(target)
    return found - {module}


def outer_imports(module: str) -> set[str]:
    """The top-level names of the dependencies that a module imports."""
    ours_and_pythons = {"vllm_http", *sys.stdlib_module_names}
    return {name.partition(".")[0] for name in imports(module)} - ours_and_pythons


def readme_command(name: str) -> list[str]:
    """The lines of the fenced block that follows the command's comment."""
    readme = (ROOT / "README.md").read_text()
    pattern = rf"^<!-- command: {name} -->\n+```\w*\n(.*?)\n?```$"
    blocks = re.findall(pattern, readme, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1, f"{len(blocks)} blocks"
    return str(blocks[0]).splitlines()


# The files.


def test_top_level_holds_only_what_is_agreed() -> None:
    """A new file at the top is a decision, so it is made here as well."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert {name.partition("/")[0] for name in files.splitlines()} - TOP_LEVEL == set()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: module_name(path) or "__init__")
def test_file_is_short(path: Path) -> None:
    """A file that grows beyond the limit has got a second reason to change."""
    assert len(path.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("name", README_COMMANDS)
def test_readme_command_is_one_line(name: str) -> None:
    """What people paste is what CI runs, so the README holds each command once, on one line."""
    lines = readme_command(name)

    assert len(lines) == 1
    assert lines[0].strip() != ""


# The imports.


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_layers(module: str) -> None:
    """A module imports from its own layer and from those below it, never from above."""
    own = layer(module)
    above = {name for name in inner_imports(module) if layer(name) > own}

    assert above == set()


def test_imports_have_no_cycle() -> None:
    """Within a layer, too, imports go one way; a cycle is named in the error."""
    graph = {module: inner_imports(module) for module in MODULES}

    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_dependency_stays_in_its_module(module: str) -> None:
    """One dependency, one module; an integration has one of its own."""
    if belongs(module, "integrations"):
        assert len(outer_imports(module)) <= 1
        return
    owned = {name for name in OWNERS if any(belongs(module, owner) for owner in OWNERS[name])}

    assert outer_imports(module) - owned == set()


# The package.


def test_all_is_sorted() -> None:
    """A name is found at a glance, and is there once."""
    assert list(vllm_http.__all__) == sorted(set(vllm_http.__all__))


@pytest.mark.parametrize("name", getattr(vllm_http, "__all__", []))
def test_public_name_exists(name: str) -> None:
    """What is promised can be imported."""
    assert hasattr(vllm_http, name)


def test_import_is_cheap_and_quiet() -> None:
    """Importing starts no thread and brings in nothing that only an extra installs."""
    program = (
        "import json, sys, threading, vllm_http;"
        "extras = {'click', 'rich', 'responses', 'pytest', 'hypothesis'} & set(sys.modules);"
        "print(json.dumps([threading.active_count(), sorted(extras)]))"
    )
    command = [sys.executable, "-c", program]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert json.loads(output) == [1, []]
