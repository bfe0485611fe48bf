"""One client under one load, in a process of its own; prints its figures as one line of JSON.

Started by run.py. CPU is getrusage's user and system time of this process, the client's.
"""

from __future__ import annotations

import array
import gc
import json
import os
import resource
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator

from cells import Load
from clients import CLIENTS, make
from clients.base import Client, Job, Skipped, Take
from gauges import Figures, cpu, percentile, status, vllm_terms
from server import TEXT_LENGTH
from ticks import Ticks


def say(figures: Figures) -> None:
    """Print the figures and end at once, whatever threads still do."""
    print(json.dumps(figures), flush=True)
    os._exit(0)


def warm(client: Client) -> None:
    """Two requests: code loaded, a connection open."""
    client.sequence(Job("flood", 200, len) for _ in range(2))


def _check(client: Client, load: Load) -> None:
    """Every token of every stream arrives."""
    texts: list[str] = []
    client.together([Job(load.mode, 1000, texts.append) for _ in range(load.streams)])
    if sum(map(len, texts)) != load.streams * 1000 * TEXT_LENGTH:
        raise AssertionError("tokens were lost")


def flood(client: Client, load: Load) -> Figures:
    """CPU per token and tokens a second when nothing has to be waited for."""
    warm(client)
    _check(client, load)
    take = deque[str](maxlen=1).append  # cheap, so that the floor is low
    rounds = 0
    start, used = time.perf_counter(), cpu()
    while not rounds or time.perf_counter() - start < load.seconds:
        client.together([Job(load.mode, load.tokens, take) for _ in range(load.streams)])
        rounds += 1
    seconds, used = time.perf_counter() - start, cpu() - used
    tokens = rounds * load.streams * load.tokens
    return {
        "cpu_us_per_token": used / tokens * 1e6,
        "tokens_per_s": tokens / seconds,
        "cores": used / seconds,
    }


def engine(client: Client, load: Load) -> Figures:
    """All streams at once from a real engine, in vLLM's own terms."""
    client.sequence([Job(load.mode, 8, len)])
    arrivals = [array.array("q") for _ in range(load.streams)]
    jobs = [Job(load.mode, load.tokens, clocked(times)) for times in arrivals]
    start, start_ns, used = time.perf_counter(), time.monotonic_ns(), cpu()
    client.together(jobs)
    seconds, used = time.perf_counter() - start, cpu() - used
    waits = sorted(times[0] - start_ns for times in arrivals if times)
    tokens = load.streams * load.tokens
    return {
        "cpu_us_per_token": used / tokens * 1e6,
        "tokens_per_s": tokens / seconds,
        "seconds": seconds,
        "cores": used / seconds,
        "events": sum(map(len, arrivals)),
        "ttft_p50_us": percentile(waits, 0.5) / 1e3,
        **vllm_terms(arrivals),
    }


def clocked(times: array.array[int]) -> Take:
    """A caller's loop body that notes when each token came."""
    append, now = times.append, time.monotonic_ns
    return lambda _: append(now())


def first_token(client: Client, load: Load) -> Figures:
    """From just before the call to the first token in the caller's loop body."""
    warm(client)
    waits: list[int] = []

    def jobs() -> Iterator[Job]:
        for _ in range(load.requests):
            seen: list[int] = []
            start = time.perf_counter_ns()
            yield Job(load.mode, load.tokens, lambda _, seen=seen: seen.append(clock()))  # type: ignore[misc]
            waits.append(seen[0] - start)

    clock = time.perf_counter_ns
    client.sequence(jobs())
    waits.clear()
    used = cpu()
    client.sequence(jobs())
    used = cpu() - used
    waits.sort()
    return {
        "ttft_p50_us": percentile(waits, 0.5) / 1e3,
        "ttft_p90_us": percentile(waits, 0.9) / 1e3,
        "cpu_us_per_request": used / load.requests * 1e6,
    }


def import_time(statement: str) -> Figures:
    """What the import alone costs; the interpreter and this file are loaded already."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    loaded, rss, start, used = len(sys.modules), status("VmRSS"), time.perf_counter(), cpu()
    exec(statement)
    return {
        "import_ms": (time.perf_counter() - start) * 1e3,
        "import_cpu_ms": (cpu() - used) * 1e3,
        "modules": len(sys.modules) - loaded,
        "rss_mib": (status("VmRSS") - rss) / 1024,
    }


def reader(client: Client, load: Load) -> Figures:
    """How memory grows while one stream runs, its consumer awake or asleep."""
    warm(client)
    for_ever = threading.Event()
    taken = 0

    def take(text: str) -> None:
        nonlocal taken
        taken += 1
        if load.sleeper:
            for_ever.wait()

    job = Job(load.mode, load.tokens, take)
    gc.collect()
    base = highest = status("VmRSS")
    thread = threading.Thread(target=client.together, args=([job],), daemon=True)
    start = time.perf_counter()
    thread.start()
    while thread.is_alive() and (not load.sleeper or time.perf_counter() - start < load.seconds):
        highest = max(highest, status("VmRSS"))
        thread.join(0.02)
    return {"rss_growth_mib": (highest - base) / 1024, "taken": taken}


def bulk(client: Client, load: Load) -> Figures:
    """Many tasks, some at once, one caller."""
    warm(client)
    client.bulk([Job(load.mode, load.tokens, len) for _ in range(load.streams)], load.streams)
    texts: list[str] = []
    jobs = [Job(load.mode, load.tokens, texts.append) for _ in range(load.requests)]
    rss, start, used = status("VmRSS"), time.perf_counter(), cpu()
    client.bulk(jobs, load.streams)
    seconds, used = time.perf_counter() - start, cpu() - used
    tokens = load.requests * load.tokens
    return {
        "cpu_us_per_token": used / tokens * 1e6,
        "cpu_us_per_task": used / load.requests * 1e6,
        "tasks_per_s": load.requests / seconds,
        "missing": 1 - sum(map(len, texts)) / TEXT_LENGTH / tokens,
        "rss_growth_mib": (status("VmRSS") - rss) / 1024,
    }


def main() -> None:
    """Measure what the argument says."""
    spec = json.loads(sys.argv[1])
    name, url = spec.pop("client"), spec.pop("url")
    load = Load(**spec)
    if load.kind == "import":
        say(import_time(f"import {CLIENTS[name].imports}"))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    ticks: Ticks | None = None

    def stop() -> None:
        say({**(ticks.figures() if ticks else {}), "stopped": f"stopped after {load.limit:g} s"})

    limit = threading.Timer(load.limit, stop)
    limit.daemon = True
    limit.start()
    try:
        client = make(name, url, load.streams)
        if load.kind == "ticks":
            warm(client)
            ticks = Ticks(client, load)
            say(ticks.run())
        kinds = {
            "flood": flood,
            "engine": engine,
            "first_token": first_token,
            "reader": reader,
            "bulk": bulk,
        }
        say(kinds[load.kind](client, load))
    except Skipped as reason:
        say({"skipped": str(reason)})


if __name__ == "__main__":
    main()
