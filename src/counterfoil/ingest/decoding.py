"""Records → events or Malformed, a slice at a time, so that the loop keeps turning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from counterfoil.database.turns import TURNS
from counterfoil.errors import InvalidEvent
from counterfoil.events import Rules
from counterfoil.ingest.batches import Chunk
from counterfoil.ingest.breaker import Breaker
from counterfoil.ingest.partitions import PartitionState
from counterfoil.ingest.records import Malformed, Record, next_offset
from counterfoil.ingest.routes import Route
from counterfoil.telemetry.metrics import Metrics

DECODE_SLICE = 250
"""Records decoded before the loop may turn: about half a millisecond."""

DECODE_BYTES = 64 * 1024
"""And no more of their bytes, but for one record: some documents take 5 ms for so many."""


class Decoder:
    """Reads the records of one topic, and watches how many of them are malformed."""

    def __init__(self, route: Route, rules: Rules, breaker: Breaker, metrics: Metrics) -> None:
        self._fields: list[str] = []
        self._normalised = metrics.normalised
        self.route = route
        self.rules = replace(rules, normalised=self._fields.append)
        self.breaker = breaker

    async def decode(self, state: PartitionState, records: Sequence[Record]) -> Chunk:
        """A chunk of these records, fewer of them where the breaker trips; the last slice's end is its next offset."""
        chunk = Chunk(state, state.expected, state.expected, [])
        end = 0
        while end < len(records):
            await TURNS.preparing()
            start, end = end, _slice_end(records, end)
            tripped = self._decode_slice(chunk, records[start:end])
            self._count_normalised()
            if tripped:
                break
        return chunk

    def _count_normalised(self) -> None:
        for field, count in Counter(self._fields).items():  # a label look-up a slice, not a value
            self._normalised.labels(self.route.topic, field).inc(count)
        self._fields.clear()

    def _decode_slice(self, chunk: Chunk, records: Sequence[Record]) -> bool:
        """Read one slice into the chunk; True when the breaker tripped on the way."""
        decode, rules = self.route.decode, self.rules
        events, offsets = chunk.events, chunk.offsets
        well_formed = 0
        size = 0
        for index, record in enumerate(records):
            value = record.value
            if value is not None:
                size += len(value)
            try:
                events.append(decode(value, record.headers, record.timestamp, rules))
            except Exception as error:  # noqa: BLE001 - whatever a record does to its decoder, it is the record's
                if self.breaker.saw(well_formed, then_malformed=True):
                    self._end(chunk, records[:index], size)
                    return True
                well_formed = 0
                chunk.malformed.append(Malformed(record, *refusal(error)))
            else:
                offsets.append(record.offset)
                well_formed += 1
        self._end(chunk, records, size)
        return self.breaker.saw(well_formed)

    @staticmethod
    def _end(chunk: Chunk, records: Sequence[Record], size: int) -> None:
        chunk.records += records
        chunk.size += size
        if records:
            chunk.next_offset = next_offset(records[-1])


def _slice_end(records: Sequence[Record], start: int) -> int:
    """Where the slice ends that begins here: at least one record further."""
    size = 0
    stop = min(start + DECODE_SLICE, len(records))
    for end in range(start, stop):
        size += len(records[end].value or b"")
        if size > DECODE_BYTES:
            return max(end, start + 1)
    return stop


def refusal(error: Exception) -> tuple[str, str]:
    """Kind and reason of what a decoder raised; whatever that is, it is the record's."""
    if isinstance(error, InvalidEvent):
        return error.kind, str(error)
    return "undecodable", type(error).__name__
