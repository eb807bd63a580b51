"""How rows get into a ledger: by COPY, beside known keys, by merge; the rows and the answer are the same."""

from __future__ import annotations

import random
from decimal import Decimal

import asyncpg
import pytest

from counterfoil.coupons.store import COUPON_USAGES
from counterfoil.database import ledger as ledger_module
from counterfoil.database.ledger import COPY_SLICE, MERGES_AFTER_CONFLICT, Ledger
from counterfoil.promos.store import PROMO_USES, hold_promo_codes
from support.builders import NOON, later
from support.postgres_ledgers import a_promo_code, assert_counters_equal_ledgers, coupon_counts, promo_counts


@pytest.fixture
def db(shared_db):
    """Each test here works in one transaction that is rolled back."""
    return shared_db


class Watched(Ledger):
    """A ledger that tells which ways its rows went."""

    def __init__(self, table=COUPON_USAGES) -> None:
        super().__init__(table)
        self.ways: list[str] = []

    async def _copy(self, connection, rows):
        done = await super()._copy(connection, rows)
        self.ways.append("copy" if done else "conflict")
        return done

    async def _merge(self, connection, rows):
        self.ways.append("merge")
        return await super()._merge(connection, rows)


def usages(*keys, at=NOON):
    return sorted((order_id, code, at, 1, 7) for order_id, code in keys)


def keys_of(rows):
    return {row[:2] for row in rows}


async def times(db):
    rows = await db.fetch("SELECT order_id, code, occurred_at FROM affiliate_coupon_usages")
    return {(r["order_id"], r["code"]): r["occurred_at"] for r in rows}


MANY = [(str(n), "A" if n % 2 else "B") for n in range(10)]
OLD, NEW = MANY[:2], MANY[2:]


async def in_the_ledger_of_another(db, rows):
    await Ledger(COUPON_USAGES).write(db, rows)


async def by_copy(db, ledger):
    """Nothing is known of the keys, and none is there."""


async def by_known_keys(db, ledger):
    """Two of ten keys were written by this worker."""
    await ledger.write(db, usages(*OLD, at=later(5)))


async def by_conflict(db, ledger):
    """Two of ten keys were written by another worker."""
    await in_the_ledger_of_another(db, usages(*OLD, at=later(5)))


async def by_merge_due(db, ledger):
    """A conflict was met shortly before."""
    await in_the_ledger_of_another(db, usages(*OLD, at=later(5)))
    await ledger.write(db, usages(OLD[0], at=later(5)))


async def by_a_replay(db, ledger):
    """More than half of the keys were written by this worker."""
    await ledger.write(db, usages(*MANY[:8], at=later(5)))


WAYS = {
    by_copy: (["copy"], set()),
    by_known_keys: (["copy"], set(OLD)),
    by_conflict: (["conflict", "merge"], set(OLD)),
    by_merge_due: (["merge"], set(OLD)),
    by_a_replay: (["copy"], set(MANY[:8])),
}

SURPRISED = (by_known_keys, by_a_replay)
"""Ways on which a row that was thought to be new is there, at a later time: only an earlier one can tell."""


@pytest.mark.parametrize("prepare", WAYS)
@pytest.mark.parametrize("shift", [-1, 0, 1], ids=["earlier", "same time", "later"])
async def test_on_every_path_the_earlier_time_stands_and_the_answer_is_what_changed_nothing(
    db, prepare, shift
):
    ledger = Watched()
    await prepare(db, ledger)
    ledger.ways.clear()
    old = WAYS[prepare][1]
    unchanged = await ledger.write(db, usages(*MANY, at=later(5 + shift)))
    surprised = shift < 0 and prepare in SURPRISED
    assert ledger.ways == (["conflict", "merge"] if surprised else WAYS[prepare][0])
    assert unchanged == (set() if shift < 0 else old)
    assert await times(db) == {
        key: later(5 + min(shift, 0)) if key in old else later(5 + shift) for key in MANY
    }
    await assert_counters_equal_ledgers(db)


