"""What holds for every test: nothing is left behind, and CI draws the same examples every time."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings


GRACE = 5.0  # Seconds that a thread, socket or child may take to go; it is waited for, not slept.

# A shell starts what it puts into the background with SIGINT ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("local", deadline=None, max_examples=30)
settings.load_profile("ci" if os.environ.get("CI") else "local")


# Folders that want more than Python, or much time: each has an environment of tox, and runs when it
# is named.
APART = {
    "interleavings": "every schedule of the small machines (tox -e interleavings)",
    "network": "networks of its own (tox -e network)",
    "wsgi": "web servers (tox -e servers)",
    "relay": "Redis and Celery (tox -e servers)",
    "examples": "servers and a browser (tox -e servers)",
}


def is_named(folder: Path, config: pytest.Config) -> bool:
    """Whether the command line names the folder or something in it."""
    named = (Path(config.invocation_params.dir, arg.split("::")[0]) for arg in config.args)
    return any(folder in (path.resolve(), *path.resolve().parents) for path in named)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out what stands apart, unless it is named."""
    here = collection_path.parent == Path(__file__).parent
    apart = here and collection_path.name in APART
    return True if apart and not is_named(collection_path, config) else None


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what was left out."""
    for name, needs in APART.items():
        folder = Path(__file__).with_name(name)
        if folder.is_dir() and not is_named(folder, config):
            terminalreporter.write_line(f"not run: tests/{name}, with {needs}")


def threads() -> set[str]:
    """The threads that run, by name and identity."""
    return {f"thread {thread.name} ({thread.ident})" for thread in threading.enumerate()}


def sockets() -> set[str]:
    """The sockets that are open, by inode: a descriptor's number may be in use again."""
    links = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            links.add(os.readlink(descriptor))
        except FileNotFoundError:  # The listing's own descriptor, or one just closed.
            continue
    return {link for link in links if link.startswith("socket:")}


def children() -> set[str]:
    """The child processes that live or were not waited for."""
    pids = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            pids.update((task / "children").read_text().split())
        except FileNotFoundError:  # The thread has just ended.
            continue
    return {f"process {pid}" for pid in pids}


def left_over(census: Callable[[], set[str]], before: set[str], until: float) -> set[str]:
    """What `census` finds beyond `before`, once all has gone or the time has come."""
    pause = threading.Event()
    while (left := census() - before) and time.monotonic() < until:
        pause.wait(0.005)
    return left


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a thread, a socket or a child process behind."""
    censuses = (threads, sockets, children)
    before = [census() for census in censuses]
    yield
    until = time.monotonic() + GRACE
    if sockets() - before[1]:
        gc.collect()  # A socket in a reference cycle is not a leak.
    left = [
        item
        for census, known in zip(censuses, before, strict=True)
        for item in sorted(left_over(census, known, until))
    ]

    assert left == [], "the test left something behind"
