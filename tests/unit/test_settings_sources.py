"""Settings: each wrong value is one line that names the variable and what it takes; secrets stay masked."""

from __future__ import annotations

import os
from datetime import timedelta
from decimal import Decimal

import pytest
from pydantic import SecretStr

from counterfoil.errors import InvalidSetting
from counterfoil.settings import (
    ALSO_WITHOUT_PREFIX,
    PREFIX,
    IpPolicy,
    Settings,
    load_settings,
    mail_address,
    masked_address,
    sender,
)
from counterfoil.settings_table import describe_settings

ADDRESS = "postgres://shop:s3cret@db.example:5432/shop"


@pytest.fixture(autouse=True)
def an_empty_environment(monkeypatch, tmp_path):
    for name in os.environ:
        is_shared = name.upper().endswith("DATABASE_URL") or name.lower() in ALSO_WITHOUT_PREFIX
        if name.upper().startswith(PREFIX) or is_shared:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


WRONG = {
    "DATABASE_URL": ["mysql://shop", "localhost", "http://db/shop"],
    "MIGRATE_DATABASE_URL": ["mysql://shop"],
    "DB_SCHEMA": ["Public", "a-b", "1a", 'x"; DROP', "x" * 64],
    "EMBEDDED": ["perhaps"],
    "KAFKA_SECURITY_PROTOCOL": ["TLS"],
    "KAFKA_SASL_MECHANISM": ["GSSAPI"],
    "KAFKA_SESSION_TIMEOUT_MS": ["soon", "499", "-1"],
    "KAFKA_IDEMPOTENCE": ["often"],
    "CONSUMER_GROUP": ["x" * 256],
    "CONSUMERS": ["order.shipped", "order.placed,x", ","],
    "TOPIC_ORDER_PLACED": ["a topic", "a/b", "é", "x" * 250],
    "TOPIC_ORDER_CANCELED": ["a b"],
    "TOPIC_ORDER_REFUNDED": ["a b"],
    "TOPIC_CLICK": ["a b", "x" * 250],
    "TOPIC_CONVERSION": ["a/b"],
    "TOPIC_USER_CREATED": ["é"],
    "TOPIC_LINK_CREATED": ["a b"],
    "TOPIC_VOUCHER_CREATED": ["a b"],
    "TOPIC_IMPRESSION": ["a/b"],
    "TOPIC_SCAN": ["a b", "x" * 250],
    "TOPIC_CLAIM": ["é"],
    "TOPIC_REDEMPTION": ["a b"],
    "TOPIC_VOUCHER_ALERT": ["a b"],
    "TOPIC_PARTITIONS": ["0", "many", "10001", "1.5"],
    "BATCH_MAX_RECORDS": ["0", "50001", "x"],
    "BATCH_MAX_WAIT_MS": ["0", "101", "-5", "x"],
    "BREAKER_SHARE": ["0", "1.1", "half", "-1", "nan"],
    "MAX_EVENT_BYTES": ["0", "1MB"],
    "CODE_CASE": ["lower"],
    "DEFAULT_CURRENCY": ["usd", "EURO", "€"],
    "IP_POLICY": ["keep", "Full", "none"],
    "ATTRIBUTE_BY_COUPON": ["sometimes"],
    "COMMISSION_RATE_URL": [
        "rates.example/{domain}",
        "ftp://rates.example/",
        "https://",
        "https:///rates",
        "https://[::1/rates",
        "https://rates.example:x/",
        "https://rates.example:70000/",
        "https://rates.example/a b",
        "https://{domain}/rate",
        "https://é.example/",
        "file:///etc/passwd",
    ],
    "COMMISSION_RATE_REFRESH_S": ["0", "0.5", "-1", "daily", "9" * 40],
    "DEFAULT_COMMISSION_PERCENT": ["-1", "100.1", "10%", "NaN", "Infinity", "1.0000001", "ten"],
    "COMMISSION_HOLD_DAYS": ["-1", "1.5", "x", "36501"],
    "RETENTION_DAYS_CLICKS": ["0", "-1", "off", "36501"],
    "VOUCHER_SCAN_WINDOW_S": ["59", "3601", "x", "-1"],
    "VOUCHER_SCAN_RATE_FACTOR": ["0.9", "nan", "inf", "ten"],
    "VOUCHER_SCAN_RATE_MIN": ["-1", "1.5"],
    "VOUCHER_DEVICE_SCAN_RATE_MIN": ["-1", "x"],
    "VOUCHER_ADDRESS_SCAN_RATE_MIN": ["-1", "x"],
    "VOUCHER_SCAN_RATE_CEILING": ["-1", "off"],
    "VOUCHER_FAILED_REDEMPTIONS_LIMIT": ["-1", "x"],
    "VOUCHER_FAILED_REDEMPTIONS_WINDOW_S": ["59", "86401"],
    "VOUCHER_LOW_CONVERSION_LIMIT": ["-0.1", "1.1", "1%", "nan"],
    "VOUCHER_LOW_CONVERSION_DAYS": ["0", "367"],
    "VOUCHER_LOW_CONVERSION_MIN_SCANS": ["0", "x"],
    "ALERT_COOLDOWN_S": ["-1", "604801", "soon"],
    "ALERT_MAX_AGE_S": ["0", "-1"],
    "SLACK_WEBHOOK_URL": ["hooks.slack.com/x", "ftp://hooks.slack.com/x", "https://", "https://a b/"],
    "SMTP_HOST": ["mail.example:25", "smtp://mail.example", "a b", "-a", "x" * 254],
    "SMTP_PORT": ["0", "65536", "smtp", "tcp://10.0.0.1:25", "25.0", "1_0", "٢٥"],
    "MAIL_FROM": [
        "ops",
        "Ops",
        "a@",
        "@b.org",
        "a b@c.org",
        "a@b.org\nBcc: c@d.org",
        "a@10.0.0.1:25",
        "=?utf-8?q?x=0d=0aBcc:_e?= <a@b.org>",
    ],
    "EMAIL_TO": [
        "ops",
        "a@b.org,ops",
        "Ops <a@b.org>",
        "a@b@c.org",
        "ü@b.org",
        "=?utf-8?q?a=0d=0aBcc=3Ae?=@b.org",
    ],
    "NOTIFY_GIVE_UP_AFTER_S": ["0", "-1", "never", "2592001"],
    "NOTIFY_SPACING_S": ["-1", "3601", "x"],
    "WEBHOOK_ALLOWED_HOSTS": ["https://hooks.slack.com", "a/b", "hooks.slack.com:443", "*.slack.com"],
    "SMTP_TEST_ALLOW_PRIVATE": ["perhaps"],
    "MIGRATE_ON_START": ["later"],
    "DATABASE_TIMEOUT_S": ["0", "-1", "x", "9" * 40],
    "HTTP_PORT": ["-1", "65536", "http"],
    "ADMIN_TOKEN": ["with blank", "é"],
    "RATE_LIMIT_PER_MINUTE": ["-1", "many", "1.5"],
    "TRUSTED_PROXIES": ["localhost", "10.0.0.0/33", "10.0.0.1,x", "10.0.0.256", "::1/129"],
    "LOG_LEVEL": ["LOUD"],
    "LOG_FORMAT": ["xml"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_wrong_value_is_one_line_that_names_the_variable(monkeypatch, name, value):
    monkeypatch.setenv(f"{PREFIX}{name}", value)
    with pytest.raises(InvalidSetting) as caught:
        load_settings()
    message = str(caught.value)
    assert message.startswith(f"{PREFIX}{name}: ")
    assert len(message.splitlines()) == 1
    assert len(message) > len(f"{PREFIX}{name}: ") + 10


def test_a_wrong_secret_is_not_quoted(monkeypatch):
    monkeypatch.setenv(f"{PREFIX}ADMIN_TOKEN", "s3cret blank")
    monkeypatch.setenv(f"{PREFIX}DATABASE_URL", "mysql://shop:s3cret@db/shop")
    with pytest.raises(InvalidSetting) as caught:
        load_settings()
    assert "s3cret" not in str(caught.value)
    assert {f"{PREFIX}ADMIN_TOKEN", f"{PREFIX}DATABASE_URL"} <= set(
        str(caught.value).replace(":", "").split()
    )


@pytest.mark.parametrize("variable", ["DRIZZLE_DATABASE_URL", "DATABASE_URL"])
def test_a_wrong_address_names_the_variable_that_it_came_from(monkeypatch, variable):
    monkeypatch.setenv(variable, "mysql://shop")
    with pytest.raises(InvalidSetting, match=f"^{variable}: "):
        load_settings()


def test_two_event_types_may_not_share_a_topic(monkeypatch):
    monkeypatch.setenv(f"{PREFIX}TOPIC_ORDER_PLACED", "orders")
    monkeypatch.setenv(f"{PREFIX}TOPIC_ORDER_CANCELED", "orders")
    with pytest.raises(
        InvalidSetting, match=r"^COUNTERFOIL_TOPIC_\*: two event types share the topic orders$"
    ):
        load_settings()


def test_what_goes_out_may_not_come_in_again(monkeypatch):
    monkeypatch.setenv(f"{PREFIX}TOPIC_VOUCHER_ALERT", "scan")
    with pytest.raises(InvalidSetting, match=r"share the topic scan$"):
        load_settings()


@pytest.mark.parametrize(
    ("given", "wins"),
    [
        ({f"{PREFIX}DATABASE_URL": "one", "DRIZZLE_DATABASE_URL": "two", "DATABASE_URL": "three"}, "one"),
        ({"DRIZZLE_DATABASE_URL": "two", "DATABASE_URL": "three"}, "two"),
        ({"DATABASE_URL": "three"}, "three"),
        ({f"{PREFIX}DATABASE_URL": "", "DATABASE_URL": "three"}, "three"),
        ({"database_url": "lower"}, "lower"),
        ({}, None),
    ],
)
def test_the_address_of_the_database_is_the_first_of_three_variables(monkeypatch, given, wins):
    for name, database in given.items():
        monkeypatch.setenv(name, database and f"postgres://db/{database}")
    found = load_settings().database_url
    assert (found and found.get_secret_value()) == (wins and f"postgres://db/{wins}")


MAIL = {"SMTP_HOST": "mail.example", "MAIL_FROM": "ops@shop.example", "EMAIL_TO": "a@shop.example"}


@pytest.mark.parametrize("name", sorted(ALSO_WITHOUT_PREFIX))
def test_some_variables_need_no_prefix_and_one_with_it_wins(monkeypatch, tmp_path, name):
    plain, own = {
        "slack_webhook_url": ("https://one/", "https://two/"),
        "smtp_host": ("one", "two"),
        "smtp_port": ("1", "2"),
        "mail_from": ("one@a.org", "two@a.org"),
        "email_to": ("one@a.org", "two@a.org"),
    }.get(name, ("one", "two"))
    for variable, value in (MAIL | {"SMTP_USER": "u", "SMTP_PASS": "p", name.upper(): plain}).items():
        monkeypatch.setenv(variable, value)

    def found() -> str:
        value = getattr(load_settings(), name)
        value = value.get_secret_value() if isinstance(value, SecretStr) else value
        return value[0] if isinstance(value, tuple) else str(value)

    assert found() == plain
    assert described()[f"{PREFIX}{name.upper()}"]["source"] == f"environment {name.upper()}"
    (tmp_path / ".env").write_text(f"{PREFIX}{name.upper()}={own}\n")
    assert found() == own
    monkeypatch.setenv(f"{PREFIX}{name.upper()}", own)
    assert found() == own
    assert described()[f"{PREFIX}{name.upper()}"]["source"] == "environment"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"SMTP_HOST": "mail.example"}, "COUNTERFOIL_MAIL_FROM: must be set when SMTP_HOST is"),
        ({"EMAIL_TO": "a@b.org"}, "COUNTERFOIL_SMTP_HOST: must be set when EMAIL_TO is"),
        (
            {f"{PREFIX}SMTP_HOST": "mail.example", "MAIL_FROM": "a@b.org"},
            "COUNTERFOIL_EMAIL_TO: must be set when COUNTERFOIL_SMTP_HOST is",
        ),
        (MAIL | {"SMTP_USER": "u"}, "COUNTERFOIL_SMTP_PASS: must be set when SMTP_USER is"),
        (MAIL | {"SMTP_PASS": "s3cret"}, "COUNTERFOIL_SMTP_USER: must be set when SMTP_PASS is"),
        (
            {"SMTP_USER": "u", "SMTP_PASS": "s3cret"},
            "COUNTERFOIL_SMTP_HOST: must be set when SMTP_USER is",
        ),
    ],
)
def test_half_a_way_to_mail_is_a_wrong_setting(monkeypatch, given, said):
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSetting) as caught:
        load_settings()
    assert str(caught.value) == said


