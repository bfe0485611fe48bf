"""embed, score, rerank, tokenize and detokenize: the arguments that they share."""

from __future__ import annotations

from typing import Any

import pytest
import support
from calls_support import (
    CALLS,
    PATHS,
    every_call,
    quick,
    sent_body,
)

from vllm_http import (
    InvalidRequest,
)
from vllm_http.testing import FakeEngine


engine = support.engine


@every_call
@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), float("inf"), True, "5"])
def test_timeout_out_of_its_limits(engine: FakeEngine, call: str, timeout: Any) -> None:
    """What is no number of seconds is refused before the wire, by name and value."""
    with quick(engine.url) as adapter, pytest.raises(InvalidRequest, match=r"^timeout: "):
        CALLS[call](adapter, timeout=timeout)

    assert engine.requests == []


@every_call
def test_model_is_sent_or_not(engine: FakeEngine, call: str) -> None:
    """Without a model none is sent, and the engine takes its first."""
    with quick(engine.url) as adapter:
        CALLS[call](adapter)
        without = sent_body(engine, PATHS[call])
        CALLS[call](adapter, model="fake-model")

    assert "model" not in without
    assert sent_body(engine, PATHS[call]) == {**without, "model": "fake-model"}


@every_call
def test_empty_model_is_refused(engine: FakeEngine, call: str) -> None:
    """A name that is none does not reach the engine."""
    with quick(engine.url) as adapter, pytest.raises(InvalidRequest, match="model: ''"):
        CALLS[call](adapter, model="")

    assert engine.requests == []


@every_call
def test_extra_body_goes_along(engine: FakeEngine, call: str) -> None:
    """What has no argument is sent under its own name."""
    with quick(engine.url) as adapter:
        CALLS[call](adapter, extra_body={"truncate_prompt_tokens": -1, "priority": None})
        body = sent_body(engine, PATHS[call])

    assert body["truncate_prompt_tokens"] == -1
    assert body["priority"] is None


@every_call
@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"model": "m"}, "extra_body.model: not settable"),
        ({"user": float("nan")}, "extra_body.user: cannot be written as JSON"),
        ({"user": "\ud800"}, "extra_body.user: .* surrogate"),
        ({5: 5}, "extra_body: the key 5 is not text"),
        ([], "extra_body: a dict is wanted, not list"),
    ],
)
def test_extra_body_out_of_its_limits(
    engine: FakeEngine, call: str, extra: Any, message: str
) -> None:
    """It may not repeat an argument, and must be JSON."""
    with quick(engine.url) as adapter, pytest.raises(InvalidRequest, match=message):
        CALLS[call](adapter, extra_body=extra)

    assert engine.requests == []
