"""`eval --blind`: which answer is better, asked of the owner without saying whose it is. Nothing of it leaves."""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any, Final

from fedit_client.adapters.editions import version_here
from fedit_client.config import ClientConfig
from fedit_client.console import Console
from fedit_client.conversations.own_evaluation import OwnWishes, rows_to_measure
from fedit_client.conversations.talk import BASE, Voice, open_chat
from fedit_client.data import Message, Record
from fedit_client.data.holding_out import split
from fedit_client.membership.identity import held_out_seed, load_or_create_identity
from fedit_client.membership.joined import joined_or_left
from fedit_protocol.errors import ConfigError

_Z: Final = 1.96
_ANSWER_TOKENS: Final = 192
_CHOICES: Final = {"a": 0, "b": 1}


@dataclass(frozen=True)
class BlindResult:
    """How often the adapter's answer was preferred to the base's; `wins` and `losses` are the decided ones."""

    version: int
    wins: int
    losses: int
    ties: int

    @property
    def decided(self) -> int:
        """Answers of which one was better."""
        return self.wins + self.losses

    @property
    def win_rate(self) -> float | None:
        """The adapter's share of the decided ones; None if there are none."""
        return self.wins / self.decided if self.decided else None

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the win rate (Wilson 1927)."""
        if not self.decided:
            return 0.0, 1.0
        n, share = self.decided, self.wins / self.decided
        middle, spread = share + _Z**2 / (2 * n), _Z * sqrt(share * (1 - share) / n + _Z**2 / (4 * n * n))
        return (middle - spread) / (1 + _Z**2 / n), (middle + spread) / (1 + _Z**2 / n)

    def as_data(self) -> dict[str, Any]:
        """The counts, for programs."""
        return {**asdict(self), "win_rate": self.win_rate, "interval": list(self.interval)}

    def lines(self) -> list[str]:
        """The counts, for people."""
        if self.win_rate is None:
            return [f"{self.ties} ties and nothing decided"]
        low, high = (100 * end for end in self.interval)
        return [
            f"version {self.version} against the base: won {self.wins} of {self.decided} decided, {self.ties} ties",
            f"win rate {100 * self.win_rate:.0f} % (95 % interval {low:.0f} to {high:.0f} %)",
        ]


@dataclass
class Judging:
    """Question after question, two answers in an order that the seed decides, one verdict each."""

    voice: Voice
    say: Callable[[str], None]
    ask: Callable[[str], str]
    version: int
    seed: bytes

    async def judge(self, records: Sequence[Record]) -> BlindResult:
        """Ask about each record until they end or the owner says q; return the counts."""
        order = random.Random(self.seed)  # noqa: S311 - nobody has to be unable to guess it
        counts = {"wins": 0, "losses": 0, "ties": 0}
        for number, record in enumerate(records, 1):
            prompt = record.messages[:-1]
            voices = ["", BASE]
            order.shuffle(voices)
            self.say(f"\n{number} of {len(records)}: {prompt[-1].content}")
            for letter, voice in zip("AB", voices, strict=True):
                self.say(f"{letter}: {await self._answer(prompt, voice)}")
            verdict = self._verdict()  # in the first thread, where Ctrl-C ends a question
            if verdict == "q":
                break
            if verdict == "=":
                counts["ties"] += 1
            else:
                counts["losses" if voices[_CHOICES[verdict]] else "wins"] += 1
        return BlindResult(self.version, **counts)

    async def _answer(self, prompt: Sequence[Message], voice: str) -> str:
        asked = self.voice.ask(prompt, voice=voice, max_tokens=_ANSWER_TOKENS, temperature=0.0, seed=0)
        return "".join([piece async for piece in asked]).strip()

    def _verdict(self) -> str:
        while True:
            said = self.ask("better: a, b, = for neither, q to stop").strip().lower()
            if said in {*_CHOICES, "=", "q"}:
                return said


async def judge_blind(config: ClientConfig, console: Console, wishes: OwnWishes, count: int) -> BlindResult:
    """Compare the newest version with the base on up to `count` held-out rows, judged by the owner.

    Raises ConfigError U002 without a terminal, MembershipError J001, J004, DataError, DeviceError, ModelError.
    """
    membership = joined_or_left(config.paths)
    if not console.interactive:
        raise ConfigError("nobody is here to judge answers", code="U002", fix="fedit-client eval")
    kept = version_here(config.paths.adapters, membership.task_document.task.id)
    records, fraction = rows_to_measure(config, membership, wishes, console)
    seed = held_out_seed(load_or_create_identity(config.paths.identity_file))
    held_out = split(records, fraction, seed)[1] if fraction else list(records)
    async with await open_chat(config, console, membership, kept.folder, {BASE: None}) as voice:

        def ask(question: str) -> str:
            try:
                return console.ask(question, flag="--no-input")
            except EOFError:
                return "q"

        return await Judging(voice, console.say, ask, kept.version, seed).judge(held_out[:count])
