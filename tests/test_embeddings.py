"""embed: what goes out, what may come back, and what is refused before the wire."""

from __future__ import annotations

import base64
import json
import sys
from array import array
from typing import Any

import pytest
import support
from calls_support import (
    THREE,
    encoded,
    quick,
    replying,
    says,
    sent_body,
    the_failure,
    vectors_answer,
)
from hypothesis import given
from hypothesis import strategies as st

from vllm_http import InvalidRequest, StreamingError, VllmHttpAdapter
from vllm_http._call import _read as read_answer
from vllm_http._pooling import Embeddings, embedding
from vllm_http.testing import FakeEngine


engine, adapter = support.engine, support.adapter

PATH = "/v1/embeddings"


def read(body: Any, input: Any) -> Embeddings:
    """What an answer is read as."""
    return embedding(input, None, None).read(json.loads(json.dumps(body)))


@pytest.mark.parametrize(
    ("input", "count", "tokens"),
    [
        ("two words", 1, 2),
        (["one", "and two", "one"], 3, 4),
        ([5, 6, 7], 1, 3),
        ([[5, 6], [7]], 2, 3),
    ],
)
def test_each_input_has_its_vector(
    engine: FakeEngine, adapter: VllmHttpAdapter, input: Any, count: int, tokens: int
) -> None:
    """Text, token ids, or several of one of them: as many vectors, in the same order."""
    found = adapter.embed(input)

    assert sent_body(engine, PATH)["input"] == input
    assert (len(found.vectors), found.tokens_in, found.model) == (count, tokens, "fake-model")
    alone = [adapter.embed(item).vectors[0] for item in input] if count > 1 else found.vectors
    assert found.vectors == alone


