"""The table of failures: one decision for what an error says and what is done after it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vllm_http import (
    AdapterClosed,
    CapacityExceeded,
    EngineUnavailable,
    InvalidRequest,
    StreamingError,
    Timeout,
    Unknown,
    WorkerError,
    _failures,
)
from vllm_http._failures import AS_POLICY, Failure, of_status, row_of


DOCS = Path(__file__).parent.parent / "docs" / "errors.md"

# The rows of the page that have no number, as errors of that kind are made.
KINDS: dict[str, WorkerError] = {
    "refused, reset": EngineUnavailable("x"),
    "a certificate": EngineUnavailable("x", retriable=False),
    "an error inside a 200": _failures.UNNUMBERED.error("x"),
    "a 200 that was cut": StreamingError("x"),
    "a 200 with HTML": StreamingError("x", retriable=False),
    "no worker": Timeout("x", phase="queued"),
    "no connection": Timeout("x", phase="connect"),
    "no content": Timeout("x", phase="first_token"),
    "no more content": Timeout("x", phase="stall"),
    "the deadline": Timeout("x", phase="deadline"),
    "the adapter's own limits": CapacityExceeded("x"),
    "the adapter was closed": AdapterClosed("x"),
    "our own bug": Unknown("x"),
}


def documented() -> list[list[str]]:
    """The cells of the page's table."""
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[1:]]


def cells(row: Failure) -> list[str]:
    """A row as the page shows it, without its first cell."""
    cls = row.cls.__name__ + (f'("{row.phase}")' if row.phase else "")
    again = {0: "no", 1: "once", AS_POLICY: "as `RetryPolicy` says"}[row.again]
    return [f"`{cls}`", f"`{row.code}`", "yes" if row.retriable else "no", again]


def errors_of(what: str) -> list[WorkerError]:
    """The errors that a first cell speaks of: of its statuses, or of its kind."""
    numbers = [] if what.startswith(("a 200", "an error")) else re.findall(r"\d{3}", what)
    if "other 4xx" in what:
        numbers += [str(n) for n in range(400, 500) if n not in _failures._STATUSES]
    if "other 5xx" in what:
        numbers += [str(n) for n in range(500, 600) if n not in _failures._STATUSES]
        numbers += [str(n) for n in (101, 204, 299, 301, 307, 399, 600, 999)]
    made = [of_status(int(n)).error("x", status=int(n)) for n in numbers]
    if "before the wire" in what:
        made.append(InvalidRequest("x"))
    return made or [error for kind, error in KINDS.items() if what.startswith(kind)]


@pytest.mark.parametrize("row", documented(), ids=lambda row: row[0])
def test_page_shows_the_table(row: list[str]) -> None:
    """Class, code, hope and retries on the page are those that errors of the kind have."""
    errors = errors_of(row[0])

    assert errors
    for error in errors:
        assert cells(row_of(error)) == row[1:]
        assert [f"`{error.code}`", "yes" if error.retriable else "no"] == row[2:4]


def test_page_shows_every_kind() -> None:
    """No kind is left out, and no status has a row of its own in secret."""
    shown = [error for row in documented() for error in errors_of(row[0])]
    statuses = {error.status for error in shown}

    assert statuses >= {*range(400, 600), None}
    assert {id(error) for error in shown} >= {id(error) for error in KINDS.values()}


@pytest.mark.parametrize("status", range(100, 1000))
def test_what_gives_no_hope_is_not_tried_again(status: int) -> None:
    """Whatever the status."""
    row = of_status(status)

    assert row.retriable or row.again == 0


@pytest.mark.parametrize("kind", KINDS)
def test_kind_that_gives_no_hope_is_not_tried_again(kind: str) -> None:
    """Whatever the kind; and an error is of its own row, so none is counted as another."""
    error = KINDS[kind]
    row = row_of(error)

    assert (row.cls, row.retriable, row.code) == (type(error), error.retriable, error.code)
    assert row.retriable or row.again == 0


def test_class_wins_over_the_number() -> None:
    """An engine's death that calls itself 400 is tried again as the class that it was given."""
    error = EngineUnavailable("EngineCore encountered an issue", status=400)

    assert row_of(error).again == AS_POLICY
