"""Dead letters: parked once with their bytes, listed, shown, and sent down the road again."""

from __future__ import annotations

import asyncio
import sys

import asyncpg
import pytest

from counterfoil.database.queries import sql
from counterfoil.errors import HaltingFailure, TransientFailure
from counterfoil.events import OrderPlaced, Rules
from counterfoil.ingest import dead_letters
from counterfoil.ingest.dead_letters import Chosen, measure, next_ids
from counterfoil.ingest.records import Malformed, headers_from_json
from counterfoil.ingest.retry import Retried, retry_dead_letter
from counterfoil.routing import routes, routes_by_topic
from support.builders import NOON, a_click_event, a_promotion, a_record, an_order
from support.postgres_ledgers import a_promo_code, connections, coupon_counts, promo_counts, waits_for_a_lock
from support.postgres_road import CLUSTER, plain_settings
from support.told import a_notification

KNOWN = {route.topic: (route, Rules.of(plain_settings())) for route in routes(plain_settings(), b"key")}


async def parked(db, value: bytes | None = b"not json", offset: int = 0, **fields) -> int:
    """Park one record; its id."""
    await dead_letters.park(
        db, CLUSTER, [Malformed(a_record(offset, value, **fields), "not_json", "must be JSON")]
    )
    return await db.fetchval("SELECT max(id) FROM dead_letters")


async def letter(db, letter_id: int) -> asyncpg.Record:
    return await db.fetchrow(sql("show_dead_letter"), letter_id)


@pytest.mark.parametrize("value", [None, b"", b"\0\xff\xfe", b"{}" * 100_000, "é".encode()])
@pytest.mark.parametrize("key", [None, b"", b"\xff"])
async def test_a_record_is_kept_with_its_bytes_as_they_came(db, value, key):
    headers = [("a", b"text"), ("a", None), ("b", b"\xff\0"), ("", b"")]
    kept = await letter(db, await parked(db, value, key=key, headers=headers))
    assert (kept["value"], kept["key"], kept["record_timestamp"]) == (value, key, NOON)
    assert headers_from_json(kept["headers"]) == headers
    assert (kept["error_kind"], kept["error"], kept["resolved_at"]) == ("not_json", "must be JSON", None)


async def test_a_record_is_parked_once_and_another_log_at_its_place_is_another_record(db):
    first = await parked(db, b"one")
    assert await parked(db, b"two") == first
    assert await parked(db, b"two", timestamp=5) > first
    assert (await letter(db, first))["value"] == b"one"
    assert await db.fetchval("SELECT count(*) FROM dead_letters") == 2


async def test_an_endless_reason_is_cut(db):
    await dead_letters.park(db, CLUSTER, [Malformed(a_record(), "invalid_field", "x" * 10_000)])
    assert await db.fetchval("SELECT length(error) FROM dead_letters") == dead_letters.ERROR_LENGTH


async def test_parked_records_are_listed_newest_first_and_filtered(db):
    first, second = await parked(db, offset=1), await parked(db, offset=2, topic="order.canceled")
    await db.execute(
        "UPDATE dead_letters SET error_kind = 'missing_field', first_seen_at = '2020-01-01Z' WHERE id = $1",
        second,
    )
    await db.execute("UPDATE dead_letters SET resolved_at = now() WHERE id = $1", await parked(db, offset=3))

    async def listed(*filters, resolved=False, limit=10, offset=0):
        found = [
            [row["id"] for row in await db.fetch(sql(name), *filters, resolved, limit, offset, 100)]
            for name in ("list_dead_letters", "list_dead_letters_in_short")
        ]
        assert found[0] == found[1]
        return found[0]

    assert await listed(None, None, None, None) == [second, first]
    assert len(await listed(None, None, None, None, resolved=True)) == 3
    assert await listed("order.canceled", None, None, None) == [second]
    assert await listed(None, "not_json", None, None) == [first]
    assert await listed(None, None, NOON, None) == [first]
    assert await listed(None, None, None, NOON) == [second]
    assert await listed(None, None, None, None, limit=1, offset=1) == [first]
    assert await measure(db, Chosen()) == (2, second)
    assert await measure(db, Chosen(since=NOON)) == (1, first)
    assert await next_ids(db, Chosen(), 0, second, 10) == [first, second]
    assert await next_ids(db, Chosen(), first, second, 10) == [second]
    assert await next_ids(db, Chosen(kind="not_json"), 0, second, 10) == [first]


async def test_a_retried_record_that_is_right_now_is_applied(db):
    order = an_order("1", codes=["A"], promotions=[a_promotion("P")])
    letter_id = await parked(db, order.to_json(), offset=77)
    assert await retry_dead_letter(db, letter_id, KNOWN) == Retried(letter_id, "applied")
    assert await coupon_counts(db) == {"A": (1, 1), "P": (1, 1)}
    assert await promo_counts(db) == {"P": (1, 5)}
    kept = await letter(db, letter_id)
    assert (kept["resolution"], kept["resolved_at"] is None, kept["value"]) == (
        "applied",
        False,
        order.to_json(),
    )
    assert await db.fetchval("SELECT source_offset FROM affiliate_coupon_usages LIMIT 1") == 77


async def test_a_retried_record_without_a_time_of_its_own_has_the_records(db):
    await retry_dead_letter(db, await parked(db, b'{"id": 1, "codes": ["A"]}'), KNOWN)
    assert await db.fetchval("SELECT occurred_at FROM affiliate_coupon_usages") == NOON


