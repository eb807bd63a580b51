"""The pages in a real browser: seen, used by mouse and by keyboard, on a phone, in the dark."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio

from counterfoil.console import dead_letters
from counterfoil.console.rates import Account, Look
from support.browser import FAINT_TEXTS, Watched, running_browser, watched_page
from support.console import TOKEN, Served, park, serving, stock

if TYPE_CHECKING:
    from playwright.async_api import Browser

ORDER = b'{"order_id": "1001", "codes": ["SPRING"], "timestamp": "2026-03-01T12:00:00Z"}'

OpenPage = Callable[..., Awaitable[Watched]]


pytestmark = pytest.mark.asyncio(
    loop_scope="module"
)  # a browser takes seconds to start: one serves all tests here


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with running_browser() as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(database_url, min_size=1, max_size=8) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def db(pool: asyncpg.Pool) -> AsyncIterator[asyncpg.Connection]:
    async with pool.acquire() as connection:
        yield connection


@pytest_asyncio.fixture(loop_scope="module")
async def served(pool: asyncpg.Pool) -> AsyncIterator[Served]:
    """The pages, open to this machine."""
    async with serving(pool, token=None) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def open_page(browser: Browser) -> AsyncIterator[OpenPage]:
    """Open a page: `watched = await open_page(served, "/ops", color_scheme="dark")`; it must not complain."""
    async with AsyncExitStack() as stack:

        async def opened(served: Served, path: str, **options: object) -> Watched:
            watched = await stack.enter_async_context(watched_page(browser, served.address, **options))
            await watched.open(path)
            return watched

        yield opened


@asynccontextmanager
async def webhook_sink(status: int = 200) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A web server that takes whatever is posted; its address and the bodies."""
    bodies: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        )
        bodies.append(await reader.readexactly(length))
        writer.write(b"HTTP/1.1 %d Said\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok" % status)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook", bodies


async def text_of(watched: Watched, selector: str) -> str:
    return " ".join((await watched.page.inner_text(selector)).split())


async def says(watched: Watched, selector: str, text: str) -> None:
    """Wait until an element holds a text."""
    await watched.page.locator(selector).filter(has_text=text).first.wait_for()


async def focused(watched: Watched) -> str:
    return await watched.page.evaluate("document.activeElement.id")


async def fill_with_everything(db: asyncpg.Connection) -> None:
    """Something in each part of the page, some of it long and hostile."""
    await db.execute("INSERT INTO affiliate_coupon_adjustments (code, delta) VALUES ('A', 27770)")
    await db.execute(
        "INSERT INTO stream_positions (cluster_id, consumer_group, topic, partition, first_offset, next_offset, "
        "applied, last_record_at) SELECT 'c', 'counterfoil', 'some.topic.with.a.long.name.' || g, 0, 0, 123456789, "
        "123456789, now() FROM generate_series(1, 14) AS g"
    )
    await db.execute(
        "INSERT INTO commissions (order_id, beneficiary, cause, amount, earnings, currency, status) "
        "VALUES ('1', 'link:l', 'x', 10, 12345678901.5, 'USD', 'pending')"
    )
    await stock(db, "W" * 80, -3, name="<b>Widget</b> \u202e" + "long " * 40)
    await park(db, b'{"a": "' + b"x" * 900 + b'"}', error="e" * 250)
    await park(db, b"\xff\xfe" * 300, offset=1)
    await db.execute(
        "INSERT INTO alerts (alert_id, kind, subject, cause, payload) VALUES ('a', 'low', $1, 'x', $2)",
        "W" * 80,
        json.dumps({"name": "<b>", "stock": -3, "threshold": 10}),
    )
    await db.execute(
        "INSERT INTO notifications (alert_id, channel, status, attempts, error, topic, subject, payload, raised_at) "
        "VALUES ('a', 'email', 'failed', 9, $1, 'low-stock', 'W', '{}', now())",
        "answered 550 " + "x" * 150,
    )


