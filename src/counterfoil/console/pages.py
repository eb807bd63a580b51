"""`/ops`: the live state, the settings, and the way in with the admin token."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs

import asyncpg
import structlog
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery, RawBody

from counterfoil.api.auth import FORMS, PAGE, UNGUARDED, is_cross_site, is_navigation
from counterfoil.api.clients import Clients, same_client
from counterfoil.api.problems import handle_error, refusal_of
from counterfoil.api.rate_limit import Windows
from counterfoil.api.sessions import Sessions, session_cookie
from counterfoil.console.overview import KEPT_S, Looking, Part
from counterfoil.console.rates import Rates, sample_forever
from counterfoil.console.rendering import prepare, render
from counterfoil.console.static import static_file
from counterfoil.errors import InvalidSetting
from counterfoil.notifications.channels import Channel, channels_of
from counterfoil.settings import Settings
from counterfoil.settings_table import describe_settings
from counterfoil.telemetry.health import Health
from counterfoil.telemetry.metrics import Metrics

log = structlog.get_logger("counterfoil.console")

TRIES_A_MINUTE = 10
"""How often one client may try to log in with what is not the token."""

SAFEGUARDS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""On every page: nothing from elsewhere, no script or style within the page, in no frame."""

AnyRequest = Request[Any, Any, Any]


