"""Real Celery workers as processes, and what the tests say to them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import kombu.pools
import redis
from celery import Celery
from support import a_task, wait_until

from vllm_http import Token, TokenEvent
from vllm_http.integrations.relay import Follower, Relay


TESTS = Path(__file__).parent.parent
PATIENCE = 40.0  # Seconds; workers on a busy machine are slow to wake.


class Worker:
    """A worker with its children, in a process group of its own.

    Args:
        folder: For its log.
        pool: Celery's name of it.
        app: A module in that folder; `relay.worker_app` by default.
        places: The urls of its ``BROKER``, ``REDIS`` and ``ENGINE``.
    """

    def __init__(
        self, folder: Path, pool: str, concurrency: int, app: str = "", **places: str
    ) -> None:
        self.log = folder / f"{uuid.uuid4().hex}.log"
        options = [f"--pool={pool}", f"--concurrency={concurrency}", "--loglevel=INFO"]
        options += [
            f"--queues={places.get('QUEUE', 'celery')}",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
        ]
        command = [sys.executable, "-m", "celery", "-A", app or "relay.worker_app", "worker"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, *options, f"--hostname={self.log.stem}@tests"],
                cwd=folder if app else TESTS,
                env={**os.environ, **places, "C_FORCE_ROOT": "1", "PYTHONPATH": str(TESTS)},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *failure: object) -> None:
        self._process.terminate()  # a warm shutdown
        try:
            self._process.wait(3)
        except subprocess.TimeoutExpired:
            self.kill()

    def wait_ready(self) -> Worker:
        """Wait until it takes tasks."""
        wait_until(lambda: " ready." in self.log.read_text() or self._ended(), timeout=40)
        assert not self._ended(), self.log.read_text()
        return self

    def kill(self) -> None:
        """End it and its children at once, as when the machine dies."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def end(self, how: signal.Signals) -> None:
        """End it as Celery does on a signal, or as the machine does: with all its children."""
        if how == signal.SIGKILL:
            self.kill()
        else:
            self._process.send_signal(how)

    def kill_children(self) -> None:
        """End its children at once, as when they take too much memory."""
        listing = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        for pid in listing.read_text().split():
            os.kill(int(pid), signal.SIGKILL)

    def _ended(self) -> bool:
        return self._process.poll() is not None


def follow(relay: Relay, id: str) -> Follower:
    """A follower that gives a busy machine time."""
    return relay.follow(id, patience=PATIENCE)


def take(follower: Follower, count: int) -> list[TokenEvent]:
    """The next events."""
    return [event for _ in range(count) if (event := follower.get(timeout=PATIENCE))]


def texts(events: Iterable[TokenEvent]) -> str:
    """What the tokens say."""
    return "".join(event.text for event in events if isinstance(event, Token))


class Caller:
    """Sends tasks and looks at their results, and leaves no connection open.

    Args:
        broker: Its url.
        client: Of the Redis with the results.
    """

    def __init__(self, broker: str, client: redis.Redis) -> None:
        self._app = Celery("tests", broker=broker)
        self._client = client

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *failure: object) -> None:
        self._app.close()
        kombu.pools.reset()

    def send(self, name: str = "generate", *, id: str | None = None, **options: Any) -> str:
        """Put a task into the queue, and return its id; `options` are those of `apply_async`."""
        fields = options.pop("task", {})
        id = id or uuid.uuid4().hex
        arguments = [a_task(**fields).to_dict()]
        self._app.send_task(name, arguments, task_id=id, **options)
        return id

    def revoke(self, id: str) -> None:
        """Have Celery end a task that runs."""
        self._app.control.revoke(id, terminate=True)

    def result(self, id: str, timeout: float = 30.0) -> dict[str, Any]:
        """What Celery stored when the task was over, as the JSON that it is."""
        wait_until(lambda: self.state(id) in {"SUCCESS", "FAILURE", "REVOKED"}, timeout)
        return self._stored(id)

    def state(self, id: str) -> str | None:
        """Celery's word for how it stands; None if nothing was stored yet."""
        return self._stored(id).get("status")

    def _stored(self, id: str) -> dict[str, Any]:
        stored: Any = self._client.get(f"celery-task-meta-{id}")
        return {} if stored is None else dict(json.loads(stored))
