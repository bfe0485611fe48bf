"""OpenAI's own client, where it is installed, reads the same out of the same requests."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from vllm_http import TaskRequest, VllmHttpAdapter

from .request_space import Request, request_space
from .same_requests import COMPLETIONS
from .server import Server


openai = pytest.importorskip("openai")

COMPARED = 20
ATTEMPTS = 3
OPTIONS = {"stream": True, "stream_options": {"include_usage": True}}


class Said(NamedTuple):
    """What both tell of an answer."""

    text: str
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int


@pytest.fixture
def client(vllm: Server) -> Iterator[Any]:
    """OpenAI's client, which tries once."""
    with openai.OpenAI(
        base_url=f"{vllm.url}/v1", api_key="none", max_retries=0, timeout=120
    ) as client:
        yield client


def of_openai(client: Any, request: Request) -> Said:
    """What its stream says."""
    fields = dict(request.fields)
    # Nearly all of it is vLLM's own.
    own = {name: fields.pop(name) for name in ("model", "prompt", "messages") if name in fields}
    route = client.completions if request.path == COMPLETIONS else client.chat.completions
    text, reason, usage = "", None, None
    with route.create(**own, **OPTIONS, extra_body=fields) as stream:
        for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                reason = choice.finish_reason or reason
                text += (choice.text if hasattr(choice, "text") else choice.delta.content) or ""
    assert usage is not None
    return Said(text, reason, usage.prompt_tokens, usage.completion_tokens)


def of_ours(adapter: VllmHttpAdapter, request: Request) -> Said:
    """What our stream says."""
    answer = adapter.submit(TaskRequest(**request.fields)).result()
    metrics = answer.metrics
    assert metrics is not None
    return Said(answer.text, answer.finish_reason, metrics.tokens_in, metrics.tokens_generated)


def some_requests() -> list[Request]:
    """Of those with one answer, which vLLM streams."""

    def fits(request: Request) -> bool:
        prompt = request.fields.get("prompt")
        several = isinstance(prompt, list) and not isinstance(prompt[0], int)
        return not several and "n" not in request.fields and TaskRequest(**request.fields).streamed

    return random.Random(COMPARED).sample(list(filter(fits, request_space())), COMPARED)


def test_the_same_is_read(
    client: Any, adapter: VllmHttpAdapter, measured: Callable[[str], None]
) -> None:
    """Text, reason and usage; one request after the other, so that no other changes an answer."""
    different = {}
    for request in some_requests():
        for _ in range(ATTEMPTS):
            ours, theirs = of_ours(adapter, request), of_openai(client, request)
            if ours == theirs:
                break
        else:
            different[request.name] = (ours, theirs)

    measured(f"{COMPARED} requests through openai {openai.__version__}")
    assert different == {}
