"""What the relay keeps in Redis, and the few atomic steps that change it.

Two keys a job. The events are a Redis stream; an entry's id is ``<generation>-<n>``, where n counts
0, 1, 2, ... without gaps, so a reader sees at once when something was trimmed, and a publisher may
send again what it is not sure of. The state is a hash: the ``generation`` that may write (each
publisher's own; later ones are greater, by the clock of Redis), which one each publisher has
``begun:<nonce>``, the ``next`` n, ``until`` when the publisher counts as alive (ms), whether the
stream has ``ended``, and which generation a canceller has ``ended for``, the number of ``tokens``
so far, and whether somebody asked for a ``cancel``. All that writes is Lua, since two publishers
and a canceller may come at once.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import redis

from vllm_http import End, InvalidRequest, Metrics, StreamingError

from .._limits import number, whole


Entry: TypeAlias = tuple[str, str | bytes]
"""An id and an event's JSON."""

BATCH = 256
"""Events in one command, either way."""

_LONGEST = 1e9
"""Seconds, 31 years: Redis refuses what is far beyond."""

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
local state = redis.call('HMGET', KEYS[1], 'generation', 'begun:' .. ARGV[3])
if state[2] then return {{state[2], ''}} end
if (state[1] or '') ~= ARGV[4] then return {{'', state[1] or ''}} end
local generation = succeed(state[1])
redis.call('HSET', KEYS[1], 'generation', generation, 'next', 0, 'ended', 0, 'tokens', 0)
redis.call('HSET', KEYS[1], 'until', later(ARGV[1]), 'begun:' .. ARGV[3], generation)
redis.call('HDEL', KEYS[1], 'ended for')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {{generation, ''}}
"""

_GENERATION = "return redis.call('HGET', KEYS[1], 'generation') or ''"

_BETWEEN = "2"
"""What ``ended`` is while nobody publishes, but somebody will."""

_APPEND = f"""{_CLOCK}
local state = redis.call('HMGET', KEYS[1], 'generation', 'next', 'cancel', 'ended for')
local coming, following = tonumber(ARGV[2]), tonumber(state[2])
if not state[1] then return 'lost' end
if state[4] == ARGV[1] then return 'cancelled' end
if state[1] ~= ARGV[1] then return 'superseded' end
if coming > following then return 'lost' end
if following > 0 and redis.call('EXISTS', KEYS[2]) == 0 then return 'lost' end
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
if state[2] == '0' and tonumber(state[3]) > now then return end
local generation = succeed(state[1])
redis.call('XADD', KEYS[2], generation .. '-0', 'event', ARGV[2] .. (state[4] or '0') .. ARGV[3])
redis.call('HSET', KEYS[1], 'generation', generation, 'next', 1, 'ended', 1)
if state[1] then redis.call('HSET', KEYS[1], 'ended for', state[1]) end
redis.call('PEXPIRE', KEYS[2], ARGV[1])
"""

_LOOK = f"""{_CLOCK}
local state = redis.call('HMGET', KEYS[1], 'generation', 'ended', 'until', 'cancel', 'next')
local condition = 'dead'
if not state[1] then condition = 'unknown'
elseif state[2] == '1' then condition = 'ended'
elseif tonumber(state[3]) > now then condition = 'live' end
local generation, next, kept = state[1] or '0', tonumber(state[5] or 0), 1
if next > 0 then
    local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
    if not last or last[1] ~= generation .. '-' .. (next - 1) then kept = 0 end
