"""What a replay reads from, be it Kafka or a file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from counterfoil.ingest.partitions import Partition
from counterfoil.ingest.records import Record


class Stretch(NamedTuple):
    """The part of one partition's log that is to be read: `first_offset` ≤ offset < `end_offset`."""

    cluster_id: str
    partition: Partition
    first_offset: int
    end_offset: int


class Read(NamedTuple):
    """Some records of one partition, in order; between the two offsets all others are out of the window, or none."""

    partition: Partition
    records: Sequence[Record]
    first_offset: int
    next_offset: int


class Source(Protocol):
    """A log to be read again. `notes` are for a person: what is no longer there, for one."""

    notes: list[str]

    async def open(self) -> list[Stretch]:
        """What there is to be read; the ends are those of now. Raises DependencyUnreachable or InvalidSetting."""
        ...

    def seek(self, partition: Partition, offset: int) -> None:
        """Read this partition from here; otherwise it is read from its stretch's beginning."""
        ...

    def read(self, ends: Mapping[Partition, int]) -> AsyncIterator[Read]:
        """Read on to these ends, of some partitions or of all; may be called again with later ones.

        What is read of a partition follows on what was read of it before. Raises DependencyUnreachable.
        """
        ...

    async def close(self) -> None:
        """Let go of it."""
        ...
