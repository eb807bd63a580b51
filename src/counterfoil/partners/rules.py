"""Which program a URL belongs to; which of several users or links of one id stands."""

from __future__ import annotations

import re
import socket
from base64 import b32encode
from collections.abc import Sequence
from datetime import datetime
from functools import cache, lru_cache
from hashlib import sha256
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

import idna

from counterfoil.database.facts import Facts
from counterfoil.events import LinkCreated, UserCreated

if TYPE_CHECKING:
    from tldextract import TLDExtract

LONGEST_DOMAIN = 255
LONGEST_LABEL = 63
LONGEST_HOST = 1_024
"""As it is written: percent-encoded it may be longer than a domain."""

REMEMBERED_HOSTS = 10_000

_AUTHORITY = re.compile(r"(?:[a-z][a-z0-9+.-]*:(?=[/\\])|https?:)?[/\\]*([^/\\?#]*)", re.IGNORECASE).match
_PORT = re.compile(r":[0-9]*\Z")
_NO_HOST = re.compile(r"[\x00-\x20\x7f#/:<>?@\[\\\]^|%]").search
"""What no browser takes in a host's name (WHATWG URL, forbidden domain code points)."""

_A_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*").fullmatch
_NOT_IN_IDS = re.compile(r"[^a-z0-9-]")


class UserRow(NamedTuple):
    """A row of shop_users, in the order of its statements' parameters."""

    user_id: str
    name: str | None
    email: str | None
    occurred_at: datetime
    source_id: int
    source_offset: int

    @property
    def content(self) -> tuple[datetime, str, str]:
        """Of two rows of one user the smaller content stands, so the earlier."""
        return self.occurred_at, self.name or "", self.email or ""


class LinkRow(NamedTuple):
    """A row of links, in the order of its statements' parameters."""

    link_id: str
    url: str
    user_id: str | None
    named_partner_id: str | None
    program_id: str | None
    pixel_id: str | None
    occurred_at: datetime
    source_id: int
    source_offset: int

    @property
    def content(self) -> tuple[datetime, str, str, str, str]:
        """Of two rows of one link the smaller content stands, so the earlier."""
        return (
            self.occurred_at,
            self.url,
            self.user_id or "",
            self.named_partner_id or "",
            self.pixel_id or "",
        )


def users(facts: Facts[UserCreated]) -> list[UserRow]:
    """The users that stand, sorted by id."""
    rows: dict[str, UserRow] = {}
    for event, source_id, offset in zip(facts.events, facts.source_ids, facts.offsets, strict=True):
        name, email = event.name or None, event.email or None
        row = UserRow(event.user_id, name, email, event.timestamp, source_id, offset)
        if row.content < rows.setdefault(event.user_id, row).content:
            rows[event.user_id] = row
    return [rows[user_id] for user_id in sorted(rows)]


def add_links(
    rows: dict[str, LinkRow], facts: Facts[LinkCreated], programs: Sequence[str | None], start: int
) -> None:
    """Add the links of some events, those from `start` on, whose programs are given: of several of an id one stands."""
    for index, program in enumerate(programs, start):
        event = facts.events[index]
        row = LinkRow(
            event.link_id,
            event.url,
            event.user_id,
            event.partner_id,
            program,
            event.pixel_id,
            event.timestamp,
            facts.source_ids[index],
            facts.offsets[index],
        )
        if row.content < rows.setdefault(event.link_id, row).content:
            rows[event.link_id] = row


def program_of(url: str) -> tuple[str, str] | None:
    """(program id, base domain) of a URL, the same however it is spelled; None for one without a usable host."""
    host = _host_of(url)
    return None if host is None or len(host) > LONGEST_HOST else _program(host)


def program_id(base_domain: str) -> str:
    """`cultgaia_` and ten letters for `cultgaia.com`: the same in every deployment, for ever."""
    label = "ip" if _is_address(base_domain) else _NOT_IN_IDS.sub("-", base_domain.partition(".")[0])
    token = b32encode(sha256(base_domain.encode()).digest()).decode().lower()[:10]
    return f"{label[:LONGEST_LABEL]}_{token}"


def base_domain_of(url: str) -> str | None:
    """The domain that a shop has registered, in ASCII and lower case; an IP address is its own.

    `https://shop.cultgaia.com/bags?x=1` and `CULTGAIA.com:443` are both `cultgaia.com`. Below a public suffix that is
    somebody's, such as `myshopify.com`, each name is its own (publicsuffix.org, as of the installed tldextract).
    """
    program = program_of(url)
    return None if program is None else program[1]


def read_suffixes() -> TLDExtract:
    """Read the list of public suffixes, once: it would hold the loop for 20 ms."""
    return _suffixes()


@cache
def _suffixes() -> TLDExtract:
    from tldextract import TLDExtract  # noqa: PLC0415 - a tenth of a second that most commands need not wait

    suffixes = TLDExtract(cache_dir=None, suffix_list_urls=(), include_psl_private_domains=True)
    suffixes.extract_str("example.com")
    return suffixes


def _host_of(url: str) -> str | None:
    """The host as it is written, without user and port; a URL may lack its scheme."""
    found = _AUTHORITY(url.strip())
    host = "" if found is None else found[1].rpartition("@")[2]
    return _PORT.sub("", host) or None


@lru_cache(REMEMBERED_HOSTS)
def _program(host: str) -> tuple[str, str] | None:
    base_domain = _base_domain(host)
    return None if base_domain is None else (program_id(base_domain), base_domain)


def _base_domain(host: str) -> str | None:
    if host.startswith("["):
        return _ipv6(host[1:-1]) if host.endswith("]") else None
    name = _ascii_name(unquote(host))
    if name is None or len(name) > LONGEST_DOMAIN:
        return None
    if _A_NUMBER(name.rpartition(".")[2]):
        return _ipv4(name)
    return _registered(name)


def _ascii_name(host: str) -> str | None:
    """The name as it is asked for: mapped by UTS #46, each label in ASCII, without empty ones."""
    try:
        mapped = idna.uts46_remap(host, std3_rules=False)
    except idna.IDNAError:
        return None
    if _NO_HOST(mapped):
        return None
    return ".".join(_ascii_label(label) for label in mapped.split(".") if label) or None


def _ascii_label(label: str) -> str:
    return label if label.isascii() else f"xn--{label.encode('punycode').decode()}"


def _registered(name: str) -> str:
    rest = name.removeprefix("www.")
    if "." in rest or not _suffix_of(f"x.{rest}"):  # www.com is a shop of its own, www.localhost is not
        name = rest
    suffix = _suffix_of(name) or name.rpartition(".")[2]
    before = name.removesuffix(suffix).rstrip(".")
    return f"{before.rpartition('.')[2]}.{suffix}" if before else name


def _suffix_of(name: str) -> str:
    return _suffixes().extract_str(name).suffix


def _ipv6(text: str) -> str | None:
    try:
        address = IPv6Address(text.partition("%")[0])
    except ValueError:
        return None
    return str(address.ipv4_mapped or address)


def _ipv4(text: str) -> str | None:
    """An address in any of the forms that browsers read, such as 0x7f.1 for 127.0.0.1."""
    try:
        return socket.inet_ntoa(socket.inet_aton(text))
    except OSError:
        return None


def _is_address(base_domain: str) -> bool:
    return ":" in base_domain or base_domain.replace(".", "").isdigit()
