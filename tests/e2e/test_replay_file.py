"""An archive that `export` wrote is replayed as Kafka's own log would be."""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from counterfoil.replaying.comparing import digest_of
from support.databases import address_of, clone, drop
from support.factories import Message, a_click, an_order, new_id
from support.ledgers import dead_letters, usages
from support.mixed_log import mixed_log
from support.replaying import Replays
from support.servers import Broker, Server
from support.stream import Stream


@pytest.fixture
async def stream(broker: Broker, topic_prefix: str) -> AsyncIterator[Stream]:
    """This test's topics on whatever broker there is."""
    async with Stream(broker, topic_prefix) as stream:
        yield stream


@pytest.fixture
def replays(stream: Stream, database_url: str) -> Replays:
    return Replays(stream, database_url)


@pytest.fixture
def elsewhere(stream: Stream, postgres_server: Server, template_database: str) -> Iterator[Replays]:
    """The same on a second database, with a Kafka that is not there."""
    name = clone(template_database, postgres_server.dsn)
    replays = Replays(stream, address_of(name, postgres_server.dsn))
    replays.settings["kafka_bootstrap_servers"] = "127.0.0.1:1"
    yield replays
    drop(name, postgres_server.dsn)


async def test_an_exported_log_makes_the_ledgers_that_kafkas_own_makes(
    stream: Stream, replays: Replays, elsewhere: Replays, db: asyncpg.Connection, tmp_path: Path
) -> None:
    await stream.create()
    await publish_facts(stream, 800)
    file = tmp_path / "log.jsonl.gz"
    exported = await replays.command("export", *topics_of(stream), "--output", str(file), "--json")
    assert json.loads(exported.out)["records"] == 800

    from_kafka = await replays.apply("--all")
    from_file = await elsewhere.apply("--file", str(file))

    assert from_file.summary["totals"] == from_kafka.summary["totals"]
    other = await asyncpg.connect(str(elsewhere.settings["database_url"]))
    assert await digest_of(other) == await digest_of(db)
    assert letters(await dead_letters(other)) == letters(await dead_letters(db))
    clicks = "SELECT click_id FROM aff_clicks ORDER BY 1"
    assert await other.fetch(clicks) == await db.fetch(clicks)
    await other.close()
    assert (await replays.check("--file", str(file))).code == 0


async def test_keys_values_and_headers_come_back_as_the_bytes_that_they_were(
    stream: Stream, replays: Replays, elsewhere: Replays, db: asyncpg.Connection, tmp_path: Path
) -> None:
    await stream.create(partitions=1)
    odd = [("a", b"\xff\x00"), ("b", None), ("c", "ü".encode())]
    await stream.publish(
        Message(b"\xff\xfe not JSON", None, odd, 0, 1_772_366_400_000),
        Message(None, b"\x80key", (), 0, 1_772_366_400_001),
        Message(b'{"codes": ["with NUL \\u0000", "\\ud800"]}', b"", (), 0, 1_772_366_400_002),
        Message(b"\xef\xbb\xbf[1]", "schlüssel".encode(), (), 0, 1_772_366_400_003),
        an_order(order_id="good", partition=0),
    )
    file = tmp_path / "log.jsonl"
    await replays.command("export", "order.placed", "--output", str(file))
    first = json.loads(file.read_text().splitlines()[0])
    assert (first["key"], first["value"]) == (None, {"base64": "//4gbm90IEpTT04="})
    assert first["headers"] == [["a", {"base64": "/wA="}], ["b", None], ["c", "ü"]]

    await replays.apply("order.placed")
    await elsewhere.apply("order.placed", "--file", str(file))

    other = await asyncpg.connect(str(elsewhere.settings["database_url"]))
    assert letters(await dead_letters(other)) == letters(await dead_letters(db))
    assert len(await dead_letters(db)) == 4
    assert await usages(other) == await usages(db) == [("good", "SPRING")]
    await other.close()


async def test_a_window_and_topics_bound_what_is_exported_and_what_is_replayed(
    stream: Stream, replays: Replays, elsewhere: Replays, tmp_path: Path
) -> None:
    await stream.create(partitions=1)
    await stream.publish(*(an_order(order_id=f"o{n}") for n in range(10)))
    await stream.publish(a_click(), topic=stream.clicks)
    file = tmp_path / "log.jsonl"
    part = ("--partition", "0", "--from-offset", "2", "--to-offset", "8")
    out = await replays.command("export", "order.placed", *part)
    clicks = await replays.command("export", "click")
    file.write_text(out.out + "\n" + clicks.out)  # a blank line is no record
    assert [json.loads(line)["offset"] for line in out.out.splitlines()] == list(range(2, 8))

    later = ("--partition", "0", "--from-offset", "5")
    found = await elsewhere.check("order.placed", "--file", str(file), *later)

    assert [row["key"][0] for row in found.summary["missing"]] == ["o5", "o6", "o7"]
    assert (await elsewhere.check("--file", str(file))).summary["totals"]["missing"] == 7


