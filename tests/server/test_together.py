"""Questions that come at the same time share a query, and no answer is older than its question."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from fedit_protocol.errors import StorageError
from fedit_server.storage.together import MOST_AT_ONCE, Together


class Shelf:
    """A store whose queries end when they are let go."""

    def __init__(self) -> None:
        self.content: dict[int, str] = {}
        self.queries: list[list[int]] = []
        self.open = asyncio.Event()
        self.error: Exception | None = None

    async def look(self, keys: Sequence[int]) -> Mapping[int, str]:
        self.queries.append(list(keys))
        found = {key: self.content[key] for key in keys if key in self.content}
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return found


async def asking(together: "Together[int, str]", *keys: int) -> "list[asyncio.Task[str | None]]":
    tasks = [asyncio.create_task(together.get(key)) for key in keys]
    for _ in range(3):  # the questions, the worker, its query
        await asyncio.sleep(0)
    return tasks


async def test_what_is_asked_during_a_query_is_in_the_next_one_and_sees_what_came_meanwhile() -> None:
    shelf = Shelf()
    together = Together(shelf.look)
    before = await asking(together, 1)
    shelf.content[1] = "new"
    after = await asking(together, 1, 1, 2)
    shelf.open.set()
    assert await asyncio.gather(*before) == [None]
    assert await asyncio.gather(*after) == ["new", "new", None]
    assert shelf.queries == [[1], [1, 2]]


async def test_an_error_reaches_everybody_who_asked_and_nobody_after_them() -> None:
    shelf = Shelf()
    together = Together(shelf.look)
    shelf.error = StorageError("the disk is gone")
    unlucky = await asking(together, 1, 2)
    shelf.open.set()
    assert [type(error) for error in await asyncio.gather(*unlucky, return_exceptions=True)] == [StorageError] * 2
    shelf.error, shelf.content[1] = None, "there"
    assert await together.get(1) == "there"


async def test_who_gives_up_takes_the_answer_from_nobody() -> None:
    shelf = Shelf()
    shelf.content[1] = "there"
    together = Together(shelf.look)
    first, second = await asking(together, 1, 1)
    first.cancel()
    shelf.open.set()
    assert await second == "there"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_query_is_never_larger_than_a_database_takes() -> None:
    shelf = Shelf()
    shelf.open.set()
    together = Together(shelf.look)
    await asyncio.gather(*(together.get(key) for key in range(MOST_AT_ONCE + 1)))
    assert max(map(len, shelf.queries)) == MOST_AT_ONCE


async def test_more_queries_than_a_second_may_have_wait_for_their_turn_together() -> None:
    shelf, loop = Shelf(), asyncio.get_running_loop()
    shelf.open.set()
    together = Together(shelf.look, a_second=20)
    began = loop.time()
    for key in range(20):  # after a pause, as many at once
        await together.get(key)
    await asyncio.gather(*(together.get(key) for key in range(100, 200)))
    await together.get(300)
    assert loop.time() - began > 1.5 / 20
    assert [len(keys) for keys in shelf.queries] == [1] * 20 + [100, 1]
