"""The log: one line per event, from any source."""

import io
import json
import logging
import re
import unicodedata
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import structlog

from agent_runtime.config import LogSettings
from agent_runtime.telemetry import configure_logging
from agent_runtime.text.redaction import Redactor

HOSTILE = "a\nb\r\x1b[31mred\x00\x7f\x9b\u2028\u202e\ud800\tc"
log = structlog.get_logger()

Format = Literal["auto", "json", "console"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    def write(self, _: str) -> int:
        raise BrokenPipeError


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    """Restore the configuration of logging after each test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers, root.level = handlers, level
    logging.captureWarnings(capture=False)
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()


def configure(
    stream: io.StringIO,
    redactor: Redactor | None = None,
    *,
    form: Format = "json",
    level: Literal["debug", "info", "warning"] = "info",
) -> io.StringIO:
    configure_logging(LogSettings(format=form, level=level), redactor or Redactor(), stream)
    return stream


def records(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def fail(error: Exception) -> None:
    raise error


def controls(text: str) -> list[str]:
    return [char for char in text if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]


def test_an_event_is_one_line_of_json_with_its_time_in_utc() -> None:
    out = configure(io.StringIO())
    log.info("plan_approved", digest="sha256:00", steps=3)
    (record,) = records(out)
    assert list(record)[:3] == ["timestamp", "level", "event"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", record["timestamp"])
    assert (record["level"], record["event"], record["digest"], record["steps"]) == (
        "info",
        "plan_approved",
        "sha256:00",
        3,
    )


def test_what_is_bound_to_the_context_is_in_every_line() -> None:
    out = configure(io.StringIO())
    with structlog.contextvars.bound_contextvars(task_id="t1", request_id="r1"):
        log.info("ours")
        logging.getLogger("asyncio").warning("theirs")
    log.info("after")
    ours, theirs, after = records(out)
    assert ours["task_id"] == theirs["task_id"] == "t1"
    assert ours["request_id"] == theirs["request_id"] == "r1"
    assert "task_id" not in after


def test_a_level_that_is_off_writes_nothing() -> None:
    out = configure(io.StringIO(), level="warning")
    log.info("quiet")
    logging.getLogger("mcp").info("quiet")
    log.warning("loud")
    assert [record["event"] for record in records(out)] == ["loud"]


def test_auto_is_json_in_a_pipe_and_for_people_on_a_terminal() -> None:
    pipe, terminal = configure(io.StringIO(), form="auto"), Terminal()
    log.info("first")
    configure(terminal, form="auto")
    log.info("second")
    assert [record["event"] for record in records(pipe)] == ["first"]
    assert "second" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_control_character_reaches_a_line(form: Format) -> None:
    out = configure(io.StringIO(), form=form)
    log.info(HOSTILE, text=HOSTILE, deep={"list": [HOSTILE], HOSTILE: 1}, other=Exception(HOSTILE), **{HOSTILE: 1})
    logging.getLogger("uvicorn.error").error("theirs %s", HOSTILE)
    first, second, *rest = out.getvalue().split("\n")
    assert rest == [""]
    assert controls(first) == controls(second) == []


def test_json_carries_hostile_text_without_loss() -> None:
    out = configure(io.StringIO())
    log.info("e", text=HOSTILE)
    assert records(out)[0]["text"] == HOSTILE


def test_ordinary_letters_of_the_world_stay_readable() -> None:
    out = configure(io.StringIO())
    log.info("e", text="Grüße, 東京 🌱")
    assert "Grüße, 東京 🌱" in out.getvalue()


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_secret_is_shown_at_no_depth(form: Format) -> None:
    class Holder:
        def __repr__(self) -> str:
            return "Holder(hunter22)"

    out = configure(io.StringIO(), Redactor(["hunter22"]), form=form)
    with structlog.contextvars.bound_contextvars(bound="hunter22"):
        log.info("is hunter22", a="x hunter22", b=[{"c": ("hunter22",)}], d=Holder(), e={"hunter22": 1}, f=b"hunter22")
        logging.getLogger("mcp").warning("theirs %s", {"x": "hunter22"})
        try:
            fail(ValueError("hunter22"))
        except ValueError:
            log.exception("failed")
    text = out.getvalue()
    assert "hunter22" not in text
    assert text.count("[redacted]") >= 10


@pytest.mark.parametrize(
    "name",
    ["authorization", "Authorization", "api_key", "apiKey", "X-Api-Key", "token", "access_token", "password", "cookie"],
)
def test_a_value_under_a_telling_name_is_hidden_at_any_depth(name: str) -> None:
    out = configure(io.StringIO())
    log.info("e", headers={name: "abc123"}, **{name: ["abc123"]})
    assert "abc123" not in out.getvalue()
    assert records(out)[0]["headers"] == {name: "[redacted]"}


def test_counts_of_tokens_and_absent_secrets_are_shown() -> None:
    out = configure(io.StringIO())
    log.info("e", input_tokens=3, tokens=4, api_key=None, token_count=5, tokenizer="x")
    (record,) = records(out)
    assert (record["input_tokens"], record["tokens"], record["api_key"], record["token_count"]) == (3, 4, None, 5)
    assert record["tokenizer"] == "x"


def test_an_exception_is_structured_on_the_same_line_without_local_variables() -> None:
    out = configure(io.StringIO())
    try:
        local = "only-here"
        fail(ExceptionGroup("several", [ValueError(f"of {len(local)}")]))
    except ExceptionGroup:
        log.exception("failed")
    (record,) = records(out)
    (group,) = record["exception"]
    assert (group["exc_type"], group["is_group"]) == ("ExceptionGroup", True)
    assert group["exceptions"][0][0]["exc_type"] == "ValueError"
    assert "only-here" not in out.getvalue()


def test_a_traceback_on_the_console_cannot_forge_a_line() -> None:
    out = configure(io.StringIO(), form="console")
    forged = "2026-01-01T00:00:00Z [info     ] task approved"
    try:
        fail(ValueError(f"x\n{forged}\x1b[2J"))
    except ValueError:
        log.exception("failed")
        logging.getLogger("asyncio").exception("theirs")
    text = out.getvalue()
    assert "Traceback" in text
    assert "\x1b" not in text
    assert not any(line.startswith("2026-01-01") for line in text.splitlines())


def test_the_requests_of_the_libraries_are_heard_at_debug_only() -> None:
    for level, heard in (("info", 0), ("debug", 2)):
        out = configure(io.StringIO(), level=level)  # type: ignore[arg-type]
        logging.getLogger("uvicorn.access").info("GET /")
        logging.getLogger("httpx").info("HTTP Request")
        assert len(records(out)) == heard


def test_a_warning_of_python_is_a_line_like_any_other() -> None:
    out = configure(io.StringIO())
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old\nstyle", stacklevel=1)
        logging.captureWarnings(capture=False)
    assert records(out)[0]["logger"] == "py.warnings"


def test_a_record_that_cannot_be_rendered_is_said_so_and_raises_nothing() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    out = configure(io.StringIO())
    log.info("e", x=Broken(), big=10**5000, nan=float("nan"))
    logging.getLogger("mcp").warning("%d items", "three")
    ours, theirs = records(out)
    assert (ours["x"], ours["nan"]) == ("<Broken without a repr>", "nan")
    assert (theirs["event"], theirs["logger"]) == ("log_record_unreadable", "mcp")


def test_nested_without_end_is_cut_and_raises_nothing() -> None:
    out = configure(io.StringIO())
    loop: dict[str, Any] = {}
    loop["self"] = loop
    log.info("e", loop=loop)
    assert len(records(out)) == 1


def test_a_very_long_value_is_cut() -> None:
    out = configure(io.StringIO())
    log.info("e", text="x" * 1_000_000)
    assert records(out)[0]["text"].endswith("... and 983616 characters more")
    assert len(out.getvalue()) < 20_000


def test_a_stream_that_is_gone_loses_lines_and_stops_nothing() -> None:
    configure(Gone())
    log.info("e")
    logging.getLogger("mcp").warning("e")


def test_the_last_configuration_counts() -> None:
    first, second = configure(io.StringIO()), configure(io.StringIO())
    log.info("ours")
    logging.getLogger("mcp").warning("theirs")
    assert first.getvalue() == ""
    assert len(records(second)) == 2
