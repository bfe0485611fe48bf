"""What a request asks of an answer's form."""

from __future__ import annotations

from typing import Any, NamedTuple

from ._choice import Stop
from ._refusals import integer


class Options(NamedTuple):
    """A request's wishes; numbers of logprobs are None where none are wanted."""

    stream: bool
    include_usage: bool
    continuous_usage: bool
    token_ids: bool
    tokens_as_ids: bool
    echo: bool
    logprobs: int | None
    prompt_logprobs: int | None
    stop: Stop

    @property
    def tells_tokens(self) -> bool:
        """Whether each token is told of, even one without text."""
        return self.token_ids or self.logprobs is not None


def read_options(body: dict[str, Any], *, chat: bool) -> Options:
    """The wishes in a request's body, which may be nonsense.

    Raises:
        Refusal: a number is none.
    """
    options = body.get("stream_options")
    options = options if isinstance(options, dict) else {}
    include_usage = bool(options.get("include_usage"))
    echo = bool(body.get("echo"))
    if chat:
        logprobs = integer(body, "top_logprobs", 0) if body.get("logprobs") else None
    else:
        logprobs = _number_or_none(body, "logprobs")
    prompt_logprobs = _number_or_none(body, "prompt_logprobs")
    if prompt_logprobs is None and echo:
        # vLLM's own oddity: an echoing chat tells them without being asked for any.
        prompt_logprobs = (logprobs or 0) if chat else logprobs
    return Options(
        stream=body.get("stream") in (True, "true"),
        include_usage=include_usage,
        continuous_usage=include_usage and bool(options.get("continuous_usage_stats")),
        token_ids=bool(body.get("return_token_ids")),
        tokens_as_ids=bool(body.get("return_tokens_as_token_ids")),
        echo=echo,
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        stop=_read_stop(body),
    )


def _number_or_none(body: dict[str, Any], name: str) -> int | None:
    return None if body.get(name) is None else integer(body, name, 0)


def _read_stop(body: dict[str, Any]) -> Stop:
    strings, ids = body.get("stop"), body.get("stop_token_ids")
    strings = [strings] if isinstance(strings, str) else strings
    return Stop(
        tuple(s for s in strings if isinstance(s, str) and s) if isinstance(strings, list) else (),
        frozenset(i for i in ids if isinstance(i, int)) if isinstance(ids, list) else frozenset(),
        bool(body.get("include_stop_str_in_output")),
    )
