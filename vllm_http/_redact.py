"""Secrets out of text that comes back from elsewhere: an engine's error body, a proxy's page.

A secret becomes ``****`` and the first six hex digits of its SHA-256, so that two people can tell
whether they speak of the same key without showing it. What is left is one line: with a line end in
it, or what a terminal obeys, whoever speaks could put lines of his own into a log.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from ._redact_forms import LONGEST_SIGN, any_form


MAX_TEXT = 2048
"""Characters of an engine's own text that go into an error message."""

MAX_WORD = 100
"""Characters of what ought to be a word, such as a finish_reason."""

_SHORT = 7
"""Characters below which a known secret is masked as a whole word only: "max" is in "max_tokens".

It protects little more to look for it inside of words: whoever sees the six digits of its
fingerprint can try out all values of that length.
"""

LOOKED_AT = 65536
"""Characters that are worked on: what comes after them is never shown."""

_LEFT_OUT = 4096
"""Characters before the end of those that may be the beginning of a secret."""

_NAMES = (
    r"(?:(?:x[-_]?)?(?:api|private|secret|session|account|shared|signing|encryption)[-_]?"
    r"(?:access[-_]?)?key|access[-_]?key"
    r"|(?:(?:access|auth|session|refresh|id|csrf|security)[-_]?)?token|jwt"
    r"|passw(?:or)?d|passphrase|pwd|(?:client[-_]?)?secret"
    r"|session(?:[-_]?id)?|credentials?|signature|(?:set-)?cookie)"
)
_QUOTE = r"""(?:\\{0,8}["']|&quot;|&\#0{0,5}3[49];|&\#x2[27];|%2[27])?"""
_VALUE = r"""[^\s"'\\,;&}\])<>]+"""

_PATTERNS = (
    # Authorization in any dress: a header line, a dict's repr, JSON; any scheme.
    re.compile(
        rf"(?P<keep>(?:proxy-)?authorization{_QUOTE}\s*[:=]\s*{_QUOTE}"
        rf"(?:(?:bearer|basic|digest|token)\s+)?)(?P<secret>{_VALUE})",
        re.IGNORECASE,
    ),
    re.compile(rf"(?P<keep>\bbearer\s+)(?P<secret>{_VALUE})", re.IGNORECASE),
    re.compile(
        rf"(?P<keep>(?:(?<![a-z0-9])|(?<=%2[27])){_NAMES}{_QUOTE}\s*[:=]\s*{_QUOTE})(?P<secret>{_VALUE})",
        re.IGNORECASE,
    ),
    # What makes a presigned URL a key: vLLM quotes the URL that it could not fetch.
    re.compile(
        rf"(?P<keep>[?&](?:[\w.-]{{0,64}}[-_.])?(?:sig|signature|credential)=)(?P<secret>{_VALUE})",
        re.IGNORECASE,
    ),
    re.compile(r"(?P<keep>\b[a-z][a-z0-9+.-]{0,30}://)(?P<secret>[^\s/\"']+)(?=@)", re.IGNORECASE),
    re.compile(r"(?P<keep>)(?P<secret>\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*)"),  # a JWT
    re.compile(r"(?P<keep>)(?P<secret>\bsk-[A-Za-z0-9_-]{6,})"),
)


def fingerprint(secret: str) -> str:
    """The first six hex digits of the secret's SHA-256."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()[:6]


class Redactor:
    """Removes the secrets it was told of, whatever looks like one, and line ends.

    Args:
        secrets: Values that must never come out, such as the adapter's key.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # The longest first: one secret may hold another.
        self._secrets = sorted({s for s in secrets if s}, key=len, reverse=True)
        known = "|".join(f"({_looked_for(secret)})" for secret in self._secrets)
        self._known = re.compile(known) if known else None
        longest = LONGEST_SIGN * len(self._secrets[0]) if self._secrets else 0
        self._left_out = max(_LEFT_OUT, longest)

    def __call__(self, text: str) -> str:
        """The text without secrets on one line, at most `MAX_TEXT` characters of it."""
        cut = len(text) > LOOKED_AT
        text = text[:LOOKED_AT]
        if self._known is not None:
            text = self._known.sub(self._mask_known, text)
        for pattern in _PATTERNS:
            text = pattern.sub(_mask, text)
        if cut:
            text = text[: -self._left_out]
        text = printable(text)
        return text if len(text) <= MAX_TEXT and not cut else text[:MAX_TEXT] + "..."

    def _mask_known(self, match: re.Match[str]) -> str:
        assert match.lastindex is not None  # each secret is a group, and nothing else is
        return f"****{fingerprint(self._secrets[match.lastindex - 1])}"


def _looked_for(secret: str) -> str:
    """The pattern of a known secret; a hyphen joins words, as in a header's name."""
    form = any_form(secret)
    return form if len(secret) >= _SHORT else rf"(?<![\w-]){form}(?![\w-])"


def printable(text: str) -> str:
    """The text with spaces for line ends and their like, and other invisible signs escaped."""
    if text.isprintable():
        return text
    return "".join([sign if sign.isprintable() else _visible(sign) for sign in text])


def word(text: str) -> str:
    """An engine's word as logs and lines for people take it: printable, and its beginning only."""
    return printable(text[:MAX_WORD])[:MAX_WORD]


def _visible(sign: str) -> str:
    return " " if sign.isspace() else sign.encode("unicode_escape").decode()


def _mask(match: re.Match[str]) -> str:
    secret = match["secret"]
    if secret.startswith("****"):
        return match[0]
    return f"{match['keep']}****{fingerprint(secret)}"
