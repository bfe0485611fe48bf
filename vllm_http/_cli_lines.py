"""Single lines for people."""

from __future__ import annotations

import sys


def one_line(text: str) -> str:
    """The text without line breaks and terminal escapes: an engine's words may hold either."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def say(text: str) -> None:
    """Put one line on stderr."""
    print(one_line(text), file=sys.stderr, flush=True)
