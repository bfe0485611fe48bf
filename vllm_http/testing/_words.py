"""Text that looks generated and is the same every time."""

from __future__ import annotations

import hashlib
import random
import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple


class Word(NamedTuple):
    """One fake token: its text and its id."""

    text: str
    id: int


# Multi-byte words are here so that every client meets UTF-8 sooner or later.
_SPACED = """
the a of and to in that is was for on with as at by from it an be this
river stone garden winter letter market signal paper engine window harbour valley
small quiet early bright slow green open old new warm plain long deep first
runs turns holds opens carries finds keeps leaves reads waits
café naïve résumé über мир 🙂 🚀
"""
_UNSPACED = "世界 你好 , . ; :"
_VOCABULARY = (*(f" {word}" for word in _SPACED.split()), *_UNSPACED.split())
_FIRST_ID = 1000
_IDS = 49152


def generate(*material: object) -> Iterator[Word]:
    """Endless words; equal material gives equal words, on every Python version."""
    rng = random.Random(repr(material))
    while True:
        position = int(rng.random() * len(_VOCABULARY))
        yield Word(_VOCABULARY[position], _FIRST_ID + position)


def tokenize(text: str) -> list[Word]:
    """Split a prompt into tokens: one a word, blanks included in the word after them."""
    pieces = re.findall(r"\s*\S+|\s+$", text)
    return [Word(piece, token_id(piece)) for piece in pieces]


def word(id: int) -> Word:
    """The token with this id: one of the words, or something that nobody would take for one."""
    position = id - _FIRST_ID
    return Word(_VOCABULARY[position] if 0 <= position < len(_VOCABULARY) else f"<{id}>", id)


def others(than: Word) -> Iterator[Word]:
    """Words that might have come instead of one; each once, always in the same order."""
    count = len(_VOCABULARY)
    for step in range(count):
        position = (than.id + step) % count
        if _VOCABULARY[position] != than.text:
            yield Word(_VOCABULARY[position], _FIRST_ID + position)


def hex_digits(*material: object) -> str:
    """16 hex digits that look random; equal material gives equal digits."""
    return hashlib.sha256(repr(material).encode()).hexdigest()[:16]


def token_id(text: str) -> int:
    """A stable fake id for any text."""
    return zlib.crc32(text.encode()) % _IDS
