"""The checks of how to sample, in vLLM's words; see `_refusals`."""

from __future__ import annotations

import math
import re
from typing import Any

from . import _tools
from ._refusals import Refusal, bad_value, integer, invalid, malformed, number, shown


_MAX_N = 16384
_MAX_STOPS = 4
_MAX_LOGPROBS = 20
_VOCABULARY = 49152


def check_sampling(body: dict[str, Any], *, chat: bool) -> None:
    """Refuse what vLLM refuses with a status of its own, stream or not.

    Raises:
        Refusal: with vLLM's status and text.
    """
    if chat:
        _check_tools(body)
    _check_stop(body)
    _check_logprobs(body, chat=chat)
    temperature = number(body, "temperature", 1.0)
    for name in ("presence_penalty", "frequency_penalty"):
        penalty = number(body, name, 0.0)
        if not -2 <= penalty <= 2:
            raise bad_value(f"{name} must be in [-2, 2], got {penalty}.")
    _check_temperature(temperature)
    top_p = number(body, "top_p", 1.0)
    if not 0 < top_p <= 1:
        raise bad_value(f"top_p must be in (0, 1], got {top_p}.", "top_p", top_p)
    top_k = integer(body, "top_k", 0)
    if top_k < -1:
        raise bad_value(f"top_k must be 0 (disable), or at least 1, got {top_k}.")
    _check_lengths(body, chat=chat)
    _check_n(body, temperature)


def late_refusal(body: dict[str, Any], *, chat: bool) -> Refusal | None:
    """What vLLM finds only once it has begun: a stream then has a 200 and an error event."""
    logprobs = "top_logprobs" if chat else "logprobs"
    wanted = [("sample", "logprobs", integer(body, logprobs, 0))]
    wanted += [("prompt", "prompt_logprobs", integer(body, "prompt_logprobs", 0))]
    for what, param, count in wanted:
        count = _VOCABULARY if count == -1 else count
        if count > _MAX_LOGPROBS:
            return bad_value(
                f"Requested {what} logprobs of {count}, which is greater than max allowed:"
                f" {_MAX_LOGPROBS}",
                param,
                count,
            )
    structured = body.get("structured_outputs")
    regex = structured.get("regex") if isinstance(structured, dict) else None
    if isinstance(regex, str):
        try:
            re.compile(regex)
        except re.error as problem:
            return bad_value(f"Grammar error: invalid regex {regex!r}: {problem}")
    return None


def _check_tools(body: dict[str, Any]) -> None:
    tools, choice = body.get("tools"), body.get("tool_choice")
    if tools == []:
        raise bad_value(
            "`tools` must not be an empty array. Either provide at least one tool or omit the"
            " field entirely.",
            "tools",
        )
    if choice in (None, "none"):
        return
    if tools is None:
        raise bad_value("When using `tool_choice`, `tools` must be set.", "tool_choice")
    if isinstance(choice, str) and choice not in ("auto", "required"):
        raise bad_value(
            f'Invalid value for `tool_choice`: {choice}! Only named tools, "none", "auto" or'
            ' "required" are supported.',
            "tool_choice",
        )
    if isinstance(choice, dict) and _tools.forced_tool(body) is None:
        raise bad_value(
            "The tool specified in `tool_choice` does not match any of the specified `tools`",
            "tool_choice",
        )


def _check_stop(body: dict[str, Any]) -> None:
    stop = body.get("stop")
    if isinstance(stop, list) and len(stop) > _MAX_STOPS:
        what = f"<list of {len(stop)} items>"
        place = "'loc': 'body.stop', 'msg'"
        raise malformed(
            f"{{'type': 'string_type', {place}: 'Input should be a valid string',"
            f" 'input': '{what}'}}\n"
            f"  {{'type': 'too_long', {place}: 'List should have at most {_MAX_STOPS} items after"
            f" validation, not {len(stop)}', 'input': '{what}', 'ctx': {{'field_type': 'List',"
            f" 'max_length': {_MAX_STOPS}, 'actual_length': {len(stop)}}}}}",
            "body.stop",
            count=2,
        )
    if stop == "" or (isinstance(stop, list) and "" in stop):
        raise bad_value("stop cannot contain an empty string.")
    ids = body.get("stop_token_ids")
    if ids is not None and not isinstance(ids, list):
        message = "Input should be a valid list"
        raise invalid("list_type", "body.stop_token_ids", message, shown(ids))


def _check_logprobs(body: dict[str, Any], *, chat: bool) -> None:
    prompt_logprobs = _count(body, "prompt_logprobs")
    if prompt_logprobs != 0 and body.get("stream") and prompt_logprobs >= -1:
        message = "`prompt_logprobs` are not available when `stream=True`."
        raise bad_value(message, "prompt_logprobs")
    name = "top_logprobs" if chat else "logprobs"
    for each in ("prompt_logprobs", name):
        count = _count(body, each)
        if count < -1:
            raise bad_value(f"`{each}` must be a positive value or -1.", each, count)
    if chat and _count(body, name) != 0 and not body.get("logprobs"):
        message = "when using `top_logprobs`, `logprobs` must be set to true."
        raise bad_value(message, "top_logprobs")


def _count(body: dict[str, Any], name: str) -> int:
    value = body.get(name)
    try:
        return integer(body, name, 0)
    except Refusal:
        raise bad_value(f"`{name}` must be an integer.", name, value) from None


def _check_lengths(body: dict[str, Any], *, chat: bool) -> None:
    limit = integer(body, "max_tokens", 0 if chat else 16)
    limit = integer(body, "max_completion_tokens", limit) if chat else limit
    least = integer(body, "min_tokens", 0)
    if limit and least > limit:
        raise bad_value(
            f"min_tokens must be less than or equal to max_tokens={limit}, got {least}."
        )


def _check_n(body: dict[str, Any], temperature: float) -> None:
    n = integer(body, "n", 1)
    if n < 1:
        raise bad_value(f"n must be at least 1, got {n}.")
    if n > _MAX_N:
        raise bad_value(
            f"n must be at most {_MAX_N}, got {n}. To increase this limit, set the"
            " VLLM_MAX_N_SEQUENCES environment variable."
        )
    if n > 1 and temperature == 0:
        raise bad_value(f"n must be 1 when using greedy sampling, got {n}.")


def _check_temperature(value: float) -> None:
    if not math.isfinite(value):
        raise bad_value(f"temperature must be a finite number, got {value}.", "temperature", value)
    if value < 0:
        raise bad_value(f"temperature must be non-negative, got {value}.", "temperature", value)
    if value > 2:
        raise bad_value(f"temperature must be in [0, 2], got {value}.", "temperature", value)
