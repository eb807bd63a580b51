"""What is kept of an address: its network, all of it, a keyed hash, or nothing."""

from __future__ import annotations

import socket
from collections.abc import Callable
from hashlib import blake2b

from counterfoil.settings import IpPolicy

KEY_BYTES = 32


class KeptAddresses:
    """Keeps of an address what the policy allows; `keep` is the same as a call, and quicker."""

    __slots__ = ("_hash", "keep")

    def __init__(self, key: bytes, policy: IpPolicy) -> None:
        self._hash = blake2b(digest_size=8, key=sized_key(key), person=b"address")
        policies: dict[IpPolicy, Callable[[str], str | None]] = {
            IpPolicy.TRUNCATE: network_of,
            IpPolicy.FULL: str,
            IpPolicy.HASH: self._hashed,
            IpPolicy.DROP: _nothing,
        }
        self.keep = policies[policy]

    def __call__(self, address: str) -> str | None:
        return self.keep(address)

    def _hashed(self, address: str) -> str:
        hashed = self._hash.copy()
        hashed.update(address.encode())
        return hashed.hexdigest()


def sized_key(key: bytes) -> bytes:
    """A key for keyed hashes, of a secret of whatever length."""
    return blake2b(key, digest_size=KEY_BYTES).digest()


def network_of(address: str) -> str:
    """An address with the host's part zeroed: the /24 of IPv4, the /48 of IPv6."""
    if ":" in address:
        packed = socket.inet_pton(socket.AF_INET6, address)
        return socket.inet_ntop(socket.AF_INET6, packed[:6] + bytes(10))
    return address.rpartition(".")[0] + ".0"


def _nothing(_address: str) -> None:
    return None
