"""What is kept of an address."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.events.addresses import KeptAddresses, network_of
from counterfoil.settings import IpPolicy

KEY = b"a key of the deployment"

addresses = st.ip_addresses().map(str)


@given(address=st.ip_addresses(v=4))
def test_of_an_ipv4_address_the_first_24_bits_are_kept(address: IPv4Address):
    assert network_of(str(address)) == str(ip_network(f"{address}/24", strict=False).network_address)


@given(address=st.ip_addresses(v=6))
def test_of_an_ipv6_address_the_first_48_bits_are_kept(address: IPv6Address):
    kept = IPv6Address(network_of(str(address)))
    assert kept == ip_network(f"{address}/48", strict=False).network_address
    assert network_of(str(kept)) == network_of(str(address))


@given(address=addresses)
def test_a_policy_decides_what_is_kept(address):
    assert KeptAddresses(KEY, IpPolicy.FULL)(address) == address
    assert KeptAddresses(KEY, IpPolicy.DROP)(address) is None
    assert KeptAddresses(KEY, IpPolicy.TRUNCATE)(address) == network_of(address)
    hashed = KeptAddresses(KEY, IpPolicy.HASH)
    assert re.fullmatch(r"[0-9a-f]{16}", hashed(address))
    assert hashed(address) == KeptAddresses(KEY, IpPolicy.HASH)(address)
    assert hashed(address) != KeptAddresses(b"another", IpPolicy.HASH)(address)


@pytest.mark.parametrize("policy", IpPolicy)
def test_keeping_is_the_same_as_a_call(policy):
    kept = KeptAddresses(KEY, policy)
    assert kept("192.0.2.1") == kept.keep("192.0.2.1")


@pytest.mark.parametrize(
    ("key", "address", "hashed"),
    [
        (KEY, "192.0.2.1", "f1ba33bcdc41cd6b"),
        (KEY, "2001:db8::1", "9137e9fc511499a3"),
        (b"k" * 1_000, "192.0.2.1", "34c4843b41ed51b3"),
    ],
)
def test_the_hash_of_an_address_is_the_same_in_every_version(key, address, hashed):
    assert KeptAddresses(key, IpPolicy.HASH)(address) == hashed
