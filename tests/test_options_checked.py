"""Options whose wrong value would be taken for another one without a word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vllm_http import InvalidRequest, TaskRequest, VllmHttpAdapter
from vllm_http.testing import FakeEngine


URL = "https://127.0.0.1:1"


class Pretender:
    """Is false, as an empty value of somebody's own."""

    def __bool__(self) -> bool:
        return False


NEITHER: list[Any] = [
    None,
    0,
    1,
    0.0,
    "",
    b"",
    [],
    (),
    {},
    "no/such/file",
    "a\0b",
    "\ud800",
    Pretender(),
]


@pytest.mark.parametrize("verify", NEITHER, ids=repr)
def test_verify_is_true_false_or_a_path(verify: Any) -> None:
    """What is merely false would turn the check off; it is refused by name instead."""
    with pytest.raises(InvalidRequest, match=r"^verify: "):
        VllmHttpAdapter(URL, verify=verify)


def test_verify_takes_a_path_of_any_kind(tmp_path: Path) -> None:
    """Text or a `pathlib.Path`."""
    bundle = tmp_path / "ca.pem"
    bundle.touch()

    for path in (bundle, str(bundle)):
        VllmHttpAdapter(URL, verify=path).close()


@pytest.mark.parametrize(
    "cert", [False, True, 0, (), ("a",), ("a", "b", "c"), b"", "", ["a", "b"], ("", "")], ids=repr
)
def test_cert_is_a_path_or_a_pair(cert: Any) -> None:
    """Anything else would send no certificate, or fail in the midst of a task."""
    with pytest.raises(InvalidRequest, match=r"^cert: "):
        VllmHttpAdapter(URL, cert=cert)


@pytest.mark.parametrize("value", ["false", "", 0, 1, None, [], b"0"], ids=repr)
def test_trust_env_is_true_or_false(value: Any) -> None:
    """ "false" is true, and would send a password out of ~/.netrc."""
    with pytest.raises(InvalidRequest, match=r"^trust_env: .* is neither True nor False"):
        VllmHttpAdapter(URL, trust_env=value)


def test_a_bundle_that_the_environment_names_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found when the adapter is made, as its own argument is."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/bundle.pem")

    with pytest.raises(InvalidRequest, match=r"REQUESTS_CA_BUNDLE.*no such file"):
        VllmHttpAdapter(URL, trust_env=True)


CALLS: dict[str, Callable[[VllmHttpAdapter, Any], object]] = {
    "ordered": lambda adapter, value: adapter.map([TaskRequest(prompt="Hi")], ordered=value),
    "add_special_tokens": lambda adapter, value: adapter.tokenize("Hi", add_special_tokens=value),
    "return_token_strs": lambda adapter, value: adapter.tokenize("Hi", return_token_strs=value),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_calls_own_switches_are_true_or_false(name: str) -> None:
    """At the call, before anything is sent."""
    with FakeEngine() as engine, VllmHttpAdapter(engine.url) as adapter:
        with pytest.raises(InvalidRequest, match=rf"^{name}: 'false' is neither True nor False"):
            CALLS[name](adapter, "false")

        assert engine.requests == []
