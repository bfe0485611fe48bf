"""What an engine tells of its answer beside the text, as typed values.

They are made for each token of requests that ask for them, so they are plain dataclasses, which
msgspec reads straight from JSON. Treat them as values all the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from ._values import Value, well_formed


@dataclass
class TopLogprob:
    """One of the likeliest tokens at a place; None where the engine had no number."""

    token: str
    logprob: float | None = None
    bytes: list[int] | None = None


@dataclass
class Logprob:
    """A token that was made, how likely it was, and what else was likely.

    Attributes:
        token: Its text, or ``"token_id:123"`` (``return_tokens_as_token_ids``).
        logprob: Natural logarithm; vLLM says -9999.0 for minus infinity. None for the first
            token of an echoed prompt, and where the engine had no number (NaN).
        bytes: Of the token, where it is part of a character; chat only.
        top_logprobs: The likeliest, and the one that was taken if it is not among them.
        text_offset: Where its text begins in the answer; prompts only.
    """

    token: str
    logprob: float | None = None
    bytes: list[int] | None = None
    top_logprobs: list[TopLogprob] = field(default_factory=list)
    text_offset: int | None = None


@dataclass
class PromptLogprob:
    """How likely a token was at a place of the prompt; None where the engine had no number."""

    token_id: int
    logprob: float | None = None
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class ToolCallDelta:
    """A piece of a tool call.

    Attributes:
        index: Which of the choice's calls: its place in `Choice.tool_calls`, whatever number the
            engine gave it.
        id: With its first piece.
        name: The function's; with its first piece, or more of it where a server sends it in parts.
        arguments: More of their JSON text.
    """

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


def says_nothing(arguments: str) -> bool:
    """Whether a call's arguments are none; vLLM writes a model's null as "null"."""
    return arguments.strip() in ("", "null")


@dataclass
class ToolCall:
    """A tool call, as far as it came.

    Attributes:
        id: To be repeated in the message that answers it.
        name: The function's.
        arguments: JSON text, as the model wrote it.
    """

    id: str = ""
    name: str = ""
    arguments: str = ""
    complete: bool = False
    """Whether it has a name, and `arguments` are a whole JSON object or none were needed. What was
    cut by max_tokens is not complete."""

    def parsed(self) -> dict[str, Any]:
        """The arguments; {} for a complete call without any.

        Raises:
            ValueError: The call is not `complete`.
        """
        if self.complete and says_nothing(self.arguments):
            return {}
        try:
            value = json.loads(self.arguments)
            if "\\ud" in self.arguments.lower():  # an escape, perhaps of half a surrogate pair
                value = well_formed(value)
        except RecursionError:
            raise ValueError(f"the arguments of {self.name} are nested too deeply") from None
        if not isinstance(value, dict):
            raise ValueError(f"the arguments of {self.name} are no JSON object")
        return value


@dataclass(frozen=True)
class Choice(Value):
    """How one choice ended; in a `Completion`, also what it said.

    Attributes:
        index: Its number; the k-th answer to prompt i has ``i * n + k``.
        finish_reason: ``"stop"``, ``"length"``, ``"tool_calls"``, ... as vLLM says it; None if
            it did not finish.
        stop_reason: The stop string or stop token id that ended it, if one did.
        text: Its content.
        token_ids: The tokens behind it, when asked for (``return_token_ids``).
        reasoning: What a reasoning model thought before, where the server tells it apart.
        tool_calls: Whole, in order.
        logprobs: Of each token, when asked for.
        prompt_token_ids: The prompt's tokens, when asked for (``return_token_ids``).
        prompt_logprobs: For each token of the prompt, when asked for; None for the first, before
            which nothing stands.
        refusal: Why the model would not answer, where the server tells it apart.
    """

    index: int
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    text: str = ""
    token_ids: list[int] | None = None
    reasoning: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    logprobs: list[Logprob] | None = None
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: list[list[PromptLogprob] | None] | None = None
    refusal: str = ""


@dataclass(frozen=True)
class AnswerInfo(Value):
    """What an answer says of itself.

    Attributes:
        model: The name of the model that answered.
        system_fingerprint: The engine's build and settings (vLLM 0.32: with the version).
        prompt_text: The rendered prompt (``return_prompt_text``).
        kv_transfer_params: Of disaggregated serving; vLLM does not tell them in streams.
        ec_transfer_params: The same of encoder caches.
    """

    model: str | None = None
    system_fingerprint: str | None = None
    prompt_text: str | None = field(default=None, repr=False)
    kv_transfer_params: dict[str, Any] | None = None
    ec_transfer_params: dict[str, Any] | None = None
