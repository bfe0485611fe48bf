"""An answer between worker, reader, caller and whoever ends it, under every schedule."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from exploring.schedules import BOUND, explore
from exploring.world import World

from vllm_http import _bell, _gate, _reading, _receiver, _run, _timeline
from vllm_http._errors import WorkerError
from vllm_http._events import End, Error, Token, TokenEvent
from vllm_http._reading import Reading
from vllm_http._receiver import Receiver
from vllm_http._run import Run
from vllm_http._settings import Labels, Timeouts
from vllm_http._task import TaskRequest


ALSO = (_receiver, _gate, _bell, _timeline)

DONE = 255
"""A byte of the answer; all others are tokens."""


class Answer:
    """Body and decoder of an answer that is there from the beginning: a chunk for each read."""

    def __init__(self, *chunks: bytes) -> None:
        self.left = deque(chunks)
        self.released = 0
        self.ended = False
        self.over = False
        self.content = 0
        self.choices = [SimpleNamespace(finish_reason="stop", stop_reason=None)]
        self.info = self.usage = self.metrics = None
        self.tokens_generated = 0
        self._unwatch: Callable[[int], None] | None = None

    def dont_block(self) -> bool:
        """As `Body`."""
        return True

    def watch(self, watch: Callable[[int], None], unwatch: Callable[[int], None]) -> None:
        """As `Body`."""
        watch(7)
        self._unwatch = unwatch

    def unwatch(self) -> None:
        """As `Body`."""
        unwatch, self._unwatch = self._unwatch, None
        if unwatch is not None:
            unwatch(7)

    @property
    def watched(self) -> bool:
        """As `Body`."""
        return self._unwatch is not None

    def read_ready(self) -> bytes | None:
        """As `Body`."""
        assert not self.released, "read after it was let go"
        if not self.left:
            return None
        chunk = self.left.popleft()
        self.ended = chunk == b""
        return chunk

    def holds_bytes(self) -> bool:
        """Nothing that the selector does not see."""
        return False

    def release(self) -> None:
        """As `Body`."""
        self.unwatch()
        self.released += 1

    def feed(self, chunk: bytes) -> list[Token]:
        """As `Decoder`."""
        tokens = [Token("", number) for number in chunk if number != DONE]
        self.content += len(tokens)
        self.over = self.over or DONE in chunk
        return tokens

    def finish(self) -> None:
        """It is whole."""


class OneThread:
    """As `Reader`: calls what it was told, and reads what is ready."""

    def __init__(self, world: World, answer: Answer) -> None:
        self.inbox: deque[Callable[[], object]] = deque()
        self.soon = self.afterwards = self.inbox.append
        self.watched: Any = None
        self._world = world
        self._answer = answer
        world.thread("reader", self._read, daemon=True)

    def at(self, when: float, ring: object) -> None:
        """Nothing is late here."""

    def watch(self, fileno: int, watched: Any) -> None:
        """As `Reader`."""
        assert self.watched is None
        assert not self._answer.released, "watched after it was let go"
        self.watched = watched

    def unwatch(self, fileno: int) -> None:
        """As `Reader`."""
        assert self.watched is not None
        assert not self._answer.released, "let go before it was unwatched"
        self.watched = None

    def _ready(self) -> bool:
        return self.watched is not None and bool(self._answer.left)

    def _read(self) -> None:
        while True:
            self._world.block(lambda: bool(self.inbox) or self._ready())
            if self.inbox:
                self.inbox.popleft()()
            elif (bell := self.watched.ready()) is not None:
                bell.ring()


def make(
    world: World, answer: Answer, maxsize: int
) -> tuple[Run, Callable[[], None], list[bool], OneThread]:
    """A run, its worker's body, what counts that it was let go, and its reader."""
    left: list[bool] = []
    reader: Any = OneThread(world, answer)
    body: Any = answer
    run = Run(
        TaskRequest(model="m", prompt="p", job_id="job"),
        timeouts=Timeouts(),
        gate=Receiver(maxsize),
        reader=reader,
        version=lambda: "0",
        labels=Labels("", ""),
        on_over=lambda run: None,
        on_left=lambda run: left.append(True),
    )

    def work() -> None:
        run.accepted("request", body)
        Reading(run, body, body).begin(answer.feed(answer.left.popleft()))

    return run, work, left, reader


def drain(run: Run, taken: list[TokenEvent]) -> None:
    """Take all."""
    receiver = run.gate
    assert isinstance(receiver, Receiver)
    try:
        while True:
            taken.append(receiver.get())
    except queue.Empty:
        return


def test_answer_is_read_to_its_end() -> None:
    """Though the caller makes the reading wait from the first token on, it always goes on."""

    def read_and_take(world: World) -> Callable[[], None]:
        answer = Answer(b"\0", b"\1\2", b"\3\xff", b"")
        run, work, left, reader = make(world, answer, 1)
        taken: list[TokenEvent] = []
        world.thread("worker", work)
        world.thread("caller", lambda: drain(run, taken))

        def check() -> None:
            assert [one.index for one in taken if isinstance(one, Token)] == [0, 1, 2, 3]
            assert isinstance(taken[-1], End)
            assert (left, answer.released, reader.watched) == ([True], 1, None)

        return check

    explore(read_and_take, _reading, _run, also=ALSO, preemptions=BOUND - 1)


def test_end_from_elsewhere() -> None:
    """A clock or a cancel: the answer is let go once, whoever has it, and is not read any more."""

    def end_while_read(world: World) -> Callable[[], None]:
        answer = Answer(b"\0", b"\1\2")
        run, work, left, reader = make(world, answer, 1)
        taken: list[TokenEvent] = []
        world.thread("worker", work)
        world.thread("caller", lambda: drain(run, taken))
        world.thread("ender", lambda: run.fail(WorkerError("ended")))

        def check() -> None:
            indexes = [one.index for one in taken if isinstance(one, Token)]
            assert indexes == [0, 1, 2][: len(indexes)]
            assert isinstance(taken[-1], Error)
            assert (left, answer.released, reader.watched) == ([True], 1, None)

        return check

    explore(end_while_read, _reading, also=(_run, *ALSO), preemptions=BOUND - 1, turns=BOUND)


def test_end_beside_the_last_word() -> None:
    """One end is told, the answer is let go once, whichever comes first."""

    def end_at_done(world: World) -> Callable[[], None]:
        answer = Answer(b"\0", b"\xff", b"")
        run, work, left, reader = make(world, answer, 8)
        taken: list[TokenEvent] = []
        world.thread("worker", work)
        world.thread("ender", lambda: run.fail(WorkerError("ended")))

        def check() -> None:
            drain(run, taken)
            assert sum(isinstance(one, (End, Error)) for one in taken) == 1
            assert (left, answer.released, reader.watched) == ([True], 1, None)

        return check

    explore(end_at_done, _reading, _run, also=ALSO, preemptions=BOUND - 1)
