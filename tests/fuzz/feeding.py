"""What the fuzz tests feed with: recorded bodies that chance has spoilt, and ways to cut them."""

from __future__ import annotations

from hypothesis import strategies as st
from wire import SMALL_STREAMS, capture, cuts


SNIPPETS = [
    *(b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\xef\xbb\xbf", b"\xff", b"\xe2\x80\xa8", b"\x00"),
    *(b"data: ", b"data:", b": c\n\n", b"data: [DONE]\n\n", b"event: error\n", b"id: 1\n"),
    *(b'data: {"error": "x"}\n\n', b'data: {"choices": []}\n\n', b"data: {}\n\n", b"null", b"[[["),
    *(b"0\r\n\r\n", b"5\r\n", b"ffffffff\r\n", b";x=y", b"\x1f\x8b\x08"),
]
snippets = st.sampled_from(SNIPPETS) | st.binary(max_size=4)


@st.composite
def spoilt(draw: st.DrawFn, data: bytes) -> bytes:
    """These bytes after up to four accidents: something lost, doubled, or put in between."""
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 40)))
        put = draw(st.sampled_from(["nothing", "twice", "other"]))
        middle = {"nothing": b"", "twice": data[start:end] * 2}.get(put)
        data = data[:start] + (draw(snippets) if middle is None else middle) + data[end:]
    return data


def rewritten(name: str, end_of_json: bytes, line_end: bytes) -> bytes:
    """A recorded body as another server might have written it."""
    return capture(name).body.replace(b"}\n\n", end_of_json).replace(b"\n", line_end)


captures = st.builds(
    rewritten,
    st.sampled_from(SMALL_STREAMS),
    st.sampled_from([b"}\n\n", b"\ndata: }\n\n"]),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
)
noise = st.lists(snippets, max_size=12).map(b"".join)
bodies = captures.flatmap(spoilt) | noise | st.binary(max_size=60)
"""Bodies of streams, most of them broken."""


def split_bodies(
    whole: st.SearchStrategy[bytes],
) -> st.SearchStrategy[tuple[bytes, list[bytes]]]:
    """Bytes, and the same in pieces."""
    return whole.flatmap(lambda data: st.tuples(st.just(data), cuts(data)))
