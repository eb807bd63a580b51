"""The input rules that all events share: each keeps a value, changes it, or refuses it.

A rule is pure. It raises InvalidEvent with the JSON path and what the rule takes, never with the value. Where
it keeps a changed value it calls `normalised` with the field's name; a missing value comes back as None.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import MAX_EMAX, MIN_EMIN, ROUND_HALF_EVEN, Context, Decimal
from typing import Final, TypeVar
from unicodedata import category, is_normalized, normalize
from urllib.parse import unquote, urlsplit

from counterfoil.errors import InvalidEvent
from counterfoil.settings import CodeCase, Settings

EMPTY: Final = "empty"
TOO_LARGE: Final = "too_large"
NOT_UTF8: Final = "not_utf8"
NOT_JSON: Final = "not_json"
NOT_OBJECT: Final = "not_object"
MISSING_FIELD: Final = "missing_field"
INVALID_FIELD: Final = "invalid_field"
WRONG_EVENT: Final = "wrong_event"

Normalised = Callable[[str], None]
"""Hears the name of a field whose value is kept, but changed."""

Candidates = Iterable[tuple[str, object]]
"""Key and value of the fields that may carry one fact, the first choice first."""

MAX_CHARACTERS: Final = 255
MAX_CODES: Final = 1_000
MAX_FREE_TEXT: Final = 1_024
MAX_URL: Final = 2_048
"""Also of the texts that are addresses mostly: a click's referrer and landing page."""
MAX_HOST: Final = 253


def _heard_by_nobody(field: str) -> None:
    """The default of `Rules.normalised`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What of the rules is a deployment's choice, and who hears of normalised fields."""

    code_case: CodeCase = CodeCase.KEEP
    default_currency: str = "USD"
    max_event_bytes: int = 1_048_576
    normalised: Normalised = _heard_by_nobody

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        """The rules of a deployment."""
        return cls(
            code_case=settings.code_case,
            default_currency=settings.default_currency,
            max_event_bytes=settings.max_event_bytes,
        )


def invalid(path: str, rule: str) -> InvalidEvent:
    """The refusal of one field's value."""
    return InvalidEvent(INVALID_FIELD, path, rule)


def missing(path: str) -> InvalidEvent:
    """The refusal of an event without a field that it needs."""
    return InvalidEvent(MISSING_FIELD, path, "is required")


Found = TypeVar("Found")


def required(found: Found | None, path: str) -> Found:
    """What was found; the refusal of the event where that is nothing."""
    if found is None:
        raise missing(path)
    return found


# --- bytes --------------------------------------------------------------------------------------------------

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def text_bytes(value: bytes | None, max_bytes: int, normalised: Normalised) -> bytes:
    """The record's value as UTF-8 without a byte order mark."""
    if not value:
        raise InvalidEvent(EMPTY, "", "must not be empty")
    if len(value) > max_bytes:
        raise InvalidEvent(TOO_LARGE, "", f"must be at most {max_bytes} bytes")
    return value if value.isascii() else _strict_utf8(value, normalised)


def _strict_utf8(value: bytes, normalised: Normalised) -> bytes:
    if value.startswith(_BYTE_ORDER_MARK):
        value = value[len(_BYTE_ORDER_MARK) :]
        if not value:
            raise InvalidEvent(EMPTY, "", "must not be empty")
        normalised("byte_order_mark")
    try:
        value.decode()
    except UnicodeDecodeError as error:
        raise InvalidEvent(NOT_UTF8, "", f"must be UTF-8; byte {error.start} is not") from None
    return value


# --- ids ----------------------------------------------------------------------------------------------------

BLANKS: Final = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""The characters with Unicode's property White_Space; str.strip() alone would also take \x1c to \x1f."""

_FORBIDDEN_IN_IDS = frozenset({"Cc", "Cf", "Zl", "Zp", "Cs"})
_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}").fullmatch
_PLAIN_ID = re.compile(r"[0-9a-z_-]{1,255}|[0-9A-Za-z_]{1,255}").fullmatch  # a UUID has dashes

