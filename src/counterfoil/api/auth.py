"""Who may ask: the bearer of the admin token, or, where none is set, programs on this machine."""

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

from counterfoil.errors import InvalidSetting, RequestError
from counterfoil.settings import Settings

PUBLIC = "public"
"""`opt={PUBLIC: True}` on a route handler: it needs no token."""

FORMS = "forms"
"""`opt={FORMS: True}` on a route handler: its body need not be JSON."""

_AUTHORISED = "counterfoil_authorised"

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
        self._public = marked_routes(routes, PUBLIC)

    def refusal(self, scope: Mapping[str, Any]) -> RequestError | None:
        """Why this request may not pass; None when it may."""
        refusal = self._lack_of_authority(scope)
        scope["state"][_AUTHORISED] = refusal is None
        return None if self._is_public(scope) else refusal

    def _lack_of_authority(self, scope: Mapping[str, Any]) -> RequestError | None:
        if self._token is None:
            return _cross_site(dict(scope["headers"]))
        return None if self._holds_token(scope) else unauthorised()

    def _holds_token(self, scope: Mapping[str, Any]) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, token = (given[0] if len(given) == 1 else b"").partition(b" ")
        return hmac.compare_digest(_digest(token.strip()), self._token or b"") and scheme.lower() == b"bearer"

    def _is_public(self, scope: Mapping[str, Any]) -> bool:
        return any(
            scope["method"] in methods and pattern.fullmatch(scope["path"])
            for pattern, methods in self._public
        )


async def require_authority(
    connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
) -> None:
    """The second look, after routing: only a handler marked public serves a request without authority."""
    if not is_authorised(connection.scope) and not handler.opt.get(PUBLIC):
        raise unauthorised()


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


def _cross_site(headers: Mapping[bytes, bytes]) -> RequestError | None:
    """Keep out a browser's pages: those whose name points here (DNS rebinding), and those of other sites."""
    host = headers.get(b"host", b"").decode("latin-1")
    if not is_loopback(_host_name(host)):
        return RequestError(403, "without an admin token only requests to a loopback name are served")
    origin = headers.get(b"origin")
    if origin is not None and origin.decode("latin-1").lower() != f"http://{host}".lower():
        return RequestError(403, "without an admin token no other web site's requests are served")
    return None


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
