"""What the answer is to look like, and what is told beside its text."""

# ruff: noqa: RUF009 - what is called makes a field of its own for each

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._limits import each, either, flag, kept, mapping_with, sent, whole
from ._structured import StructuredOutputs, check_structured


@dataclass(kw_only=True)
class OutputFields:
    """vLLM's parameters of the answer's form. None means: not sent.

    Attributes:
        structured_outputs: What the answer must match; see `StructuredOutputs`.
        response_format: OpenAI's form of the same: ``{"type": "json_object"}``,
            ``{"type": "json_schema", "json_schema": {...}}``, or a structural tag. A dataclass,
            a TypedDict or a pydantic model stands for its JSON schema.
        logprobs: For prompts a number: so many likeliest tokens at each place, -1 for all, beside
            the one that was taken. For chat True: see `top_logprobs`. They come in
            `Token.logprobs`.
        top_logprobs: Chat only, with `logprobs`: how many likeliest tokens.
        prompt_logprobs: The same for the prompt's tokens, in `Choice.prompt_logprobs`. vLLM does
            not stream it: the answer comes as one `Token` for each choice.
        logprob_token_ids: Tokens whose logprobs are wanted wherever they rank; with `logprobs`.
        return_token_ids: Have `Token.token_ids` and `Choice.prompt_token_ids`.
        return_tokens_as_token_ids: Name tokens in logprobs ``"token_id:123"``, since several ids
            may have the same text.
        return_prompt_text: Chat only: have the rendered prompt in `AnswerInfo.prompt_text`.
        echo: Have the prompt (chat: the last message) before the answer.
        skip_special_tokens: False leaves them in the text.
        spaces_between_special_tokens: Beside the former.
        include_stop_str_in_output: Leave the stop string in the text.
        include_reasoning: Chat only: False hides the reasoning.
        stream_interval: At least so many tokens in each event, but for the first; it can only
            raise what the server was started with.
        include_usage: Ask for the engine's counts at the end of a stream (vLLM's
            ``stream_options``). False sends no ``stream_options`` at all, for engines and
            gateways that refuse them; the counts are then the client's own, unless they come
            unasked, and `Metrics.usage_source` says which.
    """

    structured_outputs: StructuredOutputs | dict[str, Any] | None = sent(check_structured)
    response_format: dict[str, Any] | type | None = sent(mapping_with("type"))
    logprobs: int | bool | None = sent(either((bool, flag), (int, whole(-1))))
    top_logprobs: int | None = sent(whole(-1), only="chat")
    prompt_logprobs: int | None = sent(whole(-1))
    logprob_token_ids: list[int] | None = sent(each(whole(0)))
    return_token_ids: bool | None = sent(flag)
    return_tokens_as_token_ids: bool | None = sent(flag)
    return_prompt_text: bool | None = sent(flag, only="chat")
    echo: bool | None = sent(flag)
    skip_special_tokens: bool | None = sent(flag)
    spaces_between_special_tokens: bool | None = sent(flag)
    include_stop_str_in_output: bool | None = sent(flag)
    include_reasoning: bool | None = sent(flag, only="chat")
    stream_interval: int | None = sent(whole(1))
    include_usage: bool = kept(flag, default=True)
