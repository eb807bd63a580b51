"""Who may ask: the bearer of the admin token, a page that was opened with it, or, where none is set, this machine."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler
from litestar.routes import BaseRoute, HTTPRoute
from litestar.types.internal_types import PathParameterDefinition

from counterfoil.api.sessions import CSRF_HEADER, Sessions
from counterfoil.errors import InvalidSetting, RequestError
from counterfoil.settings import Settings

PUBLIC = "public"
"""`opt={PUBLIC: True}` on a route handler: it needs no token, and its callers are counted (`RateLimit`)."""

UNGUARDED = "unguarded"
"""`opt={UNGUARDED: True}` on a route handler: it needs no token: the way in, and what pages are made of."""

PAGE = "page"
"""`opt={PAGE: True}` on a route handler: a page; a session may read it, and its own handler refuses who has none."""

FORMS = "forms"
"""`opt={FORMS: True}` on a route handler: its body need not be JSON."""

_AUTHORISED = "counterfoil_authorised"
_REFUSAL = "counterfoil_refusal"

_SAFE = ("GET", "HEAD")
_FOREIGN_SITES = (b"cross-site", b"same-site")

# The two guards below are coroutines because Litestar gives plain functions to a thread.


def check_exposure(settings: Settings) -> None:
    """Raise InvalidSetting when the HTTP port would be open to other machines without a token."""
    if settings.admin_token is None and not is_loopback(settings.http_host):
        raise InvalidSetting(
            f"COUNTERFOIL_ADMIN_TOKEN: must be set when COUNTERFOIL_HTTP_HOST is {settings.http_host}; "
            "without a token only a loopback address (127.0.0.1, ::1, localhost) is served"
        )


def is_loopback(host: str) -> bool:
    """True for 127.0.0.0/8, ::1 and localhost."""
    if host.lower() == "localhost":
        return True
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


class Gate:
    """Refuses a request before it is routed: without the token even an unknown path answers 401."""

    def __init__(self, settings: Settings, routes: Iterable[BaseRoute] = ()) -> None:
        token = settings.admin_token
        self._token = None if token is None else _digest(token.get_secret_value().encode())
        self._sessions = Sessions(settings)
        routes = list(routes)
        self._pages = marked_routes(routes, PAGE)
        self._open = [*marked_routes(routes, PUBLIC), *marked_routes(routes, UNGUARDED), *self._pages]

    def refusal(self, scope: Mapping[str, Any]) -> RequestError | None:
        """Why this request may not pass; None when it may."""
        refusal = self._lack_of_authority(scope)
        scope["state"][_AUTHORISED] = refusal is None
        scope["state"][_REFUSAL] = refusal
        return None if _is_among(self._open, scope) else refusal

    def _lack_of_authority(self, scope: Mapping[str, Any]) -> RequestError | None:
        if self._token is None:
            return _cross_site(scope["method"], dict(scope["headers"]))
        return None if self._holds_token(scope) else self._lack_of_session(scope)

    def _lack_of_session(self, scope: Mapping[str, Any]) -> RequestError | None:
        """A cookie alone opens pages to read; all else it opens to our own pages, which must show that they are."""
        session = self._sessions.of(scope["headers"])
        if session is None:
            return unauthorised()
        headers = dict(scope["headers"])
        if scope["method"] in _SAFE:
            allowed = _is_among(self._pages, scope) or is_same_origin(headers)
            return None if allowed else unauthorised()
        shown, wanted = headers.get(CSRF_HEADER.encode(), b""), self._sessions.csrf_token(session).encode()
        if is_same_origin(headers) and hmac.compare_digest(shown, wanted):
            return None
        return RequestError(403, "with a cookie only our own pages may change something; load the page anew")

    def _holds_token(self, scope: Mapping[str, Any]) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, token = (given[0] if len(given) == 1 else b"").partition(b" ")
        return hmac.compare_digest(_digest(token.strip()), self._token or b"") and scheme.lower() == b"bearer"


async def require_authority(
    connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
) -> None:
    """The second look, after routing: only a handler that is marked for it serves a request without authority."""
    if not is_authorised(connection.scope) and not handler.opt.get(PUBLIC) and not handler.opt.get(UNGUARDED):
        raise connection.scope["state"].get(_REFUSAL) or unauthorised()


async def require_json(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """A body must say that it is JSON: what a web page may send elsewhere without asking never does."""
    kind = connection.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and has_body(connection.scope["headers"]) and not handler.opt.get(FORMS):
        raise RequestError(415, "a body must be sent with Content-Type: application/json")


def is_authorised(scope: Mapping[str, Any]) -> bool:
    """True when the gate has seen the admin token, or needs none from a program on this machine."""
    return bool(scope["state"].get(_AUTHORISED))


def has_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """True when the request says that a body follows."""
    return announced_length(headers) > 0 or any(name == b"transfer-encoding" for name, _ in headers)


def announced_length(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """The Content-Length, 0 where there is none; the server has seen to it that it is a number."""
    return next((int(value) for name, value in headers if name == b"content-length"), 0)


def unauthorised() -> RequestError:
    """401; it does not say what was wrong with the token."""
    return RequestError(401, "takes Authorization: Bearer with the admin token")


def marked_routes(routes: Iterable[BaseRoute], mark: str) -> list[tuple[re.Pattern[str], frozenset[str]]]:
    """The paths that have handlers with `opt={mark: True}`, and the methods of these."""
    return [(route_pattern(route), methods) for route in routes if (methods := _marked_methods(route, mark))]


def route_pattern(route: BaseRoute) -> re.Pattern[str]:
    """The paths of a route, each parameter being one segment."""
    parts = [
        "[^/]+" if isinstance(part, PathParameterDefinition) else re.escape(part)
        for part in route.path_components
    ]
    return re.compile("/" + "/".join(parts))


def _marked_methods(route: BaseRoute, mark: str) -> frozenset[str]:
    handlers = route.route_handlers if isinstance(route, HTTPRoute) else []
    return frozenset(
        str(method) for handler in handlers if handler.opt.get(mark) for method in handler.http_methods
    )


def is_same_origin(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a browser says that a page of ours sends this; a page cannot write these headers itself."""
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site == b"same-origin"
    sender = headers.get(b"origin") or headers.get(b"referer") or b""
    host = headers.get(b"host", b"").lower()
    return bool(host) and _network_location(sender) == host.decode("latin-1")


