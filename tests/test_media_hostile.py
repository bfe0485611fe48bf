"""Media of strangers: URLs that are none, pictures that are too large, readers that fail."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_http import InvalidRequest, audio_part, image_part


@pytest.mark.parametrize(
    "sign", [chr(n) for n in range(0x20)] + ["\x7f", "\x9b", "\u202e", "\u2028"]
)
@pytest.mark.parametrize(
    "form", ["http://h/a{}b.png", "https://h{}", "file:///a{}", "data:image/png{};base64,AA"]
)
def test_a_url_with_a_control_character_is_refused(form: str, sign: str) -> None:
    """Two readers of it see two URLs; it is not shown."""
    with pytest.raises(InvalidRequest, match=r"^source: ") as caught:
        image_part(form.format(sign))

    assert "http" not in caught.value.message or "takes" in caught.value.message


class Reader:
    """A file of somebody's own, which fails as it likes."""

    def __init__(self, failure: Exception) -> None:
        self.failure = failure

    def read(self, size: int) -> bytes:
        raise self.failure


@pytest.mark.parametrize("failure", [KeyError("hush"), RuntimeError("hush"), EOFError(), OSError()])
def test_a_reader_s_own_exception_is_ours(failure: Exception) -> None:
    """Its type is told, and its words are not."""
    with pytest.raises(InvalidRequest, match=type(failure).__name__) as caught:
        audio_part(Reader(failure))

    assert "hush" not in str(caught.value)


class Huge:
    """A picture that says how large it is, and must not be asked for more."""

    mode = "RGB"
    size = (100_000, 100_000)

    def save(self, *arguments: Any, **options: Any) -> None:
        pytest.fail("it was encoded")


def test_a_picture_s_size_is_looked_at_before_it_is_encoded() -> None:
    """It would take 30 GB, and no engine opens it."""
    with pytest.raises(InvalidRequest, match=r"100000 x 100000"):
        image_part(Huge())


class Endless(Huge):
    """A picture that writes more than may be sent."""

    size = (100, 100)

    def save(self, file: Any, *arguments: Any, **options: Any) -> None:
        for _ in range(1000):
            file.write(b"x" * 1000)
        pytest.fail("all of it was written")


def test_an_encoded_picture_is_bounded_while_it_is_written() -> None:
    """`max_bytes` counts before the memory is used."""
    with pytest.raises(InvalidRequest, match="more than 5000 bytes"):
        image_part(Endless(), max_bytes=5000)