class Live:
    """A piece of a page that is rendered for all who look at once."""

    def __init__(
        self, make: Callable[[bool], Awaitable[str]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._make = make
        self._clock = clock
        self._making = asyncio.Lock()
        self._text = ""
        self._began_at = -KEPT_S

    async def text(self, *, fresh: bool = False) -> str:
        """As it was made within the last moments, or, `fresh`, since it was asked for."""
        oldest = self._clock() - (0 if fresh else KEPT_S)
        async with self._making:
            if self._began_at <= oldest:
                began_at = self._clock()
                self._text = await self._make(fresh)
                self._began_at = began_at
            return self._text


class Console:
    """What the pages share; the dependency `console` of their routes."""

    def __init__(
        self,
        settings: Settings,
        health: Health,
        metrics: Metrics,
        pool: Callable[[], asyncpg.Pool | None],
        version: str = "",
    ) -> None:
        self.settings = settings
        self.sessions = Sessions(settings)
        self.clients = Clients(settings)
        self.rates = Rates()
        self.looking = Looking(health, metrics, self.rates, pool)
        self._live = Live(self._render_live)
        self._tries = Windows(TRIES_A_MINUTE)
        self._version = version

    async def prepare(self) -> None:
        """Read what the first page would have to wait for."""
        await asyncio.to_thread(prepare)

    async def sample_forever(self, pool: asyncpg.Pool) -> None:
        """Watch how fast records are taken in, until cancelled."""
        await sample_forever(pool, self.settings.consumer_group, self.rates)

    async def live(self, *, fresh: bool = False) -> str:
        """The part of the overview that changes, the same for all who look; `fresh` after something was changed."""
        return await self._live.text(fresh=fresh)

    async def _render_live(self, fresh: bool) -> str:
        overview = await self.looking.overview(fresh=fresh)
        return render("live.html", {"overview": overview, "group": self.settings.consumer_group})

    def page(self, request: AnyRequest, template: str, status: int = 200, **values: Any) -> Response[str]:
        """A page, with what all of them show."""
        session = self.sessions.of(request.scope["headers"])
        shared = {
            "path": request.scope["path"].rstrip("/"),
            "version": self._version,
            "has_session": session is not None,
            "csrf_token": self.sessions.csrf_token(session) if session else "",
            "group": self.settings.consumer_group,
        }
        return html(render(template, shared | values), status)

    @cached_property
    def channels(self) -> Part[Sequence[Channel]]:
        """What alerts are told on, to be named only."""
        try:
            return Part(channels_of(self.settings))
        except InvalidSetting as error:
            return Part(None, str(error))

    def described(self) -> tuple[list[dict[str, str]], Part[Sequence[Channel]]]:
        """The settings and the channels; for a thread, since `.env` is read, and all that further channels need."""
        return describe_settings(self.settings), self.channels

    def count_try(self, request: AnyRequest) -> int:
        """Count a wrong try to log in: 0, or for how many seconds this client had better not try again."""
        return math.ceil(self._tries.wait_s(same_client(self.clients.address(request.scope))))

    def is_token(self, given: str) -> bool:
        """Whether this is the admin token; compared in constant time."""
        token = self.settings.admin_token
        return token is not None and hmac.compare_digest(_digest(given), _digest(token.get_secret_value()))


def html(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response[str]:
    """A page or a piece of one."""
    return Response(
        text,
        status_code=status,
        media_type="text/html",
        headers=SAFEGUARDS | dict(headers or {}),
    )


def to_page_or_login(request: AnyRequest, error: Exception) -> Response[Any]:
    """The handler of a page's errors: who has no session is led to where one begins."""
    refusal = refusal_of(error)
    if refusal is None or refusal.status != 401:
        return handle_error(request, error)
    if request.headers.get("hx-request"):
        return html("", 401, {"HX-Redirect": "/ops/login"})
    if _comes_from_elsewhere(request):  # a strict cookie is not sent along, so our own page must ask
        return html(render("again.html", {"path": request.scope["path"]}))
    return redirect("/ops/login")


AS_PAGE: Any = {
    "opt": {PAGE: True},
    "include_in_schema": False,
    "exception_handlers": {Exception: to_page_or_login},
}


@get("/ops", **AS_PAGE)
async def ops(request: AnyRequest, console: NamedDependency[Console]) -> Response[str]:
    """The live state."""
    return console.page(request, "ops.html", live=await console.live())


@get("/ops/live", **AS_PAGE)
async def live(console: NamedDependency[Console], fresh: FromQuery[bool] = False) -> Response[str]:
    """The part of the page that changes."""
    return html(await console.live(fresh=fresh))


@get("/ops/settings", **AS_PAGE)
async def ops_settings(request: AnyRequest, console: NamedDependency[Console]) -> Response[str]:
    """What is configured, and what can be tried out."""
    described, channels = await asyncio.to_thread(console.described)
    given = [row for row in described if row["source"] != "default"]
    usual = [row for row in described if row["source"] == "default"]
    return console.page(
        request,
        "settings.html",
        groups=[("Set here", given), ("At their defaults", usual)],
        channels=channels,
        trials=("webhook", "email"),
        webhook_hosts=console.settings.webhook_allowed_hosts,
    )


@get("/ops/login", opt={UNGUARDED: True}, include_in_schema=False)
async def login_page(request: AnyRequest, console: NamedDependency[Console]) -> Response[Any]:
    """Asks for the token, where one is set."""
    if not console.sessions.needed or console.sessions.of(request.scope["headers"]):
        return redirect("/ops")
    return console.page(request, "login.html", trouble="")


@post("/ops/login", opt={UNGUARDED: True, FORMS: True}, include_in_schema=False)
async def login(request: AnyRequest, body: RawBody, console: NamedDependency[Console]) -> Response[Any]:
    """Takes the token once, and begins a session."""
    if not console.sessions.needed:
        return redirect("/ops")
    if is_cross_site(dict(request.scope["headers"])):
        return console.page(
            request, "login.html", 403, trouble="Another site has sent this. Log in from here."
        )
    if console.is_token(_field(body, "token")):
        return redirect("/ops", _cookie(request, console, console.sessions.begin()))
    return _refused(request, console)


@post("/ops/logout", include_in_schema=False, status_code=200)
async def logout(request: AnyRequest, console: NamedDependency[Console]) -> Response[str]:
    """Ends the session in this browser."""
    return html("", 200, {"HX-Redirect": "/ops/login", "Set-Cookie": _cookie(request, console, "")})


def _refused(request: AnyRequest, console: Console) -> Response[str]:
    """Wrong ones alone are counted: whoever else stands behind the same proxy, the right token gets in."""
    wait_s = console.count_try(request)
    if not wait_s:
        log.warning("login_refused", address=str(console.clients.address(request.scope)))
        return console.page(request, "login.html", 401, trouble="This is not the admin token.")
    answer = console.page(
        request, "login.html", 429, trouble=f"Too many wrong tries. Wait {wait_s} s, then try again."
    )
    answer.headers["Retry-After"] = str(wait_s)
    return answer


def _cookie(request: AnyRequest, console: Console, value: str) -> str:
    return session_cookie(value, is_https=console.clients.is_https(request.scope))


def redirect(path: str, cookie: str | None = None) -> Response[Any]:
    """The way to another page of ours."""
    return html("", 303, {"Location": path} | ({"Set-Cookie": cookie} if cookie else {}))


def _comes_from_elsewhere(request: AnyRequest) -> bool:
    headers = dict(request.scope["headers"])
    is_foreign = headers.get(b"sec-fetch-site") in {b"cross-site", b"same-site"}
    return is_foreign and is_navigation(request.method, headers)


def _field(body: bytes, name: str) -> str:
    """A field of a posted form; '' where it is missing."""
    fields = parse_qs(body.decode("utf-8", "replace"), errors="replace")
    return fields.get(name, [""])[0].strip()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


CONSOLE_ROUTES = (ops, live, ops_settings, login_page, login, logout, static_file)
