"""Questions that come at the same time, answered by one query."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MOST_AT_ONCE: Final = 500
"""Keys in one query: below what either database takes."""

A_SECOND: Final = 50
"""Queries in the long run, and how many more may come at once after a pause.

A query costs as much computing as all else that a check-in does: a few hundred a second, each with its own, would keep
a core busy. Whoever waits here does so for a fiftieth of a second at most, and only where more come.
"""


class Together(Generic[K, V]):
    """Looks things up in batches: whatever is asked while one query runs, or waits for its turn, is in the next one.

    Nothing is kept, so no answer is older than its question; a thousand questions a second cost a few dozen queries.
    """

    def __init__(self, look: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]], a_second: float = A_SECOND) -> None:
        """`look` answers up to MOST_AT_ONCE distinct keys; what it leaves out is answered with None."""
        self._look = look
        self._apart_s = 1 / a_second
        self._due = 0.0
        self._asked: dict[K, asyncio.Future[V | None]] = {}
        self._working: asyncio.Task[None] | None = None

    async def get(self, key: K) -> V | None:
        """Return what there is for `key` now; raises what the query raises."""
        return await asyncio.shield(self.ask(key))  # who gives up must not take the answer from the others

    def ask(self, key: K) -> asyncio.Future[V | None]:
        """Return what will hold the answer for `key`; it need not be waited for, and must not be cancelled."""
        if key not in self._asked:
            self._asked[key] = asyncio.get_running_loop().create_future()
        answer = self._asked[key]
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        return answer

    async def settle(self) -> None:
        """Wait until everything that was asked is answered."""
        if self._working is not None:
            await asyncio.wait([self._working])

    async def _work(self) -> None:
        try:
            while self._asked:
                await self._turn()
                await self._answer([*self._asked][:MOST_AT_ONCE])
        finally:
            self._working = None

    async def _turn(self) -> None:
        """Wait until the queries of the last second were few enough (ATM Forum's generic cell rate algorithm)."""
        now = asyncio.get_running_loop().time()
        self._due = max(self._due, now) + self._apart_s
        if (early_s := self._due - now - 1) > 0:
            await asyncio.sleep(early_s)

    async def _answer(self, keys: Sequence[K]) -> None:
        waiting = {key: self._asked.pop(key) for key in keys}
        try:
            found = await self._look(keys)
        except BaseException as error:
            for answer in waiting.values():
                if not answer.cancelled():
                    answer.set_exception(error)
                    answer.exception()  # seen here: whoever asked may be gone
            if not isinstance(error, Exception):
                raise
            return
        for key, answer in waiting.items():
            if not answer.cancelled():
                answer.set_result(found.get(key))
