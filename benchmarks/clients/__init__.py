"""The clients that are compared, each written as its users write it.

A client drains answers and calls `take(text)` for each token: that call is the caller's loop body.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any, NamedTuple


if TYPE_CHECKING:
    from .base import Client


class Kind(NamedTuple):
    """Where a client is, and what it needs."""

    module: str
    name: str
    imports: str
    packages: tuple[str, ...]
    about: str


CLIENTS = {
    "recv": Kind(
        "raw", "Recv", "socket", ("orjson",), "recv alone, nothing decoded: how fast the server is"
    ),
    "raw": Kind("raw", "Raw", "socket, orjson", ("orjson",), "the floor: a raw socket and orjson"),
    "requests": Kind(
        "nohop",
        "NoHop",
        "requests, orjson",
        ("requests", "orjson"),
        "requests, iter_content(None) and orjson; the consumer reads its own socket, no queue",
    ),
    "http.client": Kind("stdlib", "Stdlib", "http.client, json", (), "http.client, line by line"),
    "sseclient": Kind(
        "naive",
        "Naive",
        "requests, sseclient, json, queue",
        ("requests", "sseclient"),
        "requests, sseclient-py and json; one queue.put an event",
    ),
    "httpx-sse": Kind(
        "httpxsse", "HttpxSse", "httpx, httpx_sse", ("httpx", "httpx_sse"), "httpx and httpx-sse"
    ),
    "aiohttp": Kind(
        "aio", "Aio", "aiohttp", ("aiohttp",), "aiohttp, as vLLM's own benchmark client uses it"
    ),
    "openai": Kind("openai_sync", "OpenAISync", "openai", ("openai",), "openai-python, threads"),
    "litellm": Kind("litellm_sync", "LiteLLM", "litellm", ("litellm",), "litellm, threads"),
    "vllm_http": Kind(
        "ours", "Ours", "vllm_http", ("vllm_http",), "this package: `for event in stream`"
    ),
    "vllm_http result": Kind(
        "ours", "OursResult", "vllm_http", ("vllm_http",), "this package: `stream.result()`"
    ),
    "vllm_http many": Kind(
        "ours", "OursMany", "vllm_http", ("vllm_http",), "this package: `stream_many` and `map`"
    ),
}


def missing(name: str) -> str | None:
    """The first package that a client needs and that is not installed."""
    for package in CLIENTS[name].packages:
        if importlib.util.find_spec(package) is None:
            return package
    return None


def make(name: str, url: str, streams: int) -> Client:
    """The client, ready for that many streams at once."""
    kind = CLIENTS[name]
    module = importlib.import_module(f"clients.{kind.module}")
    client: Any = getattr(module, kind.name)(url, streams)
    return client  # type: ignore[no-any-return]
