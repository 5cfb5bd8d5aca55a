"""Remove secrets from text: the redactor of the service, and the names that announce a credential (G12)."""

import base64
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from html import escape
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote

REDACTED = "[redacted]"

_SHORTEST = 4
"""Shorter secrets are removed only from messages, and only as whole words."""

_SHORTEST_SECRET = 3
"""Shorter values are not treated as secrets: they are numbers or switches, which occur everywhere."""

_SHORTEST_LITERAL = 12
"""The length from which a literal in the configuration is not an ordinary word in the output of servers."""

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_ENDINGS = ("token", "key", "secret", "password")
_HEADERS = ("authorization", "cookie")
_ANYWHERE = frozenset(
    {"secret", "secrets", "password", "passwords", "passwd", "passphrase", "credential", "credentials"}
)
_AT_THE_END = frozenset({"keys", "pass", "pwd", "pat", "auth", "authorization", "cookie", "cookies", "jwt", "dsn"})

SCHEMES = frozenset({"", "basic", "bearer", "token"})
"""Words that may precede a credential, or a reference to one, and are not secret themselves."""

_NAMED = re.compile(r"(?P<before>-*(?P<name>[A-Za-z][A-Za-z0-9_.-]*)\s*[:=]\s*)(?P<value>.+)", re.DOTALL)
"""An argument that names its value: `--token=x`, `TOKEN=x`, `Authorization: Bearer x`."""

_AFTER_A_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*[ \t]+(\S+)")
_URL = re.compile(r"://(?P<user>[^\s/?#\"'<>]*@)?(?P<path>[^\s?#\"'<>]*)(?P<rest>[?#][^\s\"'<>]*)?")
"""A URL without its scheme. A pattern with the scheme would take quadratic time for long words."""


def names_credential(name: str) -> bool:
    """Return whether a variable, header, parameter or log field of this name has a credential as its value.

    `tokens` does not count: it is a number.
    """
    words = [word.lower() for word in _WORDS.findall(name)]
    if not words:
        return False
    return name.lower().endswith(_ENDINGS) or words[-1] in _AT_THE_END or not _ANYWHERE.isdisjoint(words)


