"""How the next token is chosen, and when to stop."""

# ruff: noqa: RUF009 - what is called makes a field of its own for each

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._limits import (
    INT64,
    each,
    either,
    flag,
    logit_bias,
    mapping,
    number,
    sent,
    text,
    whole,
)


def _max_tokens(name: str, value: Any) -> None:
    if type(value) is not int or value != 0:  # 0 is good with `echo`: see TaskRequest.validate
        whole(1)(name, value)


@dataclass(kw_only=True)
class SamplingFields:
    """vLLM's sampling parameters, for prompts and chat alike. None means: not sent.

    What is not sent takes the value of the model's own generation_config, where the server was
    not told otherwise, and only then the neutral one.

    Attributes:
        max_tokens: At least 1, or 0 with `echo`. vLLM's default is 16 for prompts, the rest of
            the context for chat; a value that leaves no room beside the prompt is silently cut
            to fit (vLLM 0.32).
        max_completion_tokens: Chat only: the newer name of `max_tokens`, and stronger.
        min_tokens: Tokens before a stop string or an end-of-sequence token may end it.
        temperature: 0 to 2; 0 is greedy.
        top_p: Above 0, at most 1.
        top_k: -1 or 0 is off.
        min_p: 0 to 1, relative to the likeliest token.
        seed: A signed 64-bit integer; 0 is a seed like any other, -1 is none.
        n: Answers for each prompt; their tokens tell themselves apart by `Token.choice`.
        frequency_penalty: -2 to 2.
        presence_penalty: -2 to 2.
        repetition_penalty: Above 0; 1 is off.
        logit_bias: From token ids to what is added to their logits; the engine takes -100 to 100.
        stop: Strings that end an answer; four at most on a server with its defaults.
        stop_token_ids: Tokens that end an answer.
        ignore_eos: Go on after the end-of-sequence token.
        bad_words: Strings that are never made.
        allowed_token_ids: The only tokens that may be made.
        use_beam_search: Beam search of width `n`. vLLM does not stream it: the answer comes as
            one `Token` for each choice.
        length_penalty: Of beam search.
        repetition_detection: ``max_pattern_size``, ``min_pattern_size``, ``min_count``: ends an
            answer that repeats itself, with finish_reason ``"repetition"``.
        thinking_token_budget: At most so many tokens of reasoning; -1 is no limit.
        watermarking: Whether the answer bears the server's watermark.
    """

    max_tokens: int | None = sent(_max_tokens)
    max_completion_tokens: int | None = sent(whole(1), only="chat")
    temperature: float | None = sent(number(0, 2))
    top_p: float | None = sent(number(0, 1, above=True))
    seed: int | None = sent(whole(-INT64, INT64 - 1))
    n: int | None = sent(whole(1))
    min_tokens: int | None = sent(whole(0))
    top_k: int | None = sent(whole(-1))
    min_p: float | None = sent(number(0, 1))
    frequency_penalty: float | None = sent(number(-2, 2))
    presence_penalty: float | None = sent(number(-2, 2))
    repetition_penalty: float | None = sent(number(0, above=True))
    logit_bias: dict[str, float] | dict[int, float] | None = sent(logit_bias)
    stop: str | list[str] | None = sent(either((str, text), (list, each(text, least=0))))
    stop_token_ids: list[int] | None = sent(each(whole(0), least=0))
    ignore_eos: bool | None = sent(flag)
    bad_words: list[str] | None = sent(each(text, least=0))
    allowed_token_ids: list[int] | None = sent(each(whole(0)))
    use_beam_search: bool | None = sent(flag)
    length_penalty: float | None = sent(number(float("-inf")))
    repetition_detection: dict[str, Any] | None = sent(mapping)
    thinking_token_budget: int | None = sent(whole(-1))
    watermarking: bool | None = sent(flag)
