"""Runs small machines under every schedule with a few preemptions: one thread at a time.

A *scenario* builds a machine out of the modules under test, adds the threads that use it, and
returns a check for the end. `explore` runs it again and again. Each line of those modules is a
point at which another thread may go on (a preemption); where a thread blocks or ends, any other may
go on for nothing. Locks, queues and clocks are models (`models`) that say whom they block, so
that a deadlock is seen, and time passes only where nobody can run, or as a preemption. An interrupt
or a finalizer may come to a thread wherever CPython lets one: as a call begins, and as it returns.

A schedule is written as what it does otherwise than to go on with who runs, and can be replayed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TypeAlias

import pytest
from exploring.managed import Failed, Plan
from exploring.models import substituted
from exploring.world import World


Scenario: TypeAlias = Callable[[World], Callable[[], None]]

BOUND = int(os.environ.get("VLLM_HTTP_TEST_SCHEDULES", "2"))
"""Preemptions in a schedule; one less where there would be too many for every day."""

_ALL = 10**6


def _runs(
    scenario: Scenario, budget: dict[str, int], files: frozenset[str], fine: bool
) -> Iterator[tuple[World, Exception | None]]:
    """All, depth first."""
    open_plans: list[tuple[Plan, dict[str, int]]] = [((), budget)]
    while open_plans:
        plan, left = open_plans.pop()
        world = World(plan, left, files, fine)
        failure = None
        try:
            world.run(scenario)
        except Exception as one:
            failure = one
        yield world, failure
        for step, cost in reversed(world.alternatives):
            open_plans.append(((*plan, step), {**left, cost: left.get(cost, 0) - 1}))


def explore(
    scenario: Scenario,
    *modules: ModuleType,
    also: tuple[ModuleType, ...] = (),
    preemptions: int = BOUND,
    faults: int = 1,
    turns: int = _ALL,
    fine: bool = False,
    only: Plan | None = None,
) -> int:
    """Run a scenario under every schedule, and print how many there are.

    Args:
        scenario: See above.
        modules: Whose lines are points, and whose locks, queues and clocks are models.
        also: More that have models, but no points.
        preemptions: The most of them in a schedule.
        faults: The most interrupts and collections, where the scenario has any.
        turns: The most blocks in a schedule at which another goes on than the first that can.
        fine: Between instructions, not lines.
        only: This schedule alone: what a failure has told.

    Returns:
        The number of schedules.

    Raises:
        Failed: Under one of them; tells it and its switches.
    """
    if fine and sys.version_info >= (3, 12):
        pytest.skip("Python 3.12.1 crashes where instructions are traced; 3.13.0 tells not all")
    budget = {"preemption": preemptions, "fault": faults, "turn": turns}
    files = frozenset(str(module.__file__) for module in modules)
    count = 0
    with substituted((*modules, *also)):
        if only is not None:
            world = World(only, dict.fromkeys(budget, 0), files, fine)
            world.run(scenario)
            return 1
        for world, failure in _runs(scenario, budget, files, fine):
            count += 1
            if failure is not None:
                story = "".join(f"\n    {line}" for line in world.story)
                told = Failed(
                    f"{scenario.__name__}, schedule {count}: {failure}\n  only={world.plan}{story}"
                )
                told.plan = world.plan
                raise told from failure
    print(f"{scenario.__name__}: {count} schedules")
    return count
