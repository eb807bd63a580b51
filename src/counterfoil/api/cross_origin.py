"""What pages of other origins may call: a pixel fires from the shop's pages, wherever they come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from litestar.routes import BaseRoute

from counterfoil.api.auth import marked_routes
from counterfoil.api.problems import Answer

CROSS_ORIGIN = "cross_origin"
"""`opt={CROSS_ORIGIN: True}` on a route handler: pages of every origin may call it and read its answer."""

ANY_ORIGIN = (b"access-control-allow-origin", b"*")

PREFLIGHT_KEPT_S = 86_400


class CrossOrigin:
    """Answers a browser's question before such a call, and says on each answer that the page may read it."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._marked = marked_routes(routes, CROSS_ORIGIN)

    def preflight(self, scope: Mapping[str, Any]) -> Answer | None:
        """The answer to OPTIONS on an open path, else None."""
        methods = self._methods(scope["path"]) if scope["method"] == "OPTIONS" else frozenset()
        return _permission(methods) if methods else None

    def opens(self, scope: Mapping[str, Any]) -> bool:
        """Whether pages of other origins may read the answer to this request."""
        return scope["method"] in self._methods(scope["path"])

    def _methods(self, path: str) -> frozenset[str]:
        found = [methods for pattern, methods in self._marked if pattern.fullmatch(path)]
        return frozenset().union(*found)


def _permission(methods: frozenset[str]) -> Answer:
    allowed = ", ".join(sorted(methods)).encode()
    headers = (
        (b"allow", b"OPTIONS, " + allowed),
        ANY_ORIGIN,
        (b"access-control-allow-methods", allowed),
        (b"access-control-allow-headers", b"content-type"),
        (b"access-control-max-age", str(PREFLIGHT_KEPT_S).encode()),
    )
    return Answer(204, headers, b"")
