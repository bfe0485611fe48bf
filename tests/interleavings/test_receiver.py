"""One task's events between reader, caller, clocks and whoever ends the stream: every schedule."""

from __future__ import annotations

import queue
from collections.abc import Callable

from exploring.locks import SimpleQueue
from exploring.schedules import BOUND, Scenario, explore
from exploring.world import World

from vllm_http import _bell, _gate, _receiver
from vllm_http._errors import AdapterClosed
from vllm_http._events import End, Error, Started, Token, TokenEvent
from vllm_http._metrics import Metrics
from vllm_http._receiver import Receiver


STEPPED = (_receiver, _gate, _bell)

STARTED = Started("job", "0", "request")
END = End(Metrics(), "stop")
CANCELLED = End(Metrics(), "cancelled")
CLOSED = Error(AdapterClosed("closed"))


def tokens(*numbers: int) -> list[Token]:
    """Told apart by their index."""
    return [Token("", number) for number in numbers]


class Source:
    """Delivers as `Reading` does: waits while there is no room, and leaves what is over."""

    def __init__(self, receiver: Receiver, *reads: list[Token], last: End | None = END) -> None:
        self.receiver = receiver
        self.inbox = SimpleQueue()
        self._reads = reads
        self._last = last

    def __call__(self) -> None:
        """The thread's body."""
        self.receiver.begin(STARTED)
        for read in self._reads:
            room = self.receiver.deliver(read, self.resume)
            self.receiver.bell.ring()
            while not room and not self.receiver.over:
                self.inbox.get()
                self.receiver.resumed()
                room = True
            if self.receiver.over:
                return
        if self._last is not None:
            self.receiver.finish(self._last)

    def resume(self) -> None:
        """As `Run` tells the reader."""
        self.inbox.put(None)

    def end(self, last: End | Error | None, *, purge: bool = False) -> None:
        """As `Run` does from another thread."""
        if self.receiver.finish(last, purge=purge):
            self.inbox.put(None)


def drain(receiver: Receiver, taken: list[TokenEvent]) -> None:
    """Take all, as a caller does who waits."""
    while True:
        try:
            taken.append(receiver.get())
        except queue.Empty:
            return


def test_all_come_in_order() -> None:
    """A full queue holds the reading back, and each wake-up comes."""

    def deliver_and_take(world: World) -> Callable[[], None]:
        receiver = Receiver(2)
        taken: list[TokenEvent] = []
        world.thread("reader", Source(receiver, tokens(0, 1), tokens(2)))
        world.thread("caller", lambda: drain(receiver, taken))

        def check() -> None:
            assert taken == [STARTED, *tokens(0, 1, 2), END]

        return check

    explore(deliver_and_take, *STEPPED)


def test_all_come_in_order_between_instructions() -> None:
    """Not by today's bytecode only: Python may switch between any two instructions."""

    def deliver_and_take_finely(world: World) -> Callable[[], None]:
        receiver = Receiver(2)
        taken: list[TokenEvent] = []
        world.thread("reader", Source(receiver, tokens(0, 1), tokens(2, 3)))
        world.thread("caller", lambda: drain(receiver, taken))

        def check() -> None:
            assert taken == [STARTED, *tokens(0, 1, 2, 3), END]

        return check

    explore(deliver_and_take_finely, *STEPPED, preemptions=BOUND - 1, fine=True)


def ended_by(last: End | Error | None, *, purge: bool) -> Scenario:
    """Somebody ends the stream while it is read and taken."""

    def end_while_taken(world: World) -> Callable[[], None]:
        receiver = Receiver(2)
        source = Source(receiver, tokens(0, 1), tokens(2))
        returned: list[bool] = []
        taken: list[TokenEvent] = []

        def take() -> None:
            try:
                while True:
                    void = bool(returned) and purge
                    taken.append(event := receiver.get())
                    assert not (void and isinstance(event, Token)), "a token after the end"
            except queue.Empty:
                return

        def end() -> None:
            source.end(last, purge=purge)
            returned.append(True)

        world.thread("reader", source)
        world.thread("caller", take)
        world.thread("ender", end)

        def check() -> None:
            lasts = [event for event in taken if isinstance(event, (End, Error))]
            assert lasts in ([END], [] if last is None else [last])
            assert taken[len(taken) - len(lasts) :] == lasts
            text = [event.index for event in taken if isinstance(event, Token)]
            assert text == [0, 1, 2][: len(text)]
            assert text == [0, 1, 2] or lasts != [END] or purge
            assert list(receiver.queue) == []

        return check

    return end_while_taken