# NFC makes at most four code points into one, so a longer text cannot come down to the limit. Checked first,
# because normalising a megabyte of combining marks takes quadratic time.
_MAX_BEFORE_NFC = 4 * MAX_CHARACTERS


def identity(value: object, field: str, normalised: Normalised, path: str = "") -> str | None:
    """An id as text; `''`, blanks and null are missing."""
    if value is None:
        return None
    if type(value) is not str:
        return _integer_identity(value, field, normalised, path or field)
    if _PLAIN_ID(value):
        return value
    return _text_identity(value, field, normalised, path or field)


def _integer_identity(value: object, field: str, normalised: Normalised, path: str) -> str:
    if type(value) is not int:
        raise invalid(path, "must be a string or an integer")
    if not -(2**63) <= value < 2**63:
        raise invalid(path, "must fit into 64 bits")
    normalised(field)
    return str(value)


def _text_identity(value: str, field: str, normalised: Normalised, path: str) -> str | None:
    text = value.strip(BLANKS)
    if not text:
        return None
    text = _composed(text, path)
    plain = text.isascii() and text.isprintable()
    if not plain and any(category(character) in _FORBIDDEN_IN_IDS for character in text):
        raise invalid(path, "must hold no control, format, line-separator or surrogate characters")
    if _UUID(text):
        text = text.lower()
    if text != value:
        normalised(field)
    return text


def first_identity(candidates: Candidates, field: str, normalised: Normalised) -> str | None:
    """The first id among the candidates that is not missing."""
    for path, value in candidates:
        found = identity(value, field, normalised, path)
        if found is not None:
            return found
    return None


def _composed(text: str, path: str) -> str:
    if len(text) <= _MAX_BEFORE_NFC and not is_normalized("NFC", text):
        text = normalize("NFC", text)
    if len(text) > MAX_CHARACTERS:
        raise invalid(path, f"must be at most {MAX_CHARACTERS} characters")
    return text


# --- codes --------------------------------------------------------------------------------------------------

_FORBIDDEN_IN_CODES = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]").search

_MAX_REMEMBERED = 4_096
_UPPER = CodeCase.UPPER
_known_codes: dict[str, str] = {}
_known_upper_codes: dict[str, str] = {}


def code(
    value: object, field: str, code_case: CodeCase, normalised: Normalised, path: str = ""
) -> str | None:
    """A code, trimmed, composed and in the case that is set; null and blank codes are None."""
    if value is None:
        return None
    if type(value) is not str:
        raise invalid(path or field, "must be a string")
    known = _known_upper_codes if code_case is _UPPER else _known_codes
    kept = known.get(value)
    if kept is None:
        kept = _code(value, code_case, path or field)
        if not kept:
            return None
        if len(value) <= MAX_CHARACTERS:  # so that a flood of odd codes cannot fill the memory
            if len(known) >= _MAX_REMEMBERED:
                known.clear()
            known[value] = kept
    if kept != value:
        normalised(field)
    return kept


def _code(value: str, code_case: CodeCase, path: str) -> str:
    text = value.strip(BLANKS)
    if _FORBIDDEN_IN_CODES(text):
        raise invalid(path, "must hold no control characters")
    text = _composed(text, path)
    if code_case is _UPPER:
        text = _composed(text.upper(), path)
    return text


def codes(values: Sequence[object], field: str, code_case: CodeCase, normalised: Normalised) -> list[str]:
    """The distinct codes in the order they come, without the null and blank ones."""
    known = _known_upper_codes if code_case is _UPPER else _known_codes
    if len(values) == 1 and type(values[0]) is str and known.get(values[0]) == values[0]:  # the usual order
        return [values[0]]
    distinct: dict[str, None] = {}
    for value in values:
        kept = known.get(value) if type(value) is str else None
        if kept is None:
            kept = code(value, field, code_case, normalised)
            if kept is None:
                continue
        elif kept != value:
            normalised(field)
        distinct[kept] = None
    if len(distinct) > MAX_CODES:
        raise invalid(field, f"must be at most {MAX_CODES} distinct codes")
    return list(distinct)


