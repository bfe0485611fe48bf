"""What a stream yields: `Started`, then `Token`s, then exactly one `End` or `Error`.

The events are plain slotted dataclasses: one is made for each token, and a frozen one costs four
times as much. Treat them as values all the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, TypeAlias, TypedDict

from ._answer import AnswerInfo, Choice, Logprob, ToolCall, ToolCallDelta, says_nothing
from ._errors import InvalidRequest, Phase, WorkerError, error_from_dict, shown
from ._frames import frameless
from ._metrics import Metrics
from ._values import Value, read, read_json


class _Event:
    """JSON for the four events, each under its ``"type"``."""

    __slots__ = ()
    type: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        """The event as JSON-able values with a ``"type"`` key."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return {"type": self.type, **{name: _plain(value) for name, value in values.items()}}

    def to_json(self) -> str:
        """The event as one line of JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False)


@dataclass(slots=True)
class Started(_Event):
    """The engine has answered 200. It may still queue the request.

    Attributes:
        job_id: The task's job.
        engine_version: From the engine's ``/version``, or ``"unknown"``.
        request_id: The X-Request-Id of the accepted attempt; vLLM's own id is ``cmpl-<it>`` or
            ``chatcmpl-<it>``.
    """

    type: ClassVar[str] = "started"

    job_id: str
    engine_version: str
    request_id: str


@dataclass(slots=True)
class Token(_Event):
    """A piece of text, of one or several of the model's tokens.

    Attributes:
        text: Never part of a character; "" where something else comes without text.
        index: 0, 1, 2, ... within its choice, without gaps.
        choice: Which of the choices; see `Choice`.
        token_ids: The tokens behind it, when asked for (``return_token_ids``).
        logprobs: Of each token behind it, when asked for.
        reasoning: More of what a reasoning model thinks before it answers.
        tool_calls: More of the calls that it makes; `End.choices` has them whole.
        refusal: More of why it will not answer, where the server tells it apart.
    """

    type: ClassVar[str] = "token"

    text: str
    index: int
    choice: int = 0
    token_ids: list[int] | None = None
    logprobs: list[Logprob] | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCallDelta] | None = None
    refusal: str | None = None


@dataclass(slots=True)
class End(_Event):
    """The stream ended honestly, or was cancelled.

    Attributes:
        metrics: What it cost.
        finish_reason: Choice 0's: ``"stop"``, ``"length"``, ... as vLLM says it; ``"cancelled"``
            after a cancel.
        stop_reason: The stop string or stop token id that ended choice 0, if one did.
        request_id: The X-Request-Id of the attempt that served; None if none did.
        choices: How each choice ended, with its tool calls and what was told of its prompt. Not
            what it said: text, reasoning, token ids and logprobs are in the tokens, and all
            together in `TokenStream.result`. An event that travels repeats no other.
        info: What the answer says of itself; None if none came.
    """

    type: ClassVar[str] = "end"

    metrics: Metrics
    finish_reason: str
    stop_reason: int | str | None = None
    request_id: str | None = None
    choices: list[Choice] = field(default_factory=list)
    info: AnswerInfo | None = None


@dataclass(slots=True)
class Error(_Event):
    """The stream failed; what came before it was real.

    Attributes:
        error: Why.
        metrics: What it cost; None if the task never began.
        choices: How far each choice had come, as in an `End`: also what was told of its prompt.
        info: What the answer had said of itself; None if nothing.
    """

    type: ClassVar[str] = "error"

    error: WorkerError
    metrics: Metrics | None = None
    choices: list[Choice] = field(default_factory=list)
    info: AnswerInfo | None = None


TokenEvent: TypeAlias = Started | Token | End | Error


@dataclass(frozen=True)
class Completion(Value):
    """A whole answer, or what there was of it.

    Attributes:
        job_id: The task's job.
        text: Choice 0's.
        finish_reason: Choice 0's; None if it did not finish.
        stop_reason: Choice 0's.
        token_ids: Choice 0's, when asked for.
        metrics: From the `End` or the `Error`.
        choices: All of them, by index.
        error: Why it failed; None if it did not.
        info: From the `End` or the `Error`.
    """

    job_id: str | None
    text: str = ""
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    token_ids: list[int] | None = None
    metrics: Metrics | None = None
    choices: list[Choice] = field(default_factory=list)
    error: WorkerError | None = None
    info: AnswerInfo | None = None

    @property
    def reasoning(self) -> str:
        """Choice 0's."""
        return self.choices[0].reasoning if self.choices else ""

    @property
    def tool_calls(self) -> list[ToolCall]:
        """Choice 0's, whole."""
        return self.choices[0].tool_calls if self.choices else []

    @property
    def refusal(self) -> str:
        """Choice 0's."""
        return self.choices[0].refusal if self.choices else ""

    def message(self, *, reasoning: bool = False) -> dict[str, Any]:
        """Choice 0 as the message that follows those of the task.

        To go on with the chat, append it to them as it is: the engine then finds all but the
        new message in its prefix cache.

        Args:
            reasoning: Carry the reasoning back, under vLLM's own name, ``reasoning``. It is for
                models that think between calls of tools and go on with their thoughts once the
                tool has answered (gpt-oss, MiniMax-M2, Kimi K2 Thinking, ...); what becomes of it
                is up to the model's chat template.
        """
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if reasoning and self.reasoning:
            message["reasoning"] = self.reasoning
        if self.refusal:
            message["refusal"] = self.refusal
        if self.tool_calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {
                        "name": call.name,
                        # vLLM refuses a call whose arguments are no JSON object.
                        "arguments": "{}"
                        if says_nothing(call.arguments)
                        else call.arguments.strip(),
                    },
                }
                for call in self.tool_calls
            ]
        return message

    def to_dict(self, encode_json: bool = False) -> dict[str, Any]:
        """The completion as JSON-able values, its error included."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}

    def to_json(self, **options: Any) -> str:
        """The completion as JSON."""
        return json.dumps(self.to_dict(), **options)

    @classmethod
    def _read_custom(cls, kind: type, value: Any) -> Any:
        return _read_error(kind, value)


WorkerError._read_partial = Completion.from_dict


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, WorkerError):
        return value.to_dict()
    if is_dataclass(value):  # not by dataclasses-json, which takes 70 us for a token
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    return value


class _ErrorFields(TypedDict, total=False):
    """What `WorkerError.to_dict` writes."""

    error: str
    message: str
    code: str
    retriable: bool
    retry_after_ms: int | None
    status: int | None
    job_id: str | None
    phase: Phase
    partial: Completion | None


def _read_error(kind: type, value: Any) -> WorkerError:
    fields: dict[str, Any] = {**read(_ErrorFields, value, _read_error)}
    error = error_from_dict({**value, **fields})
    error.partial = fields.get("partial")
    return error


_EVENTS: dict[str, type[Started | Token | End | Error]] = {
    cls.type: cls for cls in (Started, Token, End, Error)
}


@frameless
def event_from_dict(value: dict[str, Any]) -> TokenEvent:
    """The event that ``to_dict`` wrote.

    Raises:
        InvalidRequest: It is no event of this package: a wrong type, a missing or an unknown key.
    """
    if not isinstance(value, dict):
        raise InvalidRequest(f"event: a JSON object is wanted, not {type(value).__name__}")
    values = dict(value)
    kind = values.pop("type", None)
    if not isinstance(kind, str) or kind not in _EVENTS:
        raise InvalidRequest(f"type: {shown(kind)} is none of {', '.join(_EVENTS)}")
    return read(_EVENTS[kind], values, _read_error)


@frameless
def event_from_json(text: str | bytes) -> TokenEvent:
    """The event that ``to_json`` wrote.

    Raises:
        InvalidRequest: It is not JSON, or no event of this package.
    """
    return event_from_dict(read_json("event", text))
