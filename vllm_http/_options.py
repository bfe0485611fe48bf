"""Checks of what an adapter is made with."""

from __future__ import annotations

import base64
import contextlib
import os
import re
from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

from ._errors import InvalidRequest, shown
from ._host import is_host


_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token of RFC 9110, 5.6.2
_PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
_CONTROL = re.compile(r"[\0-\x1f\x7f-\x9f]")
_SECRET_NAME = re.compile(
    r"auth|key|token|secret|cookie|passw|passphrase|pwd|session|credential|signature|jwt",
    re.IGNORECASE,
)
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
        if isinstance(path, (str, os.PathLike)) and not _exists(path):
            raise InvalidRequest(f"{name}: no such file or folder: {shown(path)}")
    return value


def _exists(path: str | os.PathLike[str]) -> bool:
    with contextlib.suppress(ValueError):  # a NUL or a lone surrogate in it
        return os.path.exists(path)
    return False


def check_verify(verify: object, name: str = "verify") -> bool | str:
    """Whether to check the server's certificate, or the path of the CA bundle to check it by.

    Nothing else: whatever is false would turn the check off without a word, as requests takes it.

    Raises:
        InvalidRequest: It is neither, or the path does not exist.
    """
    if isinstance(verify, bool):
        return verify
    path = os.fspath(verify) if isinstance(verify, os.PathLike) else verify
    if not isinstance(path, str):
        raise InvalidRequest(f"{name}: {shown(verify)} is neither True, False nor a path")
    return check_paths(name, path)


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


def check_cert(cert: str | tuple[str, str] | None) -> tuple[str, str] | None:
    """The file of the client's certificate and that of its key, which may be one.

    It is named twice then: urllib3 looks at a key that is named, and refuses it under a password;
    OpenSSL would ask for that at the terminal, in the midst of a task.

    Raises:
        InvalidRequest: A file does not exist, or the key has a password.
    """
    if cert is None:
        return None
    pair = cert if isinstance(cert, tuple) else (cert, cert)
    if len(pair) != 2 or not all(isinstance(path, (str, os.PathLike)) for path in pair):
        raise InvalidRequest(f"cert: {shown(cert)} is neither a path nor a pair of paths")
    for path in check_paths("cert", pair):
        if _has_password(path):
            raise InvalidRequest(f"cert: the key in {shown(path)} has a password; it must not")
    return pair


def _has_password(key: str | os.PathLike[str]) -> bool:
    """Whether the key in this file is encrypted, by the words of PKCS #8 or of older PEM files."""
    with contextlib.suppress(OSError):  # who connects will say why it cannot be read
        if os.path.isfile(key):
            with open(key, "rb") as file:
                return b"ENCRYPTED" in file.read()
    return False


def check_proxies(proxies: Mapping[str, str] | None) -> dict[str, str]:
    """The proxies.

    Raises:
        InvalidRequest: One is no proxy's URL; it is not shown, since it may hold a password.
    """
    proxies = {} if proxies is None else proxies
    check_type("proxies", proxies, Mapping)
    for scheme, url in proxies.items():
        try:
            usable = url.isprintable() and _can_be_used(_parts(url))
        except (ValueError, TypeError, AttributeError):
            usable = False
        if not usable:
            raise InvalidRequest(
                f"proxies[{shown(scheme)}]: no URL such as http://[user:password@]host:port"
            )
    return dict(proxies)


def _parts(proxy: str) -> SplitResult:
    return urlsplit(proxy if "://" in proxy else f"http://{proxy}")


def _can_be_used(parts: SplitResult) -> bool:
    credentials = unquote(parts.username or "") + unquote(parts.password or "")
    credentials.encode("latin-1")  # as requests does; what cannot be is a ValueError
    return (
        is_host(parts.netloc.rpartition("@")[2])
        and parts.scheme in _PROXY_SCHEMES
        and parts.port != 0
        and not _CONTROL.search(credentials)
    )


def check_headers(headers: Mapping[str, str] | None, api_key: str | None) -> dict[str, str]:
    """The headers as they are sent, the key's included.

    Raises:
        InvalidRequest: A name or value cannot be sent, or the adapter owns that header.
    """
    headers = {} if headers is None else headers
    check_type("headers", headers, Mapping)
    headers = {**headers, **_bearer(api_key, headers)}
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise InvalidRequest(f"headers: {shown(name)} is not a header name")
        if name.lower() in _OURS:
            raise InvalidRequest(f"headers.{name}: not settable; the adapter owns this header")
        if not isinstance(value, str) or not value.isprintable() or not value.isascii():
            raise InvalidRequest(f"headers.{name}: only printable ASCII can go into a header")
        if value != value.strip():
            raise InvalidRequest(f"headers.{name}: begins or ends with a space; it would be lost")
    return {"User-Agent": "vllm-http", **headers}


def secrets_in(headers: Mapping[str, str], proxies: Mapping[str, str]) -> list[str]:
    """What of these must never be shown, in all forms in which an engine or a proxy has it."""
    secrets = []
    for name, value in headers.items():
        if _SECRET_NAME.search(name):
            # An error may quote the header, or the key without its scheme.
            secrets += [value, value.removeprefix("Bearer "), *_basic(value)]
        if "cookie" in name.lower():
            secrets += [pair.partition("=")[2].strip() for pair in value.split(";")]
    for url in proxies.values():
        parts = _parts(url)
        if parts.password:
            password = unquote(parts.password)
            secrets += [parts.password, password]
            pair = f"{unquote(parts.username or '')}:{password}"
            for encoding in ("utf-8", "latin-1"):  # requests takes the second, where it can
                secrets.append(base64.b64encode(pair.encode(encoding, "replace")).decode())
    return secrets


def _basic(authorization: str) -> list[str]:
    """The pair, coded and plain, and the password in it; nothing where the scheme is another."""
    scheme, _, coded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return []
    try:
        pair = base64.b64decode(coded).decode("latin-1")
    except ValueError:
        return [coded]
    return [coded, pair, pair.partition(":")[2]]
