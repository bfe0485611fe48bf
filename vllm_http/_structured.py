"""Structured outputs: what an answer must match, and JSON schemas of Python types."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import msgspec

from ._errors import InvalidRequest, shown
from ._frames import frameless
from ._limits import flag, mapping
from ._redact import printable
from ._values import Value


_CONSTRAINTS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")


@dataclass(kw_only=True)
class StructuredOutputs(Value):
    """What an answer must match: exactly one of the first six. vLLM compiles it (0.32).

    Attributes:
        json: A JSON schema, as a dict or as text; or a dataclass, a TypedDict, a msgspec Struct
            or a pydantic model, whose schema is taken at once.
        regex: A regular expression that the whole answer matches.
        choice: The answers that are allowed.
        grammar: A context-free grammar, in GBNF or Lark's form.
        json_object: True for any JSON object.
        structural_tag: JSON text: where in the answer a schema begins to hold.
        disable_any_whitespace: Make compact JSON.
        disable_additional_properties: Let no object have more than its schema names.
        whitespace_pattern: A regular expression of the whitespace between JSON's parts.
    """

    json: dict[str, Any] | str | type | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: str | None = None
    disable_any_whitespace: bool | None = None
    disable_additional_properties: bool | None = None
    whitespace_pattern: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.json, type):
            self.json = json_schema(self.json)

    def on_the_wire(self) -> dict[str, Any]:
        """The members that are set."""
        members = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in members.items() if value is not None}

    @classmethod
    @frameless
    def from_dict(cls, kvs: Any, *, infer_missing: bool = False) -> StructuredOutputs:
        """The value that `to_dict` wrote, or that goes on the wire.

        Raises:
            InvalidRequest: It is no object, or has an unknown key.
        """
        mapping("structured_outputs", kvs)
        known = {f.name for f in fields(cls)}
        for key in kvs:
            if key not in known:
                raise InvalidRequest(f"structured_outputs: no field {shown(key)}")
        return cls(**kvs)


def check_structured(name: str, value: Any) -> None:
    """Refuse all but one constraint of a type that vLLM takes.

    Raises:
        InvalidRequest: Names what is wrong.
    """
    if isinstance(value, dict):
        value = StructuredOutputs.from_dict(value)
    if not isinstance(value, StructuredOutputs):
        raise InvalidRequest(
            f"{name}: StructuredOutputs or a dict is wanted, not {type(value).__name__}"
        )
    given = [key for key in _CONSTRAINTS if getattr(value, key) is not None]
    if len(given) != 1:
        found = ", ".join(given) or "none"
        raise InvalidRequest(
            f"{name}: exactly one of {', '.join(_CONSTRAINTS)} is wanted, not {found}"
        )
    for key, kinds in _KINDS.items():
        member = getattr(value, key)
        if member is not None and not (isinstance(member, kinds) and member):
            raise InvalidRequest(f"{name}.{key}: {shown(member)} is not {_WANTED[kinds]}")
    for key in ("disable_any_whitespace", "disable_additional_properties"):
        member = getattr(value, key)
        if member is not None:
            flag(f"{name}.{key}", member)
    for position, choice in enumerate(value.choice or ()):
        if not isinstance(choice, str):
            raise InvalidRequest(f"{name}.choice[{position}]: {shown(choice)} is not text")


_KINDS: dict[str, Any] = {
    "json": (dict, str),
    "regex": str,
    "choice": list,
    "grammar": str,
    "json_object": bool,
    "structural_tag": str,
    "whitespace_pattern": str,
}
_WANTED: dict[Any, str] = {
    (dict, str): "a JSON schema, as a dict, text or a type",
    str: "text of at least 1 character",
    list: "a list of at least 1 text",
    bool: "True",
}


def json_schema(kind: type) -> dict[str, Any]:
    """The JSON schema of a dataclass, TypedDict, msgspec Struct or pydantic model.

    Raises:
        InvalidRequest: The type has none.
    """
    own = getattr(kind, "model_json_schema", None)
    try:
        if own is not None:
            schema: dict[str, Any] = own()
            return schema
        return msgspec.json.schema(kind)
    except Exception as failure:  # any class may be given; each fails in its own way
        why = printable(str(failure)) or type(failure).__name__
    raise InvalidRequest(f"{kind.__name__} has no JSON schema: {why}")


def with_schema(structured: dict[str, Any]) -> dict[str, Any]:
    """Structured outputs as a dict, with the JSON schema in place of a type that stands for it.

    Raises:
        InvalidRequest: The type has no JSON schema.
    """
    kind = structured.get("json")
    return {**structured, "json": json_schema(kind)} if isinstance(kind, type) else structured


def response_format(kind: type) -> dict[str, Any]:
    """The ``response_format`` that asks for a type's JSON.

    Raises:
        InvalidRequest: The type has no JSON schema.
    """
    named = {"name": kind.__name__, "schema": json_schema(kind)}
    return {"type": "json_schema", "json_schema": named}
