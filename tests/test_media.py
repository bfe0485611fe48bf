"""Images, audio and video become parts of a message, from whatever the caller has."""

from __future__ import annotations

import io
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
import support
from hypothesis import given
from hypothesis import strategies as st
from media_support import PARTS, PNG, Dripping, opened, png_file, refused, url_of

from vllm_http import VllmHttpAdapter
from vllm_http._media import image_part, video_part
from vllm_http.testing import FakeEngine


PAGE = Path(__file__).parent.parent / "docs" / "multimodal.md"
engine, adapter = support.engine, support.adapter


# The sources.


def test_every_source_of_bytes_gives_the_same_part(tmp_path: Path) -> None:
    """Path, text, bytes and open file: what is sent is the file."""
    path = png_file(tmp_path)
    backwards = memoryview(PNG[::-1])[::-1]  # not contiguous
    sources: list[Any] = [path, str(path), PNG, bytearray(PNG), memoryview(PNG)]
    sources += [backwards, io.BytesIO(PNG)]

    for source in sources:
        assert opened(image_part(source)) == ("image/png", PNG)


def test_wide_memoryview_is_its_bytes() -> None:
    """The items of a view may be larger than a byte."""
    data = PNG.ljust(32, b"\0")

    assert opened(image_part(memoryview(data).cast("I"))) == ("image/png", data)


def test_relative_path_and_one_that_is_not_utf8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text without a scheme is a path, whatever it looks like."""
    monkeypatch.chdir(tmp_path)
    strange = os.fsdecode(b"ab:c \xff.png")
    for name in ("plain.png", strange):
        png_file(tmp_path, name)

        assert opened(image_part(name)) == ("image/png", PNG)


def test_file_is_read_from_where_it_stands_and_left_open() -> None:
    """It is the caller's file; one that gives a byte at a time is read to its end as well."""
    for file in (io.BytesIO(b"12345" + PNG), Dripping(b"12345" + PNG)):
        file.seek(5)

        assert opened(image_part(file)) == ("image/png", PNG)
        assert not file.closed


def test_name_of_a_file_counts(tmp_path: Path) -> None:
    """An open file has its name, as a path has; a temporary one has a number."""
    path = tmp_path / "a.ppm"
    path.write_bytes(b"P6 1 1 255\n\0\0\0")
    with path.open("rb") as file:
        assert opened(image_part(file))[0] == "image/x-portable-pixmap"
    with tempfile.TemporaryFile() as file:
        file.write(b"P6 1 1 255\n\0\0\0")
        file.seek(0)
        assert "no known type" in refused("image", file)


@pytest.mark.parametrize("kind", PARTS)
@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/a?x=1#y",
        "HTTPS://user:pw@example.com/a.png",
        "file:///srv/a.png",
        "data:;base64,AAAA",
        "DATA:application/octet-stream;name=a;base64,AAAA",
    ],
)
def test_url_is_passed_on_as_it_is(kind: str, url: str) -> None:
    """vLLM fetches it; what it is is vLLM's to find out."""
    assert PARTS[kind](url) == {"type": f"{kind}_url", f"{kind}_url": {"url": url}}


def test_frames_of_a_video_as_jpegs() -> None:
    """vLLM takes a video as a list of JPEGs in one data URL, which has a comma between them."""
    url = "data:video/jpeg;base64,/9j/AAAA,/9j/AAAA"

    assert url_of(video_part(url)) == url


@pytest.mark.parametrize(
    ("kind", "url", "why"),
    [
        ("image", "s3://bucket/a.png", "not s3"),
        ("image", "ftp://example.com/a.png", "not ftp"),
        ("image", "data:image/png,%89PNG", "base64 only"),
        ("image", "data:image/png;base64", "base64 only"),
        ("image", "data:image/png;base64x", "base64 only"),
        ("image", "data:image/png;base64,", "empty"),
        ("image", "data:audio/wav;base64,AAAA", "it is audio/wav; image is wanted"),
        ("image", "data:Video/mp4;base64,AAAA", "it is Video/mp4; image is wanted"),
        ("audio", "data:image/png;base64,AAAA", "it is image/png; audio is wanted"),
        ("video", "data:audio/wav;base64,AAAA", "it is audio/wav; video is wanted"),
    ],
)
def test_url_that_vllm_would_not_take(kind: str, url: str, why: str) -> None:
    """It would cost a round trip, and 501 for a data URL without base64."""
    assert why in refused(kind, url)


@pytest.mark.parametrize(
    ("source", "kind"),
    [(None, "NoneType"), (7, "int"), ([PNG], "list"), (object(), "object")],
)
def test_what_is_no_source(source: Any, kind: str) -> None:
    """The message says what would be one."""
    assert refused("image", source) == (
        f"source: a path, a URL, bytes or a binary file is wanted, not {kind}"
    )


@given(st.binary(max_size=3000))
def test_data_url_holds_the_bytes(content: bytes) -> None:
    """Decoding gives back what was put in, of any length; and the input is left as it was."""
    data = bytearray(PNG + content)

    assert opened(image_part(data)) == ("image/png", PNG + content)
    assert data == PNG + content


# The uuid.


@pytest.mark.parametrize("kind", PARTS)
def test_uuid_stands_beside_the_media(kind: str) -> None:
    """It names what vLLM caches."""
    part = PARTS[kind]("http://example.com/a", uuid="mine")

    assert part == {
        "type": f"{kind}_url",
        f"{kind}_url": {"url": "http://example.com/a"},
        "uuid": "mine",
    }


@pytest.mark.parametrize("uuid", ["", 7])
def test_uuid_is_text(uuid: Any) -> None:
    """What is no text is refused before the wire."""
    assert refused("image", PNG, uuid=uuid).startswith("uuid: ")


# On the wire.


def test_docs_example(engine: FakeEngine, adapter: VllmHttpAdapter, tmp_path: Path) -> None:
    """The example in docs/multimodal.md, as it is written there: what the engine gets is a chat."""
    pattern = r"^<!-- example: describe -->\n```python\n(.*?)^```$"
    (example,) = re.findall(pattern, PAGE.read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    path = png_file(tmp_path)

    completion = names["describe"](adapter, "fake-model", path)

    assert isinstance(completion, str)
    assert completion
    (request,) = engine.wait_for_requests(1, path="/v1/chat/completions")
    text, image = request.json["messages"][0]["content"]
    assert text == {"type": "text", "text": "What is in this picture?"}
    assert opened(image) == ("image/png", PNG)
