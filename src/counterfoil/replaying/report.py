"""What a replay came to, as plain values: for `--json`, for the table at the end, for whoever asks later."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from counterfoil.replaying.checking import Findings, Found

COUNTS = ("read", "applied", "already_there", "malformed", "missing", "differs")
"""What is shown of each topic, whatever the mode."""

MORE_COUNTS = ("not_parked", "unread", "overwritten", "released", "passed_over")
"""What is shown where there is any: the last is no record, or out of the window."""


@dataclass
class Report:
    """One replay's result; `topics` have COUNTS and MORE_COUNTS each.

    `identities` are by topic and verdict the numbers of the rows that are missing or differ: of two reports' rows, they
    tell which are the same.
    """

    mode: str
    window: dict[str, Any]
    topics: list[dict[str, Any]] = field(default_factory=list)
    missing: list[dict[str, Any]] = field(default_factory=list)
    differs: list[dict[str, Any]] = field(default_factory=list)
    malformed: list[dict[str, Any]] = field(default_factory=list)
    kinds: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    replays: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    identities: dict[tuple[str, str], array[int]] = field(default_factory=dict)
    _told: set[int] = field(default_factory=set)

    @property
    def totals(self) -> dict[str, int]:
        """The counts of all topics together."""
        return {name: sum(topic[name] for topic in self.topics) for name in (*COUNTS, *MORE_COUNTS)}

    @property
    def found(self) -> bool:
        """Whether something is not as the log says: malformed records alone are as they should be."""
        totals = self.totals
        return bool(totals["missing"] or totals["differs"] or totals["not_parked"])

    @property
    def rate(self) -> float:
        """Records in a second."""
        return self.totals["read"] / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        resumed = [replay for replay in self.replays if replay["resumed_from"]]
        return {
            "mode": self.mode,
            "window": self.window,
            "topics": self.topics,
            "totals": self.totals,
            "missing": self.missing,
            "differs": self.differs,
            "malformed": self.malformed,
            "malformed_kinds": self.kinds,
            "notes": self.notes,
            "seconds": round(self.seconds, 3),
            "rate": round(self.rate, 1),
            "resumed": bool(resumed),
            "replay_id": self.replays[0]["id"] if self.replays else None,
            "replays": self.replays,
        }

    # Filling it in

    def take_topics(self, topics: Iterable[str]) -> None:
        """Topics of which nothing is read yet."""
        for topic in topics:
            self._add(topic, {})

    def take_part(
        self, part: Mapping[str, Any], identities: Iterable[tuple[str, str, Iterable[int]]]
    ) -> None:
        """What one of several processes came to, as a dict; a row that another has told of counts once.

        `identities` are its rows: topic, verdict and their numbers.
        """
        for topic in part["topics"]:
            self._add(topic["topic"], {name: topic[name] for name in (*COUNTS, *MORE_COUNTS)})
        for topic, verdict, numbers in identities:
            rows = set(numbers)
            self._add(topic, {verdict: -len(rows & self._told)})
            self._told |= rows
        for name in ("missing", "differs", "malformed", "kinds", "notes", "replays"):
            getattr(self, name).extend(part["malformed_kinds" if name == "kinds" else name])

    def put_in_order(self, limit: int) -> None:
        """After the last part: no double, all sorted, and so many rows of each list at most."""
        self.topics.sort(key=lambda topic: topic["topic"])
        self.notes = list(dict.fromkeys(self.notes))
        kinds = Counter[tuple[str, str]]()
        for kind in self.kinds:
            kinds[kind["topic"], kind["kind"]] += kind["records"]
        self.kinds = [
            {"topic": topic, "kind": kind, "records": count} for (topic, kind), count in sorted(kinds.items())
        ]
        for rows in (self.missing, self.differs, self.malformed):
            first: dict[tuple[object, ...], dict[str, Any]] = {}
            for row in sorted(rows, key=_place):
                first.setdefault(_name(row), row)
            rows[:] = list(first.values())[:limit]

    def take_findings(self, findings: Findings) -> None:
        """What a check has found."""
        self.missing += findings.missing
        self.differs += findings.differs
        self.malformed += findings.malformed
        self.identities |= findings.identities
        for topic, found in sorted(findings.topics.items()):
            self._add(topic, _counts_of(found))
            self.kinds += [
                {"topic": topic, "kind": kind, "records": count}
                for kind, count in sorted(found.kinds.items())
            ]

    def take_accounts(self, rows: Iterable[Any]) -> None:
        """What the accounts of a replay that writes say, by topic."""
        for row in rows:
            self._add(
                row["topic"],
                {
                    "read": row["read"],
                    "applied": row["applied"],
                    "already_there": row["duplicates"],
                    "malformed": row["dead"],
                    "overwritten": row["overwritten"],
                    "released": row["released"],
                    "passed_over": row["passed_over"],
                },
            )

    def _add(self, topic: str, counts: dict[str, int]) -> None:
        """Count for a topic, which may be of several clusters."""
        for known in self.topics:
            if known["topic"] == topic:
                break
        else:
            known = {"topic": topic, **dict.fromkeys((*COUNTS, *MORE_COUNTS), 0)}
            self.topics.append(known)
        for name, count in counts.items():
            known[name] += count


def _place(row: Mapping[str, Any]) -> tuple[str, int, int]:
    return row["topic"], row["partition"], row["offset"]


def _name(row: Mapping[str, Any]) -> tuple[object, ...]:
    """What a row is the same by: a ledger's key, or a record that is malformed."""
    return (row["table"], *map(str, row["key"])) if "table" in row else _place(row)


def _counts_of(found: Found) -> dict[str, int]:
    return {
        "read": found.read,
        "already_there": found.already_there,
        "malformed": found.malformed,
        "missing": found.missing,
        "differs": found.differs,
        "not_parked": found.not_parked,
        "unread": found.unread,
    }
