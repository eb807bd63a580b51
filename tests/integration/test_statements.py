"""The named statements against the migrated schema."""

from __future__ import annotations

import re

import pytest

from counterfoil.database.files import sql_folder
from counterfoil.database.queries import sql, statements

NAMES = sorted(statements())


def test_a_statement_name_stands_once():
    files = (sql_folder() / "queries").glob("*.sql")
    names = [
        name for file in files for name in re.findall(r"^-- name: (\w+)", file.read_text(), re.MULTILINE)
    ]
    assert sorted(names) == sorted(set(names)) == NAMES


@pytest.mark.parametrize("name", NAMES)
async def test_every_statement_prepares(shared_db, name):
    await shared_db.prepare(sql(name))


def test_every_statement_says_its_purpose_and_its_parameters():
    for name in NAMES:
        comment = "\n".join(line for line in sql(name).splitlines() if line.startswith("--"))
        assert comment.startswith("-- "), name
        body = re.sub(r"^--.*$", "", sql(name), flags=re.MULTILINE)
        assert set(re.findall(r"\$\d+", body)) == set(re.findall(r"\$\d+", comment)), name


def test_an_unknown_statement_is_a_key_error():
    with pytest.raises(KeyError):
        sql("no_such_statement")


def test_a_name_that_stands_twice_is_refused(tmp_path, monkeypatch):
    (tmp_path / "queries").mkdir()
    for file in ("a.sql", "b.sql"):
        (tmp_path / "queries" / file).write_text("-- name: twice\nSELECT 1;\n")
    monkeypatch.setattr("counterfoil.database.queries.sql_folder", lambda: tmp_path)
    statements.cache_clear()
    try:
        with pytest.raises(ValueError, match=r"b\.sql: the statement twice stands twice"):
            statements()
    finally:
        statements.cache_clear()
