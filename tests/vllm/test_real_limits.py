"""What vLLM refuses, the adapter refuses first or delivers; what it refuses first, vLLM would."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
import requests

from vllm_http import InvalidRequest, TaskRequest, VllmHttpAdapter, WorkerError

from .refusal_space import QUESTION, STEADY, Wrong, refusal_space
from .server import Server


AT_ONCE = 8

# What is refused here although vLLM answers it, by the end of its name.
CONVERTED = "vLLM reads it as the right type; a task's types are those that it names"
IGNORED = "vLLM ignores it, which is not what was asked for"
NOTHING = "vLLM takes it for nothing at all; None says so"
EMPTY = "vLLM matches it with an empty answer"
NO_CHANGE = {IGNORED, NOTHING}
EXCEPTIONS = {
    "max_tokens '3'": CONVERTED,
    "max_tokens True": CONVERTED,
    "temperature '1'": CONVERTED,
    "ignore_eos 'true'": CONVERTED,
    "ignore_eos 1": CONVERTED,
    "prompt [True]": CONVERTED,
    "completions: logprobs True": CONVERTED,
    "chat: logprobs 1": CONVERTED,
    "is not for here": IGNORED,
    "is gone": IGNORED,
    "model ''": NOTHING,
    "user ''": NOTHING,
    "structured_outputs {'regex': ''}": EMPTY,
    "logprob_token_ids []": NOTHING,
}


class Verdict(NamedTuple):
    """What became of one request: by vLLM itself, by `validate`, by the stream."""

    wrong: Wrong
    status: int
    answer: dict[str, Any]
    local: str
    error: WorkerError | None

    @property
    def refused(self) -> bool:
        """Whether vLLM does."""
        return self.status >= 400

    @property
    def named(self) -> str:
        """The field that vLLM names, if any: the last part of its path."""
        param = (self.answer.get("error") or {}).get("param") or ""
        return str(param).rpartition(".")[2]


def whole_answer(server: Server, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """What vLLM answers without a stream: then each refusal has a status."""
    answer = requests.post(server.url + path, json={**body, "stream": False}, timeout=120)
    return answer.status_code, answer.json()


def refused_first(task: TaskRequest) -> str:
    """What `validate` says."""
    try:
        task.validate()
    except InvalidRequest as error:
        return error.message
    return ""


@pytest.fixture(scope="module")
def verdicts(vllm: Server) -> list[Verdict]:
    """What became of each request."""
    space = refusal_space()
    assert len({wrong.name for wrong in space}) == len(space)
    tasks = [TaskRequest(**wrong.fields) for wrong in space]
    local = list(map(refused_first, tasks))
    with VllmHttpAdapter(vllm.url) as adapter, ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda wrong: whole_answer(vllm, wrong.path, wrong.body), space))
        sent = (task for task, refused in zip(tasks, local, strict=True) if not refused)
        ends = adapter.map(sent, in_flight=AT_ONCE)
        errors = [None if refused else next(ends).error for refused in local]
    rows = zip(space, answers, local, errors, strict=True)
    return [Verdict(wrong, *answer, said, error) for wrong, answer, said, error in rows]


def test_what_vllm_refuses_is_refused(
    verdicts: list[Verdict], measured: Callable[[str], None]
) -> None:
    """By `validate`, or as an `InvalidRequest` with vLLM's status; the rest is answered."""
    missed = [
        (one.wrong.name, one.status, one.error)
        for one in verdicts
        if not one.local
        and (
            not isinstance(one.error, InvalidRequest) or one.error.status != one.status
            if one.refused
            else one.error is not None
        )
    ]

    counts = Counter(
        "refused first" if one.local else "delivered" if one.error else "answered"
        for one in verdicts
    )
    measured(f"{len(verdicts)} wrong requests: {dict(counts)}")
    assert missed == []
    assert min(counts["refused first"], counts["delivered"]) > 50


def test_the_field_is_named(verdicts: list[Verdict]) -> None:
    """A refusal says which field it is about: our own always, vLLM's where it does."""
    nameless = [
        (one.wrong.name, one.local, one.error)
        for one in verdicts
        if (one.local and one.wrong.field not in one.local)
        or (one.error is not None and one.named not in one.error.message)
    ]

    assert nameless == []


def test_what_is_refused_first_vllm_would_refuse(verdicts: list[Verdict]) -> None:
    """But for what is listed here, and all of that is needed."""
    answered = [one.wrong.name for one in verdicts if one.local and not one.refused]
    reasons = {name: _reasons(name) for name in answered}

    assert [name for name, found in reasons.items() if not found] == []
    assert EXCEPTIONS.keys() - {end for found in reasons.values() for end in found} == set()


def test_what_is_refused_for_nothing_changes_nothing(verdicts: list[Verdict], vllm: Server) -> None:
    """vLLM answers as if it were not there, to requests that come one by one."""
    plain = {path: _texts(vllm, path, {**STEADY, **QUESTION[path]}) for path in QUESTION}
    found = {
        one.wrong.name: _texts(vllm, one.wrong.path, one.wrong.body)
        for one in verdicts
        if one.local and not one.refused and NO_CHANGE & {*_reasons(one.wrong.name).values()}
    }

    assert {name: text for name, text in found.items() if text not in plain.values()} == {}


def _reasons(name: str) -> dict[str, str]:
    return {end: reason for end, reason in EXCEPTIONS.items() if name.endswith(end)}


def _texts(server: Server, path: str, body: dict[str, Any]) -> list[str]:
    _, answer = whole_answer(server, path, body)
    choices = answer["choices"]
    return [one["text"] if "text" in one else one["message"]["content"] for one in choices]
