"""Random scripts, played by a real engine: a caller sees what a simple model says."""

from __future__ import annotations

import time

from faults.outcome import Seen, watch
from faults.row import Script
from fuzz.model import ATTEMPTS, Expected, expected, task_of
from fuzz.scripts import CHOICES, as_sent, scripts
from hypothesis import given
from hypothesis import strategies as st
from support import LIMIT, SOON, kinds, posts

from vllm_http import RetryPolicy, Timeouts, VllmHttpAdapter
from vllm_http.testing import FakeEngine, Stall


RETRY = RetryPolicy(attempts=ATTEMPTS, base=0.001, cap=0.001)

plays = st.integers(1, CHOICES).flatmap(
    lambda choices: st.tuples(
        st.just(choices), st.lists(scripts(choices), min_size=ATTEMPTS, max_size=ATTEMPTS)
    )
)


def patience(script_list: list[Script]) -> Timeouts:
    """Short clocks where one is to run out."""
    stalls = any(isinstance(step, Stall) for script in script_list for step in script)
    limit = LIMIT if stalls else SOON
    return Timeouts(first_token=limit, stall=limit)


def played(play: tuple[int, list[Script]], how: int) -> tuple[Seen, int]:
    """What a caller sees of the scripts, and how many requests were sent."""
    choices, script_list = play
    with FakeEngine() as engine:
        for script in script_list:
            engine.script(*as_sent(script, how))
        with VllmHttpAdapter(
            engine.url, retry=RETRY, timeouts=patience(script_list), queue_size=4
        ) as adapter:
            seen = watch(adapter.submit(task_of(choices)), time.monotonic())
            engine.wait_idle(SOON)
        return seen, len(posts(engine, 0))


def as_expected(seen: Seen, requests: int) -> Expected:
    """What was seen, in the model's terms."""
    texts: dict[int, str] = {}
    for token in seen.tokens:
        texts[token.choice] = texts.get(token.choice, "") + token.text
    return Expected(texts, seen.kind, seen.events[0].type == "started", requests)


@given(play=plays, how=st.sampled_from([0, 0, 1, 7]))
def test_a_caller_sees_what_the_model_says(play: tuple[int, list[Script]], how: int) -> None:
    """All text, once and in order; one end of the right kind; no request too many or too few."""
    choices, script_list = play

    seen, requests = played(play, how)

    assert as_expected(seen, requests) == expected(script_list, choices)
    assert seen.more == []
    begin = [*["started"][: seen.events[0].type == "started"]]
    assert kinds(seen.events) == [*begin, *["token"] * len(seen.tokens), seen.last.type]
    for choice in range(choices):
        indices = [token.index for token in seen.tokens if token.choice == choice]
        assert indices == list(range(len(indices)))
