"""What the relay keeps in Redis, and the few atomic steps that change it.

Two keys a job. The events are a Redis stream; an entry's id is ``<generation>-<n>``, where n counts
0, 1, 2, ... without gaps, so a reader sees at once when something was trimmed, and a publisher may
send again what it is not sure of. The state is a hash: the ``generation`` that may write (each
publisher's own; later ones are greater, by the clock of Redis), the ``next`` n, ``until`` when the
publisher counts as alive (ms), whether the stream has ``ended``, the number of ``tokens`` so far,
and whether somebody asked for a ``cancel``. All that writes is Lua, since two publishers and a
canceller may come at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import redis
from redis import exceptions

from vllm_http import End, Metrics, StreamingError


Entry: TypeAlias = tuple[str, str | bytes]
"""An id and an event's JSON."""

AWAY = (
    exceptions.ConnectionError,  # while it loads its data, too
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,  # a primary that has just become a replica
    exceptions.ClusterDownError,
    exceptions.MasterDownError,
    exceptions.TryAgainError,
)
"""What Redis raises when it may soon be there again."""

BATCH = 256
"""Events in one command, either way."""

_CLOCK = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function later(ms) return string.format('%.0f', now + ms) end
local function succeed(old)
    local generation = math.max(now, (tonumber(old) or 0) + 1)
    redis.call('DEL', KEYS[2])
    return string.format('%.0f', generation)
end
"""

_BEGIN = f"""{_CLOCK}
local generation = succeed(redis.call('HGET', KEYS[1], 'generation'))
redis.call('HSET', KEYS[1], 'generation', generation, 'next', 0, 'ended', 0, 'tokens', 0)
redis.call('HSET', KEYS[1], 'until', later(ARGV[1]))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return generation
"""

_APPEND = f"""{_CLOCK}
local state = redis.call('HMGET', KEYS[1], 'generation', 'next', 'cancel')
local coming, following = tonumber(ARGV[2]), tonumber(state[2])
if not state[1] then return 'lost' end
if state[1] ~= ARGV[1] then return 'superseded' end
if coming > following then return 'lost' end
for position = 8, #ARGV do
    if coming >= following then
        redis.call('XADD', KEYS[2], ARGV[1] .. '-' .. coming, 'event', ARGV[position])
    end
    coming = coming + 1
