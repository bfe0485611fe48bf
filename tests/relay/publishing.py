"""What the relay's tests share: a worker that died, and a reader that takes a few events."""

from __future__ import annotations

from support import SOON, kinds

from vllm_http import Token, TokenStream
from vllm_http.integrations.relay import Follower, Relay


def dead_publisher(relay: Relay, job_id: str, *texts: str) -> None:
    """Publish some tokens and never say a word again, as a worker that was killed."""
    channel = relay._channel(job_id)
    generation = channel.begin()
    events = [Token(text, index).to_json() for index, text in enumerate(texts)]
    channel.append(generation, 0, events, ended=False, lease=relay._terms.lease)


def take(follower: Follower, count: int) -> list[str]:
    """The kinds of the next events."""
    return kinds(event for _ in range(count) if (event := follower.get(timeout=SOON)))


def interrupted(stream: TokenStream, failure: BaseException) -> TokenStream:
    """The stream, where the third `get` is interrupted, as by a signal."""
    get, calls = stream.get, iter(range(10**6))

    def interrupted_get(timeout: float | None = None) -> object:
        if next(calls) == 2:
            raise failure
        return get(timeout=SOON)

    stream.get = interrupted_get  # type: ignore[method-assign,assignment]
    return stream
