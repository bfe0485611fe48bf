"""Which host a URL names: only what every reader of URLs takes for the same one."""

from __future__ import annotations

import ipaddress
import re
import unicodedata


_NETLOC = re.compile(r"(?:\[(?P<address>[^][]*)\]|(?P<name>[^][:]*))(?::[0-9]*)?")
_ZONE = re.compile(r"%25[A-Za-z0-9._~-]+")  # RFC 6874
_LABEL = re.compile(r"\w(?:[\w-]{0,61}\w)?")  # names of containers have underscores
_LONGEST = 253


def is_host(netloc: str) -> bool:
    """Whether it is a name or an address, perhaps with a port.

    A backslash ends the host for one reader and is part of it for another; so do other signs that
    no name has. requests refuses some of these too, but in the midst of a task.
    """
    found = _NETLOC.fullmatch(netloc)
    if found is None:
        return False
    if found["address"] is not None:
        return _is_address(found["address"])
    return _is_name(found["name"].removesuffix("."))


def _is_address(text: str) -> bool:
    address, percent, zone = text.partition("%")
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return not percent or _ZONE.fullmatch(percent + zone) is not None


def _is_name(name: str) -> bool:
    """Labels of letters and digits; what Unicode has another way to write is not one name."""
    lower = name.lower()
    return (
        unicodedata.normalize("NFKC", lower) == lower
        and len(name) <= _LONGEST
        and all(_LABEL.fullmatch(label) for label in name.split("."))
    )
