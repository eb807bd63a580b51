"""Waiting for a condition with a deadline: a test never sleeps for a guessed time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")


@overload
async def eventually(
    condition: Callable[[], Awaitable[T]],
    *,
    deadline: float = ...,
    every: float = ...,
    ignoring: tuple[type[Exception], ...] = ...,
) -> T: ...


@overload
async def eventually(
    condition: Callable[[], T],
    *,
    deadline: float = ...,
    every: float = ...,
    ignoring: tuple[type[Exception], ...] = ...,
) -> T: ...


async def eventually(
    condition: Callable[[], Any],
    *,
    deadline: float = 30.0,
    every: float = 0.02,
    ignoring: tuple[type[Exception], ...] = (),
) -> Any:
    """The condition's first true answer; AssertionError with its last answer when there is none in time.

    Errors in `ignoring` count as "not yet": a connection that a restart cut, for one.
    """
    end = time.monotonic() + deadline
    last: object = None
    while time.monotonic() < end:
        try:
            last = answer = await _asked(condition)
            if answer:
                return answer
        except ignoring as error:
            last = error
        await asyncio.sleep(every)
    raise AssertionError(f"not within {deadline:g} s; the last answer was {last!r}")


async def _asked(condition: Callable[[], Any]) -> Any:
    answer = condition()
    return await answer if inspect.isawaitable(answer) else answer