# --- money --------------------------------------------------------------------------------------------------


class Number:
    """A JSON number that is no integer of usual size, as it is written: exact, and nothing made of it yet."""

    __slots__ = ("literal",)

    def __init__(self, literal: str) -> None:
        self.literal = literal


_MONEY_RULE = "must be a decimal number, at least 0 and below 10^14"
_PLAIN_MONEY = re.compile(r"[0-9]{1,14}(?:\.[0-9]{1,6})?").fullmatch
_DECIMAL_STRING = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?()").fullmatch
_JSON_NUMBER = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?").fullmatch

_MICRO = Decimal("0.000001")
_MONEY_LIMIT = 10**14
_EXACT = Context(prec=50, rounding=ROUND_HALF_EVEN, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[])


def money(value: object, field: str, normalised: Normalised, path: str = "") -> Decimal | None:
    """An exact amount with at most 6 decimals; null is missing."""
    if value is None:
        return None
    if type(value) is str:
        normalised(field)
        return (
            Decimal(value) if _PLAIN_MONEY(value) else _money(_DECIMAL_STRING(value), field, normalised, path)
        )
    if type(value) is Number:
        literal = value.literal
        return (
            Decimal(literal)
            if _PLAIN_MONEY(literal)
            else _money(_JSON_NUMBER(literal), field, normalised, path)
        )
    if type(value) is int and 0 <= value < _MONEY_LIMIT:
        return Decimal(value)
    raise invalid(path or field, _MONEY_RULE)


def total(amounts: Iterable[Decimal], field: str) -> Decimal:
    """The sum of some amounts, an amount itself."""
    found = sum(amounts, Decimal(0))
    if found >= _MONEY_LIMIT:
        raise invalid(field, _MONEY_RULE)
    return found


def _money(parts: re.Match[str] | None, field: str, normalised: Normalised, path: str) -> Decimal:
    if parts is None:
        raise invalid(path or field, _MONEY_RULE)
    sign, whole, fraction, exponent = parts.groups(default="")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return Decimal(0)
    kept = None if sign else _rounded(digits, _small(exponent) - len(fraction))
    if kept is None or kept >= _MONEY_LIMIT:
        raise invalid(path or field, _MONEY_RULE)
    if _is_rounded(kept, digits):
        normalised(field)
    return kept


def _small(exponent: str) -> int:
    """The exponent as a number; beyond 10^8 its size no longer matters, an event being far shorter."""
    digits = exponent.lstrip("+-").lstrip("0")
    size = int(digits or "0") if len(digits) <= 8 else 10**9
    return -size if exponent.startswith("-") else size


def _rounded(digits: str, exponent: int) -> Decimal | None:
    """digits × 10^exponent to 6 decimals, or None from 10^14 on; what is far below the sixth decimal is 0."""
    magnitude = len(digits) + exponent
    if magnitude > 14:
        return None
    if magnitude < -6:
        return Decimal(0)
    if exponent >= 0:
        return Decimal(digits + "0" * exponent)
    return Decimal(f"{digits}E{exponent}").quantize(_MICRO, context=_EXACT)


def _is_rounded(kept: Decimal, digits: str) -> bool:
    """Whether the amount has lost some of its digits, which begin with another than 0."""
    return str(int(kept.scaleb(6, _EXACT))).rstrip("0") != digits.rstrip("0")


# --- currency -----------------------------------------------------------------------------------------------

_CURRENCY = re.compile(r"[A-Za-z]{3}").fullmatch
_known_currencies: dict[str, str] = {}


