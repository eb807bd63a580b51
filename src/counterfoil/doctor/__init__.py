"""`counterfoil doctor`: what is wrong with the surroundings of a deployment, and how to mend it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator

import asyncpg

from counterfoil.database.pool import create_pool, one_line
from counterfoil.doctor.database_checks import REACHED, check_database, check_reached
from counterfoil.doctor.findings import Finding, State, problem, warning
from counterfoil.doctor.gap_checks import check_gaps
from counterfoil.doctor.kafka_checks import check_kafka, check_topics, open_cluster
from counterfoil.doctor.settings_checks import check_settings
from counterfoil.doctor.worker_check import check_worker
from counterfoil.errors import DependencyUnreachable
from counterfoil.ingest.gaps import find_gaps, topics_of
from counterfoil.kafka.cluster import Cluster
from counterfoil.settings import PREFIX, Settings

__all__ = ["Finding", "State", "examine"]

POOL_SIZE = 4
GAPS_WITHIN_S = 20.0
"""A look at every log, and another where something seems to stand still."""


async def examine(settings: Settings) -> tuple[list[Finding], bool]:
    """Every finding, and whether PostgreSQL or Kafka could be looked at; no secret stands in any of them."""
    cluster = open_cluster(settings)
    pool = None if settings.database_url is None else await create_pool(settings, "doctor", POOL_SIZE)
    try:
        with _quietly("aiokafka"):
            return await _look(settings, cluster, pool)
    finally:
        if isinstance(cluster, Cluster):
            await cluster.close()
        if pool is not None:
            pool.terminate()


async def _look(
    settings: Settings, cluster: Cluster | Finding, pool: asyncpg.Pool | None
) -> tuple[list[Finding], bool]:
    """First whether either answers, then all that can be asked of those that do."""
    (kafka, of_kafka), of_database, of_worker = await asyncio.gather(
        _reach_kafka(settings, cluster), _reach_database(settings, pool), check_worker(settings)
    )
    database = None if of_database else pool
    found = await asyncio.gather(
        _look_at_database(settings, database), _look_at_logs(settings, kafka, database)
    )
    looked_at = [finding for findings in found for finding in findings]
    findings = [*of_kafka, *of_database, *of_worker, *looked_at, *check_settings(settings)]
    return findings, kafka is not None or database is not None


async def _reach_kafka(
    settings: Settings, cluster: Cluster | Finding
) -> tuple[Cluster | None, list[Finding]]:
    if isinstance(cluster, Finding):
        return None, [cluster]
    answers, findings = await check_kafka(settings, cluster)
    return (cluster if answers else None), findings


async def _reach_database(settings: Settings, pool: asyncpg.Pool | None) -> list[Finding]:
    if pool is None:
        fix = f"set {PREFIX}DATABASE_URL, or run with --embedded, here or in the folder of {PREFIX}DATA_DIR"
        return [problem("database", "no address is set, and no embedded PostgreSQL runs here", fix)]
    why = await check_reached(settings, pool)
    return [why] if why else []


async def _look_at_database(settings: Settings, pool: asyncpg.Pool | None) -> list[Finding]:
    return [] if pool is None else await check_database(settings, pool)


async def _look_at_logs(
    settings: Settings, cluster: Cluster | None, pool: asyncpg.Pool | None
) -> list[Finding]:
    """The topics, and beside the positions in PostgreSQL what is not read of them."""
    if cluster is None:
        return []
    found: list[Finding] = []
    try:
        async with asyncio.timeout(GAPS_WITHIN_S):
            leaders = await cluster.leaders(topics_of(settings))
            found += check_topics(settings, leaders)
            if pool is not None:
                known, gaps = await find_gaps(pool, settings, cluster)
                found += check_gaps(settings, known, gaps, await _retention(cluster, leaders))
    except asyncpg.UndefinedTableError:
        return found  # the schema is behind, which has a finding of its own
    except (DependencyUnreachable, *REACHED) as error:
        told = f"positions and logs could not be compared: {one_line(error)}"
        return [*found, warning("lag", told, "look again; if that stays, see the log of a worker")]
    return found


async def _retention(cluster: Cluster, topics: Iterable[str]) -> dict[str, int]:
    try:
        return await cluster.retention_ms(topics)
    except DependencyUnreachable:
        return {}  # it may not be told to us


@contextlib.contextmanager
def _quietly(library: str) -> Iterator[None]:
    """Without what a library logs of an outage: the findings say it."""
    logger = logging.getLogger(library)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
