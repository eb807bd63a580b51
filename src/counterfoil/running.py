"""Settings for a command: from the environment, and from the embedded parts that run in this data folder."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import structlog
from pydantic import SecretStr

from counterfoil.errors import InvalidSetting
from counterfoil.invocation import command
from counterfoil.settings import ROLES, Settings, load_settings

if TYPE_CHECKING:
    from counterfoil.embedded.parts import RunningParts

log = structlog.get_logger("counterfoil")

EMBEDDED_SESSION = timedelta(seconds=2)
"""The embedded broker takes three sessions to let a killed worker's partitions go."""


def command_settings() -> Settings:
    """The settings; addresses that are not set are those of the embedded parts running in the data folder, if any."""
    return completed(load_settings())


def completed(settings: Settings) -> Settings:
    """The settings with the addresses of the embedded parts that run in the data folder."""
    from counterfoil.embedded.parts import find_running  # noqa: PLC0415

    parts = find_running(settings.data_dir)
    return settings if parts is None else with_embedded(settings, parts)


def with_embedded(settings: Settings, parts: RunningParts) -> Settings:
    """The settings with the embedded parts' addresses wherever none is set."""
    found: dict[str, Any] = {}
    if settings.database_url is None:
        found["database_url"] = SecretStr(parts.database_url)
    if "kafka_bootstrap_servers" not in settings.model_fields_set:
        found["kafka_bootstrap_servers"] = parts.kafka_bootstrap_servers
        if "kafka_idempotence" not in settings.model_fields_set:
            found["kafka_idempotence"] = False  # the embedded broker hands out no producer ids
        if "kafka_session_timeout_ms" not in settings.model_fields_set:
            found["kafka_session_timeout_ms"] = EMBEDDED_SESSION
    return settings.model_copy(update=found)


def run_command(*, embedded: bool, only: str | None) -> None:
    """`counterfoil run`."""
    settings = load_settings(**({"embedded": True} if embedded else {}))
    roles = _roles(only)
    from counterfoil.app import run_worker  # noqa: PLC0415
    from counterfoil.telemetry.logging import configure_logging  # noqa: PLC0415

    configure_logging(settings.log_level, settings.log_format)
    watched = _what_is_watched(settings, roles)
    with _embedded_parts(settings) as effective:
        _check_database(effective)
        run_worker(effective, roles, lambda port: _announce(effective, port, watched))


@contextlib.contextmanager
def _embedded_parts(settings: Settings) -> Iterator[Settings]:
    if not settings.embedded:
        yield completed(settings)
        return
    from counterfoil.embedded.parts import EmbeddedParts  # noqa: PLC0415

    with EmbeddedParts(settings.data_dir) as parts:
        yield with_embedded(settings, parts.running)


def _check_database(settings: Settings) -> None:
    from counterfoil.database.pool import database_address  # noqa: PLC0415

    database_address(settings)


def _roles(only: str | None) -> tuple[str, ...]:
    if only is None:
        return ROLES
    roles = tuple(part.strip() for part in only.split(",") if part.strip())
    unknown = [role for role in roles if role not in ROLES]
    if unknown or not roles:
        raise InvalidSetting(
            f"--only: takes one or more of {', '.join(ROLES)}; not {', '.join(unknown) or 'none'}"
        )
    return roles


def _what_is_watched(settings: Settings, roles: Collection[str]) -> str:
    """How often what is low on stock is looked for, and how many are told of it; '' where this run does neither."""
    if not {"schedule", "notify"}.intersection(roles):
        return ""
    from counterfoil.notifications.channels import channels_of  # noqa: PLC0415

    every_s = settings.stock_scan_interval_s.total_seconds()
    return f"low-stock scan every {every_s:g} s, {len(channels_of(settings))} notifier(s)"


def _announce(settings: Settings, port: int, watched: str) -> None:
    """Say what is watched, and with embedded parts tell a person what to do next; otherwise the log has the address."""
    if watched:
        log.info("watching", what=watched)
    if not settings.embedded:
        return
    address = f"http://{settings.http_host}:{port}"
    token = " -H 'Authorization: Bearer …'" if settings.admin_token else ""
    counterfoil = command()
    print(
        f"""
  counterfoil is running; Ctrl-C stops it. In another terminal, from this folder:

  1. publish some orders       {counterfoil} publish order.placed docs/samples/orders.jsonl
  2. see what was counted      curl -s{token} {address}/admin/affiliate-coupons
  3. publish them once more    the counts stay as they are: every fact counts once
  4. have it proved            {counterfoil} verify

  pages    {address}/ops
  health   {address}/readyz
  metrics  {address}/metrics
""",
        flush=True,
    )
