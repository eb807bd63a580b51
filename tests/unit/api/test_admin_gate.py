"""Who may ask: tokens, loopback names, and the addresses that may be served at all."""

from __future__ import annotations

from typing import Any

import pytest
from litestar import Litestar, get
from litestar.params import FromPath

from counterfoil.api.auth import PUBLIC, Gate, check_exposure, is_loopback, route_pattern
from counterfoil.errors import InvalidSetting
from counterfoil.settings import Settings


def settings_with(**values: Any) -> Settings:
    return Settings(_env_file=None, **values)


def status_of(gate: Gate, path: str = "/admin/x", method: str = "GET", **headers: bytes) -> int | None:
    named = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": named, "state": {}}
    refusal = gate.refusal(scope)
    return refusal.status if refusal else None


@pytest.fixture
def gate() -> Gate:
    return Gate(settings_with(admin_token="s3cret"))


@pytest.fixture
def open_gate() -> Gate:
    return Gate(settings_with())


@pytest.mark.parametrize("value", [b"Bearer s3cret", b"bearer s3cret", b"BEARER  s3cret "])
def test_the_bearer_of_the_token_passes(gate: Gate, value: bytes) -> None:
    assert status_of(gate, authorization=value) is None


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"s3cret",
        b"Bearer",
        b"Bearer s3cre",
        b"Bearer s3crets",
        b"Basic s3cret",
        "Bearer gehörtß".encode(),
        b"Bearer \xff\xfe",
    ],
)
def test_anything_else_is_401(gate: Gate, value: bytes) -> None:
    assert status_of(gate, authorization=value) == 401
    assert status_of(gate) == 401


def test_two_authorization_headers_are_401(gate: Gate) -> None:
    headers = [(b"authorization", b"Bearer s3cret"), (b"authorization", b"Bearer x")]
    refusal = gate.refusal({"method": "GET", "path": "/x", "headers": headers, "state": {}})
    assert refusal is not None
    assert refusal.status == 401


@pytest.mark.parametrize(
    "host", [b"127.0.0.1:8080", b"localhost", b"LOCALHOST:1", b"[::1]:8080", b"127.9.9.9"]
)
def test_without_a_token_loopback_names_pass(open_gate: Gate, host: bytes) -> None:
    assert status_of(open_gate, host=host) is None


@pytest.mark.parametrize(
    "host", [b"", b"evil.example", b"127.0.0.1.evil.example", b"localhost.evil", b"10.0.0.1", b"[", b"\xff"]
)
def test_without_a_token_other_names_are_403(open_gate: Gate, host: bytes) -> None:
    assert status_of(open_gate, host=host) == 403


@pytest.mark.parametrize(
    "origin", [b"https://evil.example", b"null", b"http://localhost:3000", b"http://127.0.0.1"]
)
def test_without_a_token_other_sites_are_403(open_gate: Gate, origin: bytes) -> None:
    assert status_of(open_gate, "/admin/x", "POST", host=b"127.0.0.1:8080", origin=origin) == 403


def test_without_a_token_our_own_pages_pass(open_gate: Gate) -> None:
    assert status_of(open_gate, host=b"127.0.0.1:8080", origin=b"http://127.0.0.1:8080") is None


def test_public_routes_pass_by_path_and_method() -> None:
    @get("/api/v1/vouchers/{voucher:str}/scan", opt={PUBLIC: True})
    async def scan(voucher: FromPath[str]) -> str:
        return voucher

    routes = Litestar([scan], openapi_config=None, logging_config=None).routes
    gate = Gate(settings_with(admin_token="s3cret"), routes)
    assert status_of(gate, "/api/v1/vouchers/V1/scan") is None
    assert status_of(gate, "/api/v1/vouchers/V1/scan", "DELETE") == 401
    assert status_of(gate, "/api/v1/vouchers/a/b/scan") == 401
    assert route_pattern(routes[0]).fullmatch("/api/v1/vouchers//scan") is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost", "::ffff:127.0.0.1"])
def test_loopback_needs_no_token(host: str) -> None:
    assert is_loopback(host)
    check_exposure(settings_with(http_host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com", "127.0.0.1.example.com"])
def test_another_address_without_a_token_is_refused_in_one_line(host: str) -> None:
    with pytest.raises(InvalidSetting) as refused:
        check_exposure(settings_with(http_host=host))
    message = str(refused.value)
    assert "COUNTERFOIL_ADMIN_TOKEN" in message
    assert "COUNTERFOIL_HTTP_HOST" in message
    assert "\n" not in message
    check_exposure(settings_with(http_host=host, admin_token="s3cret"))
