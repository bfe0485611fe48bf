"""The load of the soak: so many callers at once, each with one stream after the other."""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from soak.caller import PATIENCE, WRONGS, Taken, take, wrongs
from soak.plan import CANCELS, DRAINS, Plan, plan

from vllm_http import RetryPolicy, TaskRequest, TokenStream, VllmHttpAdapter


RETRY = RetryPolicy(attempts=3, base=0.001, cap=0.002)
TINY = 2
"""Events in a tiny queue."""

_LOOK = 0.2
_HUNG = 2 * PATIENCE
"""Seconds without any stream's end after which the callers themselves must hang."""

_EXAMPLES = 3


@dataclass
class Tally:
    """What has become of all streams; under its lock."""

    streams: int = 0
    tokens: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    wrongs: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(WRONGS, 0)))
    examples: list[str] = field(default_factory=list)
    noted: Counter[str] = field(default_factory=Counter)
    worst: tuple[float, str] = (0.0, "")
    worst_cancel: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, number: int, plan: Plan, taken: Taken) -> None:
        """Count one stream, and keep what is wrong with it."""
        found = wrongs(plan, taken)
        late = taken.seconds - plan.fault.due
        with self.lock:
            self.streams += 1
            self.tokens += sum(event.type == "token" for event in taken.events)
            self.ends[taken.kind] += 1
            self.faults[plan.fault.name] += 1
            self.wrongs.update(found)
            if plan.caller == DRAINS and late > self.worst[0]:
                self.worst = (late, f"{plan.fault.name}, stream {number}")
            self.worst_cancel = max(self.worst_cancel, taken.since_cancel or 0.0)
        if found:
            what = f"{plan.fault.name}, sends {plan.fault.sent}, caller {plan.caller}"
            kinds = ", ".join(
                f"{n} {kind}" for kind, n in Counter(e.type for e in taken.events).items()
            )
            wrong = ", ".join(found)
            self.note(f"stream {number} ({what}): {wrong}: {kinds}; {taken.events[-1:]}", wrong)

    def note(self, example: str, wrong: str) -> None:
        """Keep the first examples of each wrong."""
        with self.lock:
            self.noted[wrong] += 1
            if self.noted[wrong] <= _EXAMPLES:
                self.examples.append(example)

    @property
    def well(self) -> bool:
        """Whether nothing was wrong."""
        return not self.wrongs.total() and not self.examples


class Load:
    """Callers on one engine.

    Args:
        url: The engine's.
        seed: Of all plans.
        at_once: Callers.
    """

    def __init__(self, url: str, seed: int, at_once: int) -> None:
        self._seed = seed
        self._at_once = at_once
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._cancels: queue.SimpleQueue[tuple[float, TokenStream, Taken] | None]
        self._cancels = queue.SimpleQueue()
        roomy, tiny = (
            VllmHttpAdapter(url, retry=RETRY, max_concurrency=4 * at_once, queue_size=size)
            for size in (1024, TINY)
        )
        self._adapters = {False: roomy, True: tiny}

    def close(self) -> None:
        """Close the adapters."""
        for adapter in self._adapters.values():
            adapter.close()

    def run(self, count: int, tally: Tally, tell: Callable[[], None]) -> bool:
        """Run so many streams; False if callers hang, which are left behind then.

        Args:
            count: Streams.
            tally: Takes what becomes of them.
            tell: Called again and again.
        """
        numbers = itertools.islice(self._numbers, count)
        callers = [
            threading.Thread(target=self._call, args=(numbers, tally), name="caller", daemon=True)
            for _ in range(self._at_once)
        ]
        with self._canceller():
            for caller in callers:
                caller.start()
            try:
                return _join(callers, tally, tell)
            except KeyboardInterrupt:
                self._stop.set()
                _join(callers, tally, tell)
                raise

    def _call(self, numbers: Iterator[int], tally: Tally) -> None:
        """A caller's body."""
        while not self._stop.is_set():
            with tally.lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                self._stream(number, tally)
            except Exception:
                tally.note(f"stream {number}: {traceback.format_exc()}", "exception")

    def _stream(self, number: int, tally: Tally) -> None:
        planned = plan(self._seed, number)
        task = TaskRequest(prompt=[self._seed, number], model="fake-model", max_tokens=1)
        taken, since = Taken(), time.monotonic()
        stream = self._adapters[planned.tiny].submit(task, timeouts=planned.fault.timeouts)
        if planned.caller == CANCELS:
            self._cancels.put((since + planned.delay, stream, taken))
        take(stream, planned, taken, since)
        tally.add(number, planned, taken)

    @contextlib.contextmanager
    def _canceller(self) -> Iterator[None]:
        """Another thread cancels."""
        thread = threading.Thread(target=self._cancel, name="canceller", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._cancels.put(None)
            thread.join(PATIENCE)

    def _cancel(self) -> None:
        """The canceller's body."""
        pause = threading.Event()
        while (due := self._cancels.get()) is not None:
            when, stream, taken = due
            pause.wait(max(0.0, when - time.monotonic()))
            taken.cancelled = time.monotonic()
            stream.cancel()
            del due, stream


def _join(callers: list[threading.Thread], tally: Tally, tell: Callable[[], None]) -> bool:
    done, since = tally.streams, time.monotonic()
    while alive := [caller for caller in callers if caller.is_alive()]:
        alive[0].join(_LOOK)
        tell()
        if tally.streams > done:
            done, since = tally.streams, time.monotonic()
        elif time.monotonic() > since + _HUNG:
            tally.note(f"{len(alive)} callers hang", "hang")
            return False
    return True
