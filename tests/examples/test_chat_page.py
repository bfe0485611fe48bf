"""The chat's page in a real browser, in both of the chat's ways of working."""

from __future__ import annotations

import os
import re
import threading
import time

from examples.browser import Page
from examples.conftest import Chat
from examples.programs import ROOT
from support import SOON, answer

from vllm_http.testing import Done, Finish, Stall, Status, Text, Usage, Wait


PICTURE = ROOT / "docs" / "flask_chat.png"
PROMPT = 3.0  # Seconds; a heartbeat, which would also bring what waits, comes after five.


def test_tokens_appear_one_by_one(page: Page, chat: Chat) -> None:
    """Each is on the page before the engine makes the next one."""
    texts = ["Once", " upon", " a", " time"]
    gates = [threading.Event() for _ in texts]
    steps = [
        step for gate, text in zip(gates, texts, strict=True) for step in (Wait(gate), Text(text))
    ]
    chat.engine.script(*steps, Finish(), Usage(), Done())
    lags = []

    page.ask("Tell me a tale")
    for count, gate in enumerate(gates, start=1):
        began = time.monotonic()
        gate.set()
        page.wait_for("answer", "".join(texts[:count]))
        lags.append(time.monotonic() - began)
    page.wait_for("note", "tokens: 4")

    print(f"worst lag from engine to page {max(lags[1:]) * 1000:.0f} ms")
    assert max(lags) < PROMPT
    assert page.shows("question") == ["Tell me a tale"]
    assert (page.can("send"), page.can("stop")) == (True, False)


def test_stop_frees_the_engine(page: Page, chat: Chat) -> None:
    """The engine sees the hang-up, and the page keeps what was said."""
    before = len(chat.posts())
    chat.engine.script(Text("Once"), Stall())
    page.ask("Tell me a tale")
    page.wait_for("answer", "Once")

    page.stop()

    assert chat.posts(before + 1)[before].hung_up.wait(SOON)
    page.wait_for("note", "stopped")
    assert page.shows("answer") == ["Once"]
    assert (page.can("send"), page.can("stop")) == (True, False)


def test_reload_in_mid_answer(page: Page, chat: Chat, gate: threading.Event) -> None:
    """The page that is loaded again has the whole answer, and the engine was asked once."""
    before = len(chat.posts())
    chat.engine.script(Text("Once"), Wait(gate), *answer(" upon", " a time"))
    page.ask("Tell me a tale")
    page.wait_for("answer", "Once")

    page.reload()
    page.wait_for("answer", "Once")
    gate.set()

    page.wait_for("answer", "Once upon a time")
    page.wait_for("note", "tokens: 3")
    assert page.shows("question") == ["Tell me a tale"]
    assert len(chat.posts()) == before + 1


def test_stop_after_a_reload(page: Page, chat: Chat) -> None:
    """Whoever comes back can still stop it."""
    before = len(chat.posts())
    chat.engine.script(Text("Once"), Stall())
    page.ask("Tell me a tale")
    page.wait_for("answer", "Once")

    page.reload()
    page.wait_for("answer", "Once")
    page.stop()

    assert chat.posts(before + 1)[before].hung_up.wait(SOON)
    page.wait_for("note", "stopped")


def test_conversation(page: Page, chat: Chat) -> None:
    """The engine gets what was said before; a new chat begins without it."""
    before = len(chat.posts())
    for text in ("Hello", "Goodbye", "Hello"):
        chat.engine.script(*answer(text))
    page.ask("Greet me")
    page.wait_for("note", "tokens: 1")
    page.ask("And now?")
    page.wait_for("answer", "Hello", "Goodbye")
    page.wait_for("note", "tokens: 1", "tokens: 1")
    page.reload()
    page.wait_for("answer", "Hello", "Goodbye")
    page.new()
    page.wait_for("answer")
    page.ask("Greet me")
    page.wait_for("answer", "Hello")

    _, second, third = chat.posts(before + 3)[before:]
    assert second.json["messages"] == [
        {"role": "user", "content": "Greet me"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "And now?"},
    ]
    assert third.json["messages"] == [{"role": "user", "content": "Greet me"}]


def test_failure_is_shown(page: Page, chat: Chat) -> None:
    """A refused task is told in plain words, not the engine's; the next is asked without it."""
    before = len(chat.posts())
    chat.engine.script(Status(400, {"error": {"message": "too hot", "code": 400}}))
    chat.engine.script(*answer("Well"))
    page.ask("Is it?")
    page.wait_for("failed", "failed: The request was refused.")
    page.ask("And now?")
    page.wait_for("answer", "", "Well")

    assert chat.posts(before + 2)[-1].json["messages"] == [{"role": "user", "content": "And now?"}]


def test_markup_is_text(page: Page, chat: Chat) -> None:
    """What a model writes is shown as it is, and never run."""
    chat.engine.script(*answer("<b>bold</b> &amp; <img src=x onerror=alert(1)>"))

    page.ask("<i>Hm</i>")

    page.wait_for("answer", "<b>bold</b> &amp; <img src=x onerror=alert(1)>")
    assert page.shows("question") == ["<i>Hm</i>"]


def test_picture(page: Page, chat: Chat) -> None:
    """The documentation's picture: one answer is complete, the next one under way."""
    whole, half = "A tower of iron, built in 1889.", "By the company of Gustave Eiffel, who"
    chat.engine.script(*answer(*tokens(whole)))
    chat.engine.script(*map(Text, tokens(half)), Stall())

    page.ask("What is the Eiffel Tower?")
    page.wait_for("note", "tokens: 7")
    page.ask("Who built it?")
    page.wait_for("answer", whole, half)
    assert (page.can("send"), page.can("stop")) == (False, True)
    if os.environ.get("VLLM_HTTP_TEST_WRITE_DOCS"):
        page.save(PICTURE)

    page.stop()
    page.wait_for("note", "tokens: 7", "stopped")


def tokens(text: str) -> list[str]:
    """Each word of a text, with the space before it."""
    return re.findall(r" *\S+", text)
