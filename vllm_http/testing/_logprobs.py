"""Log probabilities that look computed and are the same every time, in vLLM's three forms.

A token has the same ones wherever it comes; one in eight of them is an unlikely one, which is not
among the likeliest and therefore comes on top of their number.
"""

from __future__ import annotations

from itertools import islice
from typing import Any, NamedTuple

from . import _words
from ._words import Word


_UNLIKELY_RANK = 30  # beyond vLLM's limit of 20, so never among the likeliest


class Candidate(NamedTuple):
    """A token that might have come, and how likely it was."""

    word: Word
    logprob: float
    rank: int


def candidates(word: Word, count: int) -> list[Candidate]:
    """The token that came, then the `count` likeliest ones other than itself."""
    unlikely = word.id % 8 == 0
    rank = _UNLIKELY_RANK if unlikely else 1
    own = Candidate(word, (-6.5 if unlikely else -0.25) - word.id % 7 / 32, rank)
    first = 1 if unlikely else 2
    others = islice(_words.others(word), max(0, count + 1 - first))
    return [own, *(Candidate(w, -1.0 - r / 2, r) for r, w in enumerate(others, first))]


def completion_logprobs(
    words: list[Word], count: int, offset: int, *, as_ids: bool, opens: bool
) -> dict[str, Any]:
    """The lists of a completion's choice, one entry a token.

    Args:
        words: the tokens.
        count: how many of the likeliest tokens come with each.
        offset: of the first one in the whole text, in characters.
        as_ids: name the tokens by their ids.
        opens: nothing is before the first token, so that it has no probability.
    """
    offsets: list[int] = []
    for word in words:
        offsets.append(offset)
        offset += len(shown(word, as_ids))
    found = [candidates(word, count) for word in words]
    own: list[float | None] = [each[0].logprob for each in found]
    top: list[dict[str, float] | None] = [
        {shown(c.word, as_ids): c.logprob for c in each} for each in found
    ]
    if opens and words:
        own[0] = top[0] = None
    tokens = [shown(word, as_ids) for word in words]
    return {"text_offset": offsets, "token_logprobs": own, "tokens": tokens, "top_logprobs": top}


def chat_logprobs(words: list[Word], count: int, *, as_ids: bool) -> dict[str, Any]:
    """The list of a chat's choice, one entry a token."""
    content = []
    for word in words:
        own, *others = candidates(word, count)
        entry = _entry(own, as_ids)
        top = [_entry(each, as_ids) for each in [own, *others][:count]]
        # vLLM's own oddity: the token itself has its real bytes, whatever its name.
        content.append({**entry, "bytes": list(word.text.encode()), "top_logprobs": top})
    return {"content": content}


def prompt_logprobs(words: list[Word], count: int) -> list[dict[str, Any] | None]:
    """One entry a token of the prompt, by token id; the first token has none."""
    return [
        None,
        *(
            {
                str(c.word.id): {
                    "logprob": c.logprob,
                    "rank": c.rank,
                    "decoded_token": c.word.text,
                }
                for c in candidates(word, count)
            }
            for word in words[1:]
        ),
    ]


def shown(word: Word, as_ids: bool) -> str:
    """How a token is named."""
    return f"token_id:{word.id}" if as_ids else word.text


def _entry(candidate: Candidate, as_ids: bool) -> dict[str, Any]:
    name = shown(candidate.word, as_ids)
    return {"token": name, "logprob": candidate.logprob, "bytes": list(name.encode())}
