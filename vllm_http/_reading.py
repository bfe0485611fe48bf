"""The second half of a task: from its first content to the end of the body.

It begins on the worker's thread, which has opened the answer, and goes on in the reader's.
"""

from __future__ import annotations

import contextlib
import functools
import time

from ._bell import Bell
from ._decoder import AnswerDecoder
from ._errors import CapacityExceeded, WorkerError
from ._events import Token
from ._run import Run
from ._transport_body import Body


_AT_ONCE = 0.02
_LATER = 0.2
"""Seconds that the end of a body may come after ``[DONE]``: before `End` is told, and after it.

Closing at ``[DONE]`` would cost each task a new connection, and a task that is submitted upon the
`End` should find this one free.
"""


class Reading:
    """Takes one accepted answer to its end, without ever blocking.

    Args:
        run: The task.
        body: Read as far as the first content.
        decoder: Fed with what was read.
    """

    def __init__(self, run: Run, body: Body, decoder: AnswerDecoder) -> None:
        self._run = run
        self._gate = run.gate
        self._body = body
        self._decoder = decoder
        self._reader = run.reader
        self._seen = 0
        self._begun = False  # the worker is done with it
        self._held = [body]  # whoever takes it out of here releases it
        self._ended = False  # as far as a read has told
        self._well = False  # the engine's answer is whole; what is left is the body's end

    @property
    def _left(self) -> bool:
        return not self._held

    def begin(self, tokens: list[Token]) -> None:
        """Deliver the first tokens; go on with the reader, unless that was all. Never raises."""
        try:
            self._begin(tokens)
        except BaseException as failure:
            self.crash(failure)

    def _begin(self, tokens: list[Token]) -> None:
        on_a_socket = self._body.dont_block() is not None
        self._advance(tokens)
        self._gate.bell.ring()
        if self._well and not self._left:
            self.ready()  # the end of the body comes with ``[DONE]`` as a rule
        while not (on_a_socket or self._left):  # a mock's, which is all here
            self.ready()
        self._begun = True
        if not self._left:
            self._run.handed_over(self.leave)
            self._reader.soon(self._enter)

    def _enter(self) -> None:
        """The reader takes over, or goes on once the caller has made room.

        A caller may make room while the worker is still at it; `begin` calls again then.
        """
        if not self._begun:
            return
        if self._run.over and not self._well:
            self.leave()
        elif not (self._left or self._body.watched) and (self._well or not self._gate.holds_back):
            try:
                self._watch()
            except OSError as failure:
                what = f"the system watches no more sockets: {failure.strerror}"
                self._fail(CapacityExceeded(what))
                return
            if self._well:
                self._set_alarm()
            self._read_held_bytes()

    def ready(self) -> Bell | None:
        """Something has arrived, or the end."""
        try:
            chunk = self._body.read_ready()
        except WorkerError as failure:
            self._fail(failure)
            return None
        if chunk is None:
            return None
        self._ended = not chunk
        tokens = self._decoder.feed(chunk)
        self._advance(tokens)
        self._read_held_bytes()
        return self._gate.bell if tokens else None

    def _advance(self, tokens: list[Token]) -> None:
        """Deliver what was decoded, and see whether it was the last."""
        decoder = self._decoder
        room = True
        if decoder.content != self._seen:
            self._seen = decoder.content
            self._run.content_came()
            room = not tokens or self._gate.deliver(tokens, self._resume_soon)
        if decoder.over or self._ended or self._body.ended:
            if tokens and self._body.watched:
                # Hundreds of streams may end at one step of the engine: all tokens come first.
                self._reader.afterwards(self._conclude)
            else:
                self._conclude()
        elif self._run.over:
            self.leave()
        elif not room:
            self._body.unwatch()

    def _conclude(self) -> None:
        """Nothing more will be decoded; the end of the body may have come as well."""
        if self._left:
            return
        if not self._well:
            try:
                self._decoder.finish()
            except WorkerError as failure:
                self._fail(failure)
                return
            self._well = True
            if self._body.watched and not (self._ended or self._body.ended):
                self._set_alarm()
        if self._ended or self._body.ended:
            self._release()  # before the end is told: the caller's next task finds it free
            self._run.succeed()
            self._run.let_go()

    def _set_alarm(self) -> None:
        self._told_by = time.monotonic() + _AT_ONCE
        self._reader.at(self._told_by, self._tell)

    def _tell(self, now: float) -> float | None:
        """The end of the body is late. Never raises."""
        if self._left:
            return None
        try:
            self._run.succeed()
            if now < self._told_by + _LATER:
                return self._told_by + _LATER
            self.leave()
        except BaseException as failure:
            self.crash(failure)
        return None

    def _fail(self, failure: WorkerError) -> None:
        if self._decoder.over and not self._well:  # the engine's last word came before the failure
            try:
                self._decoder.finish()
                self._well = True
            except WorkerError as verdict:
                failure = verdict
        if self._well:  # the engine's answer is whole, whatever became of its connection
            self._run.succeed()
        else:
            self._run.fail(failure)
        self.leave()

    def leave(self) -> None:
        """Let go of the connection. On the reader's thread, once it has taken over."""
        if self._release():
            self._run.let_go()

    def crash(self, failure: BaseException) -> None:
        """Our own code has raised, wherever that was: end this stream. Never raises.

        Not as a success, though the answer may have been whole: what was to tell of it is broken.
        """
        self._run.crash(failure)
        for step in (self._close, self._run.let_go):
            with contextlib.suppress(BaseException):
                step()

    def _release(self) -> bool:
        """Release the body; False if it was. In one step: an end may come from elsewhere."""
        try:
            body = self._held.pop()
        except IndexError:
            return False
        try:
            body.release()
        except BaseException:
            self._held.append(body)  # for `_close`: it may be watched still
            raise
        return True

    def _close(self) -> None:
        """As `_release`; the connection is used no more, whatever became of that."""
        with contextlib.suppress(IndexError):
            self._held.pop().close()

    def _read_held_bytes(self) -> None:
        if self._body.watched and self._body.holds_bytes():
            self._reader.soon(self._read_on)

    def _read_on(self) -> None:
        if self._body.watched and (bell := self.ready()) is not None:
            bell.ring()

    def _resume_soon(self) -> None:
        self._reader.soon(self._go_on)

    def _go_on(self) -> None:
        """The caller has made room."""
        self._gate.resumed()
        self._enter()

    def _watch(self) -> None:
        watch = functools.partial(self._reader.watch, watched=self)
        self._body.watch(watch, self._reader.unwatch)