async def test_a_retried_record_that_says_nothing_new_is_a_duplicate(db):
    await db.execute(
        "INSERT INTO affiliate_coupon_usages (order_id, code, occurred_at) VALUES ('1', 'A', '2020-01-01Z')"
    )
    letter_id = await parked(db, an_order("1", codes=["A"]).to_json())
    assert (await retry_dead_letter(db, letter_id, KNOWN)).outcome == "duplicate"
    assert await coupon_counts(db) == {"A": (1, 1)}


async def test_a_retried_record_that_is_still_wrong_is_refused_with_the_reason_of_today(db):
    letter_id = await parked(db, b'{"codes": ["A"]}')
    retried = await retry_dead_letter(db, letter_id, KNOWN)
    kept = await letter(db, letter_id)
    assert retried == Retried(letter_id, "refused", kept["error"])
    assert "order_id" in kept["error"]
    assert kept["error_kind"] != "not_json"
    assert (kept["resolved_at"], kept["retried_at"] is None) == (None, False)


async def test_a_retried_record_of_a_topic_that_nobody_reads_is_refused(db):
    letter_id = await parked(db, topic="another.topic")
    assert (await retry_dead_letter(db, letter_id, KNOWN)).outcome == "refused"
    assert (await letter(db, letter_id))["error_kind"] == "unknown_topic"


async def test_a_retried_record_that_the_database_refuses_is_refused_and_leaves_nothing(db):
    await a_promo_code(db, "P")
    await db.execute("ALTER TABLE promo_code_uses ADD CONSTRAINT no_such_bonus CHECK (bonus_amount <> 5)")
    letter_id = await parked(db, an_order("1", codes=["A"], promotions=[a_promotion("P", bonus=5)]).to_json())
    assert await retry_dead_letter(db, letter_id, KNOWN) == Retried(
        letter_id, "refused", "23514 no_such_bonus"
    )
    assert await coupon_counts(db) == {}


async def test_a_retried_click_older_than_its_ledger_is_refused_under_a_kind_of_its_own(db):
    await db.execute("INSERT INTO ledger_bounds VALUES ('aff_clicks', '2026-04-01Z')")
    letter_id = await parked(db, a_click_event(click_id="1").to_json(), topic="click")
    assert await retry_dead_letter(db, letter_id, KNOWN) == Retried(
        letter_id, "refused", "what occurred before 2026-04-01 is closed"
    )
    assert (await letter(db, letter_id))["error_kind"] == "before_retention"


async def test_a_record_that_is_resolved_or_unknown_is_gone(db):
    letter_id = await parked(db, an_order("1", codes=["A"]).to_json())
    await retry_dead_letter(db, letter_id, KNOWN)
    for gone in (letter_id, 424242):
        assert (await retry_dead_letter(db, gone, KNOWN)).outcome == "gone"


async def test_two_retries_at_once_apply_a_record_once(db, database_url):
    letter_id = await parked(db, an_order("1", codes=["A"]).to_json())
    async with connections(database_url, 2) as (one, other):
        held = one.transaction()
        await held.start()
        first = await retry_dead_letter(one, letter_id, KNOWN)
        waiting = asyncio.create_task(retry_dead_letter(other, letter_id, KNOWN))
        await waits_for_a_lock(db, other)
        await held.commit()
        second = await waiting
    assert [first.outcome, second.outcome] == ["applied", "gone"]
    assert await coupon_counts(db) == {"A": (1, 1)}


async def test_an_outage_in_a_retry_is_no_refusal(db, database_url):
    letter_id = await parked(db, an_order("1", codes=["A"]).to_json())
    async with connections(database_url, 1, statement_timeout="100") as (slow,), db.transaction():
        await db.execute("LOCK TABLE affiliate_coupon_usages IN EXCLUSIVE MODE")
        with pytest.raises(TransientFailure, match="57014"):
            await retry_dead_letter(slow, letter_id, KNOWN)
    kept = await letter(db, letter_id)
    assert (kept["resolved_at"], kept["error"]) == (None, "must be JSON")


async def test_a_missing_table_in_a_retry_halts(db):
    letter_id = await parked(db, an_order("1", codes=["A"]).to_json())
    await db.execute("ALTER TABLE affiliate_coupon_usages RENAME TO gone")
    with pytest.raises(HaltingFailure, match="42P01"):
        await retry_dead_letter(db, letter_id, KNOWN)


async def test_a_decoder_that_breaks_over_a_record_refuses_it(db, monkeypatch):
    """As on the road, where whatever a record does to its decoder is the record's."""
    letter_id = await parked(db, an_order("1", codes=["A"]).to_json())
    route, rules = KNOWN[OrderPlaced.topic]

    def broken(*_):
        raise RecursionError

    from dataclasses import replace

    retried = await retry_dead_letter(db, letter_id, {route.topic: (replace(route, decode=broken), rules)})
    assert retried.outcome == "refused"


async def test_only_an_alert_that_is_retried_asks_for_the_channels(db, monkeypatch):
    monkeypatch.setitem(sys.modules, "apprise", None)  # the extra is not installed
    known = routes_by_topic(plain_settings(notify_urls="json://127.0.0.1:9"), b"key")
    order = await parked(db, b'{"id": 1, "codes": ["A"]}')
    assert (await retry_dead_letter(db, order, known)).outcome == "applied"
    alert = await parked(db, a_notification("a-1").payload.encode(), offset=1, topic="low-stock", key=b"A-1")
    refused = await retry_dead_letter(db, alert, known)
    assert refused.outcome == "refused"
    assert "takes the extra notify" in refused.reason
    monkeypatch.undo()
    assert (await retry_dead_letter(db, alert, known)).outcome == "applied"
    assert (await db.fetchval("SELECT channel FROM notifications")).startswith("json-")
