"""What the matrix has found, told at the end of the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
from faults.figures import FIGURES, Figures
from faults.outcome import Outcome
from faults.row import PHASES

from vllm_http.testing import FakeEngine


_OUTCOMES = pytest.StashKey[list[Outcome]]()


@pytest.fixture
def outcomes(pytestconfig: pytest.Config) -> list[Outcome]:
    """What all rows have come to so far; a test adds its own."""
    return pytestconfig.stash.setdefault(_OUTCOMES, [])


@pytest.fixture
def figures(pytestconfig: pytest.Config) -> Figures:
    """What was measured of cancels so far; a test adds its own."""
    return pytestconfig.stash.setdefault(FIGURES, Figures())


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    """An engine whose /version leaves no connection behind that a task could take over."""
    with FakeEngine(keep_alive=60) as engine:
        engine.override("/version", 200, {"version": "0.32.0"}, {"connection": "close"})
        yield engine


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what faults were tried when, what callers saw of them, how late, and of cancels."""
    outcomes = config.stash.get(_OUTCOMES, [])
    lines = summary(outcomes) if outcomes else []
    lines += config.stash.get(FIGURES, Figures()).lines()
    if lines:
        terminalreporter.section("faults")
        for line in lines:
            terminalreporter.write_line(line)


def summary(outcomes: list[Outcome]) -> list[str]:
    """A table of phases and outcomes, and the worst delay."""
    kinds = [kind for kind, _ in Counter(o.seen.kind for o in outcomes).most_common()]
    widths = [max(len(kind), 4) for kind in kinds]
    faults = len({o.row.fault for o in outcomes})
    phases = len({o.row.phase for o in outcomes})

    def line(name: str, cells: Sequence[object]) -> str:
        columns = zip(cells, [6, *widths], strict=True)
        return f"{name:<22}" + "  ".join(f"{cell or '':>{width}}" for cell, width in columns)

    lines = [line("phase", ["rows", *kinds])]
    for phase in (*PHASES, None):
        counts = Counter(o.seen.kind for o in outcomes if phase in (o.row.phase, None))
        if counts:
            cells = [counts.total(), *(counts[kind] for kind in kinds)]
            lines.append(line(phase or "in all", cells))
    worst = max(outcomes, key=lambda o: o.seen.seconds - o.row.due)
    beyond = worst.seen.seconds - worst.row.due
    return [
        *lines,
        f"faults tried: {faults}, in {phases} phases: {len(outcomes)} rows",
        f"worst time to the end beyond the clock that was due: {beyond:.3f} s ({worst.row})",
    ]
