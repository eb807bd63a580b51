"""The contract of attribution in plain Python: what a set of events comes to, given what an operator has set."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import asyncpg

from counterfoil.partners.rules import program_of

DIGITS = {"USD": 2, "JPY": 0, "BHD": 3}

Money = dict[tuple[str, ...], Decimal]


@dataclass
class World:
    """What an operator has set: (pixel, status, from), (program, percent, from), (percent, from), code → pixel."""

    statuses: list[tuple[str, str, datetime]] = field(default_factory=list)
    rates: list[tuple[str, Decimal, datetime]] = field(default_factory=list)
    defaults: list[tuple[Decimal, datetime]] = field(default_factory=list)
    owners: dict[str, str] = field(default_factory=dict)


@dataclass
class Outcome:
    """The tables, without the columns that say when or from where a row was written; sums that are 0 are none."""

    attributions: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    posted: Money = field(default_factory=dict)
    earned: Money = field(default_factory=dict)
    daily: dict[tuple[str, Any, str], tuple[Any, ...]] = field(default_factory=dict)
    links: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    partners: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    relations: set[tuple[str, str]] = field(default_factory=set)
    enrollments: set[tuple[str, str]] = field(default_factory=set)
    programs: set[str] = field(default_factory=set)
    refused: set[tuple[Any, ...]] = field(default_factory=set)


def model(documents: Iterable[dict[str, Any]], world: World) -> Outcome:
    """What these documents, each with its topic, come to."""
    by_topic: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for document in documents:
        by_topic[document["topic"]].append(document)
    outcome = Outcome()
    users = _users(by_topic["user.created"], outcome)
    _links(by_topic["link.created"], users, outcome)
    outcome.refused = _refused(by_topic)
    for order_id, claim in _claims(by_topic, world).items():
        _attribute(order_id, claim, by_topic, world, outcome)
    _count_clicks(by_topic["click"], outcome)
    return outcome


def half_even(exact: Fraction, digits: int) -> Decimal:
    """Rounded to the currency's digits; Python's round() of a fraction is half even."""
    return Decimal(round(exact * 10**digits)).scaleb(-digits)


def _users(events: list[dict[str, Any]], outcome: Outcome) -> set[str]:
    for event in events:
        content = (event["timestamp"], event.get("name") or "", event.get("email") or "")
        known = outcome.partners.get(f"pn_{event['user_id']}")
        outcome.partners[f"pn_{event['user_id']}"] = min(known or content, content)
        outcome.relations.add((f"pn_{event['user_id']}", event["user_id"]))
    outcome.partners = {id_: (c[1] or None, c[2] or None) for id_, c in outcome.partners.items()}
    return {event["user_id"] for event in events}


def _links(events: list[dict[str, Any]], users: set[str], outcome: Outcome) -> None:
    standing: dict[str, tuple[Any, ...]] = {}
    for event in events:
        program = program_of(event["url"])
        assert program is not None
        outcome.programs.add(program[0])
        if event.get("partner_id"):
            outcome.partners.setdefault(event["partner_id"], (None, None))
        content = (
            event["timestamp"],
            event["url"],
            event.get("user_id") or "",
            event.get("partner_id") or "",
            event.get("pixel_id") or "",
            program[0],
        )
        standing[event["link_id"]] = min(standing.get(event["link_id"], content), content)
    for link_id, (time, url, user, named, pixel, program) in standing.items():
        partner = named or (f"pn_{user}" if user in users else None)
        outcome.links[link_id] = (_time(time), url, user or None, partner, pixel or None, program)
        if partner:
            outcome.enrollments.add((partner, program))


def _refused(by_topic: dict[str, list[dict[str, Any]]]) -> set[tuple[Any, ...]]:
    """The contents of conversions and refunds that do not stand against another of the same fact."""
    contents: dict[tuple[str, ...], set[tuple[Any, ...]]] = defaultdict(set)
    for event in by_topic["conversion"]:
        who = f"pixel:{event['pixel_id']}" if event.get("pixel_id") else f"link:{event['link_id']}"
        commission = Decimal(event["commission"]) if "commission" in event else Decimal(-1)
        contents["conversion", event["order_id"], who].add(
            (_time(event["timestamp"]), Decimal(event["revenue"]), commission, event.get("currency", "USD"),
             event.get("link_id") or "")
        )  # fmt: skip
    for event in by_topic["order.refunded"]:
        contents["order.refunded", event["order_id"], event["refund_id"]].add(
            (_time(event["timestamp"]), Decimal(event["amount"]), event.get("currency") or "")
        )
    return {(*key, *content) for key, found in contents.items() for content in found - {min(found)}}


@dataclass(frozen=True)
class Claim:
    """Who says that an order is his own, and for how much."""

    beneficiary: str
    pixel: str | None
    link: str | None
    revenue: Decimal
    commission: Decimal | None
    currency: str
    time: datetime


def _claims(by_topic: dict[str, list[dict[str, Any]]], world: World) -> dict[str, Claim]:
    """The claim that stands for each order."""
    contents: dict[tuple[str, str], tuple[Any, ...]] = {}
    for event in by_topic["conversion"]:
        pixel, link = event.get("pixel_id"), event.get("link_id")
        commission = Decimal(event["commission"]) if "commission" in event else Decimal(-1)
        content = (
            _time(event["timestamp"]),
            Decimal(event["revenue"]),
            commission,
            event.get("currency", "USD"),
            link or "",
        )
        key = (event["order_id"], f"pixel:{pixel}" if pixel else f"link:{link}")
        contents[key] = min(contents.get(key, content), content)
    found: dict[str, list[Claim]] = defaultdict(list)
    for (order_id, beneficiary), (time, revenue, commission, currency, link) in contents.items():
        kind, _, name = beneficiary.partition(":")
        pixel = name if kind == "pixel" else None
        own = None if commission < 0 else commission
        found[order_id].append(Claim(beneficiary, pixel, link or None, revenue, own, currency, time))
    by_coupon = _vouched(by_topic["order.placed"], world)
    standing = {
        order_id: min(claims, key=lambda c: (c.time, c.pixel is None, c.pixel or "", c.link or ""))
        for order_id, claims in found.items()
    }
    return by_coupon | standing


def _vouched(orders: list[dict[str, Any]], world: World) -> dict[str, Claim]:
    totals: dict[str, tuple[Any, ...]] = {}
    owners: dict[str, set[str]] = defaultdict(set)
    for order in orders:
        if order["codes"]:
            total = (_time(order["timestamp"]), Decimal(order["total"]), order.get("currency", "USD"))
            totals[order["order_id"]] = min(totals.get(order["order_id"], total), total)
        owners[order["order_id"]] |= {world.owners[code] for code in order["codes"] if code in world.owners}
    return {
        order_id: Claim(
            f"pixel:{min(owners[order_id])}", min(owners[order_id]), None, total, None, currency, time
        )
        for order_id, (time, total, currency) in totals.items()
        if owners[order_id]
    }


def _attribute(
    order_id: str, claim: Claim, by_topic: dict[str, list[dict[str, Any]]], world: World, outcome: Outcome
) -> None:
    link_id, pixel, partner, program = _link_of(claim, outcome)
    refunded = min(claim.revenue, _refunds(order_id, claim.currency, by_topic["order.refunded"]))
    canceled = any(event["order_id"] == order_id for event in by_topic["order.canceled"])
    paused = _valid([(s, at) for p, s, at in world.statuses if p == pixel], claim.time) == "paused"
    rate = _valid([(r, at) for p, r, at in world.rates if p == program], claim.time)
    fallback = _valid(world.defaults, claim.time)
    source = "conversion" if claim.commission is not None else "default" if rate is None else "program"
    base = Fraction(claim.revenue - refunded)
    if claim.commission is None:
        exact = Fraction(fallback or 0 if rate is None else rate) * base / 100
    else:
        exact = Fraction(claim.commission) * (base / Fraction(claim.revenue) if claim.revenue else 1)
    owed = Decimal(0) if canceled or paused else half_even(exact, DIGITS[claim.currency])
    amount = Decimal(0) if canceled or paused else claim.revenue - refunded
    outcome.attributions[order_id] = (
        claim.beneficiary, pixel, link_id, partner, program, claim.revenue, refunded, owed, claim.currency,
        "paused" if paused else source, canceled, claim.time,
    )  # fmt: skip
    if owed or amount:
        outcome.posted[order_id, claim.beneficiary, claim.currency] = (owed, amount)  # type: ignore[assignment]
    if owed and partner and program:
        key = (partner, program, claim.currency)
        outcome.earned[key] = outcome.earned.get(key, Decimal(0)) + owed
    if pixel and not canceled:
        key = (pixel, claim.time.date(), claim.currency)
        known = outcome.daily.get(key, (0, 0, 0, 0, Decimal(0), Decimal(0)))
        outcome.daily[key] = (0, 0, 0, known[3] + 1, known[4] + claim.revenue, known[5] + owed)


def _link_of(claim: Claim, outcome: Outcome) -> tuple[str | None, str | None, str | None, str | None]:
    """(link, pixel, partner, program)"""
    named = outcome.links.get(claim.link or "")
    if claim.pixel is None:
        if named is None:
            return claim.link, None, None, None
        return claim.link, named[4], named[3], named[5]
    if named is None or named[4] not in {None, claim.pixel}:
        own = sorted((c[0], link_id) for link_id, c in outcome.links.items() if c[4] == claim.pixel)
        if not own:
            return None, claim.pixel, None, None
        named, link_id = outcome.links[own[0][1]], own[0][1]
        return link_id, claim.pixel, named[3], named[5]
    return claim.link, claim.pixel, named[3], named[5]


def _refunds(order_id: str, currency: str, events: list[dict[str, Any]]) -> Decimal:
    standing: dict[str, tuple[Any, ...]] = {}
    for event in events:
        if event["order_id"] == order_id:
            content = (_time(event["timestamp"]), Decimal(event["amount"]), event.get("currency") or "")
            standing[event["refund_id"]] = min(standing.get(event["refund_id"], content), content)
    return sum((c[1] for c in standing.values() if c[2] in {"", currency}), Decimal(0))


def _valid(history: list[tuple[Any, datetime]], time: datetime) -> Any:
    """What was valid then, or else the earliest known."""
    ordered = sorted(history, key=lambda entry: entry[1])
    before = [entry for entry in ordered if entry[1] <= time]
    return before[-1][0] if before else ordered[0][0] if ordered else None


def _count_clicks(events: list[dict[str, Any]], outcome: Outcome) -> None:
    first: dict[tuple[str, str], dict[str, Any]] = {}
    for event in events:
        first.setdefault((event["click_id"], event["timestamp"]), event)
    days: dict[tuple[str, Any], list[dict[str, Any]]] = defaultdict(list)
    for event in first.values():
        days[event["pixel_id"], _time(event["timestamp"]).date()].append(event)
    for (pixel, day), clicks in days.items():
        human = [c for c in clicks if "bot" not in c.get("user_agent", "").lower()]
        unique = {(c.get("ip_address"), c.get("user_agent")) for c in human}
        counts = (len(human), len(unique), len(clicks) - len(human), 0, Decimal(0), Decimal(0))
        outcome.daily[pixel, day, ""] = counts


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def stored(db: asyncpg.Connection) -> Outcome:
    """The tables as they are."""
    return Outcome(
        attributions={
            r["order_id"]: (
                r["beneficiary"], r["pixel_id"], r["link_id"], r["partner_id"], r["program_id"], r["revenue"],
                r["refunded"], r["commission"], r["currency"], r["rate_source"], r["status"] == "reversed",
                r["occurred_at"],
            )
            for r in await db.fetch("SELECT * FROM aff_attributions")
        },
        posted={
            (r["order_id"], r["beneficiary"], r["currency"]): (r["earnings"], r["amount"])  # type: ignore[misc]
            for r in await db.fetch(
                """SELECT order_id, beneficiary, currency, sum(earnings) AS earnings, sum(amount) AS amount
                   FROM commissions GROUP BY 1, 2, 3 HAVING sum(earnings) <> 0 OR sum(amount) <> 0"""
            )
        },
        earned={
            (r["partner_id"], r["program_id"], r["currency"]): r["earnings"]
            for r in await db.fetch(
                """SELECT partner_id, program_id, currency, sum(earnings) AS earnings FROM commissions
                   WHERE partner_id IS NOT NULL GROUP BY 1, 2, 3 HAVING sum(earnings) <> 0"""
            )
        },
        daily={
            (r["pixel_id"], r["day"], r["currency"]): (
                r["clicks"], r["unique_clicks"], r["bot_clicks"], r["conversions"], r["revenue"], r["commission"]
            )
            for r in await db.fetch("SELECT * FROM affiliate_daily")
        },
        links={
            r["id"]: (r["occurred_at"], r["url"], r["user_id"], r["partner_id"], r["pixel_id"], r["program_id"])
            for r in await db.fetch("SELECT * FROM links")
        },
        partners={r["id"]: (r["name"], r["email"]) for r in await db.fetch("SELECT * FROM partners")},
        relations={
            (r["partner_id"], r["user_id"])
            for r in await db.fetch("SELECT partner_id, user_id FROM partner_users")
        },
        enrollments={
            (r["partner_id"], r["program_id"])
            for r in await db.fetch("SELECT partner_id, program_id FROM program_enrollments")
        },
        programs={r["id"] for r in await db.fetch("SELECT id FROM programs")},
        refused={_refused_row(r) for r in await db.fetch("SELECT * FROM refused_facts")},
    )  # fmt: skip


def _refused_row(row: asyncpg.Record) -> tuple[Any, ...]:
    content = json.loads(row["content"], parse_float=Decimal, parse_int=Decimal)
    time, currency = _time(content["occurred_at"]), content["currency"] or ""
    if row["topic"] == "order.refunded":
        return row["topic"], row["order_id"], content["refund_id"], time, content["amount"], currency
    commission = Decimal(-1) if content["commission"] is None else content["commission"]
    return (
        row["topic"], row["order_id"], content["beneficiary"], time, content["revenue"], commission, currency,
        content["link_id"] or "",
    )  # fmt: skip
