"""LoRA adapters of a real engine, by name: made of random numbers, so they answer nonsense."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import wait_until

from vllm_http import (
    Completion,
    End,
    HealthState,
    InvalidRequest,
    Model,
    TaskRequest,
    Timeouts,
    Token,
    VllmHttpAdapter,
)

from .recipe import HERE, Installation, prepare
from .server import MODEL, Server, free_port, serving


LORA = "sql"
NAMES = [MODEL, LORA]
CONTEXT = 256  # tokens: less work to start
PROMPTS = ["The capital of France is", "Once upon a time", "SELECT name FROM", "The sea is"]
PROMPTS += ["def add(a, b):", "My dog", "Two and two make", "Water boils at"]
CHAT = [{"role": "user", "content": "Where is Paris?"}]
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 12, "ignore_eos": True}

FLAGS = ["--max-model-len", str(CONTEXT), "--enable-lora", "--max-lora-rank", "8"]
# In bfloat16 the same prompt may go on differently in another batch.
FLAGS += ["--dtype", "float32"]
# More than are ever loaded here, for the last place must be empty: in a batch of both, the CPU code
# of vLLM 0.32 takes what is in it for the base model's answers too (vllm-project/vllm#48421).
FLAGS += ["--max-loras", "8"]


@pytest.fixture(scope="module")
def installation() -> Installation:
    """What the server and the adapters are made from."""
    return prepare()


@pytest.fixture(scope="module")
def folders(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Three adapters; the twin was made like the one that is served from the start."""
    home = tmp_path_factory.mktemp("lora")
    seeds = {LORA: 0, "twin": 0, "other": 1}
    for name, seed in seeds.items():
        command = [str(installation.venv / "bin" / "python"), "-I", str(HERE / "make_lora.py")]
        command += [str(installation.model), str(home / name), "--seed", str(seed)]
        subprocess.run(command, check=True)
    return {name: home / name for name in seeds}


