"""vLLM's errors, and the checks of a request that lead to them.

Every text was read off a vLLM 0.32 server. What these checks let pass, vLLM may still refuse:
only the mistakes that a client's tests are likely to make are here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from ._request import ReceivedRequest


_MAX_N = 16384


class Refusal(Exception):
    """A request that vLLM would refuse.

    Attributes:
        status: the HTTP status.
        body: the JSON to answer with.
    """

    def __init__(self, message: str, *, status: int, type: str, param: str | None) -> None:
        super().__init__(message)
        self.status = status
        self.body = error(message, status, type, param)


def error(message: str, code: int, type: str, param: str | None = None) -> dict[str, Any]:
    """vLLM's error object."""
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


def read_body(request: ReceivedRequest) -> dict[str, Any]:
    """The JSON object in a request.

    Raises:
        Refusal: there is none.
    """
    media_type = (request.header("content-type") or "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise _malformed("Unsupported Media Type: Only 'application/json' is allowed", None)
    if not request.body:
        raise _invalid("missing", "body", "Field required", "'None'")
    try:
        body = request.json
    except json.JSONDecodeError as problem:
        where, context = f"body.{problem.pos}", f", 'ctx': {{'error': {problem.msg!r}}}"
        raise _invalid(
            "json_invalid", where, "JSON decode error", f"{_shown({})}{context}"
        ) from None
    except ValueError:
        raise _malformed("There was an error parsing the body", None) from None
    if not isinstance(body, dict):
        message = "Input should be a valid dictionary or object to extract fields from"
        raise _invalid("model_attributes_type", "body", message, _shown(body))
    return body


def check(body: dict[str, Any], *, chat: bool, model: str, max_model_len: int) -> None:
    """Refuse what vLLM refuses before it looks at the prompt's length.

    Raises:
        Refusal: with vLLM's status and text.
    """
    if body.get("stream_options") is not None and not body.get("stream"):
        raise _bad_value("Stream options can only be defined when `stream=True`.", "stream_options")
    _check_input(body, chat=chat)
    if body.get("model") not in (None, model):
        message = f"The model `{body['model']}` does not exist. Valid aliases: {model}."
        raise Refusal(message, status=404, type="NotFoundError", param="model")
    if chat and not body["messages"]:
        raise _bad_value(
            "Cannot apply chat template to an empty conversation. Provide at least one message."
        )
    for name in ("max_tokens", "max_completion_tokens"):
        limit = integer(body, name, 1)
        if limit > max_model_len:
            raise _bad_value(
                f"{name}={limit} cannot be greater than max_model_len={max_model_len}."
                " Please request fewer output tokens.",
                "max_tokens",
                limit,
            )
        if limit < 1:
            raise _bad_value(f"max_tokens must be at least 1, got {limit}.", "max_tokens", limit)
    _check_sampling(body)


def check_length(prompt_tokens: int, max_model_len: int, *, counted: bool) -> None:
    """Refuse a prompt that leaves no room for one more token.

    Args:
        prompt_tokens: how long the prompt is.
        max_model_len: the model's context.
        counted: whether vLLM knows the exact length: it does for token ids, and stops counting
            a text just beyond the limit.

    Raises:
        Refusal: with vLLM's status and text.
    """
    if prompt_tokens == max_model_len:
        raise _bad_value("max_tokens must be at least 1, got 0.", "max_tokens", 0)
    if prompt_tokens > max_model_len:
        length = prompt_tokens if counted else max_model_len + 1
        raise _bad_value(
            f"This model's maximum context length is {max_model_len} tokens. However, your prompt"
            f" contains {'' if counted else 'at least '}{length} input tokens, which exceeds this"
            " limit even without any output tokens. Please reduce the length of the input prompt.",
            "input_tokens",
            length,
        )


def integer(body: dict[str, Any], name: str, default: int) -> int:
    """An integer field; null is as good as absent, and so is a number in a string as a number.

    Raises:
        Refusal: it is something else.
    """
    return int(_parsed(body, name, default, int, "int", "integer"))


def number(body: dict[str, Any], name: str, default: float) -> float:
    """A float field, read as `integer` reads its own.

    Raises:
        Refusal: it is something else.
    """
    return float(_parsed(body, name, default, float, "float", "number"))


def _parsed(
    body: dict[str, Any],
    name: str,
    default: float,
    parse: Callable[[Any], float],
    kind: str,
    noun: str,
) -> float:
    value = body.get(name)
    if value is None:
        return default
    try:
        return parse(value)
    except (TypeError, ValueError, OverflowError):
        kind, message = f"{kind}_type", f"Input should be a valid {noun}"
        if isinstance(value, str):
            kind = kind.replace("type", "parsing")
            article = "an" if noun == "integer" else "a"
            message += f", unable to parse string as {article} {noun}"
        raise _invalid(kind, f"body.{name}", message, _shown(value)) from None


def _check_input(body: dict[str, Any], *, chat: bool) -> None:
    if chat and not isinstance(body.get("messages"), list):
        raise _invalid("missing", "body.messages", "Field required", _shown(body))
    prompt = body.get("prompt")
    if chat or (isinstance(prompt, str) and prompt):
        return
    if prompt is None or prompt == "":
        raise _bad_value("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    if not isinstance(prompt, list):
        raise _invalid("list_type", "body.prompt", "Input should be a valid list", _shown(prompt))
    if not prompt:
        raise _bad_value("You must pass at least one prompt")


def _check_sampling(body: dict[str, Any]) -> None:
    temperature = number(body, "temperature", 1.0)
    _check_temperature(temperature)
    n = integer(body, "n", 1)
    if n < 1:
        raise _bad_value(f"n must be at least 1, got {n}.")
    if n > _MAX_N:
        raise _bad_value(
            f"n must be at most {_MAX_N}, got {n}. To increase this limit, set the"
            " VLLM_MAX_N_SEQUENCES environment variable."
        )
    if n > 1 and temperature == 0:
        raise _bad_value(f"n must be 1 when using greedy sampling, got {n}.")


def _check_temperature(value: float) -> None:
    if not math.isfinite(value):
        raise _bad_value(f"temperature must be a finite number, got {value}.", "temperature", value)
    if value < 0:
        raise _bad_value(f"temperature must be non-negative, got {value}.", "temperature", value)
    if value > 2:
        raise _bad_value(f"temperature must be in [0, 2], got {value}.", "temperature", value)


def _bad_value(message: str, param: str | None = None, value: object = None) -> Refusal:
    if param is not None:
        message += f" (parameter={param}{'' if value is None else f', value={value}'})"
    return Refusal(message, status=400, type="BadRequestError", param=param)


def _invalid(kind: str, where: str, message: str, shown: str) -> Refusal:
    """A failed validation, in the words of the server's validation library."""
    return _malformed(
        f"{{'type': '{kind}', 'loc': '{where}', 'msg': '{message}', 'input': {shown}}}", where
    )


def _malformed(message: str, param: str | None) -> Refusal:
    text = f"1 validation error:\n  {message}"
    return Refusal(text, status=400, type="Bad Request", param=param)


def _shown(value: object) -> str:
    if isinstance(value, (dict, list)):
        return f"'<{type(value).__name__} of {len(value)} items>'"
    return repr(value)
