"""The steps of an answer: each says one thing to the request that is being answered."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from . import _words
from ._answer import HeaderFields, compact
from ._choice import Choice
from ._refusals import error
from ._stage import Stage
from ._words import Word


@dataclass(frozen=True)
class Normal:
    """The engine's own answer, stream or not, as if there were no script."""

    def play(self, stage: Stage) -> None:
        if stage.generation.stream:
            self._stream(stage)
        else:
            longest = max(choice.plan.limit for choice in stage.generation.choices)
            stage.answer.pause(stage.first_token_delay + stage.token_delay * (longest - 1))
            stage.answer.whole(200, stage.generation.whole())

    def _stream(self, stage: Stage) -> None:
        generation = stage.generation
        stage.answer.begin()
        for number in range(max(choice.plan.limit for choice in generation.choices)):
            stage.pace()
            if number == 0 and generation.opens_with_role:
                for choice in generation.choices:
                    stage.event(generation.role_event(choice))
            for choice in generation.choices:
                if number < choice.plan.limit:
                    _send_token(stage, choice, last=number + 1 == choice.plan.limit)
        if generation.include_usage:
            stage.event(generation.usage_event())
        stage.answer.event("[DONE]")
        stage.answer.end()


@dataclass(frozen=True)
class Status:
    """A whole answer that is no stream: JSON, or bytes (HTML unless the headers say otherwise)."""

    code: int
    body: Any = None
    headers: HeaderFields = ()

    def play(self, stage: Stage) -> None:
        stage.answer.whole(self.code, self.body, self.headers)


@dataclass(frozen=True)
class Headers:
    """The stream's headers now rather than with its first byte.

    `headers` replace vLLM's of the same name and are added otherwise. Without `chunked` the body
    ends with the connection.
    """

    status: int = 200
    headers: HeaderFields | None = None
    chunked: bool = True

    def play(self, stage: Stage) -> None:
        stage.answer.begin(self.status, self.headers or (), self.chunked)


@dataclass(frozen=True)
class Tokens:
    """The next `n` normal token events of a choice, at the engine's pace."""

    n: int
    choice: int = 0

    def play(self, stage: Stage) -> None:
        for _ in range(self.n):
            stage.pace()
            _send_token(stage, stage.generation.choices[self.choice])


@dataclass(frozen=True)
class Text:
    """One token event with exactly this text, in the form that the request's path asks for."""

    text: str
    choice: int = 0

    def play(self, stage: Stage) -> None:
        choice = stage.generation.choices[self.choice]
        stage.event(stage.generation.event(choice, self.text, _as_words(self.text)))


@dataclass(frozen=True)
class Event:
    """One SSE event with this JSON, or with this text as it is."""

    data: dict[str, Any] | str

    def play(self, stage: Stage) -> None:
        stage.answer.event(self.data if isinstance(self.data, str) else compact(self.data))


@dataclass(frozen=True)
class Role:
    """The event that opens a choice of a chat."""

    choice: int = 0

    def play(self, stage: Stage) -> None:
        stage.event(stage.generation.role_event(stage.generation.choices[self.choice]))


@dataclass(frozen=True)
class Comment:
    """An SSE comment, such as vLLM sends while a request waits."""

    text: str = "keep-alive"

    def play(self, stage: Stage) -> None:
        stage.answer.chunk(f": {self.text}\n\n".encode())


@dataclass(frozen=True)
class Raw:
    """Bytes of the body, as one HTTP chunk."""

    data: bytes

    def play(self, stage: Stage) -> None:
        stage.answer.chunk(self.data)


@dataclass(frozen=True)
class Finish:
    """The event with a choice's finish_reason; it counts as a token only if it has text."""

    reason: str = "stop"
    text: str = ""
    stop_reason: str | int | None = None
    choice: int = 0

    def play(self, stage: Stage) -> None:
        choice = stage.generation.choices[self.choice]
        words = _as_words(self.text) if self.text else []
        end = (self.reason, self.stop_reason)
        stage.event(stage.generation.event(choice, self.text, words, *end))


@dataclass(frozen=True)
class Usage:
    """The event with the counts of what this script has sent so far; asked for or not."""

    def play(self, stage: Stage) -> None:
        stage.event(stage.generation.usage_event())


@dataclass(frozen=True)
class Done:
    """``data: [DONE]``."""

    def play(self, stage: Stage) -> None:
        stage.answer.event("[DONE]")


@dataclass(frozen=True)
class EndBody:
    """The end of the body: the zero chunk, or the connection's end where there are no chunks."""

    def play(self, stage: Stage) -> None:
        stage.answer.end()


@dataclass(frozen=True)
class ErrorEvent:
    """An error inside the stream; vLLM sends ``[DONE]`` after it."""

    message: str
    code: int = 500
    type: str = "InternalServerError"
    param: str | None = None

    def play(self, stage: Stage) -> None:
        # The one event that vLLM writes with blanks and escapes.
        stage.answer.event(json.dumps(error(self.message, self.code, self.type, self.param)))


def _send_token(stage: Stage, choice: Choice, *, last: bool = False) -> None:
    event = stage.generation.next_token(choice, last=last)
    if event is not None:
        stage.event(event)


def _as_words(text: str) -> list[Word]:
    return [Word(text, _words.token_id(text))]
