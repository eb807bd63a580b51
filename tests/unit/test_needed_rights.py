"""What a worker needs to be allowed, as the file of grants has it."""

from __future__ import annotations

import re

from counterfoil.database.files import sql_folder
from counterfoil.doctor.rights import Right, needed_rights

GRANTS = """
-- GRANT SELECT ON nothing TO counterfoil_worker;
GRANT USAGE ON SCHEMA public TO counterfoil_worker;
GRANT SELECT, INSERT ON
  first,   -- why
  second
TO counterfoil_worker;
GRANT SELECT, UPDATE (name, price) ON third TO counterfoil_worker;
GRANT EXECUTE ON FUNCTION
  count_them(text[], integer),
  forget_them()
TO counterfoil_worker;
"""


def test_rights_on_tables_columns_and_functions_are_read():
    assert needed_rights(GRANTS) == (
        [
            Right("first", "SELECT"),
            Right("first", "INSERT"),
            Right("second", "SELECT"),
            Right("second", "INSERT"),
            Right("third", "SELECT"),
            Right("third", "UPDATE", "name"),
            Right("third", "UPDATE", "price"),
        ],
        ["count_them(text[], integer)", "forget_them()"],
    )


def test_every_grant_of_the_file_is_read():
    rights, functions = needed_rights()
    text = re.sub(r"--.*$", "", (sql_folder() / "grants.sql").read_text(), flags=re.MULTILINE)
    grants = text[text.index("GRANT SELECT ON counterfoil_migrations") :]
    named = set(re.findall(r"\b[a-z_0-9]+\b", re.sub(r"\([^)]*\)", "", grants))) - {"counterfoil_worker"}
    assert named == {right.table for right in rights} | {f.partition("(")[0] for f in functions}
    assert Right("stream_positions", "UPDATE") in rights
    assert Right("vouchers", "INSERT", "business_id") in rights
    assert "expire_claims(integer)" in functions
