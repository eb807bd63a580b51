"""A product as a terminal shows it."""

from __future__ import annotations

from collections.abc import Iterator

from counterfoil.explaining.cells import Section, arithmetic, line, listed, time_cell
from counterfoil.explaining.rows import Report, Row

PARTS = {"absolute": "counted from here", "delta": "counted", "before": "older than the count"}
DETAILS = ("name", "threshold", "unit_price", "supplier")


def view_sku(report: Report) -> Iterator[Section]:
    """What is known of it, what its stock is the sum of, and the rows of that; what was told when it was low."""
    yield Section(f"SKU {report['id']}")
    yield _product(report)
    yield Section(_sum(report))
    yield arithmetic(report)
    yield Section("Stock, and what the ledger comes to", _compared(report))
    yield listed("Stock changes", report, "changes", _change)
    yield _closing(report["closing"])
    yield listed("Told once more, and refused", report, "refused_changes", _refused_change)
    yield listed("Alerts", report, "alerts", _alert)


def _product(report: Report) -> Section:
    product: Row | None = report["product"]
    if product is None:
        return Section("There is no such product any more, only what happened to it.")
    told = {row["field"]: row for row in report["details"]}
    return Section(
        "Product",
        [
            *(line(name.replace("_", " "), product[name], _origin(told.get(name))) for name in DETAILS),
            line("low", "yes" if product["is_low"] else "no", _told_of(product)),
            line("previous stock", product["previous_stock"]),
            line("made", time_cell(product["created_at"]) or "only stock changes told of it"),
        ],
    )


def _origin(told: Row | None) -> str:
    if told is None:
        return ""
    said = f"told {time_cell(told['occurred_at'])[:19]} by {told['event_id']}"
    return said if told["stands"] else f"by hand; {said}: {told['value']}"


def _told_of(product: Row) -> str:
    if product["episode_opened_at"]:
        return f"told at a stock of {product['episode_told_stock']}, since {time_cell(product['episode_opened_at'])}"
    told_at = product["level_told_at"]
    return f"this level was told at {time_cell(told_at)}" if told_at else ""


def _sum(report: Report) -> str:
    absolute, stock = report["absolute"], report["counted"]["stock"]
    deltas = _deltas(report["deltas"])
    if absolute is None:
        return f"Stock {stock:,}: nobody has counted it, {deltas}."
    of = "closed" if absolute["is_closed"] else f"{absolute['event_type']}, {absolute['source']}"
    counted = (
        f"{absolute['stock']:,} counted {time_cell(absolute['occurred_at'])} by {absolute['event_id']} ({of})"
    )
    return f"Stock {stock:,}: {counted}, {deltas} since then."


def _deltas(deltas: Row) -> str:
    if not deltas["deltas"]:
        return "no delta"
    return f"{deltas['sum']:+,} by {deltas['deltas']:,} {'delta' if deltas['deltas'] == 1 else 'deltas'}"


def _compared(report: Report) -> list[Row]:
    return [
        {
            "what": name.replace("_", " "),
            "stored": _cell(stored),
            "": "=" if stored == report["counted"][name] else "≠",
            "counted": _cell(report["counted"][name]),
        }
        for name, stored in report["stored"].items()
    ]


def _cell(value: object) -> object:
    return value if isinstance(value, int) else time_cell(value)  # type: ignore[arg-type]  # times and texts


def _change(row: Row) -> Row:
    return {
        "time": time_cell(row["occurred_at"]),
        "told": f"{row['event_type']} {_told(row)}",
        "stock": row["stock_after"],
        "verdict": PARTS[row["part"]],
        "event": row["event_id"],
        "source": row["source"],
    }


def _told(row: Row) -> str:
    """An absolute, or a delta with its sign; and the details that came along."""
    said = [f"{row['quantity_delta']:+,}" if row["new_stock"] is None else f"= {row['new_stock']:,}"]
    said += [f"{name.replace('_', ' ')} {row[name]}" for name in DETAILS if row[name] is not None]
    return ", ".join(said)


def _closing(closing: Row | None) -> Section:
    if closing is None:
        return Section("", [])
    of = (
        f"counted from {time_cell(closing['counted_from'])}" if closing["counted_from"] else "of deltas alone"
    )
    return Section(
        f"What occurred before {time_cell(closing['closed_before'])} is closed: a stock of {closing['stock']:,}, {of}."
    )


def _refused_change(row: Row) -> Row:
    content = {name: value for name, value in row["content"].items() if value not in (None, {})}
    return {
        "time": content.pop("occurred_at", None),
        "event": content.pop("event_id", None),
        "content": ", ".join(f"{name} {value}" for name, value in content.items()),
        "verdict": "refused: the smaller content stands, or what an alert's log says",
        "source": row["source"],
    }


def _alert(row: Row) -> Row:
    return {
        "raised": time_cell(row["raised_at"]),
        "kind": row["kind"],
        "stock": f"{row['stock']} of {row['threshold']}",
        "told on": ", ".join(_notification(told) for told in row["notifications"]) or "no channel",
        "alert": row["alert_id"],
    }


def _notification(row: Row) -> str:
    if row["status"] == "sent":
        return f"{row['channel']} at {time_cell(row['sent_at'])[:19]}"
    tries = f", {row['attempts']} {'try' if row['attempts'] == 1 else 'tries'}" if row["attempts"] else ""
    why = f": {row['error']}" if row["error"] else ""
    return f"{row['channel']} {row['status']}{tries}{why}"
