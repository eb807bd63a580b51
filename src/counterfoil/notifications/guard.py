"""Keeps what a caller may have us connect to away from our own networks.

A name is resolved once, every address that it has must be public, and the connection is made to one of these; what
TLS verifies is still the name. Python's own `is_global` does not do: up to 3.12 it calls `::127.0.0.1` global.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from counterfoil.settings import host_name

WEBHOOK_PORT = 443
SMTP_PORTS = (25, 465, 587, 2525)
LONGEST_URL = 2_048

LOOK_UPS_AT_ONCE = 2
"""Names that are asked for at once; who asks for one more is refused."""

_UNSEEN = re.compile(r"[\x00-\x20\x7f-\x9f\\\s]")
_ASCII = re.compile(r"[\x21-\x7e]*").fullmatch

_NOT_PUBLIC_V4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",  # shared by a carrier's customers; a cloud's metadata
            "127.0.0.0/8",
            "168.63.129.16/32",  # a cloud's own host
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",  # relays of 6to4
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
        ),
    )
)
_PUBLIC_V6 = IPv6Network("2000::/3")
_NOT_PUBLIC_V6 = tuple(
    map(IPv6Network, ("2001::/23", "2001:db8::/32", "3fff::/20"))
)  # the first has Teredo in it

_MAPPED_V6 = IPv6Network("::ffff:0:0/96")
_NAT64 = IPv6Network(
    "64:ff9b::/96"
)  # 64:ff9b:1::/48 is a site's own: what stands where in it, only the site knows
_6TO4 = IPv6Network("2002::/16")
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)

_PRIVATE: tuple[IPv4Network | IPv6Network, ...] = (
    *map(IPv4Network, ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")),
    *map(IPv6Network, ("::1/128", "fc00::/7")),
)


class RuleBroken(Exception):
    """What a caller has given breaks a rule, which the message says."""


class Forbidden(Exception):
    """A name leads nowhere, or to where nobody from outside is sent."""


class Endpoint(NamedTuple):
    """Where a connection is made to; the address is a number."""

    address: str
    port: int


LookUp = Callable[[str, int], Awaitable[Sequence[Endpoint]]]


def is_public(text: str) -> bool:
    """True for an address that anybody in the internet may reach, also where an IPv4 address is wrapped in it."""
    try:
        address = _unwrapped(ip_address(text))
    except ValueError:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    is_local = address.scope_id is not None or any(address in network for network in _NOT_PUBLIC_V6)
    return address in _PUBLIC_V6 and not is_local and not _is_tunnel_to_us(address)


def is_private(text: str) -> bool:
    """True for an address of a private network, or of this machine; not for one of a single link."""
    try:
        address = _unwrapped(ip_address(text))
    except ValueError:
        return False
    return any(address in network for network in _PRIVATE if network.version == address.version)


def webhook_url(text: str, allowed_hosts: Collection[str]) -> URL:
    """The URL, put together anew from its parts; raises RuleBroken where it is not one of ours to ask.

    The allowed hosts are as `host_name` makes them.
    """
    if len(text) > LONGEST_URL or _UNSEEN.search(text):
        raise RuleBroken(f"must be a URL of at most {LONGEST_URL} characters, without blanks or backslashes")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise RuleBroken("must be a URL like https://hooks.slack.com/services/…") from None
    if parts.scheme != "https":
        raise RuleBroken("must begin with https://")
    if "@" in parts.netloc:
        raise RuleBroken("must not have a user or password in it")
    if port not in {None, WEBHOOK_PORT}:
        raise RuleBroken(f"must have no other port than {WEBHOOK_PORT}")
    host = host_name(parts.hostname or "")
    if host is None or host not in allowed_hosts:
        raise RuleBroken(f"must have a host of WEBHOOK_ALLOWED_HOSTS: {', '.join(allowed_hosts) or 'none'}")
    if not (_ASCII(parts.path) and _ASCII(parts.query)):
        raise RuleBroken("must be ASCII after its host, other characters percent-encoded")
    return URL.build(
        scheme="https", host=host, path=parts.path or "/", query_string=parts.query, encoded=True
    )


def smtp_host(text: str) -> str:
    """The host as it is looked up; raises RuleBroken for what is none."""
    host = host_name(text)
    if host is None:
        raise RuleBroken("must be the name or the address of a host, without a port")
    return host


def check_address(host: str, *, allow_private: bool = False) -> str:
    """The host, unless it is a number that nobody may be sent to; raises RuleBroken. Names are looked up later."""
    try:
        ip_address(host)
    except ValueError:
        return host
    if is_public(host) or (allow_private and is_private(host)):
        return host
    raise RuleBroken("must have a public address")


def check_smtp_port(port: int) -> int:
    """The port, where mail is taken on it; raises RuleBroken for others."""
    if port not in SMTP_PORTS:
        raise RuleBroken(f"must be one of {', '.join(map(str, SMTP_PORTS))}")
    return port


async def look_up(host: str, port: int) -> list[Endpoint]:
    """The addresses of a name, those of IPv4 first; raises OSError where it has none, Forbidden when too busy.

    The loop's own threads look up the database and Kafka: a name that is answered late must not hold these.
    """
    if not _free.acquire(blocking=False):
        raise Forbidden("as many names as may be at once are being looked up")
    answer: Future[list[_AddressInfo]] = Future()
    answer.set_running_or_notify_cancel()  # who no longer waits for it cannot cancel it either
    threading.Thread(target=_ask, args=(host, port, answer), name="look-up", daemon=True).start()
    found = await asyncio.wrap_future(answer)
    ordered = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)
    return [Endpoint(str(address[0]), port) for *_, address in ordered]


_AddressInfo = tuple[Any, Any, int, str, tuple[Any, ...]]

_free = threading.BoundedSemaphore(LOOK_UPS_AT_ONCE)


def _ask(host: str, port: int, answer: Future[list[_AddressInfo]]) -> None:
    """Ask the resolver, for as long as it likes; in a thread that the end of the process does not wait for."""
    found, failure = [], None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
        failure = error
    finally:
        _free.release()
    if failure is None:
        answer.set_result(found)
    else:
        answer.set_exception(failure)


@dataclass(frozen=True, slots=True)
class Guard:
    """Looks names up, and connects to nothing else than what it has looked at; tests bring their own names."""

    look_up: LookUp = look_up
    permits: Callable[[str], bool] = is_public
    tls: ssl.SSLContext | None = None

    async def endpoints(self, host: str, port: int, *, allow_private: bool = False) -> list[Endpoint]:
        """Where the host is, asked for once; raises Forbidden unless all of it may be reached."""
        try:
            found = await self.look_up(host, port)
        except (OSError, UnicodeError):
            raise Forbidden("the name has no address") from None
        if not found or not all(self._may_reach(one.address, allow_private) for one in found):
            raise Forbidden("the name has an address that is not public")
        return list(found)

    def connector(self, host: str, endpoints: Sequence[Endpoint]) -> aiohttp.TCPConnector:
        """Connections of HTTP to this host alone, and there to these endpoints alone."""
        resolver = _Resolved(host, endpoints)
        return aiohttp.TCPConnector(
            resolver=resolver, use_dns_cache=False, force_close=True, ssl=self.tls or True
        )

    def _may_reach(self, address: str, allow_private: bool) -> bool:
        return self.permits(address) or (allow_private and is_private(address))


async def connected_socket(endpoints: Sequence[Endpoint]) -> socket.socket:
    """A connection to the first endpoint that takes one; raises OSError when none does."""
    refusal = OSError("there is no endpoint")
    for endpoint in endpoints:
        try:
            return await _connected(endpoint)
        except OSError as error:
            refusal = error
    raise refusal


async def _connected(endpoint: Endpoint) -> socket.socket:
    made = socket.socket(_family(endpoint.address), socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, tuple(endpoint))
    except BaseException:
        made.close()
        raise
    return made


class _Resolved(AbstractResolver):
    """Answers for one host, with what was found before; nothing is looked up again."""

    def __init__(self, host: str, endpoints: Sequence[Endpoint]) -> None:
        self._host = host
        self._endpoints = endpoints

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        if host != self._host:
            raise OSError(f"{host}:{port} ({family}) is not looked up")
        return [
            ResolveResult(
                hostname=host,
                host=endpoint.address,
                port=endpoint.port,
                family=_family(endpoint.address),
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for endpoint in self._endpoints
        ]

    async def close(self) -> None:
        """Nothing is held."""


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _unwrapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that a mapped, translated (NAT64) or tunnelled (6to4) one leads to, else the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _MAPPED_V6 or address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    if address in _6TO4:
        return IPv4Address(int(address) >> 80 & 0xFFFF_FFFF)
    return address


def _is_tunnel_to_us(address: IPv6Address) -> bool:
    """True for an ISATAP address that wraps an IPv4 address which is not public."""
    interface = int(address) & 0xFFFF_FFFF_FFFF_FFFF
    return interface >> 32 in _ISATAP and not is_public(str(IPv4Address(interface & 0xFFFF_FFFF)))