@pytest.fixture(scope="module")
def vllm(
    installation: Installation, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server of its own, with one adapter, which lets others come and go."""
    log = tmp_path_factory.mktemp("vllm") / "lora.log"
    flags = [*FLAGS, "--lora-modules", f"{LORA}={folders[LORA]}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "1")
        with serving(installation, free_port(), flags, log=log) as server:
            yield server


@pytest.fixture
def adapter(vllm: Server) -> Iterator[VllmHttpAdapter]:
    """An adapter for that server, which lets no test wait for ever."""
    with VllmHttpAdapter(vllm.url, timeouts=Timeouts(total=120.0)) as adapter:
        yield adapter


def answer(adapter: VllmHttpAdapter, model: str | None, **fields: Any) -> Completion:
    """The answer to one task."""
    task = TaskRequest(model=model, return_token_ids=True, **GREEDY, **fields)
    with adapter.submit(task) as stream:
        return stream.result()


def ids(adapter: VllmHttpAdapter, model: str | None, prompt: str = PROMPTS[0]) -> list[int]:
    """The token ids of an answer."""
    found = answer(adapter, model, prompt=prompt).token_ids
    assert found is not None
    assert len(found) == GREEDY["max_tokens"]
    return found


def refusal(adapter: VllmHttpAdapter, model: str) -> tuple[int | None, str]:
    """The status and the code with which a name is refused."""
    with pytest.raises(InvalidRequest, match=f"`{model}` does not exist") as caught:
        ids(adapter, model)
    return caught.value.status, caught.value.code


@contextlib.contextmanager
def loaded(vllm: Server, name: str, folder: Path) -> Iterator[None]:
    """Have one more adapter for the length of a `with`."""
    body = {"lora_name": name, "lora_path": str(folder)}
    assert vllm.ask("POST", "/v1/load_lora_adapter", body)[0] == 200
    try:
        yield
    finally:
        unload(vllm, name)


def unload(vllm: Server, name: str) -> None:
    """Take an adapter away, if it is there."""
    assert vllm.ask("POST", "/v1/unload_lora_adapter", {"lora_name": name})[0] in (200, 404)


# What is served.


def test_lora_is_listed_after_its_base(
    adapter: VllmHttpAdapter, installation: Installation, folders: dict[str, Path]
) -> None:
    """It names its base model and its folder, and has no context length of its own."""
    assert adapter.models() == [
        Model(MODEL, max_model_len=CONTEXT, root=str(installation.model), parent=None),
        Model(LORA, max_model_len=None, root=str(folders[LORA]), parent=MODEL),
    ]


def test_health_and_props_name_it(adapter: VllmHttpAdapter) -> None:
    """It is a model among others; the context length is the base model's."""
    health, props = adapter.health(), adapter.props()

    assert (health.state, health.message) == (HealthState.HEALTHY, f"serves {MODEL}, {LORA}")
    assert props.models == NAMES
    assert props.max_model_len == CONTEXT


# What it answers.


@pytest.mark.parametrize("prompt", PROMPTS[:2])
def test_answer_goes_by_the_name(adapter: VllmHttpAdapter, vllm: Server, prompt: str) -> None:
    """Each name has an answer of its own, the one that plain JSON gets; no name is the base."""
    plain = {"prompt": prompt, "return_token_ids": True, **GREEDY}
    base, lora = (vllm.answer({"model": name, **plain})["choices"][0] for name in NAMES)

    assert [ids(adapter, name, prompt) for name in (MODEL, LORA, None)] == [
        base["token_ids"],
        lora["token_ids"],
        base["token_ids"],
    ]
    assert base["token_ids"] != lora["token_ids"]
    assert answer(adapter, LORA, prompt=prompt).text == lora["text"]


def test_chat_goes_by_the_name(adapter: VllmHttpAdapter, vllm: Server) -> None:
    """The same for messages."""
    plain = {"messages": CHAT, **GREEDY}
    texts = [answer(adapter, name, messages=CHAT).text for name in NAMES]
    path = "/v1/chat/completions"

    assert texts == [
        vllm.answer({"model": name, **plain}, path)["choices"][0]["message"]["content"]
        for name in NAMES
    ]
    assert texts[0] != texts[1]


def test_sixteen_at_once(adapter: VllmHttpAdapter) -> None:
    """In one batch, half of them on each name, each gets the answer that it has alone."""
    alone = {(name, prompt): ids(adapter, name, prompt) for prompt in PROMPTS for name in NAMES}
    together: dict[tuple[str | None, object], list[int]] = {asked: [] for asked in alone}
    tasks = [
        TaskRequest(model=name, prompt=prompt, return_token_ids=True, **GREEDY)
        for name, prompt in alone
    ]

    at_work: list[int] = []  # how many had begun when each ended
    for task, event in adapter.stream_many(tasks, in_flight=len(tasks)):
        if isinstance(event, Token):
            together[task.model, task.prompt] += event.token_ids or []
        elif isinstance(event, End):
            at_work.append(sum(map(bool, together.values())))

    assert together == alone
    assert all(alone[MODEL, prompt] != alone[LORA, prompt] for prompt in PROMPTS)
    assert at_work == [16] * 16


def test_tokens_are_the_bases(adapter: VllmHttpAdapter) -> None:
    """The other calls take the name as well; an adapter has no tokenizer of its own."""
    base, lora = (adapter.tokenize(PROMPTS[0], model=name) for name in NAMES)

    assert lora == base
    assert adapter.detokenize(lora.tokens, model=LORA) == PROMPTS[0]


def test_unknown_name(adapter: VllmHttpAdapter) -> None:
    """It is refused, in the engine's own words."""
    assert refusal(adapter, "nobody") == (404, "UPSTREAM_NOT_FOUND")


# What is loaded while it runs.


def test_adapters_come_and_go(
    adapter: VllmHttpAdapter, vllm: Server, folders: dict[str, Path]
) -> None:
    """A name can be used, and is listed, from when vLLM has loaded it until it is taken away."""
    before = adapter.models()
    assert refusal(adapter, "twin") == (404, "UPSTREAM_NOT_FOUND")

    with loaded(vllm, "twin", folders["twin"]), loaded(vllm, "other", folders["other"]):
        listed = adapter.models()
        base, lora, twin, other = (ids(adapter, name) for name in (*NAMES, "twin", "other"))

    more = [Model(name, root=str(folders[name]), parent=MODEL) for name in ("twin", "other")]
    assert listed == [*before, *more]
    assert twin == lora
    assert len({tuple(found) for found in (base, lora, other)}) == 3
    assert adapter.models() == before
    assert refusal(adapter, "twin") == (404, "UPSTREAM_NOT_FOUND")


def test_answer_outlives_its_adapter(
    adapter: VllmHttpAdapter, vllm: Server, folders: dict[str, Path]
) -> None:
    """What has begun is finished by the adapter that began it."""
    task = TaskRequest(model="twin", prompt=PROMPTS[0], return_token_ids=True, **GREEDY)

    with loaded(vllm, "twin", folders["twin"]), adapter.submit(task) as stream:
        next(event for event in stream if isinstance(event, Token))
        unload(vllm, "twin")
        still_running = vllm.running()
        whole = stream.result()

    assert still_running == 1
    assert whole.token_ids == ids(adapter, LORA)
    assert ids(adapter, LORA) != ids(adapter, MODEL)
    assert whole.finish_reason == "length"


# What is counted.


def test_metrics_count_every_name(adapter: VllmHttpAdapter, vllm: Server) -> None:
    """The engine's figures are those of all its names together."""
    before = adapter.metrics()

    task = TaskRequest(model=LORA, prompt=PROMPTS[0], **GREEDY)
    with adapter.submit(task) as stream:
        next(event for event in stream if isinstance(event, Token))
        meanwhile = adapter.metrics()
        end = list(stream)[-1]
    ids(adapter, MODEL)

    assert isinstance(end, End)
    assert (meanwhile.running, meanwhile.waiting) == (1, 0)
    assert b'running_lora_adapters="sql"' in vllm.ask("GET", "/metrics")[1]
    assert end.metrics.tokens_generated == GREEDY["max_tokens"]
    assert before.generation_tokens is not None
    assert before.prompt_tokens is not None
    made = before.generation_tokens + 2 * GREEDY["max_tokens"]
    read = before.prompt_tokens + 2 * adapter.tokenize(PROMPTS[0]).count
    wait_until(lambda: adapter.metrics().generation_tokens == made)
    assert adapter.metrics().prompt_tokens == read
