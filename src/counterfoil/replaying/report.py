"""What a replay came to, as plain values: for `--json`, for the table at the end, for whoever asks later."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from counterfoil.replaying.checking import Findings, Found

COUNTS = ("read", "applied", "already_there", "malformed", "missing", "differs")
"""What is shown of each topic, whatever the mode."""

MORE_COUNTS = ("not_parked", "unread", "overwritten", "released", "passed_over")
"""What is shown where there is any: the last is no record, or out of the window."""


@dataclass
class Report:
    """One replay's result; `topics` have COUNTS and MORE_COUNTS each."""

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

    def take_findings(self, findings: Findings) -> None:
        """What a check has found."""
        self.missing += findings.missing
        self.differs += findings.differs
        self.malformed += findings.malformed
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