async def test_an_earlier_time_takes_its_source_along(db):
    ledger = Ledger(COUPON_USAGES)
    await ledger.write(db, [("1", "A", later(5), 1, 10)])
    assert await ledger.write(db, [("1", "A", NOON, 2, 20)]) == set()
    row = await db.fetchrow("SELECT source_id, source_offset FROM affiliate_coupon_usages")
    assert tuple(row) == (2, 20)


@pytest.mark.parametrize("table", [COUPON_USAGES, PROMO_USES], ids=lambda table: table.table)
async def test_no_rows_are_no_work(db, table):
    assert await Ledger(table).write(db, []) == set()


async def test_a_batch_wholly_known_is_a_duplicate_each_time_it_comes(db):
    ledger = Watched()
    rows = usages(*MANY)
    assert await ledger.write(db, rows) == set()
    for _ in range(3):
        assert await ledger.write(db, rows) == keys_of(rows)
    assert await coupon_counts(db) == {"A": (5, 5), "B": (5, 5)}


async def test_after_a_conflict_some_batches_are_merged_and_then_copied_again(db):
    ledger = Watched()
    await in_the_ledger_of_another(db, usages(*[(f"c{n}", "A") for n in range(40)]))
    await ledger.write(db, usages(("c0", "A"), ("f0", "A"), ("f1", "A")))
    for n in range(MERGES_AFTER_CONFLICT):
        await ledger.write(db, usages((f"c{n + 1}", "A"), (f"g{n}", "A"), (f"h{n}", "A")))
    await ledger.write(db, usages(("i", "A")))
    assert ledger.ways == ["conflict", "merge", *["merge"] * MERGES_AFTER_CONFLICT, "copy"]


async def test_a_merge_without_old_keys_ends_the_merging(db):
    ledger = Watched()
    await in_the_ledger_of_another(db, usages(("1", "A")))
    await ledger.write(db, usages(("1", "A"), ("2", "A"), ("3", "A")))
    await ledger.write(db, usages(("4", "A")))
    await ledger.write(db, usages(("5", "A")))
    assert ledger.ways == ["conflict", "merge", "merge", "copy"]


async def test_keys_of_a_rolled_back_transaction_are_written_when_they_come_again(db):
    ledger = Ledger(COUPON_USAGES)
    attempt = db.transaction()
    await attempt.start()
    await ledger.write(db, usages(*MANY))
    await attempt.rollback()
    assert await ledger.write(db, usages(*MANY)) == set()
    assert await coupon_counts(db) == {"A": (5, 5), "B": (5, 5)}


async def test_what_is_forgotten_is_found_by_the_conflict(db, monkeypatch):
    monkeypatch.setattr(ledger_module, "REMEMBERED", 5)
    ledger = Ledger(COUPON_USAGES)
    for n in range(6):
        await ledger.write(db, usages(*[(f"{n}.{m}", "A") for m in range(6)]))
    assert await ledger.write(db, usages(("0.0", "A"), ("new", "A"))) == {("0.0", "A")}
    assert await coupon_counts(db) == {"A": (37, 37)}


async def test_more_rows_than_a_slice_go_in_by_one_copy(db):
    ledger = Watched()
    assert await ledger.write(db, usages(*[(str(n), "A") for n in range(3 * COPY_SLICE + 1)])) == set()
    assert ledger.ways == ["copy"]
    assert await coupon_counts(db) == {"A": (3 * COPY_SLICE + 1,) * 2}


async def test_an_error_other_than_a_known_key_is_the_callers(db):
    with pytest.raises(asyncpg.CheckViolationError) as caught:
        async with db.transaction():
            await Ledger(COUPON_USAGES).write(db, usages(("", "A")))
    assert caught.value.constraint_name == "order_id_not_blank"


# Promo uses: the earlier content, then the smaller one


