"""`/api/ops/settings`: a test message over what is configured, or over what the caller gives.

Where the caller says where to, that is an outsider's wish: the guard looks at it, and of a failure he hears one
sentence, whatever it was, so that nobody feels his way through our networks.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import uuid4

import structlog
from litestar import Request, post
from litestar.di import NamedDependency
from litestar.params import RawBody
from msgspec import Meta, Struct

from counterfoil.api.problems import invalid_field
from counterfoil.api.rate_limit import LatestMinute
from counterfoil.api.requests import read_body, takes
from counterfoil.api.writing import Time, time_text
from counterfoil.errors import RequestError
from counterfoil.notifications.channels import (
    MailChannel,
    Refused,
    TryLater,
    WebhookChannel,
    mail_of,
    webhook_of,
)
from counterfoil.notifications.channels.mail import Envelope, MailServer
from counterfoil.notifications.guard import (
    WEBHOOK_PORT,
    Forbidden,
    Guard,
    RuleBroken,
    check_address,
    check_smtp_port,
    connected_socket,
    smtp_host,
    webhook_url,
)
from counterfoil.notifications.messages import Message, trial_message
from counterfoil.settings import Settings, mail_address, sender

log = structlog.get_logger("counterfoil.ops")

PATH = "/api/ops/settings"

SENDS_A_MINUTE = 10
"""Of both kinds together, in this worker."""

WITHIN_S = 5.0
"""For looking up, connecting and sending to what a caller gives."""

MOST_RECIPIENTS = 10
SUBMISSION_PORT = 587

NOT_DELIVERED = (
    "the test message could not be delivered; check what was given, and that it can be reached from here"
)

GUARD = Guard()

_COUNTED = "test_sends"

Text = Annotated[str, Meta(max_length=4_096)]


class WebhookTrial(Struct, rename="camel", forbid_unknown_fields=True):
    """Where to post a test message; the configured webhook where nothing is given."""

    webhook_url: Text | None = None


class MailTrial(Struct, rename="camel", forbid_unknown_fields=True):
    """How to mail a test message; the configured mail where nothing at all is given."""

    smtp_host: Text | None = None
    smtp_port: int | None = None
    smtp_user: Text | None = None
    smtp_pass: Text | None = None
    email_from: Text | None = None
    email_to: Text | None = None

    @property
    def is_empty(self) -> bool:
        """True when nothing is given."""
        return not any(getattr(self, name) for name in self.__struct_fields__)


class TrialDone(Struct):
    """The test message was taken."""

    success: bool
    message: str
    timestamp: Time


@post(f"{PATH}/test-webhook", status_code=200, operation_class=takes(WebhookTrial))
async def send_test_webhook(
    request: Request[Any, Any, Any], body: RawBody, settings: NamedDependency[Settings]
) -> TrialDone:
    """Post a test alert; 502 when it was not taken."""
    _count(request)
    wanted = read_body(body or b"{}", WebhookTrial)
    if wanted.webhook_url:
        await _undisclosed("webhook", _post_to(wanted.webhook_url, settings))
    else:
        channel = webhook_of(settings)
        if channel is None:
            raise invalid_field("webhookUrl", "is required, since SLACK_WEBHOOK_URL is not set")
        await _disclosed("the webhook", channel.send(_message()))
    return _done("Test alert sent successfully")


@post(f"{PATH}/test-email", status_code=200, operation_class=takes(MailTrial))
async def send_test_mail(
    request: Request[Any, Any, Any], body: RawBody, settings: NamedDependency[Settings]
) -> TrialDone:
    """Mail a test alert; 502 when it was not taken."""
    _count(request)
    wanted = read_body(body or b"{}", MailTrial)
    if not wanted.is_empty:
        await _undisclosed("email", _mail_by(wanted, settings))
    else:
        channel = mail_of(settings)
        if channel is None:
            raise invalid_field("smtpHost", "is required, since SMTP_HOST is not set")
        await _disclosed("the mail server", channel.send(_message()))
    return _done("Test email sent successfully")


OPS_TEST_ROUTES = (send_test_webhook, send_test_mail)


def _count(request: Request[Any, Any, Any]) -> None:
    """Raise 429 for what is too much in any minute."""
    state = request.app.state
    if _COUNTED not in state:
        state[_COUNTED] = LatestMinute(SENDS_A_MINUTE)
    wait_s = state[_COUNTED].wait_s()
    if wait_s:
        raise RequestError(
            429, f"at most {SENDS_A_MINUTE} test messages a minute", retry_after=max(1, math.ceil(wait_s))
        )


async def _disclosed(what: str, sending: Awaitable[None]) -> None:
    """Send to what the operator has configured, who hears what was answered."""
    try:
        await sending
    except (TryLater, Refused) as error:
        raise RequestError(502, f"{what} {error}") from None


async def _undisclosed(channel: str, sending: Awaitable[None]) -> None:
    """Send to what a caller gave, who hears nothing but that it failed; the log knows why."""
    try:
        async with asyncio.timeout(WITHIN_S):
            await sending
    except (TryLater, Refused, Forbidden, OSError) as error:
        log.info("test_send_failed", channel=channel, reason=_reason(error))
        raise RequestError(502, NOT_DELIVERED) from None


def _reason(error: Exception) -> str:
    return type(error).__name__ if isinstance(error, OSError) else str(error)


async def _post_to(address: str, settings: Settings) -> None:
    with _rules("webhookUrl"):
        url = webhook_url(address.strip(), settings.webhook_allowed_hosts)
    host = url.raw_host or ""
    endpoints = await GUARD.endpoints(host, WEBHOOK_PORT)
    channel = WebhookChannel(str(url), connector=lambda: GUARD.connector(host, endpoints), within_s=WITHIN_S)
    await channel.send(_message())


async def _mail_by(wanted: MailTrial, settings: Settings) -> None:
    allow_private = settings.smtp_test_allow_private
    with _rules("smtpHost"):
        host = check_address(smtp_host(_given(wanted.smtp_host, "smtpHost")), allow_private=allow_private)
    with _rules("smtpPort"):
        port = check_smtp_port(SUBMISSION_PORT if wanted.smtp_port is None else wanted.smtp_port)
    envelope = _envelope(wanted)
    user, password = wanted.smtp_user or None, wanted.smtp_pass or None
    if user or password:
        _given(user, "smtpUser")
        _given(password, "smtpPass")
    endpoints = await GUARD.endpoints(host, port, allow_private=allow_private)
    server = MailServer(host, port, user, password, lambda: connected_socket(endpoints), GUARD.tls)
    await MailChannel(server, envelope, within_s=WITHIN_S).send(_message())


def _envelope(wanted: MailTrial) -> Envelope:
    found = sender(_given(wanted.email_from, "emailFrom"))
    if found is None:
        raise invalid_field("emailFrom", "must be an address like ops@example.org")
    parts = [part for part in _given(wanted.email_to, "emailTo").split(",") if part.strip()]
    recipients = [address for part in parts if (address := mail_address(part))]
    if len(recipients) != len(parts) or not 0 < len(parts) <= MOST_RECIPIENTS:
        raise invalid_field(
            "emailTo", f"must be 1 to {MOST_RECIPIENTS} addresses like ops@example.org, separated by commas"
        )
    name, address = found
    return Envelope(address, tuple(dict.fromkeys(recipients)), name)


def _given(value: str | None, field: str) -> str:
    if not value or not value.strip():
        raise invalid_field(field, "is required")
    return value


@contextmanager
def _rules(field: str) -> Iterator[None]:
    """422 for the field whose rule is broken."""
    try:
        yield
    except RuleBroken as error:
        raise invalid_field(field, str(error)) from None


def _message() -> Message:
    return trial_message(f"test-{uuid4()}")


def _done(message: str) -> TrialDone:
    return TrialDone(success=True, message=message, timestamp=time_text(datetime.now(UTC)))
