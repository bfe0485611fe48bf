"""What becomes of one request: a script, an override, vLLM's own answer, or a refusal."""

from __future__ import annotations

from typing import Any

from . import _routes, _words
from ._answer import Answer, HeaderFields
from ._generation import Generation, Model
from ._journal import Journal
from ._refusals import Refusal
from ._request import ReceivedRequest
from ._stage import Stage, Step, play
from ._steps import Done, ErrorEvent, Normal


_METRICS_TYPE = "text/plain; version=1.0.0; charset=utf-8"


class Service:
    """Answers the requests of all connections of one engine, each on its connection's thread."""

    def __init__(
        self,
        model: Model,
        journal: Journal,
        *,
        api_key: str | None,
        first_token_delay: float,
        token_delay: float,
    ) -> None:
        self._model = model
        self._journal = journal
        self._api_key = api_key
        self._first_token_delay = first_token_delay
        self._token_delay = token_delay
        self._overrides: dict[str, tuple[int, Any, HeaderFields]] = {}

    def override(self, path: str, status: int, body: Any, headers: HeaderFields) -> None:
        """Answer GET `path` with this from now on."""
        self._overrides[path] = (status, body, headers)

    def serve(self, request: ReceivedRequest, answer: Answer) -> None:
        """Give the answer to one request.

        Raises:
            Ended: the connection was over before the answer was.
        """
        try:
            if _routes.generates(request):
                self._generate(request, answer)
            else:
                self._answer_small(request, answer)
        except Refusal as refusal:
            answer.whole(refusal.status, refusal.body)

    def _generate(self, request: ReceivedRequest, answer: Answer) -> None:
        number, script = self._journal.begun(request)
        name = _words.hex_digits(self._model.seed, number)
        try:
            if script is not None:
                generation = _routes.make_scripted_generation(request, self._model, name)
                self._play(script, answer, generation)
            elif not _routes.turned_away(request, answer, self._api_key):
                generation, late = _routes.make_generation(request, self._model, name)
                self._play((Normal(),) if late is None else _told(late), answer, generation)
        finally:
            self._journal.over()

    def _play(self, steps: tuple[Step, ...], answer: Answer, generation: Generation) -> None:
        try:
            pace = (self._first_token_delay, self._token_delay)
            play(steps, Stage(answer.connection, answer, generation, *pace))
        finally:
            self._journal.count(generation)

    def _answer_small(self, request: ReceivedRequest, answer: Answer) -> None:
        self._journal.arrived(request)
        override = self._overrides.get(request.route) if request.method == "GET" else None
        if override is not None:
            answer.whole(*override)
        elif _routes.turned_away(request, answer, self._api_key):
            return
        elif request.route == "/metrics":
            text = self._journal.metrics_text(self._model.name).encode()
            headers = {"content-length": str(len(text)), "content-type": _METRICS_TYPE}
            answer.whole(200, text, headers)
        else:
            answer.whole(200, _routes.small_answer(request, self._model))


def _told(late: Refusal) -> tuple[Step, ...]:
    """How vLLM refuses when a stream has begun."""
    return (ErrorEvent(**late.body["error"]), Done())
