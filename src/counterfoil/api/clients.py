"""Who sends a request: the address at the other end, or the one that trusted proxies saw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from litestar import Request

from counterfoil.api.auth import is_authorised
from counterfoil.settings import Settings

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Client:
    """Who sends a request; the platform may speak for a visitor of its own, anybody else only for himself.

    A program on this machine is the platform where no token is set; `holds_token` tells that one is, and was sent.
    """

    address: str | None
    user_agent: str | None
    is_platform: bool
    holds_token: bool = False


class Clients:
    """Knows which proxies are believed; its `client` is the dependency of that name."""

    def __init__(self, settings: Settings) -> None:
        self._trusted = [ip_network(network) for network in settings.trusted_proxies]
        self._has_token = settings.admin_token is not None

    def client(self, request: Request[Any, Any, Any]) -> Client:
        """The sender of a request."""
        address = self.address(request.scope)
        is_platform = is_authorised(request.scope)
        return Client(
            address=None if address is None else str(address),
            user_agent=request.headers.get("user-agent"),
            is_platform=is_platform,
            holds_token=is_platform and self._has_token,
        )

    def address(self, scope: Mapping[str, Any]) -> Address | None:
        """The sender's address, None where the server does not know it."""
        peer = scope.get("client")
        hops = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
        return client_address(peer[0] if peer else "", hops, self._trusted)

    def is_https(self, scope: Mapping[str, Any]) -> bool:
        """Whether the browser spoke https: to us, or to a trusted proxy, which says so in X-Forwarded-Proto."""
        peer = read_address((scope.get("client") or ("",))[0])
        if scope.get("scheme") == "https" or peer is None or not any(peer in one for one in self._trusted):
            return scope.get("scheme") == "https"
        said = [value for name, value in scope["headers"] if name == b"x-forwarded-proto"]
        return bool(said) and said[-1].rpartition(b",")[2].strip().lower() == b"https"


def client_address(peer: str, forwarded: Iterable[str], trusted: Sequence[Network]) -> Address | None:
    """The peer, or where it is a trusted proxy the right-most address of X-Forwarded-For that is none.

    What stands further left was written by whoever sent the request, and is believed by nobody.
    """
    hops = [hop for line in forwarded for hop in line.split(",")]
    address = read_address(peer)
    while hops and address is not None and any(address in network for network in trusted):
        before = read_address(hops.pop())
        if before is None:
            break
        address = before
    return address


def read_address(text: str) -> Address | None:
    """An address without port, brackets and zone, an IPv4 address as such; None for anything else."""
    bare = text.strip()
    if bare.startswith("["):
        bare = bare[1:].partition("]")[0]
    elif bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        address = ip_address(bare.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def same_client(address: Address | None) -> bytes:
    """What the addresses of one client have in common: an IPv6 host has a whole /64 to choose from."""
    return b"" if address is None else address.packed[:8]
