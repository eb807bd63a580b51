"""What orders and cancellations come to within a batch: the same in any order."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from counterfoil.coupons.handlers import RecordCouponUsages
from counterfoil.database.facts import Facts
from counterfoil.events import Promotion
from counterfoil.orders.rules import cancellations
from counterfoil.promos.rules import promo_uses
from support.builders import NOON, a_cancellation, a_promotion, an_order, later

moments = st.integers(0, 2).map(later)
ids = st.sampled_from(["1", "2"])
codes = st.lists(st.sampled_from("AB"), max_size=2, unique=True)
amounts = st.none() | st.sampled_from([Decimal(0), Decimal("1.5"), Decimal("1.50"), Decimal(2)])
promotions = st.lists(
    st.builds(Promotion, st.sampled_from("AB"), amounts, amounts), max_size=2, unique_by=lambda p: p.code
)
placed = st.builds(
    an_order,
    ids,
    codes=codes,
    promotions=promotions,
    timestamp=moments,
    customer_address=st.none() | st.sampled_from(["", "x", "é"]),
    shop_id=st.none() | st.sampled_from(["s", "S"]),
)
canceled = st.builds(
    a_cancellation, ids, timestamp=moments, reason=st.none() | st.sampled_from(["", "a", "B"])
)


def in_any_order(strategy):
    return st.lists(strategy, max_size=6).flatmap(
        lambda events: st.tuples(st.just(events), st.permutations(events))
    )


async def usages_of(orders):
    facts = Facts(list(orders), [1] * len(orders), list(range(len(orders))))
    return (await RecordCouponUsages().plan(facts)).rows


@given(both=in_any_order(placed))
async def test_coupon_usages_do_not_depend_on_the_order_of_events(both):
    one, other = [[row[:3] for row in await usages_of(orders)] for orders in both]
    assert one == other


@given(orders=st.lists(placed, max_size=6))
async def test_each_code_of_an_order_is_one_usage_at_its_earliest_time(orders):
    expected = {}
    for order in orders:
        for code in order.codes:
            key = (order.order_id, code)
            expected[key] = min(expected.get(key, order.timestamp), order.timestamp)
    rows = await usages_of(orders)
    assert {row[:2]: row[2] for row in rows} == expected
    assert [row[:2] for row in rows] == sorted(expected)
    assert all(orders[row[4]].timestamp == row[2] and row[1] in orders[row[4]].codes for row in rows)


@given(both=in_any_order(placed))
def test_promo_uses_do_not_depend_on_the_order_of_events(both):
    one, other = ({key: use for key, (use, _) in promo_uses(orders).items()} for orders in both)
    assert one == other


@given(orders=st.lists(placed, max_size=6))
def test_a_promo_use_is_taken_from_the_order_that_says_so(orders):
    for (order_id, code), (use, index) in promo_uses(orders).items():
        order = orders[index]
        entry = next(p for p in order.promotions if p.code == code)
        assert order.order_id == order_id
        assert use == (
            order.timestamp,
            entry.bonus_amount or 0,
            entry.base_reward or 0,
            order.customer_address or "",
            order.shop_id or "",
        )
        assert use.total_reward == use.base_reward + use.bonus_amount


def test_of_two_uses_the_earlier_stands_and_then_the_smaller():
    cheap, dear = (an_order(promotions=[a_promotion("P", bonus=b)]) for b in (1, 2))
    late = an_order(promotions=[a_promotion("P", bonus=0)], timestamp=later(1))
    assert promo_uses([late, dear, cheap])["1001", "P"][1] == 2
    assert promo_uses([late, dear])["1001", "P"][1] == 1


@given(both=in_any_order(canceled))
def test_cancellations_do_not_depend_on_the_order_of_events(both):
    def standing(events):
        return {o: (events[i].timestamp, events[i].reason or None) for o, i in cancellations(events).items()}

    assert standing(both[0]) == standing(both[1])


def test_the_earliest_cancellation_stands_and_then_the_smaller_reason():
    events = [a_cancellation(timestamp=later(1)), a_cancellation(reason="b"), a_cancellation(reason="a")]
    assert cancellations(events) == {"1001": 2}
    assert events[2].timestamp == NOON
