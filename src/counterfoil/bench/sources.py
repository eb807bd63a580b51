"""What a bench runs on: the PostgreSQL and Kafka that the settings name, or embedded ones; cleaned up at the end."""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient
from pydantic import SecretStr

from counterfoil.bench.preload import Sample, preload
from counterfoil.database.migrate import migrate
from counterfoil.database.pool import connect, database_address
from counterfoil.embedded.broker import EmbeddedBroker
from counterfoil.embedded.places import make_folder
from counterfoil.embedded.postgres import EmbeddedPostgres
from counterfoil.kafka.cluster import Cluster
from counterfoil.kafka.connection import client_options
from counterfoil.settings import Settings, load_settings

PARTITIONS = 4

POSTGRES_OPTIONS = {"shared_buffers": "512MB", "max_wal_size": "4GB"}
"""Beside PostgreSQL's defaults, so that checkpoints don't dominate; fsync and synchronous_commit stay on."""

SHOWN_SETTINGS = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size")

ON_DISK = Path("/var/tmp")  # noqa: S108 - our folder in it has a random name, and /tmp may be memory


@dataclass
class Ground:
    """Where both sides answer, and what was made there for this bench alone."""

    settings: Settings
    connection: asyncpg.Connection
    folder: Path
    kafka: str
    postgres: str
    postgres_settings: dict[str, str]
    name: str = field(default_factory=lambda: f"counterfoil_bench_{secrets.token_hex(4)}")
    topics: list[str] = field(default_factory=list)
    _schemas: int = 0

    async def topic(self, what: str, samples: Sequence[Sample] = ()) -> str:
        """A new topic of four partitions that holds these samples; its name."""
        name = f"{self.name}.{what}"
        cluster = Cluster(self.settings)
        try:
            await cluster.create_topics([name], PARTITIONS)
        finally:
            await cluster.close()
        self.topics.append(name)
        await preload(self.settings, name, PARTITIONS, samples)
        return name

    @contextlib.asynccontextmanager
    async def schema(self) -> AsyncIterator[str]:
        """A new, migrated schema, which our connection looks into; dropped at the end."""
        self._schemas += 1
        name = f"{self.name}_{self._schemas}"
        try:
            await migrate(database_address(self.settings), name)
            await self.connection.execute(f'SET search_path TO "{name}", pg_temp')
            with contextlib.suppress(asyncpg.InsufficientPrivilegeError):  # each pass begins after one
                await self.connection.execute("CHECKPOINT")
            yield name
        finally:
            await self._drop(name)

    async def _drop(self, schema: str) -> None:
        # On a connection of its own: ours may have been cut in the middle of something.
        connection = await asyncpg.connect(database_address(self.settings))
        try:
            await connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')
        finally:
            await connection.close()

    async def delete_topics(self) -> None:
        """Delete what was made; Kafka drops the groups that read nothing else by itself."""
        if self.topics:
            admin = AIOKafkaAdminClient(**client_options(self.settings))
            await admin.start()
            try:
                await admin.delete_topics(self.topics)
            finally:
                await admin.close()


@contextlib.asynccontextmanager
async def ground() -> AsyncIterator[Ground]:
    """The ground of a bench, removed at the end; a second Ctrl-C doesn't stop that."""
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT))
        try:
            yield await _made(stack)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


async def _made(stack: contextlib.AsyncExitStack) -> Ground:
    settings = load_settings()
    folder = _place() / f"counterfoil-bench-{secrets.token_hex(4)}"
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    make_folder(folder)
    own_postgres = settings.database_url is None
    own_broker = "kafka_bootstrap_servers" not in settings.model_fields_set
    # Starting holds the loop on purpose: a Ctrl-C in between is heard at the next await.
    if own_postgres:
        postgres = EmbeddedPostgres(folder / "postgres", options=POSTGRES_OPTIONS)
        stack.callback(postgres.remove)
        postgres.start()
        settings = settings.model_copy(update={"database_url": SecretStr(postgres.dsn)})
    if own_broker:
        broker = EmbeddedBroker(folder / "broker")
        stack.callback(broker.remove)
        broker.start()
        found = {"kafka_bootstrap_servers": broker.bootstrap_servers, "kafka_idempotence": False}
        settings = settings.model_copy(update=found)
    patient = settings.model_copy(update={"database_timeout_s": timedelta(hours=1)})
    connection = await connect(patient, "bench")
    stack.callback(connection.terminate)
    version = str(await connection.fetchval("SHOW server_version")).split()[0]
    made = Ground(
        settings=settings,
        connection=connection,
        folder=folder,
        kafka=(
            "embedded broker (Tansu, in memory)"
            if own_broker
            else f"Kafka at {settings.kafka_bootstrap_servers}"
        ),
        postgres=f"PostgreSQL {version}, " + ("embedded" if own_postgres else "named by the settings"),
        postgres_settings={name: await connection.fetchval(f"SHOW {name}") for name in SHOWN_SETTINGS},
    )
    if not own_broker:
        stack.push_async_callback(made.delete_topics)
    return made


def _place() -> Path:
    return ON_DISK if os.access(ON_DISK, os.W_OK) else Path(tempfile.gettempdir())


def machine() -> dict[str, object]:
    """What a figure is worth nothing without."""
    return {
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
