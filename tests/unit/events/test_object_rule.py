"""Objects whose content is an outsider's: whatever it is, they become text that jsonb takes."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from counterfoil.errors import InvalidEvent
from counterfoil.events import document, objects
from counterfoil.events.objects import MAX_OBJECT_BYTES, canonical_text, object_text
from counterfoil.events.rules import Number
from support.json_objects import objects as any_objects
from support.json_objects import shuffled, written

DROPPED = {"_dropped": "too_large"}

_decode = msgspec.json.Decoder(float_hook=Number).decode


def read(text: bytes) -> object:
    """As the fast lane reads it, or else the careful one."""
    try:
        return _decode(text)
    except msgspec.DecodeError:
        return document.parse(text)


def kept(rule, text: bytes):
    """What the rule keeps, and whether it says that it changed the object."""
    changed: list[str] = []
    return rule(read(text), "f", changed.append), changed == ["f"]


both = pytest.mark.parametrize("rule", [object_text, canonical_text])


@pytest.mark.parametrize(
    ("text", "compact", "canonical"),
    [
        (b"{}", "{}", "{}"),
        (b'{"b":1,"a":2}', '{"a":2,"b":1}', '{"a": 2, "b": 1}'),
        (
            b'{"bb":1,"a":{"d":[],"c":{}}}',
            '{"a":{"c":{},"d":[]},"bb":1}',
            '{"a": {"c": {}, "d": []}, "bb": 1}',
        ),
        (b'{"aa":1,"b":2}', '{"aa":1,"b":2}', '{"b": 2, "aa": 1}'),
        ('{"é":1,"zz":2,"z":3}'.encode(), '{"z":3,"zz":2,"é":1}', '{"z": 3, "zz": 2, "é": 1}'),
        (b'{"a":[1,true,null,"x"]}', '{"a":[1,true,null,"x"]}', '{"a": [1, true, null, "x"]}'),
        (b'{ "a" : "\\u00e9\\/" }', '{"a":"é/"}', '{"a": "é/"}'),
        (b'{"a":"\\u0001\\n\\"\\\\"}', '{"a":"\\u0001\\n\\"\\\\"}', '{"a": "\\u0001\\n\\"\\\\"}'),
        (b'{"a":1,"a":2}', '{"a":2}', '{"a": 2}'),
        (b'{"a":"\\\\u0000"}', '{"a":"\\\\u0000"}', '{"a": "\\\\u0000"}'),
        (b'{"a":12345678901234567890123}', '{"a":12345678901234567890123}', '{"a": 12345678901234567890123}'),
        (b'{"a":0.1000000000000000055}', '{"a":0.1000000000000000055}', '{"a": 0.1000000000000000055}'),
        (
            b'{"a":[1.50,-0.0,0.00,1E2,15e-1]}',
            '{"a":[1.50,0.0,0.00,100,1.5]}',
            '{"a": [1.5, 0, 0, 100, 1.5]}',
        ),
        (b'{"a":[-0,0.5,-0.5]}', '{"a":[0,0.5,-0.5]}', '{"a": [0, 0.5, -0.5]}'),
    ],
)
def test_objects_are_kept_as_they_are(text, compact, canonical):
    assert kept(object_text, text) == (compact, False)
    assert kept(canonical_text, text) == (canonical, False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"a":"x\\u0000y"}', {"a": "xy"}),
        (b'{"a\\u0000":[["\\u0000"]]}', {"a": [[""]]}),
        (b'{"a":"\\ud800","\\udfff":1}', {"a": "\ufffd", "\ufffd": 1}),
        (b'{"a":"\\ud83d\\ude00 \\ud83d"}', {"a": "\U0001f600 \ufffd"}),
        (b'{"a":1,"a\\u0000":2}', {"a": 2}),
        (b'{"a\\u0000":2,"a":1}', {"a": 2}),
        (
            b'{"a":[1e400000,-1E-20000,1e99999999999999999999]}',
            {"a": ["1e400000", "-1E-20000", "1e9" + "9" * 19]},
        ),
        (b'{"a":0e1001}', {"a": "0e1001"}),
    ],
)
@both
def test_what_jsonb_refuses_is_made_harmless(rule, text, expected):
    found, changed = kept(rule, text)
    assert json.loads(found) == expected
    assert changed


@both
def test_null_is_missing(rule):
    assert kept(rule, b"null") == (None, False)


@both
@pytest.mark.parametrize("value", [b"[]", b'""', b'"{}"', b"1", b"1.5", b"true", b"[{}]"])
def test_another_type_is_refused(rule, value):
    with pytest.raises(InvalidEvent) as caught:
        rule(read(value), "device_info", lambda _field: None, "deviceInfo")
    assert (caught.value.kind, caught.value.field) == ("invalid_field", "deviceInfo")


def of_size(size: int, character: str = "x") -> dict[str, str]:
    """An object whose compact text has so many bytes."""
    return {"a": character * ((size - len('{"a":""}')) // len(character.encode()))}


@both
@pytest.mark.parametrize("character", ["x", "é", "€"])
def test_an_object_of_16_kib_is_kept_and_a_larger_one_is_dropped(rule, character):
    fits = of_size(MAX_OBJECT_BYTES, character)
    for spelling in (True, False):  # escaped it is longer, and still the same object
        text = json.dumps(fits, ensure_ascii=spelling, indent=4).encode()
        assert (json.loads(kept(rule, text)[0]), kept(rule, text)[1]) == (fits, False)
    larger = {"a": fits["a"] + "yyy"}
    text, changed = kept(rule, json.dumps(larger).encode())
    assert (json.loads(text), changed) == (DROPPED, True)


@both
def test_size_is_that_of_what_is_kept(rule):
    removed, changed = kept(rule, b'{"a":"' + b"\\u0000" * 10_000 + b'"}')
    assert (json.loads(removed), changed) == ({"a": ""}, True)
    replaced, _ = kept(rule, b'{"a":"' + b"\\ud800" * 5_458 + b'"}')
    assert set(json.loads(replaced)["a"]) == {"\ufffd"}
    for too_long in (b'"' + b"\\ud800" * 5_459 + b'"', b"[" + b",".join([b"1e999"] * 17) + b"]"):
        assert kept(rule, b'{"a":' + too_long + b"}") == (kept(rule, json.dumps(DROPPED).encode())[0], True)


@pytest.mark.parametrize("fill", [b"1e999", b"1e9999", b'"\\u0000"', b"{}", b"1"])
@both
def test_a_megabyte_of_anything_is_dropped_without_being_made_longer(rule, fill, monkeypatch):
    made: list[int] = []
    monkeypatch.setattr(objects, "Number", lambda literal: made.append(len(literal)) or Number(literal))
    text = b'{"a":[' + b",".join([fill] * (1_000_000 // (len(fill) + 1))) + b"]}"
    assert json.loads(kept(rule, text)[0]) == DROPPED
    assert sum(made) <= MAX_OBJECT_BYTES


@both
@pytest.mark.parametrize(
    "text", [b'{"a":' * 399 + b'"\\u0000"' + b"}" * 399, b'{"a":' + b"[" * 398 + b"1.50" + b"]" * 398 + b"}"]
)
def test_an_object_may_be_as_deep_as_a_document(rule, text):
    document.check_depth(b"{" + text + b"}")
    found, _ = kept(rule, text)
    assert found.count("{") + found.count("[") == 399


@settings(max_examples=200, deadline=None)
@given(tree=any_objects, data=st.data())
@example(tree={"a": 1, "a\0": 2, "a\0\0": 3}, data=None)
def test_equal_objects_have_equal_texts(tree, data):
    other = dict(reversed(tree.items())) if data is None else shuffled(tree, data.draw)
    for rule in (object_text, canonical_text):
        assert kept(rule, written(tree)) == kept(rule, written(other))


@settings(max_examples=200, deadline=None)
@given(tree=any_objects)
def test_both_lanes_keep_the_same(tree):
    text = written(tree)
    for rule in (object_text, canonical_text):
        assert kept(rule, text)[0] == rule(document.parse(text), "f", lambda _field: None)


@settings(max_examples=200, deadline=None)
@given(tree=any_objects)
def test_what_was_kept_is_not_changed_again(tree):
    for rule in (object_text, canonical_text):
        once, _ = kept(rule, written(tree))
        assert kept(rule, once.encode()) == (once, False)
        once.encode()


@settings(max_examples=200, deadline=None)
@given(tree=any_objects)
def test_the_two_texts_say_the_same(tree):
    compact, canonical = (kept(rule, written(tree))[0] for rule in (object_text, canonical_text))
    assert kept(canonical_text, compact.encode()) == (canonical, False)
