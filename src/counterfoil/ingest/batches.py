"""What is written together: chunks of one partition each, gathered into a batch."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from counterfoil.errors import PoisonRecord
from counterfoil.ingest.partitions import Partition, PartitionState
from counterfoil.ingest.records import Malformed, Record, next_offset, origin_of


@dataclass(slots=True)
class Chunk:
    """Consecutive records of one partition, read: `first_offset` is where the partition stood before them.

    `state` is what was known of the partition then: when it is held anew, chunks of before are not taken for its own.

    `events[i]` came from offset `offsets[i]`; every other record is in `malformed`.
    """

    state: PartitionState
    first_offset: int
    next_offset: int
    records: list[Record]
    events: list[Any] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    malformed: list[Malformed] = field(default_factory=list)
    size: int = 0

    @property
    def partition(self) -> Partition:
        """Where the records are from."""
        return self.state.partition

    @property
    def skipped(self) -> int:
        """Offsets in between that hold no record."""
        return self.next_offset - self.first_offset - len(self.records)

    @property
    def lost(self) -> tuple[int, int] | None:
        """First and next offset of those that left the log before they were read; None where none did."""
        if not self.records:
            return None
        first, begin = self.first_offset, min(self.state.log_begin, self.records[0].offset)
        return (first, begin) if first < begin else None

    def origin(self, index: int) -> str:
        """The name of the record that `events[index]` came from."""
        offset = self.offsets[index]
        found = bisect_left(self.records, offset, key=lambda record: record.offset)
        return origin_of(self.state.cluster_id, self.records[found])

    def split(self, at: int) -> tuple[Chunk, Chunk]:
        """The first `at` records and the rest."""
        middle = next_offset(self.records[at - 1])
        events = bisect_left(self.offsets, middle)
        return (
            Chunk(
                self.state, self.first_offset, middle, self.records[:at],
                self.events[:events], self.offsets[:events],
                [m for m in self.malformed if m.record.offset < middle],
            ),
            Chunk(
                self.state, middle, self.next_offset, self.records[at:],
                self.events[events:], self.offsets[events:],
                [m for m in self.malformed if m.record.offset >= middle],
            ),
        )  # fmt: skip

    def parked(self, kind: str, reason: str) -> Chunk:
        """The same records, all of them malformed."""
        return Chunk(
            self.state, self.first_offset, self.next_offset, self.records,
            malformed=[Malformed(record, kind, reason) for record in self.records],
        )  # fmt: skip

    def refusing(self, sources: Collection[tuple[int, int]], kind: str, reason: str) -> Chunk:
        """The same records, those of these sources malformed."""
        source_id = self.state.source_id
        refused = {offset for offset in self.offsets if (source_id, offset) in sources}
        if not refused:
            return self
        kept = [index for index, offset in enumerate(self.offsets) if offset not in refused]
        return Chunk(
            self.state, self.first_offset, self.next_offset, self.records,
            [self.events[index] for index in kept], [self.offsets[index] for index in kept],
            [*self.malformed, *(Malformed(r, kind, reason) for r in self.records if r.offset in refused)],
        )  # fmt: skip


@dataclass(slots=True)
class Batch:
    """The chunks of one transaction; those of a partition are in order and follow one another."""

    chunks: list[Chunk]

    def __len__(self) -> int:
        return sum(len(chunk.records) for chunk in self.chunks)

    def by_partition(self) -> dict[Partition, list[Chunk]]:
        """Partition → its chunks, partitions sorted: same lock order in every worker."""
        found: dict[Partition, list[Chunk]] = {}
        for chunk in self.chunks:
            found.setdefault(chunk.partition, []).append(chunk)
        return {partition: found[partition] for partition in sorted(found)}

    def without(self, partitions: Iterable[Partition]) -> Batch:
        """The batch less some partitions."""
        dropped = set(partitions)
        return Batch([chunk for chunk in self.chunks if chunk.partition not in dropped])

    def refusing(self, refusal: PoisonRecord) -> Batch | None:
        """The batch with those records malformed that the refusal names; None where it names none of them."""
        named = refusal.sources, refusal.kind, str(refusal)
        chunks = [chunk.refusing(*named) for chunk in self.chunks]
        found = any(chunk is not before for chunk, before in zip(chunks, self.chunks, strict=True))
        return Batch(chunks) if found else None

    def halves(self) -> Iterator[Batch]:
        """Two batches that written one after the other amount to this one."""
        half = len(self) // 2
        first: list[Chunk] = []
        rest = list(self.chunks)
        taken = 0
        while taken < half:
            chunk = rest.pop(0)
            room = half - taken
            if len(chunk.records) > room:
                chunk, remainder = chunk.split(room)
                rest.insert(0, remainder)
            first.append(chunk)
            taken += len(chunk.records)
        yield Batch(first)
        yield Batch(rest)
