"""What stands before Litestar: probes that pay for nothing else, the gate, other origins, the limit on bodies."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any
from urllib.parse import unquote_to_bytes

from counterfoil.api.auth import Gate, announced_length, has_body
from counterfoil.api.cross_origin import ANY_ORIGIN, CrossOrigin
from counterfoil.api.health import Probes
from counterfoil.api.problems import Answer, problem
from counterfoil.errors import RequestError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]

MAX_BODY_BYTES = 16 * 1024

DRAINED_BYTES = 256 * 1024
DRAIN_S = 1.0

_CLOSE = (b"connection", b"close")


class Front:
    """The whole HTTP side as one ASGI application."""

    def __init__(self, probes: Probes, gate: Gate, cross_origin: CrossOrigin, routed: ASGIApp) -> None:
        self.probes = probes
        self._gate = gate
        self._cross_origin = cross_origin
        self._routed = routed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the lifespan."""
        if scope["type"] != "http":
            await self._routed(scope, receive, send)
            return
        answer = self.probes.answer(scope["method"], scope["path"], scope["query_string"], _accepted(scope))
        if answer is not None:
            await _send(send, answer)
            return
        if scope["method"] == "HEAD":  # the server below leaves out the body, by the scope that it has kept
            scope = {**scope, "method": "GET"}
        exchange = _Exchange(scope, receive, send, (ANY_ORIGIN,) if self._cross_origin.opens(scope) else ())
        permission = self._cross_origin.preflight(scope)
        if permission is not None:
            await _send(exchange.send, permission)
            return
        refusal = self._gate.refusal(scope) or _unreadable_path(scope)
        if refusal is None:
            await self._routed(scope, exchange.receive, exchange.send)
        else:
            await _send(exchange.send, problem(refusal))


class _Exchange:
    """One request and its answer: its body is counted as it is read, the rest thrown away before the answer.

    Where a connection is closed on a sender in the middle of its body, it is reset and the answer is lost.
    """

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, headers: tuple[tuple[bytes, bytes], ...]
    ) -> None:
        self._receive = receive
        self._send = send
        self._headers = headers
        self._read = 0
        self._ended = not has_body(scope["headers"])
        self._announced = announced_length(scope["headers"])
        self._waits_for_us = any(name == b"expect" for name, _ in scope["headers"])

    async def receive(self) -> Message:
        if self._announced > MAX_BODY_BYTES:
            raise _too_long()
        message = await self._next()
        if message["type"] == "http.disconnect" and not self._ended:
            raise RequestError(400, "the request ended within its body")
        if self._read > MAX_BODY_BYTES:
            raise _too_long()
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *self._headers]
            if not self._ended:
                await self._drain()
            if not self._ended:
                message["headers"].append(_CLOSE)
        await self._send(message)

    async def _next(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._waits_for_us = False
            self._read += len(message["body"])
            self._ended = not message["more_body"]
        return message

    async def _drain(self) -> None:
        if self._waits_for_us:  # it holds its body back until it is asked for it
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while not self._ended and self._read < DRAINED_BYTES:
                    if (await self._next())["type"] == "http.disconnect":
                        return


async def _send(send: Send, answer: Answer) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": list(answer.headers)})
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})


def _unreadable_path(scope: Scope) -> RequestError | None:
    """400 for a path that is not UTF-8: each of its other bytes would be read as the same character."""
    try:
        unquote_to_bytes(scope.get("raw_path") or b"").decode()
    except UnicodeDecodeError:
        return RequestError(400, "the path must be UTF-8, percent-encoded")
    return None


def _too_long() -> RequestError:
    return RequestError(413, f"a body must be at most {MAX_BODY_BYTES} bytes")


def _accepted(scope: Scope) -> str:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == b"accept"), "")
