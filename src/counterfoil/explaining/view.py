"""A report as people read it, on a terminal or in a page: lines of prose, and tables narrow enough to be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from counterfoil.explaining.affiliate_view import view_affiliate
from counterfoil.explaining.cells import Section, time_cell
from counterfoil.explaining.code_view import view_coupon, view_promo
from counterfoil.explaining.commission_view import view_commission
from counterfoil.explaining.order_view import view_order
from counterfoil.explaining.partner_view import view_partner
from counterfoil.explaining.rows import Document, Report
from counterfoil.explaining.stock_view import view_sku
from counterfoil.explaining.voucher_view import view_voucher

VIEWS: dict[str, Callable[[Report], Iterable[Section]]] = {
    "order": view_order,
    "coupon": view_coupon,
    "promo": view_promo,
    "affiliate": view_affiliate,
    "partner": view_partner,
    "commission": view_commission,
    "voucher": view_voucher,
    "sku": view_sku,
}
AGREES = {
    "order": "Posted = target.",
    "coupon": "No drift: the counts are what the rows say.",
    "promo": "No drift: the counts are what the rows say.",
    "affiliate": "No drift: the days show what the ledgers say, and what is posted is what is attributed.",
    "partner": "No drift: each payout is the sum of the rows that it paid.",
    "commission": "Posted = target: of its order and of each beneficiary.",
    "voucher": (
        "No drift: the counts are what the tables come to that they are compared with. "
        "The scans themselves are counted again by `counterfoil verify`."
    ),
    "sku": "No drift: the stock is its latest absolute and the deltas after it.",
}
DISAGREES = (
    "Something here is not what its rows say: `counterfoil verify` looks at everything, --repair mends it."
)


def sections(report: Report) -> Iterator[Section]:
    """What is shown of a report, in the order in which one would ask."""
    clusters = sorted({source["cluster_id"] for source in _sources(report)})
    for section in VIEWS[report["kind"]](_with_named_sources(report, of_one_cluster=len(clusters) == 1)):
        if section.rows != []:
            yield section
    if report["drift"]:
        yield Section("Drift", report["drift"])
    yield Section(_verdict(report))
    if len(clusters) == 1:
        yield Section(f"Times are UTC; sources are records of the cluster {clusters[0]}.")


def _verdict(report: Report) -> str:
    if "at" in report:
        moment = time_cell(report["at"])
        return f"As of {moment}: of the facts up to then alone. Nothing of this is stored, it was counted just now."
    return AGREES[report["kind"]] if report["agrees"] else DISAGREES


def _sources(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        for element in value:
            yield from _sources(element)
    elif isinstance(value, dict) and not isinstance(value, Document):
        for name, element in value.items():
            if name != "source":
                yield from _sources(element)
            elif element is not None:
                yield element


def _with_named_sources(value: Any, *, of_one_cluster: bool) -> Any:
    if isinstance(value, list):
        return [_with_named_sources(element, of_one_cluster=of_one_cluster) for element in value]
    if not isinstance(value, dict) or isinstance(value, Document):
        return value
    return {
        name: _source_name(element, of_one_cluster)
        if name == "source"
        else _with_named_sources(element, of_one_cluster=of_one_cluster)
        for name, element in value.items()
    }


def _source_name(source: dict[str, Any] | None, of_one_cluster: bool) -> str:
    if source is None:
        return "by hand"
    record = f"{source['topic']}/{source['partition']}@{source['offset']}"
    return record if of_one_cluster else f"{source['cluster_id']}/{record}"
