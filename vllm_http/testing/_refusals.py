"""vLLM's errors, and the checks of a request's form, model and length that lead to them.

Every text was read off a vLLM 0.32 server. What these checks let pass, vLLM may still refuse:
only the mistakes that a client's tests are likely to make are here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ._request import ReceivedRequest


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
        raise malformed("Unsupported Media Type: Only 'application/json' is allowed", None)
    if not request.body:
        raise invalid("missing", "body", "Field required", "'None'")
    try:
        body = request.json
    except json.JSONDecodeError as problem:
        where, context = f"body.{problem.pos}", f", 'ctx': {{'error': {problem.msg!r}}}"
        raise invalid("json_invalid", where, "JSON decode error", f"{shown({})}{context}") from None
    except ValueError:
        raise malformed("There was an error parsing the body", None) from None
    if b"\\u" in request.body:  # perhaps of half a surrogate pair, which nothing can write
        json.dumps(body, ensure_ascii=False).encode()
    if not isinstance(body, dict):
        message = "Input should be a valid dictionary or object to extract fields from"
        raise invalid("model_attributes_type", "body", message, shown(body))
    return body


@contextmanager
def monsters_refused() -> Iterator[None]:
    """Whatever a body holds that cannot be worked on is a bad request, and kills no connection.

    Raises:
        Refusal: 400.
    """
    try:
        yield
    except (
        *(ValueError, TypeError, LookupError, AttributeError),
        *(ArithmeticError, RecursionError, MemoryError, re.error),
    ):
        raise malformed("There was an error parsing the body", None) from None


def check(body: dict[str, Any], *, chat: bool, model: str, max_model_len: int) -> None:
    """Refuse what vLLM refuses before it looks at how to sample, and at the prompt's length.

    Raises:
        Refusal: with vLLM's status and text.
    """
    if body.get("stream_options") and not body.get("stream"):
        raise bad_value("Stream options can only be defined when `stream=True`.", "stream_options")
    _check_input(body, chat=chat)
    check_model(body, model)
    if chat and not body["messages"]:
        raise bad_value(
            "Cannot apply chat template to an empty conversation. Provide at least one message."
        )
    for name in ("max_tokens", "max_completion_tokens"):
        limit = integer(body, name, 1)
        if limit > max_model_len:
            raise bad_value(
                f"{name}={limit} cannot be greater than max_model_len={max_model_len}."
                " Please request fewer output tokens.",
                "max_tokens",
                limit,
            )
        if limit < 1:
            raise bad_value(f"max_tokens must be at least 1, got {limit}.", "max_tokens", limit)


def check_model(body: dict[str, Any], model: str) -> None:
    """Refuse any model but the one that is served.

    Raises:
        Refusal: with vLLM's status and text.
    """
    if body.get("model") not in (None, model):
        message = f"The model `{body['model']}` does not exist. Valid aliases: {model}."
        raise Refusal(message, status=404, type="NotFoundError", param="model")


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
        raise bad_value("max_tokens must be at least 1, got 0.", "max_tokens", 0)
    if prompt_tokens > max_model_len:
        length = prompt_tokens if counted else max_model_len + 1
        raise bad_value(
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


def bad_value(message: str, param: str | None = None, value: object = None) -> Refusal:
    """The refusal of a value that has the right type."""
    if param is not None:
        message += f" (parameter={param}{'' if value is None else f', value={value}'})"
    return Refusal(message, status=400, type="BadRequestError", param=param)


def invalid(kind: str, where: str, message: str, shown: str) -> Refusal:
    """A failed validation, in the words of the server's validation library."""
    return malformed(
        f"{{'type': '{kind}', 'loc': '{where}', 'msg': '{message}', 'input': {shown}}}", where
    )


def malformed(message: str, param: str | None, count: int = 1) -> Refusal:
    """The refusal of a request that could not be read; `count` says how many errors it tells of."""
    text = f"{count} validation error{'s' * (count > 1)}:\n  {message}"
    return Refusal(text, status=400, type="Bad Request", param=param)


def shown(value: object) -> str:
    """A value as a failed validation shows it."""
    if isinstance(value, (dict, list)):
        return f"'<{type(value).__name__} of {len(value)} items>'"
    return repr(value)


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
        raise invalid(kind, f"body.{name}", message, shown(value)) from None


def _check_input(body: dict[str, Any], *, chat: bool) -> None:
    if chat and not isinstance(body.get("messages"), list):
        raise invalid("missing", "body.messages", "Field required", shown(body))
    prompt = body.get("prompt")
    if chat or (isinstance(prompt, str) and prompt):
        return
    if prompt is None or prompt == "":
        raise bad_value("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    if not isinstance(prompt, list):
        raise invalid("list_type", "body.prompt", "Input should be a valid list", shown(prompt))
    if not prompt:
        raise bad_value("You must pass at least one prompt")
