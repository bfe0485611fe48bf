"""What all tests of the network have in common: a stream that has begun, and how it may end."""

from __future__ import annotations

import time
from pathlib import Path

from faults.outcome import Seen, check_order, watch
from network.host import PORT
from network.net import Network
from support import COMPLETIONS, SOON, a_task, answer, wait_until

from vllm_http import (
    Error,
    RetryPolicy,
    Timeout,
    Timeouts,
    Token,
    TokenEvent,
    TokenStream,
    VllmHttpAdapter,
)
from vllm_http.testing import Step, Text, Wait


CLOCK = 0.5  # Seconds; a clock that is to run out, while what it waits for takes milliseconds.
CONNECT = 0.25  # Seconds; each attempt takes them.
SHORT = Timeouts(connect=CONNECT, first_token=CLOCK, stall=CLOCK)
LONG = Timeouts(connect=1, first_token=30, stall=30)
PATIENT = Timeouts(connect=SOON, first_token=SOON, stall=SOON)
THREE = RetryPolicy(attempts=3, base=0.001, cap=0.001)
RECOVERY = 20.0  # Seconds; TCP tries again after ever longer pauses.

WORDS = [f"{number} " for number in range(2000)]


def counting(words: int, pause: float = 0.01) -> list[Step]:
    """A whole answer of that many words, each of them after a pause of so many seconds."""
    steps = [(Wait(pause), Text(word)) for word in WORDS[:words]]
    return [*[step for pair in steps for step in pair], *answer()]


_ESTABLISHED, _SYN_SENT = "01", "02"


def adapter_to(
    network: Network, timeouts: Timeouts = SHORT, retry: RetryPolicy = THREE
) -> VllmHttpAdapter:
    """An adapter that knows the engine's version, so that only tasks go out."""
    adapter = VllmHttpAdapter(network.host.url, timeouts=timeouts, retry=retry)
    adapter.engine_version()
    return adapter


class Begun:
    """A stream in the middle of counting, for 20 seconds; no test waits for its end.

    Attributes:
        stream: The stream.
        first: What was taken from it.
    """

    def __init__(self, network: Network, adapter: VllmHttpAdapter) -> None:
        network.host.script(*counting(2000))
        self.stream: TokenStream = adapter.submit(a_task())
        self.first: list[TokenEvent] = [next(self.stream) for _ in range(4)]

    def rest(self) -> Seen:
        """Take what is left; the seconds are from now on. Only the last event may be amiss."""
        later = watch(self.stream, time.monotonic())
        seen = Seen([*self.first, *later.events], later.seconds, later.more)
        check_order(seen, starts=True)
        check_beginning(seen)
        return seen


def check_beginning(seen: Seen) -> None:
    """No word is lost or there twice."""
    assert [t.text for t in seen.events if isinstance(t, Token)] == WORDS[: len(seen.tokens)]


def ending(seen: Seen) -> str:
    """The last event in a few words, such as ``"Timeout stall"``."""
    last = seen.last
    if not isinstance(last, Error):
        return str(getattr(last, "finish_reason", last.type))
    phase = f" {last.error.phase}" if isinstance(last.error, Timeout) else ""
    return type(last.error).__name__ + phase


def check_works(network: Network, adapter: VllmHttpAdapter) -> None:
    """A new task is answered, and the engine has let go of the earlier ones."""
    network.host.script(*answer("w", "ell"))
    completion = adapter.submit(a_task(), timeouts=PATIENT).result(timeout=RECOVERY)

    assert completion.text == "well"
    network.host.ask("wait_idle", RECOVERY)


def wait_for_request(network: Network) -> None:
    """Wait until the engine has a task."""
    network.host.ask("wait_for_requests", 1, SOON, COMPLETIONS)


def _ports_to_engine(state: str) -> list[int]:
    """Our ports of the connections to an engine's port that are in that state."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = [line for line in lines if line[3] == state and line[2].endswith(f":{PORT:04X}")]
    return [int(line[1].rpartition(":")[2], 16) for line in ours]


def connecting() -> int:
    """How many connects to an engine's port wait for an answer."""
    return len(_ports_to_engine(_SYN_SENT))


def connected_port() -> int:
    """Our port of the only connection to an engine."""
    (port,) = _ports_to_engine(_ESTABLISHED)
    return port


def wait_for_connect() -> None:
    """Wait until one does."""
    wait_until(lambda: connecting() > 0)
