"""What requests say of products, by the rules that events are read by."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

from litestar.params import QueryParameter
from msgspec import Meta, Struct
from msgspec.structs import fields

from counterfoil.api.problems import invalid_field
from counterfoil.api.requests import refusals
from counterfoil.errors import RequestError
from counterfoil.events import rules
from counterfoil.events.document import parse
from counterfoil.events.rules import MAX_CHARACTERS
from counterfoil.events.whole_numbers import COUNTS, INT4, whole_number

IsLow = Annotated[
    bool | None,
    QueryParameter(description="only products whose stock is below their threshold, or only the others"),
]
Sku = Annotated[str | None, QueryParameter(description="of this product alone")]

Stock = Annotated[int, Meta(ge=INT4.least, le=INT4.most)]
Threshold = Annotated[int, Meta(ge=COUNTS.least, le=COUNTS.most)]


class Details(Struct, rename="camel", kw_only=True):
    """What may be told of a product besides its stock."""

    name: str | None = None
    threshold: Threshold | None = None
    unit_price: Decimal | None = None
    supplier: str | None = None


class NewProduct(Details, rename="camel", kw_only=True):
    """A product to be made; its stock may be left to the events."""

    sku: str
    stock: Stock | None = None


class StockReport(Details, rename="camel", kw_only=True):
    """How many of a product there are now."""

    sku: str | None = None
    stock: Stock


def read_new_product(body: bytes) -> NewProduct:
    """The body; raises 400 for what is no JSON object, 422 naming the field that breaks a rule."""
    with refusals():
        members = _members(body, NewProduct)
        return NewProduct(
            sku=rules.required(rules.identity(members.get("sku"), "sku", _nobody), "sku"),
            stock=whole_number(members.get("stock"), "stock", _nobody),
            **_details(members),
        )


def read_stock_report(body: bytes, sku: str) -> StockReport:
    """The body, about the product of the path: it need not name it; raises as `read_new_product` does."""
    with refusals():
        members = _members(body, StockReport)
        named = rules.identity(members.get("sku"), "sku", _nobody)
        stock = rules.required(whole_number(members.get("stock"), "stock", _nobody), "stock")
        report = StockReport(sku=sku, stock=stock, **_details(members))
    if named not in {None, sku}:
        raise invalid_field("sku", "must be left out, or be the one in the path")
    return report


def read_sku(value: str | None) -> str | None:
    """A SKU in the query by the rules of ids, None when it is missing or blank; raises 422."""
    with refusals():
        return rules.identity(value, "sku", _nobody)


def _members(body: bytes, kind: type[Struct]) -> Mapping[str, Any]:
    """The members of the JSON object, all of them fields of `kind`."""
    tree = parse(body)
    if not isinstance(tree, dict):
        raise RequestError(400, "the body must be a JSON object")
    unknown = sorted(tree.keys() - {field.encode_name for field in fields(kind)})
    if unknown:
        raise invalid_field(unknown[0], "is not a field of this request")
    return tree


def _details(members: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": rules.free_text(members.get("name"), "name", _nobody, limit=MAX_CHARACTERS),
        "threshold": whole_number(members.get("threshold"), "threshold", _nobody, span=COUNTS),
        "unit_price": rules.money(members.get("unitPrice"), "unitPrice", _nobody),
        "supplier": rules.free_text(members.get("supplier"), "supplier", _nobody, limit=MAX_CHARACTERS),
    }


def _nobody(_field: str) -> None:
    """What is normalised is counted for events, not for requests."""
