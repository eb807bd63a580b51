"""The channels against real servers on this machine: what is sent, what each answer means, and no wait is endless."""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import logging
import re
import socket
import ssl
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import trustme
from aiohttp import web
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from counterfoil.errors import InvalidSetting
from counterfoil.notifications.channels import (
    Gone,
    MailChannel,
    Refused,
    TryLater,
    WebhookChannel,
    channels_of,
)
from counterfoil.notifications.channels.mail import Envelope, MailServer, mail_of_message
from counterfoil.notifications.channels.webhook import retry_after_s
from counterfoil.notifications.guard import Endpoint, connected_socket
from counterfoil.notifications.messages import ToldAlert, message_of
from counterfoil.settings import Settings, mail_address, sender
from support.sinks import HANGS, mail_sink, scripted_smtp, webhook_sink

LINE = "⚠️ Low Stock Alert: A (<!channel> & B) - Stock: 1 / Threshold: 10"
SHORT_S = 0.3
SOON_S = 5.0
"""Far below any deadline that is not ours."""

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def a_message():
    payload = {"sku": "A", "name": "<!channel> & B", "stock": 1, "threshold": 10}
    return message_of([ToldAlert("alert-1", "low-stock", "A", payload)])


@contextlib.contextmanager
def soon():
    """The block takes no longer than a moment."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < SOON_S


# Webhook


async def test_a_webhook_gets_the_line_and_its_blocks():
    async with webhook_sink() as sink:
        (channel,) = channels_of(Settings(_env_file=None, slack_webhook_url=sink.url))
        await channel.send(a_message())
    (posted,) = sink.posted
    assert posted["text"] == LINE.replace("& B", "&amp; B").replace("<!channel>", "&lt;!channel&gt;")
    assert posted["blocks"][0]["text"]["text"] == "⚠️ Low Stock Alert"
    assert "<!channel>" not in str(posted)
    assert sink.headers[0]["Content-Type"].startswith("application/json")
    assert "s3cret" not in channel.description


async def failure_of(sink, status: int, headers: dict[str, str] | None = None, text: str = ""):
    async def answer(_request):
        return web.Response(status=status, headers=headers, text=text)

    sink.answer = answer
    with pytest.raises((TryLater, Refused)) as caught:
        await WebhookChannel(sink.url, within_s=SOON_S, clock=lambda: NOW).send(a_message())
    assert "s3cret" not in f"{caught.value!r} {caught.value.__cause__!r}"
    return caught.value


async def test_what_a_status_means():
    async with webhook_sink() as sink:
        for status in (400, 403):
            assert type(await failure_of(sink, status)) is Refused, status
        for status in (404, 410):
            assert isinstance(await failure_of(sink, status), Gone), status
        for status in (300, 304, 401, 402, 405, 407, 408, 413, 425, 429, 500, 502, 503, 504, 599):
            assert isinstance(await failure_of(sink, status), TryLater), status


async def test_slacks_own_words_are_repeated_and_no_others():
    async with webhook_sink() as sink:
        assert str(await failure_of(sink, 404, text="no_service\n")) == "answered 404 (no_service)"
        assert str(await failure_of(sink, 404, text="/services/T0/B0/s3cret")) == "answered 404"
        assert str(await failure_of(sink, 500, text="x" * 200_000)) == "answered 500"


async def test_retry_after_is_kept():
    async with webhook_sink() as sink:
        assert (await failure_of(sink, 429, {"Retry-After": "7"})).retry_after_s == 7
        later = format_datetime(NOW + timedelta(seconds=90), usegmt=True)
        assert (await failure_of(sink, 503, {"Retry-After": later})).retry_after_s == 90
        assert (await failure_of(sink, 429)).retry_after_s is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("0", 0),
        (" 30 ", 30),
        ("3601", 3_600),
        ("9" * 5_000, 3_600),
        ("0" * 20 + "5", 5),
        ("Thu, 01 Jan 2026 00:00:10 GMT", 10),
        ("Thu, 01 Jan 2026 00:00:10 -0000", 10),
        ("Wed, 31 Dec 2025 23:59:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3_600),
        ("Thu, 01 Jan 99999 00:00:10 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_an_hour_at_most(header, seconds):
    assert retry_after_s(header, NOW) == seconds


async def test_no_redirect_is_followed():
    async with webhook_sink() as elsewhere, webhook_sink() as sink:
        for status in (301, 302, 303, 307, 308):
            assert isinstance(await failure_of(sink, status, {"Location": elsewhere.url}), TryLater)
        assert elsewhere.posted == []


async def test_a_webhook_that_hangs_is_left():
    async def answer(_request):
        await asyncio.Event().wait()

    async with webhook_sink() as sink:
        sink.answer = answer
        with soon(), pytest.raises(TryLater, match=r"did not answer within 0\.3 s"):
            await WebhookChannel(sink.url, within_s=SHORT_S).send(a_message())


@contextlib.asynccontextmanager
async def a_server_that_sends(*parts: bytes, every_s: float = 0.02):
    """Sends these and then the last one for ever, whatever it is asked."""
    sent = [0]

    ended = asyncio.Event()

    async def serve(reader, writer):
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            for part in parts:
                writer.write(part)
            while True:
                writer.write(parts[-1])
                sent[0] += len(parts[-1])
                await writer.drain()
                await asyncio.sleep(every_s)
        writer.transport.abort()
        ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/s3cret", sent
        await asyncio.wait_for(ended.wait(), SOON_S)  # we are left, and notice it
    finally:
        server.close()


async def test_an_answer_whose_head_trickles_is_left():
    async with a_server_that_sends(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n") as (url, _):
        with soon(), pytest.raises(TryLater):
            await WebhookChannel(url, within_s=SHORT_S).send(a_message())


async def test_a_message_that_was_taken_is_not_sent_again_for_an_answer_that_trickles():
    async with a_server_that_sends(b"HTTP/1.1 200 OK\r\n\r\n", b"x") as (url, _):
        with soon():
            await WebhookChannel(url, within_s=SHORT_S).send(a_message())


async def test_of_an_endless_answer_64_kib_are_read():
    head = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\n\r\n"
    async with a_server_that_sends(head, b"x" * 16_384, every_s=0) as (url, sent):
        with soon(), pytest.raises(Refused, match="answered 404"):
            await WebhookChannel(url, within_s=SOON_S).send(a_message())
        assert sent[0] < 16 * 1024 * 1024  # what the sockets hold comes on top


@pytest.mark.parametrize(
    "answer", [b"", b"\r\n\r\n", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200", b"HTTP/1.1 two OK\r\n\r\n"]
)
async def test_what_is_no_http_is_tried_again(answer):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/s3cret"
    with soon(), pytest.raises(TryLater, match="could not be reached") as caught:
        await WebhookChannel(url, within_s=SOON_S).send(a_message())
    server.close()
    assert "s3cret" not in str(caught.value)


def a_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return closed.getsockname()[1]


async def test_a_webhook_that_is_away_is_tried_again():
    with pytest.raises(TryLater, match="could not be reached") as caught:
        await WebhookChannel(f"http://127.0.0.1:{a_free_port()}/s3cret").send(a_message())
    assert "s3cret" not in f"{caught.value!r}"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


async def test_a_webhook_with_another_certificate_is_not_posted_to():
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    async with webhook_sink(tls) as sink:
        with pytest.raises(TryLater, match="Certificate"):
            await WebhookChannel(sink.url.replace("http:", "https:")).send(a_message())
    assert sink.posted == []


# Mail


ENVELOPE = Envelope("ops@shop.example", ("a@shop.example", "b@shop.example"), "Ops ü")


def mailing(port: int, within_s: float = SOON_S, **server) -> MailChannel:
    return MailChannel(MailServer("127.0.0.1", port, **server), ENVELOPE, within_s=within_s)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def serving(authority: trustme.CA, name: str) -> ssl.SSLContext:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(tls)
    return tls


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    return tls


def named(port: int, tls: ssl.SSLContext | None, *, told_port: int = 587, **server) -> MailChannel:
    """Mail by `mail.example`, which is at a port of this machine."""
    place = [Endpoint("127.0.0.1", port)]
    known = MailServer("mail.example", told_port, connect=lambda: connected_socket(place), tls=tls, **server)
    return MailChannel(known, ENVELOPE, within_s=SOON_S)


async def test_a_mail_is_text_and_html():
    async with mail_sink() as sink:
        settings = Settings(
            _env_file=None,
            smtp_host="127.0.0.1",
            smtp_port=sink.port,
            mail_from="Ops ü <ops@shop.example>",
            email_to="a@shop.example, b@shop.example",
        )
        (channel,) = channels_of(settings)
        await channel.send(a_message())
        await channel.send(a_message())
    mail, again = sink.mails
    assert mail["Subject"] == "Low Stock Alert: A"
    assert mail["From"] == "Ops ü <ops@shop.example>"
    assert mail["Message-ID"] == again["Message-ID"] == "<alert-1@shop.example>"
    assert sink.recipients[0] == ["a@shop.example", "b@shop.example"]
    text, page = mail.iter_parts()
    assert "Product: <!channel> & B" in text.get_content().splitlines()
    assert "&lt;!channel&gt; &amp; B" in page.get_content()


def as_sent(envelope: Envelope) -> bytes:
    return mail_of_message(a_message(), envelope, NOW).as_bytes()


def header_names(mail: bytes) -> list[bytes]:
    """Those of a mail that has no line which ends otherwise than by CR LF."""
    assert re.search(rb"(?<!\r)\n|\r(?!\n)", mail) is None
    head, _, _ = mail.partition(b"\r\n\r\n")
    return [line.partition(b":")[0] for line in head.split(b"\r\n") if line[:1] not in b" \t"]


HEADERS = b"From To Subject Date Message-ID Auto-Submitted MIME-Version Content-Type".split()


async def test_a_mail_has_our_headers_and_no_others_whatever_its_sender_is_called():
    hostile = Envelope("o@e.org", ("a@b.org",), "=?utf-8?q?x=0d=0aBcc:_evil=40x.example=0d=0a=0d=0aspoofed?=")
    async with mail_sink() as sink:
        await MailChannel(MailServer("127.0.0.1", sink.port), hostile, within_s=SOON_S).send(a_message())
    assert header_names(sink.sent[0]) == HEADERS
    assert b"spoofed" not in sink.sent[0].partition(b"\r\n\r\n")[2]
    assert sink.mails[0]["Bcc"] is None


_words = st.sampled_from(
    [
        "=?utf-8?q?",
        "=?utf-8?b?",
        "?=",
        "=0d=0a",
        "=0aBcc:",
        "DQpCY2M6",
        "\\",
        "(",
        ",",
        ";",
        ":",
        "é",
        "漢",
        ".",
    ]
)
_names = st.lists(_words | st.characters(codec="utf-8"), max_size=30).map("".join)
_locals = st.text("=?_*!#$%&'+/^`{|}~-.0aqbQB", max_size=64)


@settings(max_examples=150, deadline=None)
@given(_names, _locals, _locals)
def test_whatever_is_taken_as_an_address_makes_one_sender_and_one_recipient(name, sent_by, sent_to):
    found, recipient = sender(f"{name} <{sent_by}@e.org>"), mail_address(f"{sent_to}@b.org")
    assume(found or recipient)
    name, address = found or ("", "o@e.org")
    mail = as_sent(Envelope(address, (recipient or "a@b.org",), name))
    assert header_names(mail) == HEADERS
    read = email.message_from_bytes(mail, policy=email.policy.default)
    assert [one.addr_spec for one in read["From"].addresses] == [address]
    assert [one.addr_spec for one in read["To"].addresses] == [recipient or "a@b.org"]


@pytest.mark.parametrize(
    "envelope",
    [Envelope("o@e.org", ("=?utf-8?q?a=0d=0aBcc:e?=@b.org",)), Envelope("o@e.org", ("a@b.org",), "a\r\nb")],
)
async def test_what_cannot_be_written_is_refused_before_anybody_is_asked(envelope):
    with pytest.raises(Refused, match="could not be written"):
        await MailChannel(MailServer("127.0.0.1", a_free_port()), envelope).send(a_message())


async def test_a_line_with_a_dot_ends_no_mail():
    async with mail_sink() as sink:
        message = message_of([ToldAlert("x", "low-stock", ".", {"name": ".", "stock": 1, "threshold": 2})])
        await mailing(sink.port).send(message)
    assert sink.mails[0].get_body(("plain",)).get_content().splitlines() == message.body.splitlines()


async def test_the_password_goes_over_tls_where_the_server_changes_to_it(authority):
    async with mail_sink(starttls=serving(authority, "mail.example")) as sink:
        await named(sink.port, trusting(authority), user="ops", password="s3cret").send(a_message())
    assert (sink.over_tls, sink.users) == ([True], ["ops"])


async def test_port_465_speaks_tls_from_the_start(authority):
    async with mail_sink(tls=serving(authority, "mail.example"), auth_exclude_mechanism=[]) as sink:
        channel = named(sink.port, trusting(authority), told_port=465)
        await channel.send(a_message())
    assert len(sink.mails) == 1


@pytest.mark.parametrize("how", ["starttls", "tls"])
async def test_a_certificate_of_another_name_gets_neither_mail_nor_password(authority, how):
    async with mail_sink(**{how: serving(authority, "other.example")}) as sink:
        told_port = 465 if how == "tls" else 587
        channel = named(sink.port, trusting(authority), told_port=told_port, user="ops", password="s3cret")
        with pytest.raises(TryLater, match="could not be reached"):
            await channel.send(a_message())
    assert (sink.mails, sink.passwords_seen) == ([], [])


async def test_a_certificate_that_nobody_vouches_for_gets_neither_mail_nor_password(authority):
    async with mail_sink(starttls=serving(authority, "mail.example")) as sink:
        with pytest.raises(TryLater, match="could not be reached"):
            await named(sink.port, None, user="ops", password="s3cret").send(a_message())
    assert (sink.mails, sink.passwords_seen) == ([], [])


async def test_the_password_stays_here_where_the_server_offers_no_tls(authority):
    async with scripted_smtp(EHLO="250-here\r\n250 AUTH PLAIN LOGIN", AUTH="235 in") as (port, told):
        channel = named(port, trusting(authority), user="ops", password="s3cret")
        with pytest.raises(TryLater, match="password was not sent"):
            await channel.send(a_message())
    assert [line.split()[0] for line in told] in (["EHLO"], ["EHLO", "QUIT"])


async def test_on_this_machine_the_password_needs_no_tls():
    async with mail_sink() as sink:
        await mailing(sink.port, user="ops", password="s3cret").send(a_message())
    assert (sink.over_tls, sink.users) == ([False], ["ops"])


async def test_on_this_machine_a_homemade_certificate_will_do(authority):
    async with mail_sink(starttls=serving(authority, "snakeoil.example")) as sink:
        await mailing(sink.port, user="ops", password="s3cret").send(a_message())
    assert (sink.over_tls, sink.users) == ([True], ["ops"])


async def test_a_wrong_password_is_refused_for_good():
    async with mail_sink() as sink:
        with pytest.raises(Refused, match="answered 535") as caught:
            await mailing(sink.port, user="ops", password="wr0ng").send(a_message())
    assert "wr0ng" not in f"{caught.value!r} {mailing(1, password='wr0ng')._server!r}"
    assert sink.mails == []


@pytest.mark.parametrize("step", ["greeting", "MAIL", "RCPT", "DATA", "END"])
@pytest.mark.parametrize(("code", "failure"), [("421", TryLater), ("451", TryLater), ("554", Refused)])
async def test_what_a_code_means(step, code, failure):
    async with scripted_smtp(**{step: f"{code} s3cret words"}) as (port, _):
        hung_up = "|hung up" if code == "421" else ""
        with soon(), pytest.raises(failure, match=f"answered {code}$" + hung_up):
            await mailing(port).send(a_message())


@pytest.mark.parametrize(
    ("step", "is_gone"), [("MAIL", True), ("RCPT", True), ("DATA", False), ("END", False)]
)
async def test_a_server_that_refuses_who_writes_or_to_whom_refuses_every_mail(step, is_gone):
    async with scripted_smtp(**{step: "554 no"}) as (port, _):
        with pytest.raises(Refused) as caught:
            await mailing(port).send(a_message())
    assert isinstance(caught.value, Gone) is is_gone


async def test_codes_of_several_recipients_are_for_good_when_all_are():
    async with scripted_smtp(RCPT="550 no") as (port, told):
        with pytest.raises(Refused):
            await mailing(port).send(a_message())
        assert sum(line.startswith("RCPT") for line in told) == 2


@pytest.mark.parametrize("step", ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "END"])
async def test_a_server_that_hangs_is_left(step):
    async with scripted_smtp(**{step: HANGS}) as (port, _):
        with soon(), pytest.raises(TryLater, match="did not take the mail"):
            await mailing(port, SHORT_S).send(a_message())


@pytest.mark.parametrize("answer", [HANGS, "500 no", "nonsense"])
async def test_a_mail_that_was_taken_is_not_sent_again_for_a_bad_farewell(answer):
    async with scripted_smtp(QUIT=answer) as (port, told):
        with soon():
            await mailing(port).send(a_message())
    assert told[-2:] == [".", "QUIT"]


async def test_a_server_that_is_away_is_tried_again():
    with pytest.raises(TryLater, match="could not be reached"):
        await mailing(a_free_port()).send(a_message())


@pytest.mark.parametrize("greeting", ["SSH-2.0-OpenSSH", "HTTP/1.1 400 Bad Request", "\x00\xff" * 1_000])
async def test_what_is_no_smtp_is_tried_again(greeting):
    async with scripted_smtp(greeting=greeting) as (port, _):
        with soon(), pytest.raises(TryLater):
            await mailing(port, SHORT_S).send(a_message())


# Further channels


async def test_a_further_channel_gets_title_and_text_but_no_mention():
    async with webhook_sink() as sink:
        url = f"json://127.0.0.1:{sink.port}/s3cret"
        (channel,) = channels_of(Settings(_env_file=None, notify_urls=url))
        await channel.send(a_message())
    (posted,) = sink.posted
    assert posted["title"] == "Low Stock Alert: A"
    assert posted["message"] == LINE.replace("<!channel>", "‹!channel›")
    assert channel.name == f"json-{channel.name[5:]}"
    assert len(channel.name) == len("json-") + 8
    assert "s3cret" not in channel.description + channel.name


async def test_a_further_channel_that_fails_is_tried_again_and_says_nothing(caplog):
    caplog.set_level(logging.DEBUG)
    async with webhook_sink() as sink:

        async def answer(_request):
            return web.Response(status=500)

        sink.answer = answer
        url = f"json://127.0.0.1:{sink.port}/s3cret"
        (channel,) = channels_of(Settings(_env_file=None, notify_urls=url))
        with pytest.raises(TryLater, match=r"did not take the message$"):
            await channel.send(a_message())
    told = [record.getMessage() for record in caplog.records if record.name != "aiohttp.access"]  # the sink's
    assert "s3cret" not in str(told)


async def test_a_further_channel_that_hangs_is_left_and_not_asked_twice():
    release = asyncio.Event()

    async def answer(_request):
        await release.wait()
        return web.Response()

    async with webhook_sink() as sink:
        sink.answer = answer
        url = f"json://127.0.0.1:{sink.port}/?rto=3&cto=3"
        (channel,) = channels_of(Settings(_env_file=None, notify_urls=url))
        channel._within_s = SHORT_S
        with soon(), pytest.raises(TryLater, match="within"):
            await channel.send(a_message())
        with soon(), pytest.raises(TryLater, match="busy"):
            await channel.send(a_message())
        release.set()
        await asyncio.to_thread(channel._under_way.join, SOON_S)
        sink.answer = None
        await channel.send(a_message())
    assert len(sink.posted) == 2


def test_addresses_are_told_apart_and_each_is_one_channel():
    urls = "json://127.0.0.1/a, mailto://u:p@example.org?to=a@b.org,c@b.org,json://127.0.0.1/a"
    names = [channel.name for channel in channels_of(Settings(_env_file=None, notify_urls=urls))]
    assert [name.rpartition("-")[0] for name in names] == ["json", "mailto"]


@pytest.mark.parametrize(
    ("urls", "said"),
    [
        ("json://127.0.0.1/a,nothing://s3cret", r"address 2 \(nothing://…\) is none"),
        ("s3cret", "address 1 is none"),
        ("discord://s3cret", r"address 1 \(discord://…\) is none"),
    ],
)
def test_an_address_that_apprise_does_not_know_is_a_wrong_setting(urls, said, capfd, caplog):
    with pytest.raises(InvalidSetting, match=f"^COUNTERFOIL_NOTIFY_URLS: {said}") as caught:
        channels_of(Settings(_env_file=None, notify_urls=urls))
    assert "s3cret" not in str(caught.value) + caplog.text + str(capfd.readouterr())


def test_without_the_extra_its_name_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(InvalidSetting, match=r"counterfoil\[notify\]"):
        channels_of(Settings(_env_file=None, notify_urls="json://127.0.0.1"))


def test_apprise_is_imported_only_where_it_is_used():
    code = "import sys, counterfoil.notifications.channels; sys.exit('apprise' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nothing_is_configured_by_default():
    assert channels_of(Settings(_env_file=None)) == ()
