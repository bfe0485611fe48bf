"""From events to one `Completion`."""

from __future__ import annotations

from dataclasses import replace

from ._events import Choice, Completion, End, Error, Token, TokenEvent


class Collector:
    """Takes the events of one stream and tells what they amount to.

    Args:
        job_id: The stream's job.
    """

    def __init__(self, job_id: str | None) -> None:
        self._job_id = job_id
        self._texts: dict[int, list[str]] = {0: []}
        self._token_ids: dict[int, list[int]] = {}
        self._last: End | Error | None = None

    def take(self, event: TokenEvent) -> None:
        """Add one event."""
        if isinstance(event, Token):
            self._texts.setdefault(event.choice, []).append(event.text)
            if event.token_ids is not None:
                self._token_ids.setdefault(event.choice, []).extend(event.token_ids)
        elif isinstance(event, (End, Error)):
            self._last = event

    def completion(self) -> Completion:
        """All that was taken so far; after an error, the error's ``partial`` as well."""
        end = self._last if isinstance(self._last, End) else None
        ends = {choice.index: choice for choice in end.choices} if end is not None else {}
        choices = [
            replace(
                ends.get(index, Choice(index)),
                text="".join(self._texts.get(index, ())),
                token_ids=self._token_ids.get(index),
            )
            for index in sorted({*self._texts, *ends})
        ]
        completion = Completion(
            job_id=self._job_id,
            text=choices[0].text,
            finish_reason=end.finish_reason if end is not None else None,
            stop_reason=end.stop_reason if end is not None else None,
            token_ids=choices[0].token_ids,
            metrics=end.metrics if end is not None else None,
            choices=choices,
        )
        if isinstance(self._last, Error):
            self._last.error.partial = completion
            completion = replace(completion, error=self._last.error)
        return completion
