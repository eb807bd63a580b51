"""`counterfoil forget`: what it says, its exit codes, and that it never says whom it has forgotten."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import pytest

from support.builders import a_claim_event, a_user_event
from support.command import counterfoil
from support.forgetting import name_of, where_named
from support.postgres_road import scribes
from support.roles import owner_and_worker

from support.builders import records_of  # isort: skip
from counterfoil.ingest.partitions import Partition  # isort: skip

PERSON = "customer-7"


@pytest.fixture
async def claimed(db, database_url):
    async with scribes(database_url) as (worker,):
        claim = a_claim_event("v1", PERSON, metadata=json.dumps({"of": PERSON}))
        await worker.write(records_of(claim, partition=Partition("claim", 0)))
    return db


async def test_it_says_what_is_erased_and_never_whom(claimed, database_url):
    pretended = await counterfoil("forget", "customer", PERSON, "--dry-run", database_url=database_url)
    assert (pretended.code, pretended.err) == (0, "")
    assert "Would be erased" in pretended.out
    assert "customer vouchers" in pretended.out
    done = await counterfoil("forget", "customer", f" {PERSON} ", database_url=database_url)
    assert (done.code, done.err) == (0, "")
    assert f"this customer is {await name_of(claimed, PERSON)} from now on" in done.out
    again = await counterfoil("forget", "customer", PERSON, database_url=database_url)
    assert again.code == 0
    assert "nothing is stored of this customer any more" in again.out
    assert PERSON not in pretended.out + done.out + again.out
    assert await where_named(claimed, PERSON) == []


async def test_as_json_it_is_one_object(claimed, database_url):
    done = await counterfoil("forget", "customer", PERSON, "--json", database_url=database_url)
    assert json.loads(done.out) == {
        "kind": "customer",
        "dry_run": False,
        "instead": await name_of(claimed, PERSON),
        "was_forgotten": False,
        "keeps_account": False,
        "erased": {"customer_vouchers": 1},
    }


async def test_a_partner_is_told_that_the_account_stays(claimed, database_url):
    async with scribes(database_url) as (worker,):
        await worker.write(
            records_of(a_user_event(PERSON, name="Ada"), partition=Partition("user.created", 0))
        )
    done = await counterfoil("forget", "customer", PERSON, database_url=database_url)
    assert "the id stays where it names a partner's account" in done.out
    assert await where_named(claimed, "Ada") == []


@pytest.mark.parametrize("kind", ["customer", "visitor"])
async def test_of_whom_nothing_is_stored_it_says_so(database_url, kind):
    done = await counterfoil("forget", kind, "nobody", database_url=database_url)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"nothing is stored of this {kind}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("customer", " "), "an empty id is none"),
        (("customer", "a\nb"), "this is no id"),
        (("customer", f"forgotten:{'0' * 32}"), "this is the pseudonym of a person who is forgotten"),
        (("visitor", "0"), "neither address nor user agent"),
    ],
)
async def test_wrong_use_is_2_and_one_line(database_url, arguments, said):
    done = await counterfoil("forget", *arguments, database_url=database_url)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert done.err.count("\n") == 1


async def test_a_negative_number_is_no_option(database_url):
    done = await counterfoil("forget", "visitor", "-5", database_url=database_url)
    assert (done.code, done.err) == (0, "")


def test_the_worker_is_sent_to_the_owner_who_erases(postgres_server):
    """Its role may not; with the migrator's address it goes."""
    import asyncio

    async def both(owner: str, worker: str) -> None:
        refused = await counterfoil("forget", "customer", PERSON, database_url=worker)
        assert refused.code == 2
        assert "COUNTERFOIL_MIGRATE_DATABASE_URL" in refused.err
        assert urlsplit(worker).password not in refused.err
        done = await counterfoil(
            "forget", "customer", PERSON, database_url=worker, migrate_database_url=owner
        )
        assert (done.code, done.err) == (0, "")

    with owner_and_worker(postgres_server.dsn) as (owner, worker):
        asyncio.run(both(owner, worker))
