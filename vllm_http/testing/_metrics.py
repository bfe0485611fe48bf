"""A small part of vLLM's /metrics: the same names and labels, true numbers."""

from __future__ import annotations

from collections import Counter

from ._generation import Generation


# vLLM's default --max-num-seqs; here only the measure of a full cache.
_FULL = 256
_REASONS = ("stop", "length", "abort", "error", "repetition")
_CACHE_CONFIG = (
    'block_size="16",cache_dtype="auto",enable_prefix_caching="True",engine="0",'
    'gpu_memory_utilization="0.92",num_gpu_blocks="1024"'
)


class Load:
    """What the engine has done and is doing. Not locked: its owner holds a lock of its own."""

    def __init__(self) -> None:
        self.running = 0
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.finished: Counter[str] = Counter()

    def add(self, generation: Generation) -> None:
        """Count what a generation has come to."""
        self.prompt_tokens += generation.prompt_tokens
        self.generation_tokens += generation.completion_tokens
        reasons = (choice.finish_reason for choice in generation.choices)
        # A call of a tool is the API's reading of a text that stopped.
        self.finished.update(
            "stop" if reason == "tool_calls" else reason for reason in reasons if reason is not None
        )

    def text(self, model: str) -> str:
        """All of it in the Prometheus text format."""
        labels = f'engine="0",model_name="{model}"'
        families = [
            _family("num_requests_running", "gauge", {labels: self.running}),
            _family("num_requests_waiting", "gauge", {labels: 0}),
            _family("kv_cache_usage_perc", "gauge", {labels: min(1.0, self.running / _FULL)}),
            _family("prefix_cache_queries_total", "counter", {labels: self.prompt_tokens}),
            _family("prefix_cache_hits_total", "counter", {labels: 0}),
            _family("num_preemptions_total", "counter", {labels: 0}),
            _family("prompt_tokens_total", "counter", {labels: self.prompt_tokens}),
            _family("generation_tokens_total", "counter", {labels: self.generation_tokens}),
            _family(
                "request_success_total",
                "counter",
                {
                    f'engine="0",finished_reason="{reason}",model_name="{model}"': count
                    for reason, count in ((reason, self.finished[reason]) for reason in _REASONS)
                },
            ),
            _family("cache_config_info", "gauge", {_CACHE_CONFIG: 1}),
        ]
        return "".join(families)


def _family(name: str, kind: str, samples: dict[str, float]) -> str:
    lines = [f"# HELP vllm:{name} {name.replace('_', ' ').capitalize()}."]
    lines.append(f"# TYPE vllm:{name} {kind}")
    lines += [f"vllm:{name}{{{labels}}} {float(value)}" for labels, value in samples.items()]
    return "\n".join(lines) + "\n"
