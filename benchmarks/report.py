"""The results as JSON and as Markdown tables."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cells import Cell
from compare import MARKS, Rounds, Spread, floor, mark, ratio, spread, verdicts


Results = list[tuple[Cell, Rounds]]

COLUMNS = {
    "cpu_us_per_token": "CPU µs/token",
    "tokens_per_s": "tokens/s",
    "cpu_us_per_task": "CPU µs/task",
    "tasks_per_s": "tasks/s",
    "delivered": "delivered",
    "on_time": "on time",
    "cores": "cores",
    "seconds": "seconds",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "max_ms": "max ms",
    "itl_p50_ms": "ITL p50 ms",
    "itl_p99_ms": "ITL p99 ms",
    "tpot_p50_ms": "TPOT p50 ms",
    "switches_per_token": "switches/token",
    "rss_kib_per_stream": "RSS KiB/stream",
    "threads_per_stream": "threads/stream",
    "ttft_p50_us": "TTFT p50 µs",
    "ttft_p90_us": "TTFT p90 µs",
    "cpu_us_per_request": "CPU µs/request",
    "import_ms": "import ms",
    "import_cpu_ms": "CPU ms",
    "modules": "modules",
    "rss_mib": "RSS MiB",
    "rss_growth_mib": "RSS growth MiB",
    "taken": "tokens taken",
    "others": "others' cores",
}

_PACKAGES = (
    *("vllm-http", "requests", "urllib3", "sseclient-py", "tenacity", "msgspec", "orjson"),
    *("httpx", "httpx-sse", "aiohttp", "openai", "litellm"),
)


def environment() -> dict[str, Any]:
    """The machine, the versions and the date."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "-"
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes"),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "system": platform.platform(),
        "python": sys.version.split()[0],
        "versions": versions,
    }


def _cpu_model() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def number(value: float) -> str:
    """A figure with three digits that mean something."""
    if value and abs(value) < 0.01:
        return f"{value:.2g}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _spread(value: Spread | None) -> str:
    if value is None:
        return "-"
    if number(value.least) == number(value.most):
        return number(value.median)
    return f"{number(value.median)} ({number(value.least)}..{number(value.most)})"


def brief(figures: dict[str, Any]) -> str:
    """One client's figures on one line."""
    parts = [figures[kind] for kind in MARKS if kind in figures]
    for key in ("cpu_us_per_token", "p99_ms", "ttft_p50_us", "import_ms", "rss_growth_mib"):
        if key in figures:
            parts.append(f"{COLUMNS[key]} {number(figures[key])}")
    return ", ".join(parts)


def _table(cell: Cell, rounds: Rounds) -> list[str]:
    present = {key for clients in rounds for figures in clients.values() for key in figures}
    columns = [key for key in COLUMNS if key in present]
    first = columns[0] if columns else ""
    base = floor(cell)
    heads = ["client", *(COLUMNS[key] for key in columns), f"x {base}", ""]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for client in cell.clients:
        cells = [_spread(spread(rounds, client, key)) for key in columns]
        times = _spread(ratio(rounds, client, base, first))
        lines.append(f"| {' | '.join([client, *cells, times, mark(rounds, client) or ''])} |")
    return lines


def _promises(cell: Cell, rounds: Rounds) -> list[str]:
    words = {True: "met", False: "**missed**", None: "not measured"}
    return [
        f"- {words[verdict.met]}: {verdict.text}; measured {_spread(verdict.measured)}"
        for verdict in verdicts(cell, rounds)
    ]


def markdown(results: Results) -> str:
    """The tables, and the promises with what came of them."""
    where = environment()
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    lines = [
        "# Results",
        "",
        f"{where['date']}, {where['cpu']}, {where['cores']} cores, {where['system']}, Python "
        f"{where['python']}, load average {where['load_average']:.1f} at the end.",
        "",
        f"{versions}.",
        "",
        "Medians of interleaved rounds (least..most); ratios are taken within each round.",
    ]
    for cell, rounds in results:
        title = f"## {cell.name}: {cell.title}"
        lines += ["", title, "", *_table(cell, rounds), "", *_promises(cell, rounds)]
    return "\n".join(lines) + "\n"


def write(results: Results, folder: Path) -> None:
    """results.json and results.md."""
    folder.mkdir(parents=True, exist_ok=True)
    cells = [{**asdict(cell), "results": rounds} for cell, rounds in results]
    text = json.dumps({**environment(), "cells": cells}, indent=1)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
    (folder / "results.md").write_text(markdown(results), encoding="utf-8")
