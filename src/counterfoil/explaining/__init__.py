"""Why a number is what it is: every row behind it, read in one snapshot."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from counterfoil.database.connection import Connection
from counterfoil.errors import InvalidEvent
from counterfoil.events import Rules
from counterfoil.events import rules as rule
from counterfoil.explaining.affiliates import explain_affiliate
from counterfoil.explaining.codes import explain_coupon, explain_promo
from counterfoil.explaining.commissions import explain_commission
from counterfoil.explaining.orders import explain_order
from counterfoil.explaining.partners import explain_partner
from counterfoil.explaining.rows import Report, Span, read_any_time, read_usual_times
from counterfoil.explaining.stock import explain_sku
from counterfoil.explaining.vouchers import explain_voucher

Explain = Callable[[Connection, str, Span], Awaitable[Report | None]]

KINDS: dict[str, Explain] = {
    "order": explain_order,
    "coupon": explain_coupon,
    "promo": explain_promo,
    "affiliate": explain_affiliate,
    "partner": explain_partner,
    "commission": explain_commission,
    "voucher": explain_voucher,
    "sku": explain_sku,
}
"""What can be explained."""

CODES = {"coupon", "promo"}

AT_KINDS = {"coupon", "promo", "affiliate", "partner"}
"""What can be explained as of an event time."""


async def explain(connection: Connection, kind: str, key: str, rules: Rules, span: Span) -> Report | None:
    """The report of one order, code, affiliate, partner, commission, voucher or SKU; None where nothing is known of it.

    What is found to disagree is looked at again in a second snapshot: the first may have met a TRUNCATE.
    The connection reads times as before when it is done.
    """
    await read_any_time(connection)
    try:
        return await _first_known(connection, kind, _spellings(kind, key, rules), span)
    finally:
        await read_usual_times(connection)


async def _first_known(
    connection: Connection, kind: str, spellings: Iterable[str], span: Span
) -> Report | None:
    for spelling in spellings:
        report = await _look(connection, kind, spelling, span)
        if report is not None and not report["agrees"]:
            report = await _look(connection, kind, spelling, span)
        if report is not None:
            return report
    return None


async def _look(connection: Connection, kind: str, key: str, span: Span) -> Report | None:
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        report = await KINDS[kind](connection, key, span)
    if report is None:
        return None
    at = {} if span.at is None else {"at": span.at}
    return {"kind": kind, "id": key, **at, **report}


def _spellings(kind: str, key: str, rules: Rules) -> list[str]:
    """The key as it is given, and as an event's would have been kept; without those that no table can hold."""
    found = {key: None}
    try:
        kept = (
            rule.code(key, kind, rules.code_case, rules.normalised)
            if kind in CODES
            else rule.identity(key, kind, rules.normalised)
        )
        found[kept or key] = None
    except InvalidEvent:
        pass
    return [spelling for spelling in found if "\0" not in spelling and _is_text(spelling)]


def _is_text(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)
