"""The command line. Heavy modules are imported by the command that needs them, so that `--help` is quick."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from counterfoil import __version__
from counterfoil.errors import CounterfoilError, DependencyUnreachable, InvalidSetting, SchemaMismatch

if TYPE_CHECKING:
    from counterfoil.settings import Settings

EXIT_FOUND = 1
EXIT_WRONG_USE = 2
EXIT_UNREACHABLE = 3

LARGEST_ID = 2**63 - 1

app = typer.Typer(
    name="counterfoil",
    help="Turns a shop's Kafka events into PostgreSQL counts that cannot drift.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
dead_letters = typer.Typer(
    help="Records that could not be counted: look at them, and try again.", no_args_is_help=True
)
app.add_typer(dead_letters, name="dead-letters")
backfill = typer.Typer(
    help="Complete what was imported, or written before its other half was known.", no_args_is_help=True
)
app.add_typer(backfill, name="backfill")
stock = typer.Typer(help="What is in stock.", no_args_is_help=True)
app.add_typer(stock, name="stock")
explain = typer.Typer(help="Why a number is what it is: every row behind it.", no_args_is_help=True)
app.add_typer(explain, name="explain")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def main() -> None:
    """Entry point: every foreseen error is one line on standard error and an exit code."""
    _speak_utf8()
    try:
        app(prog_name="counterfoil")
    except (InvalidSetting, SchemaMismatch) as error:
        _fail(error, EXIT_WRONG_USE)
    except DependencyUnreachable as error:
        _fail(error, EXIT_UNREACHABLE)
    except CounterfoilError as error:
        _fail(error, EXIT_FOUND)


def _speak_utf8() -> None:
    """Whatever the locale says: JSON is UTF-8, and a value from an event must not end a command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _tell(text: str) -> None:
    """Print to standard output; a reader that has had enough is no failure."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(error: Exception, code: int) -> None:
    print(f"counterfoil: {error}", file=sys.stderr)
    sys.exit(code)


def _version(value: bool) -> None:
    if value:
        print(f"counterfoil {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Turns a shop's Kafka events into PostgreSQL counts that cannot drift."""


@app.command()
def run(
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Start PostgreSQL and a Kafka broker from wheels, too.")
    ] = False,
    only: Annotated[
        str | None,
        typer.Option(help="Roles of this process, comma-separated: ingest,notify,relay,schedule,http."),
    ] = None,
) -> None:
    """Run the worker until SIGTERM or Ctrl-C."""
    try:
        from counterfoil.running import run_command  # noqa: PLC0415

        run_command(embedded=embedded, only=only)
    except KeyboardInterrupt:  # before the worker has taken over the signals; what had begun is undone by now
        sys.exit(0)


@app.command()
def demo() -> None:
    """Sample orders, doubles and malformed records, a killed worker, and every count compared."""
    from counterfoil.demo import run_demo  # noqa: PLC0415

    sys.exit(run_demo())


@app.command()
def bench(
    orders: Annotated[int, typer.Option(help="Orders of each run.", min=1_000)] = 300_000,
    clicks: Annotated[
        int | None, typer.Option(help="Measure clicks instead of orders, so many in each run.", min=1_000)
    ] = None,
    scans: Annotated[
        int | None, typer.Option(help="Measure scans instead of orders, so many in each run.", min=1_000)
    ] = None,
    runs: Annotated[int, typer.Option(help="Runs of each kind; medians are quoted.", min=1)] = 3,
    as_json: AsJson = False,
) -> None:
    """Measure this worker beside bare COPY and beside a handler with a transaction for each event."""
    from counterfoil.bench import run_bench  # noqa: PLC0415

    if clicks is not None and scans is not None:
        raise typer.BadParameter("measure --clicks or --scans, one at a time")
    sys.exit(run_bench(orders=orders, clicks=clicks, scans=scans, runs=runs, as_json=as_json))


