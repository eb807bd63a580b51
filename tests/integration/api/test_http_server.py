"""The server on a real socket: ports, probes, tokens, limits, failures, the end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import asyncpg
import pytest
from litestar import get, post
from litestar.params import RawBody

from counterfoil.api.front import MAX_BODY_BYTES
from counterfoil.api.server import HttpServer, build_app
from counterfoil.errors import DependencyUnreachable, HaltingFailure, InvalidSetting
from counterfoil.settings import Settings
from counterfoil.telemetry.health import Health, Phase
from counterfoil.telemetry.metrics import Metrics

COUPONS = "/admin/affiliate-coupons"
GUARDED = [
    ("GET", COUPONS),
    ("POST", COUPONS),
    ("GET", "/admin/promo-codes"),
    ("POST", "/admin/promo-codes"),
    ("GET", "/docs/openapi"),
    ("GET", "/nowhere"),
    ("GET", "/"),
    ("DELETE", COUPONS),
    ("OPTIONS", COUPONS),
    ("GET", "/livez/"),
]


def a_server(host: str = "127.0.0.1", port: int = 0) -> HttpServer:
    return HttpServer(build_app(Settings(_env_file=None), Health(), Metrics(), lambda: None), host, port)


async def raw(port: int, *parts: bytes) -> bytes:
    """What comes back until the server closes or falls silent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.01)
        async with asyncio.timeout(2):
            while piece := await reader.read(65_536):
                answer += piece
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
    return answer


async def test_probes_answer_before_the_database_is_there(serve) -> None:
    client = await serve(health=Health(phase=Phase.RUNNING, started=True), token="s3cret")
    client.token = None
    for path in ("/livez", "/healthz", "/readyz", "/health", "/startupz", "/metrics"):
        assert (await client.get(path)).status == 200, path
    assert b"counterfoil_ready 1.0" in (await client.get("/metrics")).body
    head = await client.ask("HEAD", "/livez", None, {})
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "3")


async def test_probes_by_the_long_way_say_the_same(serve) -> None:
    client = await serve(health=Health(phase=Phase.RUNNING, started=True))
    for path in ("/livez", "/readyz", "/startupz"):
        short = await client.get(path)
        long = await client.ask("GET", path, "x", {})  # a body: not the short way
        assert (short.status, short.body) == (long.status, long.body)
        assert short.headers.keys() == long.headers.keys()
    assert (await client.post("/livez", {})).status == 405


async def test_one_connection_serves_probes_and_routes_in_turn(serve) -> None:
    client = await serve(health=Health(phase=Phase.RUNNING))
    probe = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    route = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = await raw(client.port, probe, route, probe, probe + route, probe[:20], probe[20:], last)
    assert answer.count(b"HTTP/1.1 200 OK") == 5
    assert answer.count(b"HTTP/1.1 404 Not Found") == 2


@pytest.mark.parametrize(("method", "path"), GUARDED)
async def test_everything_else_is_401_without_the_token(serve, method: str, path: str) -> None:
    client = await serve(token="s3cret")
    client.token = None
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Bearer \xff\xfe"}):
        reply = await client.ask(method, path, None, headers)
        assert reply.status == 401
        assert reply.headers["content-type"] == "application/problem+json"
        assert reply.headers["www-authenticate"].startswith("Bearer")


async def test_with_the_token_an_unknown_path_is_404_and_a_wrong_method_405(serve) -> None:
    client = await serve(token="s3cret")
    assert (await client.get("/nowhere")).status == 404
    reply = await client.ask("DELETE", COUPONS, None, {})
    assert reply.status == 405
    assert {"GET", "POST"} <= set(reply.headers["allow"].split(", "))
    assert reply.json["status"] == 405


async def test_without_a_token_a_page_of_another_name_or_site_is_refused(serve) -> None:
    client = await serve()
    assert (await client.get("/nowhere", host="evil.example")).status == 403
    assert (await client.post(COUPONS, {"code": "A"}, origin="https://evil.example")).status == 403
    simple = await client.ask("POST", COUPONS, '{"code":"A"}', {"content-type": "text/plain"})
    assert simple.status == 415


async def test_a_body_over_the_limit_is_413_by_its_length(serve) -> None:
    client = await serve()
    reply = await client.post(COUPONS, b" " * (MAX_BODY_BYTES + 1))
    assert reply.status == 413
    assert reply.headers["content-type"] == "application/problem+json"


async def test_a_chunked_body_over_the_limit_is_413(serve) -> None:
    client = await serve()

    def chunks() -> Iterator[bytes]:
        yield from (b" " * 8_192 for _ in range(3))

    reply = await client.ask("POST", COUPONS, chunks(), {"content-type": "application/json"})
    assert reply.status == 413