def currency(value: object, field: str, normalised: Normalised, path: str = "") -> str | None:
    """Three capital letters; null is missing."""
    if value is None:
        return None
    if type(value) is not str:
        raise invalid(path or field, "must be three letters")
    kept = _known_currencies.get(value)
    if kept is None:
        text = value.strip(BLANKS)
        if not _CURRENCY(text):  # before upper(), which makes ASCII letters of others
            raise invalid(path or field, "must be three letters")
        kept = text.upper()
        _known_currencies[kept] = kept  # 26³ entries at most: only the right form is remembered
    if kept != value:
        normalised(field)
    return kept


def first_currency(candidates: Candidates, field: str, normalised: Normalised) -> str | None:
    """The first currency given among the candidates."""
    for path, value in candidates:
        if value is not None:
            return currency(value, field, normalised, path)
    return None


# --- choices ------------------------------------------------------------------------------------------------


def one_of(
    value: object, field: str, choices: tuple[str, ...], normalised: Normalised, path: str = ""
) -> str | None:
    """One of some words in capitals, trimmed and raised; null and blank are missing."""
    if value is None:
        return None
    if type(value) is not str:
        raise invalid(path or field, "must be a string")
    if value in choices:
        return value
    text = value.strip(BLANKS)
    if not text:
        return None
    kept = text.upper() if text.isascii() else text  # upper() makes ASCII letters of others
    if kept not in choices:
        raise invalid(path or field, f"must be one of {', '.join(choices)}")
    normalised(field)
    return kept


def first_one_of(
    candidates: Candidates, field: str, choices: tuple[str, ...], normalised: Normalised
) -> str | None:
    """The first choice among the candidates that is not missing."""
    for path, value in candidates:
        found = one_of(value, field, choices, normalised, path)
        if found is not None:
            return found
    return None


def boolean(value: object, field: str) -> bool | None:
    """JSON's true or false; null is missing."""
    if value is None or type(value) is bool:
        return value
    raise invalid(field, "must be true or false")


# --- times --------------------------------------------------------------------------------------------------

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_EARLIEST_MS = 946_684_800_000
_YEAR_2100_MS = 4_102_444_800_000
_NEVER_LATE = -1  # stands for a record without a timestamp, against which nothing is judged
_from_iso = datetime.fromisoformat
_FOR_EVER = datetime.max.replace(tzinfo=UTC)

_TIME_RULE = "must be an RFC 3339 time with zone, or epoch milliseconds"
_USUAL_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?"
    r"(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
).fullmatch
_ANY_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]((?:[01][0-9]|2[0-3]):[0-5][0-9]):([0-5][0-9]|60)(?:\.([0-9]+))?"
    r"([Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
).fullmatch

_LEAP_MINUTES = frozenset(
    datetime(year, month, day, 23, 59, tzinfo=UTC)
    for year, month, day in ((2005, 12, 31), (2008, 12, 31), (2012, 6, 30), (2015, 6, 30), (2016, 12, 31))
)
"""The minutes since 2000 that had 61 seconds (IERS Bulletin C)."""