async def test_who_logs_in_sees_the_page_and_who_logs_out_does_not(pool, open_page: OpenPage) -> None:
    async with serving(pool) as served:
        watched = await open_page(served, "/ops")
        page = watched.page
        assert page.url.endswith("/ops/login")
        assert await focused(watched) == "token"
        watched.expect_errors("401")
        await page.keyboard.type("wrong")
        await page.keyboard.press("Enter")
        await says(watched, "#token-error", "This is not the admin token.")
        await page.fill("#token", TOKEN)
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/ops")
        await says(watched, "#state", "Ready")
        [cookie] = await page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"], TOKEN in cookie["value"]) == (True, "Strict", False)
        await page.get_by_role("button", name="Log out").click()
        await page.wait_for_url("**/ops/login")
        await watched.open("/ops/settings")
        assert page.url.endswith("/ops/login")


async def test_with_a_session_the_buttons_work(pool, db, open_page: OpenPage) -> None:
    letter = await park(db, ORDER)
    async with serving(pool) as served:
        watched = await open_page(served, "/ops/login")
        await watched.page.fill("#token", TOKEN)
        await watched.page.keyboard.press("Enter")
        await watched.page.wait_for_url("**/ops")  # loaded, so that a click is heard
        await watched.page.click(f"#retry-{letter}")
        await says(watched, "#said", "is applied")
        await watched.page.click(f"#summary-{letter}")
        watched.expect_errors("404")  # a browser asks for the icon of what is no page of ours
        await watched.page.click(f"#whole-{letter}")
        await says(watched, "body", '"resolution":"applied"')


async def test_a_session_that_ends_leads_back_to_the_login(pool, open_page: OpenPage) -> None:
    async with serving(pool) as served:
        watched = await open_page(served, "/ops/login")
        watched.expect_errors("401")
        await watched.page.fill("#token", TOKEN)
        await watched.page.keyboard.press("Enter")
        await watched.page.wait_for_url("**/ops")
        await watched.page.context.clear_cookies()
        await watched.page.wait_for_url("**/ops/login")


async def test_the_page_renews_itself_and_keeps_what_one_is_at(
    served: Served, db, open_page: OpenPage
) -> None:
    first = await park(db, b'{"broken": ')
    watched = await open_page(served, "/ops")
    page = watched.page
    await page.evaluate("window.isTheSame = true")
    await page.click(f"#summary-{first}")
    await says(watched, f"#payload-{first} pre", '{"broken": ')
    await page.focus(f"#retry-{first}")
    second = await park(db, b"[", offset=1)
    await db.execute("INSERT INTO affiliate_coupon_adjustments (code, delta) VALUES ('A', 1234)")
    await says(watched, "#live", "1,234")
    await page.wait_for_selector(f"#letter-{second}")
    assert await page.evaluate("window.isTheSame")
    assert await focused(watched) == f"retry-{first}"
    assert await page.locator(f"#payload-{first}").get_attribute("open") is not None


async def test_numbers_change_without_moving_the_page(served: Served, db, open_page: OpenPage) -> None:
    await fill_with_everything(db)
    sampling = asyncio.create_task(served.console.sample_forever(served.console.looking._pool()))
    try:
        watched = await open_page(served, "/ops")
        await says(watched, "#live", "some.topic.with.a.long.name.1")
        await watched.page.wait_for_selector("#chart canvas")
        await watched.page.evaluate("window.shifted = 0")
        await db.execute("INSERT INTO affiliate_coupon_adjustments (code, delta) VALUES ('A', 1)")
        await says(watched, "#live", "27,771")
        assert await watched.page.evaluate("window.shifted") < 0.001
    finally:
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)


