"""A client of an HTTP server, which speaks to it from a thread."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reply:
    """An HTTP answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """Asks one server, each request on a connection of its own."""

    port: int
    token: str | None = None

    async def get(self, path: str, **headers: str) -> Reply:
        return await self.ask("GET", path, None, headers)

    async def post(self, path: str, body: object, **headers: str) -> Reply:
        return await self.send("POST", path, body, **headers)

    async def patch(self, path: str, body: object, **headers: str) -> Reply:
        return await self.send("PATCH", path, body, **headers)

    async def send(self, method: str, path: str, body: object, **headers: str) -> Reply:
        content = body if isinstance(body, str | bytes) else json.dumps(body)
        return await self.ask(method, path, content, {"content-type": "application/json", **headers})

    async def ask(
        self, method: str, path: str, body: str | bytes | Iterable[bytes] | None, headers: dict[str, str]
    ) -> Reply:
        return await asyncio.to_thread(self._ask, method, path, body, headers)

    def _ask(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Reply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token is not None:
            named.setdefault("authorization", f"Bearer {self.token}")
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, found, answer.read())
