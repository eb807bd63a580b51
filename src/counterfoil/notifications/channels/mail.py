"""Mail by SMTP: text and HTML in one mail, handed over to one server.

The password goes over TLS, or to this machine, or nowhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime

import aiosmtplib
import structlog
from aiosmtplib.errors import (
    SMTPDataError,
    SMTPException,
    SMTPRecipientsRefused,
    SMTPResponseException,
    SMTPServerDisconnected,
)

from counterfoil.api.auth import is_loopback
from counterfoil.notifications.channels.channel import SEND_WITHIN_S, Gone, Refused, TryLater
from counterfoil.notifications.messages import Message
from counterfoil.settings import Settings, sender

log = structlog.get_logger("counterfoil.mail")

TLS_PORT = 465
LEAVE_WITHIN_S = 1.0

_POLICY = SMTP_POLICY.clone(cte_type="7bit")  # not every server takes 8 bits
_OWN_NAME = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*").fullmatch

Connect = Callable[[], Awaitable[socket.socket]]


class _NoSecrecy(Exception):
    """The server offers no TLS, and the password stays here."""


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mail is handed over; `connect` makes the connection where not simply the host is connected to."""

    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    connect: Connect | None = None
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Envelope:
    """Who writes to whom; `name` is the sender's, or ''."""

    sender: str
    recipients: tuple[str, ...]
    name: str = ""


class MailChannel:
    """Sends each message as one mail to all recipients."""

    name = "email"

    def __init__(self, server: MailServer, envelope: Envelope, *, within_s: float = SEND_WITHIN_S) -> None:
        self._server = server
        self._envelope = envelope
        self._within_s = within_s
        self.description = f"{', '.join(envelope.recipients)} by {server.host}:{server.port}"

    async def send(self, message: Message) -> None:
        """Return once the server has taken it for somebody; raises TryLater or Refused within the deadline."""
        mail = _written(message, self._envelope)
        smtp = await self._client()
        try:
            async with asyncio.timeout(self._within_s):
                await self._hand_over(smtp, mail)
        except TimeoutError:  # perhaps it was taken: the mail keeps its id
            raise TryLater(f"did not take the mail within {self._within_s:g} s") from None
        except _NoSecrecy:
            raise TryLater("offers no TLS: the password was not sent") from None
        except (SMTPException, OSError, ValueError) as error:
            raise _verdict(error) from None
        else:
            await _take_leave(smtp)
        finally:
            smtp.close()

    async def close(self) -> None:
        """Nothing is held between messages."""

    async def _client(self) -> aiosmtplib.SMTP:
        server = self._server
        place = (
            {"hostname": server.host, "port": server.port}
            if server.connect is None
            else {"hostname": server.host}
        )
        return aiosmtplib.SMTP(
            **place,
            use_tls=server.port == TLS_PORT,
            start_tls=False,  # it is done below, so that we see whether it was
            tls_context=server.tls or await asyncio.to_thread(_tls_context, server.host),
            local_hostname=_own_name(),
            timeout=self._within_s,
        )

    async def _hand_over(self, smtp: aiosmtplib.SMTP, mail: bytes) -> None:
        server = self._server
        made = await server.connect() if server.connect else None
        await smtp.connect(sock=made)
        is_secret = server.port == TLS_PORT
        if not is_secret:
            await smtp.ehlo()
            if smtp.supports_extension("starttls"):
                await smtp.starttls()
                is_secret = True
        if server.user is not None:
            if not is_secret and not is_loopback(server.host):
                raise _NoSecrecy
            await smtp.login(server.user, server.password or "")
        refused, _ = await smtp.sendmail(self._envelope.sender, self._envelope.recipients, mail)
        if refused:
            log.warning(
                "mail_recipients_refused",
                refused=len(refused),
                of=len(self._envelope.recipients),
                codes=sorted({response.code for response in refused.values()}),
            )


def mail_of(settings: Settings) -> MailChannel | None:
    """The channel of SMTP_HOST; None where that is not set."""
    found = sender(settings.mail_from or "")
    if settings.smtp_host is None or found is None:
        return None
    password = settings.smtp_pass
    server = MailServer(
        settings.smtp_host,
        settings.smtp_port,
        settings.smtp_user,
        None if password is None else password.get_secret_value(),
    )
    name, address = found
    return MailChannel(server, Envelope(address, settings.email_to, name))


def mail_of_message(message: Message, envelope: Envelope, now: datetime) -> EmailMessage:
    """The mail: its id stays the same however often the message is sent."""
    mail = EmailMessage(policy=_POLICY)
    local, _, domain = envelope.sender.rpartition("@")
    mail["From"] = Address(_literal(envelope.name), local, domain)
    mail["To"] = ", ".join(envelope.recipients)
    mail["Subject"] = _literal(message.title)
    mail["Date"] = format_datetime(now)
    mail["Message-ID"] = f"<{message.message_id}@{domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(message.body or message.text, cte="quoted-printable")
    mail.add_alternative(message.html, subtype="html", cte="quoted-printable")
    return mail


def _written(message: Message, envelope: Envelope) -> bytes:
    """The mail as it is sent; raises Refused for what cannot be written as one."""
    try:
        return mail_of_message(message, envelope, datetime.now(UTC)).as_bytes()
    except (MessageError, ValueError) as error:
        raise Refused(f"the mail could not be written ({type(error).__name__})") from None


def _literal(text: str) -> str:
    """The text with no encoded word in it, which `email` would decode, line breaks and all."""
    return text.replace("=?", "= ?")


async def _take_leave(smtp: aiosmtplib.SMTP) -> None:
    """The mail is taken: nothing that goes wrong now matters."""
    with contextlib.suppress(SMTPException, OSError, TimeoutError):
        async with asyncio.timeout(LEAVE_WITHIN_S):
            await smtp.quit()


def _verdict(error: Exception) -> TryLater | Refused:
    """Whether to try again; of what the server said only its code is repeated."""
    codes = _codes(error)
    if not codes:
        lost = isinstance(error, SMTPServerDisconnected)
        return TryLater(f"{'hung up' if lost else 'could not be reached'} ({type(error).__name__})")
    said = f"answered {', '.join(map(str, codes))}"
    if not all(500 <= code < 600 for code in codes):
        return TryLater(said)
    return Refused(said) if isinstance(error, SMTPDataError) else Gone(said)


def _codes(error: Exception) -> Sequence[int]:
    if isinstance(error, SMTPRecipientsRefused):
        return sorted({recipient.code for recipient in error.recipients})
    return [error.code] if isinstance(error, SMTPResponseException) else []


def _tls_context(host: str) -> ssl.SSLContext:
    """Verifies the host's name, except on this machine: nobody is in between, and its certificate is homemade."""
    if not is_loopback(host):
        return ssl.create_default_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _own_name() -> str:
    """How we call ourselves; asking DNS for a better name can take longer than the mail."""
    name = socket.gethostname()
    return name if _OWN_NAME(name) else "localhost"