def test_a_port_alone_is_no_way_to_mail(monkeypatch):
    monkeypatch.setenv("SMTP_PORT", "25")
    assert load_settings().smtp_host is None


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ops@Shop.Example", "ops@shop.example"),
        (" o'neil+x@shop.example ", "o'neil+x@shop.example"),
        ("ops@Bücher.example", "ops@xn--bcher-kva.example"),
        ("ops@localhost", "ops@localhost"),
        ("ops@[10.0.0.1]", "ops@10.0.0.1"),
        ("ops.@a.org", None),
        ("a@b.org\r\nBcc: c@d.org", None),
        ("<a@b.org>", None),
        ("x" * 65 + "@a.org", None),
        ("=?utf-8?q?a=0d=0aBcc=3A_e?=@a.org", None),
        ("a=?@a.org", None),
        ("a?=@a.org", "a?=@a.org"),
        ("", None),
    ],
)
def test_a_mail_address_is_one_mailbox(text, address):
    assert mail_address(text) == address


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("ops@a.org", ("", "ops@a.org")),
        ("Ops <ops@a.org>", ("Ops", "ops@a.org")),
        ('"Ops, ü" <ops@a.org>', ("Ops, ü", "ops@a.org")),
        ("<ops@a.org>", ("", "ops@a.org")),
        ("Ops ops@a.org", None),
        ("Ops <ops@a.org> x", None),
        ("a@b.org, c@d.org", None),
        ("Ops\n <a@b.org>", None),
        ("=?utf-8?q?x=0d=0aBcc:_e?= <a@b.org>", None),
        ("Ops =? <a@b.org>", None),
        ("Ops = ? <a@b.org>", ("Ops = ?", "a@b.org")),
    ],
)
def test_a_sender_has_perhaps_a_name(text, read):
    assert sender(text) == read


