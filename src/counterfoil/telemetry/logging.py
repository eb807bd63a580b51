"""Log lines: one record, one line, on standard error; JSON when piped, coloured on a terminal.

An event's name is constant and its data stands in keys: `log.warning("record_parked", topic=…, offset=…)`.
The standard library's records (aiokafka, FastStream, uvicorn, Litestar) pass through the same processors.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

LIBRARIES = ("aiokafka", "asyncio", "faststream", "litestar", "py.warnings", "uvicorn")
"""Loggers whose own handlers are taken away, so that ours is the only one."""

RATE_LIMITED = ("aiokafka",)
"""Loggers that repeat themselves while a broker is away."""

LEAST_OF_LIBRARIES = {"aiokafka": "WARNING", "faststream": "ERROR"}
"""What they tell of every group join is for LOG_LEVEL=DEBUG; the worker says the same in its own words."""

MASK = "•••"
LONGEST_TEXT = 4_096
DEEPEST = 6

_ERROR = "exc_info"
_SECRET_KEY = re.compile(
    r"passw|passphrase|secret|token|authorization|cookie|credential|api_?key|private_?key|(?:^|_)pass(?:$|_)",
    re.IGNORECASE,
)
_SECRETS_IN_TEXT = (
    (re.compile(r"(?<=://)([^:@/\s]*):\S*@"), rf"\1:{MASK}@"),
    (re.compile(r"\b(password|passwd|secret|token)=[^\s&'\"]+", re.IGNORECASE), rf"\1={MASK}"),
    (re.compile(r"\bBearer\s+[^\s'\"]+", re.IGNORECASE), f"Bearer {MASK}"),
)


def configure_logging(
    level: str = "INFO",
    log_format: Literal["auto", "json", "console"] = "auto",
    stream: TextIO | None = None,
) -> None:
    """Send every log record, ours and the libraries', to one stream in one form; may be called again.

    Call `adopt_library_loggers` once more after a library that brings its own handlers was imported.
    """
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(log_format, stream))
    handler.addFilter(RepeatFilter(RATE_LIMITED))
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(level)
    for name, least in LEAST_OF_LIBRARIES.items():
        logging.getLogger(name).setLevel(logging.NOTSET if level == "DEBUG" else least)
    logging.captureWarnings(True)
    adopt_library_loggers()
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *_STAMPS, _WRAP],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def adopt_library_loggers() -> None:
    """Take away the handlers that libraries gave their own loggers, and let their records come to ours."""
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and name.startswith(LIBRARIES):
            logger.handlers.clear()
            logger.propagate = True


def redact(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    """Mask values under keys that name a secret, and passwords and bearer tokens inside any text."""
    return {
        key: value if key == _ERROR else _mapped_item(key, value, _redacted)
        for key, value in event_dict.items()
    }


def escape_unprintable(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    """Write control characters, line separators and terminal escapes as backslash sequences."""
    return {
        printable(key): value if key == _ERROR else _mapped(value, printable)
        for key, value in event_dict.items()
    }


def printable(text: str) -> str:
    """The text with each character that could end the line, move the cursor or hide another escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def format_error(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    """Put the trace of `exc_info` under `exception`: a line a frame, and one for an error's message."""
    error = event_dict.pop(_ERROR, None)
    if isinstance(error, tuple):
        error = error[1]
    elif error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        event_dict["exception"] = "\n".join(
            f"  {printable(_redacted(line))}" for line in _trace(error, DEEPEST)
        )
    return event_dict


class RepeatFilter(logging.Filter):
    """Lets a logger's message template pass once in `every_s` seconds; the next says how many it left out."""

    def __init__(
        self, loggers: tuple[str, ...], every_s: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._loggers = loggers
        self._every_s = every_s
        self._clock = clock
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """True when the record may pass."""
        if not record.name.startswith(self._loggers):
            return True
        template = (record.name, str(record.msg))
        now = self._clock()
        passed_at, suppressed = self._seen.get(template, (float("-inf"), 0))
        if now - passed_at < self._every_s:
            self._seen[template] = (passed_at, suppressed + 1)
            return False
        if len(self._seen) >= 1_000:  # a library that formats its messages itself must not fill the memory
            self._seen.clear()
        self._seen[template] = (now, 0)
        if suppressed:
            record.suppressed = suppressed
        return True


_STAMPS: tuple[Processor, ...] = (
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)
_WRAP = structlog.stdlib.ProcessorFormatter.wrap_for_formatter


def _formatter(log_format: str, stream: TextIO) -> logging.Formatter:
    terminal = stream.isatty()
    as_json = log_format == "json" or (log_format == "auto" and not terminal)
    colours = terminal and "NO_COLOR" not in os.environ
    processors: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        redact,
        *([] if as_json else [escape_unprintable]),
        format_error,
        _json_line if as_json else _console_renderer(colours),
    ]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(), _without_colour_copy, *_STAMPS],
        processors=processors,
    )


def _console_renderer(colours: bool) -> Processor:
    return structlog.dev.ConsoleRenderer(
        colors=colours, sort_keys=False, exception_formatter=structlog.dev.plain_traceback
    )


_render_json = structlog.processors.JSONRenderer()


def _json_line(logger: WrappedLogger, method: str, event_dict: EventDict) -> str:
    line = str(_render_json(logger, method, event_dict))
    return line.replace("\x7f", "\\u007f")  # the one control character that json leaves as it is


def _without_colour_copy(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    event_dict.pop("color_message", None)  # uvicorn's second copy of its message, with terminal escapes
    return event_dict


def _redacted(text: str) -> str:
    text = text[: 2 * LONGEST_TEXT]
    for pattern, replacement in _SECRETS_IN_TEXT:
        text = pattern.sub(replacement, text)
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


def _mapped(value: object, change: Callable[[str], str], depth: int = DEEPEST) -> object:
    """The value with every text in it changed; what is neither data nor a container of data becomes text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict) and depth > 0:
        return {
            change(str(key)): _mapped_item(str(key), item, change, depth - 1) for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset) and depth > 0:
        return [_mapped(item, change, depth - 1) for item in value]
    if isinstance(value, BaseException):
        return change(repr(value))
    return change(str(value))


def _mapped_item(key: str, value: object, change: Callable[[str], str], depth: int = DEEPEST) -> object:
    return MASK if _SECRET_KEY.search(key) else _mapped(value, change, depth)


def _trace(error: BaseException, depth: int) -> Iterator[str]:
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and depth > 0:
        yield from _trace(cause, depth - 1)
        yield "then:"
    for frame in traceback.extract_tb(error.__traceback__, limit=-50):
        yield f"{frame.filename}:{frame.lineno} {frame.name}: {frame.line}"
    yield f"{type(error).__qualname__}: {error}"
    yield from (f"  {note}" for note in getattr(error, "__notes__", ()))
    if isinstance(error, BaseExceptionGroup) and depth > 0:
        for member in error.exceptions:
            yield from (f"  {line}" for line in _trace(member, depth - 1))
