"""Secrets taken out of text: the one redactor of the service, and which names announce a secret (G12)."""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, unquote

REDACTED = "[redacted]"

_SHORTEST = 4
"""A secret of fewer characters is taken out only where it stands alone, and only of messages."""

_SHORTEST_LITERAL = 12
"""From so many characters on, a literal of the configuration is no ordinary word of what servers say."""

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_ENDINGS = ("token", "key", "secret", "password")
_HEADERS = ("authorization", "cookie")
_ANYWHERE = frozenset(
    {"secret", "secrets", "password", "passwords", "passwd", "passphrase", "credential", "credentials"}
)
_AT_THE_END = frozenset({"keys", "pass", "pwd", "pat", "auth", "authorization", "cookie", "cookies", "jwt", "dsn"})

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
        self._in_data = _Known()
        self._in_messages = _Known()
        for secret in secrets:
            self.remember(secret)

    def remember(self, secret: str) -> None:
        """Redact this secret from now on, everywhere, and the password of a URL in it."""
        self._in_messages.add(secret)
        if len(secret) >= _SHORTEST:
            self._in_data.add(secret)
        self.remember_literal("", secret)

    def remember_literal(self, name: str, value: str) -> None:
        """Redact a value that the configuration writes out: a credential by its name, and the password of a URL.

        It is taken out of messages; out of data only what no name or word is likely to be.
        """
        certain = name.lower().endswith((*_ENDINGS, *_HEADERS))
        for text in _credentials(value) if names_credential(name) else ():
            self._add_literal(text, certain=certain)
        for text in _passwords(value):
            self._add_literal(text, certain=True)

    def _add_literal(self, text: str, *, certain: bool) -> None:
        self._in_messages.add(text)
        if certain and len(text) >= _SHORTEST_LITERAL and not any(map(str.isspace, text)):
            self._in_data.add(text)

    def redact(self, data: str) -> str:
        """Return the text without secrets; any other text, and the shape of all of it, stays as it is."""
        return self._in_data.redacted(data)

    def redact_message(self, message: str) -> str:
        """Return the text without secrets, without literal credentials and without what URLs hold of either."""
        return without_credentials(self._in_messages.redacted(message))


class _Known:
    """Texts to be taken out of others, as they are and as JSON, Python and URLs quote them."""

    def __init__(self) -> None:
        self._texts: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def add(self, text: str) -> None:
        if not text or text in self._texts:
            return
        self._texts |= {text, repr(text)[1:-1], quote(text, safe="")}
        self._texts |= {json.dumps(text, ensure_ascii=plain)[1:-1] for plain in (True, False)}
        longest_first = sorted(self._texts, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(_matching, longest_first)))

    def redacted(self, text: str) -> str:
        # The look at each is ten times as fast as the pattern, and mostly there is nothing to be found.
        if self._pattern is None or not any(known in text for known in self._texts):
            return text
        return self._pattern.sub(REDACTED, text)


def _matching(text: str) -> str:
    literal = re.escape(text)
    return literal if len(text) >= _SHORTEST else rf"(?<!\w){literal}(?!\w)"


def _credentials(value: str) -> Iterator[str]:
    """The value, and what alone is secret in it: `xyz` of `Bearer xyz`, `xyz` of `session=xyz; theme=dark`."""
    yield value
    if scheme := _AFTER_A_SCHEME.fullmatch(value):
        yield scheme[1]
    for pair in value.split(";"):
        name, equals, content = pair.strip().partition("=")
        if equals and name.isidentifier():
            yield content


def _passwords(text: str) -> Iterator[str]:
    """The passwords of the URLs in a text, as they are written and as they are sent; a long name alone is one too."""
    for match in _URL.finditer(text) if "://" in text else ():
        user, colon, password = (match["user"] or "")[:-1].partition(":")
        secret = password if colon else user
        if colon or len(user) >= _SHORTEST_LITERAL:
            yield from (secret, unquote(secret))
            yield base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
