"""How a set of events reaches the tables: shuffled, doubled, split into batches, with crashes on the way."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import pytest
from hypothesis import strategies as st

from counterfoil.errors import TransientFailure
from counterfoil.ingest.partitions import Partition
from counterfoil.ingest.positions import Positions
from counterfoil.ingest.records import Record, milliseconds_of
from counterfoil.settings import DEFAULT_TOPICS
from support.builders import CANCELED, NOON, PLACED, a_record
from support.postgres_road import Scribe

Interlude = Callable[[], Awaitable[object]]
"""What somebody else does between two batches."""


def topic_of(document: dict) -> str:
    """The topic that a document names, or that of an order."""
    return document.get("topic") or (CANCELED.topic if "canceled" in document else PLACED.topic)


@dataclass(frozen=True)
class Schedule:
    """How a set of events reaches the tables; everything is drawn from the seed."""

    seed: int
    partitions: int
    crashes: bool
    batch: int = 6
    sent_at: datetime = NOON

    def log(self, documents: list[dict]) -> dict[Partition, list[Record]]:
        """The events shuffled, some of them doubled, with a few malformed records between, as logs."""
        dice = random.Random(self.seed)
        sent = [*documents, *dice.choices(documents, k=dice.randrange(len(documents) + 1))]
        dice.shuffle(sent)
        logs: dict[Partition, list[Record]] = {
            Partition(topic, n): []
            for topic in DEFAULT_TOPICS
            if any(topic_of(document) == topic for document in documents)
            for n in range(self.partitions)
        }
        for document in sent:
            topic = topic_of(document)
            log = logs[Partition(topic, dice.randrange(self.partitions))]
            self._append(log, topic, json.dumps(document).encode(), logs)
            if dice.random() < 0.1:
                self._append(log, topic, b"not json", logs)
        return logs

    def _append(
        self, log: list[Record], topic: str, value: bytes, logs: dict[Partition, list[Record]]
    ) -> None:
        partition = next(p.partition for p, records in logs.items() if records is log)
        sent_at = milliseconds_of(self.sent_at)
        log.append(a_record(len(log), value, topic=topic, partition=partition, timestamp=sent_at))

    def steps(self) -> Iterator[random.Random]:
        """What decides on each step."""
        dice = random.Random(~self.seed)
        while True:
            yield dice


schedules = st.builds(
    Schedule, seed=st.integers(0, 2**32), partitions=st.integers(1, 2), crashes=st.booleans()
)


async def run(
    schedule: Schedule, documents: list[dict], workers: list[Scribe], interludes: Sequence[Interlude] = ()
) -> dict[Partition, list[Record]]:
    """Write the logs to their ends, a worker's batch after another's, with crashes and interludes on the way."""
    waiting = list(interludes)
    logs = schedule.log(documents)
    for worker in workers:
        worker.states.clear()
        await worker.hold(logs)
    at = dict.fromkeys(logs, 0)
    for dice in schedule.steps():
        due = [p for p in logs if at[p] < len(logs[p])]
        while waiting and (not due or dice.random() < 0.3):
            await waiting.pop(dice.randrange(len(waiting)))()
        if not due:
            return logs
        worker = dice.choice(workers)
        await worker.hold([p for p in due if worker.states[p].expected != at[p]])
        records = []
        for partition in dice.sample(due, k=dice.randint(1, len(due))):
            records += logs[partition][at[partition] : at[partition] + dice.randint(1, schedule.batch)]
        crash = dice.choice(["none", "none", "none", "rolled back", "unseen"]) if schedule.crashes else "none"
        if crash == "rolled back":
            with pytest.raises(TransientFailure):
                await attempt_that_breaks(worker, records)
        elif crash == "unseen":
            await worker.write_unseen(records)
            assert (await worker.write(records)).stale
            await worker.hold(due)
            at |= {p: worker.states[p].stored for p in due}
        else:
            assert not (await worker.write(records)).stale
            at |= {p: worker.states[p].stored for p in due}
    raise AssertionError


async def attempt_that_breaks(worker: Scribe, records: list[Record]) -> None:
    """Write everything of a batch, and lose the connection before the commit."""

    class Breaking(Positions):
        async def advance(self, connection, accounts):
            await super().advance(connection, accounts)
            raise ConnectionResetError("killed")

    positions = worker.positions
    worker.positions = Breaking(positions.cluster_id, positions.group)
    try:
        await worker.write(records)
    finally:
        worker.positions = positions


async def accounts_close(db, logs: dict[Partition, list[Record]]) -> bool:
    """Every record of the logs is in its partition's account, and every malformed one is parked once."""
    rows = await db.fetch("SELECT * FROM stream_positions")
    found = {Partition(r["topic"], r["partition"]): (r["next_offset"], r["dead"], r["skipped"]) for r in rows}
    malformed = {
        (*partition, record.offset)
        for partition, log in logs.items()
        for record in log
        if record.value == b"not json"
    }
    dead = {p: sum(key[:2] == p for key in malformed) for p in logs}
    parked = await db.fetch('SELECT topic, "partition", "offset" FROM dead_letters')
    assert sorted(tuple(row) for row in parked) == sorted(malformed)
    assert found == {p: (len(log), dead[p], 0) for p, log in logs.items()}
    return True
