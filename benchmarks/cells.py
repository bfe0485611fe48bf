"""What is measured: the loads, who takes part, and what is promised."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any


OURS, MANY, FLOOR = "vllm_http", "vllm_http many", "raw"
PEERS = ("http.client", "sseclient", "httpx-sse", "aiohttp", "openai", "litellm")


@dataclass(frozen=True)
class Load:
    """What one client does in one process.

    Attributes:
        kind: "flood", "ticks", "first_token", "import", "reader", "bulk", "engine": measure.py.
        mode: The server's: "flood", "paced" or "step"; a real engine's model name.
        streams: At once.
        rate: Tokens a second for each stream.
        tokens: Of one request.
        requests: How many, where they come one after the other or in bulk.
        seconds: How long to measure at least.
        sleeper: Whether the caller stops at its first token, for ever.
        limit: Seconds after which the client is stopped.
    """

    kind: str
    mode: str = "flood"
    streams: int = 1
    rate: float = 0
    tokens: int = 10_000
    requests: int = 1
    seconds: float = 0.7
    sleeper: bool = False
    limit: float = 30.0


@dataclass(frozen=True)
class Line:
    """A promise: `client`'s figure is at most `most` times (or `plus` above) `than`'s."""

    figure: str
    client: str
    than: str | None
    most: float
    plus: bool = False  # the difference counts, not the ratio


@dataclass(frozen=True)
class Cell:
    """A load that several clients are put under, in turns."""

    name: str
    title: str
    load: Load
    clients: tuple[str, ...]
    lines: tuple[Line, ...] = ()
    rounds: int = 3
    once: tuple[str, ...] = ()  # too slow for more than the first round

    def spec(self, client: str, url: str) -> dict[str, Any]:
        """What the client's process is told."""
        return {"client": client, "url": url, **asdict(self.load)}

    def of(self, clients: list[str]) -> Cell:
        """The same with those clients alone."""
        return replace(self, clients=tuple(name for name in self.clients if name in clients))

    def repeated(self, rounds: int) -> Cell:
        """The same in that many rounds."""
        return replace(self, rounds=rounds)

    def shortened(self) -> Cell:
        """The same in one short round, with those clients alone that a line names."""
        named = {name for line in self.lines for name in (line.client, line.than)}
        load = self.load
        quick = replace(
            load,
            seconds=min(load.seconds, 0.5),
            requests=max(1, load.requests // 5),
            tokens=min(load.tokens, 100_000) if load.kind == "reader" else load.tokens,
            limit=12.0,
        )
        clients = tuple(name for name in self.clients if name in named)
        return replace(self, load=quick, clients=clients, rounds=1)


def _all_delivered(client: str) -> Line:
    """Every token came. (A share is at most 1, so what is missing is what is promised.)"""
    return Line("missing", client, None, 0.0)


CPU, P99 = "cpu_us_per_token", "p99_ms"

SHOWN = (
    Cell(
        "flood-1",
        "One stream, tokens as fast as they can be taken",
        Load("flood"),
        ("recv", FLOOR, "requests", *PEERS, OURS, "vllm_http result"),
        (Line(CPU, OURS, FLOOR, 3.5), Line(CPU, OURS, "openai", 1 / 15)),
        rounds=5,
        once=("litellm",),
    ),
    Cell(
        "step-64",
        "64 streams in step, 50 tokens/s each",
        Load("ticks", "step", 64, 50, seconds=2),
        (FLOOR, "requests", "sseclient", "httpx-sse", "aiohttp", "openai", OURS),
        (
            _all_delivered(OURS),
            Line(CPU, OURS, "openai", 0.35),
            Line(CPU, OURS, "requests", 1.25),
            Line(P99, OURS, "openai", 0.5),
        ),
    ),
    Cell(
        "step-256",
        "256 streams in step, 20 tokens/s each",
        Load("ticks", "step", 256, 20, seconds=2),
        (FLOOR, "requests", "aiohttp", OURS),
        (_all_delivered(OURS), Line(P99, OURS, "aiohttp", 1.25)),
    ),
    Cell(
        "paced-256",
        "256 streams, 20 tokens/s each, unsynchronised",
        Load("ticks", "paced", 256, 20, seconds=2),
        (FLOOR, "requests", "aiohttp", OURS),
        (_all_delivered(OURS), Line(P99, OURS, "aiohttp", 1.25)),
    ),
    Cell(
        "one-caller-1000",
        "1000 streams, 20 tokens/s each, unsynchronised, drained by one caller",
        Load("ticks", "paced", 1000, 20, seconds=3),
        ("aiohttp", MANY),
        (_all_delivered(MANY), Line(CPU, MANY, "aiohttp", 0.6)),
    ),
    Cell(
        "h100-256",
        "12,800 tokens/s over 256 streams in step: what an H100 makes of an 8B model",
        Load("ticks", "step", 256, 50, seconds=3),
        (FLOOR, "aiohttp", OURS),
        (
            _all_delivered(OURS),
            Line(P99, OURS, "aiohttp", 1.5),
            Line("cores", OURS, FLOOR, 0.75, plus=True),
        ),
    ),
    Cell(
        "first-token",
        "Time to first token, instantaneous server, warm connection",
        Load("first_token", tokens=4, requests=300),
        (FLOOR, "requests", "sseclient", "httpx-sse", "aiohttp", "openai", OURS),
        (Line("ttft_p50_us", OURS, "openai", 0.6), Line("ttft_p50_us", OURS, "requests", 1.5)),
    ),
    Cell(
        "import",
        "Import in a fresh interpreter",
        Load("import"),
        ("requests", "httpx-sse", "aiohttp", "openai", "litellm", OURS),
        (Line("import_ms", OURS, "openai", 0.45),),
        rounds=5,
    ),
    Cell(
        "never-reads",
        "A million tokens for a consumer that stops at the first",
        Load("reader", tokens=1_000_000, seconds=2, sleeper=True),
        ("sseclient", "aiohttp", "openai", OURS),
        (Line("rss_growth_mib", OURS, None, 4.0),),
        rounds=1,
    ),
    Cell(
        "million",
        "A million tokens through one stream",
        Load("reader", tokens=1_000_000),
        ("requests", OURS),
        (Line("rss_growth_mib", OURS, None, 4.0),),
        rounds=1,
    ),
    Cell(
        "bulk",
        "1000 tasks of 64 tokens, 64 at once, one caller",
        Load("bulk", streams=64, tokens=64, requests=1000),
        ("requests", "sseclient", "aiohttp", "openai", OURS, MANY),
        (_all_delivered(MANY),),
        rounds=2,
    ),
)

_GRID_CLIENTS = (FLOOR, "requests", *PEERS, OURS)


def _grid() -> tuple[Cell, ...]:
    floods = tuple(
        Cell(
            f"grid-flood-{streams}",
            f"{streams} streams, tokens as fast as they can be taken",
            Load("flood", streams=streams, tokens=20_000 // streams, limit=60),
            (*_GRID_CLIENTS, "vllm_http result"),
        )
        for streams in (1, 16, 64)
    )
    ticks = tuple(
        Cell(
            f"grid-{mode}-{streams}",
            f"{streams} streams, 20 tokens/s each, {mode}",
            Load("ticks", mode, streams, 20, seconds=5, limit=60),
            (*_GRID_CLIENTS, MANY),
        )
        for mode in ("step", "paced")
        for streams in (1, 16, 64, 256, 1000)
    )
    return floods + ticks


GRID = _grid()


def engine_cell(model: str, tokens: int = 128) -> Cell:
    """16 streams at once from a real engine that serves that model."""
    return Cell(
        "engine-16",
        f"16 streams at once from a real engine ({model})",
        Load("engine", model, streams=16, tokens=tokens, seconds=0, limit=300),
        ("openai", OURS),
        (Line(CPU, OURS, "openai", 1.0), Line("seconds", OURS, "openai", 1.05)),
    )