def event_time(
    value: object, field: str, timestamp_ms: int, normalised: Normalised, path: str = ""
) -> datetime:
    """The event's own time in UTC, judged against the record's timestamp (negative when it has none)."""
    if type(value) is str:
        try:
            if len(value) == 24 and value[4:20:3] == "--T::." and value[17] != "6" and value[23] == "Z":
                moment = _from_iso(value)  # which asks for digits in every other place
                if not moment.hour and value[11] != "0":  # newer Pythons take the hour 24
                    raise invalid(path or field, _TIME_RULE)
            else:
                moment = _zoned_time(value, field, normalised, path)
        except (ValueError, OverflowError):  # the 30th of February; a zone that leads out of year 9999
            raise invalid(path or field, _TIME_RULE) from None
    else:
        moment = _from_epoch_ms(value, field, normalised, path)
    if moment < _EARLIEST:
        raise invalid(path or field, "must not be before 2000")
    bound = _hour_bounds.get(timestamp_ms // 3_600_000)
    if (bound is None or moment > bound) and timestamp_ms >= 0 and moment > _latest(timestamp_ms):
        raise invalid(path or field, "must not be more than 24 hours after the record's timestamp")
    return moment


def record_time(timestamp_ms: int, field: str, normalised: Normalised) -> datetime:
    """The record's own timestamp, for an event that names no time."""
    if timestamp_ms < 0:
        raise InvalidEvent(MISSING_FIELD, field, "is required, since the record has no timestamp")
    if not _EARLIEST_MS <= timestamp_ms <= _YEAR_2100_MS:
        raise invalid(field, "is missing, and the record's timestamp is not from 2000 to 2100")
    normalised(field)
    return instant(timestamp_ms)


def occurred_at(
    candidates: Candidates, sent_at: object, timestamp_ms: int, normalised: Normalised
) -> datetime:
    """The first time given among the candidates, else the envelope's if it is valid, else the record's."""
    for path, value in candidates:
        if value is not None:
            return event_time(value, "timestamp", timestamp_ms, normalised, path)
    if sent_at is not None:
        try:
            return event_time(sent_at, "timestamp", timestamp_ms, normalised)
        except InvalidEvent:
            pass  # an envelope is the carrier's, and never costs an event
    return record_time(timestamp_ms, "timestamp", normalised)


def first_time(candidates: Candidates, field: str, normalised: Normalised) -> datetime | None:
    """The first time given among the candidates, however late: it need not have come yet."""
    for path, value in candidates:
        if value is not None:
            return event_time(value, field, _NEVER_LATE, normalised, path)
    return None


def instant(epoch_ms: int) -> datetime:
    """The moment, exact to the millisecond; the end of time when a datetime cannot say it."""
    try:
        return _EPOCH + timedelta(milliseconds=epoch_ms)
    except OverflowError:
        return _FOR_EVER


_DAY_MS = 86_400_000
_hour_bounds: dict[int, datetime] = {}
"""Hour since the epoch → a day after it began: below it no exact bound is needed, and making one is dear."""


def _latest(timestamp_ms: int) -> datetime:
    """The latest time that an event in a record of this timestamp may have."""
    hour = timestamp_ms // 3_600_000
    if hour not in _hour_bounds:
        if len(_hour_bounds) >= _MAX_REMEMBERED:
            _hour_bounds.clear()
        _hour_bounds[hour] = instant(hour * 3_600_000 + _DAY_MS)
    return instant(timestamp_ms + _DAY_MS)


def _from_epoch_ms(value: object, field: str, normalised: Normalised, path: str) -> datetime:
    if type(value) is not int:
        raise invalid(path or field, _TIME_RULE)
    if not _EARLIEST_MS <= value <= _YEAR_2100_MS:
        raise invalid(path or field, "must be epoch milliseconds from 2000 to 2100")
    normalised(field)
    return instant(value)


def _zoned_time(text: str, field: str, normalised: Normalised, path: str) -> datetime:
    if _USUAL_TIME(text):
        return _from_iso(text).astimezone(UTC)
    return _unusual_time(text, field, normalised, path)


def _unusual_time(text: str, field: str, normalised: Normalised, path: str) -> datetime:
    parts = _ANY_TIME(text)
    if parts is None:
        raise invalid(path or field, _TIME_RULE)
    day, minute, second, fraction, zone = parts.groups(default="")
    moment = _from_iso(f"{day}T{minute}:00{zone.upper()}").astimezone(UTC)
    if second == "60" and moment not in _LEAP_MINUTES:
        raise invalid(path or field, "must not be a leap second that never was")
    if second == "60" or len(fraction) > 6:
        normalised(field)
    return moment + timedelta(seconds=int(second), microseconds=int(fraction[:6].ljust(6, "0")))


# --- free text ----------------------------------------------------------------------------------------------

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")
SURROGATES: Final = re.compile("[\ud800-\udfff]")


def free_text(
    value: object, field: str, normalised: Normalised, path: str = "", limit: int = MAX_FREE_TEXT
) -> str | None:
    """Text that can be stored anywhere, at most `limit` characters; null and empty are missing."""
    if value is None:
        return None
    if type(value) is not str:
        raise invalid(path or field, "must be a string")
    if value.isascii() and value.isprintable() and len(value) <= limit:
        return value or None
    text = SURROGATES.sub("\ufffd", _CONTROLS.sub("", value))[:limit]
    if text != value:
        normalised(field)
    return text or None


def first_free_text(
    candidates: Candidates, field: str, normalised: Normalised, limit: int = MAX_FREE_TEXT
) -> str | None:
    """The first text given among the candidates."""
    for path, value in candidates:
        if value is not None:
            return free_text(value, field, normalised, path, limit)
    return None


_BACKSLASH, _DELETE = b"\\\x7f"  # a byte is looked for much faster than bytes are


def is_plain(document: bytes) -> bool:
    """Whether no string in this JSON can hold a control character or a surrogate: those are escaped, or no ASCII."""
    return document.isascii() and _BACKSLASH not in document and _DELETE not in document


# --- addresses ----------------------------------------------------------------------------------------------

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}\.{_OCTET}\.{_OCTET}\.{_OCTET}").fullmatch
_LONGEST_ADDRESS = 64  # 45 characters, and a zone
_known_addresses: dict[str, str | None] = {}


