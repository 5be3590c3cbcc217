"""Several trainers as one, and whose turn it is: the client that had the fewest turns, then the one that came first."""

import asyncio
import heapq
from collections import Counter
from collections.abc import Sequence

from fedit_client.training.request import (
    LocalResult,
    MeasuresStart,
    OnProgress,
    ScoresCanary,
    Trainer,
    TrainingRequest,
)

_Waiting = tuple[int, int, "asyncio.Future[int]"]


class FairTurns:
    """Hands requests of many clients to a few places; each place has `ahead` of them, so that it never waits."""

    def __init__(self, places: Sequence[Trainer], ahead: int = 2) -> None:
        """Each place must be able to hold `ahead` requests at once, as SharedTrainer is."""
        self._places = list(places)
        self._free = [ahead] * len(self._places)
        self._turns: Counter[str] = Counter()
        self._queue: list[_Waiting] = []
        self._arrivals = 0

    @property
    def scores_canary(self) -> bool:
        """Whether every place scores the task's canary rows."""
        return all(isinstance(place, ScoresCanary) and place.scores_canary for place in self._places)

    @property
    def measures_start(self) -> bool:
        """Whether every place looks at rows of each domain before it trains."""
        return all(isinstance(place, MeasuresStart) and place.measures_start for place in self._places)

    def for_client(self, name: str) -> "Trainer":
        """Return the trainer of one client: what it asks for counts as this client's turns."""
        return _Turn(self, name)

    async def train(self, name: str, request: TrainingRequest, on_progress: OnProgress) -> LocalResult:
        """Wait for this client's turn, and train at a free place; raises what the place raises."""
        place = await self._turn(name)
        try:
            return await self._places[place].train(request, on_progress)
        finally:
            self._give_back(place)

    async def _turn(self, name: str) -> int:
        self._arrivals += 1
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (self._turns[name], self._arrivals, turn))
        self._turns[name] += 1
        self._call_next()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # called at the very moment in which it gave up
                self._give_back(turn.result())
            raise

    def _give_back(self, place: int) -> None:
        self._free[place] += 1
        self._call_next()

    def _call_next(self) -> None:
        while self._queue and max(self._free) > 0:
            _, _, turn = heapq.heappop(self._queue)
            if turn.done():  # it gave up
                continue
            place = self._free.index(max(self._free))
            self._free[place] -= 1
            turn.set_result(place)


class _Turn:
    """One client's way into the turns."""

    def __init__(self, turns: FairTurns, name: str) -> None:
        self._turns, self._name = turns, name

    @property
    def scores_canary(self) -> bool:
        """As the places have it."""
        return self._turns.scores_canary

    @property
    def measures_start(self) -> bool:
        """As the places have it."""
        return self._turns.measures_start

    async def train(self, request: TrainingRequest, on_progress: OnProgress) -> LocalResult:
        """Train when it is this client's turn."""
        return await self._turns.train(self._name, request, on_progress)
