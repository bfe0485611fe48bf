"""How a command ends, as its exit code says it."""

from __future__ import annotations

from ._errors import InvalidRequest, WorkerError


DONE = 0
FAILED = 1
BAD_USAGE = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells count
PIPE_CLOSED = 141  # 128 + SIGPIPE

EXPLANATION = """\b
Exit codes:
  0    done
  1    the engine failed or is not healthy, or the output cannot be written
  2    wrong usage, or the engine refused the request as invalid (4xx)
  130  interrupted by ctrl-C
  141  stdout was closed early, as by "| head -1"
After 130 and 141 the task is cancelled on the engine too.
"""


def exit_code(error: WorkerError) -> int:
    """The code for a failure: whose fault it is."""
    return BAD_USAGE if isinstance(error, InvalidRequest) else FAILED
