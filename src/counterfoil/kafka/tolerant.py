"""Reads records whose header names are not UTF-8, at which aiokafka stops for ever.

Its reader decodes names strictly, inside the iterator of a batch: the error leaves `getmany`, the position stays, and
the same batch comes again. By the protocol a name may be any bytes, and librdkafka sends them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy


class _Name(bytearray):
    """A part of a batch; where it is taken for a name, bytes that are not UTF-8 become surrogates."""

    def decode(self, *_: object, **__: object) -> str:
        return super().decode("utf-8", "surrogateescape")


class _Buffer(bytearray):
    def __getitem__(self, place: Any) -> Any:
        part = super().__getitem__(place)
        return _Name(part) if isinstance(place, slice) else part


class TolerantBatch:
    """A batch that goes on with the slower, patient reader where the compiled one gives up."""

    def __init__(self, batch: Any, raw: memoryview) -> None:
        self._batch = batch
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        read = 0
        try:
            for record in self._batch:
                yield record
                read += 1
        except (UnicodeDecodeError, CorruptRecordException) as error:
            if not isinstance(error, UnicodeDecodeError) and not isinstance(
                error.__cause__, UnicodeDecodeError
            ):
                raise
            yield from islice(_patiently(self._raw), read, None)


class TolerantRecords:
    """The records of a fetch, batch by batch, beside the raw bytes of each."""

    def __init__(self, data: bytes) -> None:
        self._records = MemoryRecords(data)
        self._raw = _MemoryRecordsPy(data)

    def size_in_bytes(self) -> int:
        """Of the whole fetch."""
        return int(self._records.size_in_bytes())

    def has_next(self) -> bool:
        """Whether there is another batch."""
        return bool(self._records.has_next())

    def next_batch(self) -> TolerantBatch:
        """The next batch."""
        raw = self._raw._next_slice
        self._raw._cache_next()
        return TolerantBatch(self._records.next_batch(), raw)


def tolerate_header_names() -> None:
    """Let every consumer of this process read on past a header name that is not UTF-8."""
    fetcher.MemoryRecords = TolerantRecords


def _patiently(raw: memoryview) -> Iterator[Any]:
    batch = _DefaultRecordBatchPy(raw)
    batch._maybe_uncompress()
    batch._buffer = _Buffer(batch._buffer)
    return iter(batch)