async def test_a_page_that_nobody_sees_asks_for_nothing(served: Served, open_page: OpenPage) -> None:
    watched = await open_page(served, "/ops")
    asked: list[str] = []
    watched.page.on("request", lambda request: asked.append(request.url))
    await watched.page.evaluate(
        "Object.defineProperty(document, 'hidden', { value: true, configurable: true });"
        "htmx.trigger('#live', 'refresh')"
    )
    assert [url for url in asked if "/static/" not in url] == []
    async with watched.page.expect_request("**/ops/live"):
        await watched.page.evaluate(
            "Object.defineProperty(document, 'hidden', { value: false, configurable: true });"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )


async def test_a_worker_that_is_gone_is_said_to_be(served: Served, open_page: OpenPage) -> None:
    watched = await open_page(served, "/ops")
    watched.expect_errors("ERR_FAILED", "htmx:")
    await watched.page.route("**/ops/live*", lambda route: route.abort())
    await says(watched, "#connection", "The worker cannot be reached.")
    await watched.page.unroute("**/ops/live*")
    await watched.page.wait_for_selector("#connection", state="hidden")


async def test_the_chart_is_drawn_and_goes_on(served: Served, open_page: OpenPage, db) -> None:
    start = await db.fetchval("SELECT date_trunc('second', now()) - interval '1 minute'")
    for step in range(10):
        at = start + step * (await db.fetchval("SELECT interval '2 seconds'"))
        served.console.rates.add(Look(at, {"click": Account(1_000 * step, 0, 0, 0, at)}))
    watched = await open_page(served, "/ops")
    await watched.page.wait_for_selector("#chart canvas")
    assert await watched.page.get_attribute("#chart", "data-points") == "9"
    assert "click 500" in await text_of(watched, "#live table")
    served.console.rates.add(Look(at + (at - start), {"click": Account(20_000, 0, 0, 0, at)}))
    await watched.page.wait_for_selector("#chart[data-points='10'] canvas")


async def test_a_dead_letter_is_retried_and_its_fate_shown(served: Served, db, open_page: OpenPage) -> None:
    good, bad = await park(db, ORDER), await park(db, b"{", offset=1)
    watched = await open_page(served, "/ops")
    await watched.page.click(f"#retry-{bad}")
    await says(watched, "#said", f"Dead letter {bad} is refused again")
    await says(watched, f"#letter-{bad}", "refused again")
    await watched.page.click(f"#retry-{good}")
    await says(watched, "#said", f"Dead letter {good} is applied")
    await says(watched, f"#letter-{good}", "✓ applied")
    assert await watched.page.locator(f"#retry-{good}").count() == 0
    assert await focused(watched) == f"summary-{good}"
    assert await db.fetchval("SELECT times_used FROM affiliate_coupons WHERE code = 'SPRING'") == 1


async def test_what_another_has_retried_meanwhile_is_said(served: Served, db, open_page: OpenPage) -> None:
    letter = await park(db, ORDER)
    watched = await open_page(served, "/ops")
    await watched.page.route("**/ops/live*", lambda route: route.abort())
    watched.expect_errors("409", "ERR_FAILED", "htmx:")
    await served.client.ask("POST", f"/api/dead-letters/{letter}/retry", None, {})
    await watched.page.click(f"#retry-{letter}")
    await says(watched, "#said", "This record went through already.")


async def test_a_form_says_what_is_wrong_beside_its_fields(served: Served, open_page: OpenPage) -> None:
    watched = await open_page(served, "/ops/settings")
    page = watched.page
    posted: list[str] = []
    page.on("request", lambda request: posted.append(request.url) if request.method == "POST" else None)
    await page.get_by_role("button", name="Test webhook").click()
    assert await text_of(watched, "#webhook-webhookUrl-error") == "Webhook URL is required"
    assert await focused(watched) == "webhook-webhookUrl"
    assert await page.get_attribute("#webhook-webhookUrl", "aria-invalid") == "true"
    await page.fill("#webhook-webhookUrl", "http://hooks.slack.com/services/T0")
    assert await text_of(watched, "#webhook-webhookUrl-error") == ""
    await page.keyboard.press("Enter")
    assert "must be an https address" in await text_of(watched, "#webhook-webhookUrl-error")
    await page.fill("#email-smtpHost", "mail.example.com")
    await page.fill("#email-emailFrom", "nobody")
    await page.get_by_role("button", name="Test email").click()
    assert "From must be an address" in await text_of(watched, "#email-emailFrom-error")
    assert "To is required" in await text_of(watched, "#email-emailTo-error")
    assert await focused(watched) == "email-emailFrom"
    assert posted == []


