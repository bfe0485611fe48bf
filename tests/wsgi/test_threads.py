"""Where threads are not what they seem: gevent, eventlet, and uWSGI without threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from typing import Any

import pytest
import support
from support import SOON, a_task
from wsgi.servers import HERE, need

from vllm_http import CapacityExceeded, HealthState, VllmHttpAdapter
from vllm_http.testing import FakeEngine


engine, adapter = support.engine, support.adapter

# Each of these is a program of its own, since patching cannot be undone. It says what it saw.
USES = """
import json, sys, threading, time
from vllm_http import TaskRequest, VllmHttpAdapter, WorkerError
{late_patch}
task = TaskRequest(prompt="Say it", model="fake-model", max_tokens=5)
beats = []

def beat():
    while True:
        beats.append(time.monotonic())
        time.sleep(0.001)

threading.Thread(target=beat, daemon=True).start()
adapter = VllmHttpAdapter(sys.argv[1])
said = {{"health": adapter.health().message}}
try:
    stream = adapter.submit(task)
    said["kinds"] = [event.type for event in stream]
    said["texts"] = [done.error is None for done in adapter.map([task] * 50, in_flight=10)]
    cancelled = adapter.submit(task)
    cancelled.cancel()
    said["last"] = [event.finish_reason for event in cancelled if event.type == "end"]
    adapter.close()
    said["threads"] = [t.name for t in threading.enumerate() if t.name.startswith("vllm_http")]
except WorkerError as error:
    said["error"] = [type(error).__name__, error.message, error.retriable]
said["beats"] = len(beats)
print(json.dumps(said))
"""
ASKS = """
import json, sys
from vllm_http import VllmHttpAdapter
{late_patch}
print(json.dumps(VllmHttpAdapter(sys.argv[1]).health().message))
"""
GEVENT = "from gevent import monkey; monkey.patch_all()"
EVENTLET = "import eventlet; eventlet.monkey_patch()"


def what_it_said(
    engine: FakeEngine, *, early_patch: str = "", late_patch: str = "", program: str = USES
) -> Any:
    """Run one of the programs above."""
    program = early_patch + program.format(late_patch=late_patch)
    command = [sys.executable, "-W", "ignore", "-c", program, engine.url]
    # eventlet's own DNS does not go together with trio, which a browser's driver brings along.
    environ = os.environ | {"EVENTLET_NO_GREENDNS": "yes"}
    # Not from the top folder, where Python would find the sources before what is installed.
    run = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=HERE, env=environ)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_gevent() -> None:
    """Patched first, all works, and other greenlets run while one waits for tokens."""
    need("gevent")
    with FakeEngine(token_delay=0.02) as engine:
        said = what_it_said(engine, early_patch=GEVENT)

    assert said["kinds"] == ["started", *["token"] * 5, "end"]
    assert said["texts"] == [True] * 50
    assert said["last"] == ["cancelled"]
    assert said["threads"] == []
    assert said["beats"] > 10
    assert "error" not in said


def test_gevent_too_late(engine: FakeEngine) -> None:
    """Patched after the import, it says so at once, and what to do."""
    need("gevent")
    said = what_it_said(engine, late_patch=GEVENT)

    assert said["error"][0] == "CapacityExceeded"
    assert "gevent has patched the program after it imported vllm_http" in said["error"][1]
    assert engine.requests == []


def test_health_with_gevent_too_late(engine: FakeEngine) -> None:
    """It does not raise, and says so as well."""
    need("gevent")
    message = what_it_said(engine, late_patch=GEVENT, program=ASKS)

    assert "gevent has patched the program after it imported vllm_http" in message
    assert "gunicorn.conf.py" in message
    assert engine.requests == []


@pytest.mark.parametrize("when", ["early_patch", "late_patch"])
def test_eventlet(engine: FakeEngine, when: str) -> None:
    """It is refused at once, whenever it patches."""
    need("eventlet")
    said = what_it_said(engine, **{when: EVENTLET})

    assert said["error"][0] == "CapacityExceeded"
    assert "eventlet's monkey patching is not supported" in said["error"][1]
    assert said["error"][2] is False
    assert engine.requests == []


# uWSGI. Since 2.0.27 it runs threads always, so the older one is played.


@pytest.fixture
def uwsgi(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """The module that uWSGI 2.0.26 has inside, with the options of a plain start."""
    module = types.SimpleNamespace(opt={"master": True}, version_info=(2, 0, 26, 0, b""))
    monkeypatch.setitem(sys.modules, "uwsgi", module)
    return module


def test_old_uwsgi_without_threads(adapter: VllmHttpAdapter, uwsgi: types.SimpleNamespace) -> None:
    """It is refused at once; without it, threads stand still between two requests."""
    with pytest.raises(CapacityExceeded, match="uWSGI runs without --enable-threads") as caught:
        adapter.submit(a_task())

    assert not caught.value.retriable
    assert adapter.health().state is HealthState.UNHEALTHY


@pytest.mark.parametrize("option", ["enable-threads", "threads"])
def test_old_uwsgi_with_threads(
    adapter: VllmHttpAdapter, uwsgi: types.SimpleNamespace, option: str
) -> None:
    """Either option has threads run."""
    uwsgi.opt[option] = True

    assert adapter.submit(a_task()).result(timeout=SOON).error is None


def test_new_uwsgi(adapter: VllmHttpAdapter, uwsgi: types.SimpleNamespace) -> None:
    """It needs no option."""
    uwsgi.version_info = (2, 0, 27, 0, b"")

    assert adapter.submit(a_task()).result(timeout=SOON).error is None


def test_module_of_that_name(adapter: VllmHttpAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something else that is called uwsgi is none of our business."""
    monkeypatch.setitem(sys.modules, "uwsgi", types.ModuleType("uwsgi"))

    assert adapter.submit(a_task()).result(timeout=SOON).error is None
