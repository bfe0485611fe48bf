"""What vLLM makes of one completions or chat request: its choices, their words, its counts."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from . import _words
from ._refusals import check_length, integer, number
from ._words import Word


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


class Prompt(NamedTuple):
    """One prompt of a request."""

    ids: list[int]
    is_text: bool


class Choice:
    """One of the texts that answer a request."""

    def __init__(self, index: int, prompt: Prompt, words: Iterator[Word], limit: int) -> None:
        self.index = index
        self.prompt = prompt
        self.words = words
        self.limit = limit
        self.events = 0
        self.tokens = 0
        self.finish_reason: str | None = None


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
        options = body.get("stream_options")
        options = options if isinstance(options, dict) else {}
        self.stream = body.get("stream") in (True, "true")
        self.include_usage = bool(options.get("include_usage"))
        self.return_token_ids = bool(body.get("return_token_ids"))
        self._continuous_usage = self.include_usage and bool(options.get("continuous_usage_stats"))
        self._model = model
        self._id = f"{self.prefix}-{request_id}"
        self._created = int(time.time())
        self.prompts = self.read_prompts(body)
        self.choices = self._make_choices(body)

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
            check_length(len(prompt.ids), self._model.max_model_len, counted=not prompt.is_text)

    def next_token(self, choice: Choice, finish_reason: str | None = None) -> dict[str, Any]:
        """The event with the next word of a choice."""
        word = next(choice.words)
        return self.event(choice, word.text, [word.id], finish_reason)

    def event(
        self,
        choice: Choice,
        text: str,
        ids: list[int],
        finish_reason: str | None = None,
        stop_reason: str | int | None = None,
    ) -> dict[str, Any]:
        """The event that brings these tokens of a choice, and perhaps its end."""
        first = choice.events == 0
        choice.events += 1
        choice.tokens += len(ids)
        choice.finish_reason = finish_reason
        delta = self.delta(choice, text, ids, first=first, stop_reason=stop_reason)
        event = self._envelope(self.chunk_object, [delta])
        if self._continuous_usage:
            event["usage"] = self.running_usage(choice)
        if finish_reason is not None and not self.include_usage:
            event["system_fingerprint"] = self._model.fingerprint
        return event

    def role_event(self, choice: Choice) -> dict[str, Any]:
        """The event that opens a choice of a chat."""
        delta = {"role": "assistant", "content": ""}
        opening = {"index": choice.index, "delta": delta, "logprobs": None, "finish_reason": None}
        event = self._envelope(self.chunk_object, [opening])
        if self._continuous_usage:
            event["usage"] = self.running_usage(choice)
        ids = choice.prompt.ids if self.return_token_ids else None
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
    def read_prompts(self, body: dict[str, Any]) -> list[Prompt]:
        """The prompts in a request's body, which may be nonsense."""

    @abstractmethod
    def delta(
        self,
        choice: Choice,
        text: str,
        ids: list[int],
        *,
        first: bool,
        stop_reason: str | int | None,
    ) -> dict[str, Any]:
        """One entry of ``choices`` in a stream's event."""

    @abstractmethod
    def running_usage(self, choice: Choice) -> dict[str, Any]:
        """The usage of one choice in the middle of a stream."""

    @abstractmethod
    def whole_choice(self, choice: Choice, text: str, ids: list[int] | None) -> dict[str, Any]:
        """One entry of ``choices`` in a whole answer."""

    @abstractmethod
    def whole_tail(self) -> dict[str, Any]:
        """What a whole answer of this kind tells besides."""

    def _make_choices(self, body: dict[str, Any]) -> list[Choice]:
        n = integer(body, "n", 1)
        asked = integer(body, "max_tokens", self.default_max_tokens)
        asked = integer(body, "max_completion_tokens", asked)
        temperature = number(body, "temperature", 1.0)
        luck = None if temperature == 0 else (body.get("seed"), temperature)
        choices: list[Choice] = []
        for prompt in self.prompts:
            limit = min(asked, self._model.max_model_len - len(prompt.ids))
            for i in range(n):
                words = _words.generate(self._model.seed, prompt.ids, luck, i)
                choices.append(Choice(len(choices), prompt, words, limit))
        return choices

    def _finished(self, choice: Choice) -> dict[str, Any]:
        words = list(islice(choice.words, choice.limit))
        choice.tokens += len(words)
        choice.finish_reason = "length"
        ids = [word.id for word in words] if self.return_token_ids else None
        return self.whole_choice(choice, "".join(word.text for word in words), ids)

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
