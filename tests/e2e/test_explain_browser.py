"""`/ops/explain` in a real browser: asked for by keyboard, followed from the overview, on a phone, in the dark."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal

import asyncpg
import pytest

from support.browser import FAINT_TEXTS, running_browser, watched_page
from support.console import Served, serving, stock

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PHONE = {"width": 360, "height": 740}


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(database_url, min_size=1, max_size=8) as made:
        yield made


@pytest.fixture
async def served(pool: asyncpg.Pool) -> AsyncIterator[Served]:
    """The pages, open to this machine."""
    async with serving(pool, token=None) as started:
        yield started


@pytest.fixture
async def shop(db: asyncpg.Connection) -> asyncpg.Connection:
    """An order with a claim that lost, a refund and a commission; a coupon; a product; some of it long and hostile."""
    await db.execute("INSERT INTO default_rates (percent, valid_from) VALUES (10, '-infinity')")
    await db.execute(
        "INSERT INTO affiliates (handle, name, pixel_id) VALUES ('tech-blog', 'Tech Blog', 'p1')"
    )
    await db.execute("INSERT INTO partners (id, name) VALUES ('px', 'Ann')")
    await db.execute(
        "INSERT INTO links (id, url, named_partner_id, pixel_id, occurred_at) "
        "VALUES ('l', 'https://shop.example.com/a/very/long/path', 'px', 'p1', '2020-01-01Z')"
    )
    source = await db.fetchval(
        "INSERT INTO stream_sources (cluster_id, topic, partition) VALUES ('cluster-1', 'conversion', 3) RETURNING id"
    )
    for pixel, revenue in (("p1", "49.90"), ("p2-" + "W" * 60, "50")):
        await db.execute(
            "INSERT INTO conversions (order_id, beneficiary, pixel_id, revenue, currency, occurred_at, source_id, "
            "source_offset) VALUES ('1001', 'pixel:' || $1::text, $1, $2, 'USD', $3, $4, 123456)",
            pixel,
            Decimal(revenue),
            NOON,
            source,
        )
    await db.execute(
        "INSERT INTO order_refunds (order_id, refund_id, amount, occurred_at) VALUES ('1001', 'r-1', 10, $1)",
        NOON,
    )
    for order in ("1001", "<b>1002</b> \u202e" + "x" * 80):
        await db.execute(
            "INSERT INTO affiliate_coupon_usages (order_id, code, occurred_at) VALUES ($1, 'SPRING', $2)",
            order,
            NOON,
        )
    await db.execute("INSERT INTO affiliate_coupon_owners (code, pixel_id) VALUES ('SPRING', 'p1')")
    await db.execute(
        "INSERT INTO affiliate_coupon_adjustments (code, delta, reason) VALUES ('SPRING', 5, 'opening balance')"
    )
    await stock(db, "SKU/1 <b>", 3)
    return db


async def test_a_number_is_asked_for_by_keyboard_and_followed_to_the_record(served, shop) -> None:
    async with running_browser() as browser, watched_page(browser, served.address) as watched:
        page = watched.page
        await watched.open("/ops/explain")
        assert await page.evaluate("document.activeElement.id") == "ask-id"
        await page.keyboard.press("Shift+Tab")
        await page.keyboard.type("coupon")
        await page.keyboard.press("Tab")
        await page.keyboard.type("SPRING")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/ops/explain/coupon?id=SPRING")
        assert await page.inner_text("h1") == "Coupon SPRING"
        assert "2 usages + 5 by 1 adjustment = 7" in await page.inner_text("main")
        await page.focus("a[href='/ops/explain/order?id=1001']")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/ops/explain/order?id=1001")
        shown = await page.inner_text("main")
        assert "10 % × (49.90 − 10.00) = 3.99" in shown
        assert "conversion/3@123456" in shown
        assert "refused: same time, larger pixel" in shown
        await page.fill("#ask-at", "2026-03-01")
        await page.keyboard.press("Enter")
        watched.expect_errors("422")
        await page.get_by_role("alert").filter(has_text="RFC 3339").wait_for()


async def test_the_overview_leads_to_the_rows_behind_its_numbers(served, shop) -> None:
    async with running_browser() as browser, watched_page(browser, served.address) as watched:
        page = watched.page
        await watched.open("/ops")
        await page.get_by_role("link", name="7", exact=True).first.click()
        await page.wait_for_url("**/ops/explain/coupon")
        assert "7 in all." in await page.inner_text("main")
        await page.get_by_role("link", name="SPRING").click()
        await page.wait_for_url("**/ops/explain/coupon?id=SPRING")
        await watched.open("/ops")
        await page.get_by_role("link", name="SKU/1 <b>").first.click()
        await page.get_by_role("heading", name="SKU SKU/1 <b>").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_a_phone_and_can_be_read_in_both_schemes(served, shop, scheme) -> None:
    async with running_browser() as browser:
        options = {"viewport": PHONE, "color_scheme": scheme}
        async with watched_page(browser, served.address, **options) as watched:
            for path in (
                "",
                "/coupon",
                "/coupon?id=SPRING",
                "/order?id=1001",
                "/partner?id=px",
                "/sku?id=SKU%2F1+%3Cb%3E",
            ):
                await watched.open(f"/ops/explain{path}")
                assert await watched.page.evaluate(
                    "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
                ), path
                assert await watched.page.evaluate(FAINT_TEXTS) == [], path
