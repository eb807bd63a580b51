"""The words of an alert: its line, its title and its facts, made of values that nobody vouches for."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from counterfoil.api.writing import time_text

LONGEST_SUBJECT = 255
"""An id is kept whole."""

LONGEST_NAME = 100

LOW, VOUCHER, OTHER, RECOVERED = "low", "voucher", "other", "recovered"
"""The groups of a digest, the most urgent first."""

_JOINERS = "\u200c\u200d"
"""Without them some scripts, and some emoji, cannot be written."""

_DURATIONS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


@dataclass(frozen=True, slots=True)
class Told:
    """What is said of one alert; every text is one line. `urgency` sorts it among its group, the smallest first."""

    group: str
    sign: str
    kind: str
    subject: str
    line: str
    introduction: str
    facts: tuple[tuple[str, str], ...]
    request: str
    urgency: tuple[float, str]
    occurred_at: str

    @property
    def title(self) -> str:
        """`Low Stock Alert: SKU`."""
        return f"{self.kind}: {self.subject}"


def plain(value: object, longest: int = LONGEST_NAME) -> str:
    """The value as one line of visible text: no control character, line separator or change of direction is left.

    Blanks are joined, and what is too long is cut.
    """
    text = value if isinstance(value, str) else number(value)
    words = "".join(_visible(character) for character in text[: 16 * longest]).split()
    line = " ".join(words)
    return line if len(line) <= longest else f"{line[: longest - 1].rstrip()}…"


def number(value: object) -> str:
    """A number in plain digits; `?` for what is none."""
    finite = _finite(value)
    if finite is None:
        return "?"
    return str(value) if isinstance(value, int) and abs(value) < 10**19 else f"{finite:.6g}"


def told_of_stock(subject: str, payload: Mapping[str, object]) -> Told:
    """What is said of a product that is low on stock, or has recovered."""
    sku = plain(payload.get("sku") or subject, LONGEST_SUBJECT) or "?"
    name = plain(payload.get("name") or sku) or sku
    stock, threshold = number(payload.get("stock")), number(payload.get("threshold"))
    recovered = payload.get("kind") == "recovered"
    sign, kind = ("✅", "Stock Recovered") if recovered else ("⚠️", "Low Stock Alert")
    facts = [("Product", name), ("SKU", sku), ("Current Stock", f"{stock} units")]
    facts.append(("Threshold", f"{threshold} units"))
    if payload.get("previous_stock") is not None:
        facts.append(("Stock Before", f"{number(payload['previous_stock'])} units"))
    return Told(
        group=RECOVERED if recovered else LOW,
        sign=sign,
        kind=kind,
        subject=sku,
        line=f"{sign} {kind}: {sku} ({name}) - Stock: {stock} / Threshold: {threshold}",
        introduction=(
            "This is an automated note: a product is above its threshold again:"
            if recovered
            else "This is an automated alert regarding low stock levels:"
        ),
        facts=tuple(facts),
        request="" if recovered else "Please restock this item as soon as possible.",
        urgency=(_sortable(payload.get("stock")), sku),
        occurred_at=_time(payload),
    )


def told_of_voucher(subject: str, payload: Mapping[str, object]) -> Told:
    """What is said of a voucher that is scanned too often, claimed too seldom, or redeemed in vain."""
    voucher = plain(payload.get("voucher_id") or subject, LONGEST_SUBJECT) or "?"
    seen, limit = _seen_of_voucher(payload)
    return Told(
        group=VOUCHER,
        sign="⚠️",
        kind="Voucher Alert",
        subject=voucher,
        line=f"⚠️ Voucher Alert: {voucher} - {seen} / Limit: {limit}",
        introduction="This is an automated alert regarding a voucher:",
        facts=(("Voucher", voucher), ("Seen", seen), ("Limit", limit)),
        request="Please look into it.",
        urgency=(0.0, _time(payload)),
        occurred_at=_time(payload),
    )


def told_of_anything(subject: str, payload: Mapping[str, object]) -> Told:
    """What is said of an alert of a kind that is not known here."""
    name = plain(subject, LONGEST_SUBJECT) or "?"
    return Told(
        group=OTHER,
        sign="⚠️",
        kind="Alert",
        subject=name,
        line=f"⚠️ Alert: {name}",
        introduction="This is an automated alert:",
        facts=(("Subject", name),),
        request="",
        urgency=(0.0, _time(payload)),
        occurred_at=_time(payload),
    )


def duration(seconds: object) -> str:
    """A stretch of time in its largest whole unit: `5 minutes`."""
    if isinstance(seconds, bool) or not isinstance(seconds, int) or seconds <= 0:
        return f"{number(seconds)} seconds"
    length, unit = next((length, unit) for length, unit in _DURATIONS if seconds % length == 0)
    count = seconds // length
    return f"{number(count)} {unit}" if count == 1 else f"{number(count)} {unit}s"


def _seen_of_voucher(payload: Mapping[str, object]) -> tuple[str, str]:
    """What was seen, and the limit that it has passed."""
    value, limit, within = payload.get("value"), payload.get("limit"), duration(payload.get("window"))
    match payload.get("kind"):
        case "scan-rate":
            return f"{number(value)} scans{_scanned_by(payload)} in {within}", number(limit)
        case "failed-redemptions":
            return f"{number(value)} failed redemptions in {within}", number(limit)
        case "low-conversion":
            scans = number(payload.get("scans"))
            return f"{_percent(value)} of {scans} scans claimed in {within}", _percent(limit)
    return f"{plain(payload.get('kind'), 40)} {number(value)} in {within}", number(limit)


def _scanned_by(payload: Mapping[str, object]) -> str:
    subject = payload.get("subject")
    if not isinstance(subject, Mapping):
        return ""
    if "device" in subject:
        return f" by device {plain(subject['device'])}"
    return f" from {plain(subject['address'])}" if "address" in subject else ""


def _percent(share: object) -> str:
    finite = _finite(share)
    return "? %" if finite is None else f"{100 * finite:.3g} %"


def _sortable(value: object) -> float:
    finite = _finite(value)
    return math.inf if finite is None else finite


def _finite(value: object) -> float | None:
    """The number; None for what is none, or is larger than a float can be."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        finite = float(value)
    except OverflowError:
        return None
    return finite if math.isfinite(finite) else None


def _time(payload: Mapping[str, object]) -> str:
    time = payload.get("occurred_at")
    return time_text(time) if isinstance(time, datetime) else plain(time or "", 40)


def _visible(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    match unicodedata.category(character):
        case "Cf":
            return ""
        case "Cs":
            return "\ufffd"
        case "Co" | "Cn":  # perhaps only newer than our tables
            return character
    return " "
