"""What an alert looks like: one message of one alert or of thousands, as text, mail, HTML and Slack blocks.

Whatever comes from an event is shown, and does nothing: it ends no line, opens no tag and calls nobody.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from counterfoil.notifications.lines import (
    LOW,
    OTHER,
    RECOVERED,
    VOUCHER,
    Told,
    told_of_anything,
    told_of_stock,
    told_of_voucher,
)

MOST_LINES = 20

Block = dict[str, object]

_PLAIN_ID = re.compile(r"[A-Za-z0-9-]{1,64}").fullmatch
_TELLERS = {"low-stock": told_of_stock, "voucher-alert": told_of_voucher}
_GROUPS = (LOW, VOUCHER, OTHER, RECOVERED)
_COUNTED = {
    LOW: ("1 product is low on stock", "{} products are low on stock"),
    VOUCHER: ("1 voucher alert", "{} voucher alerts"),
    OTHER: ("1 other alert", "{} other alerts"),
    RECOVERED: ("1 product has recovered", "{} products have recovered"),
}


@dataclass(frozen=True, slots=True)
class ToldAlert:
    """An alert as its record has it; `topic` is the default name, `subject` the record's key."""

    alert_id: str
    topic: str
    subject: str
    payload: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Message:
    """What a channel sends, in every form that one takes; `message_id` is the same for the same alerts.

    `text` is the plain line, or lines; `body` the text of a mail, `blocks` Slack's Block Kit, already escaped.
    """

    message_id: str
    title: str
    text: str
    html: str
    blocks: Sequence[Block]
    body: str = ""
    alert_ids: tuple[str, ...] = field(default=(), repr=False)

    @property
    def slack_text(self) -> str:
        """The text as Slack takes it: `<!channel>` calls nobody."""
        return escaped_for_slack(self.text)


def message_of(alerts: Sequence[ToldAlert]) -> Message:
    """The message of one alert, or of many; raises ValueError for none."""
    told = [_TELLERS.get(alert.topic, told_of_anything)(alert.subject, alert.payload) for alert in alerts]
    ids = tuple(alert.alert_id for alert in alerts)
    if not told:
        raise ValueError("a message tells of at least one alert")
    return _single(told[0], ids) if len(told) == 1 else _digest(told, ids)


def trial_message(message_id: str) -> Message:
    """What a test-send sends; whoever reads it sees that nothing is low."""
    title, line = "Test alert", "This is a test: alerts of counterfoil will look like this."
    return Message(
        message_id=message_id,
        title=title,
        text=f"✅ {title}: {line}",
        body=_letter([line]),
        html=_page(title, [f"<p>{html.escape(line)}</p>"]),
        blocks=[_header(f"✅ {title}"), _section(line)],
    )


