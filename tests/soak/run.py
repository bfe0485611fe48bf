"""The soak: many streams of mixed faults at once, and what is lost, doubled or left behind.

    python tests/soak/run.py [--streams N] [--seed S] [--at-once N]

The engine has a process of its own. Exit status 1 says that something was wrong; ctrl-C ends it
with the figures so far. With the seed and a stream's number, `soak.plan.plan` tells what it was.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from soak.census import Census, census, left_behind, settled
from soak.engine import engine_process
from soak.load import Load, Tally


WARM_UP = 3000
EVERY = 5.0
"""Seconds between two lines of progress."""

MAY_GROW = 24.0
"""MB that the process may grow by between the warm-up and the end: pages that the allocator keeps
for 64 callers whose streams happen to be long at once. A leak of 250 bytes a stream is more."""


class Progress:
    """Counts streams a second from now on, and tells every few seconds how far it is."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._began = self._told = time.monotonic()
        self._before = tally.streams

    def rate(self) -> float:
        """Streams a second."""
        return (self._tally.streams - self._before) / (time.monotonic() - self._began)

    def tell(self) -> None:
        """Print a line if it is time."""
        if time.monotonic() >= self._told + EVERY:
            self._told = time.monotonic()
            wrong = self._tally.wrongs.total()
            ends = ", ".join(f"{kind} {n}" for kind, n in self._tally.ends.most_common())
            print(f"{self._tally.streams} streams, {self.rate():.0f}/s, wrong {wrong}: {ends}")
            sys.stdout.flush()


def main() -> int:
    """Run the soak and return the exit code."""
    options = command_line().parse_args()
    with engine_process() as url:
        code = soak(url, options.streams, options.seed, options.at_once)
    return code


def command_line() -> argparse.ArgumentParser:
    """What may be asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--streams", type=int, default=100_000, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--at-once", type=int, default=64, metavar="N")
    return parser


@dataclass
class Figures:
    """What a soak has come to so far.

    Attributes:
        tally: What became of the streams, those of the warm-up too.
        held: What the process held when.
        rate: Streams a second, after the warm-up.
        interrupted: By ctrl-C.
    """

    tally: Tally = field(default_factory=Tally)
    held: dict[str, Census] = field(default_factory=dict)
    rate: float = 0.0
    interrupted: bool = False


def soak(url: str, streams: int, seed: int, at_once: int) -> int:
    """Run so many streams on an engine, print the figures, and return the exit code."""
    figures = Figures(held={"before": census()})
    run(Load(url, seed, at_once), streams, figures)
    figures.held["closed"] = settled(figures.held["before"])
    report(figures)
    well = judge(figures)
    return 130 if figures.interrupted else int(not well)


def run(load: Load, streams: int, figures: Figures) -> None:
    """Run so many streams; nothing holds the load when this returns."""
    warm_up = min(WARM_UP, streams // 2)
    progress = Progress(figures.tally)
    try:
        if load.run(warm_up, figures.tally, progress.tell):
            figures.held["warmed up"] = census()
            progress = Progress(figures.tally)
            load.run(streams - warm_up, figures.tally, progress.tell)
    except KeyboardInterrupt:
        figures.interrupted = True
    figures.rate = progress.rate()
    figures.held["after"] = census()
    load.close()


def report(figures: Figures) -> None:
    """Print what has become of the streams."""
    tally = figures.tally
    print(f"\nstreams            {tally.streams}")
    print(f"streams a second   {figures.rate:.0f}")
    print(f"tokens taken       {tally.tokens}")
    print("\nfaults")
    for fault, count in tally.faults.most_common():
        print(f"  {fault:<20} {count:>7}")
    print("\noutcomes")
    for kind, count in tally.ends.most_common():
        print(f"  {kind:<20} {count:>7}")
    print()
    for wrong, count in tally.wrongs.items():
        print(f"{wrong:<22} {count}")
    for example in tally.examples:
        print(example)
    late, which = tally.worst
    print(f"\nworst time to the terminal event, clocks apart: {late:.3f} s ({which})")
    print(f"worst time from cancel to the end: {tally.worst_cancel:.3f} s")


def judge(figures: Figures) -> bool:
    """Print what the process held when; whether nothing was wrong, and nothing is left."""
    held = figures.held
    print(f"\n{'':<12} threads  descriptors  RSS (MB)")
    for when, what in held.items():
        print(f"{when:<12} {what.threads:>7}  {what.descriptors:>11}  {what.rss:>8.1f}")
    grown = held["after"].rss - held.get("warmed up", held["before"]).rss
    left = left_behind(held["before"], held["closed"])
    print(f"left behind: {left[0]} threads, {left[1]} descriptors")
    print(f"grown after the warm-up by {grown:.1f} of {MAY_GROW:g} MB")
    return figures.tally.well and not any(left) and grown <= MAY_GROW


if __name__ == "__main__":
    faulthandler.enable()
    status = main()
    sys.stdout.flush()
    os._exit(status)  # callers that hang must not keep the process