async def test_a_body_at_the_limit_is_read(serve) -> None:
    @post("/length")
    async def length(body: RawBody) -> int:
        return len(body)

    client = await serve(routes=[length])
    assert (await client.post("/length", b" " * MAX_BODY_BYTES)).json == MAX_BODY_BYTES


async def test_an_endless_body_is_cut_off(serve) -> None:
    client = await serve()
    head = (
        b"POST /admin/affiliate-coupons HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    answer = await raw(client.port, head, *[chunk] * 20)
    assert answer.startswith(b"HTTP/1.1 413") or answer == b""  # a reset may outrun the answer


async def test_a_sender_that_waits_for_100_continue_is_not_asked_for_a_body_too_long(serve) -> None:
    client = await serve()
    head = (
        b"POST /admin/affiliate-coupons HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Expect: 100-continue\r\nContent-Length: 999999\r\n\r\n"
    )
    answer = await raw(client.port, head)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in answer


@pytest.mark.parametrize("error", [DependencyUnreachable("away"), OSError("away"), TimeoutError()])
async def test_an_absent_database_is_503(serve, error: Exception) -> None:
    def away() -> asyncpg.Pool:
        raise error

    client = await serve(away)
    reply = await client.get(COUPONS)
    assert reply.status == 503
    assert reply.headers["retry-after"] == "5"
    assert (await (await serve(None)).get(COUPONS)).status == 503


async def test_a_database_that_does_not_answer_is_503(serve) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with asyncpg.create_pool(f"postgres://u:hunter2@127.0.0.1:{port}/x", min_size=0) as pool:
        reply = await (await serve(pool)).get(COUPONS)
    assert reply.status == 503
    assert b"hunter2" not in reply.body


async def test_a_fault_of_ours_is_500_and_says_nothing_of_itself(serve) -> None:
    @get("/broken")
    async def broken() -> None:
        raise RuntimeError("inner secret")

    reply = await (await serve(routes=[broken])).get("/broken")
    assert reply.status == 500
    assert reply.headers["content-type"] == "application/problem+json"
    assert b"secret" not in reply.body


async def test_answers_are_not_cached_and_name_no_server(serve) -> None:
    reply = await (await serve()).get("/docs/openapi")
    assert reply.status == 200
    assert reply.headers["cache-control"] == "no-store"
    assert "server" not in reply.headers


async def test_the_openapi_document_shows_bodies_and_parameters(serve) -> None:
    document = (await (await serve()).get("/docs/openapi")).json
    assert document["openapi"].startswith("3.1")
    operation = document["paths"][COUPONS]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == {"code", "delta", "reason"}
    assert {entry["name"] for entry in document["paths"][COUPONS]["get"]["parameters"]} == {
        "at",
        "code",
        "limit",
        "offset",
    }
    assert [entry["name"] for entry in operation["parameters"]] == ["Idempotency-Key"]


async def test_an_answer_is_not_held_back_until_the_one_before_is_acknowledged() -> None:
    server = a_server()
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.readuntil(b"ok\n")
    (connection,) = server._uvicorn.server_state.connections
    accepted = connection.transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    writer.close()
    await server.stop()


async def test_a_port_in_use_is_one_line_that_names_the_setting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InvalidSetting, match=r"^COUNTERFOIL_HTTP_PORT: .* in use[^\n]*$"):
            await a_server(port=taken.getsockname()[1]).start()


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
async def test_an_address_that_is_not_ours_names_the_setting(host: str) -> None:
    with pytest.raises(InvalidSetting, match=r"^COUNTERFOIL_HTTP_HOST: [^\n]*$"):
        await a_server(host).start()


async def test_stop_frees_the_port_and_may_be_called_again() -> None:
    server = a_server()
    await server.start()
    port = server.port
    await server.stop()
    await server.stop()
    await server.wait()
    again = a_server(port=port)
    await again.start()
    await again.stop()


async def test_stop_does_not_wait_for_a_request_that_never_ends(serve) -> None:
    entered = asyncio.Event()

    @get("/endless")
    async def endless() -> None:
        entered.set()
        await asyncio.Event().wait()

    app = build_app(Settings(_env_file=None), Health(), Metrics(), lambda: None, [endless])
    server = HttpServer(app, "127.0.0.1", 0)
    await server.start()
    asking = asyncio.create_task(raw(server.port, b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    await entered.wait()
    began = asyncio.get_running_loop().time()
    await server.stop(deadline_s=0.3)
    assert asyncio.get_running_loop().time() - began < 2.5
    await asking


async def test_a_lifespan_that_fails_does_not_end_the_loop() -> None:
    async def failing(scope, receive, send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no"})

    app = build_app(Settings(_env_file=None), Health(), Metrics(), lambda: None)
    app._routed = failing
    with pytest.raises(HaltingFailure):
        await HttpServer(app, "127.0.0.1", 0).start()
