"""Pictures, shown to a real engine whose model looks at them: what we send is what it sees.

The model is made of random numbers (make_media_model.py): it says noise, but other noise for every
other picture, so that the same answer means the same picture.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import ONCE, SOON, failure, stopwatch, wait_until

from vllm_http import (
    EngineUnavailable,
    InvalidRequest,
    Timeout,
    Timeouts,
    Token,
    VllmHttpAdapter,
    image_part,
)

from .media_files import data_url, noise, png
from .media_host import NEVER, MediaHost, hosting
from .media_questions import (
    FLAGS,
    Part,
    answer,
    ids,
    metrics,
    plain_choices,
    plain_ids,
    task,
)
from .recipe import prepare_pictures
from .server import Server, free_port, serving


TOKENS = 19  # of a picture: sixteen, and three markers around them
MOST = 2  # pictures in a request

ONE, OTHER = png(noise(1)), png(noise(2))


def plain(content: bytes) -> Part:
    """The picture as a part that is made by hand."""
    return {"type": "image_url", "image_url": {"url": data_url("image/png", content)}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose files the server may open by itself, with one picture in it."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "one.png").write_bytes(ONE)
    return folder


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Server]:
    """A server of its own, with a model that looks at pictures."""
    log = tmp_path_factory.mktemp("vllm") / "pictures.log"
    flags = [*FLAGS, "--limit-mm-per-prompt", f'{{"image": {MOST}}}']
    flags += ["--allowed-local-media-path", str(folder)]
    with serving(prepare_pictures(), free_port(), flags, log=log) as server:
        yield server


@pytest.fixture
def adapter(vllm: Server) -> Iterator[VllmHttpAdapter]:
    """An adapter for that server, which tries once and lets no test wait for ever."""
    with VllmHttpAdapter(vllm.url, timeouts=Timeouts(total=120.0), retry=ONCE) as adapter:
        yield adapter


@pytest.fixture
def host() -> Iterator[MediaHost]:
    """A web server that has the one picture."""
    with hosting({"one.png": ONE}) as host:
        yield host


Made = Callable[[Path, MediaHost], Part]

SOURCES: dict[str, Made] = {
    "path": lambda folder, host: image_part(folder / "one.png"),
    "path as text": lambda folder, host: image_part(str(folder / "one.png")),
    "bytes": lambda folder, host: image_part(ONE),
    "file": lambda folder, host: image_part(io.BytesIO(ONE)),
    "Pillow image": lambda folder, host: image_part(noise(1)),
    "data URL": lambda folder, host: image_part(data_url("image/png", ONE)),
    "http URL": lambda folder, host: image_part(host.url("one.png")),
    "file URL": lambda folder, host: image_part((folder / "one.png").as_uri()),
}


@pytest.mark.parametrize("made", SOURCES.values(), ids=SOURCES)
def test_every_source_shows_the_same_picture(
    adapter: VllmHttpAdapter, vllm: Server, folder: Path, host: MediaHost, made: Made
) -> None:
    """However it is given, the model says what it says of the picture in JSON by hand."""
    (expected,) = plain_choices(vllm, plain(ONE))

    found = answer(adapter, made(folder, host))

    assert ids(found) == expected["token_ids"]
    assert found.text == expected["message"]["content"]
    assert found.finish_reason == "length"


def test_another_picture_is_another_answer(adapter: VllmHttpAdapter) -> None:
    """Nor is it the answer to no picture, or to both: else the test above would say nothing."""
    one, other = image_part(ONE), image_part(OTHER)
    shown: list[list[Part]] = [[], [one], [other], [one, other], [other, one]]

    answers = [ids(answer(adapter, *parts)) for parts in shown]

    assert len(set(map(tuple, answers))) == len(shown)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_pictures_are_counted_in_tokens(adapter: VllmHttpAdapter, vllm: Server, count: int) -> None:
    """Each is nineteen tokens of the prompt, in both numbers and in the ids themselves."""
    pictures = [ONE, OTHER][:count]
    words = metrics(answer(adapter)).tokens_in or 0

    found = answer(adapter, *map(image_part, pictures))

    assert ids(found) == plain_ids(vllm, *map(plain, pictures))
    assert metrics(found).multimodal_tokens == ({"image": TOKENS * count} if count else None)
    assert metrics(found).tokens_in == words + TOKENS * count
    assert len(found.choices[0].prompt_token_ids or []) == metrics(found).tokens_in


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK"])
def test_pillow_image_of_any_mode(adapter: VllmHttpAdapter, vllm: Server, mode: str) -> None:
    """It is seen in the colours that Pillow shows it in."""
    image = noise(1).convert("P" if mode == "PA" else mode).convert(mode)

    found = answer(adapter, image_part(image))

    assert ids(found) == plain_ids(vllm, plain(png(image.convert("RGB"))))


def test_picture_is_seen_upright(adapter: VllmHttpAdapter, vllm: Server) -> None:
    """A Pillow image that lies on its side, as its EXIF says, is turned by the server."""
    upright = noise(1, (64, 40))
    lying = upright.rotate(90, expand=True)
    unturned = ids(answer(adapter, image_part(lying)))
    lying.getexif()[0x0112] = 6  # the orientation: to be turned clockwise

    found = ids(answer(adapter, image_part(lying)))

    assert found == plain_ids(vllm, plain(png(upright)))
    assert found != unturned


def test_uuid_names_the_picture(adapter: VllmHttpAdapter) -> None:
    """Under a name that the server knows, it takes the picture of before: it never looks again."""
    one, other = answer(adapter, image_part(ONE)), answer(adapter, image_part(OTHER))

    named = answer(adapter, image_part(ONE, uuid="a name"))
    misnamed = answer(adapter, image_part(OTHER, uuid="a name"))
    renamed = answer(adapter, image_part(OTHER, uuid="another name"))

    assert named.token_ids == misnamed.token_ids == one.token_ids
    assert renamed.token_ids == other.token_ids


def test_two_answers_to_one_picture(adapter: VllmHttpAdapter, vllm: Server) -> None:
    """The picture is counted once, and both answers are those of the same seed without us."""
    drawn = {"n": 2, "temperature": 1.0, "seed": 5}

    found = answer(adapter, image_part(ONE), **drawn)

    expected = [choice["token_ids"] for choice in plain_choices(vllm, plain(ONE), **drawn)]
    assert [choice.token_ids for choice in found.choices] == expected
    assert expected[0] != expected[1]
    assert metrics(found).multimodal_tokens == {"image": TOKENS}


def test_beams_see_the_picture(adapter: VllmHttpAdapter, vllm: Server) -> None:
    """What comes as one document is as true as a stream."""
    beams = {"use_beam_search": True, "n": 2}

    found = answer(adapter, image_part(ONE), **beams)

    expected = [choice["token_ids"] for choice in plain_choices(vllm, plain(ONE), **beams)]
    assert [choice.token_ids for choice in found.choices] == expected
    assert metrics(found).multimodal_tokens == {"image": TOKENS}


def test_part_is_used_by_many_at_once(adapter: VllmHttpAdapter, vllm: Server) -> None:
    """Streams that run together and share a part have the same tokens, one after the other."""
    part, expected = image_part(ONE), plain_ids(vllm, plain(ONE))

    streams = [adapter.submit(task(part)) for _ in range(8)]
    tokens = [[event for event in stream if isinstance(event, Token)] for stream in streams]

    for events in tokens:
        assert [one for event in events for one in event.token_ids or []] == expected
        assert len(events) > 1


REFUSED: dict[str, tuple[Made, int, str]] = {
    "cut short": (
        lambda folder, host: image_part(ONE[:3000]),
        400,
        "Failed to load image: image file is truncated",
    ),
    "no picture": (
        lambda folder, host: image_part(host.url("page.png")),
        400,
        "Failed to load image: cannot identify image file",
    ),
    "not there": (
        lambda folder, host: image_part(host.url("404")),
        422,
        "Failed to fetch media from URL: HTTP 404 error",
    ),
    "no file of the folder": (
        lambda folder, host: image_part((folder.parent / "one.png").as_uri()),
        400,
        "must be a subpath of `--allowed-local-media-path",
    ),
}


@pytest.mark.parametrize("use_beam_search", [None, True], ids=["stream", "document"])
@pytest.mark.parametrize(("made", "status", "words"), REFUSED.values(), ids=REFUSED)
def test_picture_that_cannot_be_shown_is_refused(
    adapter: VllmHttpAdapter,
    folder: Path,
    host: MediaHost,
    made: Made,
    status: int,
    words: str,
    use_beam_search: bool | None,
) -> None:
    """The refusal is the one event, not worth a retry, and says in words what is wrong."""
    part = made(folder, host)

    error, kinds = failure(adapter.submit(task(part, use_beam_search=use_beam_search)))

    assert isinstance(error, InvalidRequest)
    assert (error.status, error.retriable, kinds) == (status, False, ["error"])
    assert error.message.startswith(f"engine answered {status}: ")
    assert words in error.message


def test_more_pictures_than_the_server_admits(adapter: VllmHttpAdapter) -> None:
    """It takes so many in a request, and says how many."""
    error, _ = failure(adapter.submit(task(*[image_part(ONE)] * (MOST + 1))))

    assert (type(error), error.status) == (InvalidRequest, 400)
    assert f"At most {MOST} image(s) may be provided in one prompt" in error.message


def test_host_that_cannot_serve_now(adapter: VllmHttpAdapter, host: MediaHost) -> None:
    """A host that is busy, or out of reach, may be there the next time."""
    parts = [image_part(host.url("429")), image_part(f"http://127.0.0.1:{free_port()}/a.png")]

    errors = [failure(adapter.submit(task(part)))[0] for part in parts]

    for error in errors:
        assert isinstance(error, EngineUnavailable)
        assert (error.status, error.retriable) == (500, True)
    assert "Too Many Requests" in errors[0].message
    assert "Cannot connect to host" in errors[1].message


def test_waiting_for_a_picture_is_waiting_for_the_first_token(
    adapter: VllmHttpAdapter, host: MediaHost
) -> None:
    """While vLLM fetches, our clock runs."""
    part = image_part(host.url(NEVER))

    error, kinds = failure(adapter.submit(task(part), timeouts=Timeouts(first_token=0.5)))

    assert isinstance(error, Timeout)
    assert (error.phase, kinds) == ("first_token", ["error"])


def test_cancel_while_vllm_fetches(
    adapter: VllmHttpAdapter, host: MediaHost, measured: Callable[[str], None]
) -> None:
    """It ends the task at once, whatever becomes of the picture."""
    stream = adapter.submit(task(image_part(host.url(NEVER))))
    wait_until(host.asked.is_set)

    with stopwatch() as watch:
        stream.cancel()
        (end,) = stream

    assert end.type == "end"
    assert watch.seconds < SOON
    measured(f"cancelled in {watch.seconds:.3f} s while vLLM fetched a picture")
