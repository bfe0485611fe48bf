"""Text to token ids and back, by the engine's own tokenizer and chat template."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ._call import Question
from ._errors import InvalidRequest
from ._limits import each, flag, mapping, text, token_ids
from ._values import Value


@dataclass(frozen=True)
class Tokenized(Value):
    """What `VllmHttpAdapter.tokenize` returns.

    Attributes:
        tokens: The token ids.
        count: How many they are.
        max_model_len: The model's context length in tokens; None if the engine does not tell.
        token_strs: The tokens as the tokenizer's vocabulary writes them, where that was asked for.
    """

    tokens: list[int]
    count: int
    max_model_len: int | None = None
    token_strs: list[str] | None = field(default=None, repr=False)  # the prompt in pieces


_CHECKS = {
    "messages": each(mapping),
    "model": text,
    "tools": each(mapping),
    "add_special_tokens": flag,
    "add_generation_prompt": flag,
    "continue_final_message": flag,
    "return_token_strs": flag,
}
_CHAT_ONLY = ("tools", "add_generation_prompt", "continue_final_message")


def tokenization(**fields: Any) -> Question[Tokenized]:
    """Ask for the tokens of a prompt or a chat.

    Args:
        fields: ``prompt``, and those of `_CHECKS`; None means: not sent.

    Raises:
        InvalidRequest: A field is out of its limits; what is part of a prompt is not shown.
    """
    prompt, messages = fields["prompt"], fields["messages"]
    if (prompt is None) == (messages is None):
        raise InvalidRequest("prompt, messages: exactly one of the two is wanted")
    if prompt is not None and not isinstance(prompt, str):
        raise InvalidRequest(f"prompt: text is wanted, not {type(prompt).__name__}")
    for name, check in _CHECKS.items():
        if fields[name] is None:
            continue
        if name in _CHAT_ONLY and messages is None:
            raise InvalidRequest(f"{name}: vLLM takes it with messages only")
        check(name, fields[name])
    return Question("/tokenize", fields, _tokenized)


def detokenization(tokens: object, model: str | None) -> Question[str]:
    """Ask for the text of tokens.

    Raises:
        InvalidRequest: An argument is out of its limits.
    """
    if not isinstance(tokens, list):
        raise InvalidRequest(f"tokens: a list of token ids is wanted, not {type(tokens).__name__}")
    token_ids("tokens", tokens)
    if model is not None:
        text("model", model)
    return Question("/detokenize", {"model": model, "tokens": tokens}, _prompt)


def _tokenized(answer: Any) -> Tokenized:
    tokens, strings = answer["tokens"], answer.get("token_strs")
    longest = answer.get("max_model_len")
    if not _all(tokens, int) or not (strings is None or _all(strings, str)):
        raise TypeError
    return Tokenized(tokens, len(tokens), longest if type(longest) is int else None, strings)


def _prompt(answer: Any) -> str:
    prompt = answer["prompt"]
    if not isinstance(prompt, str):
        raise TypeError
    return prompt


def _all(values: Any, kind: type) -> bool:
    return isinstance(values, list) and all(type(value) is kind for value in values)
