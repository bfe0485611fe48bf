"""AdapterRegistry.from_env: what the environment binds."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator

import pytest

from vllm_http import AdapterRegistry, InvalidRequest, TaskRequest, VllmHttpAdapter
from vllm_http.testing import FakeEngine


URL = "http://127.0.0.1:1"


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    """An engine that demands a key."""
    with FakeEngine(api_key="s3cr3t-token-xyz") as engine:
        yield engine


@pytest.mark.parametrize(
    ("environ", "pool_id", "replica_id"),
    [
        ({}, "default", "r0"),
        ({"ORCHD_VLLM_POOL": "p"}, "p", "r0"),
        ({"ORCHD_VLLM_REPLICA": "r7"}, "default", "r7"),
        ({"ORCHD_VLLM_POOL": "p", "ORCHD_VLLM_REPLICA": "r7"}, "p", "r7"),
        ({"ORCHD_VLLM_POOL": "", "ORCHD_VLLM_REPLICA": ""}, "default", "r0"),
        ({"ORCHD_VLLM_POOL": "  ", "ORCHD_VLLM_REPLICA": "\t"}, "default", "r0"),
    ],
)
def test_a_url_binds_one_adapter(environ: dict[str, str], pool_id: str, replica_id: str) -> None:
    """Pool and replica have the seed's defaults, and blank is unset."""
    with AdapterRegistry.from_env({"ORCHD_VLLM_URL": URL, **environ}) as registry:
        assert isinstance(registry.get(pool_id, replica_id), VllmHttpAdapter)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"ORCHD_VLLM_URL": ""},
        {"ORCHD_VLLM_URL": " \t"},
        {"ORCHD_VLLM_POOL": "p", "ORCHD_VLLM_REPLICA": "r7"},
        {"ORCHD_TGI_URL": URL, "VLLM_URL": URL},
    ],
)
def test_no_url_binds_nothing(environ: dict[str, str]) -> None:
    """A program that is deployed without an engine starts all the same."""
    with AdapterRegistry.from_env(environ) as registry:
        for pool_id in ("default", "p"):
            with pytest.raises(InvalidRequest, match=pool_id):
                registry.health(pool_id)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://localhost", "http://user:pw@localhost"])
def test_a_bad_url_is_refused(url: str) -> None:
    """As by the adapter, whose error it is."""
    with pytest.raises(InvalidRequest, match="base_url"):
        AdapterRegistry.from_env({"ORCHD_VLLM_URL": url})


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read when `from_env` is called, not before."""
    monkeypatch.setenv("ORCHD_VLLM_URL", URL)
    monkeypatch.setenv("ORCHD_VLLM_POOL", "p")
    monkeypatch.setenv("ORCHD_VLLM_REPLICA", "r7")

    with AdapterRegistry.from_env() as registry:
        assert isinstance(registry.get("p", "r7"), VllmHttpAdapter)


def test_the_environment_is_not_shown_in_the_signature() -> None:
    """`help()` and generated documentation would print every secret in it."""
    assert "PATH" not in str(inspect.signature(AdapterRegistry.from_env))


def test_the_adapter_reads_no_environment(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its arguments alone count, whatever the host sets."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("VLLM_API_KEY", "wrong")
    monkeypatch.setenv("ORCHD_VLLM_URL", "http://127.0.0.1:1")

    with VllmHttpAdapter(engine.url, api_key="s3cr3t-token-xyz") as adapter:
        task = TaskRequest(prompt="Hello", max_tokens=1)
        assert adapter.submit(task).result(10).finish_reason == "length"


def test_options_go_to_the_adapter_and_names_to_its_logs(
    engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """The key is used, and the log record says which replica it was."""
    caplog.set_level(logging.INFO, "vllm_http")
    environ = {"ORCHD_VLLM_URL": engine.url, "ORCHD_VLLM_POOL": "p"}
    with AdapterRegistry.from_env(environ, api_key="s3cr3t-token-xyz") as registry:
        task = TaskRequest(prompt="Hello", max_tokens=1)
        assert registry.submit("p", task).result(10).finish_reason == "length"

    (record,) = [record for record in caplog.records if record.name == "vllm_http"]
    assert (vars(record)["pool_id"], vars(record)["replica_id"]) == ("p", "r0")
