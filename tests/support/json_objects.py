"""Objects as an outsider may send them: any JSON, with what PostgreSQL's jsonb refuses among it."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import strategies as st

LITERALS = [
    *[
        "0.5",
        "1.50",
        "-0",
        "-0.0",
        "0.000",
        "1E2",
        "1.5e+3",
        "15e-1",
        "1e-7",
        "-2.50E1",
        "0e5",
        "0.0e-3",
        "100",
    ],
    *[
        "0.1000000000000000055",
        "123456789012345678901234",
        "-18446744073709551616",
        "1e308",
        "1e1000",
        "1e-1000",
    ],
    *["1e1001", "-1E-1001", "0e1001", "1e131072", "1e-16384", "1e400000", "1e99999999999999999999"],
]
"""Numbers as json.dumps never writes them, and numbers that jsonb can't hold."""


def paired(text: str) -> str:
    """The text as JSON has it: two surrogates that make a pair are one character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


strings = st.text(st.characters(exclude_characters="@"), max_size=6) | st.sampled_from(
    ["", "\0", "a\0", "\ud800", "a\udfff", "\ud83d\ude00", "\x7f", "\x1f\n", "\\u0000", "é", "/"]
)
keys = strings.map(paired) | st.sampled_from(
    ["a", "b", "aa", "é", "z", "€", "\U0001f600", "\uffff", "a\0", "a\ud800"]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | strings
    | st.sampled_from([f"@{literal}" for literal in LITERALS])
)
objects: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    keys,
    st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)
    ),
    max_size=5,
)
"""Trees in which `"@…"` stands for a number as it is written."""


def written(document: Any) -> bytes:
    """The tree as JSON."""
    return re.sub(r'"@([^"]+)"', r"\1", json.dumps(document)).encode()


def shuffled(tree: Any, draw: Any) -> Any:
    """The same tree with its keys in another order, at every level."""
    if isinstance(tree, list):
        return [shuffled(element, draw) for element in tree]
    if isinstance(tree, dict):
        return {key: shuffled(tree[key], draw) for key in draw(st.permutations(list(tree)))}
    return tree
