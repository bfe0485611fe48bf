"""Work in a forked child."""

from __future__ import annotations

import json
import os
import signal
import traceback
from collections.abc import Callable
from typing import Any

import pytest


forks = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
"""Newer Pythons warn of what these tests are about."""


def in_a_child(work: Callable[[], Any]) -> Any:
    """What `work` returns in a forked child, which is ended when it takes too long."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(20)
            os.write(write, json.dumps(work()).encode())
        except BaseException:
            os.write(write, json.dumps(traceback.format_exc()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    assert said, "the child took too long"
    return json.loads(said)
