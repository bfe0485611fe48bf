"""What a script is: steps, and the stage that they act on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ._answer import Answer, compact
from ._generation import Generation


if TYPE_CHECKING:
    from ._connection import Connection


@dataclass
class ConnectionStage:
    """What the script of a connection acts on: a client that has not been listened to yet."""

    connection: Connection

    def wire(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.connection.send(data)


@dataclass
class Stage(ConnectionStage):
    """What the script of a request acts on: its answer, the generation behind it, and the pace.

    Delays are in seconds.
    """

    answer: Answer
    generation: Generation
    first_token_delay: float
    token_delay: float
    started: bool = False

    def wire(self, data: bytes) -> None:
        """Send bytes as they are, in the place of an answer or within one."""
        self.answer.wire(data)

    def pace(self) -> None:
        """Wait until the next token is due."""
        delay = self.token_delay if self.started else self.first_token_delay
        self.started = True
        if delay > 0:
            self.answer.pause(delay)

    def event(self, value: Any) -> None:
        """Send an SSE event with this JSON."""
        self.answer.event(compact(value))


class Step(Protocol):
    """Anything that a request's script may hold; one's own steps are welcome."""

    def play(self, stage: Stage) -> None:
        """Do it."""


class ConnectionStep(Protocol):
    """A step that needs no request; a request's script may hold it as well."""

    def play(self, stage: ConnectionStage) -> None:
        """Do it."""


def play(steps: Iterable[Step], stage: Stage) -> None:
    """Play a request's script, and end the body where it did not."""
    for step in steps:
        step.play(stage)
    stage.answer.end()


def play_opening(steps: Iterable[ConnectionStep], connection: Connection) -> None:
    """Play a connection's script; its first request is read after that."""
    for step in steps:
        step.play(ConnectionStage(connection))
