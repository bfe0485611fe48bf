"""Tokens from a worker process to whoever waits for them, through Redis Streams.

A Celery task, or any other process with a `TokenStream`, calls `Relay.publish`; a web process calls
`Relay.follow` and drains a plain iterator. Both need only the job's id and the same Redis. Needs
``pip install vllm-http[redis]``.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from typing import Any

import redis as redis_py
from redis.backoff import NoBackoff
from redis.retry import Retry

from vllm_http import Completion, InvalidRequest, TokenStream, WorkerError

from .._limits import check_id
from ._relay_channel import Channel, Superseded, Terms
from ._relay_failures import insist
from ._relay_follower import Follower
from ._relay_publisher import Publisher


__all__ = ["Follower", "Relay", "Superseded"]

_SOCKET_TIMEOUT = 5.0
"""Seconds; redis-py before 8 waits for ever."""

_READ_TIMEOUT = 1.5
"""Of followers' connections: a read waits for a second, and a heartbeat waits for the read."""

_CONNECTIONS = 2**31
"""As many as the system allows; redis-py 8 would stop at 100, and so many readers may wait."""

_CANCEL_PATIENCE = 5.0
"""Seconds that `cancel` waits for Redis: a web request waits for it."""


class Relay:
    """Publishes and follows jobs. Thread-safe, and good in a forked child; makes no thread.

    Args:
        redis: A `redis.Redis`, a `redis.RedisCluster` or a Sentinel's client (which should have a
            ``socket_timeout`` above 1 s), or a URL such as ``"redis://localhost:6379/0"``.
            Connections are made when they are needed; each follower that waits holds one. Of a URL
            there are as many as the system allows; a client has a limit of its own, which must be
            above its followers and publishers (``max_connections``; redis-py 8: 100).
        prefix: Before the names of all keys. Two keys a job.
        maxlen: Events of a job that are kept. A reader who falls further behind, or comes back
            later, gets an `Error` instead of the rest.
        expire: Seconds for which a job's events stay after the last one.
        lease: Seconds without a word from a publisher after which it counts as dead.
        outage: Seconds that Redis may be away in mid-stream before `publish` gives up.
        interval: Seconds between two commands of one publisher at least; events that come meanwhile
            go together, and the first goes at once. A command costs a worker 0.15 ms, an event in
            it 10 us: at 50 tokens a second, 0.05 saves half.

    Raises:
        InvalidRequest: A number is out of its limits: `maxlen` holds one command's 256 events at
            least; `interval` is at most half of `lease`, or a worker that lives would count as
            dead; and `expire` is no shorter than `lease`.
    """

    def __init__(
        self,
        redis: redis_py.Redis | str,
        *,
        prefix: str = "vllm-http:",
        maxlen: int = 100_000,
        expire: float = 3600.0,
        lease: float = 10.0,
        outage: float = 30.0,
        interval: float = 0.0,
    ) -> None:
        self._terms = Terms(prefix, maxlen, expire, lease, outage, interval)
        self._terms.check()
        self._owned = isinstance(redis, str)
        self._redis = _client(redis, _SOCKET_TIMEOUT) if isinstance(redis, str) else redis
        self._reading = _client(redis, _READ_TIMEOUT) if isinstance(redis, str) else redis
        _check_encoding(self._redis)

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def publish(
        self,
        stream: TokenStream,
        *,
        retry_in: Callable[[WorkerError], float | None] | None = None,
    ) -> Completion:
        """Send all events of a stream to whoever follows its job, and return the whole.

        Runs on the caller's thread until the end, and leaves the stream closed. An earlier
        publisher of the same job, if one is still alive, is stopped. While Redis is away, events
        are kept and the engine is slowed; nothing is lost or sent twice.

        Args:
            stream: Of which nothing was taken yet.
            retry_in: Called with the error of a failed stream. Where it returns seconds, followers
                are not told of the failure and wait that much longer for the next publisher.

        Raises:
            WorkerError: What the stream's `Error` holds; its ``partial`` is what had come.
            StreamingError: Redis stayed away for longer than `outage`, or lost the stream.
            Superseded: Another worker publishes the job now. No `WorkerError`: the job is well.
        """
        return Publisher(self._channel(stream.job_id), stream, retry_in).run()

    def follow(self, job_id: str, *, after: str | None = None, patience: float = 60.0) -> Follower:
        """Read a job's events, from the beginning or from where a reader left off.

        Both arguments may come from anybody's browser: what cannot be a job's id, or an event's,
        raises nothing here. The follower's only event is then an `Error` with `InvalidRequest`.

        Args:
            job_id: May be unknown as yet.
            after: A `Follower.last_id`, to get exactly what came after it. Of a generation that
                was begun anew since, all is given.
            patience: Seconds to wait where nobody publishes: for a worker to begin, for another
                after one died, and for Redis. Then the stream ends with an `Error`.
        """
        follower = Follower(Channel(self._reading, job_id, self._terms), after, patience)
        try:
            check_id("job_id", job_id)
            if after is not None and not re.fullmatch(r"[0-9]{1,15}-[0-9]{1,15}", after):
                raise InvalidRequest("after: not the last_id of a Follower; None reads all")
        except InvalidRequest as refusal:
            follower.refuse(refusal)
        return follower

    def cancel(self, job_id: str) -> None:
        """End a job: the engine stops within half a second, and followers see the `End`.

        Its finish_reason is "cancelled". A job that nobody publishes ends at once, and if it is
        begun later, it is cancelled again; a finished one stays as it is.

        Raises:
            StreamingError: Redis cannot be reached.
        """
        insist(self._channel(job_id).cancel, _CANCEL_PATIENCE, job_id)

    def close(self) -> None:
        """Close the connections that were made for a URL; they would be made again."""
        if self._owned:
            self._redis.close()
            self._reading.close()

    def _channel(self, job_id: str) -> Channel:
        check_id("job_id", job_id)
        return Channel(self._redis, job_id, self._terms)


def _check_encoding(client: redis_py.Redis) -> None:
    """Refuse a client that could not send commands, or would garble what it reads.

    We send bytes, so its encoding matters little, unless it decodes replies with it.
    """
    encoder: Any = client.get_encoder()
    try:
        kept = "*1\r\n".encode(encoder.encoding) == b"*1\r\n"
        whole = codecs.lookup(encoder.encoding).name == "utf-8" or not encoder.decode_responses
    except LookupError:
        kept = whole = False
    if not (kept and whole):
        got = f"{encoder.encoding!r}, decode_responses={encoder.decode_responses}"
        raise InvalidRequest(f"redis: its encoding is {got}; events are UTF-8")


def _client(url: str, timeout: float) -> redis_py.Redis:
    # Repeating is done here, where it is bounded and known to be safe; one layer of it is enough.
    return redis_py.Redis.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        max_connections=_CONNECTIONS,
        retry=Retry(NoBackoff(), 0),
    )
