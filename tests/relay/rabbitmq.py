"""A RabbitMQ of the tests' own: free loopback ports, its own folder, nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

from relay.redis_server import free_port, need
from support import wait_until


class RabbitMQ:
    """A broker that gives a task to another worker as soon as the first one's connection ends.

    Args:
        folder: For its data and logs.
    """

    def __init__(self, folder: Path) -> None:
        need("rabbitmq-server")
        # What Debian puts into the path wants to be root or a certain user; this is behind it.
        self._program = need("/usr/lib/rabbitmq/bin/rabbitmq-server")
        self._log = folder / "output"
        self._port, distribution, mapper = (free_port() for _ in range(3))
        self._mapper = ["epmd", "-port", str(mapper), "-address", "127.0.0.1"]
        self._environment = {
            **os.environ,
            "HOME": str(folder),  # its cookie
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(mapper),
            "RABBITMQ_NODENAME": f"tests-{self._port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(folder / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
        }
        self.url = f"amqp://guest:guest@127.0.0.1:{self._port}//"

    def __enter__(self) -> RabbitMQ:
        """Start it, and wait until it takes connections."""
        self._names = subprocess.Popen(self._mapper, env=self._environment)
        with self._log.open("wb") as log:
            self._broker = subprocess.Popen(
                [self._program],
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(lambda: self._answers() or self._broker.poll() is not None, timeout=50)
        assert self._broker.poll() is None, self._log.read_text()
        return self

    def __exit__(self, *failure: object) -> None:
        self._broker.terminate()
        try:
            self._broker.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._broker.pid, signal.SIGKILL)
            self._broker.wait()
        self._names.terminate()
        self._names.wait()

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0
