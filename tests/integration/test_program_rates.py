"""Rates of programs: asked of a real HTTP service, and kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal

import asyncpg
import pytest
from aiohttp import web
from structlog.testing import capture_logs
from tenacity import wait_none

from counterfoil.partners import rates
from counterfoil.partners.rates import ensure_default_rate, percent_of, rate_address, refresh_rates
from support.postgres_road import plain_settings
from support.waiting import eventually

NULL = object()


@dataclass
class Service:
    """A service of rates: what it answers for each domain, and what it was asked."""

    address: str = ""
    answers: dict[str, object] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        domain = request.match_info.get("domain") or request.query["domain"]
        self.asked.append(domain)
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            await asyncio.sleep(0)
            return await self._answer(self._next(domain), request)
        finally:
            self.at_once -= 1

    def _next(self, domain: str) -> object:
        answer = self.answers.get(domain)
        return answer.pop(0) if isinstance(answer, list) else answer

    @staticmethod
    async def _answer(answer: object, request: web.Request) -> web.StreamResponse:
        if answer is None:
            raise web.HTTPNotFound
        if isinstance(answer, int):
            return web.Response(status=answer)
        if answer is NULL:
            return web.Response(text="null")
        if isinstance(answer, asyncio.Event):
            await answer.wait()
        return web.Response(body=answer if isinstance(answer, bytes) else str(answer).encode())


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    found = Service()
    app = web.Application()
    app.router.add_get("/rates", found.answer)
    app.router.add_get("/of/{domain}", found.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0]
    found.address = f"http://{host}:{port}"
    yield found
    await runner.cleanup()


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(database_url, min_size=0, max_size=4) as made:
        yield made


async def a_program(db, program_id: str = "p1", base_domain: str = "cultgaia.com") -> None:
    await db.execute("INSERT INTO programs (id, base_domain) VALUES ($1, $2)", program_id, base_domain)


async def refresh(pool, service: Service, path: str = "/rates", **given: object) -> int:
    settings = plain_settings(commission_rate_url=service.address + path, **given)
    return await refresh_rates(pool, settings, wait_none())


async def history(db) -> list[tuple]:
    rows = await db.fetch("SELECT program_id, percent, source FROM program_rates ORDER BY id")
    return [(row[0], f"{row[1].normalize():f}", row[2]) for row in rows]


async def checked(db) -> list[str]:
    rows = await db.fetch("SELECT id FROM programs WHERE rate_checked_at IS NOT NULL ORDER BY id")
    return [row["id"] for row in rows]


async def long_ago(db) -> None:
    await db.execute("UPDATE programs SET rate_checked_at = now() - interval '2 days'")


@pytest.mark.parametrize(
    ("answer", "percent"),
    [
        ("12", "12"),
        ("12.5", "12.5"),
        ('"7.25"', "7.25"),
        ('{"commission_percent": 8}', "8"),
        ('{"commissionPercent": "8.5"}', "8.5"),
        ('{"commission": 100}', "100"),
        ('{"percent": 0}', "0"),
        ('{"rate": 3.1, "name": "x"}', "3.1"),
        ('{"commission": null, "rate": 4}', "4"),
        ('{"data": {"percent": "15"}}', "15"),
        ('{"data": 9}', "9"),
        ("0.12345650", "0.123456"),
        ("1e1", "10"),
    ],
)
def test_a_rate_comes_in_many_shapes(answer, percent):
    assert percent_of(answer.encode()) == Decimal(percent)


@pytest.mark.parametrize(
    "answer", ["null", '{"rate": null}', '{"data": null}', '{"data": {"percent": null}}']
)
def test_null_is_no_rate(answer):
    assert percent_of(answer.encode()) is None


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "x",
        "NaN",
        "Infinity",
        "-1",
        "100.0001",
        "1e400",
        "1e99999999999999999999",
        "9" * 5_000,
        "true",
        '"12%"',
        '"1e1"',
        '""',
        "[12]",
        "{}",
        '{"error": "no"}',
        '{"data": []}',
        '{"data": {"data": {"rate": 1}}}',
        "[" * 60_000,
        "\ud800".encode("utf-16", "surrogatepass"),
    ],
)
def test_everything_else_is_unusable(answer):
    with pytest.raises(rates.Unusable):
        percent_of(answer if isinstance(answer, bytes) else answer.encode())


def test_the_domain_is_put_into_the_address_or_into_its_query():
    assert rate_address("https://x/r/{domain}?k=1", "a.com") == "https://x/r/a.com?k=1"
    assert (
        rate_address("https://x/r?k=%20#f", "2001:db8::1") == "https://x/r?k=%20&domain=2001%3Adb8%3A%3A1#f"
    )
    assert rate_address("https://x", "my_shop.com&a=b") == "https://x?domain=my_shop.com%26a%3Db"


async def test_without_an_address_nothing_is_asked(db, pool):
    await a_program(db)
    assert await refresh_rates(pool, plain_settings()) == 0
    assert await checked(db) == []


async def test_a_rate_is_kept_and_shown_on_its_program(db, pool, service):
    await a_program(db)
    service.answers["cultgaia.com"] = '{"data": {"commissionPercent": "12.50"}}'
    assert await refresh(pool, service) == 1
    assert await history(db) == [("p1", "12.5", "api")]
    assert await db.fetchval("SELECT commission_percent FROM programs") == Decimal("12.5")
    assert await checked(db) == ["p1"]


async def test_the_domain_may_stand_in_the_path(db, pool, service):
    await a_program(db)
    service.answers["cultgaia.com"] = "5"
    assert await refresh(pool, service, "/of/{domain}") == 1


async def test_a_program_is_asked_for_again_when_its_rate_is_old(db, pool, service):
    await a_program(db)
    service.answers["cultgaia.com"] = "12"
    await refresh(pool, service)
    assert await refresh(pool, service) == 0
    assert len(service.asked) == 1
    await long_ago(db)
    assert await refresh(pool, service, commission_rate_refresh_s=timedelta(days=3)) == 0
    assert len(service.asked) == 1
    assert await refresh(pool, service) == 0
    assert len(service.asked) == 2


async def test_only_a_changed_rate_is_a_row(db, pool, service):
    await a_program(db)
    service.answers["cultgaia.com"] = ["12", "12.0", "13", "12"]
    changes = []
    for _ in range(4):
        await long_ago(db)
        changes.append(await refresh(pool, service))
    assert changes == [1, 0, 1, 1]
    assert [percent for _, percent, _ in await history(db)] == ["12", "13", "12"]


async def test_an_operators_rate_stands_until_the_service_changes_its_own(db, pool, service):
    await a_program(db)
    service.answers["cultgaia.com"] = ["12", "12", "14"]
    await refresh(pool, service)
    await db.execute("INSERT INTO program_rates (program_id, percent) VALUES ('p1', 20)")
    await long_ago(db)
    assert await refresh(pool, service) == 0
    assert await db.fetchval("SELECT commission_percent FROM programs") == 20
    await long_ago(db)
    assert await refresh(pool, service) == 1
    assert [percent for _, percent, _ in await history(db)] == ["12", "20", "14"]


@pytest.mark.parametrize("answer", [None, NULL])
async def test_a_program_without_a_rate_of_its_own_has_none_and_was_asked_for(db, pool, service, answer):
    await a_program(db)
    service.answers["cultgaia.com"] = answer
    assert await refresh(pool, service) == 0
    assert await history(db) == []
    assert await checked(db) == ["p1"]


async def test_a_failing_service_is_asked_again_then_left_for_the_next_round(db, pool, service):
    await a_program(db)
    service.answers["cultgaia.com"] = [503, 500, "6"]
    assert await refresh(pool, service) == 1
    assert len(service.asked) == 3
    await long_ago(db)
    service.answers["cultgaia.com"] = [503, 429, 502, "7"]
    with capture_logs() as logs:
        assert await refresh(pool, service) == 0
    assert (logs[0]["event"], logs[0]["reason"]) == ("commission_rate_unknown", "answered 502")
    assert await refresh(pool, service) == 1


@pytest.mark.parametrize("answer", [403, 204, b"\xff", b'{"x": 1}', b"1" * 70_000, b"101"])
async def test_an_unusable_answer_is_not_asked_for_twice_in_a_round(db, pool, service, answer):
    await a_program(db)
    service.answers["cultgaia.com"] = answer
    assert await refresh(pool, service) == 0
    assert len(service.asked) == 1
    assert await checked(db) == []


async def test_a_silent_service_is_given_up(db, pool, service, monkeypatch):
    monkeypatch.setattr(rates, "TIMEOUT_S", 0.05)
    await a_program(db)
    silent = asyncio.Event()
    service.answers["cultgaia.com"] = silent
    with capture_logs() as logs:
        assert await refresh(pool, service) == 0
    silent.set()
    assert logs[0]["reason"] == "did not answer within 0.05 s"
    assert await checked(db) == []


async def test_a_service_that_is_away_is_left_alone_and_its_address_is_not_logged(db, pool, service):
    await db.execute(
        "INSERT INTO programs (id, base_domain) SELECT 'p' || g, g || '.com' FROM generate_series(1, 50) g"
    )
    service.address = "http://user:secret@127.0.0.1:1"
    with capture_logs() as logs:
        assert await refresh(pool, service, "/s3cret") == 0
    assert sum(line["event"] == "commission_rate_unknown" for line in logs) < 2 * rates.GIVE_UP_AFTER
    assert [line["event"] for line in logs][-2:] == ["commission_rates_put_off", "commission_rates_refreshed"]
    assert "cret" not in str(logs)


async def test_four_are_asked_at_once_and_one_failure_costs_the_others_nothing(db, pool, service):
    await db.execute(
        "INSERT INTO programs (id, base_domain) SELECT 'p' || g, g || '.com' FROM generate_series(1, 30) g"
    )
    service.answers.update({f"{n}.com": f"{n}" for n in range(1, 31)} | {"7.com": 500})
    assert await refresh(pool, service) == 29
    assert 1 < service.most_at_once <= rates.AT_ONCE
    assert {program for program, _, _ in await history(db)} == {f"p{n}" for n in range(1, 31)} - {"p7"}
    assert "p7" not in await checked(db)


async def test_two_workers_at_once_add_one_row(db, pool, service):
    await a_program(db)
    service.answers["cultgaia.com"] = "12"
    assert sorted(await asyncio.gather(refresh(pool, service), refresh(pool, service))) in ([0, 1], [0, 0, 1])
    assert await history(db) == [("p1", "12", "api")]


async def test_no_connection_is_held_while_the_service_is_asked(db, pool, service):
    await a_program(db)
    waiting = service.answers["cultgaia.com"] = asyncio.Event()
    refreshing = asyncio.create_task(refresh(pool, service))
    await eventually(lambda: service.asked)
    assert pool.get_idle_size() == pool.get_size()
    waiting.set()
    assert await refreshing == 0


async def test_the_default_rate_is_a_row_whenever_the_setting_changes(db):
    async def set_to(percent: str) -> bool:
        return await ensure_default_rate(db, plain_settings(default_commission_percent=percent))

    assert [await set_to(percent) for percent in ("0", "0", "10", "10.000", "0")] == [
        True,
        False,
        True,
        False,
        True,
    ]
    rows = await db.fetch("SELECT percent FROM default_rates ORDER BY id")
    assert [int(row["percent"]) for row in rows] == [0, 10, 0]