def escaped_for_slack(text: str) -> str:
    """The text with the three characters escaped that Slack reads as its own."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# One alert


def _single(told: Told, ids: tuple[str, ...]) -> Message:
    when = f"alert {_message_id(ids)}" + (f" · {told.occurred_at}" if told.occurred_at else "")
    return Message(
        message_id=_message_id(ids),
        title=told.title,
        text=told.line,
        body=_single_letter(told, ids),
        html=_page(told.kind, _single_paragraphs(told, when)),
        blocks=[
            _header(f"{told.sign} {told.kind}"),
            {"type": "section", "fields": [_plain(f"{label}\n{value}") for label, value in told.facts]},
            _context(when),
        ],
        alert_ids=ids,
    )


def _single_letter(told: Told, ids: tuple[str, ...]) -> str:
    facts = "\n".join(f"{label}: {value}" for label, value in told.facts)
    paragraphs = [told.introduction, facts, *([told.request] if told.request else [])]
    footer = [*([f"Timestamp: {told.occurred_at}"] if told.occurred_at else []), f"Alert: {_message_id(ids)}"]
    return _letter(paragraphs, footer)


def _single_paragraphs(told: Told, when: str) -> list[str]:
    rows = "".join(_row(label, value) for label, value in told.facts)
    request = [f"<p>{html.escape(told.request)}</p>"] if told.request else []
    return [
        f"<p>{html.escape(told.introduction)}</p>",
        f'<table style="border-collapse:collapse">{rows}</table>',
        *request,
        f'<p style="font-size:small;opacity:.7">{html.escape(when)}</p>',
    ]


def _row(label: str, value: str) -> str:
    style = "text-align:left;padding:.25em 1em .25em 0;border-bottom:1px solid #8884"
    return (
        f'<tr><th style="{style};font-weight:normal;opacity:.7">{html.escape(label)}</th>'
        f'<td style="{style};font-weight:bold">{html.escape(value)}</td></tr>'
    )


# Many alerts


def _digest(told: Sequence[Told], ids: tuple[str, ...]) -> Message:
    heading = _heading(told)
    shown = [one.line for one in _most_urgent(told)]
    more = [f"… and {len(told) - len(shown)} more"] if len(told) > len(shown) else []
    return Message(
        message_id=_message_id(ids),
        title=heading,
        text="\n".join([heading, *shown, *more]),
        body=_letter([f"{heading}:", "\n".join([*shown, *more])], [f"Alerts: {_message_id(ids)}"]),
        html=_page(heading, [_list(shown), *(f"<p>{html.escape(line)}</p>" for line in more)]),
        blocks=[_header(heading), *(_section(line) for line in shown), *(_context(line) for line in more)],
        alert_ids=ids,
    )


def _heading(told: Sequence[Told]) -> str:
    """How many of each group: products are counted once, however many alerts they have."""
    counts = {
        LOW: len({one.subject for one in told if one.group == LOW}),
        VOUCHER: sum(one.group == VOUCHER for one in told),
        OTHER: sum(one.group == OTHER for one in told),
        RECOVERED: len({one.subject for one in told if one.group == RECOVERED}),
    }
    return ", ".join(_COUNTED[group][count > 1].format(count) for group, count in counts.items() if count)


def _most_urgent(told: Sequence[Told]) -> list[Told]:
    """As many as a digest shows, group by group; each group shows some, however large another is."""
    ranked = _ranked(told)
    return [one for _, _, one in sorted(ranked[:MOST_LINES], key=lambda entry: (entry[1], entry[0]))]


def _ranked(told: Sequence[Told]) -> list[tuple[int, int, Told]]:
    """(rank in its group, group, alert), so that of every group the most urgent come first."""
    ranked = [
        (rank, place, one)
        for place, group in enumerate(_GROUPS)
        for rank, one in enumerate(_sorted_by_urgency(one for one in told if one.group == group))
    ]
    return sorted(ranked, key=lambda entry: entry[:2])


def _sorted_by_urgency(told: Iterable[Told]) -> list[Told]:
    return sorted(told, key=lambda one: one.urgency)


def _list(lines: Sequence[str]) -> str:
    items = "".join(f'<li style="padding:.15em 0">{html.escape(line)}</li>' for line in lines)
    return f'<ul style="padding-left:1.2em">{items}</ul>'


# Forms


def _message_id(ids: tuple[str, ...]) -> str:
    """The alert's own id where it can stand in a header, else a hash of all."""
    if len(ids) == 1 and _PLAIN_ID(ids[0]):
        return ids[0]
    joined = "\n".join(sorted(ids)).encode("utf-8", "backslashreplace")
    return f"alerts-{hashlib.sha256(joined).hexdigest()[:32]}"


def _letter(paragraphs: Sequence[str], footer: Sequence[str] = ()) -> str:
    text = "\n\n".join(["Dear Operations Team,", *paragraphs])
    return "\n".join([text, "", "---", "counterfoil", *footer, ""])


def _page(heading: str, paragraphs: Sequence[str]) -> str:
    """An HTML document in the reader's own colours, light or dark."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="color-scheme" content="light dark"><meta name="supported-color-schemes" content="light dark">'
        '</head><body style="font:16px/1.5 system-ui,sans-serif;max-width:40em;margin:1em auto;padding:0 1em">'
        f'<h1 style="font-size:1.25em">{html.escape(heading)}</h1>{"".join(paragraphs)}'
        '<p style="font-size:small;opacity:.7">counterfoil</p></body></html>'
    )


def _plain(text: str) -> Block:
    return {"type": "plain_text", "text": escaped_for_slack(text), "emoji": False}


def _header(text: str) -> Block:
    return {"type": "header", "text": _plain(text)}


def _section(text: str) -> Block:
    return {"type": "section", "text": _plain(text)}


def _context(text: str) -> Block:
    return {"type": "context", "elements": [_plain(text)]}
