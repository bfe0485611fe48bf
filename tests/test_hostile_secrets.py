"""No secret in anything that a program prints or logs, however it fails; none goes elsewhere."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import secret_run
import support
from peers import Peer, read_head
from secret_run import HEADER, KEY, PASSWORD, PROMPT
from support import ONCE, a_task, failure, posts

from vllm_http import (
    EngineUnavailable,
    HealthState,
    InvalidRequest,
    VllmHttpAdapter,
    WorkerError,
)
from vllm_http.testing import FakeEngine, Status


engine = support.engine

SECRETS = [KEY, PASSWORD, HEADER, PROMPT]


def forms(secret: str) -> set[str]:
    """A secret as it is, and in the dresses in which it may be carried."""
    data = secret.encode()
    # Inside of a longer text base64 depends on the position; what is left of the third is enough.
    coded = {base64.b64encode(b"x" * n + data).decode()[4:-4] for n in range(3)}
    return {secret, quote(secret, safe=""), data.hex(), secret[::-1], *coded}


def test_forms_are_found() -> None:
    """The net has no holes: base64 of a user and a password holds one of the forms."""
    pair = base64.b64encode(f"user:{PASSWORD}".encode()).decode()

    assert any(form in pair for form in forms(PASSWORD))


@dataclass
class Printed:
    """What a run left: its outputs and its log, and how it ended."""

    output: str
    log: str
    status: int

    @property
    def hits(self) -> list[str]:
        """The lines with a secret in them."""
        lines = [*self.output.splitlines(), *self.log.splitlines()]
        wanted = set().union(*map(forms, SECRETS))
        return [line for line in lines if any(form in line for form in wanted)]


def run(folder: Path, shown: str) -> Printed:
    """Run the program that fails in every way."""
    log = folder / "log"
    command = [sys.executable, "-X", "dev", secret_run.__file__, str(log), shown]
    path = os.pathsep.join([str(Path(secret_run.__file__).parent), *filter(None, sys.path)])
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )
    return Printed(done.stdout.decode("utf-8", "replace"), log.read_text(), done.returncode)


def test_a_run_prints_no_secret(tmp_path: Path) -> None:
    """Outputs, tracebacks, reprs, pickles, events and the log of all libraries at DEBUG."""
    printed = run(tmp_path, "nothing")

    assert printed.hits == []
    # It came to its end, an unhandled error, and by all the ways.
    assert printed.status == 1
    assert "\nvllm_http.InvalidRequest: engine answered 401" in printed.output
    assert "Exception in thread" in printed.output
    assert "Current thread" in printed.output
    for told in ("401", "407", "redirect", "WRONG_VERSION_NUMBER", "rejected", "UTF-8", "cut"):
        assert told in printed.output
    for logged in ("DEBUG:urllib3", "WARNING:vllm_http", "ERROR:application"):
        assert logged in printed.log


@pytest.mark.parametrize("shown", ["wire", "task"])
def test_a_run_that_is_asked_for_more_prints_no_secret(tmp_path: Path, shown: str) -> None:
    """Nor http.client's debug output, and the repr of a task."""
    printed = run(tmp_path, shown)

    assert printed.status == 1
    assert printed.hits == []


# What goes elsewhere.


@pytest.fixture
def elsewhere() -> Iterator[Peer]:
    """A server that nobody should come to."""
    with Peer(lambda sock: None) as peer:
        yield peer


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
def test_no_connection_follows_a_redirect(engine: FakeEngine, elsewhere: Peer, status: int) -> None:
    """Not only no credential: nobody comes at all, from a task or from a small call."""
    location = {"location": elsewhere.url() + "/v1"}
    engine.script(Status(status, headers=location))
    for path in ("/health", "/v1/models", "/metrics", "/version"):
        engine.override(path, status, b"", location)
    with VllmHttpAdapter(engine.url, api_key=KEY, headers={"X-Token": HEADER}) as adapter:
        error, _ = failure(adapter.submit(a_task()))
        state = adapter.health().state
        for call in (adapter.models, adapter.metrics, adapter.props):
            with pytest.raises(WorkerError):
                call()
        version = adapter.engine_version()

    assert (type(error), error.status) == (EngineUnavailable, status)
    assert (state, version) == (HealthState.DEGRADED, "unknown")
    assert elsewhere.accepted == 0


@pytest.mark.parametrize(
    "header", ["Refresh: 0; url={}", "Link: <{}>; rel=preload", "Alt-Svc: h2={}"]
)
def test_no_connection_follows_a_hint(engine: FakeEngine, elsewhere: Peer, header: str) -> None:
    """Nor is any other header obeyed."""
    name, _, value = header.format(elsewhere.url()).partition(": ")
    engine.script(Status(503, headers={name: value}))
    with VllmHttpAdapter(engine.url, api_key=KEY, retry=ONCE) as adapter:
        failure(adapter.submit(a_task()))

    assert elsewhere.accepted == 0


