"""The results as PNG charts, if matplotlib is there."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from cells import Cell
from compare import Rounds, spread
from report import COLUMNS, Results, number


FIGURES = {
    "flood": ("cpu_us_per_token",),
    "ticks": ("cpu_us_per_token", "p99_ms"),
    "first_token": ("ttft_p50_us",),
    "import": ("import_ms",),
    "reader": ("rss_growth_mib",),
    "engine": ("cpu_us_per_token",),
    "bulk": ("cpu_us_per_token",),
}


def write(results: Results, folder: Path) -> None:
    """One chart for each cell that has figures."""
    if importlib.util.find_spec("matplotlib") is None:
        print("no charts: matplotlib is not installed")
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    for cell, rounds in results:
        figures = FIGURES[cell.load.kind]
        height = 1.2 + 0.35 * len(cell.clients)
        chart, axes = pyplot.subplots(
            1, len(figures), figsize=(6.5 * len(figures), height), squeeze=False
        )
        for axis, figure in zip(axes[0], figures, strict=True):
            _bars(axis, cell, rounds, figure)
        chart.suptitle(cell.title, fontsize=10)
        chart.tight_layout()
        chart.savefig(folder / f"{cell.name}.png", dpi=110)
        pyplot.close(chart)


def _bars(axis: Any, cell: Cell, rounds: Rounds, figure: str) -> None:
    """Medians as bars, least and most as whiskers; logarithmic, for the costs differ so much."""
    spreads = [(client, spread(rounds, client, figure)) for client in reversed(cell.clients)]
    known = [(client, value) for client, value in spreads if value is not None]
    medians = [value.median for _, value in known]
    whiskers = [
        [value.median - value.least for _, value in known],
        [value.most - value.median for _, value in known],
    ]
    colors = ["#d95f02" if "vllm_http" in client else "#7f8c9a" for client, _ in known]
    bars = axis.barh([client for client, _ in known], medians, xerr=whiskers, color=colors)
    axis.bar_label(bars, [number(median) for median in medians], padding=4, fontsize=8)
    if medians and min(medians) > 0:
        axis.set_xscale("log")
    axis.margins(x=0.15)
    axis.set_xlabel(f"{COLUMNS[figure]} (less is better)", fontsize=8)
    axis.tick_params(labelsize=8)
