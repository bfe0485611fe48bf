"""Parts with media: a text-only model's refusal of them, and what vLLM's own loader makes of them.

The model of these tests takes no media, and the CPU's environment has no decoder of sound or film;
so the parts go to the class of vLLM that opens them for a model that does.
"""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import wave
from typing import Any

import pytest

from vllm_http import Error, InvalidRequest, TaskRequest, VllmHttpAdapter
from vllm_http._media import audio_part, image_part, video_part

from .recipe import prepare
from .server import MODEL, SETTINGS


FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000")

MAKE = """
import base64, io, json, sys
from PIL import Image

def made(form):
    file = io.BytesIO()
    Image.new("RGB", (4, 2), "red").save(file, form)
    return base64.b64encode(file.getvalue()).decode()

print(json.dumps([made(form) for form in json.load(sys.stdin)]))
"""

# What vLLM writes to stdout itself comes first.
OPEN = """
import json, sys
from vllm.multimodal.media.connector import MediaConnector

connector = MediaConnector()
images, video = json.load(sys.stdin)
sizes = [connector.fetch_image(part["image_url"]["url"]).media.size for part in images]
frames, _ = connector.fetch_video(video["video_url"]["url"]).media
print(json.dumps([sizes, len(frames)]))
"""


def in_vllm(program: str, argument: Any) -> Any:
    """What a program in vLLM's own environment prints in its last line, as JSON."""
    python = prepare().venv / "bin" / "python"
    output = subprocess.run(
        [str(python), "-I", "-c", program],
        input=json.dumps(argument),
        env={**os.environ, **SETTINGS},
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=True,
    ).stdout
    return json.loads(output.splitlines()[-1])


def a_sound() -> bytes:
    """A tenth of a second of silence, as WAV."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(1600))
    return file.getvalue()


PARTS = {
    "image": image_part(b"GIF89a\1\0\1\0\0\0\0;"),
    "an image that it would fetch": image_part("http://127.0.0.1:9/a.png", uuid="a"),
    "audio": audio_part(a_sound()),
    "video": video_part(b"\0\0\0\x18ftypisom\0\0\2\0isomavc1"),
}


@pytest.mark.parametrize("use_beam_search", [False, True], ids=["stream", "document"])
@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_text_only_model_refuses_media(
    adapter: VllmHttpAdapter, part: dict[str, Any], use_beam_search: bool
) -> None:
    """The refusal is the one event, is not worth a retry, and says in words what is wrong."""
    content = [{"type": "text", "text": "What is it?"}, part]
    task = TaskRequest(
        messages=[{"role": "user", "content": content}],
        model=MODEL,
        max_tokens=5,
        use_beam_search=use_beam_search or None,
    )
    with adapter.submit(task) as stream:
        (error,) = list(stream)

    assert isinstance(error, Error)
    assert isinstance(error.error, InvalidRequest)
    assert (error.error.status, error.error.retriable) == (400, False)
    assert error.error.message == f"engine answered 400: {MODEL} is not a multimodal model"


def test_vllm_opens_what_the_parts_hold() -> None:
    """Every type of image that Pillow writes, and a video as a list of JPEGs."""
    encoded = in_vllm(MAKE, FORMATS)
    images = [image_part(base64.b64decode(image)) for image in encoded]
    jpeg = encoded[FORMATS.index("JPEG")]
    video = video_part(f"data:video/jpeg;base64,{jpeg},{jpeg}")

    sizes, frames = in_vllm(OPEN, [images, video])

    assert sizes == [[4, 2]] * len(FORMATS)
    assert frames == 2
