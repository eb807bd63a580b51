"""What pages of other origins may call, and that nothing else is opened by it."""

from __future__ import annotations

from typing import Any

from litestar import Litestar, post

from counterfoil.api.auth import PUBLIC, Gate, is_authorised
from counterfoil.api.cross_origin import CROSS_ORIGIN, CrossOrigin
from counterfoil.settings import Settings


@post("/open", opt={CROSS_ORIGIN: True, PUBLIC: True})
async def open_to_all() -> None: ...


@post("/public", opt={PUBLIC: True})
async def public() -> None: ...


ROUTES = Litestar([open_to_all, public], openapi_config=None, logging_config=None).routes


def scope(method: str, path: str, **headers: bytes) -> dict[str, Any]:
    return {
        "method": method,
        "path": path,
        "headers": [(k.encode(), v) for k, v in headers.items()],
        "state": {},
    }


def test_a_preflight_is_answered_for_what_is_open_and_for_nothing_else() -> None:
    cross_origin = CrossOrigin(ROUTES)
    answer = cross_origin.preflight(scope("OPTIONS", "/open"))
    assert answer is not None
    assert answer.status == 204
    headers = dict(answer.headers)
    assert headers[b"access-control-allow-origin"] == b"*"
    assert headers[b"access-control-allow-methods"] == b"POST"
    assert b"authorization" not in headers[b"access-control-allow-headers"]
    assert b"access-control-allow-credentials" not in headers
    for path in ("/public", "/open/", "/open/x", "/"):
        assert cross_origin.preflight(scope("OPTIONS", path)) is None
    assert cross_origin.preflight(scope("POST", "/open")) is None


def test_only_the_open_method_s_answers_may_be_read() -> None:
    cross_origin = CrossOrigin(ROUTES)
    assert cross_origin.opens(scope("POST", "/open"))
    assert not cross_origin.opens(scope("GET", "/open"))
    assert not cross_origin.opens(scope("POST", "/public"))


def test_without_a_token_another_site_s_page_passes_to_what_is_public_but_without_authority() -> None:
    gate = Gate(Settings(_env_file=None), ROUTES)
    foreign = {"host": b"127.0.0.1:8080", "origin": b"https://shop.example"}
    rebound = {"host": b"evil.example"}
    for headers in (foreign, rebound):
        asked = scope("POST", "/open", **headers)
        assert gate.refusal(asked) is None
        assert not is_authorised(asked)
        refusal = gate.refusal(scope("POST", "/other", **headers))
        assert refusal is not None
        assert refusal.status == 403
    local = scope("POST", "/open", host=b"127.0.0.1:8080")
    assert gate.refusal(local) is None
    assert is_authorised(local)