def test_what_is_sent(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """The numbers are asked for as bytes whose order is told, and nothing that was not set."""
    adapter.embed("Hello")

    assert sent_body(engine, PATH) == {
        "input": "Hello",
        "encoding_format": "base64",
        "embed_dtype": "float32",
        "endianness": "little",
    }


def test_dimensions_are_sent() -> None:
    """A model that was made to be cut is asked for shorter vectors."""
    with replying(says(vectors_answer(encoded(THREE)))) as server, quick(server.url) as adapter:
        adapter.embed("Hello", dimensions=3)

    assert server.posts[0].body["dimensions"] == 3


def test_recorded_vector_is_read() -> None:
    """The first numbers of a real answer, in both of its forms, are the same numbers."""
    recorded = "EJVSvHrulLwXzb25CV3nPFxK7jw="
    numbers = [
        *(-0.012852922081947327, -0.01818012073636055, -0.0003620169300120324),
        *(0.028242604807019234, 0.02908819168806076),
    ]

    assert read(vectors_answer(recorded), "Hello").vectors == [numbers]
    assert read(vectors_answer(numbers), "Hello").vectors == [numbers]


def test_numbers_on_a_machine_with_the_other_byte_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes in little-endian order is turned around where that is not our own."""
    monkeypatch.setattr(sys, "byteorder", "big")
    swapped = array("f", THREE)
    swapped.byteswap()

    assert read(vectors_answer(encoded(THREE)), "Hello").vectors == [swapped.tolist()]


def test_server_that_knows_decimal_numbers_only() -> None:
    """It ignores the wish for bytes, and is understood."""
    assert read(vectors_answer([1, 0.5, -2e-3]), "Hello").vectors == [[1.0, 0.5, -0.002]]


def test_vectors_are_put_into_the_order_of_the_inputs() -> None:
    """The index counts, not the place in the answer."""
    shuffled = vectors_answer(encoded([2.0]), encoded([0.0]), encoded([1.0]))
    for entry, index in zip(shuffled["data"], (2, 0, 1), strict=True):
        entry["index"] = index

    assert read(shuffled, ["a", "b", "c"]).vectors == [[0.0], [1.0], [2.0]]


@pytest.mark.parametrize("changes", [{"usage": None, "model": None}, {"usage": {}, "model": 5}])
def test_engine_that_tells_less(changes: dict[str, Any]) -> None:
    """Vectors without a model or a count are vectors."""
    found = read(vectors_answer(encoded(THREE)) | changes, "Hello")

    assert (found.model, found.tokens_in) == (None, None)


@pytest.mark.parametrize(
    "body",
    [
        vectors_answer(),
        vectors_answer(encoded(THREE), encoded(THREE)),
        vectors_answer("AAAA!AA=="),
        vectors_answer(base64.b64encode(b"five!").decode()),
        vectors_answer(["1", "2"]),
        vectors_answer([[1.0]]),
        vectors_answer([10**400]),
        vectors_answer(None),
        vectors_answer(data=None),
        vectors_answer(data=[{"index": 1, "embedding": encoded(THREE)}]),
        vectors_answer(data=[{"index": -1, "embedding": encoded(THREE)}]),
        vectors_answer(data=[{"index": [], "embedding": encoded(THREE)}]),
        vectors_answer(data=[{"embedding": encoded(THREE)}]),
        vectors_answer(data=[None]),
    ],
    ids=lambda body: str(body["data"])[:40],
)
def test_answer_that_does_not_fit(body: Any) -> None:
    """Too few vectors, too many, or no numbers: an error, never vectors of other inputs."""
    with replying(says(body)) as server, quick(server.url) as adapter:
        error = the_failure(lambda: adapter.embed("Hello"))

    assert type(error) is StreamingError
    assert len(server.posts) == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3)
    ),
    max_leaves=8,
)


@given(entry=json_values, vector=json_values)
def test_no_answer_makes_it_raise_anything_else(entry: Any, vector: Any) -> None:
    """Whatever JSON comes, it is vectors or a StreamingError."""
    for data in ([entry], entry, [{"index": 0, "embedding": vector}]):
        document = json.dumps({"data": data}).encode()
        try:
            found = read_answer(embedding("Hello", None, None), document)
        except StreamingError:
            continue
        assert len(found.vectors) == 1
        assert all(type(number) is float for number in found.vectors[0])


@pytest.mark.parametrize(
    ("input", "message"),
    [
        ([], "input: .* not an empty list"),
        (None, "input: .* not NoneType"),
        (5, "input: .* not int"),
        (("a",), "input: .* not tuple"),
        (["a", 5], r"input\[1\]: text is wanted, not int"),
        ([5, "my secret"], r"input\[1\]: str is no token id"),
        ([True], r"input\[0\]: text is wanted, not bool"),
        ([5, -6], r"input\[1\]: -6 is no token id"),
        ([[5], []], r"input\[1\]: a list of at least 1 token id"),
        ([[5], "my secret"], r"input\[1\]: a list of at least 1 token id"),
        ([[5, 1.5]], r"input\[0\]\[1\]: float is no token id"),
        (["a", {"my secret": 1}], r"input\[1\]: text is wanted, not dict"),
    ],
)
def test_input_out_of_its_limits(
    engine: FakeEngine, adapter: VllmHttpAdapter, input: Any, message: str
) -> None:
    """What is wrong is named by its place; no part of an input is shown, and none is sent."""
    with pytest.raises(InvalidRequest, match=message) as caught:
        adapter.embed(input)

    assert "secret" not in str(caught.value)
    assert engine.requests == []


@pytest.mark.parametrize("dimensions", [0, -1, 1.0, True, "3"])
def test_dimensions_out_of_their_limits(
    engine: FakeEngine, adapter: VllmHttpAdapter, dimensions: Any
) -> None:
    """A length is a whole number of at least 1."""
    with pytest.raises(InvalidRequest, match=r"dimensions: .* whole number >= 1"):
        adapter.embed("Hello", dimensions=dimensions)

    assert engine.requests == []


@pytest.mark.parametrize(
    "owned", ["input", "model", "dimensions", "encoding_format", "endianness", "embed_dtype"]
)
def test_form_of_the_answer_is_ours(adapter: VllmHttpAdapter, owned: str) -> None:
    """Another form than the one that is read cannot be asked for."""
    with pytest.raises(InvalidRequest, match=f"extra_body.{owned}: not settable"):
        adapter.embed("Hello", extra_body={owned: "big"})


def test_lone_surrogate_is_refused(adapter: VllmHttpAdapter) -> None:
    """Text that cannot be UTF-8 is named by its field, and not shown."""
    with pytest.raises(InvalidRequest, match=r"^input: cannot be written as JSON") as caught:
        adapter.embed(["fine", "my secret \ud800"])

    assert "secret" not in str(caught.value)


def test_embeddings_travel() -> None:
    """The result goes to JSON and back."""
    found = Embeddings([[0.5], [1.0]], "m", 2)

    assert Embeddings.from_json(found.to_json()) == found
