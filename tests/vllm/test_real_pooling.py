"""Embeddings, scores and ranks of a real engine that pools: the same model, served for that."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from vllm_http import HealthState, InvalidRequest, Timeouts, VllmHttpAdapter

from .recipe import prepare
from .server import CONTEXT, MODEL, Server, free_port, serving


TEXTS = ["Paris is the capital of France", "bananas are yellow", "a dog barks"]


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own: one that generates has no such routes."""
    log = tmp_path_factory.mktemp("vllm") / "pooling.log"
    flags = ["--runner", "pooling", "--convert", "embed"]
    with serving(prepare(), free_port(), flags, log=log) as server:
        yield server


@pytest.fixture
def adapter(vllm: Server) -> Iterator[VllmHttpAdapter]:
    """An adapter for that server, which lets no test wait for ever."""
    with VllmHttpAdapter(vllm.url, timeouts=Timeouts(total=120.0)) as adapter:
        yield adapter


def decimal(vllm: Server, text: str) -> list[float]:
    """The vector as the server writes it in decimal numbers."""
    body = {"input": text, "encoding_format": "float"}
    vector: list[float] = vllm.answer(body, "/v1/embeddings")["data"][0]["embedding"]
    return vector


def test_vectors_are_those_that_the_server_writes(adapter: VllmHttpAdapter, vllm: Server) -> None:
    """What came as bytes is, to the last digit, what it writes as decimal numbers."""
    found = adapter.embed(TEXTS[0], model=MODEL)

    assert found.vectors == [decimal(vllm, TEXTS[0])]
    assert math.hypot(*found.vectors[0]) == pytest.approx(1.0, abs=1e-3)
    assert found.model == MODEL


def test_each_input_has_its_own_vector(adapter: VllmHttpAdapter) -> None:
    """Texts and their token ids have the same vectors, in the order of the inputs."""
    ids = [adapter.tokenize(text).tokens for text in TEXTS]

    texts, tokens = adapter.embed(TEXTS), adapter.embed(ids)

    assert texts.tokens_in == tokens.tokens_in == sum(map(len, ids))
    for text, first, second in zip(TEXTS, texts.vectors, tokens.vectors, strict=True):
        assert first == pytest.approx(second, abs=1e-2)  # batches are rounded differently
        assert first == pytest.approx(adapter.embed(text).vectors[0], abs=1e-2)


def test_many_inputs_in_one_call(adapter: VllmHttpAdapter) -> None:
    """Five hundred texts, each with a vector of its own."""
    found = adapter.embed([f"text number {n}" for n in range(500)])

    assert len(found.vectors) == 500
    assert len({tuple(vector) for vector in found.vectors}) == 500


def test_scores_and_ranks_agree(adapter: VllmHttpAdapter) -> None:
    """The same text fits best, and both routes give the same numbers."""
    scores = adapter.score(TEXTS[1], TEXTS)
    ranks = adapter.rerank(TEXTS[1], TEXTS)

    assert ranks[0].document == TEXTS[1]
    assert ranks[0].score == pytest.approx(1.0, abs=1e-2)
    assert [rank.score for rank in ranks] == pytest.approx(sorted(scores, reverse=True), abs=1e-2)
    assert {rank.index for rank in ranks} == {0, 1, 2}
    assert adapter.rerank(TEXTS[1], TEXTS, top_n=1)[0].index == 1
    assert adapter.score(TEXTS, TEXTS) == pytest.approx([1.0] * 3, abs=1e-2)


@pytest.mark.parametrize(
    ("input", "options", "status"),
    [
        ("", {}, 400),
        ("Hello", {"model": "nobody"}, 404),
        ("Hello", {"dimensions": 10}, 400),
        ([99_999_999], {}, 400),
        ("word " * (CONTEXT + 1), {}, 400),
    ],
)
def test_refusals(
    adapter: VllmHttpAdapter, input: str | list[int], options: dict[str, object], status: int
) -> None:
    """What the engine refuses is an InvalidRequest with its status and its words."""
    with pytest.raises(InvalidRequest) as caught:
        adapter.embed(input, **options)  # type: ignore[arg-type]

    assert caught.value.status == status


def test_long_text_is_cut_on_request(adapter: VllmHttpAdapter) -> None:
    """extra_body reaches the engine: the text is cut to what fits."""
    found = adapter.embed("word " * 3000, extra_body={"truncate_prompt_tokens": -1})

    assert found.tokens_in == CONTEXT


def test_pooling_engine_is_healthy_and_generates_nothing(adapter: VllmHttpAdapter) -> None:
    """It lists its model like any other, and has no route for prompts."""
    assert adapter.health().state is HealthState.HEALTHY
    assert [model.id for model in adapter.models()] == [MODEL]
