"""Two schemas of the same tables, compared: sums of hashes by buckets first, rows only of buckets that differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from heapq import nsmallest
from typing import Any, NamedTuple, TypeAlias

from counterfoil.database.connection import Connection
from counterfoil.replaying.compared import COMPARED, Compared

BUCKETS = 1_024

ROWS_AT_ONCE = 100_000
"""Keys of buckets that differ which are looked at together, of either side."""

MISSING = "missing"
"""The log tells of it, and it is not live."""

ONLY_LIVE = "only live"
"""It is live, and nothing tells of it."""

DIFFERS = "differs"
"""It is on both sides, with two contents."""

Content: TypeAlias = Mapping[str, Any]
"""Column → value, as JSON has it."""

Excuse: TypeAlias = Callable[[Content | None, Content | None], bool]
"""Whether a live and a shadow's content may differ in that way."""

Verdict: TypeAlias = tuple[str, str]
"""A key as JSON, and what is the matter with it."""

# The names in these texts are those of COMPARED; values go as parameters.
_FINGERPRINT = "SELECT count(*) AS rows, coalesce(sum({row}), 0) AS hash FROM {source} AS c"
_BUCKETS = "SELECT {bucket} AS bucket, count(*) AS rows, sum({row}) AS hash FROM {source} AS c GROUP BY 1"
_HASHES = "SELECT {key} AS key, {row} AS hash FROM {source} AS c WHERE {bucket} = ANY ($1::integer[])"
_CONTENTS = (
    "SELECT {key} AS key, jsonb_build_array({columns})::text AS content FROM {source} AS c "
    "WHERE {bucket} = ANY ($1::integer[]) AND {key} = ANY ($2::text[])"
)


class Fingerprint(NamedTuple):
    """How many rows, and the sum of their hashes."""

    rows: int
    hash: Decimal

    @property
    def digest(self) -> str:
        """The same for the same rows, whatever their order."""
        return hashlib.sha256(f"{self.rows}:{self.hash}".encode()).hexdigest()[:16]


class Difference(NamedTuple):
    """A key that is not the same on both sides, with both contents; None where there is no row."""

    table: str
    verdict: str
    key: Content
    live: Content | None
    shadow: Content | None


@dataclass(slots=True)
class TableComparison:
    """What comparing one table came to; `differences` are the first of them, by key."""

    table: str
    live: Fingerprint
    shadow: Fingerprint
    missing: int = 0
    only_live: int = 0
    differing: int = 0
    excused: int = 0
    differences: list[Difference] = field(default_factory=list)

    @property
    def found(self) -> int:
        """How many keys are not the same."""
        return self.missing + self.only_live + self.differing


async def digest_of(connection: Connection) -> dict[str, str]:
    """Table → a digest of what its rows say: equal for equal ledgers and counters, in whatever schema or database."""
    return {compared.table: (await fingerprint(connection, compared)).digest for compared in COMPARED}


def digest_of_all(digests: Mapping[str, str]) -> str:
    """One digest of those of all tables."""
    return hashlib.sha256(json.dumps(sorted(digests.items())).encode()).hexdigest()[:16]


async def fingerprint(connection: Connection, compared: Compared) -> Fingerprint:
    """The fingerprint of a whole table."""
    (row,) = await connection.fetch(_text(_FINGERPRINT, compared))
    return Fingerprint(row["rows"], row["hash"])


