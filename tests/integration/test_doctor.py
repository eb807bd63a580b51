"""What `doctor` says of a database, of settings and of an address that is not Kafka's, each made wrong for real."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from urllib.parse import urlsplit

import asyncpg
import pytest
import trustme

from counterfoil.database.migrate import available
from counterfoil.doctor import Finding, State, examine
from counterfoil.doctor.database_checks import _clock
from counterfoil.embedded.ports import free_port
from counterfoil.ingest import dead_letters
from counterfoil.ingest.records import Malformed
from support.builders import a_record
from support.command import counterfoil
from support.databases import address_of, execute
from support.postgres_road import plain_settings
from support.roles import owner_and_worker

NOT_SHOWN = {
    "database_url": "postgres://nobody:hidden-1@127.0.0.1:1/x",
    "slack_webhook_url": "http://hooks.example.org/hidden-2",
    "admin_token": "hidden-3",
    "kafka_sasl_username": "us",
    "kafka_sasl_password": "hidden-4",
    "kafka_security_protocol": "SASL_PLAINTEXT",
    "migrate_database_url": "postgres://nobody:hidden-5@127.0.0.1:1/x",
}


async def found(**settings: object) -> dict[str, list[Finding]]:
    """The findings by their checks; there is no Kafka unless one is named."""
    given = {"kafka_bootstrap_servers": f"127.0.0.1:{free_port()}", "http_port": 0}
    findings, _ = await examine(plain_settings(**(given | settings)))
    by_check: dict[str, list[Finding]] = {}
    for finding in findings:
        by_check.setdefault(finding.check, []).append(finding)
    return by_check


def only(findings: list[Finding]) -> tuple[State, str, str]:
    (finding,) = findings
    return finding.state, finding.message, finding.fix


# The database


async def test_a_fresh_database_is_well(database_url):
    findings = await found(database_url=database_url)
    assert only(findings.pop("kafka"))[0] is State.PROBLEM
    assert {f.state for some in findings.values() for f in some} == {State.OK}
    wanted = {"database", "clock", "schema", "rights", "dead-letters", "verification", "partitions", "outbox"}
    assert findings.keys() == wanted | {"notifications", "channels", "http"}
    assert "superuser" in only(findings["rights"])[1]


@pytest.mark.parametrize(
    ("change", "says", "advises"),
    [
        ("DELETE FROM counterfoil_migrations WHERE name = $1", "is behind: 1 migration is due, ", "migrate"),
        (
            "UPDATE counterfoil_migrations SET name = '9999_later' WHERE name = $1",
            "is ahead",
            "run the version",
        ),
        (
            "UPDATE counterfoil_migrations SET checksum = 'x' WHERE name = $1",
            "another text",
            "run the version",
        ),
    ],
    ids=["behind", "ahead", "changed"],
)
async def test_another_schema_than_ours_is_a_problem(database_url, db, change, says, advises):
    await db.execute(change, available()[-1].name)
    state, message, fix = only((await found(database_url=database_url))["schema"])
    assert state is State.PROBLEM
    assert says in message
    assert advises in fix


async def test_of_a_database_without_a_schema_nothing_else_is_told(postgres_server):
    findings = await found(database_url=postgres_server.dsn, db_schema="nobodys")
    assert only(findings["schema"])[:2] == (
        State.PROBLEM,
        f"schema nobodys is behind: {len(available())} migrations are due, "
        + ", ".join(m.name for m in available()[:3])
        + f" and {len(available()) - 3} more",
    )
    assert "outbox" not in findings


@pytest.fixture
def roles(postgres_server):
    """An owner and a worker's login: their addresses."""
    with owner_and_worker(postgres_server.dsn) as addresses:
        yield addresses


