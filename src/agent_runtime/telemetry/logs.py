"""Logs: one line for each event, as JSON or for people, without secrets (G12) or raw control characters (G13).

Modules log with `log = structlog.get_logger()` and `log.info("plan_approved", task_id=...)`; a run or a request binds
`task_id` or `request_id` with `structlog.contextvars`. Records of the standard library's logging (uvicorn, mcp,
asyncio, warnings) are treated in the same way.
"""

import logging
import math
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from agent_runtime.config import LogSettings
from agent_runtime.text.escaping import escape_hidden, json_line
from agent_runtime.text.redaction import REDACTED, Redactor, names_credential

_LONGEST = 16_384
"""The maximum length of a value in characters. Text from servers and clients may be much longer."""

_DEEPEST = 12

_WIDEST = 256
"""The maximum bits of a number; Python cannot print very long ones."""

_TALKATIVE = ("httpx", "httpx2", "httpcore", "httpcore2", "uvicorn.access", "sse_starlette", "openai")
"""Loggers that log every request or message. Below level debug only their warnings are logged."""

_OF_SERVERS = ("mcp.client", "mcp.shared.jsonrpc_dispatcher")
"""Loggers that warn about every invalid message of a server, so that a hostile one could fill the disk and block the
event loop. They are logged at level debug only; this service logs failures of calls and servers itself."""

_QUOTING = ("mcp.client.streamable_http",)
"""Loggers that log whole messages at level debug, with arguments and results. Never logged at that level."""


def configure_logging(settings: LogSettings, redactor: Redactor, stream: TextIO | None = None) -> None:
    """Send all logs of the process to `stream` (default: standard error), with the format and level of the settings.

    May be called again; the last call applies. If the stream is closed, lines are lost without an error.
    """
    stream = stream or sys.stderr
    people = settings.format == "console" or (settings.format == "auto" and stream.isatty())
    sink = _Sink(stream)
    clean = _Cleaner(redactor)
    start: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    end: list[Processor] = _for_people(clean, stream) if people else _for_machines(clean)
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    structlog.configure(
        processors=[*start, *end],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=sink.logger,
        cache_logger_on_first_use=False,  # it saves little, and modules would keep the first configuration
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *start],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *end],
    )
    _capture_the_rest(sink, formatter, level)


def log_debug(event: str, **fields: object) -> None:
    """Log a routine event, which only `log.level: debug` shows.

    For frequently executed code: at other levels it takes 0.1 microseconds, and structlog's own `debug` 10.
    """
    if logging.root.isEnabledFor(logging.DEBUG):
        structlog.get_logger().debug(event, **fields)


@contextmanager
def keep_logging() -> Iterator[None]:
    """Restore the root logger afterwards: the MCP SDK configures it, which is the composition root's task."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def _for_people(clean: "_Cleaner", stream: TextIO) -> list[Processor]:
    return [
        structlog.processors.format_exc_info,
        clean.for_people,
        structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback),
    ]


def _for_machines(clean: "_Cleaner") -> list[Processor]:
    # Tracebacks without local variables, which may contain secrets.
    frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=30)
    return [structlog.processors.ExceptionRenderer(frames), clean.for_machines, _render_json]


def _capture_the_rest(sink: "_Sink", formatter: logging.Formatter, level: int) -> None:
    handler = _SinkHandler(sink)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]  # another handler would not redact
    root.setLevel(level)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(level if level <= logging.DEBUG else max(level, logging.WARNING))
    for name in _OF_SERVERS:
        logging.getLogger(name).setLevel(level if level <= logging.DEBUG else logging.CRITICAL)
    for name in _QUOTING:
        logging.getLogger(name).setLevel(logging.WARNING if level <= logging.DEBUG else logging.CRITICAL)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.captureWarnings(capture=True)


class _Sink:
    """Writes lines to the stream, whole and one at a time."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def logger(self, *_: Any) -> "_Sink":
        return self

    def write(self, line: str) -> None:
        """Write one line. A closed pipe or a full disk must not stop the service; the error cannot be reported."""
        try:
            with self._lock:
                self._stream.write(line + "\n")
                self._stream.flush()
        except (OSError, ValueError):
            return

    debug = info = warning = error = critical = msg = write


class _SinkHandler(logging.Handler):
    """Writes records of the standard library's logging to the sink."""

    def __init__(self, sink: _Sink) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._sink.write(self.format(record))
        except Exception:  # noqa: BLE001 - `getMessage` of a foreign record may raise anything, but logging must not fail
            structlog.get_logger().warning("log_record_unreadable", logger=record.name, line=record.lineno)


class _Cleaner:
    """Removes secrets and control characters from log events."""

    def __init__(self, redactor: Redactor) -> None:
        self._redact = redactor.redact_message

    def for_machines(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        """Return the event with every value as plain JSON; the renderer escapes the rest."""
        return {self._text(str(name)): self._plain(name, value) for name, value in event.items()}

    def for_people(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        """Return the event with every value as text or a number on one line, and tracebacks as marked lines."""
        cleaned: dict[str, Any] = {}
        for name, value in event.items():
            plain = self._plain(name, value)
            shown = escape_hidden(self._text(str(name)))
            if name in {"exception", "stack"}:
                cleaned[name] = "\n".join(f"  | {escape_hidden(line)}" for line in str(plain).split("\n"))
            elif plain is None or isinstance(plain, bool | int | float):
                cleaned[shown] = plain
            else:
                text = plain if isinstance(plain, str) else json_line(plain)
                cleaned[shown] = escape_hidden(text)
        return cleaned

    def _plain(self, name: object, value: Any, depth: int = 0) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if value != "" and isinstance(name, str) and names_credential(name):
            return REDACTED
        if isinstance(value, str):
            return self._text(value)
        if (isinstance(value, int) and value.bit_length() <= _WIDEST) or (
            isinstance(value, float) and math.isfinite(value)
        ):
            return value
        if depth < _DEEPEST:
            if isinstance(value, Mapping):
                return {
                    self._text(_repr_or_text(key)): self._plain(key, item, depth + 1) for key, item in value.items()
                }
            if isinstance(value, list | tuple | set | frozenset):
                return [self._plain(None, item, depth + 1) for item in value]
        return self._text(_repr_or_text(value))

    def _text(self, text: str) -> str:
        text = self._redact(text)  # before cutting, so that no part of a secret remains
        rest = len(text) - _LONGEST
        return text if rest <= 0 else f"{text[:_LONGEST]}... and {rest} characters more"


def _repr_or_text(value: object) -> str:
    if isinstance(value, str):
        return value
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - a `__repr__` may raise anything, but logging must not fail
        return f"<{type(value).__name__} without a repr>"


def _render_json(_: WrappedLogger, __: str, event: EventDict) -> str:
    first = {name: event.pop(name, None) for name in ("timestamp", "level", "event")}
    return json_line({**first, **event})