end
return {{condition, state[4] or '0', generation .. '-' .. next, kept}}
"""

_COUNT = 987654321
_CANCELLED = (
    End(Metrics(tokens_generated=_COUNT), finish_reason="cancelled").to_json().split(str(_COUNT))
)
"""The end that a canceller writes: what comes before the number of tokens, and what behind it."""

Condition: TypeAlias = Literal["unknown", "live", "dead", "ended"]


class Look(NamedTuple):
    """How a stream stands.

    Attributes:
        condition: Of its publisher.
        cancelled: Whether a cancel was asked for.
        next: The id of the next event.
        kept: Whether the last event is there, if there was one.
    """

    condition: Condition
    cancelled: bool
    next: str
    kept: bool


class Superseded(Exception):
    """Another worker publishes this job now; what this one still had to say is void."""


class Cancelled(Exception):
    """A canceller took this publisher for dead, and has written the end in its place."""


@dataclass(frozen=True)
class Terms:
    """What holds for every job of a relay; seconds and events."""

    prefix: str
    maxlen: int
    expire: float
    lease: float
    outage: float
    interval: float

    def check(self) -> None:
        """Refuse what cannot work, with the numbers.

        Raises:
            InvalidRequest: Names the argument.
        """
        whole(BATCH)("maxlen", self.maxlen)  # else a command's own events would trim each other
        for name in ("expire", "lease", "outage"):
            number(0, _LONGEST, above=True)(name, getattr(self, name))
        number(0, _LONGEST)("interval", self.interval)
        if self.interval > self.lease / 2:
            limit = f"at most half of lease, {self.lease:g} s, is allowed"
            message = f"{limit}: a worker that lives would count as dead"
            raise InvalidRequest(f"interval: {self.interval:g} s; {message}")
        if self.expire < self.lease:
            limit = f"at least lease, {self.lease:g} s, is wanted"
            message = f"{limit}: a job would be gone while it is published"
            raise InvalidRequest(f"expire: {self.expire:g} s; {message}")


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
        name = _name(terms.prefix, job_id)
        self._keys = [f"{name}:state".encode(), f"{name}:events".encode()]
        self._scripts: dict[str, Any] = {}

    def begin(self, nonce: str | None = None) -> str:
        """Start the stream anew, and return a generation to write under.

        From now on all earlier generations can add nothing. A cancel that was asked for stays so.

        Args:
            nonce: This publisher's, whenever it asks again. The command may come to Redis twice,
                and late: it gives the same generation again, and changes nothing once there is a
                later one, since it says which one it means to succeed.
        """
        terms = _ms(self.terms.lease), _ms(self.terms.expire), nonce or uuid.uuid4().hex
        before = _text(self._run(_GENERATION))
        while True:
            generation, now = map(_text, self._run(_BEGIN, *terms, before))
            if generation:
                return generation
            before = now  # another one began meanwhile

    def append(
        self,
        generation: str,
        first: int,
        events: list[str],
        *,
        ended: bool,
        lease: float,
        away: float = 0.0,
        tokens: int = 0,
    ) -> bool:
        """Add events, renew the lease, and return whether a cancel was asked for.

        Args:
            generation: From `begin`.
            first: The number of the first event; what is there already is not added again.
            events: As JSON; may be none.
            ended: Whether these are the last ones.
            lease: Seconds for which the publisher counts as alive.
            away: Seconds beyond them in which nobody publishes, until another one begins.
            tokens: What the engine has generated so far, for an end that somebody else must write.

        Raises:
            Superseded: There is a later generation.
            Cancelled: It is a canceller's.
            StreamingError: Redis has lost what it had acknowledged.
        """
        standing = "1" if ended else _BETWEEN if away else "0"
        until, expire = _ms(lease + away), _ms(self.terms.expire + away)
        terms = standing, until, expire, self.terms.maxlen, tokens
        texts = [event.encode(errors="backslashreplace") for event in events]  # that is JSON still
        answer = _text(self._run(_APPEND, generation, first, *terms, *texts))
        if answer == "superseded":
            raise Superseded(f"another worker publishes job {self.job_id} now")
        if answer == "cancelled":
            raise Cancelled
        if answer == "lost":
            message = "redis has lost a part of the stream"
            raise StreamingError(message, retriable=True, job_id=self.job_id)
        return answer == "1"

    def cancel(self) -> None:
        """Ask the publisher to end it; with none alive, put the end there."""
        self._run(_CANCEL, _ms(self.terms.expire), *_CANCELLED)

    def look(self) -> Look:
        """How the stream stands, at one moment."""
        condition: Any
        condition, cancelled, next, kept = self._run(_LOOK)
        return Look(_text(condition), _text(cancelled) == "1", _text(next), kept == 1)  # type: ignore[arg-type]

    def read(self, after: str | None, wait: float | None = None) -> list[Entry]:
        """The entries behind an id, at most `BATCH` of them.

        Args:
            after: None reads from the beginning.
            wait: Seconds to wait for one, if there is none.
        """
        key = self._keys[1]
        block = () if wait is None else ("BLOCK", max(1, _ms(wait)))
        place = "STREAMS", key, after or "0-0"
        # To learn where XREAD has its keys, redis-py asks some node of a cluster: it may be dead.
        serves = getattr(self._client, "get_node_from_key", None)
        node = {} if serves is None else {"target_nodes": serves(key)}
        reply = self._client.execute_command("XREAD", "COUNT", BATCH, *block, *place, **node)
        return [(_text(id), _event(fields)) for id, fields in _flat(reply)]

    def _run(self, script: str, *arguments: str | bytes | float) -> Any:
        run = self._scripts.get(script)
        if run is None:
            run = self._scripts[script] = self._client.register_script(script)
        return run(keys=self._keys, args=arguments)


def _name(prefix: str, job_id: str) -> str:
    """What both keys begin with; they are in one slot of a cluster, whatever the names are.

    A cluster takes what stands between the first brace and the next closing one, and the whole key
    where that is nothing. So an id has no brace of its own, and a prefix no empty pair.
    """
    tag = job_id.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
    return f"{prefix.replace('{}', '%7B%7D')}{{{tag}}}"


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


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
