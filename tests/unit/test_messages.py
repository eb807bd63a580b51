"""Messages: what an alert says in every form, and that nothing from an event does more there than be shown."""

from __future__ import annotations

import email
import json
import re
from datetime import UTC, datetime
from email import policy
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.notifications.channels.mail import Envelope, mail_of_message
from counterfoil.notifications.channels.webhook import payload_of
from counterfoil.notifications.lines import duration, number, plain
from counterfoil.notifications.messages import MOST_LINES, Message, ToldAlert, message_of, trial_message

AT = "2025-11-06T20:00:00.000Z"
NOW = datetime(2025, 11, 6, 20, tzinfo=UTC)
ENVELOPE = Envelope("ops@shop.example", ("a@shop.example", "b@shop.example"), "Ops")
ENDS_A_LINE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")
TURNS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"

NASTY = [
    "A\r\nBcc: all@shop.example",
    "A\nB\u2028C\u2029D\x85E\x0bF",
    "<!channel> <@U123> <https://evil.example|click>",
    "<script>alert(1)</script>&amp;'\"",
    "\u202egnp.exe \u2066x",
    "=?utf-8?q?=0D=0ABcc:_all=40shop.example?=",
    "\x00\x1b[31m\x7f",
    "\ud800",
    "ü" * 300,
    "🧨" * 300,
    " " * 300,
    "&" * 400,
    "<" * 400,
    ',;:@<>()[]\\"',
]

nasty = st.one_of(st.sampled_from(NASTY), st.text(max_size=400))
numbers = st.one_of(st.integers(), st.floats(), st.none(), st.booleans(), nasty)
payloads = st.fixed_dictionaries(
    {},
    optional={
        "sku": nasty,
        "name": nasty,
        "stock": numbers,
        "threshold": numbers,
        "previous_stock": numbers,
        "kind": st.one_of(st.sampled_from(["low", "recovered", "scan-rate", "low-conversion"]), nasty),
        "voucher_id": nasty,
        "value": numbers,
        "limit": numbers,
        "window": numbers,
        "scans": numbers,
        "subject": st.one_of(nasty, st.dictionaries(st.sampled_from(["device", "address"]), nasty)),
        "occurred_at": st.one_of(nasty, st.just(AT)),
    },
)
alerts = st.builds(
    ToldAlert,
    alert_id=nasty,
    topic=st.sampled_from(["low-stock", "voucher-alert", "another"]),
    subject=nasty,
    payload=payloads,
)


def an_alert(sku: str = "WIDGET-PRO-001", alert_id: str = "a-1", **payload: object) -> ToldAlert:
    known = {"sku": sku, "name": "Widget Pro 2025", "stock": 18, "threshold": 20, "occurred_at": AT}
    return ToldAlert(alert_id, "low-stock", sku, known | payload)


def a_voucher_alert(**payload: object) -> ToldAlert:
    known = {"kind": "scan-rate", "voucher_id": "V-1", "value": 512, "limit": 100, "window": 300}
    return ToldAlert("a-2", "voucher-alert", "V-1", known | payload)


def lines_of(message: Message) -> list[str]:
    return message.text.split("\n")


# What it says


def test_the_line_is_the_contracts():
    message = message_of([an_alert()])
    assert message.text == "⚠️ Low Stock Alert: WIDGET-PRO-001 (Widget Pro 2025) - Stock: 18 / Threshold: 20"
    assert message.title == "Low Stock Alert: WIDGET-PRO-001"
    assert message.body.splitlines() == [
        "Dear Operations Team,",
        "",
        "This is an automated alert regarding low stock levels:",
        "",
        "Product: Widget Pro 2025",
        "SKU: WIDGET-PRO-001",
        "Current Stock: 18 units",
        "Threshold: 20 units",
        "",
        "Please restock this item as soon as possible.",
        "",
        "---",
        "counterfoil",
        f"Timestamp: {AT}",
        "Alert: a-1",
    ]


def test_a_product_without_a_name_has_its_sku_as_name():
    assert lines_of(message_of([an_alert("A", name=None)])) == [
        "⚠️ Low Stock Alert: A (A) - Stock: 18 / Threshold: 20"
    ]


def test_a_recovered_product_is_no_alarm():
    message = message_of([an_alert("A", name="B", kind="recovered", stock=30)])
    assert message.text == "✅ Stock Recovered: A (B) - Stock: 30 / Threshold: 20"
    assert "restock" not in message.body


def test_stock_may_be_negative():
    assert "Stock: -3 /" in message_of([an_alert(stock=-3)]).text


