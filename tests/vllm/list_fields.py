"""Print what vLLM's own models of its answers hold, as JSON: run by vLLM's Python.

A dotted path for each field, with ``[]`` after what is a list or a dict of the following.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import typing
from collections.abc import Iterator


MODELS = {
    "completions": ("completion", "CompletionStreamResponse", "CompletionResponse"),
    "chat": ("chat_completion", "ChatCompletionStreamResponse", "ChatCompletionResponse"),
}


def main() -> None:
    """Print the paths of the four answers."""
    found = {}
    for endpoint, (package, *names) in MODELS.items():
        module = importlib.import_module(f"vllm.entrypoints.openai.{package}.protocol")
        found[endpoint] = sorted({path for name in names for path in paths(getattr(module, name))})
    print(json.dumps(found))


def paths(model: type) -> Iterator[str]:
    """The fields of a model, and of those inside it."""
    for name, kind in hints(model).items():
        inner: list[type] = [one for one in arguments(kind) if is_model(one)]
        if not inner:
            yield name
        several = "[]" if any(part in (list, dict) for part in arguments(kind)) else ""
        for one in inner:
            for path in paths(one):
                yield f"{name}{several}.{path}"


def hints(model: type) -> dict[str, object]:
    """The types of its fields."""
    pydantics = getattr(model, "model_fields", None)
    if pydantics is None:
        return typing.get_type_hints(model)
    return {name: field.annotation for name, field in pydantics.items()}


def is_model(kind: typing.Any) -> bool:
    """Whether it has fields."""
    return isinstance(kind, type) and (
        hasattr(kind, "model_fields") or dataclasses.is_dataclass(kind)
    )


def arguments(kind: typing.Any) -> Iterator[typing.Any]:
    """A type and all those that it is made of."""
    yield kind
    origin = typing.get_origin(kind)
    if origin is not None:
        yield origin
    for argument in typing.get_args(kind):
        yield from arguments(argument)


if __name__ == "__main__":
    main()
