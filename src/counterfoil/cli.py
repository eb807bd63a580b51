"""The command line. Heavy modules are imported by the command that needs them, so that `--help` is quick."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from counterfoil import __version__
from counterfoil.errors import CounterfoilError, DependencyUnreachable, InvalidSetting, SchemaMismatch

if TYPE_CHECKING:
    from counterfoil.ingest.dead_letters import Chosen
    from counterfoil.ingest.retry import Retried
    from counterfoil.replaying.windows import Share, Window
    from counterfoil.settings import Settings

EXIT_FOUND = 1
EXIT_WRONG_USE = 2
EXIT_UNREACHABLE = 3

EXIT_STOPPED = 130
"""By Ctrl-C, as shells have it."""

LARGEST_ID = 2**63 - 1

SPOKEN_EVERY_S = 10.0

ROWS_SHOWN = 50
"""Of many records that were retried; all of them with --json."""

OUTCOMES = {
    "applied": "applied",
    "accepted": "right by the rules now",
    "duplicate": "known already",
    "refused": "still wrong",
    "gone": "not open any more",
}

TIMES = [
    "%Y-%m-%d",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S%z",
    "%Y-%m-%dT%H:%M:%S.%f%z",
]

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
forget = typer.Typer(
    help="Erase a person from all ledgers and dead letters, and keep every count.", no_args_is_help=True
)
app.add_typer(forget, name="forget")
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


Topics = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[TOPIC]...", help="By default name, such as order.placed, or as it is called here."
    ),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="T", help="Records of this time or later: 2026-03-01T12:00:00Z, or a day (UTC)."
    ),
]
To = Annotated[str | None, typer.Option("--to", metavar="T", help="Records of before this time.")]
Partitions = Annotated[
    list[int] | None,
    typer.Option("--partition", min=0, max=2**31 - 1, help="Only this one; may be repeated."),
]
FromOffset = Annotated[
    int | None,
    typer.Option(min=0, max=LARGEST_ID, help="Of one topic and one --partition: from this offset on."),
]
ToOffset = Annotated[
    int | None, typer.Option(min=0, max=LARGEST_ID, help="Up to this offset, which is not read.")
]


@app.command()
def replay(  # noqa: PLR0913, PLR0917 - one parameter an option
    topics: Topics = None,
    everything: Annotated[bool, typer.Option("--all", help="Every topic that counterfoil reads.")] = False,
    since: From = None,
    until: To = None,
    partition: Partitions = None,
    from_offset: FromOffset = None,
    to_offset: ToOffset = None,
    mode: Annotated[
        str,
        typer.Option(
            help="check compares and writes nothing; apply writes what is missing; shadow rebuilds beside."
        ),
    ] = "check",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="With apply: put right the rows that differ, too.")
    ] = False,
    with_alerts: Annotated[
        bool, typer.Option("--with-alerts", help="With apply: raise alerts, as live records do.")
    ] = False,
    max_rate: Annotated[int | None, typer.Option(min=1, help="Records in a second, at most.")] = None,
    processes: Annotated[
        int,
        typer.Option(
            min=1,
            max=32,
            help="With check and apply: so many processes, each for its share of the partitions.",
        ),
    ] = 1,
    share: Annotated[str | None, typer.Option(hidden=True)] = None,
    file: Annotated[
        Path | None, typer.Option(help="Read exported records (JSON lines, .gz) in place of Kafka.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew, and do not go on with one that was broken off.")
    ] = False,
    limit: Annotated[
        int, typer.Option(min=0, max=1_000_000, help="Show so many rows of each list at most.")
    ] = 20,
    rules: Annotated[
        list[str] | None,
        typer.Option(
            "--with", metavar="RULE=VALUE", help="With shadow: what if it had been so? May be repeated."
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="With shadow: leave its schema for a look.")] = False,
    schema: Annotated[str | None, typer.Option(help="With shadow: the schema's name.")] = None,
    as_json: AsJson = False,
) -> None:
    """Read topics once more: say what is missing or differs, write it, or rebuild it beside; exit 1 when any is."""
    from counterfoil.replaying.running import Request, run_replay  # noqa: PLC0415

    if mode not in ("check", "apply", "shadow"):
        raise InvalidSetting(f"--mode: takes check, apply or shadow; not {mode}")
    request = Request(
        topics=tuple(topics or ()),
        window=_window(since, until, partition, from_offset, to_offset),
        everything=everything,
        mode=mode,
        overwrite=overwrite,
        with_alerts=with_alerts,
        max_rate=max_rate,
        processes=processes,
        share=_share(share),
        file=file,
        restart=restart,
        limit=limit,
        rules=tuple(rules or ()),
        keep=keep,
        schema=schema,
        as_json=as_json,
    )
    sys.exit(run_replay(_settings(), request, _print_json))


@app.command()
def export(  # noqa: PLR0913, PLR0917 - one parameter an option
    topics: Annotated[
        list[str], typer.Argument(metavar="TOPIC", help="By default name, or as it is called here.")
    ],
    since: From = None,
    until: To = None,
    partition: Partitions = None,
    from_offset: FromOffset = None,
    to_offset: ToOffset = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A file, packed where it ends in .gz; else standard output."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write records as JSON lines, as they came: an archive that `replay --file` reads."""
    from counterfoil.replaying.exporting import run_export  # noqa: PLC0415

    window = _window(since, until, partition, from_offset, to_offset)
    sys.exit(run_export(_settings(), topics, window, output, _print_json if as_json else None))


