"""What the pages keep instead of the admin token: a value that expires and that only we could have made."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterable

from counterfoil.settings import Settings

COOKIE = "counterfoil_ops"
LASTS_S = 12 * 60 * 60

CSRF_HEADER = "x-csrf-token"

_SESSION = b"counterfoil: a session of the pages, 2"
_PAGE = b"counterfoil: what a page of a session sends along, 2"
"""What each key is for: nothing that one seals passes for what the other does."""


class Sessions:
    """Gives out and recognises sessions by the admin token alone, so that every worker knows those of the others."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        token = settings.admin_token
        secret = None if token is None else token.get_secret_value().encode()
        self._session_key = None if secret is None else _mac(secret, _SESSION)
        self._page_key = b"" if secret is None else _mac(secret, _PAGE)
        self._clock = clock

    @property
    def needed(self) -> bool:
        """False where no token is set: this machine is open."""
        return self._session_key is not None

    def begin(self) -> str:
        """A session as its cookie's value, for who has shown the token."""
        claims = f"{int(self._clock()) + LASTS_S}.{secrets.token_hex(16)}"
        return f"{claims}.{self._seal(claims)}"

    def of(self, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        """The session that a request's cookies name, None where there is none that stands."""
        return next((value for value in _cookies(headers) if self._stands(value)), None)

    def csrf_token(self, session: str) -> str:
        """What a page of this session sends along with whatever changes something."""
        return _mac(self._page_key, session.encode()).hex()

    def _stands(self, session: str) -> bool:
        claims, _, seal = session.rpartition(".")
        until = claims.partition(".")[0]
        if self._session_key is None or not hmac.compare_digest(seal.encode(), self._seal(claims).encode()):
            return False
        return until.isascii() and until.isdigit() and int(until) > self._clock()

    def _seal(self, text: str) -> str:
        return _mac(self._session_key or b"", text.encode()).hex()


def _cookies(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """The values of our cookie, however many lines or paths they come by."""
    pairs = [pair.partition(b"=") for name, line in headers if name == b"cookie" for pair in line.split(b";")]
    return [value.strip().decode("latin-1") for name, _, value in pairs if name.strip() == COOKIE.encode()]


def session_cookie(value: str, *, is_https: bool) -> str:
    """The Set-Cookie line that begins a session, or ends it where the value is empty."""
    until = f"Max-Age={LASTS_S if value else 0}"
    parts = [
        f"{COOKIE}={value}",
        "Path=/",
        until,
        "HttpOnly",
        "SameSite=Strict",
        *(["Secure"] if is_https else []),
    ]
    return "; ".join(parts)


def _mac(key: bytes, text: bytes) -> bytes:
    return hmac.new(key, text, hashlib.sha256).digest()
