"""A web page where an engine's JSON should be: noticed, and told in one line."""

from __future__ import annotations

import html
import re


_LOOKED_AT = 4096  # bytes of it; a page that says nothing by then says nothing
_MAX_LINE = 200
_MARKUP = re.compile(r"\s*<[!?a-z]", re.IGNORECASE)
_TITLE = re.compile(r"<title[^<>]*>([^<]*)", re.IGNORECASE)
_UNSEEN = re.compile(r"<(script|style)\b.*?(?:</\1[^<>]*>?|\Z)|<!--.*?(?:-->|\Z)", re.I | re.DOTALL)
_TAG = re.compile(r"<[^<>]*>?")


def page_in(body: bytes, content_type: str = "") -> str | None:
    """The line that a page is told by: its title, or its first words, or ""; None if it is none.

    Args:
        body: Or the beginning of it.
        content_type: As its header says; a page is one also where that says otherwise.
    """
    text = body[:_LOOKED_AT].decode("utf-8-sig", "replace")
    said = content_type.split(";")[0].strip().lower() in ("text/html", "application/xhtml+xml")
    if not (said and text.strip()) and not _MARKUP.match(text):
        return None
    title = _TITLE.search(text)
    if title is not None and (line := _line(title[1])):
        return line
    words = (_line(piece) for piece in _TAG.split(_UNSEEN.sub("", text)))
    return next((line for line in words if line), "")


def _line(text: str) -> str:
    line = " ".join(html.unescape(text).split())
    return line if len(line) <= _MAX_LINE else line[:_MAX_LINE] + "..."
