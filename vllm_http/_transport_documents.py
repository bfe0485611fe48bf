"""Whole documents in answer to a POST."""

from __future__ import annotations

from collections.abc import Mapping

from ._connections_exchange import Exchange
from ._refusal import refusal_in_document
from ._transport import Transport


MAX_ANSWER_BYTES = 256 * 2**20
"""Bytes of one answer: a thousand embeddings of 4096 numbers are 22 MB in base64, 86 MB as text."""

_LARGEST_REFUSAL = 65536  # bytes; what is larger is an answer, and is read once


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
            WorkerError: The engine could not be reached, refused, be it inside a 200, or broke off.
        """
        headers = {"Content-Type": "application/json", **headers}
        answer = self._send(exchange, "POST", path, body, headers, connect_timeout)
        document = answer.document(MAX_ANSWER_BYTES + 1)
        if len(document) <= _LARGEST_REFUSAL:
            refused = refusal_in_document(document, self._redact)
            if refused is not None:
                raise refused
        return document
