"""The engine's /metrics, as a real vLLM writes it and as others do."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import capture

from vllm_http import EngineMetrics, StreamingError
from vllm_http._metrics_text import read_metrics


NAMES = {
    "running": "vllm:num_requests_running",
    "waiting": "vllm:num_requests_waiting",
    "kv_cache_usage": "vllm:kv_cache_usage_perc",
    "prefix_cache_queries": "vllm:prefix_cache_queries_total",
    "prefix_cache_hits": "vllm:prefix_cache_hits_total",
    "preemptions": "vllm:num_preemptions_total",
    "prompt_tokens": "vllm:prompt_tokens_total",
    "generation_tokens": "vllm:generation_tokens_total",
}


def found(name: str, text: str) -> float:
    """The value of a metric that has one sample, found without a parser."""
    (value,) = re.findall(rf"^{name}\{{[^}}]*\}} (\S+)$", text, re.MULTILINE)
    return float(value)


@pytest.mark.parametrize(
    "name", ["A-get-metrics", "B-kill9-enginecore-metrics-after", "C-metrics-end"]
)
def test_recorded_metrics_are_read(name: str) -> None:
    """Each figure is the one that the recording holds; without speculation, none is told of it."""
    text = capture(name).body.decode()
    speculation = {
        "spec_decode_drafts": None,
        "spec_decode_draft_tokens": None,
        "spec_decode_accepted_tokens": None,
        "spec_decode_accepted_per_position": None,
    }

    assert read_metrics(text).to_dict() == speculation | {
        field: found(metric, text) for field, metric in NAMES.items()
    }


def test_recorded_metrics_are_not_all_zero() -> None:
    """The comparison above compares something."""
    metrics = read_metrics(capture("C-metrics-end").body.decode())

    assert (metrics.prompt_tokens or 0) > 1000
    assert (metrics.prefix_cache_hits or 0) > 0


def test_counts_are_whole_numbers() -> None:
    """Prometheus writes floats; requests and tokens are counted in ints, a share is a float."""
    metrics = read_metrics("vllm:num_requests_running 3.0\nvllm:kv_cache_usage_perc 0.0\n")

    assert (type(metrics.running), type(metrics.kv_cache_usage)) == (int, float)
    assert metrics == EngineMetrics(running=3, kv_cache_usage=0.0)


def test_several_engines_are_summed() -> None:
    """Data-parallel engines count apart: together they run and wait, and the fullest tells."""
    text = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.75
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="m"} 1e3
vllm:prompt_tokens_total{engine="1",model_name="m"} 24
"""

    assert read_metrics(text) == EngineMetrics(running=7, kv_cache_usage=0.75, prompt_tokens=1024)


def test_old_names_are_known() -> None:
    """Before they lost their gpu_, three metrics of vLLM meant the same."""
    text = """\
vllm:gpu_cache_usage_perc{model_name="m"} 0.5
vllm:gpu_prefix_cache_queries_total{model_name="m"} 8
vllm:gpu_prefix_cache_hits_total{model_name="m"} 4
"""

    assert read_metrics(text) == EngineMetrics(
        kv_cache_usage=0.5, prefix_cache_queries=8, prefix_cache_hits=4
    )


def test_new_names_win() -> None:
    """An engine that writes both names is not counted twice."""
    text = "vllm:gpu_cache_usage_perc 0.5\nvllm:kv_cache_usage_perc 0.25\n"

    assert read_metrics(text).kv_cache_usage == 0.25


SPECULATION = """\
vllm:spec_decode_num_drafts_total{engine="0",model_name="m"} 10
vllm:spec_decode_num_drafts_total{engine="1",model_name="m"} 30
vllm:spec_decode_num_draft_tokens_total{engine="0",model_name="m"} 30
vllm:spec_decode_num_draft_tokens_total{engine="1",model_name="m"} 90
vllm:spec_decode_num_accepted_tokens_total{engine="0",model_name="m"} 12
vllm:spec_decode_num_accepted_tokens_total{engine="1",model_name="m"} 48
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",model_name="m",position="0"} 8
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",model_name="m",position="1"} 3
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",model_name="m",position="2"} 1
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="1",model_name="m",position="2"} 9
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="1",model_name="m",position="1"} 17
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="1",model_name="m",position="0"} 22
"""


