"""A refusal of a real engine has its own class, status and words, by whichever way it comes."""

from __future__ import annotations

from typing import Any

from vllm_http import Error, InvalidRequest, Started, TaskRequest, TokenEvent, VllmHttpAdapter

from .server import CONTEXT, MODEL


def events(adapter: VllmHttpAdapter, **parameters: Any) -> list[TokenEvent]:
    """Return all that comes out of one task."""
    with adapter.submit(TaskRequest(**{"model": MODEL, "max_tokens": 5, **parameters})) as stream:
        return list(stream)


def test_an_unknown_model(adapter: VllmHttpAdapter) -> None:
    """A model that the engine does not serve is refused by status, so nothing was started."""
    (error,) = events(adapter, model="nobody", prompt="Hello")

    assert isinstance(error, Error)
    assert isinstance(error.error, InvalidRequest)
    assert (error.error.status, error.error.code) == (404, "UPSTREAM_NOT_FOUND")


def test_a_prompt_longer_than_the_context(adapter: VllmHttpAdapter) -> None:
    """A prompt that cannot fit is refused, and the engine's message says what would."""
    (error,) = events(adapter, prompt="word " * (CONTEXT + 100))

    assert isinstance(error, Error)
    assert isinstance(error.error, InvalidRequest)
    assert error.error.status == 400
    assert str(CONTEXT) in error.error.message


def test_a_refusal_inside_the_stream(adapter: VllmHttpAdapter) -> None:
    """A bad regex is refused after the 200: the class and the status are those of a real 400."""
    bad = {"structured_outputs": {"regex": "(["}}

    started, error = events(adapter, prompt="Hello", extra_body=bad)

    assert isinstance(started, Started)
    assert isinstance(error, Error)
    assert isinstance(error.error, InvalidRequest)
    assert error.error.status == 400