end
redis.call('XTRIM', KEYS[2], 'MAXLEN', ARGV[6])
following = math.max(coming, following)
redis.call('HSET', KEYS[1], 'next', following, 'ended', ARGV[3], 'until', later(ARGV[4]))
redis.call('HSET', KEYS[1], 'tokens', ARGV[7])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('PEXPIRE', KEYS[2], ARGV[5])
return state[3] or '0'
"""

_CANCEL = f"""{_CLOCK}
local state = redis.call('HMGET', KEYS[1], 'generation', 'ended', 'until', 'tokens')
if state[2] == '1' then return end
redis.call('HSET', KEYS[1], 'cancel', 1)
redis.call('PEXPIRE', KEYS[1], ARGV[1])
if tonumber(state[3] or 0) > now then return end
local generation = succeed(state[1])
redis.call('XADD', KEYS[2], generation .. '-0', 'event', ARGV[2] .. (state[4] or '0') .. ARGV[3])
redis.call('HSET', KEYS[1], 'generation', generation, 'next', 1, 'ended', 1)
redis.call('PEXPIRE', KEYS[2], ARGV[1])
"""

_LOOK = f"""{_CLOCK}
local state = redis.call('HMGET', KEYS[1], 'generation', 'ended', 'until', 'cancel', 'next')
local condition = 'dead'
if not state[1] then condition = 'unknown'
elseif state[2] == '1' then condition = 'ended'
elseif tonumber(state[3]) > now then condition = 'live' end
return {{condition, state[4] or '0', (state[1] or '0') .. '-' .. (state[5] or '0')}}
"""

_COUNT = 987654321
_CANCELLED = (
    End(Metrics(tokens_generated=_COUNT), finish_reason="cancelled").to_json().split(str(_COUNT))
)
"""The end that a canceller writes: what comes before the number of tokens, and what behind it."""

Condition: TypeAlias = Literal["unknown", "live", "dead", "ended"]


class Superseded(Exception):
    """Another worker publishes this job now; what this one still had to say is void."""


@dataclass(frozen=True)
class Terms:
    """What holds for every job of a relay; seconds and events."""

    prefix: str
    maxlen: int
    expire: float
    lease: float
    outage: float
    interval: float


class Channel:
    """One job in Redis. Its methods raise what `redis` raises; thread-safe, as the client is.

    Args:
        client: Any synchronous client, whatever its protocol or ``decode_responses``.
        job_id: The job.
        terms: The relay's.
    """

    def __init__(self, client: redis.Redis, job_id: str, terms: Terms) -> None:
        self.job_id = job_id
        self.terms = terms
        self._client: Any = client  # redis-py's types are those of its asynchronous half as well
        name = f"{terms.prefix}{{{job_id}}}"  # braces: both keys in one slot of a cluster
        self._keys = [f"{name}:state", f"{name}:events"]
        self._expire_ms = round(terms.expire * 1000)
        self._scripts: dict[str, Any] = {}

    def begin(self) -> str:
        """Start the stream anew, and return a generation to write under.

        From now on all earlier generations can add nothing. A cancel that was asked for stays so.
        """
        return _text(self._run(_BEGIN, round(self.terms.lease * 1000), self._expire_ms))

    def append(
        self,
        generation: str,
        first: int,
        events: list[str],
        *,
        ended: bool,
        lease: float,
        tokens: int = 0,
    ) -> bool:
        """Add events, renew the lease, and return whether a cancel was asked for.

        Args:
            generation: From `begin`.
            first: The number of the first event; what is there already is not added again.
            events: As JSON; may be none.
            ended: Whether these are the last ones.
            lease: Seconds for which the publisher counts as alive.
            tokens: What the engine has generated so far, for an end that somebody else must write.

        Raises:
            Superseded: There is a later generation.
            StreamingError: Redis has lost what it had acknowledged.
        """
        terms = [int(ended), round(lease * 1000), self._expire_ms, self.terms.maxlen, tokens]
        answer = _text(self._run(_APPEND, generation, first, *terms, *events))
        if answer == "superseded":
            raise Superseded(f"another worker publishes job {self.job_id} now")
        if answer == "lost":
            message = "redis has lost a part of the stream"
            raise StreamingError(message, retriable=True, job_id=self.job_id)
        return answer == "1"

    def cancel(self) -> None:
        """Ask the publisher to end it; with none alive, put the end there."""
        self._run(_CANCEL, self._expire_ms, *_CANCELLED)

    def look(self) -> tuple[Condition, bool, str]:
        """How the stream stands, whether a cancel was asked for, and the id of the next event."""
        condition: Any
        condition, cancelled, next = self._run(_LOOK)
        return _text(condition), _text(cancelled) == "1", _text(next)  # type: ignore[return-value]

    def read(self, after: str | None, wait: float | None = None) -> list[Entry]:
        """The entries behind an id, at most `BATCH` of them.

        Args:
            after: None reads from the beginning.
            wait: Seconds to wait for one, if there is none.
        """
        block = None if wait is None else max(1, round(wait * 1000))
        reply = self._client.xread({self._keys[1]: after or "0-0"}, count=BATCH, block=block)
        return [(_text(id), _event(fields)) for id, fields in _flat(reply)]

    def _run(self, script: str, *arguments: str | float) -> Any:
        run = self._scripts.get(script)
        if run is None:
            run = self._scripts[script] = self._client.register_script(script)
        return run(keys=self._keys, args=arguments)


def _flat(reply: Any) -> list[tuple[str | bytes, dict[Any, Any]]]:
    """The entries in a reply of XREAD, which has three shapes, by the client's protocol."""
    if not reply:
        return []
    (entries,) = reply.values() if isinstance(reply, dict) else (pair[1] for pair in reply)
    return entries[0] if isinstance(entries[0], list) else entries


def _event(fields: dict[Any, Any]) -> str | bytes:
    name = "event" if "event" in fields else b"event"
    return fields.get(name, "")  # type: ignore[no-any-return]


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
