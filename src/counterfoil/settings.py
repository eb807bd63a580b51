"""The settings: environment variables with the prefix COUNTERFOIL_, and `.env`.

Made once, in `app.py` or a command, and passed on; nothing imports an instance.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit, urlunsplit

from dotenv import dotenv_values
from pydantic import (
    AliasChoices,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from counterfoil.errors import InvalidSetting

PREFIX = "COUNTERFOIL_"
DOTENV = ".env"

DEFAULT_TOPICS = (
    "order.placed",
    "order.canceled",
    "order.refunded",
    "click",
    "conversion",
    "user.created",
    "link.created",
    "voucher.created",
    "impression",
    "scan",
    "claim",
    "redemption",
    "stock-change",
)
"""The topics a worker knows, by their default names."""

OUTGOING_TOPICS = ("voucher-alert", "low-stock")
"""The topics that the relay publishes to, by their default names."""

ROLES = ("ingest", "notify", "relay", "schedule", "http")


class CodeCase(StrEnum):
    """Whether a code's letters are kept or raised."""

    KEEP = "keep"
    UPPER = "upper"


class IpPolicy(StrEnum):
    """What is kept of a visitor's address."""

    TRUNCATE = "truncate"
    FULL = "full"
    HASH = "hash"
    DROP = "drop"


class AlertPolicy(StrEnum):
    """When a product that is low is told of: once a cooldown for each level of its stock, or by its episodes."""

    LEVEL = "level"
    EPISODE = "episode"


DATABASE_VARIABLES = (f"{PREFIX}DATABASE_URL", "DRIZZLE_DATABASE_URL", "DATABASE_URL")
"""Where the database's address is looked for, the first choice first."""

ALSO_WITHOUT_PREFIX = (
    "slack_webhook_url",
    "smtp_host",
    "smtp_port",
    "smtp_user",
    "smtp_pass",
    "mail_from",
    "email_to",
)
"""Settings that many programs share; the variable with the prefix wins."""


def _is_postgres_address(address: str) -> bool:
    try:
        parts = urlsplit(address)
        _ = parts.port  # raises for one that is no number
    except ValueError:
        return False
    return parts.scheme in {"postgres", "postgresql"}


def _ends_its_password(address: str) -> bool:
    """False where a / ? or # of an unescaped password was read as the end of the host, and its rest as what follows."""
    parts = urlsplit(address)
    names = [pair.partition("=")[0] for pair in parts.query.split("&")]
    return not any("@" in part for part in (parts.path, parts.fragment, *names))


def _is_web_address(address: str) -> bool:
    try:
        parts = urlsplit(address)
        _ = parts.port  # raises for one that is no number
    except ValueError:
        return False
    is_plain = re.fullmatch(r"[\x21-\x7e]+", address) is not None
    return is_plain and parts.scheme in {"http", "https"} and bool(parts.hostname)


def host_name(text: str) -> str | None:
    """A host's name as it is looked up, in lower case and ASCII, or an address; None for what is neither."""
    name = text.strip().removeprefix("[").removesuffix("]").removesuffix(".").lower()
    if not name.isascii():
        import idna  # noqa: PLC0415 - its tables take time, and few names need them

        try:
            name = idna.encode(name, uts46=True).decode()
        except idna.IDNAError:
            return None
    return name if len(name) <= 253 and (_HOST_NAME(name) or _is_address(name)) else None


def mail_address(text: str) -> str | None:
    """A mail address whose host is in lower case and ASCII; None for what is none, or could be an encoded word."""
    local, _, host = text.strip().rpartition("@")
    name = host_name(host)
    is_mailbox = _MAILBOX(local) and len(local) <= 64 and _ENCODED_WORD not in local
    if not is_mailbox or name is None or not _HOST_NAME(name):
        return None
    return f"{local}@{name}"


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text


_HOST_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*").fullmatch
_MAILBOX = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*").fullmatch


_ENCODED_WORD = "=?"
"""How words begin that a mail's header is decoded from: anything may come out of them, line breaks too."""

_SENDER = re.compile(r'"?(?P<name>[^<>"]*?)"?\s*<(?P<address>[^<>]+)>|(?P<bare>[^<>]+)').fullmatch


def _without_service_links(given: Mapping[str, str | None]) -> dict[str, str | None]:
    """The variables without what Kubernetes sets for a service called smtp: its SMTP_PORT is an address."""
    has_host = any(value and name.upper() in variables_of("smtp_host") for name, value in given.items())
    return {
        name: value
        for name, value in given.items()
        if has_host or name.lower() != "smtp_port" or not (value or "").startswith("tcp://")
    }


