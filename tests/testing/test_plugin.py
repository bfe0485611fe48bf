"""The pytest plugin and its two fixtures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import vllm_http.testing


pytest_plugins = "pytester"

DOCS = Path(__file__).parents[2] / "docs" / "testing.md"

FIXTURES = """
import threading
import urllib.request

seen = []


def test_engine_answers(vllm_engine):
    seen.append(vllm_engine)
    with urllib.request.urlopen(f"{vllm_engine.url}/health") as response:
        assert response.status == 200


def test_adapter_is_on_the_engine(vllm_engine, vllm_adapter):
    assert vllm_adapter.base_url == vllm_engine.url
    assert vllm_adapter.engine_version() == "0.32.0"
    seen.append(vllm_engine)


def test_each_test_had_its_own_and_it_is_closed():
    first, second = seen
    assert first is not second
    assert [engine.open_connections for engine in seen] == [0, 0]
    assert [t.name for t in threading.enumerate() if "fake-engine" in t.name] == []
"""


def run(pytester: pytest.Pytester) -> pytest.RunResult:
    """Run what is there in a process of its own, where warnings are errors, too."""
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-W", "error")


def test_fixtures(pytester: pytest.Pytester) -> None:
    """Each test gets an engine that runs and an adapter on it, and both are closed after it."""
    pytester.makepyfile(FIXTURES)

    run(pytester).assert_outcomes(passed=3)


def test_fixtures_are_listed(pytester: pytest.Pytester) -> None:
    """`pytest --fixtures` says what they are."""
    result = pytester.runpytest_subprocess("--fixtures", "-p", "no:cacheprovider")

    result.stdout.fnmatch_lines(["vllm_engine*", "*FakeEngine*", "vllm_adapter*"])


# What docs/testing.md promises.


def test_docs_example_passes(pytester: pytest.Pytester) -> None:
    """The example is a test that a reader can paste."""
    pytest.importorskip("flask")
    pattern = r"^<!-- example: flask -->\n```python\n(.*?)^```$"
    (example,) = re.findall(pattern, DOCS.read_text(), re.MULTILINE | re.DOTALL)
    pytester.makepyfile(example)

    run(pytester).assert_outcomes(passed=1)


def test_docs_list_every_step() -> None:
    """A step that the tables do not name does not exist for a reader."""
    public = {name: getattr(vllm_http.testing, name) for name in vllm_http.testing.__all__}
    protocols = {"Step", "ConnectionStep"}
    steps = {name for name, kind in public.items() if hasattr(kind, "play")} - protocols

    listed = re.findall(r"^\| `(\w+)\(.*?\)`.* \|$", DOCS.read_text(), re.MULTILINE)

    assert sorted(listed) == sorted(steps)


NOTHING = """
import sys


def test_nothing_was_imported():
    loaded = [name for name in sys.modules if name.partition(".")[0] == "vllm_http"]
    assert (loaded, "requests" in sys.modules) == ([], False)
"""


def test_nothing_is_imported_before_a_fixture_is_used(pytester: pytest.Pytester) -> None:
    """Every pytest run of an environment that has the package loads the plugin."""
    pytester.makepyfile(NOTHING)

    run(pytester).assert_outcomes(passed=1)
