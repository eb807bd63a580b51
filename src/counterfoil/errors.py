"""What can go wrong, one class for each decision.

CounterfoilError
├── InvalidEvent         a record that breaks an input rule: park it, go on
├── InvalidSetting       a wrong setting: one line, exit 2
├── DependencyUnreachable  Kafka or PostgreSQL cannot be reached: exit 3
├── SchemaMismatch       the database's schema is not ours, or not this version's: exit 2
├── TransientFailure     the database will be back: the same batch again
├── PoisonRecord         the database refuses a record's content: find it, park that one
├── HaltingFailure       our own fault or missing rights: stop loudly, park nothing
└── RequestError         an HTTP request that is refused, with its status
"""

from __future__ import annotations


class CounterfoilError(Exception):
    """Base of all errors that counterfoil raises on purpose."""


class InvalidEvent(CounterfoilError):
    """A record breaks an input rule: `kind` is a constant, `field` a JSON path or '', `rule` what the field takes."""

    def __init__(self, kind: str, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}" if field else rule)
        self.kind = kind
        self.field = field
        self.rule = rule


class InvalidSetting(CounterfoilError):
    """A setting has a value it does not take; the message is one line that names the variable."""


class DependencyUnreachable(CounterfoilError):
    """Kafka or PostgreSQL did not answer; the message names which, where, and why."""


class SchemaMismatch(CounterfoilError):
    """The database holds tables or migrations that are not ours; the message says which and what to do."""


class TransientFailure(CounterfoilError):
    """The database cannot take the batch now; the same batch is due again."""


class PoisonRecord(CounterfoilError):
    """The database refuses what a record says; `kind` is what it is parked as.

    `sources` names the records that are refused, where that is known: (source id, offset) of each.
    """

    def __init__(
        self, reason: str, kind: str = "database", sources: frozenset[tuple[int, int]] = frozenset()
    ) -> None:
        super().__init__(reason)
        self.kind = kind
        self.sources = sources


class HaltingFailure(CounterfoilError):
    """Something only a person can mend: a missing table, a missing right, a bug of ours."""


class RequestError(CounterfoilError):
    """An HTTP request is refused with `status`; `detail` is for the caller and holds no secret."""

    def __init__(self, status: int, detail: str, **extra: object) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.extra = extra