def _comma_separated(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _seconds(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"\d{1,10}(\.\d+)?", value.strip()):
        return timedelta(seconds=float(value))
    return value


def _milliseconds(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"\d{1,13}", value.strip()):
        return timedelta(milliseconds=int(value))
    return value


Seconds = Annotated[timedelta, BeforeValidator(_seconds)]
Milliseconds = Annotated[timedelta, BeforeValidator(_milliseconds)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_separated)]


def variables_of(name: str) -> tuple[str, ...]:
    """The variables that a setting is read from, the first choice first."""
    if name == "database_url":
        return DATABASE_VARIABLES
    own = f"{PREFIX}{name.upper()}"
    return (own, name.upper()) if name in ALSO_WITHOUT_PREFIX else (own,)


def _shared(name: str) -> AliasChoices:
    return AliasChoices(*variables_of(name), name)


def _topic(name: str) -> Any:
    return Field(
        default=name,
        min_length=1,
        max_length=249,
        pattern=r"^[A-Za-z0-9._-]+$",
        description=f"the topic of `{name}` events",
    )


class Settings(BaseSettings):
    """What a worker or a command runs with; each field's description is its documentation."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=DOTENV,
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    # Where things are
    database_url: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices(*DATABASE_VARIABLES, "database_url"),
        description="PostgreSQL 15 or later, as postgres://user:password@host:port/database",
    )
    migrate_database_url: SecretStr | None = Field(
        default=None, description="the migrator role's address, when it is not the worker's"
    )
    db_schema: str = Field(
        default="public",
        pattern=r"^[a-z_][a-z0-9_]{0,62}$",
        description="the schema that holds every table",
    )
    data_dir: Path = Field(default=Path(".counterfoil"), description="where embedded parts keep their files")
    embedded: bool = Field(default=False, description="start PostgreSQL and a Kafka broker from wheels")

    # Kafka
    kafka_bootstrap_servers: str = Field(
        default="localhost:9092", min_length=1, description="host:port, separated by commas"
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="how to talk to Kafka"
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="PLAIN", description="for the SASL protocols"
    )
    kafka_sasl_username: str | None = Field(default=None, description="for the SASL protocols")
    kafka_sasl_password: SecretStr | None = Field(default=None, description="for the SASL protocols")
    kafka_ssl_cafile: Path | None = Field(default=None, description="the certificate authority's PEM file")
    kafka_ssl_certfile: Path | None = Field(default=None, description="our certificate's PEM file")
    kafka_ssl_keyfile: Path | None = Field(default=None, description="our key's PEM file")
    kafka_ssl_password: SecretStr | None = Field(default=None, description="the key file's password")
    kafka_session_timeout_ms: Milliseconds = Field(
        default=timedelta(seconds=10),
        ge=timedelta(milliseconds=500),
        description="how long Kafka waits for a silent worker before it hands on its partitions",
    )
    kafka_idempotence: bool = Field(
        default=True, description="publish with an idempotent producer; the embedded broker knows none"
    )
    consumer_group: str = Field(
        default="counterfoil",
        min_length=1,
        max_length=255,
        description="the consumer group of this deployment",
    )
    consumers: Names = Field(
        default=DEFAULT_TOPICS,
        description="which topics this worker reads, by default name: the feature switch",
    )
    topic_order_placed: str = _topic("order.placed")
    topic_order_canceled: str = _topic("order.canceled")
    topic_order_refunded: str = _topic("order.refunded")
    topic_click: str = _topic("click")
    topic_conversion: str = _topic("conversion")
    topic_user_created: str = _topic("user.created")
    topic_link_created: str = _topic("link.created")
    topic_voucher_created: str = _topic("voucher.created")
    topic_impression: str = _topic("impression")
    topic_scan: str = _topic("scan")
    topic_claim: str = _topic("claim")
    topic_redemption: str = _topic("redemption")
    topic_stock_change: str = _topic("stock-change")
    topic_voucher_alert: str = _topic("voucher-alert")
    topic_low_stock: str = _topic("low-stock")
    topic_partitions: int = Field(
        default=6, ge=1, le=10_000, description="partitions of a topic that we create"
    )

    # The road of a record
    batch_max_records: int = Field(
        default=5_000, ge=1, le=50_000, description="records of one database transaction, at most"
    )
    batch_max_wait_ms: Milliseconds = Field(
        default=timedelta(milliseconds=20),
        ge=timedelta(milliseconds=1),
        le=timedelta(milliseconds=100),
        description="how long a poll waits for records",
    )
    breaker_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="share of malformed among a topic's last 1,000 records that pauses it; 1 is off",
    )
    max_event_bytes: int = Field(default=1_048_576, ge=1, description="a longer record is parked")
    dlq_topics: bool = Field(
        default=False, description="publish a copy of each record that is parked from now on, to <topic>.dlq"
    )
    dead_letter_retention_days: int | None = Field(
        default=None,
        ge=1,
        le=36_500,
        description="delete dead letters that were resolved longer ago, never open ones; off unless set",
    )
    code_case: CodeCase = Field(default=CodeCase.KEEP, description="keep codes as they come, or upper")
    default_currency: str = Field(
        default="USD", pattern=r"^[A-Z]{3}$", description="the currency of an amount that names none"
    )

    # Affiliates and partners
    ip_policy: IpPolicy = Field(
        default=IpPolicy.TRUNCATE,
        description="what is kept of a visitor's address: its network (/24, /48), all, a keyed hash, or nothing",
    )
    visitor_hash_key: SecretStr | None = Field(
        default=None,
        min_length=1,
        description="the secret that visitors are hashed with; without it one is made and kept in the database",
    )
    attribute_by_coupon: bool = Field(
        default=False,
        description="attribute an order without conversion to the affiliate whose coupon it used",
    )
    commission_rate_url: str | None = Field(
        default=None,
        description="where a program's rate is asked for, http(s); {domain} stands for its base domain",
    )
    commission_rate_refresh_s: Seconds = Field(
        default=timedelta(days=1),
        ge=timedelta(seconds=1),
        description="how old a program's rate may be before it is asked for again",
    )
    default_commission_percent: Decimal = Field(
        default=Decimal(0),
        ge=0,
        le=100,
        decimal_places=6,
        description="the commission where neither the conversion nor its program says one, in percent",
    )
    commission_hold_days: int = Field(
        default=30, ge=0, le=36_500, description="how many days after the sale a commission may be approved"
    )
    retention_days_clicks: int | None = Field(
        default=None,
        ge=1,
        le=36_500,
        description="drop clicks that are older, once their counts are moved; off unless set",
    )

    # Vouchers
    retention_days_scans: int | None = Field(
        default=None,
        ge=1,
        le=36_500,
        description="drop scans that are older, once their counts are moved; off unless set",
    )

    # Watching vouchers; a limit of 0 is off
    voucher_scan_window_s: Seconds = Field(
        default=timedelta(minutes=5),
        ge=timedelta(minutes=1),
        le=timedelta(hours=1),
        description="the stretch of time whose scans are counted and compared with what is usual",
    )
    voucher_scan_rate_factor: float = Field(
        default=10,
        ge=1,
        le=1_000_000,
        description="how many times what is usual raises a scan-rate alert",
    )
    voucher_scan_rate_min: int = Field(
        default=100, ge=0, description="fewer scans of a voucher in a window raise nothing"
    )
    voucher_device_scan_rate_min: int = Field(
        default=30, ge=0, description="fewer scans by a device in a window raise nothing"
    )
    voucher_address_scan_rate_min: int = Field(
        default=100,
        ge=0,
        description="fewer scans from an address in a window raise nothing; by default an address is a network",
    )
    voucher_scan_rate_ceiling: int = Field(
        default=0,
        ge=0,
        description="scans in a window that raise an alert where nothing is known yet to compare them with",
    )
    voucher_failed_redemptions_limit: int = Field(
        default=10,
        ge=0,
        description="failed redemptions of a voucher within their window that raise an alert",
    )
    voucher_failed_redemptions_window_s: Seconds = Field(
        default=timedelta(minutes=15),
        ge=timedelta(minutes=1),
        le=timedelta(days=1),
        description="the stretch of time whose failed redemptions are counted",
    )
    voucher_low_conversion_limit: float = Field(
        default=0.01, ge=0, le=1, description="claims for each scan: a lower share raises an alert"
    )
    voucher_low_conversion_days: int = Field(
        default=7, ge=1, le=366, description="over how many days (UTC, with today) the share is taken"
    )
    voucher_low_conversion_min_scans: int = Field(
        default=1_000, ge=1, description="with fewer scans in these days the share says nothing"
    )

    # Inventory
    default_stock_threshold: int = Field(
        default=10, ge=0, le=2_147_483_647, description="the threshold of a product that nobody named one for"
    )
    stock_scan_interval_s: Seconds = Field(
        default=timedelta(seconds=60),
        ge=timedelta(seconds=1),
        le=timedelta(days=1),
        description="how often one of the workers looks for what is low on stock",
    )
    retention_days_stock: int | None = Field(
        default=None,
        ge=1,
        le=36_500,
        description="drop stock changes that are older, once their stock is moved; off unless set",
    )

    # Alerts
    alert_policy: AlertPolicy = Field(
        default=AlertPolicy.LEVEL,
        description="tell of low stock once a cooldown for each level, or by episode: low, halved, zero, recovered",
    )
    alert_cooldown_s: Seconds = Field(
        default=timedelta(minutes=5),
        ge=timedelta(0),
        le=timedelta(days=7),
        description="how long the same cause is not told again, by all workers together",
    )
    alert_max_age_s: Seconds = Field(
        default=timedelta(hours=1),
        gt=timedelta(0),
        description="what is older raises no alert",
    )

    # Telling of alerts; the variables of Slack and mail are read without the prefix as well
    slack_webhook_url: SecretStr | None = Field(
        default=None,
        validation_alias=_shared("slack_webhook_url"),
        description="where alerts are posted to, an incoming webhook of Slack or one like it",
    )
    smtp_host: str | None = Field(
        default=None,
        validation_alias=_shared("smtp_host"),
        description="the server that takes alerts as mail",
    )
    smtp_port: int = Field(
        default=587,
        ge=1,
        le=65_535,
        validation_alias=_shared("smtp_port"),
        description="its port; 465 speaks TLS from the start, others change to it where it is offered",
    )
    smtp_user: str | None = Field(
        default=None, validation_alias=_shared("smtp_user"), description="who sends, where the server asks"
    )
    smtp_pass: SecretStr | None = Field(
        default=None,
        validation_alias=_shared("smtp_pass"),
        description="the password of SMTP_USER; never sent without TLS, except to this machine",
    )
    mail_from: str | None = Field(
        default=None,
        validation_alias=_shared("mail_from"),
        description="the sender of alerts, ops@example.org or Ops <ops@example.org>",
    )
    email_to: Names = Field(
        default=(),
        validation_alias=_shared("email_to"),
        description="who gets alerts by mail, addresses separated by commas",
    )
    notify_urls: SecretStr | None = Field(
        default=None,
        description="further channels, addresses as Apprise has them, separated by commas; takes the extra notify",
    )
    notify_give_up_after_s: Seconds = Field(
        default=timedelta(days=1),
        gt=timedelta(0),
        le=timedelta(days=30),
        description="an alert that a channel has not taken for so long is given up there",
    )
    notify_spacing_s: Seconds = Field(
        default=timedelta(seconds=5),
        ge=timedelta(0),
        le=timedelta(hours=1),
        description="how long after a message a channel gets its next; what comes meanwhile is in one",
    )
    notify_lease_s: Seconds = Field(
        default=timedelta(seconds=30),
        ge=timedelta(seconds=1),
        le=timedelta(hours=1),
        description="how long an alert is a worker's that sends it; one attempt takes a third of that, 10 s at most",
    )
    webhook_allowed_hosts: Names = Field(
        default=("hooks.slack.com",),
        description="hosts that test-webhook may be pointed at, separated by commas",
    )
    smtp_test_allow_private: bool = Field(
        default=False, description="let test-email be pointed at servers of a private network"
    )

    # The database
    migrate_on_start: bool = Field(default=True, description="apply sql/ before the worker starts")
    database_timeout_s: Seconds = Field(
        default=timedelta(seconds=30),
        gt=timedelta(0),
        description="a statement that takes longer is given up",
    )

    verify_interval_s: Seconds = Field(
        default=timedelta(hours=1),
        le=timedelta(days=30),
        ge=timedelta(0),
        description="how often one of the workers recounts every counter from its ledger; 0 is off",
    )

    # HTTP
    http_host: str = Field(default="127.0.0.1", min_length=1, description="the address to listen on")
    http_port: int = Field(default=8080, ge=0, le=65_535, description="the port to listen on; 0 picks one")
    admin_token: SecretStr | None = Field(
        default=None, min_length=1, description="the bearer token of every guarded route"
    )
    rate_limit_per_minute: int = Field(
        default=600, ge=0, description="requests a minute of one client to the public endpoints; 0 is off"
    )
    trusted_proxies: Names = Field(
        default=(),
        description="addresses and networks (CIDR) whose X-Forwarded-For is believed, separated by commas",
    )

    # Telemetry
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="the least to log"
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="JSON when piped and coloured lines on a terminal, or always one of them"
    )
    gap_check_interval_s: Seconds = Field(
        default=timedelta(minutes=1),
        ge=timedelta(seconds=1),
        le=timedelta(days=1),
        description="how often it is looked for records that nobody reads, and for those that Kafka has deleted unread",
    )
    standstill_after_s: Seconds = Field(
        default=timedelta(minutes=5),
        ge=timedelta(seconds=1),
        le=timedelta(days=1),
        description="how long a position may stay where it is before a record, until it counts as standing still",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic names it
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read `.env` into the environment: of two names of a setting the first wins, wherever it stands."""
        if isinstance(env_settings, EnvSettingsSource) and isinstance(dotenv_settings, EnvSettingsSource):
            given = {**dotenv_settings.env_vars, **env_settings.env_vars}
            env_settings.env_vars = _without_service_links(given)
        return init_settings, env_settings, file_secret_settings

    @field_validator("log_level", "kafka_security_protocol", "kafka_sasl_mechanism", mode="before")
    @classmethod
    def _upper_case(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("smtp_port", "http_port", mode="before")
    @classmethod
    def _port(cls, value: object) -> object:
        if isinstance(value, str) and not re.fullmatch(r"\s*[0-9]{1,5}\s*", value):
            raise ValueError("takes the number of a port, at most 65535")
        return value

    @field_validator("database_url", "migrate_database_url")
    @classmethod
    def _postgres_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return value
        if not _is_postgres_address(value.get_secret_value()):
            raise ValueError("takes postgres://user:password@host:port/database")
        if not _ends_its_password(value.get_secret_value()):
            raise ValueError("has an @ behind its host: percent-encode the password")
        return value

    @field_validator("consumers")
    @classmethod
    def _known_topics(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name not in DEFAULT_TOPICS]
        if unknown or not value:
            raise ValueError(
                f"takes one or more of {', '.join(DEFAULT_TOPICS)}; not {', '.join(unknown) or 'none'}"
            )
        return tuple(dict.fromkeys(value))

    @field_validator("admin_token")
    @classmethod
    def _printable_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[\x21-\x7e]+", value.get_secret_value()):
            raise ValueError("takes printable ASCII characters without blanks")
        return value

    @field_validator("commission_rate_url")
    @classmethod
    def _web_address(cls, value: str | None) -> str | None:
        if value is not None and not _is_web_address(value):
            raise ValueError("takes an http:// or https:// address with a host")
        if value is not None and "{" in urlsplit(value).netloc:  # or who makes links would choose whom we ask
            raise ValueError("takes {domain} in the path or the query, not in the host")
        return value

    @field_validator("slack_webhook_url")
    @classmethod
    def _webhook_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _is_web_address(value.get_secret_value()):
            raise ValueError("takes an http:// or https:// address with a host")
        return value

    @field_validator("smtp_host")
    @classmethod
    def _mail_server(cls, value: str | None) -> str | None:
        name = None if value is None else host_name(value)
        if value is not None and name is None:
            raise ValueError("takes the name or the address of a host, without a port")
        return name

    @field_validator("mail_from")
    @classmethod
    def _sender(cls, value: str | None) -> str | None:
        if value is not None and sender(value) is None:
            raise ValueError("takes an address like ops@example.org or Ops <ops@example.org>")
        return value

    @field_validator("email_to")
    @classmethod
    def _recipients(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        found = [mail_address(part) for part in value]
        if None in found:
            raise ValueError("takes addresses like ops@example.org")
        return tuple(dict.fromkeys(address for address in found if address))

    @field_validator("webhook_allowed_hosts")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        found = [host_name(part) for part in value]
        if None in found:
            raise ValueError("takes names of hosts like hooks.slack.com")
        return tuple(dict.fromkeys(host for host in found if host))

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(dict.fromkeys(str(ip_network(part, strict=False)) for part in value))
        except ValueError:
            raise ValueError("takes addresses like 10.0.0.7 or networks like 10.0.0.0/8") from None

    @model_validator(mode="after")
    def _distinct_topics(self) -> Settings:
        names = [*self.topics.values(), *self.outgoing_topics.values()]
        doubles = {name for name in names if names.count(name) > 1}
        if doubles:
            raise ValueError(f"{PREFIX}TOPIC_*: two event types share the topic {', '.join(sorted(doubles))}")
        return self

    @model_validator(mode="after")
    def _whole_mail(self) -> Settings:
        """Half a way to mail would be found out when the first alert is not read."""
        is_given = {name: bool(getattr(self, name)) for name in ("smtp_host", "mail_from", "email_to")}
        login = {name: getattr(self, name) is not None for name in ("smtp_user", "smtp_pass")}
        _require(is_given)
        _require(login)
        if any(login.values()):
            _require(is_given | login)
        return self

    @property
    def topics(self) -> dict[str, str]:
        """Default topic name → the topic's name here, for every topic that is known."""
        return {name: getattr(self, topic_setting(name)) for name in DEFAULT_TOPICS}

    @property
    def outgoing_topics(self) -> dict[str, str]:
        """Default topic name → the topic's name here, for the topics that the relay publishes to."""
        return {name: getattr(self, topic_setting(name)) for name in OUTGOING_TOPICS}

    @property
    def notify_group(self) -> str:
        """The consumer group that reads alerts to tell people of them."""
        return f"{self.consumer_group}-notify"

    @property
    def consumed_topics(self) -> dict[str, str]:
        """Default topic name → the topic's name here, for the topics this worker reads."""
        return {name: self.topics[name] for name in self.consumers}


def sender(text: str) -> tuple[str, str] | None:
    """The name, or '', and the address in `Ops <ops@example.org>`; None where there is no address."""
    is_plain = text.isprintable() and _ENCODED_WORD not in text
    parts = _SENDER(text.strip()) if is_plain else None
    found = mail_address(parts["address"] or parts["bare"]) if parts else None
    return (parts["name"] or "", found) if parts and found else None


def topic_setting(name: str) -> str:
    """The setting that renames a topic, by the topic's default name."""
    return f"topic_{name.replace('.', '_').replace('-', '_')}"


def load_settings(**overrides: Any) -> Settings:
    """Read the environment and `.env`; raises InvalidSetting with one line naming the variable and what it takes."""
    try:
        return Settings(**overrides)
    except UnicodeDecodeError:
        raise InvalidSetting(f"{DOTENV}: must be UTF-8") from None
    except ValidationError as error:
        given = names_in_environment() | names_in_dotenv()
        raise InvalidSetting("; ".join(_in_one_line(dict(e), given) for e in error.errors())) from None


def _in_one_line(error: dict[str, Any], given: Collection[str]) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return message
    name = _setting_of(str(error["loc"][0]))
    variable = source_of(name, given)
    field = Settings.model_fields.get(name)
    about = f" ({field.description})" if field and field.description else ""
    return f"{variable}: {message}{about}"


def source_of(name: str, given: Collection[str] | None = None) -> str:
    """The variable that a setting is taken from: the first of its names that is among those given, else its own."""
    names = variables_of(name)
    given = names_in_environment() | names_in_dotenv() if given is None else given
    return next((variable for variable in names if variable in given), names[0])


def names_in_environment() -> set[str]:
    """The variables of the environment that are not empty."""
    return _names_in(os.environ)


def names_in_dotenv() -> set[str]:
    """The variables of `.env` that are not empty; it is read each time."""
    return _names_in(dotenv_values(DOTENV))


def _names_in(variables: Mapping[str, str | None]) -> set[str]:
    return {name.upper() for name, value in _without_service_links(variables).items() if value}


def _setting_of(variable: str) -> str:
    """The setting that a variable, or its own name, stands for."""
    if variable.upper() in DATABASE_VARIABLES:
        return "database_url"
    return variable.lower().removeprefix(PREFIX.lower())


def _require(given: dict[str, bool]) -> None:
    """Raise for the first that is missing where another is given."""
    missing = [name for name, is_given in given.items() if not is_given]
    if missing and len(missing) < len(given):
        other = next(name for name, is_given in given.items() if is_given)
        named = names_in_environment() | names_in_dotenv()
        raise ValueError(f"{source_of(missing[0], named)}: must be set when {source_of(other, named)} is")


def masked_webhook(address: str) -> str:
    """The address without its path, which is a webhook's secret."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/•••"


def masked_address(address: str) -> str:
    """The address without its password, and without query values."""
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    user = parts.username
    return urlunsplit((parts.scheme, f"{user}:•••@{host}" if user else host, parts.path, "", ""))
