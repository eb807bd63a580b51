"""Sessions of the pages: recognised by the admin token alone, for twelve hours, in one browser."""

from __future__ import annotations

import pytest

from counterfoil.api.sessions import COOKIE, LASTS_S, Sessions, session_cookie
from counterfoil.settings import Settings

TOKEN = "s3cret-token"


class Clock:
    """The time, as a test sets it."""

    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def sessions_of(token: str | None = TOKEN, clock: Clock | None = None) -> Sessions:
    return Sessions(Settings(_env_file=None, admin_token=token), clock or Clock())


def found(sessions: Sessions, *lines: str) -> str | None:
    return sessions.of([(b"cookie", line.encode("latin-1")) for line in lines])


def test_a_session_stands_for_twelve_hours() -> None:
    clock = Clock()
    sessions = sessions_of(clock=clock)
    session = sessions.begin()
    clock.now += LASTS_S - 1
    assert found(sessions, f"{COOKIE}={session}") == session
    clock.now += 1
    assert found(sessions, f"{COOKIE}={session}") is None


def test_no_two_sessions_are_the_same_and_none_holds_the_token() -> None:
    sessions = sessions_of()
    assert len({sessions.begin() for _ in range(100)}) == 100
    assert TOKEN not in sessions.begin()


def test_it_is_found_among_other_cookies_and_behind_planted_ones() -> None:
    sessions = sessions_of()
    session = sessions.begin()
    assert found(sessions, f"a=b; {COOKIE}={session}; c=d") == session
    assert found(sessions, f"{COOKIE}=planted; {COOKIE}={session}") == session
    assert found(sessions, "a=b", f"{COOKIE}={session}") == session
    assert found(sessions, f"x{COOKIE}={session}") is None


@pytest.mark.parametrize(
    "value", ["", ".", "..", "9999999999", "9999999999.x.", "é.é.é", "9999999999..0", "\xff" * 64]
)
def test_what_is_no_session_is_none(value: str) -> None:
    assert found(sessions_of(), f"{COOKIE}={value}") is None


def test_every_part_is_sealed() -> None:
    session = sessions_of().begin()
    for place in range(len(session)):
        changed = session[:place] + ("0" if session[place] != "0" else "1") + session[place + 1 :]
        assert found(sessions_of(), f"{COOKIE}={changed}") is None


def test_it_is_of_one_token() -> None:
    session = sessions_of().begin()
    assert found(sessions_of(), f"{COOKIE}={session}") == session
    assert found(sessions_of("another"), f"{COOKIE}={session}") is None


def test_without_a_token_there_are_no_sessions() -> None:
    without = sessions_of(None)
    assert not without.needed
    assert found(without, f"{COOKIE}={without.begin()}") is None


def test_what_a_page_sends_along_is_of_its_session() -> None:
    sessions = sessions_of()
    first, second = sessions.begin(), sessions.begin()
    assert sessions.csrf_token(first) == sessions_of().csrf_token(first)
    assert sessions.csrf_token(first) != sessions.csrf_token(second)
    assert not first.endswith(sessions.csrf_token(first))


def test_what_a_page_sends_along_seals_no_session() -> None:
    sessions = sessions_of()
    session = sessions.begin()
    for forged in (f"csrf {session}", session):
        assert found(sessions, f"{COOKIE}={forged}.{sessions.csrf_token(session)}") is None


def test_a_sealed_text_that_names_no_time_is_no_session() -> None:
    sessions = sessions_of()
    for claims in ("csrf 9999999999.x", "٩٩٩٩٩٩٩٩٩٩.x", "-1.x", ".x"):
        assert not sessions._stands(f"{claims}.{sessions._seal(claims)}")


def test_a_cookie_is_for_this_site_and_no_script() -> None:
    assert (
        session_cookie("v", is_https=False) == f"{COOKIE}=v; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict"
    )
    assert session_cookie("v", is_https=True).endswith("; Secure")
    assert "Max-Age=0" in session_cookie("", is_https=False)
