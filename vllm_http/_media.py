"""Content parts of a chat message for images, audio and video."""

from __future__ import annotations

import base64
import errno
import io
import os
import re
import stat
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, TypeGuard, cast

from ._errors import InvalidRequest, shown
from ._frames import frameless
from ._limits import text
from ._media_types import HEAD, Kind, media_type
from ._options import check_count


class BinaryFile(Protocol):
    """A file that is open for reading bytes."""

    def read(self, size: int, /) -> bytes | None:
        """At most `size` bytes; none at the end."""


class Picture(Protocol):
    """A Pillow image, or what behaves like one: this package does not need Pillow."""

    @property
    def mode(self) -> str:
        """Pillow's name of its kind of pixels."""

    @property
    def save(self) -> Callable[..., None]:
        """Called with a binary file, ``"PNG"`` and perhaps ``exif=``, writes the image."""


Source: TypeAlias = (
    "str | os.PathLike[str] | os.PathLike[bytes] | bytes | bytearray | memoryview | BinaryFile"
)

_MIB = 1024 * 1024
_PIECE = _MIB

_SCHEME = re.compile(r"(data|file):|([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_NEVER_OF_KIND = {"image": ("audio", "video"), "audio": ("image",), "video": ("image", "audio")}

# What Pillow writes as PNG in all its versions, and what else keeps its transparency.
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_WITH_ALPHA = {"PA": "RGBA", "RGBa": "RGBA", "La": "LA"}
_ORIENTATION = 0x0112  # EXIF's tag


@frameless
def image_part(
    source: Source | Picture, *, max_bytes: int = 64 * _MIB, uuid: str | None = None
) -> dict[str, Any]:
    """An image as a part of a message's content: ``{"type": "image_url", ...}``.

    The image is read at once and goes into the request as a data URL; so a part can be used again,
    in many tasks and threads. Its type is known by its first bytes, not by its name, which counts
    only where the bytes tell nothing.

    Args:
        source: One of:

            - a path, as text or a `pathlib.Path`;
            - bytes, a bytearray or a memoryview of a whole file;
            - a binary file, read from where it stands to its end and left open;
            - a Pillow image, which is sent as PNG, with its EXIF orientation, which vLLM heeds;
            - a URL, which is passed on as it is: ``http:`` or ``https:``, which vLLM fetches
              itself; ``data:`` in base64; ``file:``, a file of the server, which takes its
              ``--allowed-local-media-path``.
        max_bytes: The limit, before base64 makes it a third longer. The size of a file is known
            before it is read. What a remote URL leads to is not checked here.
        uuid: Under which vLLM caches what it makes of it; unique for each content.

    Raises:
        InvalidRequest: It is empty, too large, cannot be read, is no image or of a type that vLLM
            does not open (0.32: HEIC, SVG). Names the path or type, never the content.
    """
    check_count("max_bytes", max_bytes, least=1)
    data = _png(source, max_bytes) if _is_picture(source) else cast(Source, source)
    return _part("image", data, max_bytes, uuid)


@frameless
def audio_part(
    source: Source, *, max_bytes: int = 25 * _MIB, uuid: str | None = None
) -> dict[str, Any]:
    """Audio as a part of a message's content: ``{"type": "audio_url", ...}``.

    All as in `image_part`, but for Pillow's images. MP4, Matroska and WebM are taken as well: they
    may hold nothing but sound. The limit is vLLM's own (``VLLM_MAX_AUDIO_CLIP_FILESIZE_MB``).

    Raises:
        InvalidRequest: As in `image_part`.
    """
    return _part("audio", source, max_bytes, uuid)


@frameless
def video_part(
    source: Source, *, max_bytes: int = 64 * _MIB, uuid: str | None = None
) -> dict[str, Any]:
    """A video as a part of a message's content: ``{"type": "video_url", ...}``.

    All as in `image_part`, but for Pillow's images. A long video is better given as a URL: in a
    request it takes four times its size in memory for a moment.

    Raises:
        InvalidRequest: As in `image_part`.
    """
    return _part("video", source, max_bytes, uuid)


def _part(kind: Kind, source: Source, limit: int, uuid: str | None) -> dict[str, Any]:
    check_count("max_bytes", limit, least=1)
    # Not "input_audio" for audio: vLLM makes a data URL of it, and it cannot hold any other URL.
    name = f"{kind}_url"
    part: dict[str, Any] = {"type": name, name: {"url": _url(kind, source, limit)}}
    if uuid is not None:
        text("uuid", uuid)
        part["uuid"] = uuid
    return part


def _url(kind: Kind, source: Source, limit: int) -> str:
    if isinstance(source, str) and (scheme := _SCHEME.match(source)):
        _check_url(kind, source, (scheme[1] or scheme[2]).lower(), limit)
        return source
    data, name = _read(source, limit)
    size = memoryview(data).nbytes
    if not size:
        raise InvalidRequest(f"source: it is empty; {kind} is wanted")
    if size > limit:
        raise _too_large(limit)
    media = media_type(kind, bytes(data[:HEAD]), name)
    return f"data:{media};base64," + base64.b64encode(data).decode("ascii")


def _check_url(kind: Kind, url: str, scheme: str, limit: int) -> None:
    """Refuse a URL that vLLM would not take; it is not shown, since it may hold a signature."""
    if not url.isprintable():
        raise InvalidRequest("source: the URL holds a control character; none may")
    if scheme in ("http", "https", "file"):
        return
    if scheme != "data":
        raise InvalidRequest(f"source: vLLM takes http, https, data and file URLs, not {scheme}")
    comma = url.find(",")
    declared, _, encoding = url[len("data:") : comma].rpartition(";")
    if comma < 0 or encoding != "base64":
        raise InvalidRequest("source: vLLM takes data URLs in base64 only")
    if declared.partition("/")[0].lower() in _NEVER_OF_KIND[kind]:
        raise InvalidRequest(f"source: it is {shown(declared)[1:-1]}; {kind} is wanted")
    encoded = len(url) - comma - 1
    if not encoded:
        raise InvalidRequest(f"source: it is empty; {kind} is wanted")
    if encoded * 3 // 4 - url.count("=", -2) > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> InvalidRequest:
    return InvalidRequest(f"source: it has more than {limit} bytes, which is the max_bytes")


def _read(source: Source, limit: int) -> tuple[bytes | bytearray | memoryview, str]:
    """The content, at most one piece longer than the limit, and the name of its file or ""."""
    if isinstance(source, (str, os.PathLike)):
        path = os.fsdecode(source)
        return _read_path(path, limit), path
    if isinstance(source, memoryview):
        return (source.cast("B") if source.c_contiguous else source.tobytes()), ""
    if isinstance(source, (bytes, bytearray)):
        return source, ""
    if callable(getattr(source, "read", None)):
        name = getattr(source, "name", "")  # a number, where it was opened by its descriptor
        try:
            return _read_file(source, limit), name if isinstance(name, str) else ""
        except InvalidRequest:
            raise
        except Exception as failure:  # somebody's own file fails in its own way
            why = type(failure).__name__
        raise InvalidRequest(f"source: the file cannot be read: {why}")
    wanted = "a path, a URL, bytes or a binary file"
    raise InvalidRequest(f"source: {wanted} is wanted, not {type(source).__name__}")


def _read_path(path: str, limit: int) -> bytearray:
    try:
        status = os.stat(path)
        # Opening a pipe would wait for its writer.
        if not stat.S_ISREG(status.st_mode):
            raise InvalidRequest(f"source: {shown(path)} is no regular file")
        if status.st_size > limit:
            raise _too_large(limit)
        with open(path, "rb") as file:
            return _read_file(file, limit)
    except InvalidRequest:
        raise
    except ValueError:  # it holds a NUL
        why = None
    except OSError as failure:
        why = None if failure.errno == errno.ENAMETOOLONG else failure.strerror
    if why is None or not path:
        # Not shown: as likely the content itself.
        raise InvalidRequest(f"source: text of length {len(path)} is neither a path nor a URL")
    raise InvalidRequest(f"source: cannot read {shown(path)}: {why}")


def _read_file(file: BinaryFile, limit: int) -> bytearray:
    """All that is left in the file, or a piece more than the limit: it may grow, or never end."""
    data = bytearray()
    while len(data) <= limit:
        piece = file.read(_PIECE)
        if not isinstance(piece, (bytes, bytearray, memoryview)):
            kind = type(piece).__name__
            raise InvalidRequest(f"source: a binary file is wanted; this one's read gave {kind}")
        if not piece:
            break
        data += piece
    return data


def _is_picture(source: object) -> TypeGuard[Picture]:
    # Frameworks' files of uploads have a save and a mode, too.
    return (
        callable(getattr(source, "save", None))
        and isinstance(getattr(source, "mode", None), str)
        and not hasattr(source, "read")
    )


class _Bounded(io.BytesIO):
    """A file in memory that refuses what goes beyond a limit."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def write(self, data: Any, /) -> int:
        if self.tell() + memoryview(data).nbytes > self._limit:
            raise _too_large(self._limit)
        return super().write(data)


_MOST_PIXELS = 178_956_970
"""Pillow, by which vLLM opens a picture, takes a larger one for a bomb and refuses it."""


def _check_size(image: Any) -> None:
    """Before it is decoded and written, which takes several bytes a pixel.

    Raises:
        InvalidRequest: It has more pixels than vLLM opens.
    """
    size = getattr(image, "size", None)
    if isinstance(size, tuple) and len(size) == 2 and all(type(side) is int for side in size):
        width, height = size
        if width * height > _MOST_PIXELS:
            pixels = f"{shown(width)} x {shown(height)} pixels"
            raise InvalidRequest(f"source: the image has {pixels}; {_MOST_PIXELS} are allowed")


def _png(image: Any, limit: int) -> bytes:
    file = _Bounded(limit)
    _check_size(image)
    try:
        exif: Any = getattr(image, "getexif", dict)()
        params: dict[str, Any] = {}
        if exif.get(_ORIENTATION, 1) != 1:
            # Without it the model would see a phone's picture lying on its side. The rest, such
            # as the place, has no business there.
            params["exif"] = type(exif)()
            params["exif"][_ORIENTATION] = exif[_ORIENTATION]
        if image.mode not in _PNG_MODES:
            image = image.convert(_WITH_ALPHA.get(image.mode, "RGB"))
        image.save(file, "PNG", **params)
    except InvalidRequest:
        raise
    except Exception as failure:  # Pillow reads files late, and each format fails in its own way
        why = type(failure).__name__
    else:
        return file.getvalue()
    raise InvalidRequest(f"source: the image cannot be written as PNG: {why}")
