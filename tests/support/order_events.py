"""Orders and cancellations in small alphabets, so that many of them meet: Hypothesis strategies."""

from __future__ import annotations

from hypothesis import strategies as st

order_ids = st.sampled_from(["1", "2", "3"])
times = st.sampled_from([f"2026-03-01T12:00:0{second}Z" for second in range(3)])
codes = st.sampled_from(["A", "B", "C"])
amounts = st.sampled_from(["0", "1.5", "2"])
entries = st.fixed_dictionaries({"code": codes}, optional={"base_reward": amounts, "bonus_amount": amounts})
placed = st.fixed_dictionaries(
    {"order_id": order_ids, "timestamp": times},
    optional={
        "codes": st.lists(codes, max_size=3),
        "promotions": st.lists(entries, min_size=1, max_size=3),
        "customer_address": st.sampled_from(["0xa", "0xB", "é"]),
        "shop_id": st.sampled_from(["s1", "S2"]),
    },
)
canceled = st.fixed_dictionaries(
    {"order_id": order_ids, "timestamp": times, "canceled": st.just(True)},
    optional={"reason": st.sampled_from(["a", "B", ""])},
)
facts = st.lists(st.one_of(placed, placed, canceled), min_size=1, max_size=10)
