"""The command line: exit codes, one line for every foreseen error, JSON for every read command."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from counterfoil import __version__, cli
from counterfoil.settings import DEFAULT_TOPICS, PREFIX
from support.builders import an_order

NOBODY_LISTENS = "postgres://shop:s3cret@127.0.0.1:1/shop"


@pytest.fixture(autouse=True)
def an_empty_environment(monkeypatch, tmp_path):
    for name in os.environ:
        if name.upper().startswith(PREFIX) or name.upper().endswith("DATABASE_URL"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(monkeypatch, capfd):
    """Run `counterfoil …` in this process: exit code, standard output, standard error."""

    def run(*arguments, stdin: bytes = b"", **settings):
        for name, value in settings.items():
            monkeypatch.setenv(f"{PREFIX}{name.upper()}", value)
        monkeypatch.setattr(sys, "argv", ["counterfoil", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfd.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        output, errors = capfd.readouterr()
        assert "Traceback" not in errors + output
        return code, output, errors

    return run


COMMANDS = [
    "run",
    "demo",
    "bench",
    "migrate",
    "publish",
    "verify",
    "dead-letters",
    "explain",
    "backfill",
    "stock",
    "settings",
]


def test_help_names_every_command(run):
    code, output, _ = run("--help")
    assert code == 0
    assert [command for command in COMMANDS if command not in output] == []


@pytest.mark.parametrize(
    "command",
    [
        *COMMANDS,
        *("dead-letters list", "dead-letters show", "dead-letters retry"),
        *("explain order", "explain coupon", "explain promo", "explain affiliate", "explain partner"),
        "explain voucher",
        "explain sku",
        "stock scan",
        "backfill partners",
    ],
)
def test_every_command_has_help(run, command):
    code, output, _ = run(*command.split(), "--help")
    assert code == 0
    assert "Usage: counterfoil" in output


def test_the_version_is_that_of_the_package(run):
    assert run("--version") == (0, f"counterfoil {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["publish"],
        ["verify", "--no-such-option"],
        ["dead-letters", "show", "x"],
        ["dead-letters", "retry"],
        ["dead-letters", "retry", "1", "--all"],
        ["dead-letters", "list", "--limit", "0"],
        ["explain", "sku"],
        ["explain", "sku", ""],
        ["stock", "count"],
    ],
)
def test_wrong_use_is_exit_code_2(run, arguments):
    assert run(*arguments)[0] == 2


@pytest.mark.parametrize(
    "command",
    [
        "run",
        "migrate",
        "verify",
        "settings",
        "dead-letters list",
        "publish order.placed",
        "dead-letters show 1",
        "explain sku A",
        "stock scan",
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(run, command):
    code, output, errors = run(*command.split(), http_port="many")
    assert (code, output) == (2, "")
    assert errors.startswith("counterfoil: COUNTERFOIL_HTTP_PORT: ")
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    "command", ["run", "migrate", "verify", "dead-letters list", "migrate --status", "stock scan"]
)
def test_no_database_set_is_one_line_and_exit_code_2(run, command):
    code, _, errors = run(*command.split())
    assert code == 2
    assert errors.startswith("counterfoil: COUNTERFOIL_DATABASE_URL: ")
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        "migrate",
        "verify",
        "dead-letters list",
        "dead-letters retry 1",
        "migrate --status",
        "explain sku A",
        "stock scan",
    ],
)
def test_a_database_that_does_not_answer_is_one_line_and_exit_code_3(run, command):
    code, _, errors = run(*command.split(), database_url=NOBODY_LISTENS)
    assert code == 3
    assert errors.startswith("counterfoil: PostgreSQL at postgres://shop:•••@127.0.0.1:1/shop: ")
    assert errors.count("\n") == 1


def test_an_unknown_role_is_one_line_and_exit_code_2(run):
    code, _, errors = run("run", "--only", "ingest,cook", database_url=NOBODY_LISTENS)
    assert code == 2
    assert "--only: takes one or more of ingest, notify, relay, schedule, http; not cook" in errors


# Settings


def test_settings_are_printed_as_json_without_secrets(run):
    code, output, _ = run("settings", "--json", database_url=NOBODY_LISTENS, admin_token="s3cret")
    printed = json.loads(output)
    assert code == 0
    assert {"value": "•••", "source": "environment"}.items() <= printed["COUNTERFOIL_ADMIN_TOKEN"].items()
    assert "s3cret" not in output


def test_settings_are_printed_as_a_table(run):
    code, output, _ = run("settings", database_url=NOBODY_LISTENS)
    assert code == 0
    assert "s3cret" not in output


# Publish


def lines(*values: object) -> bytes:
    return b"".join((v if isinstance(v, bytes) else json.dumps(v).encode()) + b"\n" for v in values)


def test_a_dry_run_checks_every_line_and_publishes_nothing(run):
    stdin = lines(an_order("1", codes=["A"]).to_json(), b"", {"id": 2})
    code, output, errors = run("publish", "order.placed", "--dry-run", stdin=stdin)
    assert (code, output, errors) == (0, "2 would be published to order.placed, 0 invalid\n", "")


def test_an_invalid_line_is_named_by_its_number_and_is_exit_code_1(run):
    stdin = lines({"id": 1}, b"", b"not json", {"codes": []})
    code, output, errors = run("publish", "order.placed", "--dry-run", stdin=stdin)
    assert code == 1
    assert output == "1 would be published to order.placed, 2 invalid\n"
    assert [line.partition(":")[0] for line in errors.splitlines()] == ["line 3", "line 4"]


def test_with_an_invalid_line_nothing_is_published(run):
    """Kafka is not even asked."""
    code, output, _ = run(
        "publish", "order.placed", stdin=lines({"id": 1}, b"{"), kafka_bootstrap_servers="127.0.0.1:1"
    )
    assert (code, output) == (1, "0 published to order.placed, 1 invalid\n")


def test_a_summary_of_publishing_as_json(run):
    code, output, _ = run("publish", "order.canceled", "--dry-run", "--json", stdin=lines({"id": 1}, b"{"))
    summary = json.loads(output)
    assert code == 1
    assert (summary["topic"], summary["published"], summary["dry_run"]) == ("order.canceled", 1, True)
    assert [problem["line"] for problem in summary["invalid"]] == [2]


def test_lines_come_from_a_file(run, tmp_path):
    file = tmp_path / "orders.jsonl"
    file.write_bytes(lines({"id": 1}, {"id": 2}))
    assert run("publish", "order.placed", str(file), "--dry-run")[:2] == (
        0,
        "2 would be published to order.placed, 0 invalid\n",
    )


def test_a_topic_may_be_named_as_it_is_called_here(run):
    code, output, _ = run(
        "publish", "shop.orders", "--dry-run", stdin=lines({"id": 1}), topic_order_placed="shop.orders"
    )
    assert (code, output) == (0, "1 would be published to shop.orders, 0 invalid\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["order.shipped"], f"order.shipped: no such topic; takes one of {', '.join(DEFAULT_TOPICS)}"),
        (["order.placed", "nowhere.jsonl"], "nowhere.jsonl: No such file or directory"),
        (["order.placed", "."], ".: Is a directory"),
    ],
)
def test_a_wrong_topic_or_file_is_one_line_and_exit_code_2(run, arguments, message):
    assert run("publish", *arguments, "--dry-run") == (2, "", f"counterfoil: {message}\n")


# Output that holds what events said


def test_a_table_shows_control_characters_and_markup_as_text(capsys):
    cli._print_rows([{"a": "[red]x[/red]\x1b[31m\r"}], as_json=False, title="t")
    printed = capsys.readouterr().out
    assert "[red]x[/red]" in printed
    assert "\x1b" not in printed
    assert "\\u001b" in printed


def test_no_rows_are_said(capsys):
    cli._print_rows([], as_json=False, title="t")
    cli._print_rows([], as_json=True, title="t")
    assert capsys.readouterr().out == "none\n[]\n"


# As a process


def test_help_loads_no_heavy_module():
    code = (
        "import sys; sys.argv = ['counterfoil', '--help']\n"
        "from counterfoil.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'aiokafka', 'faststream', 'asyncpg', 'litestar', 'pydantic', 'msgspec'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_module_runs_and_says_a_wrong_setting_without_a_traceback():
    environment = os.environ | {
        "COUNTERFOIL_HTTP_PORT": "many",
        "PYTHONPATH": os.pathsep.join(str(Path(p).absolute()) for p in sys.path if p),
    }
    ended = subprocess.run(
        [sys.executable, "-m", "counterfoil", "run"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("counterfoil: COUNTERFOIL_HTTP_PORT: ")
    assert ended.stderr.count("\n") == 1


def test_json_steers_no_terminal_and_is_the_same(capfd):
    """Also by the control characters of Latin-1, or by what turns the order of a line."""
    value = {"key": "\x1b[2J \x9b2J \u202e \u2028 \ud800 é 🎟"}
    cli._print_json(value)
    told = capfd.readouterr().out
    assert json.loads(told) == value
    assert [c for c in told if not c.isprintable() and c != "\n"] == []
    assert "é 🎟" in told
