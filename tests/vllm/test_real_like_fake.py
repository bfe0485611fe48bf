"""A FakeEngine answers the same bytes as a real vLLM does: same statuses, keys, types and order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from testing.likeness import differences
from testing.raw_client import Listener, RawClient, Response, read_response

from vllm_http.testing import FakeEngine

from .recipe import prepare
from .same_requests import Case, cases
from .server import CONTEXT, MODEL, Server, free_port, serving


# The engine plays a server that reads tool calls; the one of the other tests does not.
FLAGS = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
CASES = cases()
ATTEMPTS = 3


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real vLLM that reads tool calls."""
    log: Path = tmp_path_factory.mktemp("like-fake") / "server.log"
    with serving(prepare(), free_port(), FLAGS, log) as server:
        yield server


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeEngine]:
    """An engine for the same model with the same context."""
    with FakeEngine(MODEL, max_model_len=CONTEXT) as engine:
        yield engine


def answer(server: Listener, case: Case) -> Response:
    """What a server answers on a connection of its own."""
    with RawClient(server, timeout=60) as client:
        client.send(case.request)
        return read_response(client.stream, has_body=case.has_body)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_fake_answers_as_the_real_one(case: Case, fake: FakeEngine, real: Server) -> None:
    """Status, headers, keys, types and order of events are the same; so are a refusal's words."""
    # On a busy machine vLLM makes one event of several tokens, and may leave no plain one.
    for _ in range(ATTEMPTS):
        actual, expected = answer(fake, case), answer(real, case)
        found = differences(actual, expected)
        if not found:
            break

    assert found == []
    if case.same_words:
        assert _without_port(actual.body) == _without_port(expected.body)


def test_the_fakes_metrics_are_real_ones(fake: FakeEngine, real: Server) -> None:
    """Each sample of the engine's /metrics has a name and the labels that vLLM's has as well."""
    samples, wanted = _samples(fake), _samples(real)

    assert samples
    for name, labels in samples.items():
        # Of the settings, which vLLM tells all as labels, the engine tells a part.
        told = wanted[name] & labels if name.endswith("_info") else wanted[name]
        assert (name, labels) == (name, told)


def _without_port(body: bytes) -> bytes:
    return re.sub(rb"127\.0\.0\.1:\d+", b"", body)


def _samples(server: Listener) -> dict[str, set[str]]:
    """The labels of each sample, by its name."""
    with RawClient(server, timeout=60) as client:
        text = client.get("/metrics").body.decode()
    lines = re.findall(r"^(vllm:\w+)\{(.*)\} \S+$", text, re.M)
    return {name: set(re.findall(r'(\w+)="', labels)) for name, labels in lines}
