"""Many tasks' events into one queue, under every schedule: in order, none lost, none asleep."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

from exploring.locks import SimpleQueue
from exploring.managed import raised_by
from exploring.schedules import BOUND, explore
from exploring.world import World

from vllm_http import _bell, _bulk, _funnel, _gate
from vllm_http._bulk import stream_many
from vllm_http._errors import AdapterClosed, CapacityExceeded
from vllm_http._events import End, Error, Token, TokenEvent
from vllm_http._funnel import Funnel, Port
from vllm_http._metrics import Metrics


STEPPED = (_funnel, _gate, _bell)

END = End(Metrics(), "stop")
CLOSED = Error(AdapterClosed("closed"))


def port(funnel: Funnel, number: int) -> Port:
    """One of them."""
    return Port(funnel, f"task {number}", number)  # type: ignore[arg-type]


class Reader:
    """Delivers to all ports in turn, as one thread, and waits as `Reading` does for each."""

    def __init__(self, *reads: tuple[Port, list[Token]]) -> None:
        self.inbox = SimpleQueue()
        self._reads = reads

    def __call__(self) -> None:
        """The thread's body."""
        left: dict[Port, list[list[Token]]] = {}
        for to, tokens in self._reads:
            left.setdefault(to, []).append(tokens)
        watched = list(left)
        while left:
            for to in watched:
                if to.over:
                    del left[to]
                elif not left[to]:
                    to.finish(END)
                    del left[to]
                else:
                    room = to.deliver(left[to].pop(0), partial(self.inbox.put, to))
                    to.bell.ring()
                    if not room:
                        watched.remove(to)
                        break
            watched = [to for to in watched if to in left]
            if left and not watched:
                to = self.inbox.get()
                if to in left and (to.over or not to.holds_back):
                    watched.append(to)


def take_all(funnel: Funnel, ports: list[Port], taken: list[tuple[int, TokenEvent]]) -> None:
    """The caller's part, until each port has ended."""
    live = set(ports)
    while live:
        for one, events in funnel.take():
            for event in events:
                if one.may_show(event):
                    taken.append((one.position, event))
                    if isinstance(event, (End, Error)):
                        live.remove(one)


def test_all_come_in_order() -> None:
    """Each task's events in theirs; a full funnel holds reading back, and it goes on."""

    def two_ports(world: World) -> Callable[[], None]:
        funnel = Funnel(1)
        ports = [port(funnel, 0), port(funnel, 1)]
        reads = [(ports[n], [Token("", i)]) for i in range(2) for n in range(2)]
        taken: list[tuple[int, TokenEvent]] = []
        world.thread("reader", Reader(*reads))
        world.thread("caller", lambda: take_all(funnel, ports, taken))

        def check() -> None:
            for number in range(2):
                events = [event for position, event in taken if position == number]
                assert events == [Token("", 0), Token("", 1), END]
            assert (list(funnel.batches), funnel.held) == ([], [])

        return check

    explore(two_ports, *STEPPED, preemptions=BOUND - 1)


def test_one_is_ended_from_elsewhere() -> None:
    """Its clock or a cancel ends one; the other goes on, and the last event comes once."""

    def end_one(world: World) -> Callable[[], None]:
        funnel = Funnel(1)
        ports = [port(funnel, 0), port(funnel, 1)]
        reader = Reader(*[(one, [Token("", 0), Token("", 1)]) for one in ports])
        taken: list[tuple[int, TokenEvent]] = []

        def end() -> None:
            if ports[0].finish(CLOSED, purge=True):
                reader.inbox.put(ports[0])

        world.thread("reader", reader)
        world.thread("caller", lambda: take_all(funnel, ports, taken))
        world.thread("ender", end)

        def check() -> None:
            events = {n: [event for at, event in taken if at == n] for n in range(2)}
            assert events[1] == [Token("", 0), Token("", 1), END]
            *text, last = events[0]
            assert last in (END, CLOSED)
            assert text == [Token("", 0), Token("", 1)][: len(text)]

        return check

    explore(end_one, *STEPPED, preemptions=BOUND - 1, turns=1)


