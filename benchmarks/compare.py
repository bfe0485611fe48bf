"""From rounds to medians, spreads, ratios within each round, and verdicts."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

from cells import FLOOR, Cell, Line


Rounds = list[dict[str, dict[str, Any]]]
"""For each round, each client's figures."""

MARKS = ("skipped", "failed", "stopped")


class Spread(NamedTuple):
    """A median and what it lies between."""

    median: float
    least: float
    most: float


class Verdict(NamedTuple):
    """A promise, and what came of it."""

    text: str
    measured: Spread | None
    met: bool | None


def _spread(values: list[float]) -> Spread | None:
    return Spread(statistics.median(values), min(values), max(values)) if values else None


def _known(figures: dict[str, Any], figure: str) -> float | None:
    """The figure; None if there is none or it is nan."""
    value = figures.get(figure)
    return None if value is None or value != value else float(value)


def spread(rounds: Rounds, client: str, figure: str) -> Spread | None:
    """A figure of a client over all rounds that have it."""
    values = [_known(clients.get(client, {}), figure) for clients in rounds]
    return _spread([value for value in values if value is not None])


def against(
    rounds: Rounds, client: str, other: str, figure: str, how: Callable[[float, float], float]
) -> Spread | None:
    """Two clients' figures, put together within each round that has both."""
    values = []
    for clients in rounds:
        one, two = (_known(clients.get(name, {}), figure) for name in (client, other))
        if one is not None and two:
            values.append(how(one, two))
    return _spread(values)


def ratio(rounds: Rounds, client: str, other: str, figure: str) -> Spread | None:
    """How many times the other's figure, within each round."""
    return against(rounds, client, other, figure, lambda one, two: one / two)


def mark(rounds: Rounds, client: str) -> str | None:
    """Why a client has no or not all figures."""
    for clients in rounds:
        for kind in MARKS:
            if kind in clients.get(client, {}):
                text = clients[client][kind]
                return text if kind == "stopped" else f"{kind}: {text}"
    return None


def floor(cell: Cell) -> str:
    """What the cell's figures are compared with: the floor, or the first client."""
    return FLOOR if FLOOR in cell.clients else cell.clients[0]


def verdicts(cell: Cell, rounds: Rounds) -> list[Verdict]:
    """The cell's promises, each with what was measured."""
    return [_verdict(line, rounds) for line in cell.lines]


def _verdict(line: Line, rounds: Rounds) -> Verdict:
    if line.than is None:
        text = f"{line.figure} of {line.client}: at most {line.most:.4g}"
        measured = spread(rounds, line.client, line.figure)
    elif line.plus:
        text = f"{line.figure} of {line.client}: at most {line.most:.4g} above {line.than}"
        measured = against(rounds, line.client, line.than, line.figure, lambda one, two: one - two)
    else:
        text = f"{line.figure} of {line.client}: at most {line.most:.3g} x {line.than}"
        measured = ratio(rounds, line.client, line.than, line.figure)
    met = None if measured is None else measured.median <= line.most + 1e-9
    return Verdict(text, measured, met)
