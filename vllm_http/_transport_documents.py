"""Whole documents in answer to a POST."""

from __future__ import annotations

from collections.abc import Mapping

from ._connections_exchange import Exchange
from ._transport import Transport


MAX_ANSWER_BYTES = 256 * 2**20
"""Bytes of one answer: a thousand embeddings of 4096 numbers are 22 MB in base64, 86 MB as text."""


class DocumentTransport(Transport):
    """A transport that also posts for a document. Thread-safe."""

    def post(
        self,
        exchange: Exchange,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        connect_timeout: float | None,
    ) -> bytes:
        """POST JSON; the whole body of an accepted answer, or `MAX_ANSWER_BYTES` + 1 of it.

        Raises:
            Aborted: The exchange was aborted before its request went out.
            WorkerError: The engine could not be reached, refused, or broke off.
        """
        headers = {"Content-Type": "application/json", **headers}
        answer = self._send(exchange, "POST", path, body, headers, connect_timeout)
        return answer.document(MAX_ANSWER_BYTES + 1)
