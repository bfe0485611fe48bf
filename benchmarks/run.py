"""Run the benchmark: `python benchmarks/run.py`, under ten minutes; README.md explains it."""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import charts
import report
from cells import GRID, SHOWN, Cell, engine_cell
from clients import CLIENTS, missing
from gauges import Figures
from noise import Noise


HERE = Path(__file__).parent
GRACE = 10.0
"""Seconds that a client may overrun its limit before it is killed."""


class Server(NamedTuple):
    """Our own server."""

    url: str
    pid: int


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """The server; it ends with the block."""
    command = [sys.executable, str(HERE / "server.py")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield Server(f"http://127.0.0.1:{int(process.stdout.readline())}", process.pid)
        finally:
            process.kill()


def measure(cell: Cell, client: str, url: str) -> Figures:
    """One client's figures, or why there are none."""
    if (package := missing(client)) is not None:
        return {"skipped": f"{package} is not installed"}
    command = [sys.executable, str(HERE / "measure.py"), json.dumps(cell.spec(client, url))]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=cell.load.limit + GRACE, check=False
        )
    except subprocess.TimeoutExpired:
        return {"stopped": f"killed after {cell.load.limit + GRACE:g} s"}
    if done.returncode:
        reason = (done.stderr.splitlines() or ["no reason given"])[-1]
        return {"failed": f"exit status {done.returncode}: {reason}"}
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def run_cell(cell: Cell, url: str, server: int) -> list[dict[str, Figures]]:
    """Rounds of the cell, each with every client; every other round in reverse."""
    rounds = []
    for number in range(cell.rounds):
        figures: dict[str, Figures] = {}
        clients = [name for name in cell.clients if not number or name not in cell.once]
        for client in clients[:: -1 if number % 2 else 1]:
            start, noise = time.perf_counter(), Noise(server)
            figures[client] = {**measure(cell, client, url), "others": noise.cores()}
            print(
                f"{cell.name} {number + 1}/{cell.rounds} {client}: {report.brief(figures[client])}"
                f" [{time.perf_counter() - start:.1f} s]",
                flush=True,
            )
        rounds.append({name: figures[name] for name in clients})
    return rounds


def chosen(arguments: argparse.Namespace) -> list[Cell]:
    """The cells that the command line asks for."""
    cells: Sequence[Cell] = SHOWN
    if arguments.engine:
        cells = [engine_cell(arguments.model)]
    elif arguments.full or arguments.only:
        cells = SHOWN + GRID
    wanted = [cell for cell in cells if not arguments.only or cell.name in arguments.only]
    if arguments.quick:
        wanted = [cell.shortened() for cell in wanted]
    if arguments.clients:
        wanted = [cell.of(arguments.clients) for cell in wanted]
    return wanted


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [cell.name for cell in SHOWN + GRID]
    parser.add_argument("--quick", action="store_true", help="one short round, under a minute")
    parser.add_argument("--full", action="store_true", help="the whole grid")
    parser.add_argument("--only", metavar="CELL", action="append", choices=names)
    parser.add_argument("--clients", type=lambda text: text.split(","), metavar="A,B")
    parser.add_argument("--rounds", type=int, help="instead of each cell's own")
    parser.add_argument("--engine", metavar="URL", help="a real engine instead of the server")
    parser.add_argument("--model", help="what the real engine serves")
    parser.add_argument("--out", type=Path, default=HERE / "results", metavar="DIR")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.clients or () if name not in CLIENTS]:
        parser.error(f"no such client: {', '.join(unknown)}; there are {', '.join(CLIENTS)}")
    if bool(arguments.engine) != bool(arguments.model):
        parser.error("--engine and --model go together")
    return arguments


def main() -> None:
    """Measure, and write after each cell what there is."""
    arguments = parse()
    results = []
    with serving() as server:
        for cell in chosen(arguments):
            if arguments.rounds:
                cell = cell.repeated(arguments.rounds)
            results.append((cell, run_cell(cell, arguments.engine or server.url, server.pid)))
            report.write(results, arguments.out)
    charts.write(results, arguments.out)


if __name__ == "__main__":
    main()