@app.command()
def migrate(
    status: Annotated[
        bool, typer.Option("--status", help="Only say what is applied; exit 1 when something is due.")
    ] = False,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Adopt tables that were made from the same SQL by hand.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Apply sql/ to the database; safe when two start at once."""
    from counterfoil import commands  # noqa: PLC0415

    settings = _settings()
    if status:
        states = commands.migration_states(settings)
        _print_rows(
            [{"migration": s.name, "applied_at": s.applied_at} for s in states],
            as_json=as_json,
            title="Migrations",
        )
        sys.exit(EXIT_FOUND if any(s.applied_at is None for s in states) else 0)
    applied = commands.migrate(settings, baseline=baseline)
    if as_json:
        _print_json({"applied": applied, "baseline": baseline})
    else:
        print(
            f"{'adopted' if baseline else 'applied'}: {', '.join(applied)}" if applied else "nothing is due"
        )


@app.command()
def publish(
    topic: Annotated[
        str, typer.Argument(help="The topic, by its default name, such as order.placed or click.")
    ],
    file: Annotated[
        Path | None, typer.Argument(help="JSON lines; standard input when left out or `-`.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the lines, and publish nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Publish JSON lines to a topic; all of them are checked before the first is sent."""
    from counterfoil import commands  # noqa: PLC0415

    summary = commands.publish(_settings(), topic, file, dry_run=dry_run)
    if as_json:
        _print_json(summary)
    else:
        for problem in summary["invalid"]:
            print(f"line {problem['line']}: {problem['error']}", file=sys.stderr)
        done = "would be published" if dry_run else "published"
        print(f"{summary['published']} {done} to {summary['topic']}, {len(summary['invalid'])} invalid")
    sys.exit(EXIT_FOUND if summary["invalid"] else 0)


@app.command()
def verify(
    repair: Annotated[
        bool, typer.Option("--repair", help="Set what has drifted to what the ledgers say.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Recount every counter from its ledger; exit 1 when one is wrong."""
    from counterfoil import commands  # noqa: PLC0415

    report = commands.verify(_settings(), with_repair=repair)
    if as_json:
        _print_json(report)
    else:
        if report["drift"]:
            _print_rows(report["drift"], as_json=False, title="Drift")
        checked = ", ".join(f"{count} of {table}" for table, count in report["checked"].items())
        found = f"{len(report['drift'])} drifted" if report["drift"] else "no drift"
        print(f"checked {checked}: {found}" + (f", {report['repaired']} rows repaired" if repair else ""))
    sys.exit(EXIT_FOUND if report["drift"] and not report["clean"] else 0)


Limit = Annotated[int, typer.Option(min=1, max=1_000_000, help="Show so many rows of each list at most.")]
Days = Annotated[int, typer.Option(min=1, max=36_500, help="Of so many days, today included.")]


@explain.command("order")
def explain_order(order_id: Annotated[str, typer.Argument(metavar="ID")], as_json: AsJson = False) -> None:
    """Who claims an order, what takes it back, to whom it is attributed and why, and what was posted for it."""
    _explain("order", order_id, as_json=as_json)


@explain.command("coupon")
def explain_coupon(
    code: Annotated[str, typer.Argument()], limit: Limit = 50, as_json: AsJson = False
) -> None:
    """What a coupon counts: its usages, adjustments and owner."""
    _explain("coupon", code, limit=limit, as_json=as_json)


@explain.command("promo")
def explain_promo(code: Annotated[str, typer.Argument()], limit: Limit = 50, as_json: AsJson = False) -> None:
    """What a promo code counts: its uses and adjustments."""
    _explain("promo", code, limit=limit, as_json=as_json)


@explain.command("affiliate")
def explain_affiliate(
    handle: Annotated[str, typer.Argument(metavar="HANDLE", help="The handle, or the pixel.")],
    days: Days = 30,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """What an affiliate brought: days, clicks and orders, and whether the sums are what the ledgers say."""
    _explain("affiliate", handle, days=days, limit=limit, as_json=as_json)


@explain.command("partner")
def explain_partner(
    partner_id: Annotated[str, typer.Argument(metavar="ID")], limit: Limit = 50, as_json: AsJson = False
) -> None:
    """What a partner has earned and was paid: users, links, programs, balances, and the rows of each."""
    _explain("partner", partner_id, limit=limit, as_json=as_json)


@explain.command("voucher")
def explain_voucher(
    voucher_id: Annotated[str, typer.Argument(metavar="ID")],
    days: Days = 30,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """What came of a voucher: days, wallets, attempts and scans, and whether its counts are what these come to."""
    _explain("voucher", voucher_id, days=days, limit=limit, as_json=as_json)


@explain.command("sku")
def explain_sku(
    sku: Annotated[str, typer.Argument(metavar="ID", help="The SKU.")],
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """What the stock of a product is the sum of: its latest count and the changes since; and what was told of it."""
    _explain("sku", sku, limit=limit, as_json=as_json)


def _explain(kind: str, key: str, *, as_json: bool, **span: int) -> None:
    from counterfoil import commands  # noqa: PLC0415
    from counterfoil.explaining.view import sections  # noqa: PLC0415

    if not key:
        raise typer.BadParameter("an empty id is none")
    report = commands.explain(_settings(), kind, key, **span)
    if report is None:
        print(f"counterfoil: nothing is known of the {kind} {_one_line(key)}", file=sys.stderr)
        sys.exit(EXIT_FOUND)
    if as_json:
        _print_json(report)
        return
    for section in sections(report):
        if section.rows is None:
            _tell(_one_line(section.title))
        else:
            _print_rows(section.rows, as_json=False, title=section.title)


@stock.callback()
def stocks() -> None:
    """What is in stock."""


@stock.command("scan")
def scan_stock(as_json: AsJson = False) -> None:
    """Look for low stock now, as the schedule does, raise the alerts that are due, and list what is low."""
    from counterfoil import commands  # noqa: PLC0415

    with _waiting("looking for low stock"):
        found = commands.scan_stock(_settings())
    if as_json:
        _print_json(found)
        return
    products, low, raised = found["products"], found["low"], found["raised"]
    if products:
        shown = f"{len(products):,} of {low:,}, the lowest first" if len(products) < low else f"{low:,}"
        _print_rows(products, as_json=False, title=f"Low stock ({shown})")
    _tell(f"{low} low, {raised} {'alert' if raised == 1 else 'alerts'} raised")


@backfill.callback()
def backfills() -> None:
    """Complete what was imported, or written before its other half was known."""


@backfill.command("partners")
def backfill_partners(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Give users, links and commissions without a partner theirs; exit 1 when one that could be had is missing."""
    from counterfoil import commands  # noqa: PLC0415

    with _progress() as tell:
        report = commands.backfill_partners(_settings(), dry_run=dry_run, tell=tell)
    if as_json:
        _print_json(report.as_dict())
    else:
        found = report.as_dict()
        _print_counts(found["changed"], "Would be given" if dry_run else "Given")
        _print_counts(found["left"], "Without a partner now" if dry_run else "Left without a partner")
        for constraint in report.constraints.added:
            print(f"forbidden from now on: blanks in {constraint}")
        for line in report.constraints.to_run:
            print(f"to be run by who owns the tables: {line};")
    sys.exit(0 if report.is_clean else EXIT_FOUND)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Bars on standard error where that is a terminal; hears what is done, how much is, and of how much."""
    if not sys.stderr.isatty():
        yield lambda _what, _done, _of: None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what.replace("_", " "))
            bars.update(tasks[what], completed=done, total=max(done, of))

        yield tell


@contextlib.contextmanager
def _waiting(what: str) -> Iterator[None]:
    """Say on standard error what takes its time, where that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console  # noqa: PLC0415

    with Console(stderr=True).status(what):
        yield


def _print_counts(counts: dict[str, int], title: str) -> None:
    _print_rows(
        [{"what": name.replace("_", " "), "rows": count} for name, count in counts.items()],
        as_json=False,
        title=title,
    )


Topic = Annotated[str | None, typer.Option(help="Only of this topic.")]
Kind = Annotated[
    str | None, typer.Option("--reason", help="Only of this kind, such as invalid_field or not_json.")
]
Since = Annotated[datetime | None, typer.Option(help="Only first seen since then (UTC).")]


@dead_letters.command("list")
def list_dead_letters(  # noqa: PLR0913, PLR0917 - one parameter an option
    topic: Topic = None,
    reason: Kind = None,
    since: Since = None,
    resolved: Annotated[bool, typer.Option("--all", help="With those that are resolved.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    offset: Annotated[int, typer.Option(min=0, max=LARGEST_ID)] = 0,
    as_json: AsJson = False,
) -> None:
    """List parked records, newest first."""
    from counterfoil import commands  # noqa: PLC0415

    rows = commands.list_dead_letters(
        _settings(), topic=topic, kind=reason, since=since, resolved=resolved, limit=limit, offset=offset
    )
    if not as_json:
        rows = [_in_short(row) for row in rows]
    _print_rows(rows, as_json=as_json, title="Dead letters")


def _in_short(row: dict[str, Any]) -> dict[str, Any]:
    """What a table of a terminal's width has room for."""
    return {
        "id": row["id"],
        "record": f"{row['topic']}/{row['partition']}@{row['offset']}",
        "kind": row["error_kind"],
        "error": row["error"],
        "first seen": f"{row['first_seen_at']:%Y-%m-%d %H:%M}",
        "state": "resolved" if row["resolved_at"] else "tried again" if row["retried_at"] else "open",
    }


@dead_letters.command("show")
def show_dead_letter(
    letter_id: Annotated[int, typer.Argument(metavar="ID", max=LARGEST_ID)], as_json: AsJson = False
) -> None:
    """Show one parked record: its bytes, its reason, and what the rules would make of it now."""
    from counterfoil import commands  # noqa: PLC0415

    letter = commands.show_dead_letter(_settings(), letter_id)
    if letter is None:
        print(f"counterfoil: there is no dead letter {letter_id}", file=sys.stderr)
        sys.exit(EXIT_FOUND)
    if as_json:
        _print_json(letter)
    else:
        _print_rows(
            [{"field": k, "value": v} for k, v in letter.items()],
            as_json=False,
            title=f"Dead letter {letter_id}",
        )


@dead_letters.command("retry")
def retry_dead_letters(  # noqa: PLR0913, PLR0917 - one parameter an option
    ids: Annotated[
        list[int] | None,
        typer.Argument(metavar="[ID]...", max=LARGEST_ID, help="Which; or use --all."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every unresolved one that the filters leave.")
    ] = False,
    topic: Topic = None,
    reason: Kind = None,
    since: Since = None,
    as_json: AsJson = False,
) -> None:
    """Send parked records down the road again; exit 1 when one is refused again."""
    from counterfoil import commands  # noqa: PLC0415

    if bool(ids) == bool(everything or topic or reason or since):
        raise typer.BadParameter("name the ids, or say --all, --topic, --reason or --since")
    retried = commands.retry_dead_letters(_settings(), ids=ids, topic=topic, kind=reason, since=since)
    rows = [{"id": r.id, "outcome": r.outcome, "reason": r.reason} for r in retried]
    _print_rows(rows, as_json=as_json, title="Retried")
    sys.exit(EXIT_FOUND if any(r.outcome in ("refused", "gone") for r in retried) else 0)


@app.command("settings")
def show_settings(as_json: AsJson = False) -> None:
    """Print what it would run with and where each value comes from; secrets are masked."""
    from counterfoil.settings_table import describe_settings  # noqa: PLC0415

    rows = describe_settings(_settings())
    if as_json:
        _print_json({row.pop("variable"): row for row in rows})
    else:
        _print_rows(
            [{k: row[k] for k in ("variable", "value", "source")} for row in rows],
            as_json=False,
            title="Settings",
        )


def _settings() -> Settings:
    from counterfoil.running import command_settings  # noqa: PLC0415

    _keep_logs_from_output()
    return command_settings()


def _keep_logs_from_output() -> None:
    """What a command logs goes to standard error: standard output holds its answer alone."""
    import structlog  # noqa: PLC0415

    if isinstance(structlog.get_config()["logger_factory"], structlog.PrintLoggerFactory):  # as it is made
        structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))


def _print_json(value: object) -> None:
    _tell(json.dumps(value, indent=2, default=_plain, ensure_ascii=False))


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _print_rows(rows: list[dict[str, Any]], *, as_json: bool, title: str) -> None:
    """Rows as JSON or as a table; values from events cannot style or break the table."""
    if as_json:
        _print_json(rows)
        return
    if not rows:
        print("none")
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_printable(value)) for value in row.values()))
    Console().print(table)


def _one_line(text: str) -> str:
    return _printable(text).replace("\n", "\\n")


def _printable(value: object) -> str:
    text = "" if value is None else _plain(value)
    return "".join(c if c.isprintable() or c == "\n" else f"\\u{ord(c):04x}" for c in text)


Command = Callable[..., None]
