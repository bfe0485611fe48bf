"""Random scripts: some steps of a stream in any order, then some end of it."""

from __future__ import annotations

from faults.row import Script
from faults.scripts import AtOnce
from fuzz.model import GARBAGE
from hypothesis import strategies as st

from vllm_http.testing import (
    Comment,
    Cut,
    Done,
    Drip,
    EndBody,
    ErrorEvent,
    Event,
    Finish,
    Headers,
    Stall,
    Status,
    Step,
    Text,
    Usage,
)


CHOICES = 2
CODES = st.sampled_from([400, 429, 503])

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)
harmless: st.SearchStrategy[Step] = st.sampled_from(
    [Comment(), Usage(), Event({}), Event({"type": "ping"}), Event({"usage": "x"})]
)
refusals = st.builds(Status, CODES, st.sampled_from([None, b"<html>", {"error": "busy"}]))
faults: st.SearchStrategy[Step] = st.one_of(
    st.builds(ErrorEvent, st.just("Bad day"), CODES),
    st.sampled_from(GARBAGE),
)
ends: st.SearchStrategy[Step] = st.sampled_from(
    [Done(), Done(), Done(), EndBody(), Cut("fin"), Cut("rst"), Stall()]
)


@st.composite
def streams(draw: st.DrawFn, choices: int) -> Script:
    """Tokens and what does no harm, finishes, perhaps a fault among them, and an end."""
    pieces: st.SearchStrategy[Step] = st.builds(Text, words, st.integers(0, choices - 1)) | harmless
    steps: list[Step] = draw(st.lists(pieces, max_size=6))
    for choice in range(choices):
        # No more than one finish: of two, it would hang on the timing whether the engine began.
        reason = draw(st.sampled_from(["stop", "stop", "length", "abort", None]))
        if reason is not None:
            at = draw(st.integers(0, len(steps)))
            steps.insert(at, Finish(reason, choice=choice))
    if draw(st.integers(0, 3)) == 0:
        steps.insert(draw(st.integers(0, len(steps))), draw(faults))
    return [Headers(), *steps, draw(ends)]


def scripts(choices: int) -> st.SearchStrategy[Script]:
    """What the engine does with one request."""
    return streams(choices) | streams(choices) | streams(choices) | refusals.map(lambda s: [s])


def as_sent(script: Script, how: int) -> Script:
    """The same bytes: step by step (0), in one write (1), or in pieces of `how` bytes.

    No RST follows many pieces: the system drops those that the congestion window holds back.
    """
    if how == 0:
        return script
    if how == 1:
        return [AtOnce(script)]
    return [Cut("fin") if isinstance(step, Cut) else Drip(step, size=how) for step in script]
