"""A Redis for all tests of this folder, and an engine and a relay for each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import pytest


if not os.environ.get("CI"):  # there, what is missing fails
    pytest.importorskip("redis")
    pytest.importorskip("celery")

import redis
from relay.redis_server import RedisServer
from support import adapter, engine, gate

from vllm_http import Completion, TokenStream
from vllm_http.integrations.relay import Relay


__all__ = ["adapter", "engine", "gate"]

Publish: TypeAlias = Callable[..., "Future[Completion]"]


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server that keeps nothing; jobs have ids of their own, so tests may share it."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A client of the shared server."""
    with redis.Redis.from_url(redis_server.url, socket_timeout=5) as client:
        yield client


@pytest.fixture
def relay(client: redis.Redis) -> Relay:
    """A relay that notices a death quickly."""
    return Relay(client, lease=0.6)


@pytest.fixture
def publish(relay: Relay) -> Iterator[Publish]:
    """Publish a stream on a thread of its own, as a worker would."""
    with ThreadPoolExecutor(8, thread_name_prefix="publisher") as threads:

        def start(stream: TokenStream, by: Relay = relay, **options: Any) -> Future[Completion]:
            return threads.submit(by.publish, stream, **options)

        yield start


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server for one test, which may kill it: what it has acknowledged is there again."""
    with RedisServer(tmp_path, keeps=True) as server:
        yield server
