"""Checks of what an adapter is made with."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from ._errors import InvalidRequest, shown


_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token of RFC 9110, 5.6.2
_PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
_SECRET_NAME = re.compile(r"auth|key|token|secret|cookie|password", re.IGNORECASE)
_OURS = (
    *("content-type", "content-length", "transfer-encoding", "connection", "expect"),
    *("accept-encoding", "x-request-id", "x-correlation-id"),
)


def check_count(name: str, value: object, *, least: int) -> int:
    """The value, if it is a whole number of at least that.

    Raises:
        InvalidRequest: It is not.
    """
    if type(value) is not int or value < least:
        raise InvalidRequest(f"{name}: {shown(value)} is not a whole number >= {least}")
    return value


def check_type(name: str, value: object, kind: type) -> None:
    """Refuse what only a type checker would have noticed.

    Raises:
        InvalidRequest: The value is of another type.
    """
    if not isinstance(value, kind):
        raise InvalidRequest(f"{name}: a {kind.__name__} is wanted, not {type(value).__name__}")


P = TypeVar("P")


def check_paths(name: str, value: P) -> P:
    """The value, if the file or files that it names exist; what names none passes.

    Raises:
        InvalidRequest: One does not.
    """
    for path in value if isinstance(value, tuple) else (value,):
        if isinstance(path, (str, os.PathLike)) and not os.path.exists(path):
            raise InvalidRequest(f"{name}: no such file or folder: {shown(path)}")
    return value


def _bearer(api_key: str | None, headers: Mapping[str, str]) -> dict[str, str]:
    """The Authorization header for a key; none for None or "".

    Raises:
        InvalidRequest: It is not text, or `headers` has an Authorization as well.
    """
    if api_key is not None and not isinstance(api_key, str):
        raise InvalidRequest(f"api_key: text is wanted, not {type(api_key).__name__}")
    if not api_key:
        return {}
    if any(name.lower() == "authorization" for name in headers):
        raise InvalidRequest("api_key, headers: both set Authorization; exactly one is sent")
    if not api_key.isprintable() or not api_key.isascii():
        raise InvalidRequest("api_key: only printable ASCII can go into a header")
    return {"Authorization": f"Bearer {api_key}"}


def check_proxies(proxies: Mapping[str, str] | None) -> tuple[dict[str, str], list[str]]:
    """The proxies, and the secrets in their URLs.

    Raises:
        InvalidRequest: One is no proxy's URL; it is not shown, since it may hold a password.
    """
    proxies = {} if proxies is None else proxies
    check_type("proxies", proxies, Mapping)
    secrets = []
    for scheme, url in proxies.items():
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            usable = parts.hostname and parts.scheme in _PROXY_SCHEMES and parts.port != 0
        except (ValueError, TypeError):
            usable = False
        if not usable:
            raise InvalidRequest(
                f"proxies[{shown(scheme)}]: no URL such as http://[user:password@]host:port"
            )
        if parts.password:
            password = unquote(parts.password)
            secrets += [parts.password, password]
            pair = f"{unquote(parts.username or '')}:{password}"
            for encoding in ("utf-8", "latin-1"):  # requests takes the second, where it can
                secrets.append(base64.b64encode(pair.encode(encoding, "replace")).decode())
    return dict(proxies), secrets


def check_headers(
    headers: Mapping[str, str] | None, api_key: str | None
) -> tuple[dict[str, str], list[str]]:
    """The headers as they are sent, the key's included, and the secrets among their values.

    Raises:
        InvalidRequest: A name or value cannot be sent, or the adapter owns that header.
    """
    headers = {} if headers is None else headers
    check_type("headers", headers, Mapping)
    headers = {**headers, **_bearer(api_key, headers)}
    secrets = []
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise InvalidRequest(f"headers: {shown(name)} is not a header name")
        if name.lower() in _OURS:
            raise InvalidRequest(f"headers.{name}: not settable; the adapter owns this header")
        if not isinstance(value, str) or not value.isprintable() or not value.isascii():
            raise InvalidRequest(f"headers.{name}: only printable ASCII can go into a header")
        if value != value.strip():
            raise InvalidRequest(f"headers.{name}: begins or ends with a space; it would be lost")
        if _SECRET_NAME.search(name):
            # An engine's error may quote the header, or the key without its scheme.
            secrets += [value, value.removeprefix("Bearer ")]
    return {"User-Agent": "vllm-http", **headers}, secrets
