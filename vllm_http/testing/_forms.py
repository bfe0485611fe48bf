"""The JSON forms of vLLM's two kinds of answer. The order of the keys is vLLM 0.32's."""

from __future__ import annotations

from typing import Any

from ._generation import Choice, Generation, Prompt, usage
from ._words import tokenize


class Completion(Generation):
    """The answer of /v1/completions."""

    prefix = "cmpl"
    object = "text_completion"
    chunk_object = "text_completion"
    opens_with_role = False
    default_max_tokens = 16

    def read_prompts(self, body: dict[str, Any]) -> list[Prompt]:
        prompt = body.get("prompt")
        if isinstance(prompt, list) and not all(isinstance(item, int) for item in prompt):
            return [_prompt(item) for item in prompt]
        return [_prompt(prompt)]

    def delta(
        self,
        choice: Choice,
        text: str,
        ids: list[int],
        *,
        first: bool,
        stop_reason: str | int | None,
    ) -> dict[str, Any]:
        return {
            "index": choice.index,
            "text": text,
            "logprobs": None,
            "finish_reason": choice.finish_reason,
            "stop_reason": stop_reason,
            "prompt_token_ids": choice.prompt.ids if first and self.return_token_ids else None,
            "token_ids": ids if self.return_token_ids else None,
        }

    def running_usage(self, choice: Choice) -> dict[str, Any]:
        return usage(len(choice.prompt.ids), choice.tokens)

    def whole_choice(self, choice: Choice, text: str, ids: list[int] | None) -> dict[str, Any]:
        return {
            "index": choice.index,
            "text": text,
            "logprobs": None,
            "finish_reason": choice.finish_reason,
            "stop_reason": None,
            "token_ids": ids,
            "prompt_logprobs": None,
            "prompt_token_ids": choice.prompt.ids if self.return_token_ids else None,
            "routed_experts": None,
        }

    def whole_tail(self) -> dict[str, Any]:
        return {}


class Chat(Generation):
    """The answer of /v1/chat/completions."""

    prefix = "chatcmpl"
    object = "chat.completion"
    chunk_object = "chat.completion.chunk"
    opens_with_role = True
    # vLLM's chat goes on to the end of the context when no limit is given.
    default_max_tokens = 64

    def read_prompts(self, body: dict[str, Any]) -> list[Prompt]:
        messages = body.get("messages") or []
        contents = [message.get("content") for message in messages if isinstance(message, dict)]
        return [_prompt(" ".join(map(_plain, contents)))]

    def delta(
        self,
        choice: Choice,
        text: str,
        ids: list[int],
        *,
        first: bool,
        stop_reason: str | int | None,
    ) -> dict[str, Any]:
        delta: dict[str, Any] = {
            "index": choice.index,
            "delta": {"content": text},
            "logprobs": None,
            "finish_reason": choice.finish_reason,
        }
        if choice.finish_reason is not None:
            delta["stop_reason"] = stop_reason
        delta["token_ids"] = ids if self.return_token_ids else None
        return delta

    def running_usage(self, choice: Choice) -> dict[str, Any]:
        counts = usage(len(choice.prompt.ids), choice.tokens)
        return {**counts, "completion_tokens_details": None}

    def whole_choice(self, choice: Choice, text: str, ids: list[int] | None) -> dict[str, Any]:
        message = {
            "role": "assistant",
            "content": text,
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            "reasoning": None,
        }
        return {
            "index": choice.index,
            "message": message,
            "logprobs": None,
            "finish_reason": choice.finish_reason,
            "stop_reason": None,
            "token_ids": ids,
            "routed_experts": None,
        }

    def whole_tail(self) -> dict[str, Any]:
        ids = self.prompts[0].ids if self.return_token_ids else None
        return {"prompt_logprobs": None, "prompt_token_ids": ids, "prompt_text": None}


def _prompt(value: object) -> Prompt:
    if isinstance(value, list):
        return Prompt([item for item in value if isinstance(item, int)], is_text=False)
    return Prompt([word.id for word in tokenize(_plain(value))], is_text=True)


def _plain(content: object) -> str:
    """The text of a prompt or of a message, whose content may be a list of parts."""
    if isinstance(content, list):
        return " ".join(_plain(part.get("text")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