class Comparing:
    """Compares tables of two connections, of which neither may see a change meanwhile."""

    def __init__(self, live: Connection, shadow: Connection) -> None:
        self._sides = (live, shadow)

    async def compare(self, compared: Compared, limit: int, excuse: Excuse | None = None) -> TableComparison:
        """Compare one table; at most `limit` keys come back with their contents, the first ones."""
        live, shadow = [await _buckets(side, compared) for side in self._sides]
        result = TableComparison(compared.table, _sum(live), _sum(shadow))
        differing = sorted(b for b in live.keys() | shadow.keys() if live.get(b) != shadow.get(b))
        found: list[Verdict] = []
        for buckets in _slices(differing, (live, shadow)):
            verdicts = await self._verdicts(compared, buckets)
            if excuse is not None:
                verdicts, all_verdicts = (
                    await self._inexcusable(compared, buckets, verdicts, excuse),
                    verdicts,
                )
                result.excused += len(all_verdicts) - len(verdicts)
            _count(result, verdicts)
            found = nsmallest(limit, [*found, *verdicts])
        contents = await self._contents(compared, differing, [key for key, _ in found])
        result.differences = [_difference(compared, verdict, contents) for verdict in found]
        return result

    async def _verdicts(self, compared: Compared, buckets: Sequence[int]) -> list[Verdict]:
        text = _text(_HASHES, compared)
        live, shadow = [
            {row["key"]: row["hash"] for row in await side.fetch(text, buckets)} for side in self._sides
        ]
        differing = [(key, DIFFERS) for key in live.keys() & shadow.keys() if live[key] != shadow[key]]
        missing = [(key, MISSING) for key in shadow.keys() - live.keys()]
        return [*differing, *missing, *((key, ONLY_LIVE) for key in live.keys() - shadow.keys())]

    async def _inexcusable(
        self, compared: Compared, buckets: Sequence[int], verdicts: Sequence[Verdict], excuse: Excuse
    ) -> list[Verdict]:
        live, shadow = await self._contents(compared, buckets, [key for key, _ in verdicts])
        return [(key, verdict) for key, verdict in verdicts if not excuse(live.get(key), shadow.get(key))]

    async def _contents(
        self, compared: Compared, buckets: Sequence[int], keys: Sequence[str]
    ) -> list[dict[str, Content]]:
        """What stands under some keys of these buckets, on each side."""
        text = _text(_CONTENTS, compared)
        return [
            {row["key"]: _content(compared, row["content"]) for row in await side.fetch(text, buckets, keys)}
            if keys
            else {}
            for side in self._sides
        ]


async def _buckets(connection: Connection, compared: Compared) -> dict[int, Fingerprint]:
    rows = await connection.fetch(_text(_BUCKETS, compared))
    return {row["bucket"]: Fingerprint(row["rows"], row["hash"]) for row in rows}


def _sum(buckets: Mapping[int, Fingerprint]) -> Fingerprint:
    counted = buckets.values()
    return Fingerprint(sum(b.rows for b in counted), sum((b.hash for b in counted), Decimal(0)))


def _slices(buckets: Sequence[int], sides: Sequence[Mapping[int, Fingerprint]]) -> Iterator[list[int]]:
    """Buckets that are looked at together: one, or some that hold no more than so many rows."""
    taken: list[int] = []
    rows = 0
    for bucket in buckets:
        held = max(side[bucket].rows for side in sides if bucket in side)
        if taken and rows + held > ROWS_AT_ONCE:
            yield taken
            taken, rows = [], 0
        taken.append(bucket)
        rows += held
    if taken:
        yield taken


def _count(result: TableComparison, verdicts: Sequence[Verdict]) -> None:
    for _, verdict in verdicts:
        result.missing += verdict == MISSING
        result.only_live += verdict == ONLY_LIVE
        result.differing += verdict == DIFFERS


def _difference(
    compared: Compared, verdict: Verdict, contents: Sequence[Mapping[str, Content]]
) -> Difference:
    key, kind = verdict
    names = dict(zip(compared.key, json.loads(key, parse_float=str), strict=True))
    live, shadow = [side.get(key) for side in contents]
    return Difference(compared.table, kind, names, live, shadow)


def _content(compared: Compared, text: str) -> Content:
    return dict(zip(compared.columns, json.loads(text, parse_float=str), strict=True))


def _text(template: str, compared: Compared) -> str:
    key = _named(compared.key)
    return template.format(
        source=compared.source,
        bucket=f"(hash_record_extended(ROW({key}), 0) & {BUCKETS - 1})::integer",
        row=f"hash_record_extended(ROW({_named((*compared.key, *compared.content))}), 0)",
        key=f"jsonb_build_array({key})::text",
        columns=_named(compared.columns),
    )


def _named(columns: Sequence[str]) -> str:
    return ", ".join(f'c."{column}"' for column in columns)
