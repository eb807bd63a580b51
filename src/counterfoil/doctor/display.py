"""The findings as text: what is wrong first, each with what mends it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from counterfoil.doctor.findings import Finding, State, plural
from counterfoil.telemetry.logging import printable
from counterfoil.telemetry.page import Page

SECTIONS = (
    (State.PROBLEM, "Problems", "✗", "bold red"),
    (State.WARNING, "Warnings", "!", "yellow"),
    (State.OK, "Well", "✓", "green"),
)


def show(findings: Sequence[Finding], console: Console | None = None) -> None:
    """Print the findings by how they stand, and how many there are of each."""
    console = console or Page(highlight=False)
    for state, title, mark, style in SECTIONS:
        there = [finding for finding in findings if finding.state is state]
        if there:
            console.print(Text(title, style="bold"))
            console.print(_table(there, mark, style))
            console.print()
    console.print(_in_all(findings))


def _table(findings: Sequence[Finding], mark: str, style: str) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=2, justify="right")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(Text(mark, style=style), Text(finding.check), Text(printable(finding.message)))
        if finding.fix:
            table.add_row(
                "", "", Text(f"→ {printable(finding.fix)}", style="bold" if style != "green" else "dim")
            )
    return table


def _in_all(findings: Sequence[Finding]) -> Text:
    count = {state: sum(finding.state is state for finding in findings) for state in State}
    if not count[State.PROBLEM] and not count[State.WARNING]:
        return Text(f"nothing is wrong: {plural(count[State.OK], 'check')}")
    problems, warnings = plural(count[State.PROBLEM], "problem"), plural(count[State.WARNING], "warning")
    return Text(f"{problems}, {warnings}, {count[State.OK]} well")