async def test_rights_that_a_worker_lacks_are_named(roles, postgres_server):
    owner, worker = roles
    assert only((await found(database_url=worker))["rights"])[0] is State.OK
    connection = await asyncpg.connect(owner)
    await connection.execute(
        "REVOKE INSERT ON dead_letters FROM counterfoil_worker;"
        "REVOKE INSERT (title) ON vouchers FROM counterfoil_worker;"
        "REVOKE EXECUTE ON FUNCTION expire_claims(integer) FROM counterfoil_worker"
    )
    state, message, fix = only((await found(database_url=worker))["rights"])
    assert (state, message.partition(" lacks ")[2]) == (
        State.PROBLEM,
        "3 rights: INSERT on dead_letters, INSERT on vouchers (title), EXECUTE on expire_claims(integer)",
    )
    assert "grants.sql" in fix

    await connection.execute("REVOKE ALL ON outbox FROM counterfoil_worker")
    findings = await found(database_url=worker)
    assert only(findings["outbox"])[:2] == (
        State.WARNING,
        "could not be looked at: permission denied for table outbox",
    )

    await connection.close()

    database = urlsplit(owner).path.removeprefix("/")
    execute(
        address_of(database, postgres_server.dsn),
        "REVOKE USAGE ON SCHEMA public FROM counterfoil_worker, PUBLIC",
    )
    messages = [finding.message for finding in (await found(database_url=worker))["rights"]]
    assert any("may not use the schema public" in message for message in messages)


async def test_each_way_in_that_fails_names_what_to_correct(roles, postgres_server):
    owner, _ = roles
    wrong = {
        owner.replace(":secret@", ":hidden@"): "the user or the password in COUNTERFOIL_DATABASE_URL",
        address_of("nowhere", postgres_server.dsn): "make that database",
        f"postgres://u:hidden@127.0.0.1:{free_port()}/x": "start PostgreSQL, or correct host and port",
    }
    for address, advice in wrong.items():
        state, message, fix = only((await found(database_url=address))["database"])
        assert state is State.PROBLEM
        assert "hidden" not in message
        assert advice in fix
    assert "no address is set" in only((await found())["database"])[1]


async def test_a_migrator_that_can_not_come_in_is_a_problem(database_url):
    elsewhere = f"postgres://m:hidden@127.0.0.1:{free_port()}/x"
    state, message, fix = only(
        (await found(database_url=database_url, migrate_database_url=elsewhere))["migrator"]
    )
    assert (state, fix) == (State.PROBLEM, "correct COUNTERFOIL_MIGRATE_DATABASE_URL")
    assert "hidden" not in message
    findings = await found(database_url=database_url, migrate_database_url=database_url)
    assert only(findings["migrator"])[0] is State.OK


def test_clocks_that_surely_differ_are_told_of():
    assert [f.state for f in _clock(100.0, 99.0, 101.0)] == [State.OK]
    assert [f.state for f in _clock(110.0, 99.0, 106.0)] == [State.OK]  # it may have been under way for long
    (ahead,), (behind,) = _clock(400.0, 99.0, 100.0), _clock(0.0, 99.0, 100.0)
    assert (ahead.state, ahead.message) == (
        State.WARNING,
        "PostgreSQL's clock is 5 min ahead of this machine's",
    )
    assert "2 min behind" in behind.message


# What has piled up


async def test_parked_records_are_summed_by_topic_and_kind(database_url, db):
    parked = [Malformed(a_record(n, b"x", key=b"k"), "not_json" if n else "no_value", "") for n in range(3)]
    await dead_letters.park(db, "cluster-1", parked)
    state, message, fix = only((await found(database_url=database_url))["dead-letters"])
    assert state is State.WARNING
    assert message.startswith(f"3 records wait parked, the newest since {datetime.now(UTC):%Y-}")
    assert message.endswith(": order.placed not_json 2, order.placed no_value 1")
    assert "dead-letters list" in fix
    await db.execute("UPDATE dead_letters SET resolved_at = now()")
    assert only((await found(database_url=database_url))["dead-letters"])[0] is State.OK


async def verified(db, ago: str, drifted: int) -> None:
    await db.execute(
        "INSERT INTO verifications (started_at, finished_at, seconds, checked, drifted)"
        f" VALUES (now() - interval '{ago}', now() - interval '{ago}', 1, '{{}}', $1)",
        drifted,
    )


