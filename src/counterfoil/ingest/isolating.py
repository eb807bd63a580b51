"""Writes a batch that the database refuses: all of it but the records at fault, which are parked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from counterfoil.errors import HaltingFailure, PoisonRecord
from counterfoil.ingest.batches import Batch
from counterfoil.ingest.writer import Planned

log = structlog.get_logger("counterfoil.ingest")

Plan = Callable[[Batch], Awaitable[Planned]]
Write = Callable[[Planned], Awaitable[None]]


async def write_isolating(planned: Planned, *, plan: Plan, write: Write) -> None:
    """Write a batch, isolating the records that the database refuses.

    `write` may raise PoisonRecord; HaltingFailure when a refused record cannot even be parked.
    """
    try:
        await write(planned)
    except PoisonRecord as refusal:
        await _isolate(planned.batch, refusal, plan, write)


async def _isolate(batch: Batch, refusal: PoisonRecord, plan: Plan, write: Write) -> None:
    """Park what is refused, and write the rest: at once where the refusal names its records, else half by half."""
    rest = batch.refusing(refusal)
    if rest is not None:
        log.warning("records_refused", kind=refusal.kind, count=len(refusal.sources), reason=str(refusal))
        await write_isolating(await plan(rest), plan=plan, write=write)
    elif len(batch) > 1:
        for half in batch.halves():
            await write_isolating(await plan(half), plan=plan, write=write)
    else:
        await _park_refused(batch, refusal, plan, write)


async def _park_refused(batch: Batch, refusal: PoisonRecord, plan: Plan, write: Write) -> None:
    reason = str(refusal)
    for chunk in batch.chunks:
        for record in chunk.records:
            log.warning(
                "record_refused_by_database",
                topic=chunk.partition.topic,
                partition=chunk.partition.partition,
                offset=record.offset,
                reason=reason,
            )
    chunks = [chunk.parked(refusal.kind, reason) if chunk.records else chunk for chunk in batch.chunks]
    try:
        await write(await plan(Batch(chunks)))
    except PoisonRecord as error:
        raise HaltingFailure(f"a refused record cannot be parked: {error}") from error
