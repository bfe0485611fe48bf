"""What was found out about networks, told at the end of the run."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest


@dataclass
class Report:
    """A line for each condition."""

    lines: list[str] = field(default_factory=list)

    def add(self, condition: str, sees: str, seconds: float, means: str = "nftables") -> None:
        """Under this condition, the caller has seen that so many seconds later."""
        self.lines.append(f"{condition:<56} {sees:<20} {seconds:7.3f} s  {means}")


REPORT = pytest.StashKey[Report]()
