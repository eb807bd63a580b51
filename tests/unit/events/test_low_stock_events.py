"""What a record of `low-stock` or `voucher-alert`, which we publish ourselves, is decoded to by who consumes it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counterfoil import events
from counterfoil.errors import InvalidEvent
from counterfoil.settings import DEFAULT_TOPICS, OUTGOING_TOPICS

RECORD_MS = 1_767_261_600_000
RECORD_TIME = datetime(2026, 1, 1, 10, tzinfo=UTC)
TOLD = datetime(2026, 1, 1, 9, tzinfo=UTC)
UUID = "0198a1b2-0000-7000-8000-0123456789ab"


def decoded(topic, document, headers=(), timestamp_ms=RECORD_MS, normalised=lambda _field: None):
    value = document if isinstance(document, bytes | None) else json.dumps(document).encode()
    rules = events.Rules(normalised=normalised)
    return events.ALERT_DECODERS[topic](value, headers, timestamp_ms, rules)


def refusal(topic, document, *more) -> InvalidEvent:
    with pytest.raises(InvalidEvent) as caught:
        decoded(topic, document, *more)
    return caught.value


def normalised(topic, document) -> list[str]:
    said: list[str] = []
    decoded(topic, document, normalised=said.append)
    return said


USUAL = {
    "low-stock": {
        "alert_id": UUID,
        "sku": "BAG-1",
        "name": "Canvas bag",
        "stock": -3,
        "threshold": 10,
        "previous_stock": 12,
        "kind": "low",
        "occurred_at": "2026-01-01T09:00:00Z",
    },
    "voucher-alert": {
        "alert_id": UUID,
        "kind": "scan-rate",
        "voucher_id": "v1",
        "value": 412,
        "limit": 221,
        "window": 300,
        "subject": {"device": "d-1"},
        "occurred_at": "2026-01-01T09:00:00Z",
    },
}
EXPECTED = {
    "low-stock": events.LowStock(
        alert_id=UUID,
        sku="BAG-1",
        name="Canvas bag",
        stock=-3,
        threshold=10,
        previous_stock=12,
        kind="low",
        occurred_at=TOLD,
    ),
    "voucher-alert": events.VoucherAlert(
        alert_id=UUID,
        kind="scan-rate",
        voucher_id="v1",
        value=412,
        limit=221,
        window=300,
        device="d-1",
        occurred_at=TOLD,
    ),
}
KEYS = {"low-stock": "BAG-1", "voucher-alert": "v1"}
OWN_IDS = {"low-stock": ["alert_id", "sku"], "voucher-alert": ["alert_id", "voucher_id"]}
of_each_topic = pytest.mark.parametrize("topic", list(USUAL))


def in_camel_case(document):
    return {
        "".join(part if n == 0 else part.title() for n, part in enumerate(name.split("_"))): value
        for name, value in document.items()
    }


def test_every_outgoing_topic_can_be_read_and_none_is_read_by_ingest():
    assert set(events.ALERT_DECODERS) == set(OUTGOING_TOPICS)
    assert not set(events.ALERT_DECODERS) & (set(DEFAULT_TOPICS) | set(events.EVENT_TYPES))


@of_each_topic
def test_the_usual_alert_is_kept_as_sent(topic):
    assert decoded(topic, USUAL[topic]) == EXPECTED[topic]
    assert decoded(topic, in_camel_case(USUAL[topic])) == EXPECTED[topic]
    assert normalised(topic, USUAL[topic]) == []


@of_each_topic
def test_an_alert_as_the_relay_sends_it(topic):
    headers = [("ce_specversion", b"1.0"), ("ce_type", topic.encode()), ("ce_id", f"{topic}:{UUID}".encode())]
    assert decoded(topic, USUAL[topic], headers) == EXPECTED[topic]
    assert refusal(topic, USUAL[topic], [("ce_type", b"scan")]).kind == "wrong_event"


@of_each_topic
def test_an_alert_in_every_wrapping(topic):
    document = USUAL[topic]
    for wrapped in (
        {"name": topic, "data": document},
        {"specversion": "1.0", "id": "e1", "type": topic, "data": in_camel_case(document)},
        {**document, "unknown": "\ud800", "type": {}, "data": [], "further": 1},
    ):
        assert decoded(topic, wrapped) == EXPECTED[topic]


@of_each_topic
def test_an_alert_that_names_its_own_ids_is_no_envelope(topic):
    for own in OWN_IDS[topic]:
        document = {**USUAL[topic], "name": "Canvas bag", "data": {own: "other"}}
        assert decoded(topic, document) == EXPECTED[topic]
        assert decoded(topic, {**document, "unknown": "\ud800"}) == EXPECTED[topic]


@of_each_topic
def test_a_time_as_the_database_writes_it(topic):
    document = {**USUAL[topic], "occurred_at": "2026-01-01T10:00:00.000000+01:00"}
    assert decoded(topic, document) == EXPECTED[topic]


@of_each_topic
def test_an_alert_without_a_time_has_that_of_its_record(topic):
    for document in ({**USUAL[topic], "occurred_at": None}, USUAL[topic] | {"occurred_at": RECORD_MS}):
        assert decoded(topic, document).occurred_at == RECORD_TIME


@of_each_topic
def test_no_alert_is_lost_to_a_clock_that_is_wrong(topic):
    ahead = RECORD_TIME + timedelta(days=400)
    assert decoded(topic, {**USUAL[topic], "occurred_at": ahead.isoformat()}).occurred_at == ahead


def test_what_may_be_missing_of_low_stock():
    thin = {
        "alert_id": "a",
        "sku": "BAG-1",
        "stock": 0,
        "threshold": 1,
        "occurred_at": "2026-01-01T09:00:00Z",
    }
    expected = events.LowStock(
        alert_id="a", sku="BAG-1", name="BAG-1", stock=0, threshold=1, kind="low", occurred_at=TOLD
    )
    assert decoded("low-stock", thin) == expected
    assert decoded("low-stock", {**thin, "name": "\r\n", "previous_stock": None, "kind": ""}) == expected
    assert decoded("low-stock", {**thin, "kind": "recovered"}).kind == "recovered"


def test_stock_that_deltas_have_moved_beyond_int4():
    for stock in (2**31, -(2**63), 2**63 - 1):
        document = {**USUAL["low-stock"], "stock": stock, "previous_stock": stock}
        assert decoded("low-stock", document).stock == stock
        assert decoded("low-stock", document).previous_stock == stock


@pytest.mark.parametrize(
    ("subject", "device", "address"),
    [
        (None, None, None),
        ({}, None, None),
        ({"device": "d-1"}, "d-1", None),
        ({"address": "203.0.113.0/24"}, None, "203.0.113.0/24"),
        ({"device": None, "planet": 7}, None, None),
        ({"device": "a\nb"}, "ab", None),
    ],
)
def test_whom_a_voucher_alert_is_about(subject, device, address):
    alert = decoded("voucher-alert", {**USUAL["voucher-alert"], "subject": subject})
    assert (alert.device, alert.address) == (device, address)


def test_a_low_conversion_says_what_it_was_made_of():
    figures = {"kind": "low-conversion", "value": 0.0042, "limit": 0.01, "scans": 1_000, "claims": 4}
    alert = decoded("voucher-alert", {**USUAL["voucher-alert"], **figures})
    assert {name: getattr(alert, name) for name in figures} == figures


@pytest.mark.parametrize(
    ("topic", "field", "value", "kept"),
    [
        ("low-stock", "alert_id", UUID.upper(), UUID),
        ("low-stock", "sku", 7, "7"),
        ("low-stock", "name", "a\r\nBcc: x", "aBcc: x"),
        ("low-stock", "name", "x" * 256, "x" * 255),
        ("low-stock", "stock", 5.0, 5),
        ("low-stock", "kind", " LOW", "low"),
        ("voucher-alert", "kind", "Scan-Rate", "scan-rate"),
        ("voucher-alert", "voucher_id", " v1", "v1"),
        ("voucher-alert", "window", 300.0, 300),
    ],
)
def test_what_is_changed_is_said(topic, field, value, kept):
    assert getattr(decoded(topic, {**USUAL[topic], field: value}), field) == kept
    assert normalised(topic, {**USUAL[topic], field: value}) == [field]


@pytest.mark.parametrize("topic_and_field", [(topic, field) for topic in OWN_IDS for field in OWN_IDS[topic]])
@pytest.mark.parametrize(
    ("value", "kind"),
    [(None, "missing_field"), (" ", "missing_field"), ("a\u2028b", "invalid_field"), (1.5, "invalid_field")],
)
def test_ids_are_strict(topic_and_field, value, kind):
    topic, field = topic_and_field
    error = refusal(topic, {**USUAL[topic], field: value})
    assert (error.kind, error.field) == (kind, field)


@pytest.mark.parametrize(
    ("topic", "change", "kind", "path"),
    [
        ("low-stock", {"stock": None}, "missing_field", "stock"),
        ("low-stock", {"stock": "5"}, "invalid_field", "stock"),
        ("low-stock", {"stock": True}, "invalid_field", "stock"),
        ("low-stock", {"stock": 5.5}, "invalid_field", "stock"),
        ("low-stock", {"stock": 2**63}, "invalid_field", "stock"),
        ("low-stock", {"threshold": None}, "missing_field", "threshold"),
        ("low-stock", {"threshold": -1}, "invalid_field", "threshold"),
        ("low-stock", {"threshold": 2**31}, "invalid_field", "threshold"),
        ("low-stock", {"previous_stock": None, "previousStock": "1"}, "invalid_field", "previousStock"),
        ("low-stock", {"name": 7}, "invalid_field", "name"),
        ("low-stock", {"kind": "high"}, "invalid_field", "kind"),
        ("low-stock", {"kind": 1}, "invalid_field", "kind"),
        ("low-stock", {"occurred_at": "today"}, "invalid_field", "occurred_at"),
        ("voucher-alert", {"kind": None}, "missing_field", "kind"),
        ("voucher-alert", {"kind": "scan_rate"}, "invalid_field", "kind"),
        ("voucher-alert", {"value": None}, "missing_field", "value"),
        ("voucher-alert", {"value": "412"}, "invalid_field", "value"),
        ("voucher-alert", {"value": True}, "invalid_field", "value"),
        ("voucher-alert", {"value": -1}, "invalid_field", "value"),
        ("voucher-alert", {"value": 1e17}, "invalid_field", "value"),
        ("voucher-alert", {"limit": None}, "missing_field", "limit"),
        ("voucher-alert", {"limit": []}, "invalid_field", "limit"),
        ("voucher-alert", {"window": None}, "missing_field", "window"),
        ("voucher-alert", {"window": 0.5}, "invalid_field", "window"),
        ("voucher-alert", {"window": -1}, "invalid_field", "window"),
        ("voucher-alert", {"scans": "1"}, "invalid_field", "scans"),
        ("voucher-alert", {"claims": -1}, "invalid_field", "claims"),
        ("voucher-alert", {"subject": "d-1"}, "invalid_field", "subject"),
        ("voucher-alert", {"subject": {"device": 7}}, "invalid_field", "subject.device"),
        ("voucher-alert", {"occurred_at": None, "occurredAt": 7}, "invalid_field", "occurredAt"),
    ],
)
def test_refused_with_kind_and_path(topic, change, kind, path):
    error = refusal(topic, {**USUAL[topic], **change})
    assert (error.kind, error.field) == (kind, path)


def test_a_figure_without_end_is_refused():
    for literal in (b"1e400", b"9" * 700, b"123456789012345678901234"):
        document = json.dumps(USUAL["voucher-alert"]).encode().replace(b"412", literal)
        assert refusal("voucher-alert", document).field == "value"


@of_each_topic
def test_written_json_is_the_wire_format(topic):
    alert = EXPECTED[topic]
    assert json.loads(alert.to_json()) == USUAL[topic]
    assert (alert.topic, alert.key, alert.identity) == (topic, KEYS[topic], UUID)
    assert not set(USUAL[topic]) - set(json.loads(alert.to_json()))


@of_each_topic
def test_an_alert_cannot_be_changed(topic):
    with pytest.raises(AttributeError):
        EXPECTED[topic].alert_id = "other"


ids = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=40).map(
    lambda text: decoded("low-stock", {**USUAL["low-stock"], "sku": text}).sku
)
names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=255)
moments = st.datetimes(datetime(2000, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
stocks = st.integers(-(2**63), 2**63 - 1)
low_stocks = st.builds(
    events.LowStock,
    alert_id=ids,
    sku=ids,
    name=names,
    stock=stocks,
    threshold=st.integers(0, 2**31 - 1),
    previous_stock=st.none() | stocks,
    kind=st.sampled_from(["low", "recovered"]),
    occurred_at=moments,
)
figures = st.integers(0, 2**53) | st.floats(0, 2**53)
counts = st.none() | st.integers(0, 2**63 - 1)
voucher_alerts = st.builds(
    events.VoucherAlert,
    alert_id=ids,
    kind=st.sampled_from(["scan-rate", "low-conversion", "failed-redemptions"]),
    voucher_id=ids,
    value=figures,
    limit=figures,
    window=st.integers(0, 2**31),
    device=st.none() | names,
    address=st.none() | names,
    scans=counts,
    claims=counts,
    occurred_at=moments,
)


@settings(max_examples=400, deadline=None)
@given(alert=low_stocks | voucher_alerts)
def test_what_is_told_is_read_back(alert):
    said: list[str] = []
    assert decoded(alert.topic, alert.to_json(), normalised=said.append) == alert
    assert said == []


odd_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["device", "x"]), inner),
    max_leaves=4,
)


@settings(max_examples=400, deadline=None)
@given(
    topic=st.sampled_from(list(USUAL)),
    field=st.sampled_from([*USUAL["low-stock"], *USUAL["voucher-alert"], "scans", "claims"]),
    value=odd_values,
)
def test_an_odd_value_is_refused_or_reads_back_the_same(topic, field, value):
    try:
        alert = decoded(topic, {**USUAL[topic], field: value})
    except InvalidEvent:
        return
    assert decoded(topic, alert.to_json()) == alert
    assert type(alert) is type(EXPECTED[topic])
    assert msgspec.json.decode(alert.to_json())["alert_id"] == alert.alert_id
