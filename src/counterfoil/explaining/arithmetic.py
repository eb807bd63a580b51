"""The arithmetic that leads to a number, as a formula that can be read and done again."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from counterfoil.explaining.rows import Report, Row

MOST_TERMS = 12
"""Of a sum that is written out."""


def number(
    name: str, formula: str, comes_to: object, stored: object = None, *, is_stored: bool = True
) -> Row:
    """What a number is made of, what that comes to, and whether it is what is stored; as of a time nothing is."""
    found = {"number": name, "formula": formula, "comes_to": comes_to}
    return found | ({"stored": stored, "agrees": stored == comes_to} if is_stored else {})


def terms(*parts: tuple[object, str]) -> str:
    """`12 usages - 2 reversed + 5 adjusted`: amounts with what they are of, after the first each with its sign."""
    told = ""
    for amount, what in parts:
        text = str(amount)
        sign = "−" if text.startswith("-") else "+"
        told += f" {sign} {text.removeprefix('-')} {what}" if told else f"{text.replace('-', '−')} {what}"
    return told


def many(count: int, what: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def sum_of(amounts: Iterable[object]) -> str:
    """`4.99 − 1.00 + 0.50`; 0 where there are none, and no more than how many they are where they are many."""
    amounts = list(amounts)
    if len(amounts) > MOST_TERMS:
        return f"the sum of {len(amounts):,} rows"
    told = ""
    for amount in amounts:
        text = str(amount)
        bare = text.removeprefix("-")
        told += f" {'−' if bare != text else '+'} {bare}" if told else text.replace("-", "−")
    return told or "0"


def target_formula(attribution: Row, own_commission: str | None, canceled: bool) -> str:
    """How the target of an order comes about: `10 % × (49.90 − 10.00) = 3.99`."""
    earnings = attribution["target_earnings"]
    if canceled:
        return f"canceled: {earnings}"
    if attribution["rate_source"] == "paused":
        return f"the affiliate was paused: {earnings}"
    if attribution["rate_source"] == "conversion" and own_commission is not None:
        return _share_formula(attribution, own_commission)
    return rate_formula(attribution["rate_percent"], _base(attribution), earnings, _left(attribution))


def rate_formula(percent: str, base: str, earnings: str, left: Decimal | None = None) -> str:
    """A rate on an amount, before and after it is rounded where these differ; `left` is what the base comes to."""
    exact = Decimal(percent) * (Decimal(base) if left is None else left) / 100
    rounded = "" if exact == Decimal(earnings) else f" = {_bare(exact)}, half to even"
    return f"{percent} % × {base}{rounded} = {earnings}".replace("-", "−")


def is_rate_of(row: Row) -> bool:
    """Whether a commission is just its rate on its amount."""
    if row["rate_percent"] is None:
        return False
    exact = Decimal(row["rate_percent"]) * Decimal(row["amount"]) / 100
    fraction = str(row["earnings"]).partition(".")[2]
    return abs(exact - Decimal(row["earnings"])) <= Decimal(5).scaleb(-len(fraction) - 1)


def disagreements(arithmetic: Iterable[Row]) -> list[Row]:
    """Those numbers that are not what is stored, as drift is told."""
    return [
        {"counter": row["number"], "stored": row["stored"], "counted": row["comes_to"]}
        for row in arithmetic
        if not row.get("agrees", True)
    ]


def arithmetic_of_order(report: Report) -> list[Row]:
    """Of each beneficiary of an order the target, and what is posted as the sum of its rows."""
    attribution = report["attribution"]
    found = []
    for balance in report["balances"]:
        posted = [row["earnings"] for row in report["commissions"] if _is_of(row, balance)]
        target = f"target of {balance['beneficiary']} in {balance['currency']}"
        formula = _why_target(report, attribution, balance)
        found.append(number(target, formula, balance["target_earnings"], is_stored=False))
        found.append(
            number(
                f"posted to {balance['beneficiary']} in {balance['currency']}",
                _posted_formula(posted, balance),
                balance["target_earnings"],
                balance["posted_earnings"],
            )
        )
    return found


def _posted_formula(posted: list[str], balance: Row) -> str:
    """The rows, and where they don't come to the target, what they come to and what they should."""
    whole, target = balance["posted_earnings"], balance["target_earnings"]
    if whole == target:
        return sum_of(posted)
    return f"{sum_of(posted)} = {whole}, and the target: {target}".replace("-", "−")


def _why_target(report: Report, attribution: Row | None, balance: Row) -> str:
    stands = attribution is not None and _is_attributed(attribution, balance)
    if attribution is not None and stands:
        own = report["conversions"][0]["commission"] if attribution["rate_source"] == "conversion" else None
        return target_formula(attribution, own, report["cancellation"] is not None)
    if attribution is not None:
        return "the order is attributed otherwise: 0"
    if any(row["origin"] == "manual" for row in report["commissions"]):
        return "imported rows, less what was refunded of them"
    return "the order is attributed to nobody: 0"


def _is_attributed(attribution: Row, balance: Row) -> bool:
    names = ("beneficiary", "partner_id", "program_id", "link_id", "currency")
    return all(attribution[name] == balance[name] for name in names)


def _is_of(row: Row, balance: Row) -> bool:
    names = ("beneficiary", "partner_id", "program_id", "link_id", "currency")
    return all(row[name] == balance[name] for name in names)


def _share_formula(attribution: Row, own: str) -> str:
    revenue, earnings = attribution["revenue"], attribution["target_earnings"]
    if not Decimal(attribution["refunded"]) or not Decimal(revenue):
        rounded = "" if Decimal(own) == Decimal(earnings) else ", half to even"
        return f"{own} as the conversion says{rounded} = {earnings}"
    exact = Decimal(own) * _left(attribution) == Decimal(earnings) * Decimal(revenue)
    return f"{own} × {_base(attribution)} ÷ {revenue}{'' if exact else ', half to even'} = {earnings}"


def _base(attribution: Row) -> str:
    if not Decimal(attribution["refunded"]):
        return str(attribution["revenue"])
    return f"({attribution['revenue']} − {attribution['refunded']})"


def _left(attribution: Row) -> Decimal:
    return Decimal(attribution["revenue"]) - Decimal(attribution["refunded"])


def _bare(amount: Decimal) -> str:
    return f"{amount.normalize():f}"
