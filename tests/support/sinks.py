"""Where alerts go in tests: a web server that keeps what is posted, and SMTP servers, good and bad."""

from __future__ import annotations

import asyncio
import contextlib
import email
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import default
from typing import Any, cast

from aiohttp import web
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class WebhookSink:
    """A webhook on 127.0.0.1: answers `ok`, or what `answer` says."""

    posted: list[Any] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answer: Answer | None = None
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/services/T0/B0/s3cret"

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.posted.append(json.loads(await request.read()))
        self.headers.append(dict(request.headers))
        return await self.answer(request) if self.answer else web.Response(text="ok")


@contextlib.asynccontextmanager
async def webhook_sink(tls: ssl.SSLContext | None = None) -> AsyncIterator[WebhookSink]:
    """A webhook that is open as long as the block."""
    sink = WebhookSink()
    app = web.Application()
    app.router.add_post("/{path:.*}", sink._handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    sink.port = runner.addresses[0][1]
    try:
        yield sink
    finally:
        await runner.cleanup()


@dataclass
class MailSink:
    """The mail that an SMTP server took; `authenticated` has the user of each."""

    mails: list[EmailMessage] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    over_tls: list[bool] = field(default_factory=list)
    users: list[str | None] = field(default_factory=list)
    passwords_seen: list[str] = field(default_factory=list)
    port: int = 0

    async def handle_DATA(self, _server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        self.sent.append(envelope.content)
        self.mails.append(cast("EmailMessage", email.message_from_bytes(envelope.content, policy=default)))
        self.recipients.append(envelope.rcpt_tos)
        self.over_tls.append(session.ssl is not None)
        self.users.append(session.auth_data)
        return "250 kept"

    def authenticate(self, _server: Any, _session: Any, _envelope: Any, _kind: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.passwords_seen.append(data.password.decode())
        good = data.password == b"s3cret"
        return AuthResult(success=good, handled=False, auth_data=data.login.decode() if good else None)


@contextlib.asynccontextmanager
async def mail_sink(
    *, starttls: ssl.SSLContext | None = None, tls: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[MailSink]:
    """An SMTP server (aiosmtpd) on 127.0.0.1 that keeps its mail."""
    sink = MailSink()
    made: list[SMTP] = []

    def protocol() -> SMTP:
        made.append(
            SMTP(
                sink,
                hostname="sink.example",
                tls_context=starttls,
                authenticator=sink.authenticate,
                auth_require_tls=starttls is not None,
                **options,
            )
        )
        return made[-1]

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0, ssl=tls)
    sink.port = server.sockets[0].getsockname()[1]
    try:
        yield sink
    finally:
        server.close()
        for one in made:
            if one.transport is not None:
                one.transport.abort()


HANGS = ""
"""An answer that never comes."""


@contextlib.asynccontextmanager
async def scripted_smtp(**answers: str) -> AsyncIterator[tuple[int, list[str]]]:
    """An SMTP server that answers as told: `scripted_smtp(RCPT="550 no")`; gives its port, and what it was told.

    `greeting` is its first line, `END` the answer to a mail, `EHLO` may have several lines.
    """
    script = {
        "greeting": "220 here",
        "EHLO": "250 here",
        "MAIL": "250 ok",
        "RCPT": "250 ok",
        "DATA": "354 go on",
        "END": "250 kept",
        "QUIT": "221 bye",
    } | answers
    told: list[str] = []
    open_ones: set[asyncio.StreamWriter] = set()

    async def answer(writer: asyncio.StreamWriter, name: str) -> None:
        said = script.get(name, "502 what?")
        if said == HANGS:
            await asyncio.Event().wait()
        writer.write(f"{said}\r\n".encode())
        await writer.drain()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ones.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await answer(writer, "greeting")
            while line := (await reader.readline()).decode().strip():
                told.append(line)
                verb = line.partition(" ")[0].upper()
                await answer(writer, verb)
                if verb == "DATA" and script["DATA"].startswith("354"):
                    while await reader.readline() not in {b".\r\n", b""}:
                        pass
                    told.append(".")
                    await answer(writer, "END")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    tasks_before = asyncio.all_tasks()
    try:
        yield server.sockets[0].getsockname()[1], told
    finally:
        server.close()
        for writer in open_ones:
            writer.transport.abort()
        serving = [t for t in asyncio.all_tasks() - tasks_before if "serve" in repr(t.get_coro())]
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
