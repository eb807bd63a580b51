"""The long form of the whole claim: a log of a million records of every topic."""

from __future__ import annotations

import os

import asyncpg
import pytest

from support.proof import Proof
from support.servers import Broker, StartWorker
from support.stream import Stream

RECORDS = int(os.environ.get("COUNTERFOIL_SOAK_EVENTS", "1_000_000"))


@pytest.mark.slow
async def test_soak_a_million_records_can_be_checked_healed_and_rebuilt(
    broker: Broker, topic_prefix: str, db: asyncpg.Connection, database_url: str, start_worker: StartWorker
) -> None:
    async with Stream(broker, topic_prefix) as stream:
        await Proof(stream, db, database_url, RECORDS, within=3_600).holds(start_worker)