def ip_address(value: object, field: str, normalised: Normalised, path: str = "") -> str | None:
    """An IP address in its canonical text, without zone; unreadable text is changed to None."""
    if value is None:
        return None
    if type(value) is not str:
        raise invalid(path or field, "must be a string")
    if _IPV4(value):
        return value
    if value in _known_addresses:
        kept = _known_addresses[value]
    else:
        kept = _canonical_address(value.strip(BLANKS))
        if len(value) <= _LONGEST_ADDRESS:
            if len(_known_addresses) >= _MAX_REMEMBERED:
                _known_addresses.clear()
            _known_addresses[value] = kept
    if kept != (value or None):
        normalised(field)
    return kept


def _canonical_address(text: str) -> str | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)


_HTTP = re.compile("https?://", re.IGNORECASE).match
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?!\d+(?:[/?#]|$))").match  # and not a host with its port
_UNFIT_FOR_URLS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]").search
_UNFIT_FOR_HOSTS = re.compile(r"[\s\x00-\x20\"#%&'*/:<=>?@\[\\\]^`{|}]|\.\.|^\.").search


def url(value: object, field: str, normalised: Normalised, path: str = "") -> str | None:
    """A web address with a host, trimmed, and https where it names no scheme; null and blank are missing."""
    if value is None:
        return None
    if type(value) is not str:
        raise invalid(path or field, "must be a string")
    text = value.strip(BLANKS)
    if not text:
        return None
    if _UNFIT_FOR_URLS(text):
        raise invalid(path or field, "must hold no control or surrogate characters")
    if not _HTTP(text):
        text = _with_scheme(text, path or field)
    if len(text) > MAX_URL:
        raise invalid(path or field, f"must be at most {MAX_URL} characters")
    if not _host(text):
        raise invalid(path or field, "must be an http or https address with a host")
    if text != value:
        normalised(field)
    return text


def _with_scheme(text: str, path: str) -> str:
    if text.startswith("//"):
        return f"https:{text}"
    if _SCHEME(text):
        raise invalid(path, "must be an http or https address")
    address = f"https://{text}"
    if "." not in (_host(address) or ""):  # one word alone is more likely a mistake than a host
        raise invalid(path, "must be an http or https address with a host")
    return address


def _host(address: str) -> str | None:
    """The host of a web address; None where it has none that can be one."""
    try:
        parts = urlsplit(address)
        _ = parts.port  # raises for one that is no number
        host = parts.hostname or ""
        if parts.netloc.rpartition("@")[2].startswith("[") and "%" not in host:
            return str(ipaddress.IPv6Address(host))
    except ValueError:
        return None
    # A browser takes a backslash for a slash: it would go to another host than we see.
    unfit = _UNFIT_FOR_HOSTS(unquote(host)) or "\\" in parts.netloc or len(host) > MAX_HOST
    return None if unfit else host
