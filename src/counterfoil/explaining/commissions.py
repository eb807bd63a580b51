"""A commission: what it was posted for and why, the order behind it, and the sum that it is part of."""

from __future__ import annotations

from counterfoil.database.connection import Connection
from counterfoil.explaining.arithmetic import is_rate_of, number, rate_formula, sum_of
from counterfoil.explaining.orders import explain_order
from counterfoil.explaining.rows import Report, Row, Span, fetch_row

CAUSES = {
    "conversion": "the order's conversion",
    "coupon": "an affiliate's coupon, and no conversion",
    "refunded": "a refund took back its share",
    "canceled": "the order was canceled",
    "moved": "the order was found to be another's: here it is given or taken away",
    "withdrawn": "the fact that it was posted for is gone",
    "paused": "the affiliate was paused at the order's time",
    "rate": "another rate was found to be valid at the order's time",
    "corrected": "the order's facts came to another amount",
    "imported": "written by hand or imported",
}
"""What a cause says, by its name before the `#`."""


async def explain_commission(connection: Connection, commission_id: str, span: Span) -> Report | None:
    """One posted row, with its order; None where there is no such row."""
    commission = await fetch_row(connection, "explain_commission", commission_id)
    if commission is None:
        return None
    order_id = commission["order_id"]
    order = await explain_order(connection, order_id, span) or {}
    commission["why"] = CAUSES.get(str(commission["cause"]).partition("#")[0])
    return {
        "commission": commission,
        "arithmetic": [*_arithmetic(commission), *order["arithmetic"]],
        "order": {"id": order_id, **order},
        "drift": order["drift"],
        "agrees": order["agrees"],
    }


def _arithmetic(row: Row) -> list[Row]:
    """This row as its rate on its amount, where it is just that, and in the sum of those before it."""
    found = []
    if is_rate_of(row):
        formula = rate_formula(row["rate_percent"], row["amount"], row["earnings"])
        found.append(number("earnings of this row", formula, row["earnings"], is_stored=False))
    after = sum_of([row["posted_before"], row["earnings"]])
    found.append(
        number("posted with this row", f"{after}, before it and by it", row["posted_after"], is_stored=False)
    )
    return found