def test_what_kubernetes_sets_for_a_service_called_smtp_is_no_port_of_ours(monkeypatch):
    monkeypatch.setenv("SMTP_PORT", "tcp://10.0.0.1:25")
    assert load_settings().smtp_port == 587
    assert described()[f"{PREFIX}SMTP_PORT"]["source"] == "default"
    for name, value in MAIL.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSetting, match="takes the number of a port"):
        load_settings()
    monkeypatch.setenv(f"{PREFIX}SMTP_PORT", "25")
    assert load_settings().smtp_port == 25


@pytest.mark.parametrize("name", ["SMTP_PORT", "HTTP_PORT"])
def test_a_wrong_port_is_told_what_a_port_is(monkeypatch, name):
    monkeypatch.setenv(f"{PREFIX}{name}", "tcp://10.0.0.1:80")
    with pytest.raises(InvalidSetting, match="takes the number of a port, at most 65535"):
        load_settings()


def test_a_dotenv_that_is_not_utf8_is_one_line(tmp_path):
    (tmp_path / ".env").write_bytes(b"COUNTERFOIL_CONSUMER_GROUP=\xff\n")
    with pytest.raises(InvalidSetting, match=r"^\.env: must be UTF-8$"):
        load_settings()


def test_dotenv_is_read_once_for_all_that_is_printed(monkeypatch):
    settings, read = load_settings(), []
    monkeypatch.setattr("counterfoil.settings.dotenv_values", lambda path: read.append(path) or {})
    describe_settings(settings)
    assert read == [".env"]