@pytest.mark.parametrize(
    ("payload", "line"),
    [
        ({}, "V-1 - 512 scans in 5 minutes / Limit: 100"),
        ({"subject": {"device": "D<1"}}, "V-1 - 512 scans by device D<1 in 5 minutes / Limit: 100"),
        (
            {"subject": {"address": "10.0.0.0/24"}, "window": 60},
            "V-1 - 512 scans from 10.0.0.0/24 in 1 minute / Limit: 100",
        ),
        (
            {"kind": "failed-redemptions", "value": 12, "limit": 10, "window": 900},
            "V-1 - 12 failed redemptions in 15 minutes / Limit: 10",
        ),
        (
            {"kind": "low-conversion", "value": 0.004, "limit": 0.01, "window": 604_800, "scans": 1500},
            "V-1 - 0.4 % of 1500 scans claimed in 7 days / Limit: 1 %",
        ),
        ({"kind": "new", "value": 1.5}, "V-1 - new 1.5 in 5 minutes / Limit: 100"),
    ],
)
def test_a_voucher_alert_says_what_was_seen(payload, line):
    assert message_of([a_voucher_alert(**payload)]).text == f"⚠️ Voucher Alert: {line}"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(1, "1 second"), (90, "90 seconds"), (3_600, "1 hour"), (172_800, "2 days"), (None, "? seconds")],
)
def test_a_stretch_of_time_is_in_its_largest_whole_unit(seconds, said):
    assert duration(seconds) == said


def test_no_alert_is_no_message():
    with pytest.raises(ValueError, match="at least one"):
        message_of([])


# Digests


def test_a_digest_shows_the_lowest_first_and_counts_the_rest():
    many = [an_alert(f"S-{stock:04}", f"id-{stock}", stock=stock, threshold=9_999) for stock in range(3_000)]
    message = message_of(many[::-1])
    lines = lines_of(message)
    assert lines[0] == message.title == "3000 products are low on stock"
    assert [line.split()[4] for line in lines[1:-1]] == [f"S-{stock:04}" for stock in range(MOST_LINES)]
    assert lines[-1] == "… and 2980 more"
    assert len(message.blocks) == 1 + MOST_LINES + 1
    assert message.html.count("<li") == MOST_LINES


def test_a_digest_that_fits_has_no_rest():
    message = message_of([an_alert(f"S-{n}", f"id-{n}") for n in range(MOST_LINES)])
    assert len(lines_of(message)) == 1 + MOST_LINES
    assert "more" not in message.text


def test_products_are_counted_once_in_a_heading():
    message = message_of([an_alert(stock=9), an_alert(alert_id="b", stock=5)])
    assert message.title == "1 product is low on stock"
    assert [line.partition("Stock: ")[2] for line in lines_of(message)[1:]] == [
        "5 / Threshold: 20",
        "9 / Threshold: 20",
    ]


def test_every_group_has_lines_however_large_another_is():
    many = [an_alert(f"S-{n}", f"id-{n}", stock=n) for n in range(500)]
    message = message_of([*many, an_alert("R", "r", kind="recovered"), a_voucher_alert()])
    assert message.title == "500 products are low on stock, 1 voucher alert, 1 product has recovered"
    lines = lines_of(message)
    assert len(lines) == 1 + MOST_LINES + 1
    assert lines[-1] == "… and 482 more"
    assert lines[-3].startswith("⚠️ Voucher Alert: V-1")
    assert lines[-2].startswith("✅ Stock Recovered: R")


def test_the_id_is_of_the_alerts_whatever_their_order():
    one, two, three = (an_alert(f"S-{n}", f"id-{n}") for n in range(3))
    assert message_of([one]).message_id == "id-0"
    assert message_of([one, two]).message_id == message_of([two, one]).message_id
    assert message_of([one, two]).message_id != message_of([one, three]).message_id


def test_a_digest_of_the_longest_values_is_within_slacks_limits():
    many = [an_alert("&" * 255, f"id-{n}", name="<" * 4_000) for n in range(50)]
    assert len(message_of(many).slack_text) < 40_000
    check_blocks(message_of(many))


# What an event may not do


def check_blocks(message: Message) -> None:
    blocks = message.blocks
    assert 0 < len(blocks) <= 50
    for block in blocks:
        texts = [block["text"]] if "text" in block else [*block.get("fields", ()), *block.get("elements", ())]
        assert 0 < len(texts) <= 10
        limit = {"header": 150, "section": 2_000 if "fields" in block else 3_000, "context": 3_000}[
            block["type"]
        ]
        for text in texts:
            assert text["type"] == "plain_text"
            assert 0 < len(text["text"]) <= limit


