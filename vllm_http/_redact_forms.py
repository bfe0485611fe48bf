"""A known secret in all forms in which somebody may write it down, as one regular expression.

Escaped as JSON, in a URL or in HTML, with whatever letters and signs that writer escapes, and
escaped again by the next one: sign by sign, so no list of writers has to be complete. Each
repetition is bounded: a text of nothing but backslashes would take quadratic time.
"""

from __future__ import annotations

import html.entities
import re


LONGEST_SIGN = 40
"""Characters that one sign of a secret takes at most, as far as is cared for."""


def any_form(secret: str) -> str:
    """The pattern of a secret, without a capturing group."""
    return "".join(map(_sign, secret))


def _sign(sign: str) -> str:
    if sign.isascii() and sign.isalnum():
        return sign
    forms = [*_json(sign), *_url(sign), *_html(sign), re.escape(sign)]
    before = "" if sign == "\\" else r"\\{0,8}"  # of a quote that HTML has then escaped as well
    return f"{before}(?:{'|'.join(forms)})"


def _json(sign: str) -> list[str]:
    """By number, in UTF-16, or by one letter; each escape of an escape doubles its backslashes."""
    coded = sign.encode("utf-16-be", "surrogatepass").hex()
    units = "".join(rf"\\{{1,8}}u(?i:{coded[at : at + 4]})" for at in range(0, len(coded), 4))
    forms = [units, rf"\\{{1,8}}U(?i:{ord(sign):08x})"]
    if ord(sign) < 256:
        forms.append(rf"\\{{1,8}}x(?i:{ord(sign):02x})")
    if sign == "\\":
        forms.append(r"\\{1,8}")
    elif sign in "\"'/":
        forms.append(rf"\\{{1,8}}{sign}")
    elif sign in _LETTERS:
        forms.append(rf"\\{{1,8}}{_LETTERS[sign]}")
    return forms


_LETTERS = {"\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}


def _url(sign: str) -> list[str]:
    """In UTF-8 or Latin-1; escaped once more, each % is %25."""
    forms = [_percent(sign.encode("utf-8", "surrogatepass"))]
    if ord(sign) < 256:
        forms.append(_percent(sign.encode("latin-1")))
    if sign == " ":
        forms.append(r"\+")
    return forms


def _percent(octets: bytes) -> str:
    return "".join(f"%(?:25){{0,4}}(?i:{octet:02x})" for octet in octets)


def _html(sign: str) -> list[str]:
    """By number or by name; escaped once more, each & is &amp;."""
    named = html.entities.codepoint2name.get(ord(sign), "apos" if sign == "'" else None)
    forms = [f"#0{{0,5}}{ord(sign)};", f"#(?i:x0{{0,5}}{ord(sign):x});"]
    if named is not None:
        forms.append(f"{named};")
    return [f"&(?:amp;){{0,4}}(?:{'|'.join(forms)})"]
