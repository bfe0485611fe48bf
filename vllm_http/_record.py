"""The one log record of a task: numbers and codes; no prompt, no text, no secret."""

from __future__ import annotations

import contextlib
import logging

from ._events import End, Error
from ._redact import word
from ._run import Run


logger = logging.getLogger("vllm_http")
logger.addHandler(logging.NullHandler())  # else Python prints warnings of a program without logging


def is_logged(run: Run) -> bool:
    """Whether `log_end` would do anything."""
    return logger.isEnabledFor(_level(run))


def _level(run: Run) -> int:
    return logging.WARNING if isinstance(run.gate.last, Error) else logging.INFO


def log_end(run: Run) -> None:
    """Log how a task ended, with the fields that orchestrators expect as the record's extras.

    Never raises: a handler or filter of the application must not cost a task its worker.
    """
    with contextlib.suppress(Exception):
        _log_end(run)


def _log_end(run: Run) -> None:
    metrics, last = run.metrics(), run.gate.last
    error = last.error if isinstance(last, Error) else None
    outcome = "error" if error is not None else "cancelled"
    if isinstance(last, End):
        outcome = word(last.finish_reason)
    fields = {
        "job_id": run.job_id,
        "session_id": run.session_id,
        "correlation_id": run.wire.correlation_id,
        "engine": "vllm",
        "engine_version": run.version() or "unknown",
        "pool_id": run.labels.pool_id,
        "replica_id": run.labels.replica_id,
        "tokens_in": metrics.tokens_in,
        "tokens_out": metrics.tokens_generated,
        "decode_time_ms": metrics.decode_time_ms,
        "decode_ms": metrics.decode_time_ms,  # its older name
        "queue_position": None,  # this and the next are the orchestrator's to know
        "predicted_start_ms": None,
        "seed": run.seed,
        "attempts": metrics.attempts,
        "outcome": outcome,
        "code": error.code if error is not None else None,
        "status": error.status if error is not None else None,
    }
    logger.log(
        _level(run),
        "task %s: %s, %d tokens, %d attempts",
        run.job_id,
        outcome if error is None else error.code,
        metrics.tokens_generated,
        metrics.attempts,
        extra=fields,
    )
