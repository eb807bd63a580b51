"""What is not read, or not in time: what the gap check of a worker sees, and what is about to become a gap."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

from counterfoil.doctor.findings import Finding, plural, problem, some, span, warning, well
from counterfoil.ingest.gaps import Gap, Kind, Known
from counterfoil.ingest.partitions import Partition
from counterfoil.settings import Settings

NEWS = timedelta(days=7)
"""How long a loss is something to be told of; it stays in `lost_offsets`."""

NEARLY = 0.9
"""Of its retention: what is older and unread is about to be lost."""

ARCHIVE = "counterfoil replay --file … --mode apply"


def check_gaps(
    settings: Settings, known: Known, gaps: Iterable[Gap], retention_ms: Mapping[str, int]
) -> list[Finding]:
    """Everything that PostgreSQL and Kafka together tell."""
    by_kind: dict[Kind, list[Gap]] = defaultdict(list)
    for gap in gaps:
        by_kind[gap.kind].append(gap)
    return [
        *_standstill(by_kind[Kind.STANDS_STILL]),
        *_lag(settings, known, {gap.partition for gap in by_kind[Kind.STANDS_STILL]}),
        *_retention(known, by_kind[Kind.LEFT_UNREAD], retention_ms),
        *_consumers(by_kind[Kind.WITHOUT_CONSUMER]),
        *_missing(by_kind[Kind.MISSING]),
    ]


def _standstill(gaps: list[Gap]) -> Iterator[Finding]:
    if not gaps:
        yield well("standstill", "no position stands still before a record")
        return
    waiting = sum(gap.to - gap.first for gap in gaps)
    told = f"{plural(len(gaps), 'position')} before {plural(waiting, 'record')}: {_places(gaps)}"
    fix = "start a worker that reads them (COUNTERFOIL_CONSUMERS, --only), or see in its log why it does not"
    yield problem("standstill", f"stand still: {told}" if len(gaps) > 1 else f"stands still: {told}", fix)


def _lag(settings: Settings, known: Known, still: set[Partition]) -> Iterator[Finding]:
    """What waits to be read, and since when; positions that stand still are told of as such."""
    behind: dict[str, int] = defaultdict(int)
    oldest = time.time()
    for _, partition, next_offset, _ in known.positions:
        bounds = known.bounds.get(partition)
        if bounds is None or bounds.unread_at is None or partition in still:
            continue
        behind[partition.topic] += bounds.end - max(next_offset, bounds.begin)
        oldest = min(oldest, bounds.unread_at / 1000)
    if not behind:
        yield well("lag", "everything is read")
        return
    age = time.time() - oldest
    told = f"{plural(sum(behind.values()), 'record')} to be read, the oldest of {span(age)} ago: " + some(
        f"{topic} {count:,}" for topic, count in sorted(behind.items(), key=lambda item: -item[1])
    )
    if age > settings.standstill_after_s.total_seconds():
        yield warning("lag", told, "run more workers, at most one for each partition")
    else:
        yield well("lag", told)


def _retention(known: Known, unread: list[Gap], retention_ms: Mapping[str, int]) -> Iterator[Finding]:
    longer = "lengthen the topics' retention.ms"
    if unread:
        lost = plural(sum(gap.to - gap.first for gap in unread), "offset")
        told = f"Kafka deleted {lost} before we read them: {_places(unread)}"
        yield problem("retention", told, f"{longer}; what an archive holds: `{ARCHIVE}`")
    recent = {
        topic: found
        for topic, found in known.lost.items()
        if datetime.now(UTC) - found.last_noticed_at < NEWS
    }
    if recent:
        each = some(f"{topic} {found.offsets:,}" for topic, found in sorted(recent.items()))
        newest = max(found.last_noticed_at for found in recent.values())
        told = f"offsets were lost to retention, last at {newest:%Y-%m-%d %H:%M} UTC: {each}"
        yield problem("retention", told, f"{longer}; what an archive holds: `{ARCHIVE}`")
    soon = sorted(_about_to_be_lost(known, retention_ms))
    if soon:
        yield warning("retention", f"about to be deleted unread: {some(soon)}", f"{longer}, or read faster")
    if not unread and not recent and not soon:
        before = sum(found.offsets for found in known.lost.values())
        rest = f"; long ago {plural(before, 'offset')} was" if before == 1 else f"; long ago {before:,} were"
        yield well("retention", "nothing was deleted unread" + (rest if before else ""))


def _about_to_be_lost(known: Known, retention_ms: Mapping[str, int]) -> Iterator[str]:
    """Partitions whose oldest unread record has nearly reached the age at which Kafka deletes it."""
    now_ms = time.time() * 1000
    for _, partition, next_offset, _ in known.positions:
        bounds = known.bounds.get(partition)
        kept = retention_ms.get(partition.topic, -1)
        if bounds is None or not bounds.unread_at or kept <= 0:
            continue
        if next_offset >= bounds.begin and now_ms - bounds.unread_at > NEARLY * kept:
            yield f"{partition.topic}/{partition.partition}"


def _consumers(gaps: list[Gap]) -> Iterator[Finding]:
    if not gaps:
        yield well("consumers", "every partition with records is read by a worker")
        return
    by_topic: dict[str, int] = defaultdict(int)
    for gap in gaps:
        by_topic[gap.partition.topic] += 1
    told = some(f"{topic} ({plural(count, 'partition')})" for topic, count in sorted(by_topic.items()))
    fix = "start a worker, and name the topic in its COUNTERFOIL_CONSUMERS"
    yield problem("consumers", f"hold records and are read by nobody: {told}", fix)


def _missing(gaps: list[Gap]) -> Iterator[Finding]:
    gone = [gap for gap in gaps if gap.partition.partition >= 0]
    if gone:
        told = f"{plural(len(gone), 'partition')} that we read are no longer in Kafka: {_places(gone)}"
        fix = "make the topic with as many partitions as before; a topic made anew is read from its beginning"
        yield warning("topics", told, fix)


def _places(gaps: Iterable[Gap]) -> str:
    return some(f"{gap.partition.topic}/{gap.partition.partition}@{gap.first}" for gap in gaps)
