"""What programs pay: asked of the operator's service, outside of any transaction, and kept."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit, urlunsplit

import aiohttp
import asyncpg
import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter
from tenacity.wait import wait_base
from yarl import URL

from counterfoil.database import locks
from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.settings import Settings

log = structlog.get_logger("counterfoil.partners")

AT_ONCE = 4
ATTEMPTS = 3
LONGEST_ANSWER = 64 * 1024
TIMEOUT_S = 5.0
GIVE_UP_AFTER = 8
"""Failures in a row after which the service is left alone until the next round."""

SETTLED_WITHIN_S = 3_600.0
"""A first rate settles all of the program's orders: some 70 µs each."""

PROGRAMS_OF_A_ROUND = 10_000
CHUNK = 200

NAMES = ("commission_percent", "commissionPercent", "commission", "percent", "rate")

_PLAIN = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,30})?").fullmatch
_MICRO = Decimal("0.000001")
_BACKOFF = wait_exponential_jitter(multiplier=0.25, max=2.0)


class NoAnswer(Exception):
    """The service did not answer; it may the next time."""


class Unusable(Exception):
    """The service answered something that is no rate."""


class Due(NamedTuple):
    """A program whose rate is to be asked for, and what the service said last."""

    program_id: str
    base_domain: str
    known: Decimal | None


class Rate(NamedTuple):
    """What the service says of a program: None when it has no rate of its own."""

    due: Due
    percent: Decimal | None

    @property
    def is_news(self) -> bool:
        """True when it is a rate, and another than the last time."""
        return self.percent is not None and self.percent != self.due.known


async def refresh_rates(pool: asyncpg.Pool, settings: Settings, backoff: wait_base = _BACKOFF) -> int:
    """Ask for the rates that are due, and keep those that changed; answers how many. Nothing to ask of: 0.

    A program that the service fails on stays due. Raises what asyncpg raises.
    """
    if settings.commission_rate_url is None:
        return 0
    async with pool.acquire() as connection:
        rows = await connection.fetch(
            sql("programs_with_due_rates"), settings.commission_rate_refresh_s, PROGRAMS_OF_A_ROUND
        )
    changed = 0
    async with RateService(settings.commission_rate_url, backoff) as service:
        for start in range(0, len(rows), CHUNK):
            rates = await service.ask([Due(*row) for row in rows[start : start + CHUNK]])
            async with pool.acquire() as connection:
                changed += await keep_rates(connection, rates)
            if service.is_away:
                log.warning("commission_rates_put_off", left=len(rows) - start - len(rates))
                break
    if rows:
        log.info("commission_rates_refreshed", due=len(rows), changed=changed)
    return changed


async def keep_rates(connection: Connection, rates: Sequence[Rate]) -> int:
    """Add a row for each rate that changed, each by one statement, which settles the program's orders."""
    changed = 0
    for rate in rates:
        if rate.is_news:
            added = await connection.fetchval(
                sql("keep_program_rate"), rate.due.program_id, rate.percent, timeout=SETTLED_WITHIN_S
            )
            changed += added is not None
    await connection.execute(sql("mark_rates_checked"), [rate.due.program_id for rate in rates])
    return changed


async def ensure_default_rate(connection: Connection, settings: Settings) -> bool:
    """Add DEFAULT_COMMISSION_PERCENT to the default rates where it is not the latest; True when it was added."""
    percent = settings.default_commission_percent
    if await connection.fetchval(sql("latest_default_rate")) == percent:
        return False
    async with connection.transaction():
        await locks.hold(connection, [locks.ATTRIBUTIONS_EXCLUSIVE])  # another worker may start as well
        return await connection.fetchval(sql("insert_default_rate"), percent) is not None


