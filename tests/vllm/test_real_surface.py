"""All that a running vLLM takes and tells has a place in our types, or a reason why not."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import requests

from vllm_http import StructuredOutputs, VllmHttpAdapter

from .recipe import prepare
from .server import Server
from .surface import document, place_of_answer_field, place_of_request_field


DOCUMENT = Path(__file__).parents[2] / "docs" / "requests.md"
SCHEMAS = {"completions": "CompletionRequest", "chat": "ChatCompletionRequest"}


@pytest.fixture(scope="module")
def schemas(vllm: Server) -> dict[str, Any]:
    """The server's own description of its models."""
    described = requests.get(f"{vllm.url}/openapi.json", timeout=30).json()
    found: dict[str, Any] = described["components"]["schemas"]
    return found


@pytest.fixture(scope="module")
def answers() -> dict[str, list[str]]:
    """The paths of its answers' fields, from its own code: OpenAPI does not have them."""
    script = Path(__file__).with_name("list_fields.py")
    python = prepare().venv / "bin" / "python"
    run = subprocess.run([python, script], capture_output=True, text=True, timeout=120, check=True)
    found: dict[str, list[str]] = json.loads(run.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("endpoint", SCHEMAS)
def test_every_field_of_a_request_has_a_place(schemas: dict[str, Any], endpoint: str) -> None:
    """A field of a task under the same name, or a reason to leave it to extra_body."""
    names = schemas[SCHEMAS[endpoint]]["properties"]

    assert [name for name in names if place_of_request_field(name) is None] == []


@pytest.mark.parametrize("endpoint", SCHEMAS)
def test_every_field_of_an_answer_has_a_place(answers: dict[str, list[str]], endpoint: str) -> None:
    """In an event, in its metrics, or a reason to leave it out."""
    assert [path for path in answers[endpoint] if place_of_answer_field(path) is None] == []


def test_structured_outputs_are_vllms(schemas: dict[str, Any]) -> None:
    """The same names, but for what vLLM keeps for itself."""
    names = {name for name in schemas["StructuredOutputsParams"]["properties"] if name[0] != "_"}

    assert names == {f.name for f in fields(StructuredOutputs)}


def test_document_is_true(
    schemas: dict[str, Any], answers: dict[str, list[str]], adapter: VllmHttpAdapter
) -> None:
    """docs/requests.md says the same; VLLM_HTTP_TEST_WRITE_DOCS=1 writes it anew."""
    taken = {endpoint: schemas[name]["properties"] for endpoint, name in SCHEMAS.items()}
    text = document(taken, answers, adapter.engine_version())
    if os.environ.get("VLLM_HTTP_TEST_WRITE_DOCS"):
        DOCUMENT.write_text(text)

    assert DOCUMENT.read_text() == text
