"""The decision for an error, from its SQLSTATE."""

from __future__ import annotations

import asyncpg
import pytest

from counterfoil.errors import HaltingFailure, PoisonRecord, TransientFailure
from counterfoil.ingest.failures import classify


def of_state(state: str) -> asyncpg.PostgresError:
    return asyncpg.PostgresError.new({"C": state, "M": f"an error of state {state}", "S": "ERROR"})


TRANSIENT = [
    *("08000", "08001", "08003", "08004", "08006", "08007", "08P01"),
    *("40001", "40P01", "40003", "53000", "53100", "53200", "53300", "55P03", "57014"),
    *("57P01", "57P02", "57P03", "57P04", "57P05", "25006", "25P03", "58000", "58030"),
]
POISON = ["22001", "22003", "22007", "22021", "22P02", "22P05", "23502", "23503", "23505", "23514", "21000"]
HALTING = [
    "42P01",
    "42501",
    "42703",
    "42601",
    "28000",
    "28P01",
    "3D000",
    "3F000",
    "0A000",
    "XX000",
    "25P02",
    "55000",
]


@pytest.mark.parametrize(
    ("state", "decision"),
    [
        *((state, TransientFailure) for state in TRANSIENT),
        *((state, PoisonRecord) for state in POISON if state != "21000"),
        *((state, HaltingFailure) for state in HALTING),
    ],
)
def test_a_state_asks_for_its_decision(state, decision):
    failure = classify(of_state(state))
    assert type(failure) is decision
    assert str(failure).startswith(state)


@pytest.mark.parametrize(
    ("error", "decision"),
    [
        (ConnectionRefusedError("no"), TransientFailure),
        (ConnectionResetError("no"), TransientFailure),
        (TimeoutError(), TransientFailure),
        (OSError(28, "No space left on device"), TransientFailure),
        (EOFError(), TransientFailure),
        (asyncpg.InterfaceError("connection is closed"), TransientFailure),
        (asyncpg.InternalClientError("unexpected message"), TransientFailure),
        (asyncpg.ConnectionDoesNotExistError("gone"), TransientFailure),
        (asyncpg.TooManyConnectionsError("no"), TransientFailure),
        (asyncpg.DataError("invalid input for query argument $1"), PoisonRecord),
        (OverflowError("value out of int64 range"), PoisonRecord),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), PoisonRecord),
        (KeyError("a bug of ours"), HaltingFailure),
        (TypeError("a bug of ours"), HaltingFailure),
        (AssertionError(), HaltingFailure),
    ],
)
def test_an_error_without_a_state_asks_for_its_decision(error, decision):
    assert type(classify(error)) is decision


@pytest.mark.parametrize("decided", [TransientFailure("t"), PoisonRecord("p"), HaltingFailure("h")])
def test_what_is_decided_stays(decided):
    assert classify(decided) is decided


def test_a_refused_value_is_named_by_its_constraint_and_never_quoted():
    error = asyncpg.PostgresError.new(
        {
            "C": "23514",
            "M": 'new row violates "x"',
            "D": "Failing row contains (secret)",
            "n": "order_id_not_blank",
        }
    )
    assert str(classify(error)) == "23514 order_id_not_blank"
    assert str(classify(of_state("22P02"))) == "22P02 InvalidTextRepresentationError"


@pytest.mark.parametrize(
    ("constraint", "kind"), [("before_retention", "before_retention"), ("order_id_not_blank", "database")]
)
def test_a_record_that_is_older_than_its_ledger_is_parked_under_a_kind_of_its_own(constraint, kind):
    error = asyncpg.PostgresError.new({"C": "23514", "M": "refused", "n": constraint})
    assert classify(error).kind == kind
    assert classify(of_state("22003")).kind == "database"


def test_the_message_of_an_outage_stays_on_one_line():
    assert str(classify(OSError("first\nsecond\r\n third"))) == "OSError: first second third"
