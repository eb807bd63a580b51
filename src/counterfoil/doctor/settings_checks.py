"""What is wrong with the settings themselves, beyond what they refuse; nothing is asked and no message is sent."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from counterfoil.api.auth import check_exposure, is_loopback
from counterfoil.doctor.findings import Finding, problem, warning, well
from counterfoil.errors import InvalidSetting
from counterfoil.notifications.channels import channels_of
from counterfoil.settings import Settings, masked_webhook, source_of


def check_settings(settings: Settings) -> list[Finding]:
    """Channels and the guard of the HTTP port."""
    return [*_channels(settings), *_guard(settings)]


def _channels(settings: Settings) -> Iterator[Finding]:
    try:
        channels = channels_of(settings)
    except InvalidSetting as error:
        yield problem("channels", str(error), "correct the variable that is named, or install what it takes")
        return
    yield from _webhook(settings)
    if channels:
        yield well("channels", f"alerts are told on {', '.join(channel.description for channel in channels)}")
    else:
        advice = f"set {source_of('slack_webhook_url')}, or SMTP_HOST, MAIL_FROM and EMAIL_TO"
        yield well("channels", "nobody is told of alerts: no channel is set", advice)


def _webhook(settings: Settings) -> Iterator[Finding]:
    if settings.slack_webhook_url is None:
        return
    address = settings.slack_webhook_url.get_secret_value()
    parts = urlsplit(address)
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        variable = source_of("slack_webhook_url")
        told = f"alerts and the address's secret go to {masked_webhook(address)} unencrypted"
        yield warning("channels", told, f"begin {variable} with https://")


def _guard(settings: Settings) -> Iterator[Finding]:
    try:
        check_exposure(settings)
    except InvalidSetting as error:
        fix = "set COUNTERFOIL_ADMIN_TOKEN, for instance to what `openssl rand -hex 32` prints"
        yield problem("http", str(error), fix)
        return
    if settings.admin_token is None:
        yield well("http", f"no token, and only this machine ({settings.http_host}) is served")
    else:
        yield well("http", "every guarded route takes the token")
