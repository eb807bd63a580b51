"""A webhook of our own: it keeps what is posted, and answers as planned."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from support.waiting import eventually


@dataclass
class Answer:
    """What the sink says to one post, once `when` is set; never where `hangs`."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    when: asyncio.Event | None = None
    hangs: bool = False


class SlackSink:
    """`posts` are the payloads of all posts, whatever was answered, and `times` when each came."""

    def __init__(self) -> None:
        self.posts: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.answered = 0
        self.url = ""
        self._plan: list[Answer] = []
        self._closing = asyncio.Event()

    def plan(self, *answers: Answer) -> None:
        """Answer the next posts like this, and those after them with 200."""
        self._plan += answers

    @property
    def texts(self) -> list[str]:
        return [post["text"] for post in self.posts]

    async def has(self, count: int, *, deadline: float = 30.0) -> Sequence[str]:
        """Wait until so many posts have come; their texts."""
        await eventually(lambda: len(self.posts) >= count, deadline=deadline)
        return self.texts

    async def take(self, request: web.Request) -> web.Response:
        """One post."""
        self.times.append(time.monotonic())
        self.posts.append(json.loads(await request.read()))
        answer = self._plan.pop(0) if self._plan else Answer()
        if answer.hangs:
            await self._closing.wait()
        if answer.when is not None:
            await answer.when.wait()
        self.answered += 1
        return web.Response(status=answer.status, headers=answer.headers, text="ok")

    def close(self) -> None:
        """Let go of whoever waits."""
        self._closing.set()


@asynccontextmanager
async def slack_sink() -> AsyncIterator[SlackSink]:
    """A sink that listens on this machine."""
    sink = SlackSink()
    app = web.Application()
    app.router.add_post("/services/T0/B0/secret", sink.take)
    runner = web.AppRunner(app, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    _, port = runner.addresses[0][:2]
    sink.url = f"http://127.0.0.1:{port}/services/T0/B0/secret"
    try:
        yield sink
    finally:
        sink.close()
        await runner.cleanup()
