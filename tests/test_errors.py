"""The errors: their tree, codes and attributes, and their way through pickle and JSON."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from values_support import PHASES, PLAIN_ERRORS, completions, errors, facts

import vllm_http
from vllm_http import (
    AdapterClosed,
    CapacityExceeded,
    Completion,
    EngineUnavailable,
    Error,
    InvalidRequest,
    StreamingError,
    Timeout,
    Unknown,
    WorkerError,
    event_from_dict,
)


ALL_ERRORS = (*PLAIN_ERRORS, Timeout)
CODES = {
    "ADMISSION_REJECT",
    "QUEUE_FULL_DROP_LRU",
    "INVALID_PARAMS",
    "POOL_UNREADY",
    "POOL_UNAVAILABLE",
    "REPLICA_EXHAUSTED",
    "DECODE_TIMEOUT",
    "WORKER_RESET",
    "INTERNAL",
    "DEADLINE_UNMET",
    "UPSTREAM_AUTH",
    "UPSTREAM_NOT_FOUND",
}


# The tree.


@pytest.mark.parametrize("kind", ALL_ERRORS)
def test_every_error_is_a_worker_error(kind: type[WorkerError]) -> None:
    """One `except` catches all, and none catches another's."""
    others = [other for other in ALL_ERRORS if other is not kind]

    assert issubclass(kind, WorkerError)
    assert not any(issubclass(kind, other) for other in others)


@pytest.mark.parametrize("kind", [WorkerError, *ALL_ERRORS])
def test_every_error_has_a_public_home(kind: type[WorkerError]) -> None:
    """A traceback names what can be imported."""
    assert kind.__module__ == "vllm_http"
    assert getattr(vllm_http, kind.__name__) is kind


def test_timeout_is_no_builtin_timeout_error() -> None:
    """That one means the caller's own patience, and is an OSError besides."""
    assert not issubclass(Timeout, TimeoutError)
    assert not any(issubclass(kind, OSError) for kind in ALL_ERRORS)


def test_invalid_request_is_a_value_error() -> None:
    """As Python expects of arguments."""
    assert issubclass(InvalidRequest, ValueError)


# What they say.


@pytest.mark.parametrize(
    ("error", "code", "retriable"),
    [
        (Timeout("m", phase="queued"), "ADMISSION_REJECT", True),
        (Timeout("m", phase="connect"), "POOL_UNAVAILABLE", True),
        (Timeout("m", phase="first_token"), "DECODE_TIMEOUT", True),
        (Timeout("m", phase="stall"), "DECODE_TIMEOUT", True),
        (Timeout("m", phase="deadline"), "DEADLINE_UNMET", False),
        (EngineUnavailable("m"), "POOL_UNAVAILABLE", True),
        (InvalidRequest("m"), "INVALID_PARAMS", False),
        (CapacityExceeded("m"), "ADMISSION_REJECT", True),
        (StreamingError("m"), "WORKER_RESET", True),
        (AdapterClosed("m"), "POOL_UNREADY", False),
        (Unknown("m"), "INTERNAL", False),
    ],
    ids=repr,
)
def test_code_and_hope(error: WorkerError, code: str, retriable: bool) -> None:
    """Each class says the envelope's code, and whether to submit the same task again."""
    assert code == error.code
    assert retriable is error.retriable
    assert code in CODES


@given(errors(st.none()))
def test_the_message_is_what_str_says(error: WorkerError) -> None:
    """A log line made of the error alone tells what happened."""
    assert error.message in str(error)
    assert type(error).__name__ in repr(error)


def test_attributes_default_to_none() -> None:
    """What is not known is None, and not invented."""
    error = EngineUnavailable("gone")

    assert (
        error.retry_after_ms,
        error.status,
        error.job_id,
        error.partial,
    ) == (None, None, None, None)


def test_a_phase_is_one_of_five() -> None:
    """The phases are a closed set, so that one can match on them."""
    assert tuple(Timeout("m", phase=phase).phase for phase in PHASES) == PHASES  # type: ignore[arg-type]


def test_errors_are_raised_and_caught_as_any_other() -> None:
    """The cause is kept, and notes may be added."""
    try:
        raise EngineUnavailable("gone") from ConnectionRefusedError("port closed")
    except WorkerError as error:
        caught = error

    assert isinstance(caught.__cause__, ConnectionRefusedError)


# Pickle, copy and JSON.


@given(errors(st.none() | completions(st.none())))
def test_pickle_keeps_everything(error: WorkerError) -> None:
    """An error crosses a process boundary, as Celery and multiprocessing need."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert facts(error) == facts(pickle.loads(pickle.dumps(error, protocol)))


@pytest.mark.parametrize("kind", [WorkerError, *ALL_ERRORS])
def test_every_class_pickles_and_copies(kind: type[WorkerError]) -> None:
    """With attributes that differ from the class's own."""
    error = kind(
        "m",
        code="X",
        retriable=not kind("m").retriable,
        retry_after_ms=5,
        status=599,
        job_id="j",
        partial=Completion(job_id="j", text="Hel"),
    )

    assert facts(error) == facts(pickle.loads(pickle.dumps(error)))
    assert facts(error) == facts(copy.copy(error))
    assert facts(error) == facts(copy.deepcopy(error))


@given(errors(st.none() | completions(st.none())))
def test_json_keeps_everything(error: WorkerError) -> None:
    """`to_dict` is JSON, and an `Error` event made of it holds the same error."""
    value = json.loads(json.dumps(error.to_dict()))
    again = event_from_dict({"type": "error", "error": value})

    assert isinstance(again, Error)
    assert facts(error) == facts(again.error)


def test_to_dict_has_the_envelope() -> None:
    """What orchestrators read has the names they read it by."""
    error = CapacityExceeded("full", retry_after_ms=1500, status=429, job_id="j")
    envelope = {
        "code": "ADMISSION_REJECT",
        "message": "full",
        "retriable": True,
        "retry_after_ms": 1500,
    }

    assert envelope.items() <= error.to_dict().items()
    assert {"status": 429, "job_id": "j"}.items() <= error.to_dict().items()