# What comes from elsewhere.


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials for 127.0.0.1, where requests looks: NETRC, and the home's two files."""
    for name in ("netrc", ".netrc", "_netrc"):
        file = tmp_path / name
        file.write_text(f"machine 127.0.0.1 login user password {PASSWORD}\n")
        file.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.mark.usefixtures("netrc")
@pytest.mark.parametrize("variable", ["NETRC", "HOME"])
@pytest.mark.parametrize("key", [None, KEY])
def test_netrc_is_ignored(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, variable: str, key: str | None
) -> None:
    """No request, of a task or a small call, has its password; the key is all that is sent."""
    if variable == "HOME":
        monkeypatch.delenv("NETRC")
    with VllmHttpAdapter(engine.url, api_key=key) as adapter:
        adapter.submit(a_task()).result(timeout=support.SOON)
        adapter.health()
        adapter.metrics()

    sent = [request.headers_named("authorization") for request in engine.requests]
    assert len(sent) >= 4
    assert all(values == ([f"Bearer {key}"] if key else []) for values in sent)


@pytest.mark.usefixtures("netrc")
def test_netrc_is_ignored_by_a_redirect(engine: FakeEngine) -> None:
    """requests' Session would look again for each new place."""
    engine.script(Status(307, headers={"location": engine.url + "/elsewhere"}))
    with VllmHttpAdapter(engine.url, retry=ONCE) as adapter:
        failure(adapter.submit(a_task()))

    assert [post.headers_named("authorization") for post in posts(engine)] == [[]]


def repeated(url: str) -> str:
    """What a task's error says of a server that repeats what it should not."""
    with VllmHttpAdapter(url, trust_env=True, retry=ONCE) as adapter:
        error, _ = failure(adapter.submit(a_task()))
    assert error.status in (401, 407)
    return error.message


def refusing(status: bytes) -> Peer:
    """A server that refuses, and repeats a password and what it was sent."""

    def talk(sock: object) -> None:
        page = PASSWORD.encode() + b" " + read_head(sock)  # type: ignore[arg-type]
        size = b"content-length: %d\r\nconnection: close\r\n\r\n" % len(page)
        sock.sendall(b"HTTP/1.1 " + status + b" No\r\n" + size + page)  # type: ignore[attr-defined]

    return Peer(talk)


@pytest.fixture
def _no_exceptions(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without no_proxy."""
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)


@pytest.mark.usefixtures("_no_exceptions")
@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy"])
def test_environments_proxy_password_is_a_secret(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """A trusted environment's password is one, as that of an explicit proxy is."""
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.setenv("no_proxy", "localhost,.example.org")  # no URL, and not taken for one
    with refusing(b"407") as peer:
        monkeypatch.setenv(variable, f"http://user:{PASSWORD}@127.0.0.1:{peer.port}")
        said = repeated("http://vllm.invalid")

    assert not [form for form in forms(PASSWORD) if form in said]


@pytest.mark.usefixtures("_no_exceptions")
def test_environments_proxy_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused at once and unseen, like an explicit one; where it is not for us it may be."""
    monkeypatch.setenv("http_proxy", f"http://us\u20acr:{PASSWORD}@127.0.0.1:1")
    with pytest.raises(InvalidRequest, match=r"^proxies") as caught:
        VllmHttpAdapter("http://vllm.invalid", trust_env=True)

    assert PASSWORD not in repr(caught.value)
    for trusted, url in ((True, "https://vllm.invalid"), (False, "http://vllm.invalid")):
        monkeypatch.delenv("https_proxy", raising=False)
        VllmHttpAdapter(url, trust_env=trusted).close()


@pytest.mark.usefixtures("netrc")
def test_netrc_password_is_a_secret() -> None:
    """So is a trusted .netrc's."""
    with refusing(b"401") as peer:
        said = repeated(peer.url())

    assert not [form for form in forms(PASSWORD) if form in said]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 finds no password in it")
@pytest.mark.usefixtures("netrc")
def test_netrc_that_cannot_be_sent(tmp_path: Path) -> None:
    """A password beyond Latin-1 is refused when the adapter is made, and not shown."""
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login user password {PASSWORD}\u20ac\n")
    with pytest.raises(InvalidRequest, match="netrc") as caught:
        VllmHttpAdapter("http://127.0.0.1:1", trust_env=True)

    assert PASSWORD not in repr(caught.value)
    assert caught.value.__cause__ is None


def test_password_of_a_basic_header_is_a_secret() -> None:
    """An engine that quotes it decoded shows it no more than one that quotes the header."""
    pair = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
    with (
        refusing(b"401") as peer,
        VllmHttpAdapter(
            peer.url(), headers={"Authorization": f"Basic {pair}"}, retry=ONCE
        ) as adapter,
    ):
        error, _ = failure(adapter.submit(a_task()))

    assert "****" in error.message
    assert not [form for form in forms(PASSWORD) if form in error.message]
