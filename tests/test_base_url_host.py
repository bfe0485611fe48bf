"""The host of a base URL: whoever reads the URL sees the same one."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.util import parse_url

from vllm_http import InvalidRequest, VllmHttpAdapter
from vllm_http._request import parse_base_url


@pytest.mark.parametrize(
    "host",
    [
        *("a\\b", "a\\", "\\\\a", "evil.com\\.good.com", "good.com\\evil.com:80"),
        *("*", "*.a", "a.*", ".x", ".", "..", "a..b", "a...", "-", "a b", "a,b", "a;b", "a|b"),
        *("[v1.a]", "[vF.x:y]", "[1.2.3.4]", "[]", "[:::]", "[::1", "::1", "[::1]a", "[::1%25]"),
        *("%61", "a%2eb", "a%00", "a<b", "a^b", "a`b", "a{b}", 'a"b', "a'b", "$a", "a!", "a(b)"),
        *("a&b", "a=b", "a+b", "a~b", "a" * 64, "a." * 130 + "a", "1.2.3.4:+80", "a:80:90"),
        *("\u2024a", "a\u3002\u3002b", "\u2100", "a\u00adb"),
    ],
    ids=ascii,
)
def test_an_odd_host_is_refused(host: str) -> None:
    """When the adapter is made, and named."""
    with pytest.raises(InvalidRequest, match=r"^base_url: "):
        VllmHttpAdapter(f"http://{host}")


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "a", "a-b.c", "vllm_0.ns.svc", "example.com.", "EXAMPLE.com", "1.2.3.4"),
        *(
            "[::1]",
            "[fe80::1%25eth0]",
            "[::ffff:1.2.3.4]",
            "xn--bcher-kva.de",
            "b\u00fccher.de",
        ),
    ],
)
def test_a_host_that_is_none_too_odd(host: str) -> None:
    """Names of containers have underscores; a name may have other letters, an address a zone."""
    VllmHttpAdapter(f"http://{host}:8000/v1").close()


@pytest.mark.parametrize("host", ["a\\b", "*", ".x", "[v1.a]", "%61"])
def test_an_odd_host_of_a_proxy_is_refused(host: str) -> None:
    """It gets the key as well, where the engine is reached without TLS."""
    with pytest.raises(InvalidRequest, match=r"^proxies\['http'\]: "):
        VllmHttpAdapter("http://a", proxies={"http": f"http://user:password@{host}:3128"})


@given(host=st.text(st.sampled_from("ab.-_*\\/:[]%@#?v1\u00fc,;&=~ "), min_size=1, max_size=8))
def test_two_readers_see_one_host(host: str) -> None:
    """Python's own reader of URLs, which checks it, and urllib3's, which connects."""
    try:
        url = parse_base_url(f"http://{host}")
    except InvalidRequest:
        return

    if url.isascii():
        assert urlsplit(url).hostname == (parse_url(url).host or "").strip("[]")
