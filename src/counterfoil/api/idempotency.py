"""A POST with an Idempotency-Key happens once, and each repeat gets the first answer."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable

import asyncpg
import msgspec
from litestar import Response

from counterfoil.database.queries import sql
from counterfoil.errors import RequestError

Work = Callable[[], Awaitable[tuple[int, msgspec.Struct]]]
"""Does the request in the open transaction; its status and answer."""


async def answer_once(
    connection: asyncpg.Connection, key: str | None, request: object, work: Work
) -> Response[bytes]:
    """Do the work in a transaction, once for each key; raises 422 when the key was another request's.

    `request` tells requests apart: route and content. What `work` raises undoes all, the claim too.
    """
    async with connection.transaction():
        if key is None:
            return _response(*_encoded(await work()))
        fingerprint = hashlib.sha256(msgspec.json.encode(request)).hexdigest()
        if await connection.fetchval(sql("claim_idempotency_key"), key, fingerprint) is None:
            return await _repeated(connection, key, fingerprint)
        status, body = _encoded(await work())
        await connection.execute(sql("keep_idempotent_answer"), key, status, body.decode())
        return _response(status, body)


async def _repeated(connection: asyncpg.Connection, key: str, fingerprint: str) -> Response[bytes]:
    kept = await connection.fetchrow(sql("find_idempotent_answer"), key)
    if kept is None or kept["request"] != fingerprint:
        raise RequestError(422, "this Idempotency-Key was used for another request")
    return _response(kept["status"], kept["answer"].encode(), {"Idempotency-Replayed": "true"})


def _encoded(outcome: tuple[int, msgspec.Struct]) -> tuple[int, bytes]:
    status, answer = outcome
    return status, msgspec.json.encode(answer)


def _response(status: int, body: bytes, headers: dict[str, str] | None = None) -> Response[bytes]:
    return Response(body, status_code=status, media_type="application/json", headers=headers or {})