def use(promo, *, at=NOON, bonus=5, base=1, address="a", shop="s", order_id="1"):
    bonus, base = Decimal(bonus), Decimal(base)
    return (order_id, promo, at, bonus, base, address, shop, base + bonus, 1, 7)


CONTENTS = [
    {"at": NOON, "bonus": 9},
    {"at": later(1), "bonus": 0, "base": 0},
    {"at": later(1), "bonus": 0, "base": 2, "address": None},
    {"at": later(1), "bonus": 0, "base": 2, "shop": None},
    {"at": later(1), "bonus": 0, "base": 2, "shop": "B"},
    {"at": later(1), "bonus": 0, "base": 2, "shop": "a"},
    {"at": later(1), "bonus": 0, "base": 2, "address": "É", "shop": None},
    {"at": later(1), "bonus": 1},
]
"""In the order in which they stand before one another."""


@pytest.mark.parametrize("way", ["one worker", "another worker"])
async def test_of_contents_that_differ_the_first_stands_in_any_order(db, way):
    promo = await a_promo_code(db)
    for seed in range(12):
        order_id = f"order {seed}"
        contents = [use(promo, order_id=order_id, **content) for content in CONTENTS]
        random.Random(seed).shuffle(contents)
        ledger = Ledger(PROMO_USES)
        for content in contents:
            await (ledger if way == "one worker" else Ledger(PROMO_USES)).write(db, [content])
        row = await db.fetchrow(
            "SELECT occurred_at, bonus_amount FROM promo_code_uses WHERE order_id = $1", order_id
        )
        assert tuple(row) == (NOON, 9)
    assert await promo_counts(db) == {"SPRING": (12, 12 * 9)}


@pytest.mark.parametrize("better", range(len(CONTENTS) - 1))
async def test_a_content_that_stands_before_another_replaces_it_and_is_never_replaced_by_it(db, better):
    promo = await a_promo_code(db)
    first, second = (use(promo, **CONTENTS[n]) for n in (better, better + 1))
    assert await Ledger(PROMO_USES).write(db, [second]) == set()
    assert await Ledger(PROMO_USES).write(db, [first]) == set()
    assert await Ledger(PROMO_USES).write(db, [first]) == {("1", promo)}
    assert await Ledger(PROMO_USES).write(db, [second]) == {("1", promo)}
    assert (await promo_counts(db))["SPRING"] == (1, first[3])


async def test_promo_codes_are_made_once_and_found_again(db):
    ids = await hold_promo_codes(db, ["B", "A", "B"])
    assert await hold_promo_codes(db, ["A", "C", "B"]) == ids | {
        "C": await db.fetchval("SELECT max(id) FROM promo_codes")
    }


async def test_a_promo_code_made_by_hand_with_an_id_does_not_stop_new_ones(db):
    """An import, or the write-up's `promo_code_id = 1`: the sequence knows nothing of such ids."""
    following = await db.fetchval("SELECT nextval(pg_get_serial_sequence('promo_codes', 'id'))") + 1
    await db.execute("INSERT INTO promo_codes (id, code) VALUES ($1, 'BY HAND')", following)
    ids = await hold_promo_codes(db, ["NEW"])
    assert ids["NEW"] != following


async def test_copied_usages_are_read_back_as_they_went_in(db):
    rows = sorted(
        (order, code, at, source, offset)
        for order, code, at, source, offset in [
            ("1", "A", NOON, 1, 0),
            ("été-\U0001f600", "ÄÖ", later(0.000001), 2**31 - 1, 2**63 - 1),
            ("x" * 255, "€" * 255, later(59.999999), 3, 12_345_678_901),
        ]
    )
    assert await Ledger(COUPON_USAGES).write(db, rows) == set()
    found = await db.fetch(
        "SELECT order_id, code, occurred_at, source_id, source_offset FROM affiliate_coupon_usages "
        'ORDER BY order_id COLLATE "C"'
    )
    assert [tuple(row) for row in found] == rows
