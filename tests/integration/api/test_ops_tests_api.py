"""`test-webhook` and `test-email`: what is configured is tried, what a caller gives is looked at first."""

from __future__ import annotations

import ssl

import pytest
import trustme
from aiohttp import web

from counterfoil.app import HTTP_ROUTES
from counterfoil.notifications import routes
from counterfoil.notifications.guard import Endpoint, Guard
from counterfoil.notifications.routes import NOT_DELIVERED, OPS_TEST_ROUTES
from support.sinks import mail_sink, webhook_sink

WEBHOOK = "/api/ops/settings/test-webhook"
MAIL = "/api/ops/settings/test-email"
GIVEN_URL = "https://hooks.slack.com/services/T0/B0/s3cret"
GIVEN_MAIL = {
    "smtpHost": "mail.example",
    "smtpPort": 587,
    "smtpUser": "ops",
    "smtpPass": "s3cret",
    "emailFrom": "ops@shop.example",
    "emailTo": "a@shop.example",
}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def lead_to(monkeypatch, authority):
    """Have every name lead to these ports of this machine, one at each look-up; answers what was looked up."""

    def lead(*ports: int, permits=lambda _: True):
        asked: list[tuple[str, int]] = []

        async def look_up(host: str, port: int) -> list[Endpoint]:
            asked.append((host, port))
            return [Endpoint("127.0.0.1", ports[(len(asked) - 1) % len(ports)])]

        tls = ssl.create_default_context()
        authority.configure_trust(tls)
        monkeypatch.setattr(routes, "GUARD", Guard(look_up, permits, tls))
        return asked

    return lead


def serving(authority: trustme.CA, name: str) -> ssl.SSLContext:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(tls)
    return tls


def field_of(reply) -> str:
    assert reply.status == 422, reply.body
    assert "s3cret" not in reply.body.decode()
    return reply.json["errors"][0]["field"]


def undisclosed(reply) -> bool:
    return (reply.status, reply.json["detail"]) == (502, NOT_DELIVERED)


def test_the_routes_are_served():
    assert set(OPS_TEST_ROUTES) <= set(HTTP_ROUTES)


@pytest.mark.parametrize("path", [WEBHOOK, MAIL])
async def test_the_token_is_asked_for(serve, path):
    client = await serve(token="t0ken", routes=OPS_TEST_ROUTES)
    client.token = None
    assert (await client.post(path, {})).status == 401


@pytest.mark.parametrize("path", [WEBHOOK, MAIL])
async def test_a_long_body_is_413(serve, path):
    client = await serve(routes=OPS_TEST_ROUTES)
    assert (await client.post(path, {"webhookUrl": "x" * 20_000})).status == 413


# What is configured


async def test_the_configured_webhook_gets_a_test_alert(serve):
    async with webhook_sink() as sink:
        client = await serve(routes=OPS_TEST_ROUTES, slack_webhook_url=sink.url)
        for body in ("", "{}", '{"webhookUrl": null}', '{"webhookUrl": ""}'):
            reply = await client.post(WEBHOOK, body)
            assert reply.status == 200
            assert reply.json | {"timestamp": ""} == {
                "success": True,
                "message": "Test alert sent successfully",
                "timestamp": "",
            }
            assert reply.json["timestamp"].endswith("Z")
    assert len(sink.posted) == 4
    assert "Test alert" in sink.posted[0]["text"]


async def test_the_configured_mail_is_sent(serve):
    async with mail_sink() as sink:
        client = await serve(
            routes=OPS_TEST_ROUTES,
            smtp_host="127.0.0.1",
            smtp_port=sink.port,
            mail_from="ops@shop.example",
            email_to="a@shop.example",
        )
        reply = await client.post(MAIL, {})
    assert (reply.status, reply.json["message"]) == (200, "Test email sent successfully")
    assert sink.mails[0]["Subject"] == "Test alert"


async def test_of_what_is_configured_the_failure_is_told(serve):
    async def answer(_request):
        return web.Response(status=404, text="no_service")

    async with webhook_sink() as sink:
        sink.answer = answer
        client = await serve(routes=OPS_TEST_ROUTES, slack_webhook_url=sink.url)
        reply = await client.post(WEBHOOK, {})
    assert (reply.status, reply.json["detail"]) == (502, "the webhook answered 404 (no_service)")
    assert reply.headers["content-type"] == "application/problem+json"
    assert "s3cret" not in reply.body.decode()


