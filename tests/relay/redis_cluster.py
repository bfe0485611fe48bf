"""A Redis Cluster of three primaries, each with a replica, and a Sentinel with its pair."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import redis
from relay.redis_server import free_port, need
from support import wait_until


class Node:
    """One process of either."""

    def __init__(self, folder: Path, port: int, *options: str) -> None:
        self.port = port
        self.client = redis.Redis(port=port, decode_responses=True)
        folder.mkdir(parents=True, exist_ok=True)
        common = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        common += ["--repl-diskless-sync-delay", "0"] if "--sentinel" not in options else []
        command = [need("redis-server"), *options, *common]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def answers(self) -> bool:
        """Whether it takes commands."""
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self._process.kill()
        self._process.wait()
        self.client.close()


class Cluster:
    """Three primaries with a replica each, that elect a new primary within two seconds or so."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Cluster:
        self.nodes = [self._node(self._port()) for _ in range(6)]
        wait_until(lambda: all(node.answers() for node in self.nodes), timeout=20)
        create = ["redis-cli", "--cluster", "create", "--cluster-replicas", "1", "--cluster-yes"]
        places = [f"127.0.0.1:{node.port}" for node in self.nodes]
        subprocess.run([*create, *places], check=True, stdout=subprocess.DEVNULL, timeout=50)
        wait_until(lambda: all(map(_is_whole, self.nodes)), timeout=40)
        return self

    def __exit__(self, *failure: object) -> None:
        for node in self.nodes:
            node.kill()

    def primary_of(self, key: str) -> Node:
        """The node that serves a key."""
        client = redis.RedisCluster(host="127.0.0.1", port=self.nodes[-1].port)
        port = client.get_node_from_key(key).port  # type: ignore[no-untyped-call]
        client.close()
        return next(node for node in self.nodes if node.port == port)

    def kill(self, node: Node) -> None:
        """End a node for good."""
        self.nodes.remove(node)
        node.kill()

    def _node(self, port: int) -> Node:
        options = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": "1000",
            "cluster-config-file": f"nodes-{port}.conf",
            "appendonly": "no",
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        return Node(self._folder / str(port), port, *arguments)

    def _port(self) -> int:
        """One whose bus, 10,000 above, is a port too."""
        return next(port for port in iter(free_port, None) if port < 55_000)


def _is_whole(node: Node) -> bool:
    """Whether it knows all others, and has what its primary has; only then may it stand in."""
    info: Any = node.client.cluster("info")
    known = info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "6"
    replication: Any = node.client.info("replication")
    in_step = replication.get("master_link_status", "up") == "up"
    return bool(known and in_step and _has_replica(node))


def _has_replica(node: Node) -> bool:
    replication: Any = node.client.info("replication")
    return bool(replication["role"] == "slave" or replication["connected_slaves"] == 1)


class Watched:
    """A primary and a replica, and a Sentinel that puts one in the other's place."""

    NAME = "watched"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Watched:
        self.primary = Node(self._folder / "primary", free_port())
        wait_until(self.primary.answers, timeout=20)
        replica_of = ["--replicaof", f"127.0.0.1 {self.primary.port}"]
        self.replica = Node(self._folder / "replica", free_port(), *replica_of)
        wait_until(self._in_step, timeout=20)
        self.sentinel = self._watch()
        wait_until(self._seen, timeout=30)
        return self

    def __exit__(self, *failure: object) -> None:
        for node in (self.sentinel, self.replica, self.primary):
            node.kill()

    def _watch(self) -> Node:
        place = self._folder / "sentinel"
        place.mkdir()
        (place / "sentinel.conf").write_text(
            f"sentinel monitor {self.NAME} 127.0.0.1 {self.primary.port} 1\n"
            f"sentinel down-after-milliseconds {self.NAME} 1000\n"
            f"sentinel failover-timeout {self.NAME} 5000\n"
        )
        return Node(place, free_port(), str(place / "sentinel.conf"), "--sentinel")

    def _in_step(self) -> bool:
        if not self.replica.answers():
            return False
        replication: Any = self.replica.client.info("replication")
        return bool(replication["master_link_status"] == "up")

    def _seen(self) -> bool:
        if not self.sentinel.answers():
            return False
        watched: Any = self.sentinel.client.sentinel_master(self.NAME)
        return int(watched["num-slaves"]) == 1
