"""What is due by the clock is done as often as it says, however long it takes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast
from unittest.mock import AsyncMock, MagicMock

import asyncpg
import pytest

from counterfoil.database.sampling import sample_forever
from counterfoil.scheduling import Job, _repeat
from counterfoil.telemetry.metrics import Metrics
from support.postgres_road import plain_settings

NO_POOL = cast("asyncpg.Pool", None)


class Stopped(Exception):
    """The end of a test's schedule."""


class Time:
    """A clock that stands still while nobody works or sleeps; it ends at the fifth piece of work."""

    def __init__(self, *work: float) -> None:
        self.now, self.began, self._work = 1_000.0, list[float](), iter(work)

    async def work(self, *_: Any) -> None:
        self.began.append(self.now)
        if len(self.began) == 5:
            raise Stopped
        self.now += next(self._work)
        if len(self.began) == 3:
            raise OSError("the database is away")

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(
    ("takes", "began"),
    [((0, 1, 45, 59), [0, 60, 120, 180, 240]), ((5, 90, 60, 61), [0, 60, 150, 210, 271])],
    ids=["in time", "too long"],
)
async def test_a_job_begins_as_often_as_it_is_due(takes: tuple[float, ...], began: list[float]) -> None:
    time = Time(*takes)
    job = Job("job", timedelta(minutes=1), time.work)
    with pytest.raises(Stopped):
        await _repeat(job, NO_POOL, plain_settings(), lambda: time.now, time.sleep)
    assert [moment - 1_000 for moment in time.began] == began


CUT = [
    OSError("away"),
    EOFError(),
    asyncpg.InterfaceError("the connection is closed"),
    asyncpg.InternalClientError("cannot switch to state 11; another operation (2) is in progress"),
]
"""What comes out of a statement whose connection is cut."""


@pytest.mark.parametrize("error", CUT, ids=lambda error: type(error).__name__)
async def test_a_job_whose_connection_is_cut_is_done_again(error: Exception) -> None:
    work = iter([error, Stopped()])

    async def fails(*_: Any) -> None:
        raise next(work)

    async def sleep(_: float) -> None:
        return None

    with pytest.raises(Stopped):
        await _repeat(Job("job", timedelta(minutes=1), fails), NO_POOL, plain_settings(), lambda: 0.0, sleep)


@pytest.mark.parametrize("error", CUT, ids=lambda error: type(error).__name__)
async def test_a_sample_whose_connection_is_cut_ends_no_sampling(error: Exception) -> None:
    async def fails(*_: Any) -> None:
        raise error

    async def stops(*_: Any) -> None:
        raise Stopped

    pool = MagicMock()
    pool.acquire.return_value = AsyncMock()
    with pytest.raises(Stopped):
        await sample_forever(pool, Metrics(), [fails, stops])