async def test_what_is_not_configured_must_be_given(serve):
    client = await serve(routes=OPS_TEST_ROUTES)
    assert field_of(await client.post(WEBHOOK, {})) == "webhookUrl"
    assert field_of(await client.post(MAIL, {})) == "smtpHost"


# What is given: rules


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.slack.com/x/s3cret",
        "https://127.0.0.1/s3cret",
        "https://169.254.169.254/latest/meta-data",
        "https://[::ffff:10.0.0.1]/",
        "https://hooks.slack.com:22/s3cret",
        "https://user:s3cret@hooks.slack.com/",
        "https://evil.example/s3cret",
    ],
)
async def test_a_url_that_breaks_a_rule_is_422_and_nothing_is_looked_up(serve, lead_to, url):
    asked = lead_to(1)
    client = await serve(routes=OPS_TEST_ROUTES)
    assert field_of(await client.post(WEBHOOK, {"webhookUrl": url})) == "webhookUrl"
    assert asked == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"smtpHost": "127.0.0.1"}, "smtpHost"),
        ({"smtpHost": "10.0.0.1"}, "smtpHost"),
        ({"smtpHost": "169.254.169.254"}, "smtpHost"),
        ({"smtpHost": "::1"}, "smtpHost"),
        ({"smtpHost": "[::ffff:127.0.0.1]"}, "smtpHost"),
        ({"smtpHost": "64:ff9b::7f00:1"}, "smtpHost"),
        ({"smtpHost": "mail.example:25"}, "smtpHost"),
        ({"smtpHost": "a\r\nb"}, "smtpHost"),
        ({"smtpHost": None}, "smtpHost"),
        ({"smtpPort": 22}, "smtpPort"),
        ({"smtpPort": 6379}, "smtpPort"),
        ({"smtpPort": "25"}, "smtpPort"),
        ({"smtpPort": 0}, "smtpPort"),
        ({"smtpPass": None}, "smtpPass"),
        ({"smtpUser": None}, "smtpUser"),
        ({"emailFrom": "ops"}, "emailFrom"),
        ({"emailFrom": "ops@shop.example\r\nBcc: x@y.org"}, "emailFrom"),
        ({"emailFrom": ""}, "emailFrom"),
        ({"emailFrom": "=?utf-8?q?x=0d=0aBcc:_evil=40x.example?= <ops@shop.example>"}, "emailFrom"),
        ({"emailFrom": "=?utf-8?q?x=0d=0a?=@shop.example"}, "emailFrom"),
        ({"emailTo": "=?utf-8?q?a=0d=0aBcc=3A_evil?=@b.org"}, "emailTo"),
        ({"emailTo": "a@b.org\r\nRCPT TO:<x@y.org>"}, "emailTo"),
        ({"emailTo": "a@b.org, <x>"}, "emailTo"),
        ({"emailTo": ",".join(f"a{n}@b.org" for n in range(11))}, "emailTo"),
        ({"emailTo": " , "}, "emailTo"),
        ({"smtpPassword": "s3cret"}, "smtpPassword"),
    ],
)
async def test_mail_that_breaks_a_rule_is_422_and_nothing_is_looked_up(serve, lead_to, change, field):
    asked = lead_to(1)
    client = await serve(routes=OPS_TEST_ROUTES)
    assert field_of(await client.post(MAIL, GIVEN_MAIL | change)) == field
    assert asked == []


async def test_the_configured_password_goes_to_no_server_that_a_caller_gives(serve, lead_to, authority):
    async with mail_sink(starttls=serving(authority, "mail.example")) as sink:
        lead_to(sink.port)
        client = await serve(
            routes=OPS_TEST_ROUTES,
            smtp_host="127.0.0.1",
            smtp_user="ops",
            smtp_pass="s3cret",
            mail_from="ops@shop.example",
            email_to="a@shop.example",
        )
        given = {name: value for name, value in GIVEN_MAIL.items() if name not in {"smtpUser", "smtpPass"}}
        assert (await client.post(MAIL, given)).status == 200
        assert field_of(await client.post(MAIL, {"smtpHost": "mail.example"})) == "emailFrom"
    assert sink.passwords_seen == []


# What is given: where it leads


