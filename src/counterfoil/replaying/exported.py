"""Records in a file of JSON lines, one record each: written by `export`, read again in Kafka's place."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import hashlib
import os
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

import msgspec

from counterfoil.errors import InvalidSetting
from counterfoil.ingest.partitions import Partition
from counterfoil.ingest.records import Record, StoredRecord, bytes_of, next_offset, text_or_base64
from counterfoil.replaying.sources import Read, Stretch
from counterfoil.replaying.windows import Window

GZIP_MAGIC = b"\x1f\x8b"
LINES_AT_ONCE = 500
BYTES_AT_ONCE = 4 * 1024 * 1024
"""Of values, but for one record."""

LARGEST_LINE = 64 * 1024 * 1024


class Base64(msgspec.Struct, forbid_unknown_fields=True):
    """Bytes that are no text."""

    base64: str


Bytes: TypeAlias = str | Base64 | None


class Line(msgspec.Struct, forbid_unknown_fields=False):
    """One record, and where it was; `timestamp` in milliseconds since 1970, -1 for none."""

    cluster: str
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: Bytes = None
    headers: list[tuple[str | Base64, Bytes]] = msgspec.field(default_factory=list)
    value: Bytes = None


_decoder = msgspec.json.Decoder(Line)
_encoder = msgspec.json.Encoder()


def line_of(cluster_id: str, record: Record) -> bytes:
    """A record as a line, without its end."""
    return _encoder.encode(
        {
            "cluster": cluster_id,
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp": record.timestamp,
            "key": text_or_base64(record.key),
            "headers": [
                [text_or_base64(name.encode("utf-8", "surrogateescape")), text_or_base64(value)]
                for name, value in record.headers
            ],
            "value": text_or_base64(record.value),
        }
    )


def parse_line(line: bytes) -> tuple[str, StoredRecord]:
    """A record and its cluster; raises ValueError that names the field and what it takes."""
    try:
        found = _decoder.decode(line)
    except msgspec.ValidationError as error:
        raise ValueError(_in_words(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"takes one JSON object a line: {error}") from None
    if not (found.topic and found.cluster) or "\0" in found.topic + found.cluster:
        raise ValueError("cluster, topic: take a name")
    if not (0 <= found.partition < 2**31 and 0 <= found.offset < 2**63 - 1 and abs(found.timestamp) < 2**63):
        raise ValueError("partition, offset, timestamp: take what Kafka can count to")
    record = StoredRecord(
        found.topic,
        found.partition,
        found.offset,
        found.timestamp,
        _bytes(found.key, "key"),
        _bytes(found.value, "value"),
        tuple(
            ((_bytes(name, "headers") or b"").decode("utf-8", "surrogateescape"), _bytes(value, "headers"))
            for name, value in found.headers
        ),
    )
    return found.cluster, record


def _in_words(error: msgspec.ValidationError) -> str:
    """`field: what is wrong`."""
    text, _, path = str(error).partition(" - at `$")
    field = path.strip("`").lstrip(".")
    return f"{field}: {text}" if field else text


def _bytes(value: Bytes, field: str) -> bytes | None:
    if not isinstance(value, Base64):
        return bytes_of(value)
    try:
        return base64.b64decode(value.base64, validate=True)
    except ValueError as error:
        raise ValueError(f"{field}: takes base64: {error}") from None


class ExportedRecords:
    """The records of one cluster in a file, within a window; those of a partition stand by offset."""

    def __init__(self, path: Path, stretches: list[Stretch], window: Window) -> None:
        self.notes: list[str] = []
        self._path = path
        self._stretches = stretches
        self._window = window
        self._at = {stretch.partition: stretch.first_offset for stretch in stretches}

    async def open(self) -> list[Stretch]:
        """What there is to be read."""
        return self._stretches

    def seek(self, partition: Partition, offset: int) -> None:
        """Read this partition from here; otherwise it is read from its stretch's beginning."""
        self._at[partition] = offset

    async def read(self, ends: Mapping[Partition, int]) -> AsyncIterator[Read]:
        """Read on to these ends; may be called again with later ones."""
        cluster_id = self._stretches[0].cluster_id if self._stretches else ""
        with opened(self._path) as lines:
            run: list[StoredRecord] = []
            size = 0
            for cluster, record in _records(lines, self._path):
                if cluster != cluster_id:
                    continue
                if run and (
                    len(run) >= LINES_AT_ONCE
                    or size >= BYTES_AT_ONCE
                    or (run[0].topic, run[0].partition) != (record.topic, record.partition)
                ):
                    for read in self._read_of(run, ends):
                        yield read
                    run, size = [], 0
                    await asyncio.sleep(0)
                run.append(record)
                size += len(record.value or b"")
            for read in self._read_of(run, ends):
                yield read
        for partition, end in ends.items():  # what comes before the end of a stretch, and is no record
            if self._at[partition] < end:
                first, self._at[partition] = self._at[partition], end
                yield Read(partition, (), first, end)

    def _read_of(self, run: list[StoredRecord], ends: Mapping[Partition, int]) -> Iterator[Read]:
        """These records of one partition, those of them that are due."""
        partition = Partition(run[0].topic, run[0].partition) if run else None
        if partition is None or partition not in ends:
            return
        first, end = self._at[partition], ends[partition]
        due = [record for record in run if first <= record.offset < end]
        if due:
            self._at[partition] = next_offset(due[-1])
            yield Read(partition, self._window.select(due), first, self._at[partition])

    async def close(self) -> None:
        """Let go of it."""


