"""What the rule of objects keeps, jsonb takes; and the canonical text is jsonb's own, so that both sides sort alike."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from decimal import Decimal

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counterfoil.events import document
from counterfoil.events.objects import canonical_text, object_text
from support.json_objects import LITERALS, objects, written


@pytest.fixture
async def server(postgres_server) -> AsyncIterator[asyncpg.Connection]:
    """A connection to no database of ours: only the server's own types are asked."""
    connection = await asyncpg.connect(postgres_server.dsn)
    yield connection
    await connection.close()


def kept(rule, text: bytes) -> str:
    return rule(document.parse(text), "f", lambda _field: None)


with_postgres = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@with_postgres
@given(tree=objects)
async def test_jsonb_takes_every_text_and_writes_the_canonical_one(server, tree):
    canonical = kept(canonical_text, written(tree))
    assert await server.fetchval("SELECT $1::text::jsonb::text", canonical) == canonical
    compact = kept(object_text, written(tree))
    assert await server.fetchval("SELECT $1::text::jsonb = $2::text::jsonb", compact, canonical)


@with_postgres
@given(trees=st.lists(objects, min_size=2, max_size=6))
async def test_texts_sort_alike_here_and_there(server, trees):
    texts = [kept(canonical_text, written(tree)) for tree in trees]
    rows = await server.fetch(
        'SELECT object::jsonb::text FROM unnest($1::text[]) AS object ORDER BY object::jsonb::text COLLATE "C"',
        texts,
    )
    assert [row[0] for row in rows] == sorted(texts)


@pytest.mark.parametrize("literal", LITERALS)
async def test_a_number_keeps_its_value(server, literal):
    text = kept(canonical_text, b'{"n":%b}' % literal.encode())
    found = await server.fetchval("SELECT ($1::text::jsonb)->'n'", text)
    if not found.startswith('"'):
        assert Decimal(found) == Decimal(literal)
    else:
        assert json.loads(found) == literal
        assert abs(int(literal.lower().partition("e")[2])) > 1_000


@pytest.mark.parametrize(
    "value",
    [b"[" * 398 + b"]" * 398, b"9" * 16_000, b"0." + b"9" * 16_000, b'"' + b"\\u0001" * 2_700 + b'"'],
    ids=["deep", "integer", "fraction", "controls"],
)
async def test_jsonb_takes_the_largest(server, value):
    text = kept(canonical_text, b'{"a":%b}' % value)
    assert "_dropped" not in text
    assert await server.fetchval("SELECT $1::text::jsonb::text", text) == text
