"""The central promise: the tables are a function of the set of events alone.

Not of their order, doubles, batches, partitions, workers, or of where a worker is killed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counterfoil.database.counters import find_drift
from counterfoil.errors import TransientFailure
from counterfoil.ingest.partitions import Partition
from counterfoil.ingest.positions import Positions
from counterfoil.ingest.records import Record
from counterfoil.routing import COUNTERS
from support.builders import CANCELED, PLACED, a_record
from support.contract_model import model, stored
from support.postgres_ledgers import empty
from support.postgres_road import Scribe, scribes

order_ids = st.sampled_from(["1", "2", "3"])
times = st.sampled_from([f"2026-03-01T12:00:0{second}Z" for second in range(3)])
codes = st.sampled_from(["A", "B", "C"])
amounts = st.sampled_from(["0", "1.5", "2"])
entries = st.fixed_dictionaries({"code": codes}, optional={"base_reward": amounts, "bonus_amount": amounts})
placed = st.fixed_dictionaries(
    {"order_id": order_ids, "timestamp": times},
    optional={
        "codes": st.lists(codes, max_size=3),
        "promotions": st.lists(entries, min_size=1, max_size=3),
        "customer_address": st.sampled_from(["0xa", "0xB", "é"]),
        "shop_id": st.sampled_from(["s1", "S2"]),
    },
)
canceled = st.fixed_dictionaries(
    {"order_id": order_ids, "timestamp": times, "canceled": st.just(True)},
    optional={"reason": st.sampled_from(["a", "B", ""])},
)
facts = st.lists(st.one_of(placed, placed, canceled), min_size=1, max_size=10)


@dataclass(frozen=True)
class Schedule:
    """How a set of events reaches the tables; everything is drawn from the seed."""

    seed: int
    partitions: int
    crashes: bool
    batch: int = 6

    def log(self, documents: list[dict]) -> dict[Partition, list[Record]]:
        """The events shuffled, some of them doubled, with a few malformed records between, as logs."""
        dice = random.Random(self.seed)
        sent = [*documents, *dice.choices(documents, k=dice.randrange(len(documents) + 1))]
        dice.shuffle(sent)
        logs: dict[Partition, list[Record]] = {
            Partition(topic, n): []
            for topic in (PLACED.topic, CANCELED.topic)
            for n in range(self.partitions)
        }
        for document in sent:
            topic = CANCELED.topic if "canceled" in document else PLACED.topic
            log = logs[Partition(topic, dice.randrange(self.partitions))]
            self._append(log, topic, json.dumps(document).encode(), logs)
            if dice.random() < 0.1:
                self._append(log, topic, b"not json", logs)
        return logs

    @staticmethod
    def _append(log: list[Record], topic: str, value: bytes, logs: dict[Partition, list[Record]]) -> None:
        partition = next(p.partition for p, records in logs.items() if records is log)
        log.append(a_record(len(log), value, topic=topic, partition=partition))

    def steps(self) -> Iterator[random.Random]:
        """What decides on each step."""
        dice = random.Random(~self.seed)
        while True:
            yield dice


schedules = st.builds(
    Schedule, seed=st.integers(0, 2**32), partitions=st.integers(1, 2), crashes=st.booleans()
)


async def run(
    schedule: Schedule, documents: list[dict], workers: list[Scribe]
) -> dict[Partition, list[Record]]:
    """Write the logs to their ends, a worker's batch after another's, with crashes on the way."""
    logs = schedule.log(documents)
    for worker in workers:
        worker.states.clear()
        await worker.hold(logs)
    at = dict.fromkeys(logs, 0)
    for dice in schedule.steps():
        due = [p for p in logs if at[p] < len(logs[p])]
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


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents=facts, one=schedules, other=schedules)
async def test_any_schedule_of_a_set_of_events_ends_in_the_same_tables(
    db, database_url, documents, one, other
):
    expected = model(documents)
    async with scribes(database_url, 2) as workers:
        for schedule in (one, other):
            await empty(db)
            logs = await run(schedule, documents, workers)
            assert await stored(db) == expected
            assert await find_drift(db, COUNTERS) == []
            assert await accounts_close(db, logs)


async def test_many_events_in_one_schedule_end_in_the_tables_of_the_model(db, database_url):
    """The same with more orders than the small alphabets have, and long batches."""
    dice = random.Random(7)
    documents = [
        {
            "order_id": str(dice.randrange(800)),
            "timestamp": f"2026-03-01T12:00:{dice.randrange(60):02}Z",
            **(
                {"canceled": True, "reason": dice.choice(["a", "b"])}
                if dice.random() < 0.2
                else {
                    "codes": dice.sample("ABCDEFGH", k=3),
                    "promotions": [{"code": dice.choice("PQ"), "bonus_amount": str(dice.randrange(5))}],
                }
            ),
        }
        for _ in range(3_000)
    ]
    async with scribes(database_url, 2) as workers:
        logs = await run(Schedule(seed=11, partitions=2, crashes=True, batch=400), documents, workers)
    assert await stored(db) == model(documents)
    assert await find_drift(db, COUNTERS) == []
    assert await accounts_close(db, logs)