def test_cancel() -> None:
    """No token comes out after it has returned, and one last event comes."""
    explore(ended_by(CANCELLED, purge=True), *STEPPED, preemptions=BOUND - 1)


def test_cancel_beside_a_caller() -> None:
    """The same without a reader at work, under more preemptions."""

    def cancel_what_waits(world: World) -> Callable[[], None]:
        receiver = Receiver(4)
        receiver.begin(STARTED)
        receiver.deliver(tokens(0, 1), lambda: None)
        returned: list[bool] = []
        taken: list[TokenEvent] = []

        def take() -> None:
            try:
                while True:
                    void = bool(returned)
                    taken.append(event := receiver.get())
                    assert not (void and isinstance(event, Token)), "a token after cancel"
            except queue.Empty:
                return

        def cancel() -> None:
            receiver.finish(CANCELLED, purge=True)
            returned.append(True)

        world.thread("caller", take)
        world.thread("canceller", cancel)

        def check() -> None:
            assert [event for event in taken if not isinstance(event, Token)] == [
                STARTED,
                CANCELLED,
            ]
            assert taken[-1] is CANCELLED

        return check

    explore(cancel_what_waits, *STEPPED)


def test_close() -> None:
    """What came before an error stays in front of it."""
    explore(ended_by(CLOSED, purge=False), *STEPPED, preemptions=BOUND - 1)


def test_end_without_a_word() -> None:
    """Whoever waits is let go, though no last event comes."""
    explore(ended_by(None, purge=False), *STEPPED, preemptions=BOUND - 1)


def test_slow_caller_is_no_stall() -> None:
    """At no moment does a clock think that the engine was silent while the caller made it wait."""

    def look_while_going_on(world: World) -> Callable[[], None]:
        receiver = Receiver(1)
        inbox = SimpleQueue()
        assert not receiver.deliver(tokens(0), lambda: inbox.put(None))

        def take_late() -> None:
            world.now += 100
            receiver.get()

        def look() -> None:
            now = world.now
            assert now - receiver.held_back_until(now) < 1

        world.thread("caller", take_late)
        world.thread("clock", look)
        return lambda: None

    explore(look_while_going_on, *STEPPED)
    explore(look_while_going_on, *STEPPED, fine=True)


def test_caller_who_is_interrupted_goes_on() -> None:
    """A ctrl-C inside `get` may cost the event that was being taken, but no wake-up."""

    def interrupted_get(world: World) -> Callable[[], None]:
        receiver = Receiver(1)
        taken: list[TokenEvent] = []
        source = Source(receiver, tokens(0), tokens(1))

        def take() -> None:
            try:
                drain(receiver, taken)
            except KeyboardInterrupt:
                drain(receiver, taken)

        world.thread("caller", take)
        world.thread("reader", source)
        world.interrupt("caller")

        def check() -> None:
            whole = [STARTED, *tokens(0, 1), END]
            assert [event for event in whole if event in taken] == taken
            assert len(taken) >= len(whole) - 1

        return check

    explore(interrupted_get, *STEPPED, preemptions=BOUND - 2)


def test_end_that_is_interrupted() -> None:
    """Whoever waits is let go once the stream was ended again."""

    def interrupted_cancel(world: World) -> Callable[[], None]:
        receiver = Receiver(2)
        taken: list[TokenEvent] = []

        def cancel() -> None:
            try:
                receiver.finish(CANCELLED, purge=True)
            except KeyboardInterrupt:
                receiver.finish(CANCELLED, purge=True)

        world.thread("caller", lambda: drain(receiver, taken))
        world.thread("canceller", cancel)
        world.interrupt("canceller")

        def check() -> None:
            assert taken in ([CANCELLED], [])

        return check

    explore(interrupted_cancel, *STEPPED, preemptions=BOUND - 1)
