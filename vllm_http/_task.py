"""What a caller asks for: `TaskRequest`, and the rules that hold between its fields."""

# ruff: noqa: RUF009 - what is called makes a field of its own for each

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass, field, fields
from typing import Any

from ._errors import InvalidRequest, named, shown
from ._frames import frameless
from ._limits import Endpoint, identifier, kept, mapping, sent, text, token_ids, whole
from ._structured import StructuredOutputs, response_format, with_schema
from ._task_input import InputFields
from ._task_output import OutputFields
from ._task_sampling import SamplingFields
from ._values import Value


_OWNED = ("stream", "stream_options", "prompt", "messages", "prompt_embeds")

_REMOVED = {
    "guided_json": "structured_outputs={'json': ...}",
    "guided_regex": "structured_outputs={'regex': ...}",
    "guided_choice": "structured_outputs={'choice': ...}",
    "guided_grammar": "structured_outputs={'grammar': ...}",
    "guided_whitespace_pattern": "structured_outputs={'whitespace_pattern': ...}",
    "guided_decoding_backend": "the server's --structured-outputs-config",
    "best_of": "n, or use_beam_search",
}
"""What vLLM 0.32 no longer knows, and would ignore without a word."""


def _prompt(name: str, value: Any) -> None:
    if isinstance(value, list) and value and isinstance(value[0], (str, list)):
        for position, prompt in enumerate(value):
            if not isinstance(prompt, type(value[0])):
                raise InvalidRequest(f"{name}[{position}]: text and token ids are in one list")
            _one_prompt(f"{name}[{position}]", prompt)
    else:
        _one_prompt(name, value)


def _one_prompt(name: str, value: Any) -> None:
    if not isinstance(value, (str, list)):
        kind = type(value).__name__
        raise InvalidRequest(f"{name}: text, token ids or a list of either is wanted, not {kind}")
    if not value:
        raise InvalidRequest(f"{name}: {value!r} is empty; vLLM wants at least one token")
    if isinstance(value, list):
        token_ids(name, value)


def _messages(name: str, value: Any) -> None:
    if not isinstance(value, list) or not value:
        raise InvalidRequest(f"{name}: a list of at least one message is wanted")
    for position, message in enumerate(value):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise InvalidRequest(f"{name}[{position}]: a dict with a 'role' is wanted")