def test_speculative_decoding_is_summed_and_judged() -> None:
    """How much of the guesses was accepted, in all engines, in all and by position."""
    metrics = read_metrics(SPECULATION)

    assert metrics == EngineMetrics(
        spec_decode_drafts=40,
        spec_decode_draft_tokens=120,
        spec_decode_accepted_tokens=60,
        spec_decode_accepted_per_position=[30, 20, 10],
    )
    assert metrics.spec_decode_acceptance_rate == 0.5
    assert metrics.spec_decode_mean_acceptance_length == 2.5
    assert EngineMetrics.from_json(metrics.to_json()) == metrics


def test_more_than_ten_positions_are_in_the_order_of_their_numbers() -> None:
    """Position 10 comes after position 9, not after position 1."""
    name = "vllm:spec_decode_num_accepted_tokens_per_pos_total"
    text = "".join(f'{name}{{position="{n}"}} {100 - n}\n' for n in range(12))

    counts = read_metrics(text).spec_decode_accepted_per_position

    assert counts == [100 - n for n in range(12)]


def test_old_engine_tells_less_of_its_speculation() -> None:
    """Before its V1 engine vLLM counted tokens, but no drafts: there is a rate and no length."""
    text = """\
vllm:spec_decode_num_accepted_tokens_total{model_name="m"} 3
vllm:spec_decode_num_draft_tokens_total{model_name="m"} 12
vllm:spec_decode_num_emitted_tokens_total{model_name="m"} 7
"""
    metrics = read_metrics(text)

    assert metrics.spec_decode_acceptance_rate == 0.25
    assert metrics.spec_decode_mean_acceptance_length is None
    assert metrics.spec_decode_accepted_per_position is None


@pytest.mark.parametrize(
    "metrics",
    [
        EngineMetrics(),
        EngineMetrics(
            spec_decode_drafts=0, spec_decode_draft_tokens=0, spec_decode_accepted_tokens=0
        ),
        EngineMetrics(spec_decode_drafts=4, spec_decode_draft_tokens=8),
    ],
)
def test_no_judgement_without_a_guess(metrics: EngineMetrics) -> None:
    """An engine that guessed nothing yet, or does not tell, has no rate: zero would be a claim."""
    assert metrics.spec_decode_acceptance_rate is None
    assert metrics.spec_decode_mean_acceptance_length is None


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf"])
def test_a_value_that_is_no_number_is_left_out(value: str) -> None:
    """One engine's NaN does not spoil the others' figures, and alone it is no figure."""
    text = f'vllm:num_requests_running{{engine="0"}} {value}\n'

    assert read_metrics(text).running is None
    assert read_metrics(text + 'vllm:num_requests_running{engine="1"} 2\n').running == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# a comment\n",
        "other_metric 1\n",
        "vllm:num_requests_running_seconds 1\n",
        'vllm:num_requests_waiting_by_reason{reason="capacity"} 1\n',
        "vllm:prompt_tokens_created 1.7e9\n",
    ],
)
def test_what_is_not_reported_is_none(text: str) -> None:
    """Zero would be a claim."""
    assert read_metrics(text) == EngineMetrics()


def test_quoted_names_are_read() -> None:
    """Text format 1.0.0 may write the name inside the braces."""
    assert read_metrics('{"vllm:num_requests_running",engine="0"} 2\n').running == 2


@pytest.mark.parametrize(
    "text",
    [
        "<html><body>502 Bad Gateway</body></html>",
        '{"detail":"Not Found"}',
        "hello world",
        "vllm:num_requests_running",
        "vllm:num_requests_running three",
        'vllm:num_requests_running{engine="0" 1',
        "# TYPE",
        "a{",
    ],
)
def test_garbage_is_an_error(text: str) -> None:
    """A gateway's page with status 200 is no idle engine."""
    with pytest.raises(StreamingError, match="Prometheus") as error:
        read_metrics(text)

    assert error.value.retriable is False


samples = st.text("vllm:a{}=\"\\,# 01.eNI\n\t +-_'", max_size=40)


@given(text=st.text() | samples | samples.map("vllm:num_requests_running".__add__))
def test_no_text_makes_it_raise_anything_else(text: str) -> None:
    """Any text is metrics or a StreamingError."""
    try:
        metrics = read_metrics(text)
    except StreamingError:
        return
    assert isinstance(metrics, EngineMetrics)
