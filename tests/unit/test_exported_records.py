"""Exported records: every record comes back from its line as it was, and a wrong line is told by its field."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.ingest.records import StoredRecord
from counterfoil.replaying import exported
from counterfoil.replaying.exported import line_of, parse_line
from counterfoil.replaying.windows import Window

some_bytes = (
    st.none() | st.binary(max_size=40) | st.text(max_size=40).map(lambda t: t.encode("utf-8", "replace"))
)
header_names = st.binary(max_size=10).map(lambda name: name.decode("utf-8", "surrogateescape"))

records = st.builds(
    StoredRecord,
    topic=st.text(min_size=1, max_size=20).filter(lambda t: t.isprintable()),
    partition=st.integers(0, 2**31 - 1),
    offset=st.integers(0, 2**63 - 2),
    timestamp=st.integers(-1, 2**63 - 1),
    key=some_bytes,
    value=some_bytes,
    headers=st.lists(st.tuples(header_names, some_bytes), max_size=3).map(tuple),
)


@given(records)
def test_a_record_comes_back_from_its_line_as_it_was(record):
    line = line_of("c", record)
    assert b"\n" not in line
    assert parse_line(line) == ("c", record)


async def test_no_more_of_large_values_is_held_at_once_than_memory_has_room_for(tmp_path, monkeypatch):
    monkeypatch.setattr(exported, "BYTES_AT_ONCE", 1_000)
    file = tmp_path / "log.jsonl"
    file.write_bytes(
        b"".join(line_of("c", StoredRecord("t", 0, i, 0, None, b"x" * 400)) + b"\n" for i in range(9))
    )
    [source] = await exported.ExportedFile(file, ["t"], Window()).sources()
    [stretch] = await source.open()
    reads = [read async for read in source.read({stretch.partition: stretch.end_offset})]
    assert [len(read.records) for read in reads] == [3, 3, 3]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"[]", "takes|Expected `object`"),
        (b'{"cluster": "c"}', "missing required field `topic`"),
        (b'{"cluster":"c","topic":"t","partition":0,"offset":1.5,"timestamp":0}', "^offset: "),
        (
            b'{"cluster":"c","topic":"t","partition":0,"offset":-1,"timestamp":0}',
            "^partition, offset, timestamp: ",
        ),
        (b'{"cluster":"c","topic":"t","partition":0,"offset":99999999999999999999,"timestamp":0}', "offset"),
        (b'{"cluster":"c","topic":"t","partition":0,"offset":9223372036854775807,"timestamp":0}', "offset"),
        (b'{"cluster":"c\\u0000","topic":"t","partition":0,"offset":0,"timestamp":0}', "^cluster, topic: "),
        (b'{"cluster":"","topic":"t","partition":0,"offset":0,"timestamp":0}', "^cluster, topic: "),
        (b'{"cluster":"c","topic":"t","partition":0,"offset":0,"timestamp":0,"key":5}', "^key: "),
        (
            b'{"cluster":"c","topic":"t","partition":0,"offset":0,"timestamp":0,"key":{"base64":"*"}}',
            "^key: ",
        ),
        (b'{"cluster":"c","topic":"t","partition":0,"offset":0,"timestamp":0,"headers":[["a"]]}', "^headers"),
        (b"\xff", "takes one JSON object a line"),
        (b'{"x":' * 100_000, "takes one JSON object a line"),
    ],
)
def test_a_wrong_line_is_told_by_its_field(line, words):
    with pytest.raises(ValueError, match=words):
        parse_line(line)
