"""The calls that make the engine work and have one JSON document as an answer.

They have the errors of a task, its retries, and one clock: their total time.
"""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ._ask import Asker, Late
from ._errors import InvalidRequest, StreamingError, Timeout, WorkerError
from ._failures import GARBAGE, of_status
from ._limits import mapping, number
from ._request import json_body
from ._retry import try_again
from ._settings import RetryPolicy, Timeouts
from ._transport_documents import MAX_ANSWER_BYTES


T = TypeVar("T")

_OF_ANOTHER_SHAPE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What a reader of JSON raises when it meets another shape, or a number beyond a float's range."""

_LONGEST = 10**9  # seconds, as for `Timeouts`


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """What is posted, and how its answer is read.

    Attributes:
        path: Below the base URL.
        fields: Of the JSON body; None means: not sent.
        read: Makes a value of the answer's JSON. What it raises for JSON of another shape
            (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) is caught.
        served_by: What an engine that answers 404 needs, to have the path.
    """

    path: str
    fields: Mapping[str, Any] = field(repr=False)  # a prompt is in them
    read: Callable[[Any], T]
    served_by: str = ""


class Caller:
    """Posts questions. Thread-safe.

    Args:
        asker: To the engine.
        retry: How often to try again.
        timeouts: Without a time of its own, a call takes `first_token` at most, or `total` where
            that is less.
    """

    def __init__(self, asker: Asker, retry: RetryPolicy, timeouts: Timeouts) -> None:
        self._asker = asker
        self._retry = retry
        limits = (timeouts.first_token, timeouts.total)
        self._within = min((limit for limit in limits if limit is not None), default=math.inf)

    def call(
        self, question: Question[T], extra_body: Mapping[str, Any] | None, timeout: float | None
    ) -> T:
        """The answer to a question.

        Args:
            question: What to ask.
            extra_body: More fields of the body, sent as they are.
            timeout: Seconds for all attempts together; None for the adapter's.

        Raises:
            InvalidRequest: `extra_body` or `timeout` is out of its limits, or a value cannot be
                written as JSON.
            WorkerError: No answer, or none that can be read.
        """
        if timeout is not None:
            number(0, _LONGEST, above=True)("timeout", timeout)
        body = _body_of(question, {} if extra_body is None else extra_body)
        within = self._within if timeout is None else timeout
        document = self._whole(question, _Call(self._asker, question.path, body, within))
        # Outside of the attempts: the engine would answer the same once more.
        if len(document) > MAX_ANSWER_BYTES:
            raise GARBAGE.error(
                f"{question.path}: the answer is larger than {MAX_ANSWER_BYTES} bytes; "
                "ask for less at once"
            )
        try:
            return _read(question, document)
        except StreamingError as failure:
            error = self._asker.unreadable(question.path, document, failure)
        raise error

    def _whole(self, question: Question[T], call: _Call) -> bytes:
        try:
            return call.attempt()
        except WorkerError as failure:
            failures = [failure]
        try:
            return try_again(call, self._retry, call.attempt, failures)
        except InvalidRequest as failure:
            if failure.status != 404 or not question.served_by:
                raise
            told = f"{failure.message}; {question.path} is served by {question.served_by}"
        raise of_status(404).error(told, status=404)


class _Call:
    """One call and its attempts; what `try_again` asks of it is named there."""

    def __init__(self, asker: Asker, path: str, body: bytes, within: float) -> None:
        self.last_failure: WorkerError | None = None
        self._asker = asker
        self._path = path
        self._body = body
        self._within = within
        self._until = time.monotonic() + within
        self._correlation_id = str(uuid.uuid4())

    @property
    def over(self) -> bool:
        return False  # `pause` raises after a close, and tells more than the last failure would

    @property
    def time_left(self) -> float:
        return max(0.0, self._until - time.monotonic())

    def pause(self, seconds: float) -> None:
        self._asker.pause(min(seconds, self.time_left))

    def attempt(self) -> bytes:
        """Ask once.

        Raises:
            WorkerError: No answer; `Timeout("deadline")` when there was no time for one.
        """
        headers = {"X-Request-Id": uuid.uuid4().hex, "X-Correlation-Id": self._correlation_id}
        try:
            if self.time_left == 0.0:
                raise Late
            return self._asker.post(self._path, self._body, headers, self._until)
        except Late:
            message = f"{self._path}: no whole answer within {self._within:g} s"
        raise Timeout(message, phase="deadline") from self.last_failure


def _body_of(question: Question[T], extra_body: Mapping[str, Any]) -> bytes:
    mapping("extra_body", extra_body)
    for key in extra_body:
        if key in question.fields:
            raise InvalidRequest(f"extra_body.{key}: not settable; it is an argument, or ours")
    sent = {name: value for name, value in question.fields.items() if value is not None}
    return json_body(sent, dict(extra_body))


def _read(question: Question[T], document: bytes) -> T:
    try:
        return question.read(json.loads(document))
    except (*_OF_ANOTHER_SHAPE, RecursionError):
        message = f"{question.path}: the engine's answer has not the form that was asked for"
    # Outside of the block: what was caught may hold the answer.
    raise StreamingError(message, retriable=False)
