"""The answers in this process's memory: nothing else is needed, and one process is all there is."""

from __future__ import annotations

import os
import queue
import sys
import threading

from vllm_http import InvalidRequest, TaskRequest, TokenEvent, TokenStream, VllmHttpAdapter


KEPT = 200
"""Answers; the oldest are forgotten."""


class MemoryBackend:
    """A `Backend` with an adapter and the recent answers."""

    def __init__(self) -> None:
        self._adapter = VllmHttpAdapter(engine_url())
        self._answers: dict[str, Answer] = {}
        self._lock = threading.Lock()

    def begin(self, task: TaskRequest) -> str:
        """Submit the task."""
        answer = Answer(self._adapter.submit(task))
        job_id = answer.stream.job_id
        with self._lock:
            self._answers[job_id] = answer
            forgotten = [self._answers.pop(old) for old in list(self._answers)[:-KEPT]]
        for old in forgotten:
            old.stream.cancel()
        return job_id

    def follow(self, job_id: str, after: str | None = None) -> AnswerFollower:
        """Ids are the events' numbers: 0, 1, 2, ..."""
        answer = self._answers.get(job_id)
        if answer is None:
            raise InvalidRequest("there is no such answer any more")
        # It comes from anybody's browser: no number before it is known to be one.
        if after is not None and after not in map(str, range(len(answer.events))):
            raise InvalidRequest("after: not the id of an event")
        return AnswerFollower(answer, 0 if after is None else int(after) + 1)

    def cancel(self, job_id: str) -> None:
        """Cancel the task; an unknown one is no error."""
        self._adapter.cancel(job_id)


class Answer:
    """A stream's events so far, collected by a thread for whoever comes to read."""

    def __init__(self, stream: TokenStream) -> None:
        self.stream = stream
        self.events: list[TokenEvent] = []
        self.complete = False
        self.grown = threading.Condition()
        threading.Thread(target=self._collect, name="answer", daemon=True).start()

    def _collect(self) -> None:
        for event in self.stream:
            with self.grown:
                self.events.append(event)
                self.grown.notify_all()
        with self.grown:
            self.complete = True
            self.grown.notify_all()


class AnswerFollower:
    """One reader of an answer, as an `EventSource`."""

    def __init__(self, answer: Answer, next: int) -> None:
        self._answer = answer
        self._next = next
        self._closed = False

    @property
    def last_id(self) -> str | None:
        """The number of the last event taken; the browser sends it when it connects again."""
        return str(self._next - 1) if self._next else None

    def get(self, timeout: float | None = None) -> TokenEvent | None:
        """The next event; None once all were taken, `queue.Empty` if none came in time."""
        with self._answer.grown:
            if not self._answer.grown.wait_for(self._knows_more, timeout):
                raise queue.Empty
            if self._closed or self._next >= len(self._answer.events):
                return None
            self._next += 1
            return self._answer.events[self._next - 1]

    def close(self) -> None:
        """Stop reading; the answer goes on."""
        with self._answer.grown:
            self._closed = True
            self._answer.grown.notify_all()

    def _knows_more(self) -> bool:
        return self._closed or self._answer.complete or self._next < len(self._answer.events)


def engine_url() -> str:
    """Where the engine is; start one in this process if nobody says."""
    if url := os.environ.get("VLLM_URL"):
        return url
    from vllm_http.testing import FakeEngine

    print("no VLLM_URL: an embedded engine answers, its words mean nothing", file=sys.stderr)
    engine = FakeEngine(token_delay=0.05)
    engine.start()
    return engine.url