async def test_the_last_verification_is_told_of(database_url, db):
    await verified(db, "8 days", 5)
    await verified(db, "7 days 1 hour", 0)
    state, message, _ = only((await found(database_url=database_url))["verification"])
    assert (state, message[:30]) == (State.WARNING, "nothing was recounted since 20")
    await verified(db, "1 hour", 2)
    state, message, fix = only((await found(database_url=database_url))["verification"])
    assert (state, message[:17]) == (State.PROBLEM, "2 counters differ")
    assert "verify" in fix
    await verified(db, "1 minute", 0)
    assert only((await found(database_url=database_url))["verification"])[0] is State.OK


async def test_months_without_a_partition_and_rows_that_have_none_are_told_of(database_url, db):
    await db.execute(
        "INSERT INTO aff_clicks (click_id, pixel_id, occurred_at) VALUES ('a', 'p', '2001-01-01')"
    )
    state, message, _ = only((await found(database_url=database_url))["partitions"])
    assert state is State.OK
    assert message.endswith("what is older lies in the default partition of aff_clicks")

    months = [
        f"{month:%Y_%m}" for month in await db.fetchval("SELECT ARRAY[now(), now() + interval '1 month']")
    ]
    await db.execute(f"DROP TABLE voucher_scans_{months[1]}")
    state, message, fix = only((await found(database_url=database_url))["partitions"])
    assert (state, message) == (
        State.WARNING,
        f"months without a partition: voucher_scans {months[1].replace('_', '-')}",
    )
    assert "role schedule" in fix

    await db.execute(f"DROP TABLE aff_clicks_{months[0]}")
    await db.execute("INSERT INTO aff_clicks (click_id, pixel_id) VALUES ('b', 'p')")
    findings = (await found(database_url=database_url))["partitions"]
    assert [f.state for f in findings] == [State.PROBLEM, State.WARNING]
    assert findings[1].message == "recent rows lie in the default partition of aff_clicks"


async def test_an_outbox_that_nobody_empties_is_a_problem(database_url, db):
    await db.execute("INSERT INTO outbox (topic, key, value) VALUES ('low-stock', 'A', '{}')")
    assert only((await found(database_url=database_url))["outbox"])[0] is State.OK
    await db.execute("UPDATE outbox SET created_at = now() - interval '3 hours'")
    state, message, fix = only((await found(database_url=database_url))["outbox"])
    assert (state, message) == (State.PROBLEM, "alerts are not published: 1 for low-stock since 3 h")
    assert "role relay" in fix


async def test_a_channel_that_refuses_is_told_of_with_its_latest_reason(database_url, db):
    await db.executemany(
        "INSERT INTO notifications (alert_id, channel, status, attempts, topic, subject, payload, raised_at,"
        " created_at, error) VALUES ($1, $2, $3, $4, 'low-stock', 'A', '{}', now(), now() - $5::interval, $6)",
        [
            ("1", "slack", "failed", 1, datetime.resolution * 0, "no_team"),
            ("2", "slack", "failed", 1, datetime.resolution * 10, "an older reason"),
            ("3", "mail", "pending", 4, datetime.resolution, "greylisted"),
        ],
    )
    slack, mail = sorted((await found(database_url=database_url))["notifications"], key=lambda f: f.state)
    assert (slack.state, slack.message) == (
        State.PROBLEM,
        "slack: 2 not told, 0 still tried, within a day; last: no_team",
    )
    assert (mail.state, mail.message) == (
        State.WARNING,
        "mail: 0 not told, 1 still tried, within a day; last: greylisted",
    )
    await db.execute("UPDATE notifications SET created_at = now() - interval '2 days'")
    assert only((await found(database_url=database_url))["notifications"])[0] is State.OK


# Settings


async def test_a_webhook_without_tls_and_a_channel_that_can_not_be_are_told_of():
    findings = (await found(slack_webhook_url="http://hooks.example.org/hidden"))["channels"]
    assert [f.state for f in findings] == [State.WARNING, State.OK]
    assert "hidden" not in str(findings)
    assert "https://" in findings[0].fix
    here = await found(slack_webhook_url="http://127.0.0.1:9/hidden")
    assert [f.state for f in here["channels"]] == [State.OK]
    state, message, _ = only((await found(notify_urls="nothing://hidden"))["channels"])
    assert state is State.PROBLEM
    assert "hidden" not in message


