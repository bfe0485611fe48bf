"""Media that cannot be read, or is too large, is refused without a word of its content."""

from __future__ import annotations

import io
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from media_support import PARTS, PNG, Dripping, opened, png_file, refused, url_of

from vllm_http._media import image_part


# Files that cannot be read.


def test_file_that_is_not_there(tmp_path: Path) -> None:
    """A path is no secret, so the message names it."""
    path = tmp_path / "nobody.png"

    assert refused("image", path) == (
        f"source: cannot read {str(path)!r}: No such file or directory"
    )


def test_what_is_no_file(tmp_path: Path) -> None:
    """A folder; and a pipe, whose opening would wait for a writer for ever."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    for path in (tmp_path, pipe, Path("/dev/zero")):
        assert "is no regular file" in refused("image", path)


@pytest.mark.parametrize("text", ["", "a\0b", "iVBORw0KGgo" * 1000])
def test_text_that_is_neither_path_nor_url(text: str) -> None:
    """Base64 without its ``data:`` looks like a long name; it is content, so it is not shown."""
    assert refused("image", text) == (
        f"source: text of length {len(text)} is neither a path nor a URL"
    )


class Broken(io.BytesIO):
    """A file whose reading fails with words that are not ours to repeat."""

    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError("secret")


def test_file_that_fails() -> None:
    """A closed one, one for text, one for writing, and one on a disk that is broken."""
    closed = io.BytesIO(PNG)
    closed.close()
    with open(os.devnull, "wb") as writable:
        assert refused("image", writable).endswith("cannot be read: UnsupportedOperation")
    assert refused("image", closed) == "source: the file cannot be read: ValueError"
    assert refused("image", Broken()) == "source: the file cannot be read: OSError"
    assert refused("image", io.StringIO("text")).endswith("this one's read gave str")


# The size.


def test_limit_is_inclusive(tmp_path: Path) -> None:
    """What is as large as the limit is taken, from every source, and one byte more is not."""
    size = 100
    for extra in (0, 1, 2):
        path = png_file(tmp_path, size=size + extra)
        data = path.read_bytes()
        data_url = url_of(image_part(data))
        for source in (path, data, io.BytesIO(data), Dripping(data), data_url):
            if not extra:
                assert opened(image_part(source, max_bytes=size)) == ("image/png", data)
            else:
                assert refused("image", source, max_bytes=size) == (
                    "source: it has more than 100 bytes, which is the max_bytes"
                )


@pytest.mark.parametrize(("kind", "mib"), [("image", 64), ("audio", 25), ("video", 64)])
def test_default_limit_is_known_before_the_file_is_read(
    kind: str, mib: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is too large is not even opened."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(mib * 1024 * 1024 + 1)
    monkeypatch.setattr("builtins.open", lambda *_: pytest.fail("it was opened"))

    assert f"more than {mib * 1024 * 1024} bytes" in refused(kind, path)


def test_file_without_an_end_is_left_at_the_limit() -> None:
    """Its size is not known before, so no more is read than the limit and a piece."""
    with open("/dev/zero", "rb", buffering=0) as file:
        tracemalloc.start()
        try:
            assert "more than 3000000 bytes" in refused("image", file, max_bytes=3_000_000)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert peak < 8_000_000


def test_memory_is_that_of_two_encodings() -> None:
    """The bytes are not copied; base64 exists as bytes and as text for a moment."""
    data = PNG.ljust(6_000_000, b"\0")
    tracemalloc.start()
    try:
        part = image_part(data)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(url_of(part)) == 8_000_022
    assert kept < 8_100_000
    assert peak < 16_100_000


@pytest.mark.parametrize("kind", PARTS)
def test_nothing_is_refused(kind: str, tmp_path: Path) -> None:
    """An empty file is a mistake of whoever wrote it."""
    path = tmp_path / "a.png"
    path.touch()
    for source in (b"", path, io.BytesIO()):
        assert refused(kind, source) == f"source: it is empty; {kind} is wanted"


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, None, "1"])
def test_limit_is_a_number_of_bytes(limit: Any) -> None:
    """A limit that is none is told, not guessed."""
    assert refused("image", PNG, max_bytes=limit).startswith("max_bytes: ")