async def test_records_of_two_clusters_are_two_replays(
    stream: Stream, elsewhere: Replays, tmp_path: Path
) -> None:
    lines = [
        a_line(
            stream, cluster=cluster, offset=offset, value={"order_id": f"{cluster}-{offset}", "codes": ["A"]}
        )
        for offset in range(3)
        for cluster in ("one", "two")
    ]
    file = tmp_path / "log.jsonl"
    file.write_text("".join(lines) + a_line(stream, topic="shop.audit"))

    applied = await elsewhere.apply("--file", str(file))

    assert applied.topic(stream.placed)["applied"] == 6
    assert [replay["cluster"] for replay in applied.summary["replays"]] == ["one", "two"]
    assert applied.summary["notes"] == ["1 record of shop.audit passed over: no event type is read from it"]
    assert (await elsewhere.apply("--file", str(file))).topic(stream.placed)["already_there"] == 6


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", "line 2: takes one JSON object a line: "),
        ("{}", "line 2: Object missing required field `cluster`"),
        ('{"cluster": "c", "topic": "t", "partition": 0, "offset": "5", "timestamp": 0}', "line 2: offset: "),
        (
            '{"cluster":"c","topic":"t","partition":0,"offset":5,"timestamp":0,"value":{"base64":"?"}}',
            "line 2: value: ",
        ),
        ("same", "line 2: offset: takes 1 or more, after those of this partition before it"),
    ],
)
async def test_a_wrong_line_is_named_with_its_number_and_field_and_nothing_is_written(
    line: str, message: str, stream: Stream, elsewhere: Replays, tmp_path: Path
) -> None:
    good = a_line(stream)
    file = tmp_path / "log.jsonl"
    file.write_text(good + (good if line == "same" else line + "\n"))

    ended = await elsewhere.command("replay", "--file", str(file), "--mode", "apply")

    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert ended.err.startswith(f"counterfoil: {file}: {message}")


async def test_a_file_that_is_cut_off_or_not_there_is_one_line(
    stream: Stream, elsewhere: Replays, tmp_path: Path
) -> None:
    file = tmp_path / "log.jsonl.gz"
    file.write_bytes(gzip.compress(a_line(stream).encode() * 50)[:-10])
    cut = await elsewhere.command("replay", "--file", str(file))
    assert (cut.code, cut.out, cut.err.count("\n")) == (2, "", 1)
    packed = bytearray(gzip.compress(b"".join(b"%d %x\n" % (i, i * 7919) for i in range(500))))
    packed[20] ^= 0xFF  # so that it can't be unpacked, which is another error than a sum that is wrong
    file.write_bytes(packed)
    broken = await elsewhere.command("replay", "--file", str(file))
    assert (broken.code, broken.out, broken.err.count("\n")) == (2, "", 1)
    missing = await elsewhere.command("replay", "--file", str(tmp_path / "nowhere"))
    assert missing.err == f"counterfoil: {tmp_path}/nowhere: No such file or directory\n"


async def test_an_export_that_fails_leaves_no_file(replays: Replays, tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    ended = await replays.command("export", "order.placed", "--output", str(file))  # there is no such topic
    assert ended.code == 2
    assert os.listdir(tmp_path) == []


async def test_a_full_disk_is_one_line_and_what_is_no_file_stays_as_it_is(
    stream: Stream, replays: Replays, tmp_path: Path
) -> None:
    await stream.create(partitions=1)
    await stream.publish(an_order())
    full = tmp_path / "full"
    os.symlink("/dev/full", full)  # the link would be lost, not the device
    ended = await replays.command("export", "order.placed", "--output", str(full))
    assert (ended.code, ended.err) == (2, f"counterfoil: {full}: No space left on device\n")
    assert os.listdir(tmp_path) == ["full"]
    assert os.readlink(full) == "/dev/full"


def a_line(stream: Stream, *, topic: str | None = None, value: object = None, **fields: object) -> str:
    """An exported record."""
    record = {
        "cluster": "c", "topic": topic or stream.placed, "partition": 0, "offset": 0,
        "timestamp": 1_772_366_400_000, "key": None, "headers": [], "value": json.dumps(value),
    }  # fmt: skip
    return json.dumps(record | fields) + "\n"


def topics_of(stream: Stream) -> list[str]:
    return stream.topics


def letters(rows: list[asyncpg.Record]) -> list[tuple[object, ...]]:
    """Dead letters without their numbers and when they were seen."""
    names = (
        "cluster_id",
        "topic",
        "partition",
        "offset",
        "key",
        "value",
        "headers",
        "record_timestamp",
        "error",
    )
    return [tuple(row[name] for name in names) for row in rows]


async def publish_facts(stream: Stream, count: int) -> None:
    by_topic: dict[str, list[Message]] = {}
    for fact in mixed_log(count, end_ms=int(time.time() * 1000), prefix=new_id("mixed")):
        by_topic.setdefault(fact.topic, []).append(fact.message)
    for topic, messages in by_topic.items():
        await stream.publish(*messages, topic=stream.topic(topic))
