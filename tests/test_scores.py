"""score and rerank: what goes out, what may come back, and what is refused before the wire."""

from __future__ import annotations

from typing import Any

import pytest
import support
from calls_support import quick, replying, says, sent_body, the_failure

from vllm_http import InvalidRequest, StreamingError, VllmHttpAdapter
from vllm_http._pooling import Ranked
from vllm_http.testing import FakeEngine


engine, adapter = support.engine, support.adapter

DOCUMENTS = ["Paris is the capital", "bananas", "a dog"]


def scores(*entries: Any) -> dict[str, Any]:
    """An answer of /v1/score with these entries."""
    return {"id": "score-8dc9edfd274d5891", "object": "list", "model": "m", "data": list(entries)}


def scored(index: Any, score: Any) -> dict[str, Any]:
    """An entry of it."""
    return {"index": index, "object": "score", "score": score}


def ranks(*entries: Any) -> dict[str, Any]:
    """An answer of /v1/rerank with these entries."""
    usage = {"prompt_tokens": 11, "total_tokens": 11}
    return {"id": "score-b1cdb648ead99659", "model": "m", "usage": usage, "results": list(entries)}


def ranked(index: Any, score: Any) -> dict[str, Any]:
    """An entry of it."""
    document = {"text": "as the engine tells it", "multi_modal": None}
    return {"index": index, "document": document, "relevance_score": score}


@pytest.mark.parametrize(
    ("queries", "documents", "count"),
    [("a", "b", 1), ("a", ["b", "c"], 2), (["a"], ["b", "c"], 2), (["a", "b"], ["b", "c"], 2)],
)
def test_each_document_has_its_score(
    engine: FakeEngine, adapter: VllmHttpAdapter, queries: Any, documents: Any, count: int
) -> None:
    """One query for all, or one for each."""
    found = adapter.score(queries, documents)

    assert len(found) == count
    assert sent_body(engine, "/v1/score") == {"text_1": queries, "text_2": documents}


def test_same_text_fits_best(adapter: VllmHttpAdapter) -> None:
    """The scores stand in the order of the documents."""
    assert adapter.score("b", ["a", "b"])[1] == pytest.approx(1.0)


def test_scores_are_put_into_the_order_of_the_documents() -> None:
    """The index counts, not the place in the answer."""
    body = scores(scored(1, 0.25), scored(0, 1))
    with replying(says(body)) as server, quick(server.url) as adapter:
        assert adapter.score("a", ["b", "c"]) == [1.0, 0.25]


@pytest.mark.parametrize(
    "body",
    [
        scores(scored(0, 0.5)),
        scores(scored(0, 0.5), scored(0, 0.5)),
        scores(scored(0, 0.5), scored(2, 0.5)),
        scores(scored(0, 0.5), scored(1, "0.5")),
        scores(scored(0, 0.5), scored(1, True)),
        scores(scored(0, 0.5), scored(1, None)),
        scores(scored(0, 0.5), scored(1, 0.5), scored(1, 0.4)),
        scores(scored(0, 0.5), scored(1, 10**400)),
    ],
)
def test_scores_that_do_not_fit(body: Any) -> None:
    """A score that is missing, doubled or no number is an error."""
    with replying(says(body)) as server, quick(server.url) as adapter:
        error = the_failure(lambda: adapter.score("a", ["b", "c"]))

    assert type(error) is StreamingError


@pytest.mark.parametrize(
    ("queries", "documents", "message"),
    [
        (["a", "b"], ["c", "d", "e"], "queries: 2 for 3 documents"),
        (["a", "b"], "c", "queries: 2 for 1 documents"),
        ([], ["a"], "queries: .* not an empty list"),
        ("a", [], "documents: .* not an empty list"),
        (None, "a", "queries: .* not NoneType"),
        ("a", ["b", b"my secret"], r"documents\[1\]: text is wanted, not bytes"),
    ],
)
def test_pairs_out_of_their_limits(
    engine: FakeEngine, adapter: VllmHttpAdapter, queries: Any, documents: Any, message: str
) -> None:
    """What vLLM would refuse does not reach it, and no text is shown."""
    with pytest.raises(InvalidRequest, match=message) as caught:
        adapter.score(queries, documents)

    assert "secret" not in str(caught.value)
    assert engine.requests == []


