"""What vLLM makes of one completions or chat request: its choices, their words, its counts."""

from __future__ import annotations

import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

from . import _words
from ._choice import Choice, Plan, Prompt, ToolCall, make_plan, tool_plan
from ._options import Options
from ._refusals import check_length, integer, number
from ._words import Word


_MOST_CHOICES = 2**14
"""vLLM's own limit."""


class Model(NamedTuple):
    """What all answers of one engine have in common."""

    name: str
    version: str
    max_model_len: int
    seed: int

    @property
    def fingerprint(self) -> str:
        """vLLM's name for its version and settings."""
        return f"vllm-{self.version}-{_words.hex_digits(self.name)[:8]}"


class Generation(ABC):
    """One request's answer in the making; the subclasses give it its two JSON forms.

    Raises:
        Refusal: a field has the wrong type.
    """

    prefix: str
    object: str
    chunk_object: str
    opens_with_role: bool
    default_max_tokens: int

    def __init__(self, body: dict[str, Any], model: Model, request_id: str) -> None:
        self.options = self.read_options(body)
        self._model = model
        self._id = f"{self.prefix}-{request_id}"
        self._created = int(time.time())
        self.prompts = self.read_prompts(body)
        self.choices = self._make_choices(body)

    @property
    def stream(self) -> bool:
        """Whether the answer comes in pieces."""
        return self.options.stream

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the counts."""
        return self.options.include_usage

    @property
    def prompt_tokens(self) -> int:
        """The tokens of all prompts, each counted once whatever *n* is."""
        return sum(len(prompt.ids) for prompt in self.prompts)

    @property
    def completion_tokens(self) -> int:
        """The tokens sent so far, over all choices."""
        return sum(choice.tokens for choice in self.choices)

    def check_length(self) -> None:
        """Refuse prompts that leave no room.

        Raises:
            Refusal: one of them is too long.
        """
        for prompt in self.prompts:
            check_length(len(prompt.ids), self._model.max_model_len, counted=prompt.text is None)

    def next_token(self, choice: Choice, *, last: bool = False) -> dict[str, Any] | None:
        """The event with the next word of a choice, and with its planned end if that is the last.

        None where vLLM sends no event: for a token of a tool call that leads to nothing.
        """
        word = next(choice.words)
        text = choice.said_with(word, last=last)
        content = self.tool_content(choice)
        if content == {} and not last and not self.options.tells_tokens:
            choice.tokens += 1
            return None
        plan = choice.plan
        end = (plan.finish_reason, plan.stop_reason) if last else (None, None)
        return self.event(choice, text, [word], *end, content=content)

    def event(
        self,
        choice: Choice,
        text: str,
        words: list[Word],
        finish_reason: str | None = None,
        stop_reason: str | int | None = None,
        *,
        content: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The event that brings these tokens of a choice, and perhaps its end.

        `content` stands in a chat's delta in the place of the text.
        """
        first = choice.events == 0
        choice.events += 1
        choice.tokens += len(words)
        choice.finish_reason = finish_reason
        delta = self.delta(
            choice,
            {"content": text} if content is None else content,
            words,
            first=first,
            stop_reason=stop_reason,
        )
        event = self._envelope(self.chunk_object, [delta])
        if self.options.continuous_usage:
            event["usage"] = self.running_usage(choice)
        if finish_reason is not None and not self.include_usage:
            event["system_fingerprint"] = self._model.fingerprint
        return event

    def role_event(self, choice: Choice) -> dict[str, Any]:
        """The event that opens a choice of a chat."""
        delta = {"role": "assistant", "content": ""}
        opening = {"index": choice.index, "delta": delta, "logprobs": None, "finish_reason": None}
        event = self._envelope(self.chunk_object, [opening])
        if self.options.continuous_usage:
            event["usage"] = self.running_usage(choice)
        ids = choice.prompt.ids if self.options.token_ids else None
        return {**event, "prompt_token_ids": ids, "prompt_text": None}

    def usage_event(self) -> dict[str, Any]:
        """The event that tells the counts, after all choices."""
        return {
            **self._envelope(self.chunk_object, []),
            "usage": usage(self.prompt_tokens, self.completion_tokens),
            "system_fingerprint": self._model.fingerprint,
        }

    def whole(self) -> dict[str, Any]:
        """The answer to a request without ``stream``."""
        choices = [self._finished(choice) for choice in self.choices]
        counts = usage(self.prompt_tokens, self.completion_tokens)
        return {
            **self._envelope(self.object, choices),
            "service_tier": None,
            "system_fingerprint": self._model.fingerprint,
            "usage": {**counts, "prompt_tokens_details": None, "completion_tokens_details": None},
            **self.whole_tail(),
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }

    @abstractmethod
    def read_options(self, body: dict[str, Any]) -> Options:
        """The wishes in a request's body, which may be nonsense."""

    @abstractmethod
    def read_prompts(self, body: dict[str, Any]) -> list[Prompt]:
        """The prompts in a request's body, which may be nonsense."""

    @abstractmethod
    def tool_call(
        self, body: dict[str, Any], words: Iterator[Word], choice: int
    ) -> ToolCall | None:
        """What a choice has to be in the place of text, if the request says so."""

    @abstractmethod
    def tool_content(self, choice: Choice) -> dict[str, Any] | None:
        """What a tool call's next token adds to it, often nothing; None where it is none."""

    @abstractmethod
    def delta(
        self,
        choice: Choice,
        content: dict[str, Any],
        words: list[Word],
        *,
        first: bool,
        stop_reason: str | int | None,
    ) -> dict[str, Any]:
        """One entry of ``choices`` in a stream's event."""

    @abstractmethod
    def running_usage(self, choice: Choice) -> dict[str, Any]:
        """The usage of one choice in the middle of a stream."""

    @abstractmethod
    def whole_choice(self, choice: Choice, text: str, words: list[Word]) -> dict[str, Any]:
        """One entry of ``choices`` in a whole answer."""

    @abstractmethod
    def whole_tail(self) -> dict[str, Any]:
        """What a whole answer of this kind tells besides."""

    def _make_choices(self, body: dict[str, Any]) -> list[Choice]:
        n = min(integer(body, "n", 1), _MOST_CHOICES)  # more is refused, unless a script plays
        asked = integer(body, "max_tokens", self.default_max_tokens)
        asked = integer(body, "max_completion_tokens", asked)
        temperature = number(body, "temperature", 1.0)
        luck = None if temperature == 0 else (body.get("seed"), temperature)
        choices: list[Choice] = []
        for prompt in self.prompts:
            limit = max(0, min(asked, self._model.max_model_len - len(prompt.ids)))
            for i in range(n):
                material = (self._model.seed, prompt.ids, luck, i)
                choices.append(self._make_choice(len(choices), prompt, material, limit, body))
        return choices

    def _make_choice(
        self,
        index: int,
        prompt: Prompt,
        material: tuple[Any, ...],
        limit: int,
        body: dict[str, Any],
    ) -> Choice:
        words = _words.generate(*material)
        call = self.tool_call(body, words, index)
        if call is not None:
            spoken = itertools.chain((word for word, _ in call.tokens), words)
            return Choice(index, prompt, spoken, tool_plan(call, limit), call)
        plan: Plan = make_plan(_words.generate(*material), limit, self.options.stop)
        return Choice(index, prompt, words, plan)

    def _finished(self, choice: Choice) -> dict[str, Any]:
        words, text = choice.rest()
        choice.tokens += len(words)
        choice.finish_reason = choice.plan.finish_reason
        return self.whole_choice(choice, text, words)

    def _envelope(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._model.name,
            "choices": choices,
        }


def usage(prompt: int, completion: int) -> dict[str, Any]:
    """vLLM's counts, in vLLM's order."""
    total = prompt + completion
    return {"prompt_tokens": prompt, "total_tokens": total, "completion_tokens": completion}
