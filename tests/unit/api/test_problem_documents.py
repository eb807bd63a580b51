"""What each exception tells the caller."""

from __future__ import annotations

import json

import asyncpg
import msgspec
import pytest
from litestar.exceptions import NotFoundException

from counterfoil.api.problems import problem, refusal_of
from counterfoil.errors import DependencyUnreachable, RequestError, TransientFailure


class Body(msgspec.Struct, forbid_unknown_fields=True):
    code: str
    items: list[int] = []


def decoding_error(text: bytes) -> Exception:
    with pytest.raises(msgspec.DecodeError) as caught:
        msgspec.json.decode(text, type=Body)
    return caught.value


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (b'{"code":1}', "code"),
        (b"{}", "code"),
        (b'{"code":"a","x":1}', "x"),
        (b'{"code":"a","items":["b"]}', "items[0]"),
        (b"[]", ""),
    ],
)
def test_a_broken_field_is_422_and_named(text: bytes, field: str) -> None:
    refusal = refusal_of(decoding_error(text))
    assert refusal is not None
    assert refusal.status == 422
    (error,) = json.loads(problem(refusal).body)["errors"]
    assert error["field"] == field
    assert error["rule"]


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b'{"code":"a"} x', b'{"code":"\\ud800"}'])
def test_unreadable_json_is_400(text: bytes) -> None:
    refusal = refusal_of(decoding_error(text))
    assert refusal is not None
    assert refusal.status == 400


@pytest.mark.parametrize(
    "error",
    [
        OSError("no route"),
        TimeoutError(),
        asyncpg.ConnectionDoesNotExistError("gone"),
        asyncpg.InterfaceError("pool is closing"),
        asyncpg.AdminShutdownError("bye"),
        asyncpg.TooManyConnectionsError("full"),
        asyncpg.DeadlockDetectedError("again"),
        asyncpg.QueryCanceledError("slow"),
        asyncpg.ReadOnlySQLTransactionError("standby"),
        DependencyUnreachable("away"),
        TransientFailure("away"),
    ],
)
def test_an_absent_database_is_503_with_retry_after(error: Exception) -> None:
    refusal = refusal_of(error)
    assert refusal is not None
    answer = problem(refusal)
    assert answer.status == 503
    assert (b"retry-after", b"5") in answer.headers
    assert b"retry_after" not in answer.body


@pytest.mark.parametrize(
    "error", [KeyError("x"), asyncpg.UndefinedTableError("x"), asyncpg.CheckViolationError("x")]
)
def test_a_fault_of_ours_is_no_refusal(error: Exception) -> None:
    assert refusal_of(error) is None


def test_a_problem_holds_the_members_of_rfc_9457() -> None:
    answer = problem(RequestError(401, "takes a token", hint="see the docs"))
    assert json.loads(answer.body) == {
        "type": "about:blank",
        "title": "Unauthorized",
        "status": 401,
        "detail": "takes a token",
        "hint": "see the docs",
    }
    headers = dict(answer.headers)
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"www-authenticate"].startswith(b"Bearer")


def test_litestars_refusals_keep_their_status() -> None:
    refusal = refusal_of(NotFoundException())
    assert refusal is not None
    assert refusal.status == 404
