"""Rows in PostgreSQL's binary COPY format: exact to the microsecond, and read back by the server as they went in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from counterfoil.coupons.store import COUPON_USAGES
from counterfoil.database.binary_copy import binary_copy, timestamptz

YEAR_2000 = datetime(2000, 1, 1, tzinfo=UTC)
MOMENTS = st.datetimes(
    datetime(2000, 1, 1),  # noqa: DTZ001 - Hypothesis adds the zone
    datetime(9999, 12, 31),  # noqa: DTZ001
    timezones=st.just(UTC),
)


@given(MOMENTS)
def test_a_time_is_exact_to_the_microsecond(moment):
    assert timestamptz(moment) == (moment - YEAR_2000) // timedelta(microseconds=1)


@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1), MOMENTS), max_size=3))
async def test_the_stream_begins_and_ends_as_the_format_wants_whatever_the_texts(rows):
    usages = [(*row, 1, 2) for row in rows if row[0].isprintable() and row[1].isprintable()]
    stream = b"".join([part async for part in binary_copy(usages, COUPON_USAGES.encode)])
    assert stream.startswith(b"PGCOPY\n\xff\r\n\0" + bytes(8))
    assert stream.endswith(b"\xff\xff")
    assert len(stream) == 19 + 2 + sum(
        2 + 5 * 4 + len(order.encode()) + len(code.encode()) + 8 + 4 + 8 for order, code, *_ in usages
    )
