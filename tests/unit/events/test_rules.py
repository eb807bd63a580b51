"""Each row of the contract's input rules, value by value."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from counterfoil.errors import InvalidEvent
from counterfoil.events import rules
from counterfoil.events.rules import Number
from counterfoil.settings import CodeCase

RECORD_MS = 1_767_261_600_000  # 2026-01-01T10:00:00Z


def kept(rule, value, *more):
    """What the rule keeps, and whether it says that it changed the value."""
    changed: list[str] = []
    return rule(value, "f", *more, changed.append), bool(changed)


def refusal(rule, value, *more) -> InvalidEvent:
    with pytest.raises(InvalidEvent) as caught:
        rule(value, "f", *more, lambda _field: None)
    return caught.value


UUID = "0190a1b2-0000-7000-8000-0123456789ab"


@pytest.mark.parametrize(
    ("value", "expected", "changed"),
    [
        ("ord_1", "ord_1", False),
        ("a b-c/#1071", "a b-c/#1071", False),
        ("x" * 255, "x" * 255, False),
        ("-" * 255, "-" * 255, False),
        (0, "0", True),
        (-(2**63), str(-(2**63)), True),
        (2**63 - 1, str(2**63 - 1), True),
        (" ord_1\n", "ord_1", True),
        ("\u3000ord_1\u2028", "ord_1", True),
        ("e\u0301", "\u00e9", True),
        ("\u00e9", "\u00e9", False),
        (UUID, UUID, False),
        (UUID.upper(), UUID, True),
        (f" {UUID.upper()} ", UUID, True),
        ("A" * 36, "A" * 36, False),
        ("0198A1B2", "0198A1B2", False),
        ("Ord-1", "Ord-1", False),
        ("-", "-", False),
        ("x" * 255 + " ", "x" * 255, True),
        ("e\u0301" * 255, "\u00e9" * 255, True),
        ("", None, False),
        (" \t\u3000", None, False),
        (None, None, False),
    ],
)
def test_ids_kept(value, expected, changed):
    assert kept(rules.identity, value) == (expected, changed)


@pytest.mark.parametrize(
    "value",
    [
        True,
        1.0,
        Number("1.0"),
        [],
        {},
        2**63,
        -(2**63) - 1,
        "a\x00b",
        "a\x1f",
        "\x1fa",
        "\x7f",
        "a\x85b",
        "a\u200bb",
        "\ufeffa",
        "a\u202eb",
        "a\u2028b",
        "a\u2029b",
        "\ud800",
        "a\tb",
        "x" * 256,
        "\u00e9" * 256,
        "e\u0301" * 256,
        "\U000e0001",
    ],
)
def test_ids_refused(value):
    error = refusal(rules.identity, value)
    assert (error.kind, error.field) == ("invalid_field", "f")


@pytest.mark.parametrize(
    ("value", "case", "expected", "changed"),
    [
        ("SPRING", "keep", "SPRING", False),
        ("spring", "keep", "spring", False),
        ("spring", "upper", "SPRING", True),
        ("SPRING", "upper", "SPRING", False),
        (" SPRING\n", "keep", "SPRING", True),
        ("e\u0301t\u00e9", "keep", "\u00e9t\u00e9", True),
        ("e\u0301t\u00e9", "upper", "\u00c9T\u00c9", True),
        ("stra\u00dfe", "upper", "STRASSE", True),
        ("a\u200db", "keep", "a\u200db", False),
        ("10% off", "keep", "10% off", False),
        ("", "keep", None, False),
        ("\u2003 ", "keep", None, False),
        (None, "keep", None, False),
        ("x" * 255, "keep", "x" * 255, False),
    ],
)
def test_codes_kept(value, case, expected, changed):
    for _ in range(2):  # the second time from memory
        assert kept(rules.code, value, CodeCase(case)) == (expected, changed)


@pytest.mark.parametrize(
    "value",
    [1, True, 1.5, [], {}, "a\x00b", "\x1fa", "a\x85b", "a\ud800", "x" * 256, "e\u0301" * 600],
)
def test_codes_refused(value):
    assert refusal(rules.code, value, CodeCase.KEEP).kind == "invalid_field"


def test_a_code_that_grows_beyond_the_limit_in_capitals_is_refused():
    assert kept(rules.code, "\u00df" * 200, CodeCase.KEEP)[0] == "\u00df" * 200
    assert refusal(rules.code, "\u00df" * 200, CodeCase.UPPER).kind == "invalid_field"


def test_codes_are_distinct_after_normalising_and_keep_their_order():
    values = ["b", None, " a", "", "a", "B", "b"]
    assert kept(rules.codes, values, CodeCase.KEEP)[0] == ["b", "a", "B"]
    assert kept(rules.codes, values, CodeCase.UPPER)[0] == ["B", "A"]


def test_a_thousand_distinct_codes_are_kept_and_one_more_is_refused():
    values = [f"c{n}" for n in range(1_000)]
    assert len(kept(rules.codes, values + values, CodeCase.KEEP)[0]) == 1_000
    assert "1000 distinct" in refusal(rules.codes, [*values, "more"], CodeCase.KEEP).rule


def test_memory_of_codes_is_bounded():
    for n in range(10_000):
        rules.code(f"flood{n}", "f", CodeCase.KEEP, lambda _field: None)
    assert len(rules._known_codes) <= 4_096
    rules.code(" " * 100_000 + "far", "f", CodeCase.KEEP, lambda _field: None)
    assert max(map(len, rules._known_codes)) <= 255


@pytest.mark.parametrize(
    ("value", "expected", "changed"),
    [
        (0, "0", False),
        (12, "12", False),
        (10**14 - 1, "99999999999999", False),
        (Number("12.50"), "12.50", False),
        (Number("0.1000000"), "0.1", False),
        (Number("1e3"), "1000", False),
        (Number("1.5E+2"), "150", False),
        (Number("1e-6"), "0.000001", False),
        (Number("-0.0"), "0", False),
        (Number("0e999999999999"), "0", False),
        (Number("0." + "0" * 100 + "1e101"), "1", False),
        (Number("1.0000005"), "1", True),
        (Number("1.0000015"), "1.000002", True),
        (Number("1.00000050000001"), "1.000001", True),
        (Number("5e-7"), "0", True),
        (Number("5.1e-7"), "0.000001", True),
        (Number("1e-400000000000000000000"), "0", True),
        (Number("99999999999999.9999994"), "99999999999999.999999", True),
        ("12.50", "12.50", True),
        ("-0.00", "0", True),
        ("007.5", "7.5", True),
        ("1.0000005", "1", True),
        ("0." + "9" * 100_000, "1", True),
        (None, None, False),
    ],
)
def test_money_kept(value, expected, changed):
    amount, said = kept(rules.money, value)
    assert amount == (None if expected is None else Decimal(expected))
    assert said == changed
    if amount is not None:
        assert amount.is_finite()
        assert not amount.is_signed()
        assert -6 <= amount.as_tuple().exponent <= 0


@pytest.mark.parametrize(
    "value",
    [
        -1,
        10**14,
        10**30,
        True,
        [],
        {},
        Number("-0.01"),
        Number("1e14"),
        Number("1E131072"),
        Number("1e999999999999999999999999"),
        Number("-1e-400000"),
        Number("99999999999999.9999995"),
        "",
        " ",
        " 1",
        "1 ",
        "1 000",
        "1_000",
        "1,50",
        "1e3",
        "+1",
        "-1",
        ".5",
        "5.",
        "0x10",
        "NaN",
        "Infinity",
        "\u0661\u0662",
        "\uff11",
        "\u00b2",
        "1\n",
        "12.50 EUR",
        "100000000000000",
        "1\ud800",
    ],
)
def test_money_refused(value):
    assert refusal(rules.money, value).kind == "invalid_field"


@pytest.mark.parametrize(
    ("value", "expected", "changed"),
    [
        ("USD", "USD", False),
        ("eur", "EUR", True),
        (" Chf\n", "CHF", True),
        (None, None, False),
    ],
)
def test_currencies_kept(value, expected, changed):
    for _ in range(2):
        assert kept(rules.currency, value) == (expected, changed)


@pytest.mark.parametrize(
    "value", ["", " ", "US", "USDT", "U$D", "u\u017fd", "\u0131sk", "\uff35SD", 840, [], True]
)
def test_currencies_refused(value):
    assert refusal(rules.currency, value).kind == "invalid_field"


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(
    ("value", "expected", "changed"),
    [
        ("2026-01-01T10:00:00.123Z", at(2026, 1, 1, 10, 0, 0, 123_000), False),
        ("2026-01-01T00:00:00.123Z", at(2026, 1, 1, 0, 0, 0, 123_000), False),
        ("2026-01-01T10:00:00Z", at(2026, 1, 1, 10), False),
        ("2026-01-01t10:00:00z", at(2026, 1, 1, 10), False),
        ("2026-01-01 10:00:00.5+00:00", at(2026, 1, 1, 10, 0, 0, 500_000), False),
        ("2025-01-23T23:10:15-05:00", at(2025, 1, 24, 4, 10, 15), False),
        ("2025-01-23T23:10:15.000001+05:30", at(2025, 1, 23, 17, 40, 15, 1), False),
        ("2025-01-23T23:10:15-00:00", at(2025, 1, 23, 23, 10, 15), False),
        ("2026-01-01T10:00:00.123456999Z", at(2026, 1, 1, 10, 0, 0, 123_456), True),
        ("2000-01-01T00:00:00Z", at(2000, 1, 1), False),
        ("2024-02-29T00:00:00Z", at(2024, 2, 29), False),
        ("2026-01-02T10:00:00Z", at(2026, 1, 2, 10), False),
        (946_684_800_000, at(2000, 1, 1), True),
        (RECORD_MS + 1, at(2026, 1, 1, 10, 0, 0, 1_000), True),
        ("2016-12-31T23:59:60Z", at(2017, 1, 1), True),
        ("2016-12-31T23:59:60.250Z", at(2017, 1, 1, 0, 0, 0, 250_000), True),
        ("2017-01-01T05:29:60+05:30", at(2017, 1, 1), True),
        ("2015-06-30T18:59:60-05:00", at(2015, 7, 1), True),
        ("2005-12-31T23:59:60Z", at(2006, 1, 1), True),
        ("2008-12-31T23:59:60Z", at(2009, 1, 1), True),
        ("2012-06-30T23:59:60Z", at(2012, 7, 1), True),
    ],
)
def test_times_kept(value, expected, changed):
    for _ in range(2):
        found, said = kept(lambda v, f, n: rules.event_time(v, f, RECORD_MS, n), value)
        assert (found, said) == (expected, changed)
        assert found.tzinfo is UTC


@pytest.mark.parametrize(
    "value",
    [
        "",
        "2026-01-01",
        "2026-01-01T10:00:00",
        "2026-01-01T10:00:00.123",
        "2026-01-01T10:00Z",
        "20260101T100000Z",
        "2026-W01-1T10:00:00.00Z",
        "2026-01-01T10:00:00,123Z",
        "2026-01-01T10:00:00.Z",
        "2026-01-01T10:00:00.12 Z",
        "2026-01-01T10:00:0\u0661.123Z",
        " 2026-01-01T10:00:00Z",
        "2026-01-01T10:00:00Z\n",
        "2026-01-01T10:00:00 Z",
        "2026-01-01_10:00:00Z",
        "2026-01-01T10:00:00+0100",
        "2026-01-01T10:00:00+01",
        "2026-01-01T10:00:00+24:00",
        "2026-01-01T10:00:00+01:60",
        "2026-13-01T10:00:00Z",
        "2026-13-01T10:00:00.000Z",
        "2025-02-29T10:00:00.000Z",
        "2025-12-31T24:00:00Z",
        "2025-12-31T24:00:00.000Z",
        "2025-12-31T23:60:00.000Z",
        "2025-12-31T23:59:61.000Z",
        "2025-12-31T23:59:60.000Z",
        "2017-06-30T23:59:60Z",
        "2016-12-31T22:59:60Z",
        "2016-12-31T23:58:60Z",
        "2016-12-31T23:59:60+01:00",
        "1999-12-31T23:59:59.999Z",
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:59-01:00",
        "2026-01-02T10:00:00.001Z",
        "2026-01-02T10:00:01Z",
        "1767261600000",
        "now",
        "\ud800",
        1_767_261_600,
        946_684_799_999,
        RECORD_MS + 86_400_001,
        4_102_444_800_001,
        True,
        1_767_261_600_000.0,
        Number("1767261600000.0"),
        Number("1767261600e3"),
        [],
        {},
    ],
)
def test_times_refused(value):
    for _ in range(2):
        error = refusal(lambda v, f, n: rules.event_time(v, f, RECORD_MS, n), value)
        assert error.kind == "invalid_field"


def test_a_day_ahead_of_the_record_is_exact_to_the_microsecond_within_any_hour():
    for offset in (0, 1, 1_799_999, 3_599_999):
        record_ms = RECORD_MS + offset
        latest = rules.instant(record_ms) + timedelta(days=1)
        text = latest.replace(tzinfo=None).isoformat(timespec="microseconds")
        assert rules.event_time(f"{text}Z", "f", record_ms, lambda _field: None) == latest
        later = (latest + timedelta(microseconds=1)).replace(tzinfo=None).isoformat(timespec="microseconds")
        with pytest.raises(InvalidEvent):
            rules.event_time(f"{later}Z", "f", record_ms, lambda _field: None)


def test_a_record_without_timestamp_sets_no_upper_bound():
    moment, _ = kept(lambda v, f, n: rules.event_time(v, f, -1, n), "2099-01-01T00:00:00.000Z")
    assert moment == at(2099, 1, 1)


def test_missing_time_is_the_records():
    assert kept(rules.record_time, RECORD_MS) == (at(2026, 1, 1, 10), True)


@pytest.mark.parametrize(
    ("record_ms", "kind"), [(-1, "missing_field"), (0, "invalid_field"), (2**62, "invalid_field")]
)
def test_missing_time_without_a_sensible_record_time_is_refused(record_ms, kind):
    assert refusal(rules.record_time, record_ms).kind == kind


@pytest.mark.parametrize(
    ("value", "expected", "changed"),
    [
        ("2000-01-01T00:00:00Z", at(2000, 1, 1), False),
        ("2026-01-02T10:00:01Z", at(2026, 1, 2, 10, 0, 1), False),
        ("2031-06-30T23:59:59.5+02:00", at(2031, 6, 30, 21, 59, 59, 500_000), False),
        ("9999-12-31T23:59:59.999999Z", at(9999, 12, 31, 23, 59, 59, 999_999), False),
        ("2016-12-31T23:59:60Z", at(2017, 1, 1), True),
        (4_102_444_800_000, at(2100, 1, 1), True),
        (None, None, False),
    ],
)
def test_a_time_that_need_not_have_come_yet_is_kept(value, expected, changed):
    assert kept(lambda v, f, n: rules.first_time([("a", None), (f, v)], f, n), value) == (expected, changed)


@pytest.mark.parametrize(
    "value",
    [
        *["", "2031-06-30", "2031-06-30T00:00:00", "1999-12-31T23:59:59Z", "10000-01-01T00:00:00Z"],
        *["9999-12-31T23:59:59-01:00", "9999-12-31T23:59:60Z", "4102444800000", "never"],
        *[4_102_444_800_001, 946_684_799_999, 1_893_456_000, True, Number("1893456000000.0"), [], {}],
    ],
)
def test_a_time_that_is_none_is_refused_however_late(value):
    error = refusal(lambda v, f, n: rules.first_time([("expiresAt", v)], f, n), value)
    assert (error.kind, error.field) == ("invalid_field", "expiresAt")


CHOICES = ("CUSTOMER", "LINK")


@pytest.mark.parametrize(
    ("value", "expected", "changed"),
    [
        ("LINK", "LINK", False),
        ("link", "LINK", True),
        (" Customer\u3000", "CUSTOMER", True),
        ("", None, False),
        (" \n", None, False),
        (None, None, False),
    ],
)
def test_choices_kept(value, expected, changed):
    assert kept(lambda v, f, n: rules.one_of(v, f, CHOICES, n), value) == (expected, changed)


@pytest.mark.parametrize(
    "value",
    [
        *["LINKS", "L", "CU\u017fTOMER", "l\u0131nk", "LI\u200bNK", "\ud800", "CUSTOMER, LINK"],
        1,
        True,
        [],
        {},
    ],
)
def test_choices_refused(value):
    error = refusal(lambda v, f, n: rules.one_of(v, f, CHOICES, n), value)
    assert error.kind == "invalid_field"
    assert error.rule in {"must be one of CUSTOMER, LINK", "must be a string"}


def test_the_first_choice_that_is_not_missing_stands():
    found = [("a", None), ("b", " "), ("c", "link"), ("d", "CUSTOMER")]
    assert kept(lambda v, f, n: rules.first_one_of(v, f, CHOICES, n), found) == ("LINK", True)
    assert kept(lambda v, f, n: rules.first_one_of(v, f, CHOICES, n), found[:2]) == (None, False)


def test_booleans_kept():
    for value in (True, False, None):
        assert rules.boolean(value, "f") is value


@pytest.mark.parametrize("value", ["true", "", 0, 1, Number("1.0"), [], {}])
def test_booleans_refused(value):
    assert refusal(lambda v, f, _: rules.boolean(v, f), value).kind == "invalid_field"


@pytest.mark.parametrize(
    ("value", "expected", "changed"),
    [
        ("buyer@example.com", "buyer@example.com", False),
        ("a\x00b\nc\x7fd\x9fe", "abcde", True),
        ("a\ud800b", "a\ufffdb", True),
        ("x" * 1_024, "x" * 1_024, False),
        ("x" * 1_025, "x" * 1_024, True),
        ("\x00" + "é" * 1_024, "é" * 1_024, True),
        ("Straße 1, 東京 \u202e", "Straße 1, 東京 \u202e", False),
        ("", None, False),
        ("\x00", None, True),
        (None, None, False),
    ],
)
def test_free_text_kept(value, expected, changed):
    assert kept(rules.free_text, value) == (expected, changed)


@pytest.mark.parametrize("value", [1, True, [], {}, Number("1.5")])
def test_free_text_refused(value):
    assert refusal(rules.free_text, value).kind == "invalid_field"


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (b'{"a":"b"}', True),
        (b'{"a":"\\n"}', False),
        (b'{"a":"\x7f"}', False),
        ('{"a":"\x85"}'.encode(), False),
    ],
)
def test_a_plain_document_has_nothing_to_look_for_in_its_texts(document, expected):
    assert rules.is_plain(document) == expected


@pytest.mark.parametrize(
    ("value", "expected", "changed"),
    [
        ("203.0.113.7", "203.0.113.7", False),
        ("0.0.0.0", "0.0.0.0", False),
        ("255.255.255.255", "255.255.255.255", False),
        (" 203.0.113.7\n", "203.0.113.7", True),
        ("203.0.113.7%eth0", "203.0.113.7", True),
        ("2001:db8::1", "2001:db8::1", False),
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1", True),
        ("::", "::", False),
        ("::1", "::1", False),
        ("fe80::1%eth0", "fe80::1", True),
        ("fe80::1%", "fe80::1", True),
        ("::ffff:203.0.113.7", "203.0.113.7", True),
        ("::FFFF:cb00:7107", "203.0.113.7", True),
        ("::ffff:203.0.113.7%3", "203.0.113.7", True),
        ("unknown", None, True),
        ("203.0.113", None, True),
        ("203.0.113.07", None, True),
        ("203.0.113.256", None, True),
        ("203.0.113.7:443", None, True),
        ("[2001:db8::1]", None, True),
        ("203.0.113.7, 10.0.0.1", None, True),
        ("3405803783", None, True),
        ("\u0661.0.0.1", None, True),
        ("203.0.113.7\x00", None, True),
        ("\ud800", None, True),
        ("1" * 100_000, None, True),
        ("%", None, True),
        (" ", None, True),
        ("", None, False),
        (None, None, False),
    ],
)
def test_ip_addresses_kept(value, expected, changed):
    for _ in range(2):  # the second time from memory
        assert kept(rules.ip_address, value) == (expected, changed)


@pytest.mark.parametrize("value", [3_405_803_783, True, [], {}, Number("1.5")])
def test_ip_addresses_refused(value):
    assert refusal(rules.ip_address, value).kind == "invalid_field"


def test_memory_of_addresses_is_bounded():
    for n in range(10_000):
        rules.ip_address(f"2001:db8::{n:x}", "f", lambda _field: None)
    assert len(rules._known_addresses) <= 4_096
    rules.ip_address("x" * 100_000, "f", lambda _field: None)
    assert max(map(len, rules._known_addresses)) <= 64


LONGEST = "https://cultgaia.com/" + "x" * (2_048 - len("https://cultgaia.com/"))


@pytest.mark.parametrize(
    ("value", "expected", "changed"),
    [
        ("https://cultgaia.com", "https://cultgaia.com", False),
        ("http://cultgaia.com:8080/a?b=c#d", "http://cultgaia.com:8080/a?b=c#d", False),
        ("HTTPS://CultGaia.com/A", "HTTPS://CultGaia.com/A", False),
        ("https://me:pass@cultgaia.com./", "https://me:pass@cultgaia.com./", False),
        ("https://köln.example/straße", "https://köln.example/straße", False),
        ("https://cultgaia.com/a b", "https://cultgaia.com/a b", False),
        ("https://cult%67aia.com/", "https://cult%67aia.com/", False),
        ("https://cultgaia.com/a\\b", "https://cultgaia.com/a\\b", False),
        ("https://cultgaia.com/?u=http://x", "https://cultgaia.com/?u=http://x", False),
        ("http://localhost:3000/x", "http://localhost:3000/x", False),
        ("http://203.0.113.7/x", "http://203.0.113.7/x", False),
        ("http://[2001:db8::1]:80/x", "http://[2001:db8::1]:80/x", False),
        (LONGEST, LONGEST, False),
        ("\u3000https://cultgaia.com \n", "https://cultgaia.com", True),
        ("cultgaia.com", "https://cultgaia.com", True),
        ("cultgaia.com/x?u=http://y", "https://cultgaia.com/x?u=http://y", True),
        ("cultgaia.com:8080/x", "https://cultgaia.com:8080/x", True),
        ("www.cultgaia.com?x", "https://www.cultgaia.com?x", True),
        ("//cultgaia.com/x", "https://cultgaia.com/x", True),
        ("//shop/x", "https://shop/x", True),
        ("", None, False),
        (" \t", None, False),
        (None, None, False),
    ],
)
def test_urls_kept(value, expected, changed):
    assert kept(rules.url, value) == (expected, changed)


@pytest.mark.parametrize(
    "value",
    [
        7,
        True,
        [],
        "cultgaia",
        "/products/bag",
        "?x=1",
        "#x",
        "//",
        "///x",
        "https://",
        "https:///x",
        "https:cultgaia.com",
        "https:/cultgaia.com",
        "https://?x",
        "https://:80/",
        "https://me@/",
        "https://cultgaia.com:x/",
        "https://cultgaia.com:70000/",
        "https://./",
        "https://.cultgaia.com/",
        "https://cultgaia..com/",
        "https://cult gaia.com/",
        "https://cult%40gaia.com/",
        "https://cult%2fgaia.com/",
        "https://%2e%2e/",
        "https://cult<gaia>.com/",
        "https://evil.example\\@cultgaia.com/",
        "https://cultgaia.com\\x/",
        "https://[::1/",
        "https://[x]/",
        "https://[fe80::1%25eth0]/",
        "https://cultgaia.com\uff0fx/",
        "https://" + "x" * 250 + ".com/",
        "ftp://cultgaia.com/",
        "javascript:alert(1)",
        "mailto:me@cultgaia.com",
        "data:text/html,x",
        "tel:99999999",
        "https://cultgaia.com/a\nb",
        "https://cultgaia.com/\x00",
        "https://cultgaia.com/\x7f",
        "https://cultgaia.com/\x85b",
        "https://cultgaia.com/\ud800",
        LONGEST + "x",
        "cultgaia.com/" + "x" * 2_030,
    ],
)
def test_urls_refused(value):
    error = refusal(rules.url, value)
    assert (error.kind, error.field) == ("invalid_field", "f")
    assert "cultgaia" not in error.rule


@pytest.mark.parametrize(
    ("value", "expected", "changed"),
    [(b"{}", b"{}", False), ("é".encode(), "é".encode(), False), (b"\xef\xbb\xbf{}", b"{}", True)],
)
def test_bytes_kept(value, expected, changed):
    said: list[str] = []
    assert rules.text_bytes(value, 10, said.append) == expected
    assert bool(said) == changed


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"x" * 11, "too_large"),
        (b"\xff", "not_utf8"),
        (b"\xed\xa0\x80", "not_utf8"),
        (b"\xc0\x80", "not_utf8"),
        (b"\xff\xfe{\x00}\x00", "not_utf8"),
    ],
)
def test_bytes_refused(value, kind):
    with pytest.raises(InvalidEvent) as caught:
        rules.text_bytes(value, 10, lambda _field: None)
    assert caught.value.kind == kind
