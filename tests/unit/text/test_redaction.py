"""The redactor: the values that it removes from texts, and the names that announce a credential."""

import base64
import json
from urllib.parse import quote

import pytest

from agent_runtime.text.redaction import RedactedStream, Redactor, names_credential, without_credentials


@pytest.mark.parametrize(
    "name",
    [
        *("GITHUB_TOKEN", "apiKey", "APIKEY", "X-Api-Key", "Authorization", "proxy-authorization", "PGPASSWORD"),
        *("MYSQL_PWD", "AWS_SECRET_ACCESS_KEY", "GITHUB_PAT", "Set-Cookie", "SECRET_1", "clientSecret", "SENTRY_DSN"),
    ],
)
def test_a_name_of_a_credential_is_known_for_one(name: str) -> None:
    assert names_credential(name)


@pytest.mark.parametrize(
    "name", ["", "PATH", "tokens", "input_tokens", "token_count", "AUTHOR", "compass", "A_URL", "1"]
)
def test_another_name_is_not(name: str) -> None:
    assert not names_credential(name)


def test_a_secret_is_redacted_however_it_is_quoted() -> None:
    key = 'a "b" \\ c\u00e9/d'
    redactor = Redactor([key])
    for quoted in (key, json.dumps(key), json.dumps(key, ensure_ascii=False), repr(key), quote(key, safe="")):
        assert redactor.redact(quoted).strip("\"'") == "[redacted]"
        assert redactor.redact_message(quoted).strip("\"'") == "[redacted]"


def test_a_number_or_a_switch_that_the_registry_expands_is_no_secret() -> None:
    redactor = Redactor(["0", "1", "on"])
    assert redactor.redact_message("started on http://127.0.0.1:8000") == "started on http://127.0.0.1:8000"


def test_a_short_secret_is_taken_out_of_messages_only_and_only_where_it_stands_alone() -> None:
    redactor = Redactor(["ab1"])
    assert redactor.redact("ab1") == "ab1"
    assert redactor.redact_message("ab1 cab1 (ab1)") == "[redacted] cab1 ([redacted])"


def test_the_longer_of_two_secrets_is_redacted_whole() -> None:
    assert Redactor(["hunter22", "hunter22-and-more"]).redact("hunter22-and-more") == "[redacted]"


def test_what_is_redacted_is_not_redacted_again() -> None:
    assert Redactor(["password1", "redacted"]).redact("password1") == "[redacted]"


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("API_TOKEN", "abcdefghijkl", "abcdefghijkl"),
        ("Authorization", "Bearer abcdefghijkl", "abcdefghijkl"),
        ("Cookie", "theme=dark; session=abcdefghijkl", "abcdefghijkl"),
        ("DATABASE_URL", "postgres://me:abcdefghijkl@db/x", "abcdefghijkl"),
    ],
)
def test_a_long_literal_credential_is_taken_out_of_data_too(name: str, value: str, secret: str) -> None:
    redactor = Redactor()
    redactor.remember_literal(name, value)
    assert redactor.redact(f"it is {secret}!") == "it is [redacted]!"
    assert secret not in redactor.redact(f"it is {value}!")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_TOKEN", "abcdefghijk"),
        ("API_TOKEN", "a sentence of words"),
        ("GITHUB_PAT", "abcdefghijkl"),
        ("PASSWORD", "none"),
        ("DATABASE_URL", "postgres://me:postgres@db/x"),
    ],
)
def test_a_literal_that_may_be_an_ordinary_word_is_taken_out_of_messages_only(name: str, value: str) -> None:
    redactor = Redactor()
    redactor.remember_literal(name, value)
    assert redactor.redact(f"it is {value}.") == f"it is {value}."
    assert value not in redactor.redact_message(f"it is {value}.")


def test_a_literal_under_another_name_is_shown() -> None:
    redactor = Redactor()
    redactor.remember_literal("GREETING", "hello-hello-hello")
    assert redactor.redact_message("hello-hello-hello") == "hello-hello-hello"


def test_the_password_of_a_url_is_known_in_every_form_in_which_it_is_sent() -> None:
    redactor = Redactor(["https://me:p%40ss-word-1234@host/x"])
    basic = base64.b64encode(b"me:p@ss-word-1234").decode()
    for sent in ("p%40ss-word-1234", "p@ss-word-1234", basic):
        assert redactor.redact(f"sent {sent}") == "sent [redacted]"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "GET https://me:pw@host:8443/a/b?token=x&y#z",
            "GET https://[redacted]@host:8443/a/b?[redacted]",
        ),
        ('"http://h/?a=1", then http://h/#t', '"http://h/?[redacted]", then http://h/#[redacted]'),
        ("git+ssh://key@host/x", "git+ssh://[redacted]@host/x"),
        ("http://127.0.0.1:8000/v1 and user@example.com?", "http://127.0.0.1:8000/v1 and user@example.com?"),
    ],
)
def test_a_url_is_shown_without_what_may_be_a_credential(text: str, shown: str) -> None:
    assert without_credentials(text) == shown


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_a_secret_that_comes_in_pieces_is_redacted_and_nothing_else_is_lost(size: int) -> None:
    text = "hunt hunter hunter22hunter22 hunter2 ende"
    heard: list[str] = []
    stream = RedactedStream(Redactor(["hunter22", "ender"]), heard.append)
    for at in range(0, len(text), size):
        stream.write(text[at : at + size])
    assert "hunter22" not in "".join(heard)
    stream.end()
    assert "".join(heard) == "hunt hunter [redacted][redacted] hunter2 ende"


def test_json_is_redacted_in_its_keys_too() -> None:
    data = {"hunter22": ["a hunter22", {"b": 1, "c": None}], "d": True}
    assert Redactor(["hunter22"]).redact_json(data) == {
        "[redacted]": ["a [redacted]", {"b": 1, "c": None}],
        "d": True,
    }


@pytest.mark.parametrize("text", ["://" * 300_000, "a" * 1_000_000, "://" + "@" * 1_000_000, "://" + "a?" * 500_000])
def test_a_long_text_takes_no_long_time(text: str) -> None:
    Redactor(["hunter22"]).redact_message(text)


def test_a_secret_is_redacted_without_the_white_space_around_it() -> None:
    redactor = Redactor(["hunter22\r\n", " swordfish "])
    assert redactor.redact("hunter22, swordfish") == "[redacted], [redacted]"


def test_the_long_words_that_are_lines_of_a_secret_are_redacted_alone() -> None:
    redactor = Redactor(
        ["-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----\n"]
    )
    assert redactor.redact("hkiG9w0BAQEFAASC BEGIN PRIVATE KEY") == "[redacted] BEGIN PRIVATE KEY"


def test_a_secret_is_redacted_as_html_and_forms_quote_it() -> None:
    redactor = Redactor(["a<b> & 'c'"])
    assert redactor.redact("a&lt;b&gt; &amp; &#x27;c&#x27;") == "[redacted]"
    assert redactor.redact("a%3Cb%3E+%26+%27c%27") == "[redacted]"
