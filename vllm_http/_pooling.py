"""Embeddings, scores and ranks: what is asked of a pooling model, and what it answers."""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ._call import Question
from ._errors import InvalidRequest
from ._limits import text, token_ids, whole
from ._values import Value


T = TypeVar("T")

_POOLING = "an engine that runs a model for it with --runner pooling"


@dataclass(frozen=True)
class Embeddings(Value):
    """What `VllmHttpAdapter.embed` returns.

    Attributes:
        vectors: One for each input, in the order of the inputs. The numbers are 32-bit floats, as
            the engine made them: also a NaN, where it made one.
        model: The model that made them, as the engine names it.
        tokens_in: Tokens of all inputs together, counted by the engine; None if it does not tell.
    """

    vectors: list[list[float]] = field(repr=False)  # hundreds of thousands of numbers
    model: str | None = None
    tokens_in: int | None = None


@dataclass(frozen=True)
class Ranked(Value):
    """One document of `VllmHttpAdapter.rerank`.

    Attributes:
        index: Its place in the list that was given, from 0.
        score: How relevant it is, the higher the better; the model decides on the range.
        document: The document itself.
    """

    index: int
    score: float
    document: str = field(repr=False)  # the caller's, as a prompt is


def embedding(input: object, model: str | None, dimensions: int | None) -> Question[Embeddings]:
    """Ask for the vectors of inputs.

    Raises:
        InvalidRequest: An argument is out of its limits; what is part of an input is not shown.
    """
    count = _check_inputs(input)
    _check_model(model)
    if dimensions is not None:
        whole(1)("dimensions", dimensions)
    return Question(
        "/v1/embeddings",
        {
            "model": model,
            "input": input,
            "dimensions": dimensions,
            # A quarter of the bytes of decimal numbers, and not a digit is lost.
            "encoding_format": "base64",
            "embed_dtype": "float32",
            # vLLM's default is its machine's own; servers that do not know this run on such.
            "endianness": "little",
        },
        lambda answer: Embeddings(
            _in_order(answer["data"], count, lambda entry: _vector(entry["embedding"])),
            answer["model"] if isinstance(answer.get("model"), str) else None,
            _tokens_in(answer),
        ),
        _POOLING,
    )


def scoring(queries: object, documents: object, model: str | None) -> Question[list[float]]:
    """Ask for the scores of pairs.

    Raises:
        InvalidRequest: An argument is out of its limits; what is part of a text is not shown.
    """
    many = _check_texts("queries", queries)
    count = _check_texts("documents", documents)
    if many not in (1, count):
        raise InvalidRequest(
            f"queries: {many} for {count} documents; 1 is wanted, or as many as documents"
        )
    _check_model(model)
    return Question(
        "/v1/score",
        # The names that vLLM has always had; 0.32 takes `queries` and `documents` as well.
        {"model": model, "text_1": queries, "text_2": documents},
        lambda answer: _in_order(answer["data"], count, lambda entry: _float(entry["score"])),
        _POOLING,
    )


def reranking(
    query: str, documents: list[str], model: str | None, top_n: int | None
) -> Question[list[Ranked]]:
    """Ask for documents in the order of their relevance.

    Raises:
        InvalidRequest: An argument is out of its limits; what is part of a text is not shown.
    """
    if not isinstance(query, str):
        raise InvalidRequest(f"query: text is wanted, not {type(query).__name__}")
    if not isinstance(documents, list):
        raise InvalidRequest(f"documents: a list is wanted, not {type(documents).__name__}")
    documents = list(documents)  # those of the answer, whatever becomes of the caller's list
    count = _check_texts("documents", documents)
    _check_model(model)
    if top_n is not None:
        whole(1)("top_n", top_n)
        count = min(count, top_n)
    return Question(
        "/v1/rerank",
        {"model": model, "query": query, "documents": documents, "top_n": top_n},
        lambda answer: _ranked(answer["results"], documents, count),
        _POOLING,
    )


def _check_inputs(value: object) -> int:
    """How many vectors are asked for."""
    if isinstance(value, str):
        return 1
    wanted = "text, token ids, or a list of one of them is wanted"
    if not isinstance(value, list):
        raise InvalidRequest(f"input: {wanted}, not {type(value).__name__}")
    if not value:
        raise InvalidRequest(f"input: {wanted}, not an empty list")
    if type(value[0]) is int:
        token_ids("input", value)
        return 1
    if isinstance(value[0], list):
        for position, ids in enumerate(value):
            if not isinstance(ids, list) or not ids:
                raise InvalidRequest(f"input[{position}]: a list of at least 1 token id is wanted")
            token_ids(f"input[{position}]", ids)
        return len(value)
    return _check_texts("input", value)


def _check_texts(name: str, value: object) -> int:
    """How many texts there are."""
    if isinstance(value, str):
        return 1
    if not isinstance(value, list) or not value:
        given = "an empty list" if value == [] else type(value).__name__
        raise InvalidRequest(f"{name}: text, or a list of at least 1, is wanted, not {given}")
    for position, item in enumerate(value):
        if not isinstance(item, str):
            raise InvalidRequest(f"{name}[{position}]: text is wanted, not {type(item).__name__}")
    return len(value)


def _check_model(model: object) -> None:
    if model is not None:
        text("model", model)


def _in_order(entries: Any, count: int, read: Callable[[Any], T]) -> list[T]:
    """What the entries hold, each at its index."""
    found = {entry["index"]: read(entry) for entry in entries}
    if not len(found) == len(entries) == count:
        raise ValueError
    return [found[index] for index in range(count)]


def _ranked(entries: Any, documents: list[str], count: int) -> list[Ranked]:
    scores = {entry["index"]: _float(entry["relevance_score"]) for entry in entries}
    if not len(scores) == len(entries) == count or not scores.keys() <= set(range(len(documents))):
        raise ValueError
    best = sorted(scores, key=lambda index: -scores[index])
    return [Ranked(index, scores[index], documents[index]) for index in best]


def _vector(value: Any) -> list[float]:
    if isinstance(value, str):
        numbers = array("f")
        numbers.frombytes(base64.b64decode(value, validate=True))
        if sys.byteorder == "big":
            numbers.byteswap()
        return numbers.tolist()
    return array("d", value).tolist()  # a server that knows decimal numbers only


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError
    return float(value)


def _tokens_in(answer: Any) -> int | None:
    usage = answer.get("usage")
    tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return tokens if type(tokens) is int else None
