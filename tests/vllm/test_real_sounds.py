"""Sounds, played to a real engine whose model listens: what we send is what it hears.

As for pictures, the model is made of random numbers, so that the same answer means the same sound.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import ONCE, failure

from vllm_http import (
    EngineUnavailable,
    InvalidRequest,
    Timeouts,
    VllmHttpAdapter,
    audio_part,
)

from .media_files import data_url, tone
from .media_host import MediaHost, hosting
from .media_questions import FLAGS, Part, answer, ids, metrics, plain_choices, plain_ids, task
from .recipe import prepare_sounds
from .server import Server, free_port, serving


TOKENS = 12  # of half a second; a second is 25
MOST = 2  # sounds in a request

ONE, OTHER = tone(440), tone(880)


def plain(content: bytes) -> Part:
    """The sound as a part that is made by hand."""
    return {"type": "audio_url", "audio_url": {"url": data_url("audio/wav", content)}}


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own, with a model that listens."""
    log = tmp_path_factory.mktemp("vllm") / "sounds.log"
    flags = [*FLAGS, "--limit-mm-per-prompt", f'{{"audio": {MOST}}}']
    with serving(prepare_sounds(), free_port(), flags, log=log) as server:
        yield server


@pytest.fixture
def adapter(vllm: Server) -> Iterator[VllmHttpAdapter]:
    """An adapter for that server, which tries once and lets no test wait for ever."""
    with VllmHttpAdapter(vllm.url, timeouts=Timeouts(total=120.0), retry=ONCE) as adapter:
        yield adapter


@pytest.fixture
def host() -> Iterator[MediaHost]:
    """A web server that has the one sound."""
    with hosting({"one.wav": ONE}) as host:
        yield host


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with the one sound."""
    (tmp_path / "one.wav").write_bytes(ONE)
    return tmp_path / "one.wav"


Made = Callable[[Path, MediaHost], Part]

SOURCES: dict[str, Made] = {
    "path": lambda path, host: audio_part(path),
    "bytes": lambda path, host: audio_part(ONE),
    "file": lambda path, host: audio_part(io.BytesIO(ONE)),
    "data URL": lambda path, host: audio_part(data_url("audio/wav", ONE)),
    "http URL": lambda path, host: audio_part(host.url("one.wav")),
}


@pytest.mark.parametrize("made", SOURCES.values(), ids=SOURCES)
def test_every_source_plays_the_same_sound(
    adapter: VllmHttpAdapter, vllm: Server, path: Path, host: MediaHost, made: Made
) -> None:
    """However it is given, the model says what it says of the sound in JSON by hand."""
    (expected,) = plain_choices(vllm, plain(ONE))

    found = answer(adapter, made(path, host))

    assert ids(found) == expected["token_ids"]
    assert found.text == expected["message"]["content"]


def test_openais_own_part_is_the_same_sound(adapter: VllmHttpAdapter, vllm: Server) -> None:
    """Sent as OpenAI names it, without a URL, the sound is no other."""
    content = data_url("audio/wav", ONE).partition(",")[2]
    openais = {"type": "input_audio", "input_audio": {"data": content, "format": "wav"}}

    assert ids(answer(adapter, audio_part(ONE))) == plain_ids(vllm, openais)


def test_another_sound_is_another_answer(adapter: VllmHttpAdapter) -> None:
    """Nor is it the answer to silence, or to both: else the tests above would say nothing."""
    one, other = audio_part(ONE), audio_part(OTHER)
    played: list[list[Part]] = [[], [one], [other], [one, other], [other, one]]

    answers = [ids(answer(adapter, *parts)) for parts in played]

    assert len(set(map(tuple, answers))) == len(played)


@pytest.mark.parametrize(
    ("sounds", "tokens"), [([ONE], TOKENS), ([tone(440, 1.0)], 25), ([ONE, OTHER], 2 * TOKENS)]
)
def test_sounds_are_counted_in_tokens(
    adapter: VllmHttpAdapter, vllm: Server, sounds: list[bytes], tokens: int
) -> None:
    """A longer one is more of them; the markers around each are not among them."""
    words = metrics(answer(adapter)).tokens_in or 0

    found = answer(adapter, *map(audio_part, sounds))

    assert ids(found) == plain_ids(vllm, *map(plain, sounds))
    assert metrics(found).multimodal_tokens == {"audio": tokens}
    assert metrics(found).tokens_in == words + tokens + 2 * len(sounds)


def test_uuid_names_the_sound(adapter: VllmHttpAdapter) -> None:
    """Under a name that the server knows, it takes the sound of before."""
    one, other = ids(answer(adapter, audio_part(ONE))), ids(answer(adapter, audio_part(OTHER)))

    named = answer(adapter, audio_part(ONE, uuid="a name"))
    misnamed = answer(adapter, audio_part(OTHER, uuid="a name"))

    assert ids(named) == ids(misnamed) == one
    assert one != other


def test_sounds_that_cannot_be_played_are_refused(adapter: VllmHttpAdapter) -> None:
    """Too short, cut behind its head, or too many."""
    short, headless = audio_part(tone(440, 0.01)), audio_part(ONE[:44])
    wrong = {
        "The audio (len=160) is too short": [short],
        "The audio (len=0) is too short": [headless],
        f"At most {MOST} audio(s) may be provided in one prompt": [audio_part(ONE)] * (MOST + 1),
    }
    for words, parts in wrong.items():
        error, kinds = failure(adapter.submit(task(*parts)))

        assert isinstance(error, InvalidRequest)
        assert (error.status, error.retriable, kinds) == (400, False, ["error"])
        assert words in error.message


def test_broken_head_is_taken_for_the_servers_fault(adapter: VllmHttpAdapter) -> None:
    """vLLM answers 500 to some broken files, which nothing tells from a fault of its own."""
    error, _ = failure(adapter.submit(task(audio_part(ONE[:20]))))

    assert isinstance(error, EngineUnavailable)
    assert (error.status, error.retriable) == (500, True)
    assert "Malformed 'fmt ' chunk" in error.message


def test_file_of_a_server_that_opens_none(adapter: VllmHttpAdapter, path: Path) -> None:
    """So it does to a file URL, where it has no --allowed-local-media-path."""
    error, _ = failure(adapter.submit(task(audio_part(path.as_uri()))))

    assert isinstance(error, EngineUnavailable)
    assert (error.status, error.retriable) == (500, True)
    assert "Cannot load local files without `--allowed-local-media-path`" in error.message
