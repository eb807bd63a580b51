"""docs/extend-example.md, as it stands: put where it says, migrated, run by a worker, verified and checked."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from counterfoil.embedded.ports import free_port
from counterfoil.embedded.process import KEPT_VARIABLES, ServerProcess
from counterfoil.settings import DEFAULT_TOPICS, topic_setting
from support.databases import address_of, clone, drop
from support.servers import Broker, Server, servers_folder
from support.waiting import eventually

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extend-example.md").read_text(encoding="utf-8")

STEP = re.compile(
    r"^<!-- (?P<what>file|in) (?P<file>\S+)(?: (?P<where>before|after) \"(?P<text>[^\n]*)\")? -->\n"
    r"```\w+\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)

REVIEWS = [
    {"review_id": "r1", "sku": "BAG-1", "rating": 4, "timestamp": "2026-03-01T12:00:00Z"},
    {"review_id": "r1", "sku": "BAG-1", "rating": 2, "timestamp": "2026-03-01T12:00:00Z"},
    {"review_id": "r1", "sku": "BAG-1", "rating": 4, "timestamp": "2026-03-01T12:00:00Z"},
    {"reviewId": "r2", "sku": "BAG-1", "rating": 5, "timestamp": "2026-03-01T13:00:00Z"},
    {"review_id": "r3", "sku": "BELT", "rating": 1, "timestamp": "2026-03-01T13:00:00Z"},
]


class Extended:
    """The source with the example's steps applied, and commands on it."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        for part in ("src", "sql"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        for step in STEP.finditer(PAGE):
            _apply(folder, step)
        kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        self.environment = kept | environment | {"PYTHONPATH": str(folder / "src")}

    def command(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """Run one to its end."""
        return subprocess.run(
            [sys.executable, "-m", "counterfoil", *arguments],
            cwd="/",
            env=self.environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def _apply(folder: Path, step: re.Match[str]) -> None:
    file, code = folder / step["file"], step["code"]
    if step["what"] == "file":
        file.parent.mkdir(exist_ok=True)
        file.write_text(code, encoding="utf-8")
        return
    code = code.replace("\n+", "\n").removeprefix("+")  # a diff
    text, place = file.read_text(encoding="utf-8"), step["text"]
    assert text.count(place) >= 1, f"{step['file']} has no {place}"
    at = text.index(place) if step["where"] == "before" else text.index("\n", text.index(place)) + 1
    file.write_text(text[:at] + code + text[at:], encoding="utf-8")


@pytest.fixture
def extended(
    postgres_server: Server, template_database: str, broker: Broker, topic_prefix: str
) -> Iterator[tuple[Extended, str]]:
    name = clone(template_database, postgres_server.dsn)
    address = address_of(name, postgres_server.dsn)
    settings: dict[str, Any] = {
        "database_url": address,
        "kafka_bootstrap_servers": broker.bootstrap_servers,
        "kafka_session_timeout_ms": broker.session_timeout_ms,
        "kafka_idempotence": "false",
        "consumer_group": f"{topic_prefix}group",
        "consumers": "review.posted",
        "http_port": free_port(),
        **{topic_setting(topic): f"{topic_prefix}{topic}" for topic in (*DEFAULT_TOPICS, "review.posted")},
    }
    with servers_folder() as folder:
        yield (
            Extended(folder, {f"COUNTERFOIL_{name.upper()}": str(value) for name, value in settings.items()}),
            address,
        )
    drop(name, postgres_server.dsn)


async def test_the_worked_example_counts_verifies_checks_and_repairs(extended: tuple[Extended, str]) -> None:
    source, address = extended
    lines = "\n".join(json.dumps(review) for review in REVIEWS)
    published = source.command("publish", "review.posted", given=lines)
    assert published.returncode == 0, published.stderr
    assert (
        "rating"
        in source.command("publish", "review.posted", given='{"review_id":"r","sku":"s","rating":9}').stderr
    )
    db = await asyncpg.connect(address)
    with servers_folder() as folder:
        worker = ServerProcess(
            [sys.executable, "-m", "counterfoil", "run", "--only", "ingest"],
            log=folder / "worker.log",
            death_signal=signal.SIGKILL,
            environment=source.environment,
        )
        try:
            await eventually(lambda: _counted(db, 3), deadline=60)
        finally:
            worker.stop()

    assert await _ratings(db) == {"BAG-1": (2, 7), "BELT": (1, 1)}
    check = source.command("replay", "review.posted")
    assert check.returncode == 0, check
    await db.execute("UPDATE product_reviews SET rating = 1, sku = 'BELT' WHERE review_id = 'r2'")
    assert await _ratings(db) == {"BAG-1": (1, 2), "BELT": (2, 2)}
    assert source.command("verify").returncode == 0
    assert source.command("replay", "review.posted").returncode == 1
    assert source.command("replay", "review.posted", "--mode", "apply", "--overwrite").returncode == 0
    assert await _ratings(db) == {"BAG-1": (2, 7), "BELT": (1, 1)}
    await db.execute("UPDATE product_ratings SET stars = 9 WHERE sku = 'BELT'")
    assert source.command("verify", "--repair").returncode == 0
    assert await _ratings(db) == {"BAG-1": (2, 7), "BELT": (1, 1)}
    await db.execute("TRUNCATE product_reviews")
    assert await _ratings(db) == {"BAG-1": (0, 0), "BELT": (0, 0)}
    await db.close()


async def _counted(db: asyncpg.Connection, reviews: int) -> bool:
    if await db.fetchval("SELECT to_regclass('product_reviews')") is None:
        return False
    # all five are one partition's when their SKU is; the last of them has come when three are there and r1 has settled
    rows = await db.fetch("SELECT review_id, rating FROM product_reviews ORDER BY 1")
    return len(rows) == reviews and rows[0]["rating"] == 2


async def _ratings(db: asyncpg.Connection) -> dict[str, tuple[int, int]]:
    rows = await db.fetch("SELECT * FROM product_ratings")
    return {row["sku"]: (row["reviews"], row["stars"]) for row in rows}