def test_slow_caller_is_no_stall() -> None:
    """At no moment does a clock think that the engine was silent while the caller made it wait."""

    def look_while_going_on(world: World) -> Callable[[], None]:
        funnel = Funnel(1)
        one = port(funnel, 0)
        inbox = SimpleQueue()

        def read() -> None:
            for number in range(2):
                since = world.now
                assert not one.deliver([Token("", number)], lambda: inbox.put(None))
                one.bell.ring()
                now = world.now
                assert now - max(since, one.held_back_until(now)) < 1
                inbox.get()
            one.finish(END)

        def take_late() -> None:
            last: TokenEvent | None = None
            while last is not END:
                if one.holds_back:
                    world.now += 100
                for _, events in funnel.take():
                    last = events[-1]

        world.thread("caller", take_late)
        world.thread("reader", read)
        return lambda: None

    explore(look_while_going_on, *STEPPED)


class Engine:
    """Admits so many, and serves each on a thread of the world's.

    Attributes:
        endless: A task ends only by being abandoned.
    """

    def __init__(self, world: World, places: int) -> None:
        self.world = world
        self.places = places
        self.endless = False
        self.running: set[int] = set()

    def prepare(self, task: Any, to: Port) -> Any:
        """As `VllmHttpAdapter._prepare`."""
        abandon = partial(self.abandon, to)
        return SimpleNamespace(job_id=str(task), gate=to, abandon=abandon, abandon_soon=abandon)

    def admit(self, run: Any) -> None:
        """As `Slots.admit`."""
        to = run.gate
        if len(self.running) >= self.places:
            raise CapacityExceeded("full")
        self.running.add(to.position)
        self.world.thread(f"worker {to.position}", lambda: self.serve(to), daemon=True)

    def serve(self, to: Port) -> None:
        """One token, and the end."""
        inbox = SimpleQueue()
        room = to.deliver([Token("", 0)], lambda: inbox.put(None))
        to.bell.ring()
        if not room and not to.over:
            inbox.get()
        if not self.endless:
            self.running.discard(to.position)
            to.finish(END)

    def abandon(self, to: Port) -> None:
        """As `Run.abandon`."""
        self.running.discard(to.position)
        to.finish(None)
        to.drop()


def test_stream_many_over_a_full_engine() -> None:
    """Those that are refused while others run are tried again; each ends, and once."""

    def intake(world: World) -> Callable[[], None]:
        engine = Engine(world, places=1)
        taken: list[tuple[Any, TokenEvent]] = []

        def take() -> None:
            taken.extend(stream_many(engine.prepare, engine.admit, ["a", "b"], 2, 1))  # type: ignore[list-item]

        world.thread("caller", take)

        def check() -> None:
            for task in ("a", "b"):
                events = [event for of, event in taken if of == task]
                assert events == [Token("", 0), END]
            assert engine.running == set()

        return check

    explore(intake, *STEPPED, _bulk, preemptions=BOUND - 1)


def test_stream_many_that_is_interrupted() -> None:
    """A ctrl-C while it starts or takes leaves no task that runs without anybody who knows."""

    def interrupted_intake(world: World) -> Callable[[], None]:
        engine = Engine(world, places=2)
        engine.endless = True

        def take() -> None:
            tasks: Any = ["a", "b"]
            events: Any = stream_many(engine.prepare, engine.admit, tasks, 2, 4)
            raised_by(lambda: (next(events), next(events)))
            world.interrupts.clear()
            events.close()

        world.thread("caller", take)
        world.interrupt("caller")

        def check() -> None:
            assert engine.running == set()

        return check

    explore(interrupted_intake, *STEPPED, _bulk, preemptions=0)
