"""No secret comes out, in whatever dress; and what is no secret comes out as it was."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import REFUSALS, STREAMS, capture

from vllm_http._redact import MAX_TEXT, Redactor, fingerprint


KEY = "s3cr3t-token-xyz"
MASK = "****92e442"

# Long enough not to be part of a fingerprint, and not made of the mask.
secrets = st.text(st.characters(exclude_characters="*"), min_size=7, max_size=30)
surroundings = st.lists(
    st.text(max_size=10)
    | st.sampled_from(["Bearer ", "token=", '"', "'", "http://", "@", "sk-", "****", ": ", "\\"])
).map("".join)


@pytest.mark.parametrize(("secret", "fp6"), [(KEY, "92e442"), ("key-1234-abcdef", "43764d")])
def test_fingerprint_is_the_one_others_compute(secret: str, fp6: str) -> None:
    """Two programs, and two people, see the same six digits for the same key."""
    assert fingerprint(secret) == fp6


# What looks like a secret.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"Authorization: Bearer {KEY}", f"Authorization: Bearer {MASK}"),
        (f"authorization:bearer {KEY}", f"authorization:bearer {MASK}"),
        (f"Authorization={KEY}, x", f"Authorization={MASK}, x"),
        (f"Proxy-Authorization: Basic {KEY}", f"Proxy-Authorization: Basic {MASK}"),
        (f"{{'Authorization': 'Bearer {KEY}'}}", f"{{'Authorization': 'Bearer {MASK}'}}"),
        (f'{{"Authorization":"Bearer {KEY}"}}', f'{{"Authorization":"Bearer {MASK}"}}'),
        (f'"{{\\"token\\": \\"{KEY}\\"}}"', f'"{{\\"token\\": \\"{MASK}\\"}}"'),
        ("X-API-Key: key-1234-abcdef", "X-API-Key: ****43764d"),
        (f"the key was Bearer {KEY}.", f"the key was Bearer ****{fingerprint(KEY + '.')}"),
        (f"(Bearer {KEY})", f"(Bearer {MASK})"),
        (f'{{"api_key":"{KEY}"}}', f'{{"api_key":"{MASK}"}}'),
        (f"{{'api-key': '{KEY}'}}", f"{{'api-key': '{MASK}'}}"),
        (f"token={KEY}&x=1", f"token={MASK}&x=1"),
        (f"access_token: {KEY}; x", f"access_token: {MASK}; x"),
        (f"password={KEY}", f"password={MASK}"),
        (f"http://{KEY}@host/", f"http://{MASK}@host/"),
        (f"socks5h://{KEY}@host:1", f"socks5h://{MASK}@host:1"),
        (
            f"https://b/a.png?a=1&X-Amz-Signature={KEY}",
            f"https://b/a.png?a=1&X-Amz-Signature={MASK}",
        ),
        (f"(https://b/a.png?sv=1&sig={KEY})", f"(https://b/a.png?sv=1&sig={MASK})"),
        (f"?X-Goog-Credential={KEY}&b=1", f"?X-Goog-Credential={MASK}&b=1"),
        (f"?x-amz-security-token={KEY}&b", f"?x-amz-security-token={MASK}&b"),
    ],
)
def test_a_secret_becomes_its_fingerprint(text: str, expected: str) -> None:
    """The text around a secret stays, so that one sees where it was."""
    assert Redactor()(text) == expected


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Authorization: Bearer abc+def/ghi==", "+def/ghi=="),
        ("token=abc+def/ghi==", "+def/ghi=="),
        ("Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("Authorization: abc123", "abc123"),
        ("api_key=abc", "abc"),
        ("Bearer abc", "abc"),
        ("http://user:pass@host/", "pass"),
        ("cannot connect to proxy https://user:p%40ss@host:3128", "p%40ss"),
        ("the key sk-abcDEF123 is wrong", "abcDEF123"),
        ("the key sk-proj-abc_DEF-123 is wrong", "DEF-123"),
        ("VLLM_API_KEY=abcdefgh", "abcdefgh"),
        ("hf_token: abcdefgh", "abcdefgh"),
        ("client_secret=abcdefgh", "abcdefgh"),
        ("http://user:p@ss@host/", "ss@host"),
    ],
)
def test_no_part_of_a_secret_is_left(text: str, secret: str) -> None:
    """Signs inside it, its length, its scheme and what its name begins with save no secret."""
    assert secret not in Redactor()(text)


def test_redacting_twice_changes_nothing() -> None:
    """A mask is no secret: its digits stay those of what it hides."""
    text = f"Authorization: Bearer {KEY}, token={KEY}, http://u:{KEY}@host, sk-{KEY}"
    once = Redactor()(text)

    assert Redactor()(once) == once


# What is known to be a secret.


@pytest.mark.parametrize(
    "text", ["{}", "no such key: {}", "xxx{}xxx", "a_{}_b", '{{"input":"{}"}}', "{}{}", "Bearer {}"]
)
@pytest.mark.parametrize("secret", [KEY, "a b c d", "grün-是-key", "x.*(y)\\d"])
def test_a_known_secret_is_found_anywhere(text: str, secret: str) -> None:
    """The adapter's own key is masked in the middle of a word, too."""
    actual = Redactor([secret])(text.format(secret, secret))

    assert secret not in actual
    assert f"****{fingerprint(secret)}" in actual


