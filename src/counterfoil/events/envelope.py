"""Opening a record: its bytes become the wire struct of the event inside, whatever it is wrapped in.

Three wrappings are taken: CloudEvents 1.0 structured (`specversion` beside `data` or `data_base64`),
CloudEvents binary (`ce_*` headers), and a platform bus's `{"name": …, "data": {…}}`. An object without them
is the event itself.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec

from counterfoil.errors import InvalidEvent
from counterfoil.events import document
from counterfoil.events.rules import (
    MISSING_FIELD,
    NOT_OBJECT,
    WRONG_EVENT,
    Normalised,
    Number,
    invalid,
    text_bytes,
)

Headers = Sequence[tuple[str, bytes | None]]

TOPICS: Final = frozenset(
    {
        "order.placed",
        "order.canceled",
        "order.refunded",
        "click",
        "conversion",
        "scan",
        "claim",
        "redemption",
        "stock-change",
        "voucher.created",
        "impression",
        "user.created",
        "link.created",
        "low-stock",
        "voucher-alert",
    }
)
"""The default name of every topic: what an envelope may call an event that belongs elsewhere."""

ABSENT: Final = msgspec.Raw()
"""Stands for `data` where the document has none; compare with `is`."""

MAX_WRAPPINGS: Final = 3
"""A bus event within a CloudEvent is real; more than that is an event with odd fields of its own."""


class EnvelopeFields(msgspec.Struct, kw_only=True, gc=False):
    """What an object is known as an envelope by; each wire struct has these beside its own fields."""

    specversion: str | None = None
    type: str | None = None
    time: str | None = None
    name: str | None = None
    event_name: str | None = None
    event_name_camel: str | None = msgspec.field(name="eventName", default=None)
    data: msgspec.Raw = ABSENT


Id = str | int | None
Time = str | int | None
Money = Any  # the decoder's hook keeps a float's own text, which it does for untyped fields alone
Object = Any  # likewise, for the numbers in it; what is no object is refused by its rule

WireT = TypeVar("WireT", bound=EnvelopeFields)

Source = bytes | msgspec.Raw | dict[str, Any]

Opened = tuple[WireT, object, Source]
"""The wire struct, the CloudEvents time if any, and the event's own text or tree."""


class Opener(Generic[WireT]):
    """Opens the records of one topic into one wire struct."""

    def __init__(self, topic: str, wire: type[WireT], own_ids: Collection[str]) -> None:
        """`own_ids`: the keys by which an object names its own aggregates, as no bus envelope does.

        `id` can't be among them, for a bus may number its messages.
        """
        self.topic = topic
        self.wire = wire
        self._own_keys = tuple(own_ids)
        self._own_attributes = tuple(
            field.name for field in msgspec.structs.fields(wire) if field.encode_name in own_ids
        )
        self._decode = msgspec.json.Decoder(wire, float_hook=Number).decode

    def open(
        self, value: bytes | None, headers: Headers, max_bytes: int, normalised: Normalised
    ) -> Opened[WireT]:
        """The event inside the record; raises InvalidEvent when its bytes or its shape break a rule."""
        if value and value.isascii() and len(value) <= max_bytes:
            text = value
        else:
            text = text_bytes(value, max_bytes, normalised)
        if len(text) > document.SURELY_FLAT:
            document.check_depth(text)
        sent_at = self._read_headers(headers) if headers else None
        try:
            wire = self._decode(text)
            if wire.data is ABSENT and wire.specversion is None:
                return wire, sent_at, text
            opened = self._open_fast(wire, sent_at, text)
        except (msgspec.DecodeError, RecursionError):
            opened = None
        return opened or self.open_carefully(text, sent_at)

    def _open_fast(self, wire: WireT, sent_at: object, text: bytes | msgspec.Raw) -> Opened[WireT] | None:
        for _ in range(MAX_WRAPPINGS):
            holds_object = bytes(wire.data).startswith(b"{")
            named = any(getattr(wire, attribute) is not None for attribute in self._own_attributes)
            if not self._is_envelope(wire, holds_object, named):
                break
            if not holds_object:
                return None
            sent_at = _later(sent_at, wire)
            text = wire.data
            wire = self._decode(text)
        return wire, sent_at, text

    def open_carefully(self, text: bytes, sent_at: object) -> Opened[WireT]:
        """The same answer as the fast way, for every document, and the exact reason for a refusal."""
        tree = _object(document.parse(text), "")
        for _ in range(MAX_WRAPPINGS):
            fields = _envelope_fields(tree)
            named = any(tree.get(key) is not None for key in self._own_keys)
            if not self._is_envelope(fields, isinstance(tree.get("data"), dict), named):
                break
            sent_at = _later(sent_at, fields)
            tree = _data(tree)
        return document.read(self.wire, tree), sent_at, tree

    def _is_envelope(self, fields: EnvelopeFields, holds_object: bool, is_event: bool) -> bool:
        """`is_event`: the object names its own aggregate, so what it has beside that is its own, too."""
        if fields.specversion is not None:
            self._refuse_other(fields.type, "type")
            return True
        if not holds_object or is_event:
            return False
        for key, name in (
            ("name", fields.name),
            ("eventName", fields.event_name_camel),
            ("event_name", fields.event_name),
        ):
            if isinstance(name, str):
                self._refuse_other(name, key)
                return True
        return False

    def _read_headers(self, headers: Headers) -> str | None:
        """The CloudEvents time of a binary event; a header that is not text says nothing."""
        sent_at = None
        for key, raw in headers:
            if key not in {"ce_type", "ce_time"} or raw is None:
                continue
            try:
                value = raw.decode()
            except UnicodeDecodeError:
                continue
            if key == "ce_time":
                sent_at = value
            else:
                self._refuse_other(value, "ce_type")
        return sent_at

    def _refuse_other(self, name: object, path: str) -> None:
        if isinstance(name, str) and name != self.topic and name in TOPICS:
            raise InvalidEvent(WRONG_EVENT, path, f"must not name {name} on the topic of {self.topic}")


def _later(sent_at: object, fields: EnvelopeFields) -> object:
    return fields.time if fields.specversion is not None and fields.time is not None else sent_at


def _envelope_fields(tree: dict[str, Any]) -> EnvelopeFields:
    return EnvelopeFields(
        specversion=tree.get("specversion"),
        type=tree.get("type"),
        time=tree.get("time"),
        name=tree.get("name"),
        event_name=tree.get("event_name"),
        event_name_camel=tree.get("eventName"),
    )


def _data(tree: dict[str, Any]) -> dict[str, Any]:
    data = tree.get("data")
    if data is not None:
        return _object(data, "data")
    encoded = tree.get("data_base64")
    if encoded is None:
        raise InvalidEvent(MISSING_FIELD, "data", "is required")
    return _object(document.parse(_from_base64(encoded)), "data_base64")


def _from_base64(encoded: object) -> bytes:
    if isinstance(encoded, str):
        try:
            text = base64.b64decode(encoded, validate=True)
            text.decode()
        except (binascii.Error, ValueError):
            pass
        else:
            return text
    raise invalid("data_base64", "must be base64 of UTF-8")


def _object(value: object, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidEvent(NOT_OBJECT, path, "must be an object")
    return value
