"""What kind of media some bytes are: by their signature, and where that tells nothing, by name.

A list of our own: it has to say of one container that it is audio and video both, and of some
types that vLLM cannot open them.
"""

from __future__ import annotations

import mimetypes
import re
from typing import Literal, TypeAlias

from ._errors import InvalidRequest, shown


Kind: TypeAlias = Literal["image", "audio", "video"]

HEAD = 512
"""Bytes that are looked at: the syncs of three MPEG-TS packets, the first pages of an Ogg."""

# The first match counts, so what is more special stands above. What may hold either is named as
# both: browsers record audio as WebM, and vLLM takes the sound out of an MP4.
_ACCEPTED: tuple[tuple[bytes, tuple[str, ...]], ...] = (
    (rb"\x89PNG\r\n\x1a\n", ("image/png",)),
    (rb"\xff\xd8\xff", ("image/jpeg",)),
    (rb"GIF8[79]a", ("image/gif",)),
    (rb"RIFF....WEBP", ("image/webp",)),
    # "BM" alone begins words, too; the size of the second header follows.
    (rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", ("image/bmp",)),
    (rb"II[\x2a\x2b]\0|MM\0[\x2a\x2b]", ("image/tiff",)),
    (rb"....ftypavi[fs]", ("image/avif",)),
    (rb"....ftypm[is]f1.{4}(?:.{4}){0,8}?avi[fs]", ("image/avif",)),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", ("image/jp2",)),
    (rb"(?:RIFF|RF64|RIFX)....WAVE", ("audio/wav",)),
    (rb"fLaC", ("audio/flac",)),
    (rb"OggS.{0,400}theora", ("video/ogg", "audio/ogg")),
    (rb"OggS", ("audio/ogg",)),
    (rb"FORM....AIF[FC]", ("audio/aiff",)),
    (rb"#!AMR", ("audio/amr",)),
    (rb"\.snd", ("audio/basic",)),
    # Layers II and III of MPEG audio. Layer I is left out: it looks like UTF-16's byte order mark.
    (rb"ID3[\x02-\x04]|\xff[\xe2\xe3\xf2-\xf5\xfa-\xfd][\x00-\xef]", ("audio/mpeg",)),
    (rb"\xff[\xf0\xf1\xf8\xf9]", ("audio/aac",)),
    (rb"....ftyp(?:M4[ABP] |F4[AB] )", ("audio/mp4",)),
    (rb"....ftypqt  |....(?:moov|mdat|wide)", ("video/quicktime",)),
    # All other brands but those of HEIF.
    (rb"....ftyp(?!hei|hev|m[is]f1)", ("video/mp4", "audio/mp4")),
    (rb"\x1aE\xdf\xa3.{0,60}webm", ("video/webm", "audio/webm")),
    (rb"\x1aE\xdf\xa3", ("video/x-matroska", "audio/x-matroska")),
    (rb"RIFF....AVI ", ("video/x-msvideo",)),
    (rb"\0\0\x01[\xb3\xba]", ("video/mpeg",)),
    (rb"G.{187}G.{187}G", ("video/mp2t",)),
    (rb"FLV\x01", ("video/x-flv",)),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", ("video/x-ms-asf", "audio/x-ms-asf")),
)

# Known in order to be refused by their names: what people send by mistake, such as the page of an
# error under the name of a picture, and pictures that vLLM 0.32 has no decoder for.
_REFUSED: tuple[tuple[bytes, tuple[str, ...]], ...] = (
    (rb"....ftyp(?:hei|hev)", ("image/heic",)),
    (rb"....ftypm[is]f1", ("image/heif",)),
    (rb"(?i:\s*<svg)", ("image/svg+xml",)),
    (rb"(?i:\s*<(?:!doctype html|html))", ("text/html",)),
    (rb"\s*<\?xml", ("text/xml",)),
    (rb"%PDF-", ("application/pdf",)),
    (rb"PK\x03\x04", ("application/zip",)),
    (rb"\x1f\x8b", ("application/gzip",)),
)

_SIGNATURES = [
    (re.compile(pattern, re.DOTALL), types) for pattern, types in (*_ACCEPTED, *_REFUSED)
]
_NEVER = {one for _, types in _REFUSED for one in types}


def accepted(kind: Kind) -> str:
    """The types of a kind that are known by their signature, for a message."""
    known = (one for _, types in _ACCEPTED for one in types if one.startswith(kind))
    return ", ".join(dict.fromkeys(known))


def media_type(kind: Kind, head: bytes, name: str) -> str:
    """The media type of what begins with `head`.

    Args:
        kind: What is wanted.
        head: The first `HEAD` bytes.
        name: Of the file, or "". Asked only about bytes that have no known signature.

    Raises:
        InvalidRequest: It is of another kind or unknown. Says what was seen, without the bytes.
    """
    seen = _by_signature(head) or _by_name(name)
    for one in seen:
        if one.startswith(f"{kind}/") and one not in _NEVER:
            return one
    what = " or ".join(seen) or "of no known type" + (
        f", nor is its name {shown(name)}" * bool(name)
    )
    raise InvalidRequest(f"source: it is {what}; {kind} is wanted: {accepted(kind)}")


def _by_signature(head: bytes) -> tuple[str, ...]:
    return next((types for pattern, types in _SIGNATURES if pattern.match(head)), ())


def _by_name(name: str) -> tuple[str, ...]:
    guess, packed = mimetypes.guess_type(name, strict=False)
    return () if guess is None or packed else (guess,)