class ExportedFile:
    """A file of records, read through once: what is in it of which cluster, and its digest."""

    def __init__(self, path: Path, topics: Collection[str], window: Window) -> None:
        """`topics` are those to be read; what else there is is counted in `others`."""
        self._path = path
        self._topics = topics
        self._window = window
        self.others: Counter[str] = Counter()
        self.digest = ""

    async def sources(self) -> list[ExportedRecords]:
        """One for each cluster; raises InvalidSetting for the first line that is wrong, with its number and field."""
        bounds: dict[tuple[str, Partition], tuple[int, int]] = {}
        digest = hashlib.sha256()
        with opened(self._path) as lines:
            for number, line in enumerate(_numbered(lines, self._path), start=1):
                digest.update(line)
                if line.strip():
                    self._look_at(number, line, bounds)
                if number % LINES_AT_ONCE == 0:
                    await asyncio.sleep(0)
        self.digest = digest.hexdigest()
        clusters: dict[str, list[Stretch]] = {}
        for (cluster, partition), (first, end) in sorted(bounds.items()):
            stretch = self._stretch(cluster, partition, first, end)
            clusters.setdefault(cluster, []).append(stretch)
        return [ExportedRecords(self._path, found, self._window) for found in clusters.values()]

    def _look_at(
        self, number: int, line: bytes, bounds: dict[tuple[str, Partition], tuple[int, int]]
    ) -> None:
        try:
            cluster, record = parse_line(line)
        except ValueError as error:
            raise InvalidSetting(f"{self._path}: line {number}: {error}") from None
        if record.topic not in self._topics:
            self.others[record.topic] += 1
            return
        if not self._window.has(record.partition):
            return
        place = cluster, Partition(record.topic, record.partition)
        first, end = bounds.get(place, (record.offset, record.offset))
        if record.offset < end:
            raise InvalidSetting(
                f"{self._path}: line {number}: offset: takes {end} or more, after those of this partition before it"
            )
        bounds[place] = first, next_offset(record)

    def _stretch(self, cluster: str, partition: Partition, first: int, end: int) -> Stretch:
        end = min(end, self._window.end_offset or end)
        return Stretch(cluster, partition, min(max(first, self._window.first_offset or 0), end), end)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A file of lines, unpacked where it is packed; raises InvalidSetting where it cannot be read."""
    try:
        with path.open("rb") as plain:
            packed = plain.read(2) == GZIP_MAGIC
            plain.seek(0)
            if packed:
                with gzip.open(plain, "rb") as lines:
                    yield cast("IO[bytes]", lines)
            else:
                yield plain
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidSetting(f"{path}: {reason}") from None


def _numbered(lines: IO[bytes], path: Path) -> Iterator[bytes]:
    while line := lines.readline(LARGEST_LINE):
        if len(line) == LARGEST_LINE:
            raise InvalidSetting(f"{path}: takes lines of less than {LARGEST_LINE >> 20} MiB")
        yield line


def _records(lines: IO[bytes], path: Path) -> Iterator[tuple[str, StoredRecord]]:
    for line in _numbered(lines, path):
        if line.strip():
            try:
                yield parse_line(line)
            except ValueError as error:  # it was read before, whole and right
                raise InvalidSetting(f"{path}: it has changed meanwhile: {error}") from None


class LinesFile:
    """A file that is written beside its name and takes it once it is whole; packed where it ends in .gz.

    What is there and is no file, such as a pipe, is written to as it is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_pipe = path.exists() and not path.is_file()
        self._part = path if self._is_pipe else path.with_name(f"{path.name}.{os.getpid()}.part")
        self._file: IO[bytes] | None = None

    def __enter__(self) -> IO[bytes]:
        try:
            file: Any = gzip.open if self._path.suffix == ".gz" else open
            self._file = cast("IO[bytes]", file(self._part, "wb"))
        except OSError as error:
            raise InvalidSetting(f"{self._path}: {error.strerror}") from None
        return self._file

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        whole = kind is None
        try:
            if self._file is not None:
                self._file.close()
        except OSError:
            whole = False
            raise
        finally:
            if not self._is_pipe:
                self._put(whole=whole)

    def _put(self, *, whole: bool) -> None:
        """Give it its name, or take away what is there of it."""
        if whole:
            self._part.replace(self._path)
        else:
            self._part.unlink(missing_ok=True)
