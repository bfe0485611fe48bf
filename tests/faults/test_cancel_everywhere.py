"""A task ends when told to, whatever it is doing (`phases.py`), and the engine is told too."""

from __future__ import annotations

import threading
import time

import pytest
from faults.figures import Figures
from faults.phases import AT_THE_ENGINE, CONNECT, PHASES, SENT_ONCE, Phase, Scene, draining
from support import SOON, kinds, sent, stopwatch, wait_until

from vllm_http import End, TokenEvent


ROUNDS = 5
AT_ONCE = 1.0  # Seconds; a tenth of it is what is promised, and the summary shows what it was.

assert AT_ONCE < CONNECT


class Caller:
    """A thread that takes all events.

    Attributes:
        events: What it has had.
        ended: When its iteration was over (`time.monotonic`).
    """

    def __init__(self, scene: Scene) -> None:
        self.events: list[TokenEvent] = []
        self.ended = 0.0
        self._stream = scene.stream
        self._thread = threading.Thread(target=self._take_all)

    def start(self) -> None:
        """Begin to take."""
        self._thread.start()

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join(SOON)
        assert not self._thread.is_alive()

    @property
    def waits(self) -> bool:
        """Whether it is blocked until the next event, or has had the last."""
        return self._stream.receiver.bell._waits or self._stream.done

    def _take_all(self) -> None:
        for event in self._stream:
            self.events.append(event)
        self.ended = time.monotonic()


def cancelled(scene: Scene) -> tuple[list[TokenEvent], float]:
    """Cancel while another thread takes the events: what it had, and how long it went on."""
    caller = Caller(scene)
    if scene.waits:
        caller.start()
        wait_until(lambda: caller.waits)
    began = time.monotonic()
    scene.stream.cancel()
    if not scene.waits:
        caller.start()
    caller.join()
    return caller.events, caller.ended - began


@pytest.mark.parametrize("phase", PHASES)
def test_cancel_ends_the_callers_iteration(phase: Phase, figures: Figures) -> None:
    """Tokens that waited are dropped, and an End that says "cancelled" comes at once."""
    for _ in range(ROUNDS):
        with phase() as scene:
            events, seconds = cancelled(scene)

        *untaken, end = events
        assert kinds(untaken) in ([], ["started"])
        assert isinstance(end, End)
        reasons = ["cancelled", "stop"] if phase is draining else ["cancelled"]
        assert end.finish_reason in reasons
        figures.cancelled(phase.__name__, seconds)
        assert seconds < AT_ONCE


@pytest.mark.parametrize("phase", AT_THE_ENGINE)
def test_engine_sees_the_hang_up(phase: Phase) -> None:
    """A cancel reaches the engine while the caller still holds the stream."""
    with phase() as scene:
        assert scene.left is not None
        assert not scene.left.is_set()

        scene.stream.cancel()

        assert scene.left.wait(SOON)


@pytest.mark.parametrize("phase", SENT_ONCE)
def test_nothing_more_is_sent(phase: Phase) -> None:
    """What waited for its turn, or for its next attempt, never goes out."""
    with phase() as scene:
        scene.stream.cancel()

    assert scene.engine is not None
    assert sent(scene.engine) == 1


@pytest.mark.parametrize("phase", PHASES)
def test_close_in_every_phase(phase: Phase) -> None:
    """After close() by its owner there are no events, not even an End."""
    with phase() as scene:
        with stopwatch() as watch:
            scene.stream.close()
            events = list(scene.stream)

        assert events == []
        assert watch.seconds < AT_ONCE
        assert scene.left is None or scene.left.wait(SOON)
