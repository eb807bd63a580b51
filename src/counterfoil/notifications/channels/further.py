"""Further channels, as many as Apprise knows: one for each address in NOTIFY_URLS.

Apprise blocks, so each send has a thread; one that hangs is left behind, and keeps its channel from starting another.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
import threading
import warnings
from collections.abc import Callable
from typing import Any

from counterfoil.errors import InvalidSetting
from counterfoil.notifications.channels.channel import SEND_WITHIN_S, TryLater
from counterfoil.notifications.messages import Message
from counterfoil.settings import Settings, source_of

_BETWEEN_URLS = re.compile(r",\s*(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,31})://")

TALKATIVE = ("apprise", "requests", "urllib3")
"""Libraries that log the addresses they ask, which are secrets."""

_TAME = str.maketrans({"<": "‹", ">": "›", "@": "＠"})
"""Some services read mentions and links out of plain text, however it was escaped."""


class FurtherChannel:
    """One address that Apprise knows."""

    def __init__(
        self, scheme: str, url: str, notify: Callable[..., Any], within_s: float = SEND_WITHIN_S
    ) -> None:
        self.name = f"{scheme}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"
        self.description = f"{scheme}://•••"
        self._notify = notify
        self._within_s = within_s
        self._under_way: threading.Thread | None = None

    async def send(self, message: Message) -> None:
        """Return once the service has taken it; raises TryLater within the deadline, whatever went wrong."""
        if self._under_way is not None and self._under_way.is_alive():
            raise TryLater("is still busy with the message before")
        try:
            async with asyncio.timeout(self._within_s):
                taken = await self._in_thread(message)
        except TimeoutError:
            raise TryLater(f"did not take the message within {self._within_s:g} s") from None
        if not taken:
            raise TryLater("did not take the message")

    async def close(self) -> None:
        """A thread that hangs ends with the process."""

    def _in_thread(self, message: Message) -> asyncio.Future[bool]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()

        def settle(taken: bool) -> None:
            if not future.done():
                future.set_result(taken)

        def work() -> None:
            taken = self._told(message)
            with contextlib.suppress(RuntimeError):  # the loop has ended before it
                loop.call_soon_threadsafe(settle, taken)

        self._under_way = threading.Thread(target=work, name=self.name, daemon=True)
        self._under_way.start()
        return future

    def _told(self, message: Message) -> bool:
        try:
            return bool(
                self._notify(title=message.title.translate(_TAME), body=message.text.translate(_TAME))
            )
        except Exception:  # noqa: BLE001 - a hundred services, each with errors of its own, whose texts may hold secrets
            return False


def further_channels(settings: Settings) -> list[FurtherChannel]:
    """The channels of NOTIFY_URLS; raises InvalidSetting, which quotes no address, for one that Apprise refuses."""
    if settings.notify_urls is None:
        return []
    variable = source_of("notify_urls")
    instantiate = _apprise(variable)
    urls = [url.strip() for url in _BETWEEN_URLS.split(settings.notify_urls.get_secret_value())]
    found = {}
    for number, url in enumerate(filter(None, urls), start=1):
        scheme = _SCHEME.match(url)
        service = instantiate(url) if scheme else None
        if scheme is None or service is None:
            known = f" ({scheme[1].lower()}://…)" if scheme else ""
            raise InvalidSetting(f"{variable}: address {number}{known} is none that Apprise takes")
        channel = FurtherChannel(scheme[1].lower(), url, service.notify)
        found[channel.name] = channel
    return list(found.values())


def _apprise(variable: str) -> Callable[[str], Any]:
    """How a service is made of its address."""
    try:
        import apprise  # noqa: PLC0415 - an extra, and slow to import
    except ImportError:
        raise InvalidSetting(
            f"{variable}: takes the extra notify: pip install 'counterfoil[notify]'"
        ) from None
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL + 10)
    asset = apprise.AppriseAsset(app_id="counterfoil", app_desc="counterfoil", async_mode=False)

    def instantiate(url: str) -> Any:
        with warnings.catch_warnings(action="ignore"):  # its hundred modules have some for their own authors
            return apprise.Apprise.instantiate(url, asset=asset)

    return instantiate
