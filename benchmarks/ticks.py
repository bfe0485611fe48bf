"""Paced and stepped streams, observed through a window."""

from __future__ import annotations

import array
import os
import resource
import threading
import time
from typing import NamedTuple

from cells import Load
from clients.base import Client, Job, Take
from gauges import Figures, percentile, status, vllm_terms


SETTLE = 0.5
"""Seconds that are left out at the streams' beginning."""


class _Mark(NamedTuple):
    """The state of this process at one moment."""

    time: float
    cpu: float
    tokens: int
    switches: int
    rss: int
    threads: int

    @classmethod
    def now(cls, arrivals: list[array.array[int]]) -> _Mark:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return cls(
            time.perf_counter(),
            used.ru_utime + used.ru_stime,
            sum(map(len, arrivals)),
            used.ru_nvcsw + used.ru_nivcsw,
            status("VmRSS"),
            status("Threads"),
        )


class Ticks:
    """Paced and stepped streams: delivery latency, and CPU per token over a window."""

    def __init__(self, client: Client, load: Load) -> None:
        self._client = client
        self._load = load
        self._arrivals = [array.array("q") for _ in range(load.streams)]
        self._stamps = [array.array("q") for _ in range(load.streams)]
        self._tokens = int(load.rate * (SETTLE + load.seconds + 0.5))
        self._marks: list[_Mark] = []

    def run(self) -> Figures:
        """Start all streams, observe a window, wait for the last token."""
        self._before = _Mark.now(self._arrivals)
        observer = threading.Thread(target=self._observe, daemon=True)
        observer.start()
        load = self._load
        model = f"{load.mode}:{load.rate:g}:{load.streams}:{os.getpid()}"
        takes = map(_clocked, self._arrivals, self._stamps)
        self._client.together([Job(model, self._tokens, take) for take in takes])
        observer.join()
        return self.figures()

    def _observe(self) -> None:
        while not any(map(len, self._arrivals)):
            time.sleep(0.01)
        time.sleep(SETTLE)
        self._marks.append(_Mark.now(self._arrivals))
        time.sleep(self._load.seconds)
        self._marks.append(_Mark.now(self._arrivals))

    def figures(self) -> Figures:
        """What is known by now."""
        load = self._load
        expected = self._tokens * load.streams
        got = sum(map(len, self._arrivals))
        settled = int(load.rate * SETTLE)
        late = sorted(
            arrival - stamp
            for arrivals, stamps in zip(self._arrivals, self._stamps, strict=True)
            for arrival, stamp in zip(arrivals[settled:], stamps[settled:], strict=False)
        )
        figures: Figures = {
            "delivered": got / expected,
            "missing": 1 - got / expected,
            "p50_ms": percentile(late, 0.5) / 1e6,
            "p99_ms": percentile(late, 0.99) / 1e6,
            "max_ms": percentile(late, 1.0) / 1e6,
            **vllm_terms([arrivals[settled:] for arrivals in self._arrivals]),
        }
        if len(self._marks) < 2:
            return figures
        first, last = self._marks
        tokens = max(1, last.tokens - first.tokens)
        seconds = last.time - first.time
        return {
            **figures,
            "cpu_us_per_token": (last.cpu - first.cpu) / tokens * 1e6,
            "cores": (last.cpu - first.cpu) / seconds,
            "tokens_per_s": tokens / seconds,
            "on_time": tokens / seconds / (load.rate * load.streams),
            "switches_per_token": (last.switches - first.switches) / tokens,
            "rss_kib_per_stream": (first.rss - self._before.rss) / load.streams,
            "threads_per_stream": (first.threads - self._before.threads - 1) / load.streams,
        }


def _clocked(arrivals: array.array[int], stamps: array.array[int]) -> Take:
    """A caller's loop body that notes when each token came and when it was sent."""
    arrived, sent, now = arrivals.append, stamps.append, time.monotonic_ns

    def take(text: str) -> None:
        arrived(now())
        sent(int(text))

    return take
