"""One of the texts that answer a request: its words, its length, and how it ends."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from . import _words
from ._words import Word


class Prompt(NamedTuple):
    """One prompt of a request; its text is None where it came as token ids."""

    ids: list[int]
    text: str | None

    @property
    def words(self) -> list[Word]:
        """The prompt's tokens, which together are its text."""
        if self.text is not None:
            return _words.tokenize(self.text)
        return [_words.word(id) for id in self.ids]


class Stop(NamedTuple):
    """What ends a text early: any of these strings, or any of these tokens."""

    strings: tuple[str, ...] = ()
    ids: frozenset[int] = frozenset()
    included: bool = False

    @property
    def held_back(self) -> int:
        """How many characters vLLM keeps to itself, since a stop string may have begun there."""
        return 0 if self.included else max(map(len, self.strings), default=1) - 1


class Plan(NamedTuple):
    """How a choice will go, if nothing intervenes.

    Attributes:
        limit: its tokens.
        finish_reason: why there are no more.
        stop_reason: the stop string or token that was met.
        length: the characters of its text where a stop cuts it; None: all of them.
        held_back: see `Stop`.
    """

    limit: int
    finish_reason: str = "length"
    stop_reason: str | int | None = None
    length: int | None = None
    held_back: int = 0


class ToolCall(NamedTuple):
    """A tool call as a model writes it: its tokens, and what a parser makes of each.

    Attributes:
        tokens: with the piece of the stream's ``tool_calls`` that each leads to; often none.
        entry: the call in a whole answer.
        size: the tokens after which it is one.
        ending: the finish_reason of a choice that has got to the end of it.
    """

    tokens: list[tuple[Word, dict[str, Any] | None]]
    entry: dict[str, Any]
    size: int
    ending: str


class Choice:
    """One of the texts that answer a request, in the making."""

    def __init__(
        self,
        index: int,
        prompt: Prompt,
        words: Iterator[Word],
        plan: Plan,
        tool_call: ToolCall | None = None,
    ) -> None:
        self.index = index
        self.prompt = prompt
        self.words = words
        self.plan = plan
        self.tool_call = tool_call
        self.events = 0
        self.tokens = 0
        self.logprobs_offset = 0
        self.finish_reason: str | None = None
        self._text = ""
        self._sent = 0

    def said_with(self, word: Word, *, last: bool) -> str:
        """The text that goes out with a word: less than the word, or more, where a stop may be."""
        if self.plan.length is None and not self.plan.held_back:
            return word.text
        self._text += word.text
        end = self.plan.length if last else len(self._text) - self.plan.held_back
        end = len(self._text) if end is None else max(end, self._sent)
        begin, self._sent = self._sent, end
        return self._text[begin:end]

    def rest(self) -> tuple[list[Word], str]:
        """All words up to the planned end, and the text that they come to."""
        words = list(islice(self.words, self.plan.limit))
        return words, "".join(word.text for word in words)[: self.plan.length]


def make_plan(words: Iterator[Word], limit: int, stop: Stop) -> Plan:
    """Look ahead for a stop; `words` are used up by that."""
    if not stop.strings and not stop.ids:
        return Plan(limit)
    text = ""
    for number, word in enumerate(islice(words, limit), 1):
        before = len(text)
        text += word.text
        if word.id in stop.ids:
            length = len(text) if stop.included else before
            return Plan(number, "stop", word.id, length, stop.held_back)
        for string in stop.strings:
            found = text.find(string, max(0, before - len(string) + 1))
            if found >= 0:
                length = found + len(string) * stop.included
                return Plan(number, "stop", string, length, stop.held_back)
    return Plan(limit, held_back=stop.held_back)


def tool_plan(call: ToolCall, limit: int) -> Plan:
    """The plan of a choice that is a tool call."""
    size = len(call.tokens)
    return Plan(limit) if limit < size else Plan(size, call.ending)
