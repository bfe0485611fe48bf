"""The engine's /metrics text, read into `EngineMetrics`; old and new names of vLLM's metrics."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ._engine import EngineMetrics
from ._errors import StreamingError


# field: (how data-parallel engines add up, vLLM's names for it, newest first)
_SOURCES: dict[str, tuple[Callable[[Iterable[float]], float], tuple[str, ...]]] = {
    "running": (sum, ("vllm:num_requests_running",)),
    "waiting": (sum, ("vllm:num_requests_waiting",)),
    "kv_cache_usage": (max, ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")),
    "prefix_cache_queries": (
        sum,
        ("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"),
    ),
    "prefix_cache_hits": (
        sum,
        ("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"),
    ),
    "preemptions": (sum, ("vllm:num_preemptions_total",)),
    "prompt_tokens": (sum, ("vllm:prompt_tokens_total",)),
    "generation_tokens": (sum, ("vllm:generation_tokens_total",)),
    "spec_decode_drafts": (sum, ("vllm:spec_decode_num_drafts_total",)),
    # These two are as old as speculative decoding.
    "spec_decode_draft_tokens": (sum, ("vllm:spec_decode_num_draft_tokens_total",)),
    "spec_decode_accepted_tokens": (sum, ("vllm:spec_decode_num_accepted_tokens_total",)),
}
_PER_POSITION = "vllm:spec_decode_num_accepted_tokens_per_pos_total"


_MAX_LINE = 16384
"""Characters; the parser takes a time that grows with the square of a line's length."""


def read_metrics(text: str) -> EngineMetrics:
    """The figures of a Prometheus exposition (text format 0.0.4 or 1.0.0).

    Its length bounds the time that this takes: 50 ms for a busy vLLM's, 2 s at worst for the most
    that the transport lets through. A clock here once turned figures that had come in time into a
    Timeout, when the machine stood still for a moment.

    Raises:
        StreamingError: It is not one.
    """
    # A third of this package's import time, for one call in a thousand.
    from prometheus_client.parser import text_fd_to_metric_families

    samples: dict[str, list[float]] = {}
    accepted: Counter[str] = Counter()
    try:
        lines: Any = _lines(text)  # it takes any iterable
        for family in text_fd_to_metric_families(lines):
            for sample in family.samples:
                if not math.isfinite(sample.value):
                    continue
                samples.setdefault(sample.name, []).append(sample.value)
                if sample.name == _PER_POSITION:
                    accepted[sample.labels.get("position", "")] += int(sample.value)
    except (ValueError, KeyError, IndexError) as failure:
        raise StreamingError("/metrics: not in Prometheus' text format", retriable=False) from (
            failure
        )
    return EngineMetrics(
        **{name: _value(samples, name) for name in _SOURCES},  # type: ignore[arg-type]
        spec_decode_accepted_per_position=_by_position(accepted),
    )


def _lines(text: str) -> Iterator[str]:
    for line in io.StringIO(text):
        if len(line) > _MAX_LINE:
            raise ValueError("a line too long")
        yield line


def _value(samples: dict[str, list[float]], field: str) -> float | None:
    add_up, names = _SOURCES[field]
    for name in names:
        if name in samples:
            value = add_up(samples[name])
            return value if field == "kv_cache_usage" else int(value)
    return None


def _by_position(accepted: Counter[str]) -> list[int] | None:
    """The counts in the order of their positions, as far as these go on from 0 without a gap."""
    counts: list[int] = []
    while str(len(counts)) in accepted:
        counts.append(accepted[str(len(counts))])
    return counts or None