@given(st.lists(alerts, min_size=1, max_size=30))
def test_no_value_breaks_out_of_a_line(many):
    message = message_of(many)
    expected = 1 if len(many) == 1 else 1 + min(len(many), MOST_LINES) + (len(many) > MOST_LINES)
    assert len(message.text.splitlines()) == expected
    for text in (message.text, message.body, message.title, message.html):
        assert not ENDS_A_LINE.search(text)
        assert not set(text) & set(TURNS)
    assert len(message.title.splitlines()) == 1
    assert message.body.count("\n---\n") == 1


@given(st.lists(alerts, min_size=1, max_size=30))
def test_no_value_is_markup_to_slack(many):
    message = message_of(many)
    sent = json.loads(payload_of(message))
    assert "<" not in payload_of(message).decode()
    assert ">" not in payload_of(message).decode()
    assert not re.search("&(?!(amp|lt|gt);)", sent["text"])
    check_blocks(message)


class Tags(HTMLParser):
    """Collects the tags and the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, str]] = []
        self.data: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, str(attrs)))

    def handle_data(self, data):
        self.data.append(data)


def tags_of(page: str) -> Tags:
    parser = Tags()
    parser.feed(page)
    return parser


@given(alerts)
def test_no_value_is_a_tag(alert):
    shape = {name: alert.payload[name] for name in ("kind", "previous_stock") if name in alert.payload}
    if shape.get("previous_stock") is not None:
        shape["previous_stock"] = 1
    harmless = ToldAlert("a", alert.topic, "x", shape)
    assert tags_of(message_of([alert]).html).tags == tags_of(message_of([harmless]).html).tags


@given(st.lists(alerts, min_size=2, max_size=30))
def test_no_value_is_a_tag_in_a_digest(many):
    page = tags_of(message_of(many).html)
    shown = min(len(many), MOST_LINES)
    assert [tag for tag, _ in page.tags].count("li") == shown
    assert len(page.tags) == len(tags_of(message_of([an_alert()] * len(many)).html).tags)


@given(st.lists(alerts, min_size=1, max_size=3))
def test_no_value_adds_a_header_to_a_mail(many):
    message = message_of(many)
    raw = mail_of_message(message, ENVELOPE, NOW).as_bytes()
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    assert raw.isascii()
    read = email.message_from_bytes(raw, policy=policy.default)
    assert sorted(read.keys()) == sorted(
        ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"]
    )
    assert read["To"] == "a@shop.example, b@shop.example"
    assert read["Message-ID"] == f"<{message.message_id}@shop.example>"
    assert "".join(read["Subject"].split()) == "".join(message.title.split())
    text, page = read.iter_parts()
    assert text.get_content().splitlines() == message.body.splitlines()
    assert page.get_content().strip() == message.html


@pytest.mark.parametrize("value", NASTY)
def test_a_subject_reads_back_as_it_was(value):
    message = message_of([an_alert(f"{value} x")])
    raw = mail_of_message(message, ENVELOPE, NOW).as_bytes()
    read = email.message_from_bytes(raw, policy=policy.default)["Subject"]
    assert read == message.title.replace("=?", "= ?")  # or it would be decoded into something else


@pytest.mark.parametrize("value", NASTY)
def test_what_is_left_of_a_value_is_one_visible_line(value):
    left = plain(value, 255)
    assert len(left) <= 255
    assert left == left.strip()
    assert "".join(left.split()).isprintable()


def test_joiners_stay_since_some_scripts_need_them():
    assert plain("می\u200cخواهم 👨\u200d👩") == "می\u200cخواهم 👨\u200d👩"


def test_an_id_of_255_characters_is_kept_whole_and_a_name_is_cut():
    line = message_of([an_alert("S" * 255, name="N" * 255)]).text
    assert "S" * 255 in line
    assert f"({'N' * 99}…)" in line


def test_the_test_message_is_no_alert():
    message = trial_message("t-1")
    assert "Low Stock" not in message.text
    check_blocks(message)
    assert mail_of_message(message, ENVELOPE, NOW)["Message-ID"] == "<t-1@shop.example>"


@pytest.mark.parametrize(
    "value",
    [10**400, -(10**400), 10**5_000, float("inf"), float("nan"), True, None, "7"],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_number_or_none_that_can_be_shown_is_a_question_mark(value: object) -> None:
    assert number(value) == "?"
    payload = {"sku": "A", "stock": value, "threshold": value, "previous_stock": value}
    scan = {"kind": "low-conversion", "value": value, "limit": value, "window": value, "scans": value}
    alerts = [ToldAlert("1", "low-stock", "A", payload), ToldAlert("2", "voucher-alert", "V", scan)]
    assert "Stock: ? / Threshold: ?" in message_of(alerts).text
