"""Whose turn it is at the trainers that many clients share."""

import asyncio
from dataclasses import dataclass, field

import pytest

from fedit_client.testing import FakeTrainer
from fedit_client.training import LocalResult, OnProgress, TrainingRequest
from fedit_client.training.turns import FairTurns


@dataclass
class Place(FakeTrainer):
    """A trainer that finishes one request for each time it is let go on."""

    served: list[str] = field(default_factory=list)
    most: int = 0
    _here: int = 0
    go_on: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def train(self, request: TrainingRequest, on_progress: OnProgress) -> LocalResult:
        self.served.append(str(request))
        self._here += 1
        self.most = max(self.most, self._here)
        await self.go_on.acquire()
        self._here -= 1
        return str(request)  # type: ignore[return-value] # the turns only pass it on


def asked(turns: FairTurns, client: str, what: str) -> "asyncio.Task[LocalResult]":
    return asyncio.create_task(turns.for_client(client).train(what, lambda _: None))  # type: ignore[arg-type] # likewise


async def test_the_client_with_the_fewest_turns_is_next_and_then_the_first_that_came() -> None:
    place = Place()
    turns = FairTurns([place], ahead=1)
    tasks = [asked(turns, "a", "a1"), asked(turns, "a", "a2"), asked(turns, "a", "a3"), asked(turns, "b", "b1")]
    tasks += [asked(turns, "c", "c1"), asked(turns, "b", "b2")]
    await asyncio.sleep(0)
    for _ in tasks:
        place.go_on.release()
    await asyncio.gather(*tasks)
    assert place.served == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert place.most == 1


async def test_a_place_holds_one_request_ahead_and_all_places_are_used() -> None:
    places = [Place(), Place()]
    turns = FairTurns(places, ahead=2)
    tasks = [asked(turns, f"client {number}", str(number)) for number in range(6)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert [place.served for place in places] == [["0", "2"], ["1", "3"]]
    for place in places:
        for _ in tasks:
            place.go_on.release()
    assert len(await asyncio.gather(*tasks)) == 6


async def test_who_gives_up_leaves_the_queue_and_its_place() -> None:
    place = Place()
    turns = FairTurns([place], ahead=1)
    tasks = [asked(turns, f"client {number}", str(number)) for number in range(4)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    tasks[0].cancel()
    await asyncio.wait(tasks[:2])
    place.go_on.release()
    place.go_on.release()
    await asyncio.gather(*tasks[2:])
    assert place.served == ["0", "2", "3"]
    assert place.most == 2  # the fake does not notice that it was cancelled


@pytest.mark.parametrize(("losses", "able"), [((1.0, 2.0), True), ((1.0, None), False)])
def test_canary_rows_are_scored_where_every_place_does(losses: tuple[float | None, ...], able: bool) -> None:
    turns = FairTurns([FakeTrainer(canary_loss=loss) for loss in losses])
    assert turns.for_client("a").scores_canary is able  # type: ignore[attr-defined] # ScoresCanary is looked for at run time


class Looking(FakeTrainer):
    """Looks at rows before it trains."""

    measures_start = True


@pytest.mark.parametrize(("places", "able"), [((Looking(), Looking()), True), ((Looking(), FakeTrainer()), False)])
def test_domains_are_looked_at_where_every_place_does(places: tuple[FakeTrainer, ...], able: bool) -> None:
    turns = FairTurns(places)
    assert turns.measures_start is able
    assert turns.for_client("a").measures_start is able  # type: ignore[attr-defined] # looked for at run time too
