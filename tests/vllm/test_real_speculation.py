"""An engine that guesses tells how well, and its streams are whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from vllm_http import TaskRequest, Timeouts, VllmHttpAdapter

from .recipe import prepare
from .server import MODEL, Server, free_port, serving


GUESSES = 4
SPECULATION = {"method": "ngram", "num_speculative_tokens": GUESSES}
SPECULATION |= {"prompt_lookup_min": 1, "prompt_lookup_max": 4}


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that guesses the next tokens from those before."""
    log = tmp_path_factory.mktemp("vllm") / "speculation.log"
    flags = ["--speculative-config", json.dumps(SPECULATION)]
    with serving(prepare(), free_port(), flags, log=log) as server:
        yield server


@pytest.fixture
def adapter(vllm: Server) -> Iterator[VllmHttpAdapter]:
    """An adapter for that server, which lets no test wait for ever."""
    with VllmHttpAdapter(vllm.url, timeouts=Timeouts(total=120.0)) as adapter:
        yield adapter


def test_acceptance_is_told(adapter: VllmHttpAdapter, measured: Callable[[str], None]) -> None:
    """Nothing is told before the first guess; then the figures fit each other."""
    assert adapter.metrics().spec_decode_acceptance_rate is None

    prompt = "one two three " * 4
    task = TaskRequest(model=MODEL, prompt=prompt, max_tokens=60, temperature=0)
    answer = adapter.submit(task).result()
    metrics = adapter.metrics()

    assert answer.error is None
    assert metrics.spec_decode_accepted_per_position is not None
    assert len(metrics.spec_decode_accepted_per_position) == GUESSES
    assert sum(metrics.spec_decode_accepted_per_position) == metrics.spec_decode_accepted_tokens
    assert metrics.spec_decode_acceptance_rate is not None
    assert 0 < metrics.spec_decode_acceptance_rate <= 1
    assert metrics.spec_decode_mean_acceptance_length is not None
    assert 1 < metrics.spec_decode_mean_acceptance_length <= 1 + GUESSES
    measured(
        f"acceptance {metrics.spec_decode_acceptance_rate:.2f}, "
        f"length {metrics.spec_decode_mean_acceptance_length:.2f}"
    )
