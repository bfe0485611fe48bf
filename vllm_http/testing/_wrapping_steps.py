"""Steps around another step: it writes as ever, and these decide how that reaches the client."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._stage import Stage, Step


if TYPE_CHECKING:
    from ._connection import Send


@dataclass(frozen=True)
class Drip:
    """All that a step sends, headers and framing too, in pieces of `size` bytes.

    `interval` seconds pass after each piece. Without them a client may find several in one read.
    """

    step: Step
    interval: float = 0.0
    size: int = 1

    def play(self, stage: Stage) -> None:
        def drip(send: Send, data: bytes) -> None:
            for begin in range(0, len(data), self.size):
                send(data[begin : begin + self.size])
                stage.connection.pause(self.interval)

        with stage.connection.sending_by(drip):
            self.step.play(stage)


@dataclass(frozen=True)
class Truncate:
    """The first `size` bytes of what a step sends, status line and headers included.

    The rest of the step is left out; a `Cut` or a `Stall` is what should follow.
    """

    step: Step
    size: int

    def play(self, stage: Stage) -> None:
        left = self.size

        def send_while_it_lasts(send: Send, data: bytes) -> None:
            nonlocal left
            send(data[:left])
            left -= len(data)
            if left <= 0:
                raise _Enough

        with contextlib.suppress(_Enough), stage.connection.sending_by(send_while_it_lasts):
            self.step.play(stage)


@dataclass(frozen=True)
class Forever:
    """A step again and again, `interval` seconds after each, until the client leaves."""

    step: Step
    interval: float = 0.05

    def play(self, stage: Stage) -> None:
        while True:
            self.step.play(stage)
            stage.connection.pause(self.interval)


class _Enough(Exception):
    """All bytes that were wanted have been sent."""
