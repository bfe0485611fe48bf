"""The routes of vLLM's pooling models, and text back from tokens. The shapes are vLLM 0.32's.

A real server has these or completions, never both; this one is for tests and has all of them.
"""

from __future__ import annotations

import base64
import struct
import time
from collections.abc import Callable
from typing import Any

from . import _words
from ._generation import Model
from ._refusals import Refusal


DIMENSIONS = 8
"""Numbers of a vector."""


def answer(route: str, body: dict[str, Any], model: Model) -> dict[str, Any]:
    """The JSON of one of the `ROUTES`.

    Raises:
        Refusal: with vLLM's status and text.
    """
    if body.get("model") not in (None, model.name):
        message = f"The model `{body['model']}` does not exist."
        raise Refusal(message, status=404, type="NotFoundError", param=None)
    return ROUTES[route](body, model)


def _embeddings(body: dict[str, Any], model: Model) -> dict[str, Any]:
    inputs = _inputs(body.get("input"))
    if body.get("dimensions") is not None:
        raise _bad_value(
            f"Model '{model.name}' does not support Matryoshka embeddings; dimensions must be unset"
            f" (received dimensions={body['dimensions']})."
        )
    data = [
        {"index": index, "object": "embedding", "embedding": _encoded(_vector(ids), body)}
        for index, ids in enumerate(inputs)
    ]
    return _list("embd", body, model, data, sum(map(len, inputs)))


def _scores(body: dict[str, Any], model: Model) -> dict[str, Any]:
    firsts = _inputs(body.get("text_1", body.get("queries")))
    seconds = _inputs(body.get("text_2", body.get("documents")))
    if len(firsts) not in (1, len(seconds)):
        raise _bad_value("Input lengths must be either 1:1, 1:N or N:N")
    pairs = zip(firsts * (len(seconds) // len(firsts)), seconds, strict=True)
    data = [
        {"index": index, "object": "score", "score": _likeness(first, second)}
        for index, (first, second) in enumerate(pairs)
    ]
    return _list("score", body, model, data, sum(map(len, firsts + seconds)))


def _ranks(body: dict[str, Any], model: Model) -> dict[str, Any]:
    documents = body.get("documents") or []
    (query,) = _inputs(body.get("query"))
    ids = _inputs(documents)
    results: list[dict[str, Any]] = [
        {
            "index": index,
            "document": {"text": documents[index], "multi_modal": None},
            "relevance_score": _likeness(query, document),
        }
        for index, document in enumerate(ids)
    ]
    results.sort(key=lambda result: result["relevance_score"], reverse=True)
    tokens = len(query) + sum(map(len, ids))
    return {
        "id": f"score-{_words.hex_digits(body)}",
        "model": model.name,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "results": results[: body.get("top_n") or len(results)],
    }


def _detokenized(body: dict[str, Any], model: Model) -> dict[str, Any]:
    # An id is made of a text and cannot be turned back: other text, but the same every time.
    return {"prompt": "".join(f" t{token}" for token in body.get("tokens") or [])}


def _inputs(value: Any) -> list[list[int]]:
    """The token ids of each input."""
    is_one = isinstance(value, str) or (bool(value) and isinstance(value[0], int))
    inputs = [value] if is_one else value
    if not inputs:
        raise _bad_value("You must pass at least one prompt")
    ids = [
        [word.id for word in _words.tokenize(item)] if isinstance(item, str) else item
        for item in inputs
    ]
    if not all(ids):
        raise _bad_value("The decoder prompt cannot be empty")
    return ids


def _vector(ids: list[int]) -> list[float]:
    """Numbers that look like an embedding: equal inputs give equal ones, of length 1."""
    digits = _words.hex_digits(*ids)
    numbers = [int(digits[2 * n : 2 * n + 2], 16) - 127.5 for n in range(DIMENSIONS)]
    length = sum(number * number for number in numbers) ** 0.5
    return [number / length for number in numbers]


def _likeness(first: list[int], second: list[int]) -> float:
    return sum(a * b for a, b in zip(_vector(first), _vector(second), strict=True))


def _encoded(vector: list[float], body: dict[str, Any]) -> list[float] | str:
    order = ">" if body.get("endianness") == "big" else "<"
    packed = struct.pack(f"{order}{len(vector)}f", *vector)
    if body.get("encoding_format") == "base64":
        return base64.b64encode(packed).decode()
    return list(struct.unpack(f"{order}{len(vector)}f", packed))


def _list(
    prefix: str, body: dict[str, Any], model: Model, data: list[dict[str, Any]], tokens: int
) -> dict[str, Any]:
    return {
        "id": f"{prefix}-{_words.hex_digits(body)}",
        "object": "list",
        "created": int(time.time()),
        "model": model.name,
        "data": data,
        "usage": {
            "prompt_tokens": tokens,
            "total_tokens": tokens,
            "completion_tokens": 0,
            "prompt_tokens_details": None,
            "completion_tokens_details": None,
        },
    }


def _bad_value(message: str) -> Refusal:
    return Refusal(message, status=400, type="BadRequestError", param=None)


ROUTES: dict[str, Callable[[dict[str, Any], Model], dict[str, Any]]] = {
    "/v1/embeddings": _embeddings,
    **dict.fromkeys(("/score", "/v1/score"), _scores),
    **dict.fromkeys(("/rerank", "/v1/rerank", "/v2/rerank"), _ranks),
    "/detokenize": _detokenized,
}
"""All of them take POST."""
