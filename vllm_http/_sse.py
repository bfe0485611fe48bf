"""Bytes, however they are split, to the payloads of server-sent events. No I/O.

sseclient-py reads the events; `EventFramer` hands it whole ones and mends what it gets wrong
(measured with 1.9.0): a BOM swallows its first event, mixed line ends merge two events into one,
an event that is unfinished at EOF is dispatched, and an event may grow without bound.

Events have types. Those without one, or of type ``message``, are the answer's; ``error`` is told
apart; what others say (``ping``) is not for us.
"""

from __future__ import annotations

import logging

from sseclient import SSEClient


# sseclient-py logs each event, under the module of its subclass: ours.
logging.getLogger(__name__).disabled = True

_OF_ANSWERS = ('"choices"', '"delta"')
"""What events with a piece of an answer hold: vLLM's, and those of other APIs (OpenAI's Responses,
Anthropic's)."""

BOM = b"\xef\xbb\xbf"


class EventFramer(SSEClient):
    """Pushed with chunks, gives the payloads of the events that they complete.

    Runs of plain ``data: ...`` lines, all that vLLM ever sends beside comments, are split here
    (0.3 µs an event against 2.3 µs); everything else goes through sseclient-py. Both give the
    same payloads.

    Args:
        max_event_bytes: The largest event that is accepted.

    Attributes:
        failure: Why nothing more comes, in words, or None. What came before it was given.
        error: The data of an event of type ``error``, or None. Nothing is given after it.
        skipped: The type of an event that was not given although it looks like a chunk, or None.
    """

    def __init__(self, max_event_bytes: int) -> None:
        super().__init__(iter(()))
        self.failure: str | None = None
        self.error: str | None = None
        self.skipped: str | None = None
        self._max_event_bytes = max_event_bytes
        self._open = bytearray()  # what has come of the event that is not finished yet
        self._head: bytes | None = b""  # the stream's first bytes, until they cannot be a BOM
        self._after_cr = False

    @property
    def unfinished(self) -> bytes:
        """What has come of an event that is not finished; a cut stream leaves it behind."""
        return bytes(self._open)

    def rest(self) -> list[bytes]:
        """The payload of the unfinished event, if the body's end may stand for its blank line."""
        return self._payloads_of_any_event(bytes(self._open) + b"\n\n")

    def feed(self, chunk: bytes) -> list[bytes]:
        """The payloads of the events that this chunk completes, in order."""
        if self.failure is not None or self.error is not None:
            return []
        if self._head is not None:
            chunk = self._without_bom(chunk)
        if self._after_cr or b"\r" in chunk:
            chunk = self._with_plain_line_ends(chunk)
        finished = self._finished(chunk)
        if max(len(finished), len(self._open)) > self._max_event_bytes:
            finished = self._up_to_the_limit(finished)
        return self._payloads(finished)

    def _without_bom(self, chunk: bytes) -> bytes:
        head = (self._head or b"") + chunk
        if len(head) < len(BOM) and BOM.startswith(head):
            self._head = head
            return b""
        self._head = None
        return head.removeprefix(BOM)

    def _with_plain_line_ends(self, chunk: bytes) -> bytes:
        """The chunk with LF for CRLF and CR; a CRLF may be split between two chunks."""
        if not chunk:
            return chunk
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if chunk:
            self._after_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _finished(self, chunk: bytes) -> bytes:
        """All that is finished with this chunk; the rest is kept for the next."""
        if not self._open and chunk.endswith(b"\n\n"):
            return chunk  # what vLLM's chunks are: nothing to copy
        start = max(0, len(self._open) - 1)  # a blank line may be split between two chunks
        self._open += chunk
        end = self._open.rfind(b"\n\n", start) + 2
        if end == 1:  # not found
            return b""
        finished = bytes(self._open[:end])
        del self._open[:end]
        return finished

    def _up_to_the_limit(self, finished: bytes) -> bytes:
        """What is finished before the first event that is too large."""
        position = 0
        for event in (*finished.split(b"\n\n"), self.unfinished):
            if len(event.strip(b"\n")) > self._max_event_bytes:
                self.failure = (
                    f"an event of more than {self._max_event_bytes} bytes; "
                    "raise max_event_bytes to let it through"
                )
                return finished[:position]
            position += len(event) + 2
        return finished

    def _payloads(self, finished: bytes) -> list[bytes]:
        events: list[bytes] = finished.split(b"\n\n")
        events.pop()
        plain = finished.count(b"\n") == 2 * len(events) and all(
            event.startswith(b"data: ") for event in events
        )
        if plain and _is_utf8(finished):
            return [event[6:] for event in events if len(event) > 6]
        return self._payloads_of_any_event(finished)

    def _payloads_of_any_event(self, finished: bytes) -> list[bytes]:
        self._event_source = iter((finished,))
        payloads: list[bytes] = []
        try:
            for event in self.events():
                if event.event.lower() == "error":
                    self.error = event.data
                    break
                # A gateway may give [DONE] a type of its own; no chunk looks like it.
                if event.data and (event.event == "message" or event.data.strip() == "[DONE]"):
                    payloads.append(event.data.encode())
                elif any(name in event.data for name in _OF_ANSWERS):
                    self.skipped = event.event
        except UnicodeDecodeError as failure:
            self.failure = f"an event that is not UTF-8 ({failure.reason})"
        return payloads


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
