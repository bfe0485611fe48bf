"""The check that nothing is left behind must itself be able to fail."""

from __future__ import annotations

from pathlib import Path

import pytest


pytest_plugins = "pytester"

LEAKS = """
import socket, subprocess, threading

kept = []


def test_thread():
    gate = threading.Event()
    threading.Thread(target=gate.wait, name="forgotten", daemon=True).start()


def test_socket():
    kept.append(socket.socket())


def test_child():
    kept.append(subprocess.Popen(["sleep", "30"]))


def test_nothing():
    subprocess.run(["true"], check=True)
    socket.socket().close()


def test_end_of_the_leaks():
    for leak in kept[1:]:
        leak.kill()
        leak.wait()
"""


def test_a_test_that_leaves_something_behind_fails(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread, a socket and a child process are each reported, and a tidy test is not."""
    conftest = Path(__file__).with_name("conftest.py").read_text()
    pytester.makeconftest(conftest.replace("GRACE = 5.0", "GRACE = 0.2"))
    pytester.makepyfile(LEAKS)

    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")

    result.assert_outcomes(passed=5, errors=3)
    result.stdout.fnmatch_lines(["*thread forgotten*", "*socket:*", "*process *"])