async def test_what_the_server_refuses_stands_beside_its_field_too(
    served: Served, open_page: OpenPage
) -> None:
    watched = await open_page(served, "/ops/settings")
    watched.expect_errors("422")
    await watched.page.fill("#webhook-webhookUrl", "https://evil.example/services/sEcReT")
    await watched.page.keyboard.press("Enter")
    await says(watched, "#webhook-webhookUrl-error", "Webhook URL ")
    assert await focused(watched) == "webhook-webhookUrl"
    assert "sEcReT" not in await watched.page.content()
    await watched.page.fill("#email-smtpHost", "127.0.0.1")
    await watched.page.fill("#email-smtpUser", "ops")
    await watched.page.fill("#email-emailFrom", "Ops <ops@example.com>")
    await watched.page.fill("#email-emailTo", "a@example.com, b@example.com")
    async with watched.page.expect_request("**/test-email") as sent:
        await watched.page.keyboard.press("Enter")
    assert (await sent.value).post_data_json == {
        "smtpHost": "127.0.0.1",
        "smtpPort": 587,
        "smtpUser": "ops",
        "emailFrom": "Ops <ops@example.com>",
        "emailTo": "a@example.com,b@example.com",
    }
    await says(watched, "#email-smtpHost-error", "SMTP host ")
    await watched.page.reload()
    assert await watched.page.input_value("#webhook-webhookUrl") == ""


async def test_a_test_goes_to_what_is_configured_and_its_outcome_is_shown(pool, open_page: OpenPage) -> None:
    async with (
        webhook_sink() as (address, bodies),
        serving(pool, token=None, slack_webhook_url=address) as served,
    ):
        watched = await open_page(served, "/ops/settings")
        await watched.page.click("#try-webhook")
        await says(watched, "#channels-result .good", "Test alert sent successfully")
        assert len(bodies) == 1


async def test_a_test_that_fails_says_why(pool, open_page: OpenPage) -> None:
    async with (
        webhook_sink(404) as (address, _),
        serving(pool, token=None, slack_webhook_url=address) as served,
    ):
        watched = await open_page(served, "/ops/settings")
        watched.expect_errors("502")
        await watched.page.click("#try-webhook")
        await says(watched, "#channels-result .bad", "404")


async def test_scan_now_lists_what_it_found(served: Served, db, open_page: OpenPage) -> None:
    await stock(db, "WIDGET", 3, name="<b>Widget</b>")
    watched = await open_page(served, "/ops/settings")
    await watched.page.click("#scan-now")
    await says(watched, "#scan-result", "1 product is low")
    assert "WIDGET (<b>Widget</b>) 3 10" in await text_of(watched, "#scan-result table")
    await watched.open("/ops")
    assert "WIDGET" in await text_of(watched, "section:has(#alerts)")


