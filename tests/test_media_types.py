"""The type of media is told by its first bytes, and what is no such media is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from media_support import PARTS, PNG, WAV, opened, refused

from vllm_http import InvalidRequest
from vllm_http._media import audio_part, image_part


# The first bytes of a file, and the types under which it can be sent.
SIGNATURES = {
    "png": (PNG, ["image/png"]),
    "jpeg": (b"\xff\xd8\xff\xe0\0\x10JFIF", ["image/jpeg"]),
    "gif 87": (b"GIF87a\1\0", ["image/gif"]),
    "gif 89": (b"GIF89a\1\0", ["image/gif"]),
    "webp": (b"RIFF\x24\0\0\0WEBPVP8 ", ["image/webp"]),
    "bmp": (b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0", ["image/bmp"]),
    "tiff, little": (b"II*\0\x08\0\0\0", ["image/tiff"]),
    "tiff, big": (b"MM\0*\0\0\0\x08", ["image/tiff"]),
    "avif": (b"\0\0\0\x1cftypavif\0\0\0\0mif1avif", ["image/avif"]),
    "avif by its second brand": (b"\0\0\0\x1cftypmif1\0\0\0\0mif1miafavif", ["image/avif"]),
    "jpeg 2000": (b"\0\0\0\x0cjP  \r\n\x87\n", ["image/jp2"]),
    "wav": (WAV, ["audio/wav"]),
    "wav with a newline in its size": (b"RIFF\x0a\0\0\0WAVEfmt ", ["audio/wav"]),
    "wav over 4 GiB": (b"RF64\xff\xff\xff\xffWAVEds64", ["audio/wav"]),
    "flac": (b"fLaC\0\0\0\x22", ["audio/flac"]),
    "ogg opus": (b"OggS\0\2" + b"\0" * 20 + b"\1\x13OpusHead", ["audio/ogg"]),
    "ogg theora": (b"OggS\0\2" + b"\0" * 20 + b"\1\x2a\x80theora", ["audio/ogg", "video/ogg"]),
    "aiff": (b"FORM\0\0\0\x20AIFFCOMM", ["audio/aiff"]),
    "amr": (b"#!AMR\n", ["audio/amr"]),
    "au": (b".snd\0\0\0\x18", ["audio/basic"]),
    "mp3 with tags": (b"ID3\4\0\0", ["audio/mpeg"]),
    "mp3 of 44.1 kHz": (b"\xff\xfb\x90\x64", ["audio/mpeg"]),
    "mp3 of 22.05 kHz": (b"\xff\xf3\x80\xc4", ["audio/mpeg"]),
    "aac": (b"\xff\xf1\x50\x80", ["audio/aac"]),
    "m4a": (b"\0\0\0\x1cftypM4A \0\0\2\0M4A isommp42", ["audio/mp4"]),
    "mp4": (b"\0\0\0\x18ftypisom\0\0\2\0isomavc1", ["audio/mp4", "video/mp4"]),
    "mov": (b"\0\0\0\x14ftypqt  \0\0\2\0", ["video/quicktime"]),
    "mov of old": (b"\0\1\xf0\x10mdat\0\0", ["video/quicktime"]),
    "webm": (b"\x1aE\xdf\xa3\x93\x42\x82\x88webm", ["audio/webm", "video/webm"]),
    "mkv": (b"\x1aE\xdf\xa3\xa3\x42\x82\x88matroska", ["audio/x-matroska", "video/x-matroska"]),
    "avi": (b"RIFF\x24\0\0\0AVI LIST", ["video/x-msvideo"]),
    "mpeg": (b"\0\0\1\xba\x44", ["video/mpeg"]),
    "mpeg-ts": ((b"G" + b"\0" * 187) * 3, ["video/mp2t"]),
    "flv": (b"FLV\1\5", ["video/x-flv"]),
    "wmv": (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9", ["audio/x-ms-asf", "video/x-ms-asf"]),
    "text": (b"BMW and GIF are words", []),
    "utf-16": ("\ufeffHello".encode("utf-16-le"), []),
    "zeros": (bytes(600), []),
}

# What is known only in order to be refused by its name.
MISTAKES = {
    "image/heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "image/heif": b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic",
    "image/svg+xml": b'\n<svg xmlns="',
    "text/html": b"<!DOCTYPE html><title>Not found",
    "text/xml": b"<?xml version=",
    "application/pdf": b"%PDF-1.7",
    "application/zip": b"PK\3\4\x14",
    "application/gzip": b"\x1f\x8b\x08",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_type_is_told_by_the_first_bytes(name: str) -> None:
    """A file is taken as each kind that it can be, under that type, and as no other kind."""
    data, types = SIGNATURES[name]
    taken = []
    for make in PARTS.values():
        try:
            media, content = opened(make(data))
        except InvalidRequest:
            continue
        assert content == data
        taken.append(media)

    assert sorted(taken) == types


@pytest.mark.parametrize("kind", PARTS)
@pytest.mark.parametrize("media", MISTAKES)
def test_what_vllm_cannot_open_is_named(media: str, kind: str) -> None:
    """A picture of a telephone, or the page of an error, is told from mere noise."""
    assert refused(kind, MISTAKES[media]).startswith(f"source: it is {media}; {kind} is wanted: ")


def test_name_does_not_beat_the_bytes(tmp_path: Path) -> None:
    """A WAV that is called .png is a WAV, and a page of HTML under that name is no image."""
    sound, page = tmp_path / "a.png", tmp_path / "b.png"
    sound.write_bytes(WAV)
    page.write_bytes(b"<html><body>404")

    assert opened(audio_part(sound))[0] == "audio/wav"
    assert "it is audio/wav" in refused("image", sound)
    assert "it is text/html" in refused("image", page)


def test_name_counts_where_the_bytes_tell_nothing(tmp_path: Path) -> None:
    """A raw format without a signature is sent under the type that its name has."""
    path = tmp_path / "a.ppm"
    path.write_bytes(b"P6 1 1 255\n\0\0\0")

    assert opened(image_part(path)) == ("image/x-portable-pixmap", path.read_bytes())


@pytest.mark.parametrize("name", ["a.txt", "a.wav", "a.svg", "a.png.gz", "a", "a.nobody-knows"])
def test_name_of_another_kind_is_refused(name: str, tmp_path: Path) -> None:
    """Nor does a name help that tells of something else, or of nothing."""
    path = tmp_path / name
    path.write_bytes(b"words")

    assert "image is wanted" in refused("image", path)


def test_refusal_says_what_was_seen_and_what_is_accepted() -> None:
    """The message names the field, both types, and no byte of the content."""
    assert refused("video", PNG) == (
        "source: it is image/png; video is wanted: video/ogg, video/quicktime, video/mp4, "
        "video/webm, video/x-matroska, video/x-msvideo, video/mpeg, video/mp2t, video/x-flv, "
        "video/x-ms-asf"
    )
    assert refused("audio", b"secret words").startswith("source: it is of no known type; audio")
    assert "secret" not in refused("audio", b"secret words")