def _share(text: str | None) -> Share:
    """The share that the first of several processes has given us."""
    from counterfoil.replaying.windows import WHOLE, Share  # noqa: PLC0415

    if text is None:
        return WHOLE
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count) <= 32):
        raise InvalidSetting(f"--share: is what --processes gives each of its processes; not {text}")
    return Share(int(number), int(count))


def _window(
    since: str | None, until: str | None, partitions: list[int] | None, first: int | None, end: int | None
) -> Window:
    from counterfoil.replaying.windows import Window, time_of  # noqa: PLC0415

    return Window(
        time_of("--from", since),
        time_of("--to", until),
        frozenset(partitions) if partitions else None,
        first,
        end,
    )


@app.command()
def verify(
    repair: Annotated[
        bool, typer.Option("--repair", help="Set what has drifted to what the ledgers say.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Recount every counter from its ledger; exit 1 when one is wrong."""
    from counterfoil import commands  # noqa: PLC0415

    settings = _settings()
    with _progress(one_bar=True) as tell:
        report = commands.verify(settings, with_repair=repair, tell=tell)
    if as_json:
        _print_json(report)
    else:
        _print_verification(report, repaired=repair)
    sys.exit(EXIT_FOUND if report["drift"] and not report["clean"] else 0)


def _print_verification(report: dict[str, Any], *, repaired: bool) -> None:
    """What was recounted, what is wrong of it, and what became of that."""
    drifted = report["drifted"]
    checked = [
        {"table": table, "rows": f"{rows:,}", "drifted": f"{drifted[table]:,}" if drifted[table] else "–"}
        for table, rows in report["checked"].items()
    ]
    _print_rows(
        checked, as_json=False, title=f"Recounted as of {report['snapshot_at']:%Y-%m-%d %H:%M:%S} UTC"
    )
    if report["drift"]:
        _print_rows(report["drift"], as_json=False, title="Drift")
    if report["repairs"]:
        rows = [{**row, "counted": f"{row['counted']} ✓"} for row in report["repairs"]]
        _print_rows(rows, as_json=False, title="Repaired")
    if repaired and report["left"]:
        _print_rows(report["left"], as_json=False, title="Left as it is: a person must say what is right")
    found = f"{len(report['drift']):,} drifted" if report["drift"] else "no drift"
    mended = f", {report['repaired']} rows repaired" if repaired else ""
    counted = ", ".join(f"{rows:,} of {table}" for table, rows in report["checked"].items() if rows)
    _tell(
        f"checked {counted or 'nothing: there are no counters'} in {report['seconds']:.1f} s: {found}{mended}"
    )


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """What is wrong with settings, Kafka, PostgreSQL and what is read, and how to mend it; exit 1 when something is."""
    import asyncio  # noqa: PLC0415

    from counterfoil.doctor import State, examine  # noqa: PLC0415
    from counterfoil.doctor.display import show  # noqa: PLC0415

    settings = _settings()
    with _waiting("looking at Kafka, PostgreSQL and the positions"):
        findings, anything = asyncio.run(examine(settings))
    if as_json:
        _print_json([finding.as_dict() for finding in findings])
    else:
        show(findings)
    if not anything:
        sys.exit(EXIT_UNREACHABLE)
    sys.exit(EXIT_FOUND if any(finding.state is not State.OK for finding in findings) else 0)


Limit = Annotated[int, typer.Option(min=1, max=1_000_000, help="Show so many rows of each list at most.")]
Days = Annotated[int, typer.Option(min=1, max=36_500, help="Of so many days, today included.")]
AtTime = Annotated[
    str | None,
    typer.Option(
        "--at", metavar="TIME", help="As of this event time (RFC 3339), of the facts up to then alone."
    ),
]
EVERY_ROW = 1_000_000


@explain.command("order")
def explain_order(order_id: Annotated[str, typer.Argument(metavar="ID")], as_json: AsJson = False) -> None:
    """Who claims an order, what takes it back, to whom it is attributed and why, and what was posted for it."""
    _explain("order", order_id, limit=EVERY_ROW, as_json=as_json)


@explain.command("coupon")
def explain_coupon(
    code: Annotated[str, typer.Argument()], limit: Limit = 50, at: AtTime = None, as_json: AsJson = False
) -> None:
    """What a coupon counts: its usages, adjustments and owner."""
    _explain("coupon", code, limit=limit, at=at, as_json=as_json)


@explain.command("promo")
def explain_promo(
    code: Annotated[str, typer.Argument()], limit: Limit = 50, at: AtTime = None, as_json: AsJson = False
) -> None:
    """What a promo code counts: its uses and adjustments, and what was refused because it disagreed."""
    _explain("promo", code, limit=limit, at=at, as_json=as_json)


@explain.command("affiliate")
def explain_affiliate(
    handle: Annotated[str, typer.Argument(metavar="HANDLE", help="The handle, or the pixel.")],
    days: Days = 30,
    limit: Limit = 50,
    at: AtTime = None,
    as_json: AsJson = False,
) -> None:
    """What an affiliate brought: days, clicks and orders, and whether the sums are what the ledgers say."""
    _explain("affiliate", handle, days=days, limit=limit, at=at, as_json=as_json)


@explain.command("partner")
def explain_partner(
    partner_id: Annotated[str, typer.Argument(metavar="ID")],
    limit: Limit = 50,
    at: AtTime = None,
    as_json: AsJson = False,
) -> None:
    """What a partner has earned and was paid: users, links, programs, balances, and the rows of each."""
    _explain("partner", partner_id, limit=limit, at=at, as_json=as_json)


@explain.command("commission")
def explain_commission(
    commission_id: Annotated[str, typer.Argument(metavar="ID")], as_json: AsJson = False
) -> None:
    """Why one commission was posted: its cause and rate, its order's facts, and the sum that it is part of."""
    _explain("commission", commission_id, limit=EVERY_ROW, as_json=as_json)


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


def _explain(kind: str, key: str, *, as_json: bool, at: str | None = None, **span: int) -> None:
    from counterfoil import commands  # noqa: PLC0415
    from counterfoil.explaining.view import sections  # noqa: PLC0415

    if not key:
        raise typer.BadParameter("an empty id is none")
    report = commands.explain(_settings(), kind, key, at=_moment(at), **span)
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


def _moment(text: str | None) -> datetime | None:
    """The time of `--at`, None where it is not given; wrong use where it has no zone."""
    from counterfoil.api.as_of import parse_moment  # noqa: PLC0415

    try:
        return None if text is None else parse_moment(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--at") from None


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


@forget.callback()
def forgets() -> None:
    """Erase a person from all ledgers and dead letters, and keep every count."""


Pretend = Annotated[bool, typer.Option("--dry-run", help="Say what would be erased, and write nothing.")]


@forget.command("customer")
def forget_customer(
    customer_id: Annotated[str, typer.Argument(metavar="ID", help="The id of a customer or user.")],
    dry_run: Pretend = False,
    as_json: AsJson = False,
) -> None:
    """Replace a customer's id by a pseudonym, also in what still comes, and erase what else is told of the person."""
    _forget("customer", customer_id, dry_run=dry_run, as_json=as_json)


@forget.command("visitor", context_settings={"ignore_unknown_options": True})  # a number may be negative
def forget_visitor(
    named: Annotated[
        str, typer.Argument(metavar="ID", help="The id of any click of theirs, or the number of the visitor.")
    ],
    dry_run: Pretend = False,
    as_json: AsJson = False,
) -> None:
    """Erase what the clicks of one address and browser tell of them, and leave that it is one visitor's."""
    _forget("visitor", named, dry_run=dry_run, as_json=as_json)


def _forget(kind: str, named: str, *, dry_run: bool, as_json: bool) -> None:
    from counterfoil import commands  # noqa: PLC0415

    with _progress() as tell:
        report = commands.forget(_settings(), kind, named, dry_run=dry_run, tell=tell).as_dict()
    if as_json:
        _print_json(report)
        return
    if report["erased"]:
        _print_counts(report["erased"], "Would be erased" if dry_run else "Erased")
    else:
        _tell(f"nothing is stored of this {kind}" + (" any more" if report["was_forgotten"] else ""))
    if report["instead"] and not dry_run:
        _tell(f"this {kind} is {report['instead']} from now on")
    if report["keeps_account"]:
        _tell("the id stays where it names a partner's account: links, users, partners, commissions, payouts")


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
def _progress(*, one_bar: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """Bars on standard error where that is a terminal, else a line now and then; hears what is done of how much."""
    if not sys.stderr.isatty():
        yield _spoken_progress()
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, of: int) -> None:
            bar = "" if one_bar else what
            if bar not in tasks:
                tasks[bar] = bars.add_task(what.replace("_", " "))
            bars.update(tasks[bar], completed=done, total=max(done, of), description=what.replace("_", " "))

        yield tell


def _spoken_progress() -> Callable[[str, int, int], None]:
    """A line on standard error whenever ten seconds have gone by."""
    import time  # noqa: PLC0415

    last = time.monotonic()

    def tell(what: str, done: int, of: int) -> None:
        nonlocal last
        if what and time.monotonic() - last >= SPOKEN_EVERY_S:
            last = time.monotonic()
            print(f"{what}: {done:,} of {of:,}", file=sys.stderr, flush=True)

    return tell


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


Topic = Annotated[str | None, typer.Option(help="Only of this topic, by its name here.")]
Kind = Annotated[
    str | None, typer.Option("--reason", help="Only of this kind, such as invalid_field or not_json.")
]
Since = Annotated[
    datetime | None,
    typer.Option(formats=TIMES, metavar="TIME", help="Only first seen then or later; UTC without a zone."),
]
Until = Annotated[
    datetime | None, typer.Option(formats=TIMES, metavar="TIME", help="Only first seen before then.")
]
Ids = Annotated[
    list[int] | None, typer.Argument(metavar="[ID]...", max=LARGEST_ID, help="Which; or use --all.")
]
Everything = Annotated[bool, typer.Option("--all", help="Every unresolved one that the filters leave.")]


@dead_letters.command("list")
def list_dead_letters(  # noqa: PLR0913, PLR0917 - one parameter an option
    topic: Topic = None,
    reason: Kind = None,
    since: Since = None,
    until: Until = None,
    resolved: Annotated[bool, typer.Option("--all", help="With those that are resolved.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    offset: Annotated[int, typer.Option(min=0, max=LARGEST_ID)] = 0,
    as_json: AsJson = False,
) -> None:
    """List parked records, newest first."""
    from counterfoil import commands  # noqa: PLC0415

    chosen = _chosen(topic, reason, since, until)
    rows = commands.list_dead_letters(_settings(), chosen, resolved=resolved, limit=limit, offset=offset)
    if not as_json:
        rows = [_in_short(row) for row in rows]
    _print_rows(rows, as_json=as_json, title="Dead letters")


def _in_short(row: dict[str, Any]) -> dict[str, Any]:
    """What a table of a terminal's width has room for."""
    state = (
        row["resolution"] or "resolved" if row["resolved_at"] else "refused" if row["retried_at"] else "open"
    )
    return {
        "id": row["id"],
        "record": f"{row['topic']}/{row['partition']}@{row['offset']}",
        "kind": row["error_kind"],
        "error": row["error"],
        "first seen": f"{row['first_seen_at']:%Y-%m-%d %H:%M}",
        "state": state,
    }


@dead_letters.command("show")
def show_dead_letter(
    letter_id: Annotated[int, typer.Argument(metavar="ID", max=LARGEST_ID)],
    full: Annotated[bool, typer.Option("--full", help="All of a large value, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show one parked record: its bytes, its reason, and what the rules would make of it now."""
    from counterfoil import commands  # noqa: PLC0415
    from counterfoil.ingest.letter_text import lines_of  # noqa: PLC0415

    found = commands.show_dead_letter(_settings(), letter_id)
    if found is None:
        print(f"counterfoil: there is no dead letter {letter_id}", file=sys.stderr)
        sys.exit(EXIT_FOUND)
    letter, value = found
    if as_json:
        _print_json(letter)
    else:
        _tell("\n".join(lines_of(letter, value, full=full)))


@dead_letters.command("retry")
def retry_dead_letters(  # noqa: PLR0913, PLR0917 - one parameter an option
    ids: Ids = None,
    everything: Everything = False,
    topic: Topic = None,
    reason: Kind = None,
    since: Since = None,
    until: Until = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what the rules make of each now, and change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Send parked records down the road again; exit 1 when one is refused again."""
    from counterfoil import commands  # noqa: PLC0415

    chosen = _chosen(topic, reason, since, until)
    _require_choice(ids, everything=everything or any(chosen))
    settings = _settings()
    if dry_run:
        with _progress() as tell:
            rows = commands.judge_dead_letters(settings, ids=ids, chosen=chosen, tell=tell)
        _print_retried(rows, named=bool(ids), as_json=as_json, title="What the rules say now")
        sys.exit(EXIT_FOUND if any(row["outcome"] != "accepted" for row in rows) else 0)
    done: list[Retried] = []
    stopped = False
    try:
        with _progress() as tell:
            commands.retry_dead_letters(settings, ids=ids, chosen=chosen, done=done, tell=tell)
    except KeyboardInterrupt:  # what had begun is undone; what is in `done` is committed
        stopped = True
    rows = [{"id": r.id, "outcome": r.outcome, "reason": r.reason} for r in done]
    _print_retried(rows, named=bool(ids), as_json=as_json, title="Retried")
    if stopped:
        print("counterfoil: stopped; the rest is as it was", file=sys.stderr)
        sys.exit(EXIT_STOPPED)
    sys.exit(EXIT_FOUND if any(_is_failure(r.outcome, named=bool(ids)) for r in done) else 0)


@dead_letters.command("drop")
def drop_dead_letters(  # noqa: PLR0913, PLR0917 - one parameter an option
    ids: Ids = None,
    because: Annotated[
        str | None, typer.Option(help="Why; it is kept with the record. With IDs, --reason says so as well.")
    ] = None,
    everything: Everything = False,
    topic: Topic = None,
    reason: Kind = None,
    since: Since = None,
    until: Until = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say which would be dropped, and change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Give parked records up, with the reason why: they stay with their bytes, and are never retried."""
    from counterfoil import commands  # noqa: PLC0415

    if ids and reason and because is None:
        because, reason = reason, None
    chosen = _chosen(topic, reason, since, until)
    _require_choice(ids, everything=everything or any(chosen))
    if not (because or "").strip():
        raise typer.BadParameter("say why, with --because")
    report = commands.drop_dead_letters(
        _settings(),
        ids=ids,
        chosen=chosen,
        actor=_whoami(),
        because=(because or "").strip(),
        dry_run=dry_run,
    )
    if as_json:
        _print_json(report)
    else:
        done = "would be dropped" if dry_run else "dropped"
        for letter_id in report["not_open"]:
            print(f"{letter_id}: resolved already, or no such record", file=sys.stderr)
        named = f": {', '.join(map(str, report['dropped']))}" if ids and report["dropped"] else ""
        _tell(f"{len(report['dropped']):,} {done}{named}")
    sys.exit(EXIT_FOUND if report["not_open"] else 0)


def _chosen(topic: str | None, reason: str | None, since: datetime | None, until: datetime | None) -> Chosen:
    from counterfoil.commands import utc  # noqa: PLC0415
    from counterfoil.ingest.dead_letters import Chosen  # noqa: PLC0415

    return Chosen(topic, reason, utc(since), utc(until))


def _require_choice(ids: list[int] | None, *, everything: bool) -> None:
    if bool(ids) == everything:
        raise typer.BadParameter("name the ids, or say --all, --topic, --reason, --since or --until")


def _is_failure(outcome: str, *, named: bool) -> bool:
    """Of all that match another may have taken some; one that was named and is gone was a mistake."""
    return outcome == "refused" or (named and outcome == "gone")


def _print_retried(rows: list[dict[str, Any]], *, named: bool, as_json: bool, title: str) -> None:
    """Each where they are few or were named, else the first that are refused; and how many there are of each."""
    if as_json:
        _print_json(rows)
        return
    are_few = named or len(rows) <= ROWS_SHOWN
    refused = [row for row in rows if row["outcome"] == "refused"]
    shown = rows if are_few else refused[:ROWS_SHOWN]
    if shown:
        _print_rows(shown, as_json=False, title=title if are_few else "Still wrong")
    counts = Counter(row["outcome"] for row in rows)
    told = ", ".join(f"{counts[outcome]:,} {said}" for outcome, said in OUTCOMES.items() if counts[outcome])
    more = 0 if are_few else len(refused) - len(shown)
    _tell(
        (f"{len(rows):,} in all: {told}" if rows else "none")
        + (f"; {more:,} more with --json" if more else "")
    )


def _whoami() -> str:
    """Who gives this command, as the system knows him."""
    import getpass  # noqa: PLC0415

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container nobody may have a name
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "somebody"


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
    """What could steer a terminal, or is not to be seen, stands as its number."""
    text = json.dumps(value, indent=2, default=_plain, ensure_ascii=False)
    _tell("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))


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
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from counterfoil.telemetry.page import Page  # noqa: PLC0415

    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_printable(value)) for value in row.values()))
    Page().print(table)


def _one_line(text: str) -> str:
    return _printable(text).replace("\n", "\\n")


def _printable(value: object) -> str:
    text = "" if value is None else _plain(value)
    return "".join(c if c.isprintable() or c == "\n" else f"\\u{ord(c):04x}" for c in text)


Command = Callable[..., None]
