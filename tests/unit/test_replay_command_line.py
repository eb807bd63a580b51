"""`replay` and `export`: what is asked for wrongly is one line that names the option and its rule, and exit code 2."""

from __future__ import annotations

import io
import os
import sys

import pytest

from counterfoil import cli
from counterfoil.settings import DEFAULT_TOPICS, PREFIX

NOBODY_LISTENS = "postgres://shop:s3cret@127.0.0.1:1/shop"


@pytest.fixture
def run(monkeypatch, capfd, tmp_path):
    """Run `counterfoil …` in this process: exit code, standard output, standard error."""
    for name in os.environ:
        if name.upper().startswith(PREFIX) or name.upper().endswith("DATABASE_URL"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def run(*arguments, **settings):
        given = {"database_url": NOBODY_LISTENS, "kafka_bootstrap_servers": "127.0.0.1:1"} | settings
        for name, value in given.items():
            monkeypatch.setenv(f"{PREFIX}{name.upper()}", value)
        monkeypatch.setattr(sys, "argv", ["counterfoil", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
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


KNOWN = ", ".join(DEFAULT_TOPICS)
OFFSETS = "takes one TOPIC and one --partition beside it"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", f"TOPIC: takes one or more of {KNOWN}; or say --all"),
        ("click --all", "--all: takes no topics beside it"),
        ("click order.shipped", f"order.shipped: no such topic; takes one of {KNOWN}"),
        ("click --mode fix", "--mode: takes check, apply or shadow; not fix"),
        ("click --overwrite", "--overwrite: goes with --mode apply, not check"),
        ("click --with-alerts", "--with-alerts: goes with --mode apply, not check"),
        ("click --mode shadow --overwrite", "--overwrite: goes with --mode apply, not shadow"),
        ("click --mode apply --with commission_percent=12", "--with: goes with --mode shadow, not apply"),
        ("click --mode apply --keep", "--keep: goes with --mode shadow, not apply"),
        ("click --restart", "--restart: goes with --mode apply or shadow: a check begins anew each time"),
        ("click --from 2026-03-02 --to 2026-03-01", "--from: takes a time before that of --to"),
        ("click --from 2026-03-01 --to 2026-03-01T00:00:00Z", "--from: takes a time before that of --to"),
        ("click --from-offset 5", f"--from-offset: {OFFSETS}"),
        ("click scan --partition 0 --to-offset 5", f"--to-offset: {OFFSETS}"),
        ("--all --partition 0 --to-offset 5", f"--to-offset: {OFFSETS}"),
        ("click --partition 0 --partition 1 --to-offset 5", f"--to-offset: {OFFSETS}"),
        (
            "click --partition 0 --from-offset 5 --to-offset 5",
            "--from-offset: takes an offset before that of --to-offset, which is not read",
        ),
    ],
)
def test_a_wrong_replay_is_one_line_and_exit_code_2(run, arguments, message):
    assert run("replay", *arguments.split()) == (2, "", f"counterfoil: {message}\n")


@pytest.mark.parametrize("option", ["--from", "--to"])
def test_a_time_without_zone_is_refused(run, option):
    code, output, errors = run("replay", "click", option, "2026-03-01T12:00")
    assert (code, output) == (2, "")
    assert errors.startswith(
        f"counterfoil: {option}: takes a time with its zone, such as 2026-03-01T12:00:00Z, or "
    )


@pytest.mark.parametrize(
    "arguments", ["click --max-rate 0", "click --partition -1", "click --from-offset x", "click --limit -1"]
)
def test_a_number_out_of_its_bounds_is_exit_code_2(run, arguments):
    assert run("replay", *arguments.split())[0] == 2


def test_a_topic_may_be_named_as_it_is_called_here(run):
    code, _, errors = run("replay", "shop.orders", topic_order_placed="shop.orders")
    assert (code, errors.count("\n")) == (3, 1)


def test_a_database_that_does_not_answer_is_one_line_and_exit_code_3(run):
    code, output, errors = run("replay", "click")
    assert (code, output, errors.count("\n")) == (3, "", 1)
    assert errors.startswith("counterfoil: PostgreSQL at postgres://shop:•••@127.0.0.1:1/shop: ")


def test_no_database_set_is_one_line_and_exit_code_2(run):
    code, _, errors = run("replay", "click", database_url="")
    assert (code, errors.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("order.shipped", f"order.shipped: no such topic; takes one of {KNOWN}"),
        ("click --from-offset 5", f"--from-offset: {OFFSETS}"),
        ("click --json", "--json: goes with --output, as the records themselves go to standard output"),
    ],
)
def test_a_wrong_export_is_one_line_and_exit_code_2(run, arguments, message):
    assert run("export", *arguments.split()) == (2, "", f"counterfoil: {message}\n")


def test_an_export_needs_no_database_and_without_kafka_is_exit_code_3(run, tmp_path):
    code, output, errors = run("export", "click", "--output", "clicks.jsonl", database_url="")
    assert (code, output, errors.count("\n")) == (3, "", 1)
    assert errors.startswith("counterfoil: Kafka at 127.0.0.1:1: ")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_one_line(run):
    assert run("export", "click", "--output", "nowhere/clicks.jsonl") == (
        2,
        "",
        "counterfoil: nowhere/clicks.jsonl: No such file or directory\n",
    )


@pytest.mark.parametrize("command", ["replay", "export"])
def test_both_have_help(run, command):
    code, output, _ = run(command, "--help")
    assert code == 0
    assert f"Usage: counterfoil {command}" in output
