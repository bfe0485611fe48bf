"""What the tests of cancels and exits have measured, told at the end of the run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest


@dataclass
class Figures:
    """How late ends came after a cancel, and how many races were run.

    Attributes:
        ends: Seconds from a cancel to the end of the caller's iteration, by phase.
        races: How often each end was seen, by what the cancel ran against.
        seconds: What all races took.
        exits: Seconds that an interpreter took to leave, by what its streams were doing.
    """

    ends: dict[str, list[float]] = field(default_factory=dict)
    races: dict[str, Counter[str]] = field(default_factory=dict)
    seconds: float = 0.0
    exits: dict[str, float] = field(default_factory=dict)

    def cancelled(self, phase: str, seconds: float) -> None:
        """A cancel in this phase took so long to end the iteration."""
        self.ends.setdefault(phase, []).append(seconds)

    def raced(self, rival: str, ends: Counter[str], seconds: float) -> None:
        """So many races against this rival took so long."""
        self.races[rival] = ends
        self.seconds += seconds

    def lines(self) -> list[str]:
        """For people."""
        lines = [
            f"cancel, {phase:<21}{len(times):>3} times, worst end after {max(times) * 1000:6.1f} ms"
            for phase, times in self.ends.items()
        ]
        for rival, ends in self.races.items():
            seen = ", ".join(f"{end} {count}" for end, count in ends.most_common())
            lines.append(f"cancel against {rival}: {ends.total()} races, ended by: {seen}")
        if self.races:
            total = sum(ends.total() for ends in self.races.values())
            lines.append(f"races in all: {total} in {self.seconds:.1f} s")
        if self.exits:
            worst = max(self.exits, key=lambda name: self.exits[name])
            lines.append(f"worst exit of an interpreter: {self.exits[worst]:.3f} s ({worst})")
        return lines


FIGURES = pytest.StashKey[Figures]()
