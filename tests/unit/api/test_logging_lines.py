"""Log lines: one record one line, no secrets, nothing breaks out."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from counterfoil.telemetry.logging import MASK, RepeatFilter, configure_logging

NASTY = "a\nERROR forged\r\x1b[2J\u2028b\x85c\u202ed\x00\x7f"


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.root
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def lines_of(log_format: Any, level: str = "INFO") -> tuple[io.StringIO, Any]:
    stream = io.StringIO()
    configure_logging(level, log_format, stream)
    return stream, structlog.get_logger("counterfoil.test")


def only_json(stream: io.StringIO) -> dict[str, Any]:
    (line,) = stream.getvalue().splitlines()
    document: dict[str, Any] = json.loads(line)
    return document


def test_piped_output_is_json_with_event_and_keys() -> None:
    stream, log = lines_of("auto")
    log.warning("record_parked", topic="order.placed", offset=3, reason=None)
    said = only_json(stream)
    assert said["event"] == "record_parked"
    assert (said["topic"], said["offset"], said["reason"], said["level"]) == (
        "order.placed",
        3,
        None,
        "warning",
    )
    assert said["logger"] == "counterfoil.test"
    assert said["timestamp"].endswith("Z")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_value_never_breaks_out_of_its_line(log_format: str) -> None:
    stream, log = lines_of(log_format)
    log.info("record_parked", code=NASTY, nested={"k\n": [NASTY]}, error=ValueError(NASTY))
    logging.getLogger("aiokafka.x").error("from %s", NASTY, extra={"message_id": NASTY})
    text = stream.getvalue()
    assert text.count("\n") == 2
    assert all(c.isprintable() for c in text.replace("\n", ""))


def test_json_keeps_a_value_as_it_was() -> None:
    stream, log = lines_of("json")
    log.info("seen", code=NASTY)
    assert only_json(stream)["code"] == NASTY


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_an_exceptions_message_stays_on_one_line(log_format: str) -> None:
    stream, log = lines_of(log_format)
    error = RuntimeError("postgres://u:hunter2@db/x is away")
    error.__cause__ = ValueError(NASTY)
    log.error("request_failed", exc_info=error)
    text = stream.getvalue()
    assert "hunter2" not in text
    assert "\nERROR forged" not in text
    assert "ValueError" in text
    assert "RuntimeError" in text
    assert "\x1b" not in text


def test_members_of_an_exception_group_are_shown() -> None:
    stream, log = lines_of("json")
    log.error("failed", exc_info=ExceptionGroup("both", [ValueError("first"), KeyError("second")]))
    trace = only_json(stream)["exception"]
    assert "first" in trace
    assert "second" in trace


@pytest.mark.parametrize(
    "key", ["password", "kafka_sasl_password", "SMTP_PASS", "admin_token", "Authorization", "api_key"]
)
def test_values_under_secret_keys_are_masked(key: str) -> None:
    stream, log = lines_of("json")
    log.info("settings_read", **{key: "hunter2"}, nested={key: "hunter2"})
    said = only_json(stream)
    assert said[key] == MASK
    assert said["nested"][key] == MASK
    assert "hunter2" not in stream.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "cannot reach postgres://counter:hunter2@db:5432/x",
        "postgresql://u:p@hunter2/hunter2@db/x",
        "Authorization: Bearer hunter2",
        "dsn host=db password=hunter2 user=x",
    ],
)
def test_secrets_inside_text_are_masked(text: str) -> None:
    stream, log = lines_of("json")
    log.info("database_away", error=text, raised=OSError(text))
    logging.getLogger("uvicorn.error").warning("failed: %s", text)
    assert "hunter2" not in stream.getvalue()


def test_a_long_value_is_cut() -> None:
    stream, log = lines_of("json")
    log.info("seen", value="x" * 1_000_000)
    assert len(stream.getvalue()) < 10_000


def test_console_without_a_terminal_has_no_colours() -> None:
    stream, log = lines_of("console")
    log.info("seen", code="SPRING")
    assert "\x1b" not in stream.getvalue()
    assert "code=SPRING" in stream.getvalue()


def test_level_is_kept_by_ours_and_the_libraries_loggers() -> None:
    stream, log = lines_of("json", "WARNING")
    log.info("unheard")
    logging.getLogger("faststream").info("unheard")
    log.warning("heard")
    assert only_json(stream)["event"] == "heard"


def test_a_librarys_own_handlers_are_taken_away() -> None:
    library = logging.getLogger("faststream.access.test")
    own = io.StringIO()
    library.addHandler(logging.StreamHandler(own))
    library.propagate = False
    stream, _ = lines_of("json")
    library.error("received")
    assert own.getvalue() == ""
    assert only_json(stream)["event"] == "received"


def test_a_repeated_template_passes_once_in_its_time() -> None:
    now = [0.0]
    repeats = RepeatFilter(("aiokafka",), every_s=10, clock=lambda: now[0])

    def record(name: str, message: str) -> logging.LogRecord:
        return logging.LogRecord(name, logging.ERROR, "", 1, message, (), None)

    assert repeats.filter(record("aiokafka.client", "away %s"))
    assert not repeats.filter(record("aiokafka.client", "away %s"))
    assert not repeats.filter(record("aiokafka.client", "away %s"))
    assert repeats.filter(record("aiokafka.client", "other"))
    assert repeats.filter(record("counterfoil", "away %s"))
    assert repeats.filter(record("counterfoil", "away %s"))
    now[0] = 10.0
    again = record("aiokafka.client", "away %s")
    assert repeats.filter(again)
    assert again.__dict__["suppressed"] == 2


def test_the_count_of_suppressed_records_is_in_the_line() -> None:
    stream, _ = lines_of("json")
    handler = logging.root.handlers[0]
    repeats = next(f for f in handler.filters if isinstance(f, RepeatFilter))
    repeats._every_s = 0
    repeats._seen[("aiokafka", "away")] = (0.0, 7)
    logging.getLogger("aiokafka").error("away")
    assert only_json(stream)["suppressed"] == 7
