"""Records as they are kept: headers, timestamps, offsets come back as they were."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from counterfoil.ingest.records import (
    LATEST_TIMESTAMP,
    headers_from_json,
    headers_to_json,
    milliseconds_of,
    next_offset,
    storable,
    timestamp_of,
)
from support.builders import a_record

names = st.text(st.characters(codec="utf-8"), max_size=5)
values = st.none() | st.binary(max_size=12) | st.text(max_size=8).map(lambda t: t.encode("utf-8", "ignore"))


@given(headers=st.lists(st.tuples(names, values), max_size=5))
def test_headers_come_back_from_json_as_they_were(headers):
    assert headers_from_json(headers_to_json(headers)) == headers


@given(name=st.binary(max_size=6))
def test_a_header_name_that_is_no_text_comes_back_as_it_was(name):
    headers = [(name.decode("utf-8", "surrogateescape"), b"")]
    assert headers_from_json(headers_to_json(headers)) == headers


@given(headers=st.lists(st.tuples(names, values), max_size=5))
def test_the_json_of_headers_is_what_postgresql_can_hold(headers):
    text = headers_to_json(headers)
    assert "\\u0000" not in text
    assert json.loads(text).__class__ is list
    text.encode()


def test_readable_headers_are_readable():
    assert (
        headers_to_json([("a", b"text"), ("b", None), ("c", b"\xff")])
        == '[["a", "text"], ["b", null], ["c", {"base64": "/w=="}]]'
    )


@given(milliseconds=st.integers(-1, 4_102_444_800_000))
def test_a_timestamp_comes_back_as_it_was(milliseconds):
    assert milliseconds_of(timestamp_of(milliseconds)) == milliseconds


def test_a_reader_of_a_record_stands_behind_it():
    assert next_offset(a_record(41)) == 42


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_timestamp_of_any_64_bits_can_be_stored(milliseconds):
    """A producer that stamps microseconds must not stop the worker."""
    stored = milliseconds_of(timestamp_of(milliseconds))
    assert stored == storable(milliseconds)
    assert stored == milliseconds or not -1 <= milliseconds <= LATEST_TIMESTAMP