SENTENCE = "max_tokens must be at least 1, got x-max: 0 (x), see 'x' or /x/max"


@pytest.mark.parametrize("secret", ["x", "max", "token", "must", "k!7", "0", "EMPTY"])
def test_a_short_secret_is_masked_as_a_whole_word(secret: str) -> None:
    """Where it stands alone it is not shown; inside of words it is no secret, and text is text."""
    mask = f"****{fingerprint(secret)}"

    for template in ("{}", "({})", "key={};", '"{}"', "no such key: {}.", "Bearer {}", "/{}/"):
        assert Redactor([secret])(template.format(secret)) == template.format(mask)
    for word in (f"max_{secret}s", f"a{secret}", f"{secret}1", f"x-{secret}-key", f"ü{secret}"):
        assert Redactor([secret])(f"<{word}>") == f"<{word}>"


def test_a_message_stays_readable_beside_a_short_key() -> None:
    """What vLLM says of an argument is not riddled with masks for a key such as "x"."""
    mask = f"****{fingerprint('x')}"
    expected = f"max_tokens must be at least 1, got x-max: 0 ({mask}), see '{mask}' or /{mask}/max"

    assert Redactor(["x"])(SENTENCE) == expected


@given(secret=secrets, before=surroundings, after=surroundings)
def test_a_known_secret_never_comes_out(secret: str, before: str, after: str) -> None:
    """Whatever the text around it is."""
    assert secret not in Redactor([secret])(before + secret + after)


@given(secret=secrets, tail=st.text(min_size=1, max_size=5), text=surroundings)
def test_a_secret_inside_another_does_not_uncover_it(secret: str, tail: str, text: str) -> None:
    """Of two secrets the longer one is masked whole."""
    longer = secret + tail
    redact = Redactor([secret, longer])

    assert redact(longer) == f"****{fingerprint(longer)}"
    assert secret not in redact(text + longer + secret)


def test_an_empty_secret_is_none() -> None:
    """An adapter without a key masks nothing that it does not recognise."""
    assert Redactor([""])("hello") == "hello"


# What is no secret.


@pytest.mark.parametrize("name", REFUSALS)
def test_a_recorded_refusal_comes_through(name: str) -> None:
    """Nothing that a real vLLM says in a refusal is taken for a secret."""
    text = capture(name).body.decode()

    assert Redactor()(text) == text


@pytest.mark.parametrize("name", STREAMS)
def test_a_recorded_error_event_comes_through(name: str) -> None:
    """Nor is what it says inside a stream; its line ends are spaces."""
    errors = [event["error"]["message"] for event in capture(name).events if "error" in event]

    assert [Redactor()(error) for error in errors] == [e.replace("\n", " ") for e in errors]


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens=5 is too large: tokens: 7",
        "the task-scheduler and the risk-averse disk-cache",
        "the key is wrong",
        "see https://docs.example.org/errors?page=3 or mail admin@example.org",
        "password required",
        "",
    ],
)
def test_ordinary_words_come_through(text: str) -> None:
    """Words that only resemble a secret's name stay."""
    assert Redactor()(text) == text


# What is no line.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 validation error:\n  {'msg': 'no'}", "1 validation error:   {'msg': 'no'}"),
        ("no\r\n2026-01-01 INFO root logged in", "no  2026-01-01 INFO root logged in"),
        ("a\tb\vc\fd\x1ce\x85f\u2028g\u2029h\u00a0i", "a b c d e f g h i"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("\0\x7f\x9b\ufeff\u202e\ud800\U000e0001", r"\x00\x7f\x9b\ufeff\u202e\ud800\U000e0001"),
        ("grün ist 是 🌍 C:\\new", "grün ist 是 🌍 C:\\new"),
    ],
)
def test_text_is_one_line(text: str, expected: str) -> None:
    """An engine's words forge no line of a log and move no cursor; letters stay as they are."""
    assert Redactor()(text) == expected


@given(text=st.text(st.characters() | st.sampled_from("\r\n\0\x1b\u2028")), secret=secrets)
def test_any_text_is_one_line(text: str, secret: str) -> None:
    """Whatever it is, any log and any terminal takes it."""
    said = Redactor([secret])(text + secret)

    assert said.isprintable()
    assert said.encode()


def test_secret_with_a_line_end_is_found() -> None:
    """It is looked for before the text becomes a line."""
    secret = "s3cr\n3t"

    assert Redactor([secret])(f"<{secret}>") == f"<****{fingerprint(secret)}>"


# How much.


def test_text_is_bounded_after_it_was_redacted() -> None:
    """A cut never leaves half a secret that is no longer recognised."""
    text = "x" * (MAX_TEXT - 5) + KEY

    assert Redactor([KEY])(text) == "x" * (MAX_TEXT - 5) + MASK[:5] + "..."
    assert Redactor()("x" * MAX_TEXT) == "x" * MAX_TEXT


@pytest.mark.parametrize(
    "piece", ["a-", "a.", "token ", "http://", "api_key", "bearer ", '"', "\n"]
)
def test_long_text_is_redacted_in_a_moment(piece: str) -> None:
    """No page that a gateway sends keeps a worker busy."""
    text = piece * (16_384 // len(piece))
    start = time.process_time()

    Redactor([KEY])(text)

    assert time.process_time() - start < 0.5
