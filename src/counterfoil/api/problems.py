"""Every error as application/problem+json (RFC 9457)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import asyncpg
import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException

from counterfoil.database.pool import UNREACHABLE
from counterfoil.errors import DependencyUnreachable, RequestError, TransientFailure

log = structlog.get_logger(__name__)

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_S = 5

_AWAY_CLASSES = ("08", "40", "53", "55", "57")
"""SQLSTATE classes that a later attempt may mend: connection, conflict, resources, locks, shutdown."""

_PLACE = re.compile(r"^(?P<rule>.*) - at `\$\.?(?P<field>[^`]*)`$", re.DOTALL)
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<field>[^`]*)`$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<field>[^`]*)`$", re.DOTALL)


class Answer(NamedTuple):
    """A whole HTTP answer, for those parts that stand before Litestar."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


def invalid_field(field: str, rule: str) -> RequestError:
    """422 for one field; `rule` says what it takes."""
    return RequestError(
        422, "a field has a value that it does not take", errors=[{"field": field, "rule": rule}]
    )


def database_away() -> RequestError:
    """503: the caller may try again."""
    return RequestError(
        503, "the database cannot be reached, or takes too long to answer", retry_after=RETRY_AFTER_S
    )


def problem(error: RequestError) -> Answer:
    """The answer that says this error."""
    extra = dict(error.extra)
    headers = [
        ("content-type", CONTENT_TYPE),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
    ]
    if error.status == 401:
        headers.append(("www-authenticate", 'Bearer realm="counterfoil"'))
    if "retry_after" in extra:
        headers.append(("retry-after", str(extra.pop("retry_after"))))
    if "allow" in extra:
        headers.append(("allow", str(extra.pop("allow"))))
    title = HTTPStatus(error.status).phrase
    body = msgspec.json.encode(
        {"type": "about:blank", "title": title, "status": error.status, "detail": error.detail, **extra}
    )
    headers.append(("content-length", str(len(body))))
    return Answer(error.status, tuple((name.encode(), value.encode()) for name, value in headers), body)


def handle_error(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar's handler of exceptions; what is no refusal is logged, and answered without its insides."""
    refusal = refusal_of(error)
    if refusal is None:
        log.error("request_failed", method=request.method, path=request.scope["path"], exc_info=error)
        refusal = RequestError(500, "the server failed on this request; its log says why")
    elif refusal.status == 503 and "retry_after" in refusal.extra:  # else it is as the operator wants it
        log.warning(
            "request_unavailable",
            method=request.method,
            path=request.scope["path"],
            reason=repr(error.__cause__ or error),
        )
    answer = problem(refusal)
    headers = {name.decode(): value.decode() for name, value in answer.headers if name != b"content-length"}
    return Response(answer.body, status_code=answer.status, media_type=CONTENT_TYPE, headers=headers)


def refusal_of(error: Exception) -> RequestError | None:
    """What an exception tells the caller; None for a fault of ours."""
    match error:
        case RequestError():
            return error
        case ValidationException():
            return _invalid_parameters(error)
        case HTTPException() if error.status_code < 500:
            return RequestError(error.status_code, error.detail, **_allowed_methods(error))
        case msgspec.ValidationError():
            return _invalid_body(error)
        case msgspec.DecodeError() | UnicodeDecodeError():
            return RequestError(400, "the body is not one JSON document in UTF-8")
    return database_away() if is_away(error) else None


def is_away(error: BaseException) -> bool:
    """True when the database is not there, or cannot serve this now."""
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate:
        return error.sqlstate.startswith(_AWAY_CLASSES) or error.sqlstate == "25006"
    return isinstance(error, (*UNREACHABLE, DependencyUnreachable, TransientFailure))


def _allowed_methods(error: HTTPException) -> dict[str, str]:
    allow = (error.headers or {}).get("allow")
    return {"allow": allow} if allow else {}


def _invalid_parameters(error: ValidationException) -> RequestError:
    found: Sequence[Any] = error.extra if isinstance(error.extra, list) else [error.extra]
    errors = [
        {"field": _parameter_name(entry), "rule": str(entry.get("message", ""))}
        for entry in found
        if isinstance(entry, dict)
    ]
    return RequestError(422, "a parameter has a value that it does not take", errors=errors)


def _parameter_name(entry: dict[str, Any]) -> str:
    name = str(entry.get("key", ""))
    return name.replace("_", "-").title() if entry.get("source") == "header" else name


def _invalid_body(error: msgspec.ValidationError) -> RequestError:
    message = str(error)
    if place := _PLACE.match(message):
        return invalid_field(place["field"], place["rule"])
    if unknown := _UNKNOWN.match(message):
        return invalid_field(unknown["field"], "is not a field of this request")
    if missing := _MISSING.match(message):
        return invalid_field(missing["field"], "is required")
    return invalid_field("", message)