@pytest.mark.parametrize("path", ["/ops", "/ops/settings"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_text_can_be_read_in_both_schemes(
    served: Served, db, open_page: OpenPage, scheme, path
) -> None:
    await fill_with_everything(db)
    watched = await open_page(served, path, color_scheme=scheme)
    for details in await watched.page.locator("details").all():
        await details.evaluate("node => node.open = true")
    assert await watched.page.evaluate(FAINT_TEXTS) == []
    shade = await watched.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (max(int(part) for part in shade[4:-1].split(",")) < 60) is (scheme == "dark")


@pytest.mark.parametrize("path", ["/ops", "/ops/settings"])
async def test_a_phone_shows_it_without_scrolling_sideways(
    served: Served, db, open_page: OpenPage, path: str
) -> None:
    await fill_with_everything(db)
    phone = {"viewport": {"width": 360, "height": 780}, "has_touch": True, "is_mobile": True}
    watched = await open_page(served, path, **phone)
    for details in await watched.page.locator("details").all():
        await details.evaluate("node => node.open = true")
    assert await watched.page.evaluate("document.documentElement.scrollWidth") == 360


async def test_all_can_be_done_by_keyboard(served: Served, db, open_page: OpenPage) -> None:
    letter = await park(db, ORDER)
    watched = await open_page(served, "/ops", reduced_motion="reduce")
    page = watched.page
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.className") == "skip"
    await page.keyboard.press("Enter")
    assert await focused(watched) == "main"
    reached: list[str] = []
    while f"retry-{letter}" not in reached:
        await page.keyboard.press("Tab")
        reached.append(await focused(watched))
        assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", (
            reached
        )
        assert len(reached) < 60, reached
    assert f"summary-{letter}" in reached
    await page.keyboard.press("Enter")
    await says(watched, "#said", "is applied")
    await watched.open("/ops/settings")
    await page.focus("#scan-now")
    await page.keyboard.press("Space")
    await says(watched, "#scan-result", "0 products are low")


# Dead letters


async def test_dead_letters_are_filtered_and_all_that_match_retried(
    served: Served, db, open_page: OpenPage
) -> None:
    good, bad = await park(db, ORDER, kind="too_large"), await park(db, b"{", offset=1, kind="too_large")
    other = await park(db, b"[", offset=2, topic="click")
    watched = await open_page(served, "/ops/dead-letters")
    page = watched.page
    assert "3 open" in await text_of(watched, "#part")
    await page.select_option("#by-kind", "too_large")
    await page.get_by_role("button", name="Filter").click()
    await page.wait_for_url("**kind=too_large**")
    assert await page.locator(f"#letter-{other}").count() == 0
    await page.click("#retry-matching")
    await says(watched, "#said", "2 tried: 1 applied, 1 refused again.")
    await page.wait_for_selector(f"#letter-{good}", state="detached")
    assert "1 open that match" not in await text_of(watched, "#part")  # its reason is today's now
    assert await db.fetchval("SELECT error_kind FROM dead_letters WHERE id = $1", bad) == "not_json"
    assert await db.fetchval("SELECT retried_at FROM dead_letters WHERE id = $1", other) is None


async def test_of_many_that_match_the_next_press_goes_on_behind_the_refused(
    served: Served, db, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "RETRIED_AT_ONCE", 2)
    for n in range(3):
        await park(db, b"{", offset=n)
    good = await park(db, ORDER, offset=3)
    watched = await open_page(served, "/ops/dead-letters")
    await watched.page.click("#retry-matching")
    await says(watched, "#said", "2 tried: 2 refused again. 2 behind them are left.")
    await says(watched, "#retry-matching", "Retry the next")
    await watched.page.click("#retry-matching")
    await says(watched, "#said", "2 tried: 1 applied, 1 refused again.")
    await watched.page.wait_for_selector(f"#letter-{good}", state="detached")


async def test_a_dead_letter_is_looked_at_and_dropped_by_keyboard(
    served: Served, db, open_page: OpenPage
) -> None:
    letter = await park(db, b'{"order_id": ""}', kind="missing_field", error="order_id: must be there")
    watched = await open_page(served, "/ops/dead-letters")
    page = watched.page
    await page.focus(f"#open-{letter}")
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"**/ops/dead-letters/{letter}")
    assert "Field order_id" in await text_of(watched, ".facts")
    assert "Rules now refused: missing_field" in await text_of(watched, ".facts")
    assert '{"order_id": ""}' in await text_of(watched, "pre")
    assert "00000000 7b 22" in await text_of(watched, "pre.dump")
    await page.focus("#drop")
    await page.keyboard.press("Enter")
    assert await text_of(watched, "#drop-reason-error") == "Give it up, because is required"
    assert await focused(watched) == "drop-reason"
    await page.keyboard.type("a test of somebody's <b>")
    await page.keyboard.press("Enter")
    await says(watched, "#said", f"Dead letter {letter} is dropped")
    await says(watched, ".facts", "dropped by admin-api")
    assert "a test of somebody's <b>" in await text_of(watched, ".facts")
    assert await page.locator("#drop, #retry").count() == 0
    assert await focused(watched) == "said"
    row = await db.fetchrow("SELECT resolution, resolved_because, value FROM dead_letters")
    assert tuple(row) == ("dropped", "a test of somebody's <b>", b'{"order_id": ""}')