async def test_a_given_webhook_is_looked_up_once_and_posted_to_there(serve, lead_to, authority):
    tls = serving(authority, "hooks.slack.com")
    async with webhook_sink(tls) as sink, webhook_sink(tls) as elsewhere:
        asked = lead_to(sink.port, elsewhere.port)
        client = await serve(routes=OPS_TEST_ROUTES)
        assert (await client.post(WEBHOOK, {"webhookUrl": GIVEN_URL})).status == 200
    assert (len(sink.posted), elsewhere.posted, asked) == (1, [], [("hooks.slack.com", 443)])
    assert sink.headers[0]["Host"] == "hooks.slack.com"


async def test_given_mail_is_sent_over_tls_with_the_name_verified(serve, lead_to, authority):
    async with mail_sink(starttls=serving(authority, "mail.example")) as sink:
        asked = lead_to(sink.port)
        client = await serve(routes=OPS_TEST_ROUTES)
        assert (await client.post(MAIL, GIVEN_MAIL)).status == 200
    assert (sink.users, sink.over_tls, asked) == (["ops"], [True], [("mail.example", 587)])


async def test_every_failure_of_what_is_given_sounds_the_same(serve, lead_to, authority):
    async def redirect(_request):
        return web.Response(status=307, headers={"Location": good.url}, text="s3cret")

    client = await serve(routes=OPS_TEST_ROUTES)
    replies = []
    async with (
        webhook_sink(serving(authority, "hooks.slack.com")) as good,
        webhook_sink(serving(authority, "other.example")) as another,
        webhook_sink(serving(authority, "hooks.slack.com")) as redirecting,
        mail_sink(starttls=serving(authority, "other.example")) as mail,
    ):
        redirecting.answer = redirect
        lead_to(good.port, permits=lambda _: False)
        replies += [
            await client.post(WEBHOOK, {"webhookUrl": GIVEN_URL}),
            await client.post(MAIL, GIVEN_MAIL),
        ]
        lead_to(1)
        replies += [
            await client.post(WEBHOOK, {"webhookUrl": GIVEN_URL}),
            await client.post(MAIL, GIVEN_MAIL),
        ]
        lead_to(another.port, redirecting.port)
        replies += [await client.post(WEBHOOK, {"webhookUrl": GIVEN_URL}) for _ in range(2)]
        lead_to(mail.port)
        replies += [await client.post(MAIL, GIVEN_MAIL)]
        assert all(undisclosed(reply) for reply in replies)
        assert len({reply.body for reply in replies}) == 1
        assert [*good.posted, *another.posted, *mail.mails] == []
        assert len(redirecting.posted) == 1


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f000001"])
async def test_a_name_of_this_machine_sounds_like_one_that_does_not_exist(serve, host):
    client = await serve(routes=OPS_TEST_ROUTES)
    assert undisclosed(await client.post(MAIL, GIVEN_MAIL | {"smtpHost": host}))


async def test_a_private_server_is_reached_where_that_is_allowed(serve, lead_to):
    async with mail_sink() as sink:
        lead_to(sink.port, permits=lambda _: False)
        client = await serve(routes=OPS_TEST_ROUTES, smtp_test_allow_private=True)
        assert (await client.post(MAIL, GIVEN_MAIL | {"smtpHost": "127.0.0.1"})).status == 200
    assert sink.users == ["ops"]


async def test_what_hangs_is_left_after_a_while(serve, lead_to, monkeypatch, authority):
    monkeypatch.setattr(routes, "WITHIN_S", 0.3)

    async def never(_host, _port):
        import asyncio

        await asyncio.Event().wait()

    monkeypatch.setattr(routes, "GUARD", Guard(never))
    client = await serve(routes=OPS_TEST_ROUTES)
    assert undisclosed(await client.post(WEBHOOK, {"webhookUrl": GIVEN_URL}))
    assert undisclosed(await client.post(MAIL, GIVEN_MAIL))


async def test_the_eleventh_of_both_kinds_in_a_minute_is_429(serve):
    client = await serve(routes=OPS_TEST_ROUTES)
    replies = [await client.post((WEBHOOK, MAIL)[n % 2], {}) for n in range(11)]
    assert [reply.status for reply in replies] == [422] * 10 + [429]
    assert 1 <= int(replies[-1].headers["retry-after"]) <= 60
    other_worker = await serve(routes=OPS_TEST_ROUTES)
    assert (await other_worker.post(WEBHOOK, {})).status == 422
