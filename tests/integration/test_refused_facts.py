"""What does not stand is kept whatever its length: the key of the table is a digest of it."""

from __future__ import annotations

import random

import pytest

from counterfoil.ingest.partitions import Partition
from support.builders import a_conversion_event, a_refund_event, later, records_of
from support.postgres_road import scribes


def long_id(seed: int) -> str:
    """The longest id, of four bytes a character, which does not compress."""
    return "".join(chr(c) for c in random.Random(seed).choices(range(0x20000, 0x2A6D0), k=255))


@pytest.mark.parametrize(
    "contents",
    [
        [
            a_conversion_event(
                order_id=long_id(1), pixel_id=long_id(2), link_id=long_id(3), click_id=long_id(4)
            ),
            a_conversion_event(
                order_id=long_id(1),
                pixel_id=long_id(2),
                link_id=long_id(5),
                click_id=long_id(6),
                timestamp=later(9),
            ),
        ],
        [
            a_refund_event(order_id=long_id(1), refund_id=long_id(2)),
            a_refund_event(order_id=long_id(1), refund_id=long_id(2), timestamp=later(9)),
        ],
    ],
    ids=["conversion", "refund"],
)
async def test_the_longest_contents_are_kept(db, database_url, contents):
    async with scribes(database_url) as (scribe,):
        partition = Partition(contents[0].topic, 0)
        for number, content in enumerate([*contents, contents[1]]):  # told again, it is kept once
            await scribe.write(records_of(content, partition=partition, first=number))
    assert await db.fetchval("SELECT count(*) FROM refused_facts") == 1