async def test_with_a_session_a_dead_letter_is_retried_on_its_page(pool, db, open_page: OpenPage) -> None:
    letter = await park(db, ORDER)
    async with serving(pool) as served:
        watched = await open_page(served, "/ops/login")
        await watched.page.fill("#token", TOKEN)
        await watched.page.keyboard.press("Enter")
        await watched.page.wait_for_url("**/ops")
        await watched.open(f"/ops/dead-letters/{letter}")
        assert "accepted: a retry would take it" in await text_of(watched, ".facts")
        await watched.page.click("#retry")
        await says(watched, "#said", "is applied")
        await says(watched, ".facts", "applied, 20")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_dead_letters_can_be_read_in_both_schemes_and_on_a_phone(
    served: Served, db, open_page: OpenPage, scheme: str
) -> None:
    await fill_with_everything(db)
    letter = await db.fetchval("SELECT min(id) FROM dead_letters")
    await db.execute(
        "UPDATE dead_letters SET headers = $1, copy_error = $2, retried_at = now() WHERE id = $3",
        json.dumps([["a" * 200, "b" * 900], ["", None], ["bin", {"base64": "/w=="}]]),
        "too large " + "x" * 200,
        letter,
    )
    await db.execute(
        "UPDATE dead_letters SET resolved_at = now(), resolution = 'dropped', resolved_by = 'x', resolved_because = $1 "
        "WHERE id = (SELECT max(id) FROM dead_letters)",
        "long " * 100,
    )
    phone = {"viewport": {"width": 360, "height": 780}, "has_touch": True, "is_mobile": True}
    for path in ("/ops/dead-letters?resolved=true", f"/ops/dead-letters/{letter}"):
        watched = await open_page(served, path, color_scheme=scheme, **phone)
        assert await watched.page.evaluate("document.documentElement.scrollWidth") == 360
        assert await watched.page.evaluate(FAINT_TEXTS) == []


async def test_the_overview_tells_of_the_last_recount(served: Served, db, open_page: OpenPage) -> None:
    watched = await open_page(served, "/ops")
    assert "were not recounted yet" in await text_of(watched, "#verified")
    await db.execute(
        "INSERT INTO verifications (started_at, seconds, checked, drifted, drift) VALUES (now(), 1.25, $1, 7, $2)",
        json.dumps({"promo_codes": 1200, "vouchers": 34}),
        json.dumps(
            [{"table": "promo_codes", "key": "<b>", "counter": "times_used", "stored": None, "counted": "3"}]
        ),
    )
    await says(watched, "#verified", "7 numbers are not what their ledgers say")
    told = await text_of(watched, "#verified")
    assert "1,234 rows in 1.2 s" in told
    assert "promo_codes <b> times_used: no row, should be 3" in told
    assert "and 6 more" in told
    assert await watched.page.evaluate(FAINT_TEXTS) == []
    await db.execute(
        "INSERT INTO verifications (started_at, seconds, checked, drifted) VALUES (now(), 1, '{}', 0)"
    )
    await says(watched, "#verified", "✓ Every counter is what its ledger says")
