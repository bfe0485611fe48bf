"""Completion: its way through JSON; and all values' way through pickle and copy."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from values_support import choices, completions, ends, errors, facts, metrics, started, tokens

from vllm_http import Completion, InvalidRequest


@given(completions(st.none()))
def test_completions_round_trip(completion: Completion) -> None:
    """A task's result goes into a Celery backend and comes back."""
    assert completion == Completion.from_json(completion.to_json())
    assert completion == Completion.from_dict(json.loads(json.dumps(completion.to_dict())))


@given(completions(errors(st.none())))
def test_failed_completions_round_trip(completion: Completion) -> None:
    """The error comes back as its own class."""
    again = Completion.from_json(completion.to_json())

    assert facts(completion.error) == facts(again.error)
    assert completion.to_dict() == again.to_dict()


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"job_id": 5},
        {"job_id": "j", "text": None},
        {"job_id": "j", "choices": [5]},
        {"job_id": "j", "metrics": 5},
        {"job_id": "j", "error": "Timeout"},
        {"job_id": "j", "error": {"error": "Nope"}},
        {"job_id": "j", "more": 1},
    ],
    ids=json.dumps,
)
def test_what_is_no_completion_is_refused(value: dict[str, Any]) -> None:
    """As for events and tasks."""
    with pytest.raises(InvalidRequest):
        Completion.from_dict(value)


@given(started | tokens | ends | metrics | choices | completions(st.none()))
def test_values_pickle_and_copy(value: object) -> None:
    """multiprocessing and caches move them without JSON."""
    assert value == pickle.loads(pickle.dumps(value))
    assert value == copy.deepcopy(value)


@given(completions(errors(st.none())))
def test_failed_completions_pickle(completion: Completion) -> None:
    """Their errors included."""
    again = pickle.loads(pickle.dumps(completion))

    assert facts(completion.error) == facts(again.error)
    assert completion.to_dict() == again.to_dict()
