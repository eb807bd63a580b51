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
        proof = Proof(stream, db, database_url, RECORDS, within=120)
        await proof.is_counted(start_worker)
        await proof.is_what_the_log_says()
        await proof.altered_rows_are_named_and_healed()
        await proof.replays_change_nothing()
