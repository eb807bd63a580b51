"""Who sends a request: the peer, or what trusted proxies say, and never what the sender says of itself."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.api.clients import client_address, read_address, same_client

PROXIES = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.7", [], "203.0.113.7"),
        ("203.0.113.7", ["198.51.100.1"], "203.0.113.7"),  # nobody asked for it
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6, 198.51.100.1"], "198.51.100.1"),  # the left one is the sender's own
        ("10.0.0.1", ["6.6.6.6", "198.51.100.1,10.0.0.9"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.5, 10.0.0.9"], "10.0.0.5"),
        ("10.0.0.1", ["6.6.6.6, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["", " , "], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("10.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("::ffff:10.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("fd00::1", ["198.51.100.1"], "198.51.100.1"),
    ],
)
def test_the_address_is_the_right_most_that_is_no_trusted_proxy(peer, forwarded, expected) -> None:
    assert client_address(peer, forwarded, PROXIES) == ip_address(expected)


def test_what_is_no_address_is_none() -> None:
    for text in ("", "unknown", "1.2.3", "1.2.3.4.5", "[", "::1::", "localhost", "1.2.3.4:5:6", "\x00"):
        assert read_address(text) is None
    assert client_address("", ["198.51.100.1"], PROXIES) is None


def test_a_zone_is_dropped() -> None:
    assert read_address("fe80::1%eth0") == ip_address("fe80::1")


def test_an_ipv6_host_is_one_client_whichever_address_of_its_network_it_takes() -> None:
    one, other, elsewhere = (
        same_client(ip_address(a)) for a in ("2001:db8::1", "2001:db8::ffff", "2001:db8:0:1::1")
    )
    assert one == other != elsewhere
    assert same_client(ip_address("192.0.2.1")) != same_client(ip_address("192.0.2.2"))


addresses = st.ip_addresses().map(str)


@given(addresses, st.lists(st.text(max_size=30) | addresses, max_size=5))
def test_an_untrusted_peer_is_itself_whatever_it_sends(peer: str, forwarded: list[str]) -> None:
    if not any(read_address(peer) in network for network in PROXIES):
        assert client_address(peer, forwarded, PROXIES) == read_address(peer)


@given(st.lists(st.text(max_size=30), max_size=5), addresses)
def test_what_stands_left_of_an_untrusted_address_changes_nothing(junk: list[str], address: str) -> None:
    if not any(read_address(address) in network for network in PROXIES):
        found = client_address("10.0.0.1", [*junk, address], PROXIES)
        assert found == read_address(address)
