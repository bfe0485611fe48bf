"""What the tests of parts share: first bytes, and ways to look into a part."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vllm_http import InvalidRequest
from vllm_http._media import audio_part, image_part, video_part


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    "image": image_part,
    "audio": audio_part,
    "video": video_part,
}

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
WAV = b"RIFF\x24\0\0\0WAVEfmt "


class Dripping(io.BytesIO):
    """A file that gives a byte at a time, as a raw one may."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(1, size or 0))


def url_of(part: dict[str, Any]) -> str:
    """The URL in a part that holds nothing else."""
    kind = part["type"]
    assert part.keys() == {"type", kind}
    assert part[kind].keys() == {"url"}
    return str(part[kind]["url"])


def opened(part: dict[str, Any]) -> tuple[str, bytes]:
    """The media type and the bytes in a part's data URL."""
    match = re.fullmatch(r"data:([a-z0-9/.+-]+);base64,([A-Za-z0-9+/=]*)", url_of(part))
    assert match
    return match[1], base64.b64decode(match[2], validate=True)


def refused(kind: str, source: Any, **options: Any) -> str:
    """The message with which a source is refused."""
    with pytest.raises(InvalidRequest) as info:
        PARTS[kind](source, **options)
    return info.value.message


def png_file(folder: Path, name: str = "a.png", size: int = len(PNG)) -> Path:
    """A file that is a PNG as far as anyone looks."""
    path = folder / name
    path.write_bytes(PNG.ljust(size, b"\0"))
    return path
