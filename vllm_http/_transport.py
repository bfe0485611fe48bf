"""requests, and the only place that knows it: foreign exceptions become ours here.

requests' transport adapter is used without its Session: that would add cookies shared by all
threads, redirects that turn a POST into a GET, the environment's proxies and ~/.netrc, which
overrides an explicit key.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection

from ._connections import POOLS, exchanging
from ._connections_exchange import Exchange
from ._errors import WorkerError
from ._failures import GARBAGE, INVALID
from ._redact import Redactor
from ._refusal import Asked, page_instead
from ._transport_answer import Answer
from ._transport_body import Body
from ._transport_endpoint import Endpoint
from ._transport_errors import CONNECTION, StaleConnection, connection_error
from ._web_page import page_in


MAX_DOCUMENT_BYTES = 2 * 2**20  # /metrics of a busy vLLM 0.32 is 70 kB
# A peer that vanished without a word is noticed even where the user set no clock: 90 s after the
# last word. TCP_USER_TIMEOUT is not set: it would also end an upload to an engine that is alive and
# too busy to read. How a kept connection shows that it leads nowhere, `Delivery` says.
_LIVENESS = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 2}
_KEEPALIVE = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)] + [
    (socket.IPPROTO_TCP, getattr(socket, name), value)
    for name, value in _LIVENESS.items()
    if hasattr(socket, name)
]


class _Adapter(HTTPAdapter):
    """requests' transport with our connections, for one engine, always reached in the same way.

    It spares each request the look for a pool, for cookies and for the path: a tenth of its cost.
    """

    def __init__(self, connections: int) -> None:
        # One retry layer, and it is not this one. Two hosts: the engine and a proxy.
        super().__init__(max_retries=0, pool_connections=2, pool_maxsize=connections)
        self._pool: urllib3.HTTPConnectionPool | None = None
        self._urls: dict[str | None, str] = {}

    def get_connection_with_tls_context(
        self, *args: object, **kwargs: object
    ) -> urllib3.HTTPConnectionPool:
        pool = self._pool
        if pool is None:
            pool = self._pool = super().get_connection_with_tls_context(*args, **kwargs)  # type: ignore[arg-type]
        return pool

    def request_url(self, request: requests.PreparedRequest, proxies: dict[str, str] | None) -> str:
        url = self._urls.get(request.url)
        if url is None:
            url = self._urls[request.url] = super().request_url(request, proxies)
        return url

    def build_response(
        self, request: requests.PreparedRequest, answer: urllib3.BaseHTTPResponse
    ) -> requests.Response:
        response = requests.Response()
        response.status_code = answer.status
        response.headers = answer.headers  # type: ignore[assignment] # ignores case as well
        response.raw = answer
        response.request = request
        return response

    def init_poolmanager(self, *args: object, **kwargs: object) -> None:
        options = HTTPConnection.default_socket_options + _KEEPALIVE
        super().init_poolmanager(*args, socket_options=options, **kwargs)  # type: ignore[arg-type]
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: object) -> urllib3.ProxyManager:
        manager: urllib3.ProxyManager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = POOLS
        return manager

    def close(self) -> None:
        # urllib3 2 leaves a dropped pool's sockets to the garbage collector.
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118 - no dict, and cannot be iterated
                manager.pools[key].close()
        super().close()


class Transport:
    """Opens requests to one engine. Thread-safe.

    Args:
        endpoint: Where the engine is; with the environment, where that counts.
        redact: Applied to all text that comes from elsewhere.

    Raises:
        InvalidRequest: Nothing can be asked at its URL.
    """

    def __init__(self, endpoint: Endpoint, redact: Redactor) -> None:
        self._endpoint = endpoint
        self._redact = redact
        self._asked: dict[str, Asked] = {}
        self._first: dict[tuple[str, str], requests.PreparedRequest] = {}
        self._http = _Adapter(self._endpoint.connections)
        self._check_url()

    def stream(
        self,
        exchange: Exchange,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        connect_timeout: float | None,
        wanted: str,
    ) -> Body:
        """POST, and return the body of an accepted answer of that media type.

        Raises:
            Aborted: The exchange was aborted before its request went out.
            WorkerError: The engine could not be reached, or refused.
        """
        accept = {"Accept": wanted, "Content-Type": "application/json"}
        headers = {**accept, **headers}
        return self._send(exchange, "POST", path, body, headers, connect_timeout).stream(wanted)

    def get(
        self, exchange: Exchange, path: str, headers: Mapping[str, str], timeout: float
    ) -> bytes:
        """GET a small document; its whole body.

        Raises:
            WorkerError: As `stream`.
        """
        answer = self._send(exchange, "GET", path, None, headers, timeout)
        document = answer.document(MAX_DOCUMENT_BYTES + 1)
        if len(document) > MAX_DOCUMENT_BYTES:
            raise GARBAGE.error(f"{path}: a document of more than {MAX_DOCUMENT_BYTES} bytes")
        return document

    def asked(self, path: str) -> Asked:
        """How messages name a request."""
        asked = self._asked.get(path)
        if asked is None:
            with_key = any(name.lower() == "authorization" for name in self._endpoint.headers)
            asked = Asked(self._endpoint.base_url + path, with_key, self._endpoint.proxy)
            self._asked[path] = asked
        return asked

    def unreadable(self, path: str, document: bytes, failure: WorkerError) -> WorkerError:
        """The error for a document that came whole and could not be read: is it a web page?"""
        page = page_in(document)
        if page is None:
            return failure
        return page_instead(self.asked(path), self._redact(page))

    def close(self) -> None:
        """Close idle connections; those in use end with their exchange."""
        self._http.close()

    def _forget_in_child(self) -> None:
        """After a fork: start with connections of our own; the parent's are not ours to use.

        The pools' finalizers close the child's copies of idle sockets; they take no lock.
        """
        self._http = _Adapter(self._endpoint.connections)

    def _check_url(self) -> None:
        try:
            self._request("GET", "/version", {})
        except (requests.exceptions.RequestException, UnicodeError) as failure:
            said = self._redact(str(failure))
        else:
            return
        raise INVALID.error(f"base_url: {said}")

    def _send(
        self,
        exchange: Exchange,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        connect_timeout: float | None,
    ) -> Answer:
        """Send a request; once more on a fresh connection, if it cannot have been read.

        Raises:
            Aborted: The exchange was aborted before its request went out.
            WorkerError: The engine could not be reached, or its status is not 200.
        """
        request = self._request(method, path, headers)
        if body is not None:
            request.headers["Content-Length"] = str(len(body))
            request.body = body
        asked = self.asked(path)
        try:
            response = self._send_once(exchange, request, connect_timeout, asked)
        except StaleConnection:
            response = None
        if response is None:
            exchange.resend()
            response = self._send_once(exchange, request, connect_timeout, asked)
        answer = Answer(response, exchange, asked, self._redact)
        if answer.status != 200:
            raise answer.refusal()
        return answer

    def _send_once(
        self,
        exchange: Exchange,
        request: requests.PreparedRequest,
        connect_timeout: float | None,
        asked: Asked,
    ) -> requests.Response:
        endpoint = self._endpoint
        try:
            with exchanging(exchange):
                response = self._http.send(
                    request,
                    stream=True,
                    timeout=(connect_timeout, None),  # the other clocks are not the socket's
                    verify=endpoint.verify,
                    cert=endpoint.cert,
                    proxies=dict(endpoint.proxies),
                )
        except CONNECTION as failure:
            error = connection_error(failure, exchange, asked, endpoint.base_url, self._redact)
        else:
            if response.status_code != 408 or not exchange.unread:
                return response
            response.close()  # what some servers say to an idle connection before they close it
            error = StaleConnection()
        raise error

    def _request(
        self, method: str, path: str, headers: Mapping[str, str]
    ) -> requests.PreparedRequest:
        """A request without a body. What all to a path have in common is prepared once."""
        first = self._first.get((method, path))
        if first is None:
            # identity: a compressed stream would be held back by whoever compresses it.
            common = {"Accept-Encoding": "identity", **self._endpoint.headers}
            url = self._endpoint.base_url + path
            first = requests.Request(method, url, headers=common).prepare()
            self._first[method, path] = first
        request = requests.PreparedRequest()
        request.method, request.url = first.method, first.url
        request.headers = requests.structures.CaseInsensitiveDict({**first.headers, **headers})
        return request
