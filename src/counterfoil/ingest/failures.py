"""Which decision a failed transaction asks for, from its SQLSTATE."""

from __future__ import annotations

import asyncpg

from counterfoil.database.pool import one_line
from counterfoil.errors import HaltingFailure, PoisonRecord, TransientFailure

TRANSIENT_CLASSES = ("08", "40", "53", "58")
TRANSIENT_STATES = frozenset(
    {"55P03", "57014", "57P01", "57P02", "57P03", "57P04", "57P05", "25006", "25P03"}
)
POISON_CLASSES = ("22", "23")

OUR_OWN_CONSTRAINTS = frozenset({"account_closes", "account_not_negative"})
"""What only a bug of ours can violate, whatever the record says."""

REFUSALS_WITH_A_KIND = frozenset({"before_retention"})
"""Constraints that refuse what is right in itself: such a record is parked under their name."""

ENCODING_ERRORS = (asyncpg.DataError, OverflowError, UnicodeError)
"""What asyncpg raises for a value that it cannot send."""


def retry_reason(failure: BaseException | None) -> str:
    """The class of a transient failure's SQLSTATE, or `connection`, for a metric's label."""
    state = str(failure).partition(" ")[0]
    return state[:2] if len(state) == 5 and state[:2].isdigit() else "connection"


Failure = TransientFailure | PoisonRecord | HaltingFailure


def classify(error: Exception) -> Failure:
    """The decision for an error out of a batch's transaction, as an exception to raise from it."""
    if isinstance(error, TransientFailure | PoisonRecord | HaltingFailure):
        return error
    state = getattr(error, "sqlstate", None)
    if isinstance(error, asyncpg.PostgresError) and state:
        return _by_state(state, error)
    if isinstance(error, ENCODING_ERRORS):
        return PoisonRecord(one_line(error))
    if isinstance(
        error, OSError | TimeoutError | EOFError | asyncpg.InterfaceError | asyncpg.InternalClientError
    ):
        return TransientFailure(one_line(error))
    return HaltingFailure(one_line(error))


def _by_state(state: str, error: asyncpg.PostgresError) -> Failure:
    if state.startswith(TRANSIENT_CLASSES) or state in TRANSIENT_STATES:
        return TransientFailure(f"{state} {one_line(error)}")
    constraint = getattr(error, "constraint_name", None)
    if state.startswith(POISON_CLASSES) and constraint not in OUR_OWN_CONSTRAINTS:
        # the message of these classes may quote values; the constraint's name does not
        kind = constraint if constraint in REFUSALS_WITH_A_KIND else "database"
        return PoisonRecord(f"{state} {constraint or type(error).__name__}", kind)
    return HaltingFailure(f"{state} {one_line(error)}")
