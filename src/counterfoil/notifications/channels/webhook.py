"""The webhook of Slack, or of one that takes the same: a POST of the plain text and its blocks.

The address is a secret and stands in no error: whoever has its path may write into the channel.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp
import msgspec
from yarl import URL

from counterfoil.notifications.channels.channel import SEND_WITHIN_S, Gone, Refused, TryLater
from counterfoil.notifications.messages import Message
from counterfoil.settings import Settings, masked_webhook

LONGEST_ANSWER = 64 * 1024
LONGEST_RETRY_AFTER_S = 3_600.0
REASON_WITHIN_S = 1.0

REFUSES_THE_MESSAGE = frozenset({400, 403})
REFUSES_ALL = frozenset({404, 410})
"""For good, both; whatever else it answers may be mended: a proxy on the way, a login, an address that moved."""

REASONS = frozenset(
    {
        "action_prohibited",
        "channel_is_archived",
        "channel_not_found",
        "invalid_blocks",
        "invalid_payload",
        "invalid_token",
        "no_active_hooks",
        "no_service",
        "no_service_id",
        "no_team",
        "no_text",
        "posting_to_general_channel_denied",
        "rate_limited",
        "team_disabled",
        "too_many_attachments",
        "user_not_found",
    }
)
"""What Slack says beside the status; whatever else an answer holds is not repeated."""

_SECONDS = re.compile(r"[0-9]+").fullmatch

_HEADERS = {
    "Content-Type": "application/json; charset=utf-8",
    "User-Agent": "counterfoil",
    "Accept-Encoding": "identity",
}

Connector = Callable[[], aiohttp.BaseConnector]


def _direct() -> aiohttp.BaseConnector:
    return aiohttp.TCPConnector(
        force_close=True
    )  # messages are rare: a kept connection would be gone by the next


def _now() -> datetime:
    return datetime.now(UTC)


class WebhookChannel:
    """Posts to one address; each message over a connection of its own, and no redirect is followed."""

    name = "webhook"

    def __init__(
        self,
        address: str,
        *,
        connector: Connector = _direct,
        within_s: float = SEND_WITHIN_S,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._url = URL(address, encoded=True)
        self._connector = connector
        self._within_s = within_s
        self._clock = clock
        self.description = masked_webhook(address)

    async def send(self, message: Message) -> None:
        """Return once it has answered 2xx; raises TryLater or Refused within the deadline."""
        try:
            async with asyncio.timeout(self._within_s):
                await self._post(payload_of(message))
        except TimeoutError:
            raise TryLater(f"did not answer within {self._within_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:  # their texts may hold the address
            raise TryLater(f"could not be reached ({type(error).__name__})") from None

    async def close(self) -> None:
        """Nothing is held between messages."""

    async def _post(self, payload: bytes) -> None:
        async with (
            aiohttp.ClientSession(
                connector=self._connector(),
                headers=_HEADERS,
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            ) as session,
            session.post(self._url, data=payload, allow_redirects=False) as answer,
        ):
            if 200 <= answer.status < 300:  # taken, whatever else it says, and however slowly
                return
            said = f"answered {answer.status}{await _reason(answer)}"
            if answer.status in REFUSES_ALL:
                raise Gone(said)
            if answer.status in REFUSES_THE_MESSAGE:
                raise Refused(said)
            raise TryLater(said, retry_after_s(answer.headers.get("Retry-After"), self._clock()))


def webhook_of(settings: Settings) -> WebhookChannel | None:
    """The channel of SLACK_WEBHOOK_URL; None where that is not set."""
    address = settings.slack_webhook_url
    return None if address is None else WebhookChannel(address.get_secret_value())


def payload_of(message: Message) -> bytes:
    """What is posted; links in it are not opened for a preview."""
    return msgspec.json.encode(
        {
            "text": message.slack_text,
            "blocks": list(message.blocks),
            "unfurl_links": False,
            "unfurl_media": False,
        }
    )


def retry_after_s(header: str | None, now: datetime) -> float | None:
    """How long a Retry-After asks for, in seconds or until a date, an hour at most; None where it says nothing."""
    text = (header or "").strip()
    if _SECONDS(text):
        digits = text.lstrip("0") or "0"
        return LONGEST_RETRY_AFTER_S if len(digits) > 4 else min(float(digits), LONGEST_RETRY_AFTER_S)
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return min(max((until - now).total_seconds(), 0.0), LONGEST_RETRY_AFTER_S)


async def _reason(answer: aiohttp.ClientResponse) -> str:
    """What Slack says beside the status, where it says one of its own words soon enough."""
    said = bytearray()
    try:
        async with asyncio.timeout(REASON_WITHIN_S):
            while len(said) < LONGEST_ANSWER and (part := await answer.content.readany()):
                said += part
    except (TimeoutError, aiohttp.ClientError, OSError):
        return ""
    word = bytes(said[:64]).decode("ascii", "replace").strip()
    return f" ({word})" if word in REASONS else ""
