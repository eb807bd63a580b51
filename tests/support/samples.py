"""What shops, platforms and buses really send, in shape; the values are made up."""

from __future__ import annotations

from typing import Any

PLACED_AT = "2025-11-06T20:00:00.000Z"


def plain_snake(order_id: str) -> dict[str, Any]:
    """The contract's own shape, in snake_case."""
    return {
        "order_id": order_id,
        "timestamp": PLACED_AT,
        "currency": "EUR",
        "total": "88.98",
        "customer_id": "cus_01",
        "email": "buyer@example.com",
        "codes": ["TECHBLOG10", " VIP "],
        "shop_id": "shop_7",
        "customer_address": "0xabc",
        "promotions": [{"code": "TECHBLOG10", "base_reward": "1.50", "bonus_amount": 0.25}],
    }


def plain_camel(order_id: str) -> dict[str, Any]:
    """The same in camelCase, with epoch milliseconds."""
    return {
        "orderId": order_id,
        "placedAt": 1_762_459_200_000,
        "currencyCode": "eur",
        "total": 88.98,
        "customerId": 17,
        "codes": ["TECHBLOG10", "VIP"],
        "shopId": "shop_7",
        "customerAddress": "0xabc",
        "promotions": [{"code": "TECHBLOG10", "baseReward": "1.50", "bonusAmount": 0.25}],
    }


def cloud_event(order_id: str, data: dict[str, Any], event: str = "order.placed") -> dict[str, Any]:
    """A CloudEvent in structured mode around some data."""
    return {
        "specversion": "1.0",
        "id": f"{event}:{order_id}",
        "source": "/medusa/store-eu",
        "type": event,
        "subject": order_id,
        "time": PLACED_AT,
        "datacontenttype": "application/json",
        "dataschema": "urn:counterfoil:order.placed:1",
        "data": data,
    }


def cloud_event_headers(order_id: str, event: str = "order.placed") -> list[tuple[str, bytes]]:
    """The headers of a CloudEvent in binary mode."""
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", f"{event}:{order_id}".encode()),
        ("ce_source", b"/medusa/store-eu"),
        ("ce_type", event.encode()),
        ("ce_subject", order_id.encode()),
        ("ce_time", PLACED_AT.encode()),
        ("content-type", b"application/json"),
    ]


def bus_event(data: dict[str, Any], event: str = "order.placed", name: str = "name") -> dict[str, Any]:
    """A platform bus's envelope around some data."""
    return {name: event, "metadata": {"eventGroupId": "01JAXYZ0000000000000000000"}, "data": data}


def expanded_medusa_order(order_id: str) -> dict[str, Any]:
    """What a Medusa subscriber reads of an order: one code stands in many places."""
    return {
        "id": order_id,
        "version": 1,
        "display_id": 1042,
        "status": "pending",
        "customer_id": "cus_01",
        "email": "buyer@example.com",
        "currency_code": "eur",
        "items": [
            {
                "id": "ordli_01",
                "variant_sku": "WIDGET-PRO-001",
                "unit_price": 49.99,
                "raw_unit_price": {"value": "49.99", "precision": 20},
                "quantity": 2,
                "adjustments": [
                    {
                        "id": "ordliadj_01",
                        "code": "TECHBLOG10",
                        "amount": 9.998,
                        "promotion_id": "promo_01JAXA",
                    },
                    {"id": "ordliadj_02", "code": None, "amount": 1, "promotion_id": None},
                ],
                "tax_lines": [],
            },
            {"id": "ordli_02", "adjustments": [{"id": "ordliadj_03", "code": "TECHBLOG10", "amount": 1}]},
        ],
        "shipping_methods": [
            {
                "id": "ordsm_01",
                "amount": 5,
                "adjustments": [{"id": "ordsmadj_01", "code": "FREESHIP", "amount": 5}],
            }
        ],
        "promotions": [
            {"id": "promo_01JAXA", "code": "TECHBLOG10", "type": "standard", "limit": None, "used": 17},
            {"id": "promo_01JAXB", "code": "FREESHIP", "type": "standard", "is_automatic": True},
        ],
        "promotion": {"id": "promo_01JAXA", "code": "TECHBLOG10"},
        "cart": {"id": "cart_01", "promotions": [{"id": "promo_01JAXC", "code": "CARTONLY"}]},
        "summary": {"current_order_total": 88.98, "original_order_total": 88.98},
        "total": 88.982,
        "raw_total": {"value": "88.982", "precision": 20},
        "metadata": None,
        "created_at": PLACED_AT,
        "updated_at": PLACED_AT,
    }


