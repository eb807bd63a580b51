"""What would have been earned under other rules, which hold in a shadow alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from counterfoil.database.connection import Connection
from counterfoil.database.queries import sql
from counterfoil.errors import InvalidSetting
from counterfoil.replaying.compared import Compared
from counterfoil.settings import CodeCase, Settings

TAKES = (
    "commission_percent=12, commission_percent:PROGRAM=12, attribute_by_coupon=true, default_currency=EUR "
    "or code_case=upper"
)

EARNINGS = Compared("earnings", ("order_id", "currency"), ("earnings",), rows="compared_earnings")
"""By which the orders are counted that would have come to something else."""


@dataclass(frozen=True)
class OtherRules:
    """What is asked for; `program_percents` is by the id or the base domain of a program."""

    commission_percent: Decimal | None = None
    program_percents: Mapping[str, Decimal] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def settings_of(self, settings: Settings) -> Settings:
        """The settings that the shadow is built with."""
        return settings.model_copy(update=dict(self.settings))

    async def amendments(self, live: Connection) -> dict[str, list[str]]:
        """What is done to the rows that are taken over, by table; raises InvalidSetting for an unknown program."""
        found: dict[str, list[str]] = {"program_rates": [], "default_rates": []}
        if self.commission_percent is not None:
            found["program_rates"] = ["DELETE FROM pg_temp.taken"]
            found["default_rates"] = ["DELETE FROM pg_temp.taken", _default_rate(self.commission_percent)]
        for name, percent in self.program_percents.items():
            program = await live.fetchval(sql("find_program_by_name"), name)
            if program is None:
                raise InvalidSetting(f"--with commission_percent:{name}: there is no such program")
            found["program_rates"] += _program_rate(program, percent)
        if self.settings.get("attribute_by_coupon") is False:
            found["order_totals"] = ["DELETE FROM pg_temp.taken"]
        if self.settings.get("code_case") == CodeCase.UPPER:
            found["affiliate_coupon_owners"] = list(_UPPER_CASE_OWNERS)
        return found


_UPPER_CASE_OWNERS = (
    """DELETE FROM pg_temp.taken AS t USING pg_temp.taken AS k
       WHERE upper(k.code) = upper(t.code) AND (k.assigned_at, k.code) < (t.assigned_at, t.code)""",
    "UPDATE pg_temp.taken SET code = upper(code)",
)


def _default_rate(percent: Decimal) -> str:
    return f"INSERT INTO pg_temp.taken VALUES (1, {percent}, '2000-01-01Z', 'what if')"  # noqa: S608 - a number


def _program_rate(program: str, percent: Decimal) -> list[str]:
    name = "'" + program.replace("'", "''") + "'"
    return [
        f"DELETE FROM pg_temp.taken WHERE program_id = {name}",  # noqa: S608 - quoted above
        "INSERT INTO pg_temp.taken SELECT coalesce(min(id), 0) - 1, "  # noqa: S608 - quoted above
        f"{name}, {percent}, 'what if', '2000-01-01Z', 'what if' FROM pg_temp.taken WHERE id < 0",
    ]


def parse_rules(texts: Sequence[str]) -> OtherRules | None:
    """The rules that `--with` names, None where it names none; raises InvalidSetting in one line."""
    if not texts:
        return None
    percent: Decimal | None = None
    programs: dict[str, Decimal] = {}
    settings: dict[str, Any] = {}
    for text in texts:
        name, is_given, value = text.partition("=")
        rule, has_program, program = name.strip().partition(":")
        if not is_given or (has_program and (rule != "commission_percent" or not program)):
            raise InvalidSetting(f"--with {text}: takes {TAKES}")
        if rule != "commission_percent":
            settings[rule] = _setting(text, rule, value.strip())
        elif has_program:
            programs[program] = _percent(text, value)
        else:
            percent = _percent(text, value)
    return OtherRules(percent, programs, settings)


def _percent(text: str, value: str) -> Decimal:
    try:
        percent = Decimal(value.strip())
    except InvalidOperation:
        percent = Decimal(-1)
    if not (percent.is_finite() and 0 <= percent <= 100 and round(percent, 6) == percent):
        raise InvalidSetting(f"--with {text}: takes a percentage from 0 to 100 with 6 decimals at most")
    return percent


def _setting(text: str, name: str, value: str) -> Any:
    if name == "attribute_by_coupon" and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    if (
        name == "default_currency"
        and len(value) == 3
        and value.isascii()
        and value.isalpha()
        and value.isupper()
    ):
        return value
    if name == "code_case" and value.lower() in set(CodeCase):
        return CodeCase(value.lower())
    raise InvalidSetting(f"--with {text}: takes {TAKES}")


class Earning(NamedTuple):
    """What somebody has earned in a currency, and would have; named is a partner, or else a pixel or a link."""

    kind: str
    name: str
    currency: str
    earned: Decimal
    would_have_earned: Decimal

    @property
    def difference(self) -> Decimal:
        """How much more that is."""
        return self.would_have_earned - self.earned

    @property
    def amounts(self) -> tuple[Decimal, Decimal, Decimal]:
        """All three with the same decimals: earned, would have been, and the difference."""
        as_fine = self.difference
        return self.earned.quantize(as_fine), self.would_have_earned.quantize(as_fine), as_fine


async def compare_earnings(live: Connection, shadow: Connection) -> list[Earning]:
    """What everybody has earned and would have, those of the largest difference first within a currency."""
    sides = [await _earnings(connection) for connection in (live, shadow)]
    found = [
        Earning(*who, *(side.get(who, Decimal(0)) for side in sides))
        for who in sides[0].keys() | sides[1].keys()
    ]
    return sorted(found, key=lambda e: (e.currency, -abs(e.difference), e.kind, e.name))


def totals_of(earnings: Sequence[Earning]) -> list[Earning]:
    """The same of everybody together, by currency."""
    found: dict[str, Earning] = {}
    for earning in earnings:
        sum_ = found.get(earning.currency, Earning("all", "", earning.currency, Decimal(0), Decimal(0)))
        found[earning.currency] = sum_._replace(
            earned=sum_.earned + earning.earned,
            would_have_earned=sum_.would_have_earned + earning.would_have_earned,
        )
    return [found[currency] for currency in sorted(found)]


async def _earnings(connection: Connection) -> dict[tuple[str, str, str], Decimal]:
    found: dict[tuple[str, str, str], Decimal] = {}
    for row in await connection.fetch(sql("earnings_by_partner")):
        who = ("partner", row["partner_id"]) if row["partner_id"] else _kind_and_name(row["beneficiary"])
        if row["earnings"]:
            found[*who, row["currency"]] = row["earnings"]
    return found


def _kind_and_name(beneficiary: str) -> tuple[str, str]:
    kind, colon, name = beneficiary.partition(":")
    return (kind, name) if colon else ("other", beneficiary)