async def test_a_port_that_is_open_to_others_without_a_token_is_a_problem():
    state, _, fix = only((await found(http_host="0.0.0.0"))["http"])
    assert state is State.PROBLEM
    assert "COUNTERFOIL_ADMIN_TOKEN" in fix
    assert only((await found(http_host="0.0.0.0", admin_token="hidden"))["http"])[0] is State.OK


# The way to Kafka


async def kafka_finding(**settings: object) -> tuple[str, str]:
    state, message, fix = only((await found(**settings))["kafka"])
    assert state is State.PROBLEM
    return message, fix


@contextlib.asynccontextmanager
async def listening(context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that hangs up on whatever it is sent; its port."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


def certified(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


async def test_where_nothing_listens_the_address_is_to_be_corrected():
    message, fix = await kafka_finding(kafka_bootstrap_servers=f"127.0.0.1:{free_port()}")
    assert "nothing answers at 127.0.0.1" in message
    assert fix == "start Kafka, or correct COUNTERFOIL_KAFKA_BOOTSTRAP_SERVERS"


async def test_a_server_with_tls_wants_it_of_us():
    async with listening(certified(trustme.CA())) as port:
        message, fix = await kafka_finding(kafka_bootstrap_servers=f"127.0.0.1:{port}")
    assert "speaks TLS, and we do not" in message
    assert fix == "set COUNTERFOIL_KAFKA_SECURITY_PROTOCOL to SSL"


async def test_a_server_without_tls_does_not_take_ours():
    async with listening() as port:
        message, fix = await kafka_finding(
            kafka_bootstrap_servers=f"127.0.0.1:{port}", kafka_security_protocol="SSL"
        )
    assert "does not speak TLS, and we do" in message
    assert fix == "set COUNTERFOIL_KAFKA_SECURITY_PROTOCOL to PLAINTEXT"


async def test_a_certificate_of_an_unknown_authority_names_the_file_of_authorities():
    async with listening(certified(trustme.CA())) as port:
        message, fix = await kafka_finding(
            kafka_bootstrap_servers=f"127.0.0.1:{port}", kafka_security_protocol="SSL"
        )
    assert "that we don't trust" in message
    assert fix == "correct COUNTERFOIL_KAFKA_SSL_CAFILE"


async def test_a_file_that_is_not_there_names_its_settings(tmp_path):
    message, _ = await kafka_finding(kafka_security_protocol="SSL", kafka_ssl_cafile=tmp_path / "none.pem")
    assert "COUNTERFOIL_KAFKA_SSL_" in message


async def test_a_server_that_hangs_up_is_none_of_ours():
    async with listening() as port:
        message, fix = await kafka_finding(kafka_bootstrap_servers=f"127.0.0.1:{port}")
    assert f"127.0.0.1:{port}" in message
    assert "COUNTERFOIL_KAFKA_SECURITY_PROTOCOL" in fix


# The command


async def test_it_ends_with_3_where_nothing_can_be_looked_at_and_tells_no_secret():
    ended = await counterfoil("doctor", "--json", kafka_bootstrap_servers="127.0.0.1:1", **NOT_SHOWN)
    assert ended.code == 3
    findings = json.loads(ended.out)
    assert {"check", "state", "message", "fix"} == findings[0].keys()
    assert {f["check"] for f in findings if f["state"] == "problem"} == {"database", "kafka"}
    assert "hidden" not in ended.out + ended.err
    told = await counterfoil("doctor", kafka_bootstrap_servers="127.0.0.1:1", **NOT_SHOWN)
    assert told.code == 3
    assert "hidden" not in told.out + told.err
    assert max(len(line.rstrip()) for line in told.out.splitlines()) <= 80


async def test_it_ends_with_1_where_one_of_both_is_missing(database_url):
    ended = await counterfoil("doctor", kafka_bootstrap_servers="127.0.0.1:1", database_url=database_url)
    assert ended.code == 1
    assert ended.out.startswith("Problems\n ✗ kafka")
    assert ended.out.rstrip().splitlines()[-1].startswith("1 problem, 0 warnings, ")
