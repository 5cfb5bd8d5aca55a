"""Secrets taken out of text: the one redactor of the service, and which names announce a secret (G12)."""

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
"""A secret of fewer characters is taken out only where it stands alone, and only of messages."""

_SHORTEST_SECRET = 3
"""What has fewer characters is no secret that could be kept, but a number or a switch, which stands everywhere."""

_SHORTEST_LITERAL = 12
"""From so many characters on, a literal of the configuration is no ordinary word of what servers say."""

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_ENDINGS = ("token", "key", "secret", "password")
_HEADERS = ("authorization", "cookie")
_ANYWHERE = frozenset(
    {"secret", "secrets", "password", "passwords", "passwd", "passphrase", "credential", "credentials"}
)
_AT_THE_END = frozenset({"keys", "pass", "pwd", "pat", "auth", "authorization", "cookie", "cookies", "jwt", "dsn"})

SCHEMES = frozenset({"", "basic", "bearer", "token"})
"""What may stand before a credential, or beside a reference to one: it is none itself."""

_NAMED = re.compile(r"(?P<before>-*(?P<name>[A-Za-z][A-Za-z0-9_.-]*)\s*[:=]\s*)(?P<value>.+)", re.DOTALL)
"""An argument that says what its value is: `--token=x`, `TOKEN=x`, `Authorization: Bearer x`."""

_AFTER_A_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*[ \t]+(\S+)")
_URL = re.compile(r"://(?P<user>[^\s/?#\"'<>]*@)?(?P<path>[^\s?#\"'<>]*)(?P<rest>[?#][^\s\"'<>]*)?")
"""A URL without its scheme: a pattern that began with one would read a long word again from each of its letters."""


def names_credential(name: str) -> bool:
    """Return whether a credential stands under this name: of a variable, a header, a parameter, a field of the log.

    `tokens` are not among them: they are counted.
    """
    words = [word.lower() for word in _WORDS.findall(name)]
    if not words:
        return False
    return name.lower().endswith(_ENDINGS) or words[-1] in _AT_THE_END or not _ANYWHERE.isdisjoint(words)


def named_arguments(arguments: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Yield each argument of a command as what stands before its value, the name of the value, and the value.

    The name is the argument's own where that is the name of a credential, else the option before it, if any.
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
    """Return the text with every URL in it shortened to what may be shown: no user, no password, no query."""
    return _URL.sub(_bare_url, text) if "://" in text else text


def _bare_url(match: re.Match[str]) -> str:
    user = f"{REDACTED}@" if match["user"] else ""
    rest = f"{match['rest'][0]}{REDACTED}" if match["rest"] else ""
    return f"://{user}{match['path']}{rest}"


class Redactor:
    """What must not be shown, and the only way to take it out of a text. The service has one.

    Two kinds of text are told apart. *Data* is what servers and models give, which later steps take up: only what is
    certainly a secret is taken out of it. *Messages* are what people are told: logs, errors, states, findings.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._in_data = _SecretTexts()
        self._in_messages = _SecretTexts()
        for secret in secrets:
            self.remember(secret)

    def remember(self, secret: str) -> None:
        """Redact this secret from now on, everywhere, and the credentials of a URL in it.

        It is known without the white space around it too, which servers strip, and by each long word that is a line of
        it, as those of a private key are.
        """
        lines = [line.strip() for line in secret.splitlines()]
        words = [line for line in lines if len(line) >= _SHORTEST_LITERAL and len(line.split()) == 1]
        for text in (secret, secret.strip(), *words):
            self._in_messages.add(text)
            if len(text) >= _SHORTEST:
                self._in_data.add(text)
        self.remember_literal("", secret)

    def remember_literal(self, name: str, value: str) -> bool:
        """Redact the credentials in a value that the configuration writes out: by its name, and in URLs.

        They are taken out of messages; out of data only those that are no likely word. Return whether there are any.
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
        """Return the text without secrets; any other text, and the shape of all of it, stays as it is."""
        return self._in_data.replace_in(data)

    def redact_json(self, data: Any) -> Any:
        """Return the same JSON value without secrets, in its keys too."""
        if isinstance(data, str):
            return self.redact(data)
        if isinstance(data, dict):
            return {self.redact(key): self.redact_json(value) for key, value in data.items()}
        if isinstance(data, list | tuple):
            return [self.redact_json(item) for item in data]
        return data

    def begun_at(self, data: str) -> int:
        """Return where in the text, at its end, a secret may have begun; its length where none has."""
        return self._in_data.begun_at(data)

    def redact_message(self, message: str) -> str:
        """Return the text without secrets, without literal credentials and without what URLs hold of either."""
        return without_credentials(self._in_messages.replace_in(message))


class RedactedStream:
    """Hands a text on piece by piece, as data without secrets: what may be the beginning of one is held back."""

    def __init__(self, redactor: Redactor, write: Callable[[str], None]) -> None:
        self._redactor = redactor
        self._write = write
        self._held = ""

    def write(self, piece: str) -> None:
        """Take the next piece."""
        text = self._redactor.redact(self._held + piece)
        begun = self._redactor.begun_at(text)
        self._held = text[begun:]
        if begun:
            self._write(text[:begun])

    def end(self) -> None:
        """Hand on what was held back: it was no secret."""
        if self._held:
            self._write(self._held)
        self._held = ""


class _SecretTexts:
    """Texts to be taken out of others, as they are and as JSON, Python, URLs, forms and HTML quote them."""

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
        with self._adding:  # secrets are read in threads; whoever redacts meanwhile goes through the sets of before
            self._texts = self._texts | quoted
            self._first = {known[0] for known in self._texts}
            self._longest = max(map(len, self._texts))

    def replace_in(self, text: str) -> str:
        # The look at each is ten times as fast as the pattern, and mostly there is nothing to be found.
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
    """Yield the value, and what alone is secret in it: `xyz` of `Bearer xyz`, `xyz` of `session=xyz; theme=dark`."""
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
    """The password before the host of a URL, as it is written and as it is sent; a long name alone is one too."""
    name, colon, password = user.removesuffix("@").partition(":")
    if password or (not colon and len(name) >= _SHORTEST_LITERAL):
        secret = password or name
        yield from (secret, unquote(secret))
        yield base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