def test_best_document_is_first(engine: FakeEngine, adapter: VllmHttpAdapter) -> None:
    """Each document is there once, with its place in the list, and the best one leads."""
    found = adapter.rerank("bananas", DOCUMENTS)

    assert found[0].document == "bananas"
    assert [item.score for item in found] == sorted((i.score for i in found), reverse=True)
    assert {(item.index, item.document) for item in found} == set(enumerate(DOCUMENTS))
    assert sent_body(engine, "/v1/rerank") == {"query": "bananas", "documents": DOCUMENTS}


@pytest.mark.parametrize(("top_n", "count"), [(1, 1), (2, 2), (3, 3), (9, 3)])
def test_only_the_best(
    engine: FakeEngine, adapter: VllmHttpAdapter, top_n: int, count: int
) -> None:
    """top_n is sent, and more than there are is no fault."""
    found = adapter.rerank("bananas", DOCUMENTS, top_n=top_n)

    assert len(found) == count
    assert found == adapter.rerank("bananas", DOCUMENTS)[:count]
    assert engine.requests[0].json["top_n"] == top_n


def test_documents_are_our_own() -> None:
    """They come from the caller's list, sorted by score, whatever the engine repeats."""
    body = ranks(ranked(2, 0.1), ranked(0, 0.9), ranked(1, 0.5))
    with replying(says(body)) as server, quick(server.url) as adapter:
        found = adapter.rerank("a", DOCUMENTS)

    assert found == [
        Ranked(0, 0.9, "Paris is the capital"),
        Ranked(1, 0.5, "bananas"),
        Ranked(2, 0.1, "a dog"),
    ]
    assert Ranked.from_json(found[0].to_json()) == found[0]
    assert "capital" not in repr(found)  # nor is it shown, as no prompt is


@pytest.mark.parametrize(
    "body",
    [
        ranks(),
        ranks(ranked(0, 1.0)),
        ranks(ranked(0, 1.0), ranked(3, 0.5)),
        ranks(ranked(0, 1.0), ranked(-1, 0.5)),
        ranks(ranked(0, 1.0), ranked(0, 0.5)),
        ranks(ranked(0, 1.0), ranked(1, None)),
        ranks(ranked(0, 1.0), ranked(1, 0.5), ranked(1, 0.4)),
        ranks(ranked(0, 1.0), ranked(1, 10**400)),
        ranks(ranked(0, 1.0), ranked(1, 0.5), ranked(2, 0.1)),
    ],
)
def test_ranks_that_do_not_fit(body: Any) -> None:
    """A document that was not given, is missing, doubled or too much is an error."""
    with replying(says(body)) as server, quick(server.url) as adapter:
        error = the_failure(lambda: adapter.rerank("a", DOCUMENTS, top_n=2))

    assert type(error) is StreamingError


@pytest.mark.parametrize(
    ("query", "documents", "top_n", "message"),
    [
        (["a"], ["b"], None, "query: text is wanted, not list"),
        ("a", "b", None, "documents: a list is wanted, not str"),
        ("a", [], None, "documents: .* not an empty list"),
        ("a", ["b", 5], None, r"documents\[1\]: text is wanted, not int"),
        ("a", ["b"], 0, "top_n: 0 is not a whole number >= 1"),
        ("a", ["b"], True, "top_n: True is not a whole number >= 1"),
    ],
)
def test_ranking_out_of_its_limits(
    engine: FakeEngine,
    adapter: VllmHttpAdapter,
    query: Any,
    documents: Any,
    top_n: Any,
    message: str,
) -> None:
    """What is wrong by itself is named, and does not reach the engine."""
    with pytest.raises(InvalidRequest, match=message):
        adapter.rerank(query, documents, top_n=top_n)

    assert engine.requests == []