def shopify_order(order_id: int) -> dict[str, Any]:
    """A Shopify order: integer ids, decimal strings, a zone that is not UTC."""
    return {
        "id": order_id,
        "admin_graphql_api_id": f"gid://shopify/Order/{order_id}",
        "name": "#1071",
        "order_number": 1071,
        "cart_token": None,
        "currency": "USD",
        "cancelled_at": None,
        "cancel_reason": None,
        "created_at": "2025-11-06T15:00:00-05:00",
        "test": False,
        "email": "buyer@example.com",
        "discount_codes": [{"code": "TECHBLOG10", "amount": "19.90", "type": "percentage"}],
        "discount_applications": [
            {"target_type": "line_item", "type": "discount_code", "value": "10.0", "code": "TECHBLOG10"},
            {"target_type": "line_item", "type": "automatic", "value": "5.0", "title": "Autumn"},
        ],
        "line_items": [
            {
                "id": 15518907892012,
                "sku": "WIDGET-PRO-001",
                "quantity": 1,
                "price": "199.00",
                "discount_allocations": [{"amount": "19.90", "discount_application_index": 0}],
            }
        ],
        "total_discounts": "24.90",
        "total_price": "184.10",
        "customer": {"id": 97773681707702, "email": "buyer@example.com", "first_name": "Ada"},
        "billing_address": {"province": "California", "country_code": "US"},
        "refunds": [],
    }


def shopify_cancellation(order_id: int) -> dict[str, Any]:
    """A Shopify order that was canceled: the whole order again, with a time and a reason."""
    return shopify_order(order_id) | {
        "cancelled_at": "2025-11-07T15:00:00-05:00",
        "cancel_reason": "customer",
    }


def shopify_refund(order_id: int, refund_id: int = 509562969) -> dict[str, Any]:
    """A Shopify refund: the money that left is in its transactions, and nowhere else."""
    return {
        "id": refund_id,
        "order_id": order_id,
        "created_at": "2025-11-08T10:00:00-05:00",
        "processed_at": "2025-11-08T10:00:00-05:00",
        "note": "damaged",
        "user_id": 548380009,
        "restock": True,
        "refund_line_items": [
            {
                "id": 104689539,
                "line_item_id": 15518907892012,
                "quantity": 1,
                "restock_type": "return",
                "subtotal": "174.10",
                "total_tax": "0.00",
            }
        ],
        "transactions": [
            {
                "id": 179259969,
                "order_id": order_id,
                "kind": "refund",
                "status": "success",
                "amount": "87.05",
                "currency": "USD",
                "gateway": "shopify_payments",
            }
        ],
        "order_adjustments": [
            {"id": 1, "order_id": order_id, "refund_id": refund_id, "amount": "-87.05", "kind": "refund"}
        ],
    }


def medusa_refund(order_id: str) -> dict[str, Any]:
    """A refund of a Medusa payment, with the order that its publisher has put beside it."""
    return {
        "id": "ref_01",
        "order_id": order_id,
        "amount": 44.49,
        "raw_amount": {"value": "44.49", "precision": 20},
        "currency_code": "eur",
        "refund_reason_id": None,
        "note": "one of two returned",
        "created_at": "2025-11-20T10:00:00.000Z",
        "created_by": "user_01",
    }