@pytest.mark.parametrize(
    "address",
    [
        "postgres://u:12/s3cret@h/db",
        "postgres://u:12?s3cret@h/db",
        "postgres://u:12#s3cret@h/db",
        "postgres://u:a@b/s3cret@h/db",
    ],
)
def test_a_password_that_is_not_escaped_is_refused_and_not_printed(monkeypatch, address):
    for name in ("DATABASE_URL", "MIGRATE_DATABASE_URL"):
        monkeypatch.setenv(f"{PREFIX}{name}", address)
    with pytest.raises(InvalidSetting, match="percent-encode the password") as caught:
        load_settings()
    assert "s3cret" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_an_at_sign_in_a_value_of_the_query_is_no_password(monkeypatch):
    monkeypatch.setenv(f"{PREFIX}DATABASE_URL", "postgres://h:5432/db?user=me@cloud")
    assert load_settings().database_url is not None


def test_dotenv_is_read_and_the_environment_wins(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("COUNTERFOIL_HTTP_PORT=9000\nCOUNTERFOIL_CODE_CASE=upper\n")
    monkeypatch.setenv(f"{PREFIX}HTTP_PORT", "9001")
    found = load_settings()
    assert (found.http_port, found.code_case) == (9001, "upper")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("BATCH_MAX_WAIT_MS", "50", timedelta(milliseconds=50)),
        ("DATABASE_TIMEOUT_S", "2.5", timedelta(seconds=2.5)),
        ("KAFKA_SESSION_TIMEOUT_MS", "6000", timedelta(seconds=6)),
        ("CONSUMERS", " order.placed , order.placed,", ("order.placed",)),
        ("LOG_LEVEL", "debug", "DEBUG"),
        ("HTTP_PORT", "0", 0),
        ("NOTIFY_SPACING_S", "0", timedelta(0)),
        (
            "WEBHOOK_ALLOWED_HOSTS",
            "Hooks.Slack.com., BÜCHER.example",
            ("hooks.slack.com", "xn--bcher-kva.example"),
        ),
        ("WEBHOOK_ALLOWED_HOSTS", ",", ()),
        ("BREAKER_SHARE", "1", 1.0),
        ("IP_POLICY", "hash", IpPolicy.HASH),
        ("COMMISSION_RATE_REFRESH_S", "3600", timedelta(hours=1)),
        ("COMMISSION_RATE_URL", "http://rates:8080/{domain}?a=b", "http://rates:8080/{domain}?a=b"),
        ("DEFAULT_COMMISSION_PERCENT", "12.5", Decimal("12.5")),
        ("RETENTION_DAYS_CLICKS", "400", 400),
        ("RETENTION_DAYS_CLICKS", "", None),
        ("RATE_LIMIT_PER_MINUTE", "0", 0),
        ("TRUSTED_PROXIES", " 10.0.0.7, 10.1.2.3/8,,::1", ("10.0.0.7/32", "10.0.0.0/8", "::1/128")),
    ],
)
def test_a_value_is_read_in_its_unit(monkeypatch, name, value, expected):
    monkeypatch.setenv(f"{PREFIX}{name}", value)
    assert getattr(load_settings(), name.lower()) == expected