@dataclass(kw_only=True)
class TaskRequest(InputFields, OutputFields, SamplingFields, Value):
    """One request of the caller. None means: not sent, so that the engine's default holds.

    Exactly one of `prompt`, `messages` and `prompt_embeds` is given. Nothing is checked until
    `validate`, which `submit` and `from_json` call. Values are read once, at `submit`. All of
    vLLM's other parameters are fields under vLLM's own names: see `SamplingFields`,
    `OutputFields` and `InputFields`, whose attributes are this class's, or docs/requests.md.

    Attributes:
        prompt: Text, or token ids, or a list of either, whose answers then tell themselves apart
            by `Token.choice`: the k-th answer to prompt i has choice ``i * n + k``. Goes to
            ``/v1/completions``.
        messages: A chat, each message a dict with ``role`` and ``content``; goes to
            ``/v1/chat/completions``.
        model: A name that the engine serves, a LoRA adapter's too; without one vLLM takes its
            first model.
        session_id: For affinity and logs; not sent.
        deadline_ms: Milliseconds from `submit` to the end, waiting and retries included.
        correlation_id: Sent as ``X-Correlation-Id``; the job_id if None.
        job_id: Unique among the adapter's live tasks; `submit` makes a UUID if None.
        extra_body: More fields of the request body under vLLM's own names, sent as they are. It
            may not set ``stream``, ``stream_options`` (see `include_usage`), ``prompt`` or
            ``messages``, nor repeat a field that is set above, nor use a name that vLLM has given
            up.
    """

    prompt: str | list[int] | list[str] | list[list[int]] | None = sent(_prompt)
    messages: list[dict[str, Any]] | None = sent(_messages)
    model: str | None = sent(text)
    session_id: str | None = kept(identifier)
    deadline_ms: int | None = kept(whole(1, 10**12))
    correlation_id: str | None = kept(identifier)
    job_id: str | None = kept(identifier)
    extra_body: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.response_format, type):
            self.response_format = response_format(self.response_format)
        if isinstance(self.structured_outputs, dict):
            self.structured_outputs = with_schema(self.structured_outputs)

    def __repr__(self) -> str:
        """What is set, but for what was said: a task is soon in a log or a traceback."""
        members = ((f, getattr(self, f.name)) for f in fields(self))
        told = (
            f"{f.name}={_told(f.name, value)}"
            for f, value in members
            if not (value is None or value is f.default or (isinstance(value, dict) and not value))
        )
        return f"TaskRequest({', '.join(told)})"

    @property
    def endpoint(self) -> Endpoint:
        """Where it goes."""
        return "completions" if self.messages is None else "chat"

    @property
    def streamed(self) -> bool:
        """Whether vLLM streams the answer; else it comes in one piece."""
        return not self.use_beam_search and self.prompt_logprobs is None

    @frameless
    def validate(self) -> None:
        """Check every limit that is known before the wire (those of vLLM 0.32).

        Raises:
            InvalidRequest: Names the field, its value and the limit.
        """
        given = [name for name in _INPUTS if getattr(self, name) is not None]
        if len(given) != 1:
            found = "neither" if not given else " and ".join(given)
            raise InvalidRequest(f"prompt, messages: exactly one of the two is wanted, not {found}")
        endpoint = self.endpoint
        for name, check, only in _CHECKED:
            value = getattr(self, name)
            if value is not None:
                if only is not None and only != endpoint:
                    other = "messages" if only == "chat" else "prompt"
                    raise InvalidRequest(f"{name}: vLLM takes it with {other} only")
                check(name, value)
        self._check_between_fields()
        self._check_extra_body()

    def _check_between_fields(self) -> None:
        for broken, rule in (
            (self.max_tokens == 0 and not self.echo, "max_tokens: 0 is not a whole number >= 1"),
            (
                self.min_tokens and self.max_tokens and self.min_tokens > self.max_tokens,
                f"min_tokens: {self.min_tokens} is more than max_tokens, {self.max_tokens}",
            ),
            (
                self.temperature == 0 and (self.n or 1) > 1 and not self.use_beam_search,
                f"n: {self.n} answers are all the same at temperature 0; vLLM wants 1",
            ),
            (
                self.logprobs is not None
                and isinstance(self.logprobs, bool) != (self.endpoint == "chat"),
                f"logprobs: {self.logprobs} is of the wrong kind; vLLM wants "
                + ("True or False for messages" if self.messages else "a number for a prompt"),
            ),
            (
                self.top_logprobs and not self.logprobs,
                f"top_logprobs: {self.top_logprobs} needs logprobs=True",
            ),
            (
                self.logprob_token_ids is not None and not self.logprobs,
                "logprob_token_ids: it needs logprobs",
            ),
            (
                self.continue_final_message and self.add_generation_prompt is not False,
                "continue_final_message: it needs add_generation_prompt=False",
            ),
            (
                self.tool_choice not in (None, "none") and not self.tools,
                f"tool_choice: {shown(self.tool_choice)} needs tools",
            ),
            (
                self.tools and not _chosen(self.tool_choice, self.tools),
                f"tool_choice: {shown(self.tool_choice)} is none of the tools",
            ),
        ):
            if broken:
                raise InvalidRequest(rule)

    def _check_extra_body(self) -> None:
        mapping("extra_body", self.extra_body)
        for key in self.extra_body:
            if key in _OWNED:
                instead = "; use include_usage" if key == "stream_options" else ""
                raise InvalidRequest(
                    f"extra_body.{key}: not settable; the adapter owns this field{instead}"
                )
            if key in _REMOVED:
                raise InvalidRequest(f"extra_body.{key}: vLLM has removed it; use {_REMOVED[key]}")
            if key in _FIELDS and getattr(self, key, None) is not None:
                raise InvalidRequest(f"extra_body.{key}: already set as the field {key}")

    @classmethod
    @frameless
    def from_dict(cls, kvs: Any, *, infer_missing: bool = False) -> TaskRequest:
        """The task that `to_dict` wrote; missing keys take their defaults.

        Raises:
            InvalidRequest: An unknown key, a wrong type, or a limit of `validate`.
        """
        if not isinstance(kvs, dict):
            raise InvalidRequest(f"task: a JSON object is wanted, not {type(kvs).__name__}")
        for key in kvs:
            if key in _REMOVED:
                raise InvalidRequest(f"{key}: vLLM has removed it; use {_REMOVED[key]}")
            if key not in _FIELDS:
                raise InvalidRequest(f"{named(key)}: no field of a task; put it into extra_body")
        structured = kvs.get("structured_outputs")
        if isinstance(structured, dict):
            kvs = {**kvs, "structured_outputs": StructuredOutputs.from_dict(structured)}
        task = cls(**kvs)
        task.validate()
        return task


def _told(name: str, value: Any) -> str:
    if name not in _UNTOLD:
        try:
            return repr(value)
        except Exception:  # an int of more digits than Python prints, or somebody's own class
            return shown(value)
    size = f" of {len(value)}" if isinstance(value, Sized) else ""
    return f"<{type(value).__name__}{size}>"


# What was said, and what keeps one tenant's cached prefixes from another's.
_UNTOLD = (
    *("prompt", "messages", "prompt_embeds", "suffix", "documents", "extra_body"),
    "cache_salt",
)


def _chosen(choice: Any, tools: list[dict[str, Any]]) -> bool:
    """Whether a choice of a function is one of the tools; any other choice is good."""
    return not isinstance(choice, dict) or _named(choice) in map(_named, tools)


def _named(tool: dict[str, Any]) -> Any:
    function = tool["function"]
    return function.get("name") if isinstance(function, dict) else None


_FIELDS = frozenset(f.name for f in fields(TaskRequest))
_INPUTS = ("prompt", "messages", "prompt_embeds")
_FIRST = ("model", *_INPUTS)
_CHECKED = [
    (f.name, f.metadata["check"], f.metadata["only"]) for f in fields(TaskRequest) if f.metadata
]
SENT = _FIRST + tuple(
    f.name for f in fields(TaskRequest) if f.metadata.get("sent") and f.name not in _FIRST
)
"""The fields that go on the wire, under their own names."""