def named_arguments(arguments: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Yield each argument of a command as (text before the value, name of the value, value).

    The name is the argument's own if it names a credential, else the preceding option, if any.
    """
    option = ""
    for argument in arguments:
        named = _NAMED.fullmatch(argument)
        if named and names_credential(named["name"]):
            yield named["before"], named["name"], named["value"]
        else:
            yield "", option, argument
        option = argument if argument.startswith("-") and "=" not in argument else ""


def without_credentials(text: str) -> str:
    """Return the text with user, password, query and fragment removed from every URL in it."""
    return _URL.sub(_bare_url, text) if "://" in text else text


def _bare_url(match: re.Match[str]) -> str:
    user = f"{REDACTED}@" if match["user"] else ""
    rest = f"{match['rest'][0]}{REDACTED}" if match["rest"] else ""
    return f"://{user}{match['path']}{rest}"


class Redactor:
    """The known secrets, and the only way to remove them from text. The service has one redactor.

    There are two kinds of text. *Data* is the output of servers and models, which later steps use: only certain secrets
    are removed from it. *Messages* are for people: logs, errors, states, findings.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._in_data = _SecretTexts()
        self._in_messages = _SecretTexts()
        for secret in secrets:
            self.remember(secret)

    def remember(self, secret: str) -> None:
        """Redact this secret everywhere from now on, and the credentials of a URL in it.

        Variants are redacted too: without surrounding white space, which servers strip, and each line that is one long
        word, as in a private key.
        """
        lines = [line.strip() for line in secret.splitlines()]
        words = [line for line in lines if len(line) >= _SHORTEST_LITERAL and len(line.split()) == 1]
        for text in (secret, secret.strip(), *words):
            self._in_messages.add(text)
            if len(text) >= _SHORTEST:
                self._in_data.add(text)
        self.remember_literal("", secret)

    def remember_password_in(self, url: str) -> None:
        """Redact the password in a URL from now on, everywhere. The URL may lack its scheme, as that of a proxy."""
        for match in _URL.finditer(url if "://" in url else f"://{url}"):
            for text in _passwords(match["user"] or ""):
                self.remember(text)

    def remember_literal(self, name: str, value: str) -> bool:
        """Redact the credentials in a literal value of the configuration, by its name and in URLs.

        They are removed from messages, and from data unless they could be ordinary words. Return whether there are any.
        """
        certain = name.lower().endswith((*_ENDINGS, *_HEADERS))
        found = list(_credentials(value)) if names_credential(name) else []
        for text in found:
            self._add_literal(text, certain=certain)
        for match in _URL.finditer(value) if "://" in value else ():
            passwords = list(_passwords(match["user"] or ""))
            for text in passwords:
                self._add_literal(text, certain=True)
            found += passwords
            found += [
                content
                for parameter, content in parse_qsl((match["rest"] or "")[1:])
                if self.remember_literal(parameter, content)
            ]
        return bool(found)

    def _add_literal(self, text: str, *, certain: bool) -> None:
        self._in_messages.add(text)
        if certain and len(text) >= _SHORTEST_LITERAL and not any(map(str.isspace, text)):
            self._in_data.add(text)

    def redact(self, data: str) -> str:
        """Return the data without secrets; everything else stays unchanged."""
        return self._in_data.replace_in(data)

    def redact_json(self, data: Any) -> Any:
        """Return the JSON value without secrets in its strings and keys."""
        if isinstance(data, str):
            return self.redact(data)
        if isinstance(data, dict):
            return {self.redact(key): self.redact_json(value) for key, value in data.items()}
        if isinstance(data, list | tuple):
            return [self.redact_json(item) for item in data]
        return data

    def begun_at(self, data: str) -> int:
        """Return the index at which a partial secret may start at the end of the text; its length if there is none."""
        return self._in_data.begun_at(data)

    def redact_message(self, message: str) -> str:
        """Return the message without secrets, literal credentials, and credentials in URLs."""
        return without_credentials(self._in_messages.replace_in(message))


class RedactedStream:
    """Redacts a stream of text, as data. A possible beginning of a secret is held back."""

    def __init__(self, redactor: Redactor, write: Callable[[str], None]) -> None:
        self._redactor = redactor
        self._write = write
        self._held = ""

    def write(self, piece: str) -> None:
        """Add the next piece of text."""
        text = self._redactor.redact(self._held + piece)
        begun = self._redactor.begun_at(text)
        self._held = text[begun:]
        if begun:
            self._write(text[:begun])

    def end(self) -> None:
        """Write the text that was held back: it is not a secret."""
        if self._held:
            self._write(self._held)
        self._held = ""


class _SecretTexts:
    """Texts to remove from others, literally and as quoted in JSON, Python, URLs, forms and HTML."""

    def __init__(self) -> None:
        self._texts: set[str] = set()
        self._first: set[str] = set()
        self._longest = 0
        self._pattern: tuple[set[str], re.Pattern[str]] | None = None  # the texts that it was made of, and itself
        self._adding = threading.Lock()

    def add(self, text: str) -> None:
        if text in self._texts or len(text) < _SHORTEST_SECRET or not any(map(str.isalnum, text)):
            return
        quoted = {text, repr(text)[1:-1], quote(text, safe=""), quote_plus(text), escape(text)}
        quoted |= {json.dumps(text, ensure_ascii=plain)[1:-1] for plain in (True, False)}
        with self._adding:  # other threads may add; those that redact keep the old sets
            self._texts = self._texts | quoted
            self._first = {known[0] for known in self._texts}
            self._longest = max(map(len, self._texts))

    def replace_in(self, text: str) -> str:
        # The search for each is ten times as fast as the pattern, and in most cases there is nothing to remove.
        texts, pattern = self._texts, self._pattern
        if not any(known in text for known in texts):
            return text
        if pattern is None or pattern[0] is not texts:
            longest_first = sorted(texts, key=len, reverse=True)
            self._pattern = pattern = texts, re.compile("|".join(map(_pattern_for, longest_first)))
        return pattern[1].sub(REDACTED, text)

    def begun_at(self, text: str) -> int:
        for at in range(max(0, len(text) - self._longest + 1), len(text)):
            if text[at] in self._first and any(known.startswith(text[at:]) for known in self._texts):
                return at
        return len(text)


def _pattern_for(text: str) -> str:
    literal = re.escape(text)
    return literal if len(text) >= _SHORTEST else rf"(?<!\w){literal}(?!\w)"


def _credentials(value: str) -> Iterator[str]:
    """Yield the value, and its secret parts: `xyz` of `Bearer xyz`, `xyz` of `session=xyz; theme=dark`."""
    if value.strip().lower() in SCHEMES:
        return
    yield value
    if scheme := _AFTER_A_SCHEME.fullmatch(value):
        yield scheme[1]
    for pair in value.split(";"):
        name, equals, content = pair.strip().partition("=")
        if equals and content and name.isidentifier():
            yield content


def _passwords(user: str) -> Iterator[str]:
    """Yield the password in a URL, as written and as sent. A long user name without a password counts as one."""
    name, colon, password = user.removesuffix("@").partition(":")
    if password or (not colon and len(name) >= _SHORTEST_LITERAL):
        secret = password or name
        yield from (secret, unquote(secret))
        yield base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