def test_consumed_topics_are_those_that_are_switched_on(monkeypatch):
    monkeypatch.setenv(f"{PREFIX}CONSUMERS", "order.canceled")
    monkeypatch.setenv(f"{PREFIX}TOPIC_ORDER_CANCELED", "shop.order.canceled")
    assert load_settings().consumed_topics == {"order.canceled": "shop.order.canceled"}


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(ValueError, match="frozen"):
        load_settings().http_port = 1


def test_every_setting_says_what_it_is_for():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("address", "masked"),
    [
        (ADDRESS, "postgres://shop:•••@db.example:5432/shop"),
        ("postgres://shop:p%40ss@db/shop?sslmode=require&password=s3cret", "postgres://shop:•••@db/shop"),
        ("postgres://db/shop", "postgres://db/shop"),
        ("postgres://:s3cret@db/shop", "postgres://db/shop"),
        ("postgres://shop:s3@cret@db/shop", "postgres://shop:•••@db/shop"),
        ("postgres://shop:s3cret@[::1]:5432/shop", "postgres://shop:•••@[::1]:5432/shop"),
    ],
)
def test_an_address_is_shown_without_its_secrets(address, masked):
    assert masked_address(address) == masked


@pytest.mark.parametrize("address", ["postgres://shop:s3cret@[::1/shop", "postgres://[x]/shop"])
def test_an_address_that_cannot_be_read_is_a_wrong_setting(monkeypatch, address):
    monkeypatch.setenv(f"{PREFIX}DATABASE_URL", address)
    with pytest.raises(InvalidSetting, match=f"^{PREFIX}DATABASE_URL: "):
        load_settings()


