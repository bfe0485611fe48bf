"""How large the answer to a call may be."""

from __future__ import annotations

import json

import pytest
from calls_support import THREE, encoded, quick, replying, says, the_failure, vectors_answer

from vllm_http import StreamingError


def test_large_answer_passes() -> None:
    """A thousand vectors of 4096 numbers are 22 MB, and come whole."""
    vector = [n / 4096 for n in range(4096)]
    body = json.dumps(vectors_answer(*[encoded(vector)] * 1000)).encode()
    with replying(says(body)) as server, quick(server.url) as adapter:
        found = adapter.embed(["word"] * 1000)

    assert len(body) > 16 * 2**20  # what the documents about the engine may have
    assert len(found.vectors) == 1000
    assert found.vectors[0] == found.vectors[-1] == vector


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> int:
    """An adapter that takes 1000 bytes of an answer."""
    for module in ("_call", "_transport_documents"):
        monkeypatch.setattr(f"vllm_http.{module}.MAX_ANSWER_BYTES", 1000)
    return 1000


def padded(size: int) -> bytes:
    """An answer of so many bytes."""
    body = json.dumps(vectors_answer(encoded(THREE))).encode()
    return body + b" " * (size - len(body))


def test_one_byte_too_many(small_limit: int) -> None:
    """The first byte beyond the limit is noticed."""
    with replying(says(padded(small_limit + 1))) as server, quick(server.url) as adapter:
        assert type(the_failure(lambda: adapter.embed("Hello"))) is StreamingError


def test_answer_of_the_limit_passes(small_limit: int) -> None:
    """The limit is what is still accepted."""
    with replying(says(padded(small_limit))) as server, quick(server.url) as adapter:
        assert adapter.embed("Hello").vectors == [THREE]


def test_answer_beyond_the_limit_is_refused(small_limit: int) -> None:
    """A larger answer is an error, not asked for again, and its rest is not waited for."""
    endless = says(padded(small_limit + 500_000))
    with replying(endless) as server, quick(server.url) as adapter:
        errors = [the_failure(lambda: adapter.embed("Hello")) for _ in range(2)]

    assert {type(error) for error in errors} == {StreamingError}
    assert "larger than 1000 bytes" in errors[0].message
    assert [post.connection for post in server.posts] == [1, 2]
