"""A URL's program: the same however the URL is spelled, another where the shop is another."""

from __future__ import annotations

import re
from unicodedata import normalize
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from counterfoil.partners.rules import LONGEST_DOMAIN, base_domain_of, program_id, program_of, read_suffixes

LABEL = st.from_regex(r"[a-z](?:[a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True).filter(
    lambda label: label != "www" and "--" not in label
)
SUFFIXES = st.sampled_from(["com", "de", "co.uk", "myshopify.com", "github.io", "xn--55qx5d.cn", "com.au"])
UNICODE_LABELS = st.text(alphabet="abcäöüßéñ例え日本", min_size=1, max_size=8)


@st.composite
def spellings(draw: st.DrawFn, host: str) -> str:
    """A URL of this host, spelled in one of the ways that a browser takes for the same."""
    host = draw(st.sampled_from([host, host.upper(), host.title(), host.swapcase()]))
    host = "".join(
        f"%{ord(letter):02X}"
        if letter.isascii() and letter != "." and draw(st.integers(0, 9)) == 0
        else letter
        for letter in host
    )
    scheme = draw(st.sampled_from(["https://", "http://", "HTTPS://", "//", "", "https:\\\\", "  https://"]))
    ports = (
        ["", ":443", ":8080", ":"] if scheme else ["", ":443", ":8080"]
    )  # `a.com:/` has a scheme of that name
    return "".join(
        (
            scheme,
            draw(st.sampled_from(["", "user@", "user:secret@", "a@b@"])),
            draw(st.sampled_from(["", "www.", "WWW.", "shop.", "www.shop."])),
            host,
            draw(st.sampled_from(["", "."])),
            draw(st.sampled_from(ports)),
            draw(
                st.sampled_from(["", "/", "/a/b.html?x=https://other.com#y", "?q=1", "#top", "/@other.com"])
            ),
        )
    )


@given(data=st.data(), label=LABEL, suffix=SUFFIXES)
def test_a_url_spelled_otherwise_is_of_the_same_program(data, label, suffix):
    domain = f"{label}.{suffix}"
    assume(read_suffixes().extract_str(domain).suffix == suffix)  # co.com is a suffix too
    url = data.draw(spellings(domain))
    assert program_of(url) == (program_id(domain), domain)


@given(label=UNICODE_LABELS, suffix=st.sampled_from(["com", "de", "co.uk"]))
def test_a_name_in_unicode_is_the_one_in_punycode(label, suffix):
    written = f"{label}.{suffix}"
    found = base_domain_of(f"https://{written}")
    assert found is not None
    assert found.isascii()
    assert found == found.lower()
    for spelled in (found, found.upper(), normalize("NFD", written), quote(written), f"{label}。{suffix}"):
        assert base_domain_of(f"https://www.{spelled}/") == found


@pytest.mark.parametrize(
    ("url", "base_domain"),
    [
        ("https://cultgaia.com/products/bag", "cultgaia.com"),
        ("https://MÜNCHEN.de", "xn--mnchen-3ya.de"),
        ("https://mu\u0308nchen.de", "xn--mnchen-3ya.de"),
        ("https://m%C3%BCnchen.de", "xn--mnchen-3ya.de"),
        ("https://XN--MNCHEN-3YA.de", "xn--mnchen-3ya.de"),
        ("https://straße.de", "xn--strae-oqa.de"),
        ("https://例え。テスト/", "xn--r8jz45g.xn--zckzah"),
        ("https://ｃｕｌｔｇａｉａ．ｃｏｍ", "cultgaia.com"),
        ("https://i❤.ws", "xn--i-7iq.ws"),
        ("https://a.myshopify.com", "a.myshopify.com"),
        ("https://x.a.myshopify.com", "a.myshopify.com"),
        ("https://www.gov.uk/vat", "gov.uk"),
        ("https://gov.uk", "gov.uk"),
        ("https://www.com", "www.com"),
        ("https://www.www.com", "www.com"),
        ("https://www.ck", "www.ck"),
        ("http://www.localhost:3000/", "localhost"),
        ("http://localhost", "localhost"),
        ("http://shop.corp.internal", "corp.internal"),
        ("http://my_shop.com", "my_shop.com"),
        ("http://1.2.3.4:80/x", "1.2.3.4"),
        ("http://1.2.3.4.", "1.2.3.4"),
        ("http://0x7f.1", "127.0.0.1"),
        ("http://2130706433/", "127.0.0.1"),
        ("http://[::FFFF:1.2.3.4]/", "1.2.3.4"),
        ("http://user@[2001:DB8::0:1%25eth0]:8080/", "2001:db8::1"),
    ],
)
def test_base_domains(url, base_domain):
    assert base_domain_of(url) == base_domain


@pytest.mark.parametrize(
    "url",
    [
        "",
        "  ",
        "https://",
        "https://user@",
        "https://a b.com",
        "https://a%00b.com",
        "https://a%2fb.com",
        "https://a%3Ab.com",
        "http://1.2.3.999",
        "http://[::1",
        "http://[zz]",
        "https://\ufffd.com",
        f"https://{'a' * 300}.com",
        f"https://{'ä' * 3_000}.com",
        "https://...",
    ],
)
def test_a_url_whose_host_no_browser_takes_has_no_program(url):
    assert program_of(url) is None


@pytest.mark.parametrize(
    ("base_domain", "start"),
    [
        ("cultgaia.com", "cultgaia_"),
        ("xn--mnchen-3ya.de", "xn--mnchen-3ya_"),
        ("my_shop.com", "my-shop_"),
        ("1.2.3.4", "ip_"),
        ("2001:db8::1", "ip_"),
        ("localhost", "localhost_"),
    ],
)
def test_a_program_id_begins_with_the_name(base_domain, start):
    assert re.fullmatch(re.escape(start) + "[a-z2-7]{10}", program_id(base_domain))


def test_a_program_id_never_changes():
    assert program_of("https://cultgaia.com") == ("cultgaia_trycmnqlme", "cultgaia.com")
    assert program_of("https://www.example.co.uk") == (
        "example_" + program_id("example.co.uk")[-10:],
        "example.co.uk",
    )


def test_the_same_name_below_another_suffix_is_another_program():
    ids = {program_id(f"cultgaia.{suffix}") for suffix in ("com", "de", "co.uk", "myshopify.com")}
    assert len(ids) == 4


@given(url=st.text() | st.text(alphabet="htps:/\\@[]%.?#wW1x").map(lambda text: f"https://{text}"))
def test_no_url_is_too_odd(url):
    found = program_of(url)
    if found is not None:
        assert re.fullmatch(r"[a-z0-9-]{1,63}_[a-z2-7]{10}", found[0])
        assert 0 < len(found[1]) <= LONGEST_DOMAIN
        assert found[1].isascii()
        assert found[1].isprintable()
        assert program_of(f"https://{found[1]}" if ":" not in found[1] else f"https://[{found[1]}]") == found