def described() -> dict[str, dict[str, str]]:
    return {row["variable"]: row for row in describe_settings(load_settings())}


def test_printed_settings_name_their_sources_and_hide_secrets(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("COUNTERFOIL_HTTP_PORT=9000\n")
    monkeypatch.setenv("DATABASE_URL", ADDRESS)
    monkeypatch.setenv(f"{PREFIX}ADMIN_TOKEN", "s3cret")
    monkeypatch.setenv(f"{PREFIX}KAFKA_SASL_PASSWORD", "s3cret")
    rows = described()
    assert "s3cret" not in str(rows)
    assert rows[f"{PREFIX}DATABASE_URL"]["value"] == "postgres://shop:•••@db.example:5432/shop"
    assert rows[f"{PREFIX}DATABASE_URL"]["source"] == "environment DATABASE_URL"
    assert rows[f"{PREFIX}ADMIN_TOKEN"] | {"about": ""} == {
        "variable": f"{PREFIX}ADMIN_TOKEN",
        "value": "•••",
        "source": "environment",
        "about": "",
    }
    assert rows[f"{PREFIX}HTTP_PORT"]["source"] == ".env"
    assert rows[f"{PREFIX}CODE_CASE"]["source"] == "default"
    assert set(rows) == {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}


def test_what_leads_to_a_channel_is_hidden(monkeypatch):
    monkeypatch.setenv("SLACK_WEBHOOK_URL", "https://me:s3cret@hooks.slack.com/services/s3cret?s3cret#s3cret")
    monkeypatch.setenv(f"{PREFIX}NOTIFY_URLS", "json://s3cret,tgram://s3cret")
    for name, value in (MAIL | {"SMTP_USER": "ops", "SMTP_PASS": "s3cret"}).items():
        monkeypatch.setenv(name, value)
    rows = described()
    assert "s3cret" not in f"{rows} {load_settings()!r}"
    assert rows[f"{PREFIX}SLACK_WEBHOOK_URL"]["value"] == "https://hooks.slack.com/•••"
    assert rows[f"{PREFIX}NOTIFY_URLS"]["value"] == "•••"


def test_a_wrong_webhook_is_not_quoted(monkeypatch):
    monkeypatch.setenv("SLACK_WEBHOOK_URL", "hooks.slack.com/s3cret")
    with pytest.raises(InvalidSetting, match=r"^SLACK_WEBHOOK_URL: takes an http") as caught:
        load_settings()
    assert "s3cret" not in str(caught.value)


def test_an_address_of_a_service_is_printed_without_its_secrets(monkeypatch):
    monkeypatch.setenv(f"{PREFIX}COMMISSION_RATE_URL", "https://me:s3cret@rates.example/{domain}?key=s3cret")
    assert described()[f"{PREFIX}COMMISSION_RATE_URL"]["value"] == "https://me:•••@rates.example/{domain}"
    assert described()[f"{PREFIX}MIGRATE_DATABASE_URL"]["value"] == ""


def test_a_token_that_looks_like_an_address_is_hidden_whole(monkeypatch):
    monkeypatch.setenv(f"{PREFIX}ADMIN_TOKEN", "abc://s3cret")
    assert described()[f"{PREFIX}ADMIN_TOKEN"]["value"] == "•••"


def test_an_empty_variable_is_not_set(monkeypatch):
    monkeypatch.setenv(f"{PREFIX}HTTP_PORT", "")
    assert load_settings().http_port == 8080
    assert described()[f"{PREFIX}HTTP_PORT"]["source"] == "default"
