"""Where an engine is and how to speak to it; what the environment says of that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import requests

from ._errors import InvalidRequest
from ._options import check_proxies, check_verify


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the engine is and how to speak to it.

    Attributes:
        base_url: Without a trailing slash.
        headers: Sent with every request.
        proxies: By scheme, as requests takes them.
        verify: True, False, or a path to a CA bundle.
        cert: A path to a client certificate with its key, or a pair of paths.
        trust_env: Whether proxies, CA bundle and ~/.netrc of the environment count too.
        connections: How many idle connections are kept.
    """

    base_url: str
    headers: Mapping[str, str] = field(repr=False)
    proxies: Mapping[str, str] = field(repr=False)  # a password is in their URLs
    verify: bool | str
    cert: str | tuple[str, str] | None
    trust_env: bool
    connections: int

    def with_environment(self) -> Endpoint:
        """The endpoint with what the environment says, where it may.

        Raises:
            InvalidRequest: What it says cannot be used.
        """
        if not self.trust_env:
            return self
        found = requests.Session().merge_environment_settings(
            self.base_url, dict(self.proxies), None, self.verify, self.cert
        )
        # The one that counts: what else there is may be no URL, such as no_proxy's list.
        proxy = requests.utils.select_proxy(self.base_url, found["proxies"])
        scheme = self.base_url.partition(":")[0].lower()
        return Endpoint(
            self.base_url,
            {**self._netrc(), **self.headers},
            check_proxies({scheme: proxy} if proxy else {}),
            check_verify(found["verify"], "REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE"),
            found["cert"],
            False,
            self.connections,
        )

    @property
    def proxy(self) -> str:
        """The proxy between, without its credentials; "" without one."""
        proxy = requests.utils.select_proxy(self.base_url, dict(self.proxies)) or ""
        scheme, separator, rest = proxy.rpartition("://")
        return scheme + separator + rest.rpartition("@")[2]

    def _netrc(self) -> dict[str, str]:
        """The Authorization by ~/.netrc, unless there is one."""
        netrc = requests.utils.get_netrc_auth(self.base_url)
        if netrc is None or any(name.lower() == "authorization" for name in self.headers):
            return {}
        try:
            return {"Authorization": requests.auth._basic_auth_str(*netrc)}
        except UnicodeEncodeError:
            raise InvalidRequest("~/.netrc: login and password must be Latin-1") from None
