"""The JSON forms of vLLM's two kinds of answer. The order of the keys is vLLM 0.32's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import _tools, _words
from ._choice import Choice, Prompt, ToolCall
from ._generation import Generation, usage
from ._logprobs import chat_logprobs, completion_logprobs, prompt_logprobs, shown
from ._options import Options, read_options
from ._words import Word


class Completion(Generation):
    """The answer of /v1/completions."""

    prefix = "cmpl"
    object = "text_completion"
    chunk_object = "text_completion"
    opens_with_role = False
    default_max_tokens = 16

    def read_options(self, body: dict[str, Any]) -> Options:
        return read_options(body, chat=False)

    def read_prompts(self, body: dict[str, Any]) -> list[Prompt]:
        prompt = body.get("prompt")
        if isinstance(prompt, list) and not all(isinstance(item, int) for item in prompt):
            return [_prompt(item) for item in prompt]
        return [_prompt(prompt)]

    def tool_call(
        self, body: dict[str, Any], words: Iterator[Word], choice: int
    ) -> ToolCall | None:
        return None

    def tool_content(self, choice: Choice) -> dict[str, Any] | None:
        return None

    def delta(
        self,
        choice: Choice,
        content: dict[str, Any],
        words: list[Word],
        *,
        first: bool,
        stop_reason: str | int | None,
    ) -> dict[str, Any]:
        tells_prompt = first and (self.options.token_ids or self.options.echo)
        return {
            "index": choice.index,
            "text": self._echoed(choice, content["content"]) if first else content["content"],
            "logprobs": self._logprobs(choice, words, first=first),
            "finish_reason": choice.finish_reason,
            "stop_reason": stop_reason,
            "prompt_token_ids": choice.prompt.ids if tells_prompt else None,
            "token_ids": _ids(words) if self.options.token_ids else None,
        }

    def running_usage(self, choice: Choice) -> dict[str, Any]:
        return usage(len(choice.prompt.ids), choice.tokens)

    def whole_choice(self, choice: Choice, text: str, words: list[Word]) -> dict[str, Any]:
        return {
            "index": choice.index,
            "text": self._echoed(choice, text),
            "logprobs": self._logprobs(choice, words, first=True),
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.plan.stop_reason,
            "token_ids": _ids(words) if self.options.token_ids else None,
            "prompt_logprobs": _prompt_logprobs(choice.prompt, self.options),
            "prompt_token_ids": choice.prompt.ids if self.options.token_ids else None,
            "routed_experts": None,
        }

    def whole_tail(self) -> dict[str, Any]:
        return {}

    def _echoed(self, choice: Choice, text: str) -> str:
        # vLLM's own oddity: with return_token_ids, the logprobs alone have the prompt.
        if not self.options.echo or self.options.token_ids:
            return text
        return "".join(word.text for word in choice.prompt.words) + text

    def _logprobs(self, choice: Choice, words: list[Word], *, first: bool) -> dict[str, Any] | None:
        count, as_ids = self.options.logprobs, self.options.tokens_as_ids
        if count is None or not words:
            return None
        echo = self.options.echo and first
        words = choice.prompt.words + words if echo else words
        offset = choice.logprobs_offset
        choice.logprobs_offset += sum(len(shown(word, as_ids)) for word in words)
        return completion_logprobs(words, count, offset, as_ids=as_ids, opens=echo)


class Chat(Generation):
    """The answer of /v1/chat/completions."""

    prefix = "chatcmpl"
    object = "chat.completion"
    chunk_object = "chat.completion.chunk"
    opens_with_role = True
    # vLLM's chat goes on to the end of the context when no limit is given.
    default_max_tokens = 64

    def read_options(self, body: dict[str, Any]) -> Options:
        return read_options(body, chat=True)

    def read_prompts(self, body: dict[str, Any]) -> list[Prompt]:
        messages = body.get("messages") or []
        contents = [message.get("content") for message in messages if isinstance(message, dict)]
        return [_prompt(" ".join(map(_plain, contents)))]

    def tool_call(
        self, body: dict[str, Any], words: Iterator[Word], choice: int
    ) -> ToolCall | None:
        forced = _tools.forced_tool(body)
        if forced is None:
            return None
        function, named = forced
        call_id = f"chatcmpl-tool-{_words.hex_digits(self._id, choice)}"
        return _tools.make_tool_call(function, words, call_id, named=named)

    def tool_content(self, choice: Choice) -> dict[str, Any] | None:
        if choice.tool_call is None:
            return None
        position = choice.tokens
        tokens = choice.tool_call.tokens
        piece = tokens[position][1] if position < len(tokens) else None
        return {} if piece is None else {"content": None, "tool_calls": [piece]}

    def delta(
        self,
        choice: Choice,
        content: dict[str, Any],
        words: list[Word],
        *,
        first: bool,
        stop_reason: str | int | None,
    ) -> dict[str, Any]:
        delta: dict[str, Any] = {
            "index": choice.index,
            "delta": content,
            "logprobs": self._logprobs(words),
            "finish_reason": choice.finish_reason,
        }
        if choice.finish_reason is not None:
            delta["stop_reason"] = stop_reason
        delta["token_ids"] = _ids(words) if self.options.token_ids else None
        return delta

    def running_usage(self, choice: Choice) -> dict[str, Any]:
        counts = usage(len(choice.prompt.ids), choice.tokens)
        return {**counts, "completion_tokens_details": None}

    def whole_choice(self, choice: Choice, text: str, words: list[Word]) -> dict[str, Any]:
        call = choice.tool_call
        # What the limit cut short is no call to vLLM's parser, but text.
        calls = [call.entry] if call is not None and choice.tokens >= call.size else []
        message = {
            "role": "assistant",
            "content": "" if calls else text,
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            **({"tool_calls": calls} if calls else {}),
            "reasoning": None,
        }
        return {
            "index": choice.index,
            "message": message,
            "logprobs": self._logprobs(words),
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.plan.stop_reason,
            "token_ids": _ids(words) if self.options.token_ids else None,
            "routed_experts": None,
        }

    def whole_tail(self) -> dict[str, Any]:
        (prompt,) = self.prompts
        return {
            "prompt_logprobs": _prompt_logprobs(prompt, self.options),
            "prompt_token_ids": prompt.ids if self.options.token_ids else None,
            "prompt_text": None,
        }

    def _logprobs(self, words: list[Word]) -> dict[str, Any] | None:
        count = self.options.logprobs
        if count is None or not words:
            return None
        return chat_logprobs(words, count, as_ids=self.options.tokens_as_ids)


def _prompt(value: object) -> Prompt:
    if isinstance(value, list):
        return Prompt([item for item in value if isinstance(item, int)], None)
    text = _plain(value)
    return Prompt(_ids(_words.tokenize(text)), text)


def _plain(content: object) -> str:
    """The text of a prompt or of a message, whose content may be a list of parts."""
    if isinstance(content, list):
        return " ".join(_plain(part.get("text")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _ids(words: list[Word]) -> list[int]:
    return [word.id for word in words]


def _prompt_logprobs(prompt: Prompt, options: Options) -> list[dict[str, Any] | None] | None:
    if options.prompt_logprobs is None:
        return None
    return prompt_logprobs(prompt.words, options.prompt_logprobs)
