"""The clicks of a bench: a day's visitors, one in ten a bot."""

from __future__ import annotations

import json
import random
import uuid
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

SEED = 2026
PIXELS = 500
VISITORS = 100_000
BOT_SHARE = 0.1
APART = timedelta(milliseconds=20)

_BROWSERS = [
    f"Mozilla/5.0 ({system}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{version}.0.0.0 Safari/537.36"
    for version in range(100, 125)
    for system in ("Windows NT 10.0; Win64; x64", "Macintosh; Intel Mac OS X 10_15_7")
]
_BOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


class Click(NamedTuple):
    """A click as a shop reports it."""

    click_id: str
    pixel_id: str
    ip_address: str
    user_agent: str
    clicked_at: datetime

    @property
    def key(self) -> str:
        """The key of its record."""
        return self.pixel_id

    @property
    def value(self) -> bytes:
        """Its JSON, 430 bytes or so."""
        fields = {
            "click_id": self.click_id,
            "pixel_id": self.pixel_id,
            "ip_address": self.ip_address,
            "user_agent": self.user_agent,
            "referrer": "https://blog.example/2026/11/ten-bags-for-winter",
            "landing_page": "https://shop.example/products/the-bag?utm_source=blog",
            "timestamp": self.clicked_at.isoformat(),
        }
        return json.dumps(fields, separators=(",", ":")).encode()


def sample_clicks(count: int, *, seed: int = SEED) -> list[Click]:
    """Clicks of the last hours, 20 ms apart, their ids in the order of time (UUIDv7); pixels and visitors evenly."""
    dice = random.Random(seed)  # noqa: S311 - sample data
    first = datetime.now(UTC).replace(microsecond=0) - count * APART - timedelta(minutes=1)
    pixels = [str(uuid.UUID(int=dice.getrandbits(128), version=4)) for _ in range(PIXELS)]
    visitors = [
        (
            f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",
            _BOT if dice.random() < BOT_SHARE else dice.choice(_BROWSERS),
        )
        for number in range(VISITORS)
    ]
    times = (first + number * APART for number in range(count))
    return [Click(_uuid7(dice, at), dice.choice(pixels), *dice.choice(visitors), at) for at in times]


def with_one_pixel(clicks: Sequence[Click]) -> list[Click]:
    """The same clicks, all on the same pixel."""
    return [click._replace(pixel_id=clicks[0].pixel_id) for click in clicks]


def daily_counts(clicks: Sequence[Click]) -> dict[tuple[str, date], tuple[int, int, int]]:
    """(pixel, day) → clicks, visitors and bots' clicks: what must come of it."""
    numbers, bots = Counter[tuple[str, date]](), Counter[tuple[str, date]]()
    visitors: dict[tuple[str, date], set[tuple[str, str]]] = {}
    for click in clicks:
        day = (click.pixel_id, click.clicked_at.date())
        seen = visitors.setdefault(day, set())
        if click.user_agent == _BOT:
            bots[day] += 1
        else:
            numbers[day] += 1
            seen.add((click.ip_address, click.user_agent))
    return {day: (numbers[day], len(seen), bots[day]) for day, seen in visitors.items()}


def _uuid7(dice: random.Random, at: datetime) -> str:
    milliseconds = int(at.timestamp() * 1000)
    bits = milliseconds << 80 | 0x7 << 76 | dice.getrandbits(12) << 64 | 0x2 << 62 | dice.getrandbits(62)
    return str(uuid.UUID(int=bits))
