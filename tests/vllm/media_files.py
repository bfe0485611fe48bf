"""Pictures and sounds to show to a model, each unlike all others."""

# The environment of the type checker has no Pillow.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import array
import base64
import io
import math
import random
import wave

from PIL import Image


RATE = 16_000  # samples in a second: what the model wants, since nothing here can resample


def noise(seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """A picture of random colours."""
    return Image.frombytes("RGB", size, random.Random(seed).randbytes(size[0] * size[1] * 3))


def png(image: Image.Image) -> bytes:
    """The picture as the bytes of a file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def tone(pitch: float, seconds: float = 0.5) -> bytes:
    """A sound of that many waves in a second, as the bytes of a WAV file."""
    waves = (math.sin(2 * math.pi * pitch * n / RATE) for n in range(round(seconds * RATE)))
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(RATE)
        sound.writeframes(array.array("h", [round(9000 * height) for height in waves]).tobytes())
    return file.getvalue()


def data_url(media: str, content: bytes) -> str:
    """The content as a URL, made without us."""
    return f"data:{media};base64," + base64.b64encode(content).decode()
