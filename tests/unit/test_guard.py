"""The guard: a caller has us connect to nothing but what he may reach himself."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from contextlib import asynccontextmanager

import aiohttp
import pytest
import trustme
from aiohttp import web

from counterfoil.notifications.guard import (
    LOOK_UPS_AT_ONCE,
    Endpoint,
    Forbidden,
    Guard,
    RuleBroken,
    check_address,
    check_smtp_port,
    connected_socket,
    is_private,
    is_public,
    look_up,
    smtp_host,
    webhook_url,
)

HOST = "hooks.slack.com"
ALLOWED = (HOST, "xn--bcher-kva.example")

PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "172.15.255.255",
    "172.32.0.1",
    "192.0.1.1",
    "100.63.255.255",
    "100.128.0.1",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00:1450:4001:80b::200e",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
    "2606:4700::5efe:808:808",
]

NOT_PUBLIC = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::10.0.0.1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::808:808",
    "64:ff9b:1:a00:1::",
    "2002:7f00:1::1",
    "2002:a00:1::",
    "2002:a9fe:a9fe::1",
    "2001::1",
    "2001:0:808:808::f7f7:f7f7",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
    "100::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700::1%eth0",
    "fec0::1",
    "ff02::1",
    "2606:4700::5efe:10.0.0.1",
    "2606:4700::200:5efe:127.0.0.1",
    "",
    "hooks.slack.com",
    "127.1",
    "0x7f000001",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_of_the_internet_is_public(address):
    assert is_public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_of_our_own_networks_is_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "127.0.0.1", "192.168.1.1", "::1", "fd00::1", "::ffff:10.0.0.1"]
)
def test_a_private_network_can_be_allowed(address):
    assert is_private(address)
    assert check_address(address, allow_private=True) == address


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "0.0.0.0", "224.0.0.1", "fe80::1", "::", "255.255.255.255"]
)
def test_what_is_of_one_link_or_of_nobody_can_not_be_allowed(address):
    with pytest.raises(RuleBroken, match="public"):
        check_address(address, allow_private=True)


# The URL


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("https://hooks.slack.com/services/T/B/x?a=b%20c", "https://hooks.slack.com/services/T/B/x?a=b%20c"),
        ("https://HOOKS.slack.com.:443/services", "https://hooks.slack.com/services"),
        ("HTTPS://hooks.slack.com", "https://hooks.slack.com/"),
        ("https://hooks.slack.com/%2e%2e/a#fragment", "https://hooks.slack.com/%2e%2e/a"),
        ("https://BÜCHER.example/x", "https://xn--bcher-kva.example/x"),
        ("https://ｈooks.slack.com/x", "https://hooks.slack.com/x"),
    ],
)
def test_a_url_is_put_together_anew(given, made):
    assert str(webhook_url(given, ALLOWED)) == made


@pytest.mark.parametrize(
    "given",
    [
        "",
        "hooks.slack.com/services",
        "http://hooks.slack.com/services",
        "ftp://hooks.slack.com/",
        "file:///etc/passwd",
        "https://",
        "https:///services",
        "https://hooks.slack.com:8443/",
        "https://hooks.slack.com:80/",
        "https://hooks.slack.com:x/",
        "https://hooks.slack.com:99999/",
        "https://user@hooks.slack.com/",
        "https://user:pass@hooks.slack.com/",
        "https://hooks.slack.com@127.0.0.1/",
        "https://127.0.0.1#@hooks.slack.com/",
        "https://127.0.0.1\\@hooks.slack.com/",
        "https://127.0.0.1 hooks.slack.com/",
        "https://hooks.slack.com\t.evil.example/",
        "https://hooks.slack.com\r\nHost: evil/",
        "https://evil.example/hooks.slack.com",
        "https://hooks.slack.com.evil.example/",
        "https://evilhooks.slack.com/",
        "https://slack.com/",
        "https://hooks.slack.com../",
        "https://hooks%2eslack.com/",
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::1/",
        "https://hooks.slack.com/ü",
        "https://hooks.slack.com/a\tb",
        "https://hooks.slack.com/a\r\nHost:evil",
        "https://hooks.slack.com/a\\b",
        "https://hooks.slack.com/" + "x" * 2_048,
    ],
)
def test_a_url_that_breaks_a_rule_is_refused(given):
    with pytest.raises(RuleBroken):
        webhook_url(given, ALLOWED)


def test_no_host_is_allowed_where_none_is_set():
    with pytest.raises(RuleBroken, match="none"):
        webhook_url("https://hooks.slack.com/x", ())


@pytest.mark.parametrize("port", [0, 22, 24, 80, 443, 2526, 5432, 6379, 65_536, -25])
def test_mail_goes_to_the_ports_of_mail_alone(port):
    with pytest.raises(RuleBroken, match="25, 465, 587, 2525"):
        check_smtp_port(port)


@pytest.mark.parametrize(
    "host", ["", "mail.example:25", "https://mail.example", "a b", "ma\r\nil", "-a", "x" * 300]
)
def test_a_mail_server_is_a_host(host):
    with pytest.raises(RuleBroken):
        smtp_host(host)


# Names


class Names:
    """Stands where DNS stands: a name's answers, one after the other."""

    def __init__(self, *answers: list[Endpoint]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def look_up(self, host: str, port: int) -> list[Endpoint]:
        self.asked += 1
        return self.answers.pop(0)


def at(*addresses: str, port: int = 443) -> list[Endpoint]:
    return [Endpoint(address, port) for address in addresses]


@pytest.mark.parametrize("addresses", [("127.0.0.1",), ("8.8.8.8", "10.0.0.1"), ("8.8.8.8", "::1"), ()])
async def test_a_name_with_any_address_that_is_not_public_is_refused(addresses):
    names = Names(at(*addresses))
    with pytest.raises(Forbidden):
        await Guard(names.look_up).endpoints(HOST, 443)


async def test_a_private_network_is_reached_where_it_is_allowed():
    names = Names(at("10.0.0.1"), at("169.254.169.254"))
    guard = Guard(names.look_up)
    assert await guard.endpoints("mail", 25, allow_private=True) == at("10.0.0.1")
    with pytest.raises(Forbidden):
        await guard.endpoints("mail", 25, allow_private=True)


async def test_a_name_without_address_is_refused():
    async def unknown(_host, _port):
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(Forbidden):
        await Guard(unknown).endpoints(HOST, 443)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "::1"])
