"""Every event that attribution hangs on, in small alphabets, and the worlds of operators: Hypothesis strategies."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from functools import partial

from hypothesis import strategies as st

from support.attribution_model import World, model

TIMES = [f"2026-{day}T23:59:5{second}Z" for day in ("02-28", "03-01") for second in (7, 8, 9)]
BASES = ["https://one.example.com/a", "http://www.two.example.org", "https://three.co.uk/x?y"]

order_ids = st.sampled_from(["1", "2", "3"])
pixels = st.sampled_from(["p1", "p2", "P3"])
links = st.sampled_from(["l1", "L2", "l3"])
users = st.sampled_from(["u1", "U2"])
times = st.sampled_from(TIMES)
money = st.sampled_from(["0", "0.05", "1", "3.335", "10.005", "99.99", "100"])
currencies = st.sampled_from(["USD", "JPY", "BHD"])


def event(topic, required, optional=()):
    return st.fixed_dictionaries(
        {"topic": st.just(topic), "timestamp": times, **required}, optional=dict(optional)
    )


conversions = st.one_of(
    event(
        "conversion",
        {"order_id": order_ids, "revenue": money, named: among},
        {"commission": money, "currency": currencies, **also},
    )
    for named, among, also in (("pixel_id", pixels, {"link_id": links}), ("link_id", links, {}))
)
orders = event(
    "order.placed",
    {"order_id": order_ids, "total": money, "codes": st.lists(st.sampled_from("ABC"), max_size=2)},
    {"currency": currencies},
)
refunds = event(
    "order.refunded",
    {"order_id": order_ids, "refund_id": st.sampled_from(["r1", "r2"]), "amount": money},
    {"currency": currencies},
)
cancellations = event("order.canceled", {"order_id": order_ids})
user_events = event(
    "user.created", {"user_id": users}, {"name": st.sampled_from(["Ann", "bo"]), "email": st.just("a@b.c")}
)
link_events = event(
    "link.created",
    {"link_id": links, "url": st.sampled_from(BASES)},
    {"user_id": users, "partner_id": st.sampled_from(["px", "pn_u1"]), "pixel_id": pixels},
)
AGENTS = ["Mozilla/5.0 (X11; Linux x86_64)", "Googlebot/2.1", None]
clicks = st.builds(
    lambda number: {  # one id and time, one content: of two the first that came would stand
        "topic": "click",
        "click_id": f"c{number}",
        "timestamp": TIMES[number % len(TIMES)],
        "pixel_id": f"p{number % 2 + 1}",
        **({"ip_address": f"203.0.113.{number % 3}"} if number % 4 else {}),
        **({"user_agent": agent} if (agent := AGENTS[number % 3]) else {}),
    },
    st.integers(0, 23),
)
facts = st.lists(
    st.one_of(
        conversions, conversions, orders, refunds, cancellations, user_events, link_events, link_events
    ),
    min_size=1,
    max_size=12,
)
INSTANTS = [datetime.fromisoformat(time) for time in TIMES]
instants = st.sampled_from(INSTANTS)
percents = st.sampled_from([Decimal(0), Decimal("2.5"), Decimal("33.333333"), Decimal(100)])


@st.composite
def worlds(draw):
    """An operator's settings: at any one time no two that contradict each other."""
    statuses = draw(
        st.lists(
            st.tuples(pixels, st.sampled_from(["active", "paused"]), instants),
            max_size=3,
            unique_by=lambda status: (status[0], status[2]),
        )
    )
    programs = sorted(model([link_to(url) for url in BASES], World()).programs)
    rates = draw(
        st.lists(
            st.tuples(st.sampled_from(programs), percents, instants),
            max_size=3,
            unique_by=lambda rate: (rate[0], rate[2]),
        )
    )
    defaults = draw(st.lists(st.tuples(percents, instants), max_size=2, unique_by=lambda rate: rate[1]))
    owners = draw(st.dictionaries(st.sampled_from("AB"), pixels))
    return World(statuses, rates, defaults, owners)


def link_to(url):
    return {"topic": "link.created", "timestamp": TIMES[0], "link_id": url, "url": url}


def interludes(db, world):
    """The world, piece by piece, as an operator would make it."""
    return [
        *(
            partial(
                db.execute,
                "INSERT INTO affiliate_status_changes (pixel_id, status, valid_from) VALUES ($1, $2, $3)",
                *status,
            )
            for status in world.statuses
        ),
        *(
            partial(
                db.execute,
                "INSERT INTO program_rates (program_id, percent, valid_from) VALUES ($1, $2, $3)",
                *rate,
            )
            for rate in world.rates
        ),
        *(
            partial(db.execute, "INSERT INTO default_rates (percent, valid_from) VALUES ($1, $2)", *rate)
            for rate in world.defaults
        ),
        *(
            partial(
                db.execute, "INSERT INTO affiliate_coupon_owners (code, pixel_id) VALUES ($1, $2)", *owner
            )
            for owner in world.owners.items()
        ),
    ]


def a_document(dice):
    order_id, time = f"{dice.randrange(600)}", dice.choice(TIMES)
    amount = f"{dice.randrange(20_000) / 100}"
    pixel, link = f"p{dice.randrange(9)}", f"l{dice.randrange(40)}"
    kinds = {
        "conversion": {
            "order_id": order_id,
            "revenue": amount,
            **dice.choice([{"pixel_id": pixel}, {"link_id": link}, {"pixel_id": pixel, "link_id": link}]),
        },
        "order.placed": {"order_id": order_id, "total": amount, "codes": dice.sample("ABC", k=2)},
        "order.refunded": {"order_id": order_id, "refund_id": f"{dice.randrange(3)}", "amount": amount},
        "order.canceled": {"order_id": order_id},
        "click": {
            "click_id": f"{dice.random()}",
            "pixel_id": f"p{dice.randrange(9)}",
            "user_agent": f"{order_id}",
        },
        "user.created": {"user_id": f"u{dice.randrange(30)}", "name": dice.choice("xyz")},
        "link.created": {
            "link_id": f"l{dice.randrange(40)}",
            "url": dice.choice(BASES),
            "user_id": f"u{dice.randrange(30)}",
            "pixel_id": f"p{dice.randrange(9)}",
        },
    }
    topic = dice.choices(list(kinds), weights=[8, 4, 4, 1, 4, 1, 1])[0]
    return {"topic": topic, "timestamp": time, **kinds[topic]}
