"""The adapter that this one is the Python form of: its usage, and its mapping onto the wire."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from vllm_http import (
    AdapterRegistry,
    End,
    Error,
    HealthState,
    Started,
    TaskRequest,
    Token,
    VllmHttpAdapter,
)
from vllm_http.testing import Done, Event, FakeEngine, Step


MODEL = "meta-llama/Llama-3.1-8B-Instruct"
MAPPING = {
    "model": MODEL,
    "prompt": "Hello, world!",
    "max_tokens": 100,
    "temperature": 0.7,
    "seed": 42,
    "stream": True,
}
ANSWER: list[Step] = [
    Event({"choices": [{"text": "Hello", "index": 0}]}),
    Event({"choices": [{"text": " there", "index": 0}]}),
    Event({"choices": [{"text": "!", "index": 0, "finish_reason": "stop"}]}),
    Done(),
]


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    """A running engine that serves the model of the mapping."""
    with FakeEngine(MODEL) as engine:
        yield engine


@pytest.fixture
def adapter(engine: FakeEngine) -> Iterator[VllmHttpAdapter]:
    """An adapter that knows the version already: a first content that is quicker wins."""
    with VllmHttpAdapter(engine.url) as adapter:
        assert adapter.engine_version() == "0.32.0"
        yield adapter


@pytest.fixture
def task() -> TaskRequest:
    """The task of the mapping."""
    return TaskRequest(
        prompt="Hello, world!", model=MODEL, max_tokens=100, temperature=0.7, seed=42
    )


def test_the_first_page_works(
    engine: FakeEngine,
    adapter: VllmHttpAdapter,
    task: TaskRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The loop that everyone copies prints the answer."""
    engine.script(*ANSWER)
    with adapter.submit(task) as stream:
        for event in stream:
            match event:
                case Started(engine_version=version):
                    print("started on", version)
                case Token(text=text):
                    print(text, end="", flush=True)
                case End(metrics=metrics):
                    print("\ndone:", metrics.tokens_generated, "tokens")
                case Error(error=error):
                    print("failed:", error)

    assert capsys.readouterr().out == "started on 0.32.0\nHello there!\ndone: 3 tokens\n"


def test_the_mapping_onto_the_wire(engine: FakeEngine, task: TaskRequest) -> None:
    """Six keys to /v1/completions, and the option that makes vLLM count for us."""
    with VllmHttpAdapter(engine.url) as adapter:
        adapter.submit(task).result(10)

    (request,) = [one for one in engine.requests if one.method == "POST"]
    assert request.path == "/v1/completions"
    assert request.json == {**MAPPING, "stream_options": {"include_usage": True}}
    assert request.header("Content-Type") == "application/json"
    assert request.header("Accept") == "text/event-stream"


def test_what_is_not_set_is_not_sent(engine: FakeEngine) -> None:
    """The engine's own defaults hold; no seed and no temperature is made up."""
    with VllmHttpAdapter(engine.url) as adapter:
        adapter.submit(TaskRequest(prompt="Hello, world!", session_id="s1")).result(10)

    (request,) = [one for one in engine.requests if one.method == "POST"]
    assert request.json == {
        "prompt": "Hello, world!",
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert b"s1" not in request.body
    assert "s1" not in [value for _, value in request.headers]


def test_a_chat_goes_to_its_own_path(engine: FakeEngine) -> None:
    """The messages take the prompt's place."""
    messages = [{"role": "user", "content": "Hello, world!"}]
    with VllmHttpAdapter(engine.url) as adapter:
        adapter.submit(TaskRequest(messages=messages, model=MODEL, max_tokens=5)).result(10)

    (request,) = [one for one in engine.requests if one.method == "POST"]
    assert request.path == "/v1/chat/completions"
    assert request.json == {
        "model": MODEL,
        "messages": messages,
        "max_tokens": 5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_the_same_task_gives_the_same_bytes_and_the_same_tokens(
    engine: FakeEngine, task: TaskRequest
) -> None:
    """A seed is worth something only if the request does not change under it."""
    with VllmHttpAdapter(engine.url) as adapter:
        texts = {adapter.submit(task).result(10).text for _ in range(3)}

    bodies = {one.body for one in engine.requests if one.method == "POST"}
    assert (len(bodies), len(texts)) == (1, 1)


def test_the_answer_of_the_seed_becomes_events(
    engine: FakeEngine, adapter: VllmHttpAdapter, task: TaskRequest
) -> None:
    """started, token, token, token, end; indices 0, 1, 2 of our own."""
    engine.script(*ANSWER)
    started, *tokens, end = adapter.submit(task)

    assert isinstance(started, Started)
    assert started.engine_version == "0.32.0"
    assert [Token("Hello", 0), Token(" there", 1), Token("!", 2)] == tokens
    assert isinstance(end, End)
    assert (end.finish_reason, end.metrics.tokens_generated) == ("stop", 3)


def test_the_receiver_hands_out_the_same_events(engine: FakeEngine, task: TaskRequest) -> None:
    """The seed's `stream.receiver` is a queue here."""
    engine.script(*ANSWER)
    with VllmHttpAdapter(engine.url) as adapter, adapter.submit(task) as stream:
        kinds = [type(stream.receiver.get(timeout=10)) for _ in range(5)]

    assert [Started, Token, Token, Token, End] == kinds


def test_the_other_calls_of_the_seed(engine: FakeEngine) -> None:
    """health, props, engine_version, and a cancel of what is not there."""
    with VllmHttpAdapter(engine.url) as adapter:
        assert adapter.health().state is HealthState.HEALTHY
        props = adapter.props()
        assert adapter.engine_version() == "0.32.0"
        adapter.cancel("job-123")

    assert (
        props.engine_type,
        props.engine_version,
        props.supports_streaming,
        props.supports_sessions,
        props.max_batch_size,
    ) == ("vllm", "0.32.0", True, False, None)
    assert props.models == [MODEL]


def test_the_environment_of_the_seed(engine: FakeEngine, task: TaskRequest) -> None:
    """The three variables bind it for an orchestrator."""
    environ = {"ORCHD_VLLM_URL": engine.url}
    with AdapterRegistry.from_env(environ) as registry:
        assert registry.submit("default", task).result(10).metrics is not None
        assert registry.health("default")["r0"].state is HealthState.HEALTHY
