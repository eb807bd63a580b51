"""`counterfoil replay` and `export` on the topics and the database of one test."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from counterfoil.settings import DEFAULT_TOPICS, topic_setting
from support.command import Ended, counterfoil
from support.stream import Stream


class Replayed(NamedTuple):
    """How a replay ended, what its summary says, and what it told on the way."""

    code: int
    summary: dict[str, Any]
    told: str

    def topic(self, name: str) -> dict[str, int]:
        """What it says of one topic."""
        return next(topic for topic in self.summary["topics"] if topic["topic"] == name)


class Replays:
    """Runs the commands; settings in lower case as in `code_case="upper"`."""

    def __init__(self, stream: Stream, database_url: str, within: float = 60) -> None:
        self._stream = stream
        self._within = within
        self.settings: dict[str, object] = {
            "database_url": database_url,
            "kafka_bootstrap_servers": stream.kafka.bootstrap_servers,
            "consumer_group": stream.group,
            **{topic_setting(name): stream.topic(name) for name in DEFAULT_TOPICS},
        }

    async def command(self, *arguments: str, **settings: object) -> Ended:
        """Run any command."""
        return await counterfoil(*arguments, within=self._within, **(self.settings | settings))

    async def replay(self, *arguments: str, **settings: object) -> Replayed:
        """Run `replay … --json`; AssertionError with what it said where it gives no summary."""
        ended = await self.command("replay", *arguments, "--json", **settings)
        assert ended.out.startswith("{"), ended
        return Replayed(ended.code, json.loads(ended.out), ended.err)

    async def check(self, *arguments: str, **settings: object) -> Replayed:
        """Run a check."""
        return await self.replay(*arguments, **settings)

    async def apply(self, *arguments: str, **settings: object) -> Replayed:
        """Run an apply."""
        return await self.replay(*arguments, "--mode", "apply", **settings)
