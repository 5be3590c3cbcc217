"""`eval --blind`: whose answer is whose is not told, an order that a seed decides, and honest words about chance."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from fedit_client.cli import invoke
from fedit_client.conversations.blind import BlindResult, Judging
from fedit_client.data import Message, records_from

RECORDS = records_from([{"prompt": f"question {n}", "completion": "x"} for n in range(12)]).records


class Voices:
    """The adapter always says one word, the base another."""

    async def ask(self, messages: Sequence[Message], *, voice: str = "", **_: Any) -> AsyncIterator[str]:
        assert messages[-1].role == "user"
        yield "plain" if voice else "adapted"


class Owner:
    """Somebody who likes one word, and says odd things first."""

    def __init__(self, likes: str, *, stops_after: int = 99) -> None:
        self.likes, self.left, self.heard = likes, stops_after, list[str]()
        self._odd = iter(["", "what?"])

    def says(self, _question: str) -> str:
        if odd := next(self._odd, None):
            return odd
        self.left -= 1
        if self.left < 0:
            return "q"
        liked = next((line for line in self.heard[-2:] if line.endswith(self.likes)), "=")
        return liked[0].upper()


async def judged(owner: Owner, seed: bytes = b"seed") -> BlindResult:
    return await Judging(Voices(), owner.heard.append, owner.says, 3, seed).judge(RECORDS)


@pytest.mark.parametrize(("likes", "counts"), [("adapted", (12, 0, 0)), ("plain", (0, 12, 0)), ("neither", (0, 0, 12))])
async def test_the_one_that_is_liked_wins_wherever_it_stands(likes: str, counts: tuple[int, int, int]) -> None:
    owner = Owner(likes)
    found = await judged(owner)
    assert (found.wins, found.losses, found.ties) == counts
    first = [line for line in owner.heard if line.startswith("A:")]
    assert {"A: adapted", "A: plain"} == set(first)  # now the one, now the other


async def test_the_order_comes_from_the_seed_and_the_owner_may_stop() -> None:
    owners = [Owner("adapted", stops_after=3) for _ in range(3)]
    assert [(await judged(owner, seed)).wins for owner, seed in zip(owners, (b"a", b"a", b"b"), strict=True)] == [3] * 3
    assert owners[0].heard == owners[1].heard


def test_a_win_rate_says_how_sure_it_is() -> None:
    assert BlindResult(2, 9, 1, 3).lines() == [
        "version 2 against the base: won 9 of 10 decided, 3 ties",
        "win rate 90 % (95 % interval 60 to 98 %)",
    ]
    assert BlindResult(2, 0, 0, 4).lines() == ["4 ties and nothing decided"]
    assert BlindResult(2, 0, 0, 4).as_data()["win_rate"] is None


def test_nobody_is_asked_where_nobody_is(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDIT_HOME", str(tmp_path))
    assert invoke(["eval", "--blind", "3"]) == 4  # not joined
