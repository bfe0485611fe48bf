"""Single lines for people."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable


def one_line(text: str) -> str:
    """The text without line breaks and terminal escapes: an engine's words may hold either."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def shown_text(text: str) -> str:
    """A model's text for a terminal: no sign but line end and tab does anything there.

    Else an answer could set the title, fill the clipboard, clear what was said, or turn the
    direction of reading. Spaces of other scripts are left.
    """
    return _escaped(text, "\n\t", lambda sign: sign.encode("unicode_escape").decode())


def shown_json(line: str) -> str:
    """The same of a line of JSON, which stays what it was."""
    return _escaped(line, "", lambda sign: json.dumps(sign)[1:-1])


def _escaped(text: str, kept: str, escape: Callable[[str], str]) -> str:
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() or sign in kept or _is_space(sign) else escape(sign)
        for sign in text
    )


def _is_space(sign: str) -> bool:
    return unicodedata.category(sign) == "Zs"


def say(text: str) -> None:
    """Put one line on stderr."""
    print(one_line(text), file=sys.stderr, flush=True)