async def test_whatever_this_machine_is_called_is_refused(host):
    with pytest.raises(Forbidden):
        await Guard().endpoints(host, 443)


async def test_addresses_of_ipv4_come_first():
    found = await look_up("127.0.0.1", 25)
    assert found == [Endpoint("127.0.0.1", 25)]


# Connections


@asynccontextmanager
async def a_tls_server(authority: trustme.CA, name: str = HOST, **answer):
    """A server on 127.0.0.1 with a certificate for the name; gives its port and the paths that were asked for."""
    seen: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response(**({"text": "ok"} | answer))

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(tls)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        yield runner.addresses[0][1], seen
    finally:
        await runner.cleanup()


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    return tls


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


async def test_a_name_that_moves_is_connected_to_where_it_was(authority):
    async with a_tls_server(authority) as (port, seen), a_tls_server(authority) as (other, seen_there):
        names = Names(at("127.0.0.1", port=port), at("127.0.0.1", port=other))
        guard = Guard(names.look_up, permits=lambda _: True, tls=trusting(authority))
        endpoints = await guard.endpoints(HOST, 443)
        for _ in range(2):
            connector = guard.connector(HOST, endpoints)
            async with (
                aiohttp.ClientSession(connector=connector) as session,
                session.get(f"https://{HOST}/a") as answer,
            ):
                assert answer.status == 200
        assert (seen, seen_there, names.asked) == (["/a", "/a"], [], 1)


async def test_the_certificate_must_be_the_names(authority):
    async with a_tls_server(authority, "other.example") as (port, seen):
        guard = Guard(Names(at("127.0.0.1", port=port)).look_up, lambda _: True, trusting(authority))
        connector = guard.connector(HOST, await guard.endpoints(HOST, 443))
        async with aiohttp.ClientSession(connector=connector) as session:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await session.get(f"https://{HOST}/a")
    assert seen == []


async def test_no_other_host_is_connected_to(authority):
    async with a_tls_server(authority) as (port, seen):
        guard = Guard(Names().look_up, lambda _: True, trusting(authority))
        connector = guard.connector(HOST, at("127.0.0.1", port=port))
        async with aiohttp.ClientSession(connector=connector) as session:
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get("https://localhost/a")
    assert seen == []


async def test_the_next_address_is_tried_where_one_takes_no_connection():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        free = closed.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with await connected_socket([Endpoint("127.0.0.1", free), Endpoint("127.0.0.1", port)]) as made:
            assert made.getpeername()[1] == port
    with pytest.raises(ConnectionRefusedError):
        await connected_socket([Endpoint("127.0.0.1", free)])


async def test_slow_names_are_looked_up_apart_and_one_too_many_is_refused_at_once(monkeypatch):
    real, answers = socket.getaddrinfo, threading.Event()

    def slow(host, *args, **kwargs):
        if host != "slow.example":
            return real(host, *args, **kwargs)
        answers.wait(10)
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    waiting = [asyncio.create_task(look_up("slow.example", 25)) for _ in range(LOOK_UPS_AT_ONCE)]
    await asyncio.sleep(0)
    with pytest.raises(Forbidden):
        await Guard().endpoints("slow.example", 25)
    waiting[0].cancel()  # nobody waits for it, but its thread is still asking
    await asyncio.wait({waiting[0]})
    with pytest.raises(Forbidden):
        await look_up("127.0.0.1", 25)
    assert await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 25)
    answers.set()
    with pytest.raises(OSError, match="try again"):
        await waiting[1]


async def test_whoever_was_answered_makes_room_for_the_next():
    for _ in range(3 * LOOK_UPS_AT_ONCE):
        assert await look_up("127.0.0.1", 25) == [Endpoint("127.0.0.1", 25)]
