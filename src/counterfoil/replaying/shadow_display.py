"""What a shadow shows at its end: a table of tables, what is not the same, or what would have been earned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from counterfoil.replaying.comparing import Content, Difference, TableComparison
from counterfoil.replaying.shadow import ShadowReport
from counterfoil.replaying.what_if import Earning, totals_of
from counterfoil.telemetry.logging import printable
from counterfoil.telemetry.page import Page

FOUND_STYLES = {"missing": "red", "only_live": "yellow", "differing": "yellow"}


def show_shadow(report: ShadowReport) -> None:
    """Print a shadow's report."""
    console = Page(highlight=False)
    if report.earnings is None:
        console.print(_tables(report))
        _show_differences(console, report)
    else:
        console.print(_earnings(report.earnings))
    for note in report.notes:
        console.print(Text(f"note: {printable(note)}"), soft_wrap=True)
    console.print(Text(summary(report)), soft_wrap=True)


def summary(report: ShadowReport) -> str:
    """The last line."""
    read = f"read {report.records:,} records in {report.seconds:.1f} s ({report.rate:,.0f}/s)"
    kept = f"; it is kept in the schema {report.schema}" if report.kept else ""
    if report.earnings is not None:
        return f"{read}: {report.orders_that_differ:,} orders would have come to something else{kept}"
    sums = {
        "missing": sum(table.missing for table in report.tables),
        "only live": sum(table.only_live for table in report.tables),
        "differ": sum(table.differing for table in report.tables),
    }
    found = ", ".join(f"{count:,} {words}" for words, count in sums.items() if count)
    live, shadow = report.digests
    same = f"live and shadow are the same, digest {live}" if live == shadow else "no difference"
    return f"{read}: {found or same}{kept}"


def _tables(report: ShadowReport) -> Table:
    table = Table(
        title="Replay (shadow)", title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("table")
    has_unread = any(unread for _, unread in report.taken_over.values())
    names = [
        "live",
        "shadow",
        "missing",
        "only live",
        "differs",
        "by hand",
        *(["not read"] if has_unread else []),
    ]
    for name in names:
        table.add_column(name, justify="right")
    for compared in report.tables:
        if compared.live.rows or compared.shadow.rows:
            cells = _cells(compared, report.taken_over.get(compared.table, (0, 0)))
            table.add_row(compared.table, *cells[: len(names)])
    return table


def _cells(compared: TableComparison, taken: tuple[int, int]) -> list[Text]:
    plain = [_number(compared.live.rows), _number(compared.shadow.rows)]
    found = [_number(getattr(compared, name), style) for name, style in FOUND_STYLES.items()]
    return [*plain, *found, *(_number(count) for count in taken)]


def _number(count: int, style: str = "") -> Text:
    return Text(f"{count:,}", style if count else "dim")


def _show_differences(console: Console, report: ShadowReport) -> None:
    differences = [difference for table in report.tables for difference in table.differences]
    found = sum(table.found for table in report.tables)
    if not differences:
        return
    table = Table(title=f"Differences ({len(differences):,} of {found:,})", title_justify="left")
    for name in ("table", "key", "", "live → as the log says"):
        table.add_column(name, overflow="fold")
    for difference in differences:
        key = " · ".join(_text(value) for value in difference.key.values() if value is not None)
        table.add_row(difference.table, Text(key), difference.verdict, Text(contents_of(difference)))
    console.print(table)


def contents_of(difference: Difference) -> str:
    """What stands on each side: the columns that are not the same, all of them where there is one row."""
    live, shadow = difference.live, difference.shadow
    shown = [
        f"{name}: {_side(live, name)} → {_side(shadow, name)}"
        for name in (live or shadow or {})
        if name not in difference.key
        and (live is None or shadow is None or live[name] != shadow[name])
        and not (live is not None and shadow is not None and name in ("source_id", "source_offset"))
    ]
    return "\n".join(shown)


def _side(content: Content | None, name: str) -> str:
    return "–" if content is None else _text(content[name])


def _text(value: Any) -> str:
    return "none" if value is None else printable(str(value))


def _earnings(earnings: Sequence[Earning]) -> Table:
    table = Table(title="What if", title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for name, justify in (("who", "left"), ("currency", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type] # rich's own words
    for name in ("earned", "would have earned", "difference"):
        table.add_column(name, justify="right")
    for earning in earnings:
        table.add_row(*_earning(earning, f"{earning.kind} {printable(earning.name)}"))
    table.add_section()
    for total in totals_of(earnings):
        table.add_row(*_earning(total, "all"), style="bold")
    return table


def _earning(earning: Earning, who: str) -> list[Text]:
    earned, would_have_earned, difference = earning.amounts
    return [
        Text(who),
        Text(earning.currency),
        Text(f"{earned:,f}"),
        Text(f"{would_have_earned:,f}"),
        Text(f"{difference:+,f}", "" if difference else "dim"),
    ]
