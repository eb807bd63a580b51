"""The short form of the whole claim; its long form is in tests/faults/test_soak_replay.py."""

from __future__ import annotations

import asyncpg

from support.proof import Proof
from support.servers import Broker, StartWorker
from support.stream import Stream

RECORDS = 6_000


async def test_a_log_of_everything_can_be_checked_healed_and_rebuilt(
    broker: Broker, topic_prefix: str, db: asyncpg.Connection, database_url: str, start_worker: StartWorker
) -> None:
    async with Stream(broker, topic_prefix) as stream:
        await Proof(stream, db, database_url, RECORDS, within=120).holds(start_worker)
