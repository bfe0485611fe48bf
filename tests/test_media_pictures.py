"""A Pillow image becomes a PNG; Pillow itself is not needed for it."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import pytest
from media_support import PNG, opened, refused

from vllm_http._media import image_part


ORIENTATION = 0x0112


class Exif(dict[int, Any]):
    """What Pillow keeps EXIF's tags in."""


class Picture:
    """What `image_part` knows of a Pillow image."""

    def __init__(self, mode: str = "RGB", exif: Exif | None = None) -> None:
        self.mode = mode
        self.exif = exif or Exif()

    def getexif(self) -> Exif:
        return self.exif

    def convert(self, mode: str) -> Picture:
        return Picture(mode)

    def save(self, file: Any, format: str | None = None, **params: Any) -> None:
        exif = params.get("exif")
        assert format == "PNG"
        assert exif is None or type(exif) is Exif
        file.write(PNG + f"{self.mode} {exif}".encode())


class Bare:
    """The least that is a picture."""

    mode = "L"

    def save(self, file: Any, format: str | None = None, **params: Any) -> None:
        assert (format, params) == ("PNG", {})
        file.write(PNG)


class Broken(Picture):
    """A picture whose file is cut."""

    def save(self, file: Any, format: str | None = None, **params: Any) -> None:
        raise SyntaxError("secret")


class Upload(io.BytesIO):
    """A file of a web framework: it has what a picture has, but it is a file."""

    mode = "rb"

    def save(self, name: str, content: Any) -> None:
        raise AssertionError


def pillow() -> Any:
    """Pillow's `Image`, or a skip."""
    return pytest.importorskip("PIL.Image", reason="Pillow is not installed")


def reopened(part: dict[str, Any]) -> Any:
    """The image that Pillow finds in a part."""
    media, data = opened(part)
    assert media == "image/png"
    return pillow().open(io.BytesIO(data), formats=["PNG"])


# Without Pillow.


@pytest.mark.parametrize(
    ("mode", "saved"),
    [("RGB", "RGB"), ("P", "P"), ("I;16", "I;16"), ("CMYK", "RGB"), ("F", "RGB"), ("PA", "RGBA")],
)
def test_picture_is_saved_as_png(mode: str, saved: str) -> None:
    """A mode that no PNG has is converted, transparency is kept."""
    assert opened(image_part(Picture(mode))) == ("image/png", PNG + f"{saved} None".encode())


def test_orientation_alone_goes_with_it() -> None:
    """The place where a picture was taken is not the engine's business."""
    place = 0x8825
    turned, upright = Exif({ORIENTATION: 6, place: "home"}), Exif({ORIENTATION: 1, place: "home"})

    assert opened(image_part(Picture(exif=turned)))[1] == PNG + b"RGB {274: 6}"
    assert opened(image_part(Picture(exif=upright)))[1] == PNG + b"RGB None"


def test_least_that_is_a_picture() -> None:
    """A mode and a save are enough."""
    assert opened(image_part(Bare())) == ("image/png", PNG)


def test_picture_has_the_same_limit() -> None:
    """It holds for the PNG."""
    assert opened(image_part(Bare(), max_bytes=len(PNG))) == ("image/png", PNG)
    assert "more than 15 bytes" in refused("image", Bare(), max_bytes=len(PNG) - 1)


def test_picture_that_cannot_be_saved() -> None:
    """Pillow reads late, so a broken file shows only now; its words may be anything."""
    assert refused("image", Broken()) == ("source: the image cannot be written as PNG: SyntaxError")


@pytest.mark.parametrize("kind", ["audio", "video"])
def test_picture_is_neither_audio_nor_video(kind: str) -> None:
    """Only `image_part` takes one."""
    assert refused(kind, Bare()).endswith("is wanted, not Bare")


def test_upload_is_a_file() -> None:
    """What can be read is read, though it has a mode and a save."""
    assert opened(image_part(Upload(PNG))) == ("image/png", PNG)


def test_pillow_is_not_imported() -> None:
    """Neither by the package nor by the making of a part."""
    program = (
        "import sys; from vllm_http._media import image_part;"
        "image_part(b'GIF89a'); print('PIL' in sys.modules)"
    )
    command = [sys.executable, "-c", program]

    assert subprocess.check_output(command, text=True, timeout=30) == "False\n"


# With Pillow.


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_pillow_image_comes_back(mode: str) -> None:
    """Every pixel of an image that PNG can hold."""
    image = pillow().new(mode, (3, 2))
    image.putpixel((2, 1), image.getpixel((0, 0)) and 1)

    back = reopened(image_part(image))

    assert (back.mode, back.size, back.tobytes()) == (mode, (3, 2), image.tobytes())


@pytest.mark.parametrize("mode", ["I", "F", "PA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"])
def test_pillow_image_of_another_mode_is_converted(mode: str) -> None:
    """What PNG does not know becomes RGB, with its transparency if it has one."""
    back = reopened(image_part(pillow().new(mode, (3, 2))))

    assert (back.mode, back.size) == ("RGBA" if mode in ("PA", "RGBa") else "RGB", (3, 2))


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_photo_stands_upright(mode: str) -> None:
    """vLLM turns an image by its EXIF orientation, which Pillow alone would have dropped."""
    image = pillow().new(mode, (4, 2))
    exif = image.getexif()
    exif[ORIENTATION] = 6
    photo = io.BytesIO()
    image.save(photo, "JPEG", exif=exif)

    back = reopened(image_part(pillow().open(photo)))

    assert dict(back.getexif()) == {ORIENTATION: 6}


def test_pillow_image_without_pixels_or_with_half_a_file() -> None:
    """Both show only when the image is saved."""
    file = io.BytesIO()
    pillow().effect_noise((64, 64), 50).save(file, "PNG")
    half = pillow().open(io.BytesIO(file.getvalue()[: len(file.getvalue()) // 2]))

    assert "cannot be written as PNG" in refused("image", pillow().new("RGB", (0, 0)))
    assert "cannot be written as PNG" in refused("image", half)
