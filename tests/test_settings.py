"""Timeouts and RetryPolicy: defaults, limits, and JSON."""

from __future__ import annotations

import dataclasses
import json
import pickle
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_http import InvalidRequest, RetryPolicy, TaskRequest, Timeouts, VllmHttpAdapter


DEFAULT_TIMEOUTS = {
    "queued": 120.0,
    "connect": 5.0,
    "first_token": 120.0,
    "stall": 60.0,
    "total": None,
}
DEFAULT_RETRY = {"attempts": 4, "base": 0.2, "cap": 2.0, "max_retry_after": 30.0}

HUGE = pytest.param(10**400, id="400 digits")

seconds = st.floats(0.001, 1e6)
timeouts = st.builds(Timeouts, **{name: st.none() | seconds for name in DEFAULT_TIMEOUTS})
policies = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 100),
    base=seconds,
    cap=seconds,
    max_retry_after=seconds,
)


def test_defaults_are_the_documented_ones() -> None:
    """Seconds everywhere, and no limit on the whole."""
    assert dataclasses.asdict(Timeouts()) == DEFAULT_TIMEOUTS
    assert DEFAULT_RETRY.items() <= dataclasses.asdict(RetryPolicy()).items()


def test_settings_are_frozen() -> None:
    """An adapter's settings cannot change under its running tasks."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Timeouts().stall = 1.0  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        RetryPolicy().attempts = 1  # type: ignore[misc]


def test_settings_are_values() -> None:
    """Equal ones are equal, serve as keys, and are varied with `dataclasses.replace`."""
    assert {Timeouts(), Timeouts(stall=60.0)} == {Timeouts()}
    assert {RetryPolicy(), RetryPolicy(attempts=4)} == {RetryPolicy()}
    assert dataclasses.replace(Timeouts(), stall=1.0) == Timeouts(stall=1.0)
    assert pickle.loads(pickle.dumps(Timeouts(total=3))) == Timeouts(total=3)


@pytest.mark.parametrize("field", [*DEFAULT_TIMEOUTS])
@pytest.mark.parametrize("value", [0, 0.0, -1, float("nan"), float("inf"), True, "5", [5]])
def test_a_timeout_is_a_positive_number_or_none(field: str, value: Any) -> None:
    """The field and its value are named; no limit is None, not infinity."""
    with pytest.raises(InvalidRequest) as caught:
        Timeouts(**{field: value})

    assert field in str(caught.value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("field", [*DEFAULT_TIMEOUTS])
@pytest.mark.parametrize("value", [10**9 + 1, 1e300, sys.maxsize, HUGE])
def test_a_timeout_has_a_limit(field: str, value: float) -> None:
    """What "for ever" is to some overflows the system calls; the limit is named."""
    assert getattr(Timeouts(**{field: 10**9}), field) == 10**9
    with pytest.raises(InvalidRequest, match=rf"{field}: .*1000000000\]; None means no limit"):
        Timeouts(**{field: value})


@pytest.mark.parametrize("field", [*DEFAULT_TIMEOUTS])
def test_none_and_whole_seconds_are_allowed(field: str) -> None:
    """Any clock may be without a limit."""
    assert getattr(Timeouts(**{field: None}), field) is None
    assert getattr(Timeouts(**{field: 3}), field) == 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("attempts", 0),
        ("attempts", -1),
        ("attempts", None),
        ("attempts", True),
        ("attempts", 1.5),
        ("attempts", "4"),
        *[
            (field, value)
            for field in ("base", "cap", "max_retry_after")
            for value in (-0.1, float("nan"), float("inf"), None, True, "1")
        ],
    ],
)
def test_a_retry_policy_has_limits(field: str, value: Any) -> None:
    """The field and its value are named."""
    with pytest.raises(InvalidRequest) as caught:
        RetryPolicy(**{field: value})

    assert field in str(caught.value)
    assert repr(value) in str(caught.value)


def test_a_retry_policy_may_not_wait() -> None:
    """Tests, and callers with a queue of their own, want no pause."""
    assert RetryPolicy(base=0, cap=0, max_retry_after=0).bound(1) == 0


def test_the_bound_doubles_up_to_the_cap() -> None:
    """0.2, 0.4, 0.8, 1.6, then 2 seconds."""
    assert [RetryPolicy().bound(n) for n in range(1, 7)] == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


def test_the_bound_has_no_overflow() -> None:
    """A patient caller may allow thousands of attempts."""
    assert RetryPolicy(attempts=10_000).bound(9_999) == 2.0


@given(timeouts)
def test_timeouts_round_trip(value: Timeouts) -> None:
    """Settings may come from a configuration file."""
    assert value == Timeouts.from_json(value.to_json())
    assert value == Timeouts.from_dict(json.loads(json.dumps(value.to_dict())))


@given(policies)
def test_retry_policies_round_trip(value: RetryPolicy) -> None:
    """Settings may come from a configuration file."""
    assert value == RetryPolicy.from_json(value.to_json())
    assert value == RetryPolicy.from_dict(json.loads(json.dumps(value.to_dict())))


@pytest.mark.parametrize("kind", [Timeouts, RetryPolicy])
@pytest.mark.parametrize("value", [{"stal": 1}, {"connect": "5", "attempts": "5"}, 5, None, []])
def test_wrong_settings_are_refused(kind: Any, value: Any) -> None:
    """A misspelt setting is not silently dropped."""
    with pytest.raises(InvalidRequest):
        kind.from_dict(value)


@pytest.mark.parametrize("value", [5, 5.0, {"stall": 5}, RetryPolicy()])
def test_an_adapter_takes_timeouts_only(value: Any) -> None:
    """A number for all of them would be a guess."""
    with pytest.raises(InvalidRequest, match=r"^timeouts"):
        VllmHttpAdapter("http://127.0.0.1:1", timeouts=value)


@pytest.mark.parametrize("value", [3, {"attempts": 3}, Timeouts(), None])
def test_an_adapter_takes_a_retry_policy_only(value: Any) -> None:
    """As for the timeouts."""
    with pytest.raises(InvalidRequest, match=r"^retry"):
        VllmHttpAdapter("http://127.0.0.1:1", retry=value)


@pytest.mark.parametrize("value", [5, {"stall": 5}, RetryPolicy()])
def test_submit_takes_timeouts_only(value: Any) -> None:
    """What is wrong is known locally, so it is raised."""
    with (
        VllmHttpAdapter("http://127.0.0.1:1") as adapter,
        pytest.raises(InvalidRequest, match=r"^timeouts"),
    ):
        adapter.submit(TaskRequest(prompt="Hello"), timeouts=value)


@pytest.mark.parametrize("value", [None, "Hello", {"prompt": "Hello"}])
def test_submit_takes_a_task_only(value: Any) -> None:
    """A dict is not one; `TaskRequest.from_dict` makes it one."""
    with (
        VllmHttpAdapter("http://127.0.0.1:1") as adapter,
        pytest.raises(InvalidRequest, match=r"^task"),
    ):
        adapter.submit(value)