def is_cross_site(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a browser says that a page of somebody else sends this; what is no browser says nothing."""
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site in _FOREIGN_SITES
    return b"origin" in headers and not is_same_origin(headers)


def is_navigation(method: str, headers: Mapping[bytes, bytes]) -> bool:
    """Whether a browser opens this as a page of its own, as for a link that somebody follows."""
    kind = headers.get(b"sec-fetch-mode"), headers.get(b"sec-fetch-dest")
    return method in _SAFE and kind == (b"navigate", b"document")


def _is_among(marked: Iterable[tuple[re.Pattern[str], frozenset[str]]], scope: Mapping[str, Any]) -> bool:
    path = scope["path"].rstrip("/")  # as routing does
    return any(scope["method"] in methods and pattern.fullmatch(path) for pattern, methods in marked)


def _cross_site(method: str, headers: Mapping[bytes, bytes]) -> RequestError | None:
    """Keep out a browser's pages: those whose name points here (DNS rebinding), and those of other sites."""
    host = headers.get(b"host", b"").decode("latin-1")
    if not is_loopback(_host_name(host)):
        return RequestError(403, "without an admin token only requests to a loopback name are served")
    origin = headers.get(b"origin")
    if origin is not None and origin.decode("latin-1").lower() != f"http://{host}".lower():
        return _other_site()
    is_foreign = headers.get(b"sec-fetch-site") in _FOREIGN_SITES
    return _other_site() if is_foreign and not is_navigation(method, headers) else None


def _other_site() -> RequestError:
    return RequestError(403, "without an admin token no other web site's requests are served")


def _network_location(address: bytes) -> str:
    try:
        return urlsplit(address.decode("latin-1")).netloc.lower()
    except ValueError:
        return ""


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