class RateService:
    """The operator's service, asked about a few programs at once."""

    def __init__(self, url: str, backoff: wait_base = _BACKOFF) -> None:
        self._url = url
        self._retrying = AsyncRetrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=backoff,
            retry=retry_if_exception_type(NoAnswer),
            reraise=True,
        )
        self._places = asyncio.Semaphore(AT_ONCE)
        self._failures = 0

    async def __aenter__(self) -> RateService:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        self._session = aiohttp.ClientSession(timeout=timeout, headers={"Accept": "application/json"})
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    @property
    def is_away(self) -> bool:
        """True once it has failed so often in a row that asking on makes no sense."""
        return self._failures >= GIVE_UP_AFTER

    async def ask(self, programs: Sequence[Due]) -> list[Rate]:
        """The rates of these programs, without those that the service failed on."""
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(self._ask(due)) for due in programs]
        return [rate for task in asking if (rate := task.result()) is not None]

    async def _ask(self, due: Due) -> Rate | None:
        async with self._places:
            if self.is_away:
                return None
            try:
                percent: Decimal | None = await self._retrying.copy()(self._answer, due.base_domain)
            except (NoAnswer, Unusable) as error:
                self._failures += 1
                log.warning("commission_rate_unknown", program=due.program_id, reason=str(error))
                return None
            self._failures = 0
            return Rate(due, percent)

    async def _answer(self, base_domain: str) -> Decimal | None:
        try:
            async with self._session.get(URL(rate_address(self._url, base_domain), encoded=True)) as answer:
                if answer.status == 404:
                    return None
                if answer.status in {408, 425, 429} or answer.status >= 500:
                    raise NoAnswer(f"answered {answer.status}")
                if answer.status != 200:
                    raise Unusable(f"answered {answer.status}")
                return percent_of(await _bounded(answer.content))
        except TimeoutError:
            raise NoAnswer(f"did not answer within {TIMEOUT_S:g} s") from None
        except (aiohttp.ClientError, OSError) as error:  # its text may hold the address, and that a secret
            raise NoAnswer(type(error).__name__) from None


def rate_address(url: str, base_domain: str) -> str:
    """Where a program's rate is asked for: `{domain}` replaced, else the query's `domain` added."""
    domain = quote(base_domain, safe="")
    if "{domain}" in url:
        return url.replace("{domain}", domain)
    parts = urlsplit(url)
    query = f"{parts.query}&domain={domain}" if parts.query else f"domain={domain}"
    return urlunsplit(parts._replace(query=query))


def percent_of(body: bytes) -> Decimal | None:
    """The rate in an answer, None where it says null; raises Unusable for anything else than 0 to 100."""
    try:
        answer = json.loads(body, parse_float=Decimal, parse_constant=_refused)
    except (ValueError, InvalidOperation, RecursionError):
        raise Unusable("answered no JSON document") from None
    return _percent(_named(answer))


def _named(answer: Any) -> object:
    """The value that is the rate: the answer itself, or under one of its names, perhaps inside `data`."""
    if isinstance(answer, dict) and answer.keys().isdisjoint(NAMES):
        answer = answer.get("data", answer)
    if not isinstance(answer, dict):
        return answer
    if answer.keys().isdisjoint(NAMES):
        raise Unusable(f"answered an object with none of {', '.join(NAMES)}")
    return next((answer[name] for name in NAMES if answer.get(name) is not None), None)


def _percent(value: Any) -> Decimal | None:
    if value is None:
        return None
    if isinstance(value, str) and _PLAIN(value.strip()):
        value = Decimal(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not 0 <= value <= 100:
        raise Unusable("answered a rate that is no number from 0 to 100")
    return Decimal(value).quantize(_MICRO, ROUND_HALF_EVEN)


def _refused(constant: str) -> None:
    raise ValueError(constant)


async def _bounded(content: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    async for part in content.iter_chunked(8 * 1024):
        body += part
        if len(body) > LONGEST_ANSWER:
            raise Unusable(f"answered more than {LONGEST_ANSWER // 1024} KiB")
    return bytes(body)
