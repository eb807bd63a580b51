"""The channels on which alerts are told: a webhook, mail, and whatever Apprise knows."""

from __future__ import annotations

from counterfoil.notifications.channels.channel import SEND_WITHIN_S, Channel, Gone, Refused, TryLater
from counterfoil.notifications.channels.further import further_channels
from counterfoil.notifications.channels.mail import MailChannel, mail_of
from counterfoil.notifications.channels.webhook import WebhookChannel, webhook_of
from counterfoil.settings import Settings

__all__ = [
    "SEND_WITHIN_S",
    "Channel",
    "Gone",
    "MailChannel",
    "Refused",
    "TryLater",
    "WebhookChannel",
    "channels_of",
    "mail_of",
    "webhook_of",
]


def channels_of(settings: Settings) -> tuple[Channel, ...]:
    """The channels that are configured, each name once; raises InvalidSetting for one that cannot be used."""
    webhook, mail = webhook_of(settings), mail_of(settings)
    return (
        *([webhook] if webhook else []),
        *([mail] if mail else []),
        *further_channels(settings),
    )
