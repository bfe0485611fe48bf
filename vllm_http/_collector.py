"""From events to one `Completion`."""

from __future__ import annotations

from dataclasses import replace

from ._answer import Choice, Logprob
from ._events import Completion, End, Error, Token, TokenEvent
from ._tool_calls import ToolCalls


class _Parts:
    """What one choice has said so far."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.reasoning: list[str] = []
        self.token_ids: list[int] | None = None
        self.ids_missing = False  # of some text: what is left would pass for all of them
        self.logprobs: list[Logprob] | None = None
        self.refusal: list[str] = []
        self.tool_calls = ToolCalls()

    def add(self, token: Token) -> None:
        self.texts.append(token.text)
        if token.reasoning:
            self.reasoning.append(token.reasoning)
        if token.token_ids is None:
            self.ids_missing = self.ids_missing or bool(token.text)
        else:
            self.token_ids = self.token_ids or []
            self.token_ids += token.token_ids
        if token.logprobs is not None:
            self.logprobs = self.logprobs or []
            self.logprobs += token.logprobs
        for piece in token.tool_calls or ():
            self.tool_calls.add(piece)
        if token.refusal:
            self.refusal.append(token.refusal)

    def choice(self, end: Choice) -> Choice:
        """The choice, given how it ended."""
        return replace(
            end,
            text="".join(self.texts),
            reasoning="".join(self.reasoning),
            token_ids=None if self.ids_missing else self.token_ids,
            logprobs=self.logprobs,
            refusal="".join(self.refusal),
            # An end has them from the decoder; a failure elsewhere (a relay's) knows of none.
            tool_calls=end.tool_calls or self.tool_calls.so_far(end.finish_reason),
        )


class Collector:
    """Takes the events of one stream and tells what they amount to.

    Args:
        job_id: The stream's job.
    """

    def __init__(self, job_id: str | None) -> None:
        self._job_id = job_id
        self._parts: dict[int, _Parts] = {0: _Parts()}
        self._last: End | Error | None = None

    def take(self, event: TokenEvent) -> None:
        """Add one event."""
        if isinstance(event, Token):
            parts = self._parts.get(event.choice)
            if parts is None:
                parts = self._parts[event.choice] = _Parts()
            parts.add(event)
        elif isinstance(event, (End, Error)):
            self._last = event

    def completion(self) -> Completion:
        """All that was taken so far; after an error, the error's ``partial`` as well."""
        last = self._last
        ends = {choice.index: choice for choice in last.choices} if last is not None else {}
        choices = [
            self._parts.get(index, _Parts()).choice(ends.get(index, Choice(index)))
            for index in sorted({*self._parts, *ends})
        ]
        completion = Completion(
            job_id=self._job_id,
            text=choices[0].text,
            finish_reason=last.finish_reason if isinstance(last, End) else choices[0].finish_reason,
            stop_reason=last.stop_reason if isinstance(last, End) else choices[0].stop_reason,
            token_ids=choices[0].token_ids,
            metrics=last.metrics if last is not None else None,
            choices=choices,
            info=last.info if last is not None else None,
        )
        if isinstance(self._last, Error):
            self._last.error.partial = completion
            completion = replace(completion, error=self._last.error)
        return completion
