"""A conversation goes on where the prefix cache has it; docs/prefix-caching.md says how."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vllm_http import AdapterRegistry, Completion, Metrics, TaskRequest, VllmHttpAdapter

from .server import MODEL, Server


DOCUMENT = Path(__file__).parents[2] / "docs" / "prefix-caching.md"
BLOCK = 128  # tokens: vLLM keeps whole blocks only, and these are a CPU's
RULES = " ".join(f"Rule {n}: answer question {n} in at most {n + 3} words." for n in range(60))
QUESTIONS = ["What is the capital of France?", "And of Italy?", "Which of the two is larger?"]


@pytest.fixture
def salt() -> str:
    """A cache of this test's own, which is cold."""
    return uuid.uuid4().hex


class Talk:
    """A conversation that is kept as the engine has it."""

    def __init__(self, adapter: VllmHttpAdapter, salt: str) -> None:
        self.messages: list[dict[str, Any]] = [{"role": "system", "content": RULES}]
        self._adapter = adapter
        self._salt = salt

    def say(self, text: str, **fields: Any) -> Metrics:
        """Ask, keep the answer, and return what that cost."""
        self.messages.append({"role": "user", "content": text})
        answer = self._adapter.submit(self.task(**fields)).result()
        self.messages.append(answer.message())
        return metrics_of(answer)

    def task(self, **fields: Any) -> TaskRequest:
        """The next turn."""
        known: dict[str, Any] = {"model": MODEL, "max_tokens": 24, "temperature": 0}
        return TaskRequest(messages=self.messages, cache_salt=self._salt, **known | fields)


def metrics_of(answer: Completion) -> Metrics:
    """What an answer cost."""
    assert answer.metrics is not None
    return answer.metrics


def first_token(metrics: Metrics) -> float:
    """When it came, in milliseconds."""
    assert metrics.latency_first_token_ms is not None
    return metrics.latency_first_token_ms


def test_second_turn_is_warm(
    adapter: VllmHttpAdapter, salt: str, measured: Callable[[str], None]
) -> None:
    """Each turn finds the whole blocks of the one before, and its answer begins sooner."""
    talk = Talk(adapter, salt)
    turns = [talk.say(question) for question in QUESTIONS]

    for number, turn in enumerate(turns, 1):
        measured(
            f"turn {number}: {turn.tokens_in} tokens in, {turn.cached_tokens} of them cached, "
            f"first token after {first_token(turn):.0f} ms"
        )
    cold, *warm = turns
    assert cold.cached_tokens == 0
    for before, turn in zip(turns, warm, strict=False):
        assert before.tokens_in is not None
        assert turn.cached_tokens is not None
        assert turn.cached_tokens > before.tokens_in - BLOCK
        assert turn.cached_tokens % BLOCK == 0
        assert first_token(turn) < first_token(cold)


def test_answer_is_warm(adapter: VllmHttpAdapter, salt: str) -> None:
    """The answer that is sent back as `message()` gives it is found, too."""
    talk = Talk(adapter, salt)
    talk.messages.clear()

    length = {"min_tokens": BLOCK + 20, "max_tokens": BLOCK + 20}
    first = talk.say("Tell me a long story about the sea.", **length)
    second = talk.say("And then?")

    assert first.tokens_in is not None
    assert first.tokens_generated == BLOCK + 20
    assert second.cached_tokens == BLOCK > first.tokens_in


def test_documented_way(vllm: Server, salt: str) -> None:
    """The function in docs/prefix-caching.md goes on with a conversation that is warm."""
    pattern = r"^<!-- example: converse -->\n```python\n(.*?)^```$"
    (example,) = re.findall(pattern, DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)

    messages: list[dict[str, Any]] = [{"role": "system", "content": RULES}]
    with AdapterRegistry() as registry:
        registry.bind("default", "r0", VllmHttpAdapter(vllm.url))
        first, second = (
            metrics_of(names["converse"](registry, MODEL, salt, messages, question))
            for question in QUESTIONS[:2]
        )

    assert (first.cached_tokens, len(messages)) == (0, 5)
    assert (second.cached_tokens or 0) > 0


def test_salt_separates(adapter: VllmHttpAdapter, salt: str) -> None:
    """The same messages under another salt find nothing, under their own nearly all."""
    Talk(adapter, salt).say(QUESTIONS[0])

    same = Talk(adapter, salt).say(QUESTIONS[0])
    other = Talk(adapter, f"{salt}-other").say(QUESTIONS[0])

    assert (same.cached_tokens or 0) > 0
    assert other.cached_tokens == 0


def test_what_is_changed_in_front_is_cold(adapter: VllmHttpAdapter, salt: str) -> None:
    """The cache is of leading tokens: with another first word nothing behind it is found."""
    talk = Talk(adapter, salt)
    talk.say(QUESTIONS[0])

    talk.messages[0] = {"role": "system", "content": f"Today is Monday. {RULES}"}
    changed = talk.say(QUESTIONS[1])

    assert changed.cached_tokens == 0


def test_prompt_logprobs_read_no_cache(adapter: VllmHttpAdapter, salt: str) -> None:
    """Who wants the logprobs of a prompt has it read anew."""
    talk = Talk(adapter, salt)
    talk.say(QUESTIONS[0])

    again = adapter.submit(talk.task(prompt_logprobs=0)).result()

    assert not metrics_of(again).cached_tokens
