"""When things happened to one task, and the `Metrics` that follow."""

from __future__ import annotations

import time

from ._metrics import Metrics
from ._tally import Tally


class Timeline:
    """The moments of one task, in seconds of `time.monotonic`; None until they come.

    Attributes:
        submitted: Now.
        taken: A worker took it.
        requested: The latest attempt's request went out.
        first_content: The first content was decoded.
        last_content: The latest content was decoded.
        attempts: Attempts begun, and requests that went out once more.
        resent: One of those has been made; there is no second.
    """

    __slots__ = (
        *("attempts", "first_content", "last_content", "requested", "resent", "submitted", "taken"),
    )

    def __init__(self) -> None:
        self.submitted = time.monotonic()
        self.taken: float | None = None
        self.requested: float | None = None
        self.first_content: float | None = None
        self.last_content: float | None = None
        self.attempts = 0
        self.resent = False

    def resend(self) -> None:
        """The request of this attempt goes out once more."""
        self.attempts += 1
        self.resent = True

    def metrics(self, answer: Tally | None) -> Metrics:
        """What it has cost up to now.

        Args:
            answer: Of the attempt that the engine accepted, if one was.
        """
        usage = answer.usage if answer is not None else None
        details = usage.prompt_tokens_details if usage is not None else None
        made = usage.completion_tokens_details if usage is not None else None
        counted = usage is not None and usage.completion_tokens is not None
        return Metrics(
            tokens_generated=answer.tokens_generated if answer is not None else 0,
            tokens_in=usage.prompt_tokens if usage is not None else None,
            cached_tokens=details.cached_tokens if details is not None else None,
            usage_source="engine" if counted else "client",
            latency_first_token_ms=_ms(self.requested, self.first_content),
            decode_time_ms=_ms(self.first_content, self.last_content),
            queue_time_ms=_ms(self.submitted, self.taken),
            total_time_ms=_ms(self.submitted, time.monotonic()),
            attempts=self.attempts,
            created_cache_tokens=details.created_cache_tokens if details is not None else None,
            multimodal_tokens=details.multimodal_tokens if details is not None else None,
            reasoning_tokens=made.reasoning_tokens if made is not None else None,
            engine=answer.metrics if answer is not None else None,
        )


def _ms(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else round((end - begin) * 1000, 3)
