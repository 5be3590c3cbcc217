"""`chat`: a conversation with an adapter, and beside it with the base alone or with another version."""

import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from rich.live import Live
from rich.table import Table
from rich.text import Text

from fedit_client.adapters.editions import version_here
from fedit_client.adapters.personal import FOLDER, adapter_here
from fedit_client.config import ClientConfig
from fedit_client.console import Console
from fedit_client.data import Message
from fedit_client.data.records import Role
from fedit_client.evaluation import WorkerChat
from fedit_client.evaluation.sampling import Sampling
from fedit_client.hardware.device import Machine
from fedit_client.membership.joined import Membership, joined_or_left
from fedit_client.rounds.preparation import check_training_stack, choose_device, find_base
from fedit_protocol.errors import ConfigError

BASE: Final = "base"
_WIDE: Final = 100
"""Columns of a terminal from which on two answers stand side by side."""


class Voice(Protocol):
    """The seam to the model: whom `WorkerChat` answers as."""

    def ask(
        self,
        messages: Sequence[Message],
        *,
        voice: str = "",
        max_tokens: int,
        temperature: float,
        seed: int,
        top_p: float = 1.0,
        top_k: int = 0,
        beams: int = 1,
    ) -> AsyncIterator[str]:
        """Yield an answer piece by piece."""
        ...


@dataclass(frozen=True)
class ChatWishes:
    """What the owner said on the command line; `compare` is `base` or a version."""

    prompt: str | None = None
    version: int | None = None
    compare: str | None = None
    temperature: float = 0.0
    seed: int = 0
    max_tokens: int = 256
    top_p: float = 1.0
    top_k: int = 0
    beams: int = 1
    personal: bool = False
    """Talk with the adapter that the task's method keeps on this device alone."""

    @property
    def narrowed(self) -> dict[str, Any]:
        """What else was said about how an answer is chosen."""
        told = {"top_p": self.top_p, "top_k": self.top_k, "beams": self.beams}
        return {name: value for name, value in told.items() if value != getattr(Sampling, name)}

    def check_company(self, console: Console) -> None:
        """Raise ConfigError U002 where there is neither a prompt nor somebody to talk to."""
        if self.prompt is None and not console.interactive:
            raise ConfigError("nobody is here to talk to", code="U002",
                              fix="fedit-client chat --prompt 'Hello'", again="--prompt 'Hello'")  # fmt: skip

    @property
    def compared_version(self) -> int | None:
        """The version beside, if it is one; raises ConfigError U001 for another word."""
        if self.compare in (None, BASE):
            return None
        if not str(self.compare).isdigit():
            raise ConfigError(f"{self.compare} is neither base nor the number of an adapter version", code="U001",
                              fix="fedit-client chat --compare base", again="--compare base")  # fmt: skip
        return int(str(self.compare))


@dataclass
class Talk:
    """A conversation, the same questions to each voice, each with its own memory of its own answers."""

    console: Console
    voice: Voice
    wishes: ChatWishes
    names: tuple[tuple[str, str], ...]
    """What people call each voice, and its name within `voice`."""
    _said: dict[str, list[Message]] = field(default_factory=dict)

    async def turn(self, question: str) -> dict[str, str]:
        """Ask every voice, show the answers as they come, and return them by name."""
        if self._beside:
            with Live(console=self.console.out, refresh_per_second=8, transient=True) as live:
                answers = await self._answers(question, lambda so_far: live.update(self._columns(so_far)))
            self.console.out.print(self._columns(answers))
            return answers
        return await self._answers(question, None)

    async def _answers(self, question: str, show: Any) -> dict[str, str]:
        answers: dict[str, str] = {}
        for shown, name in self.names:
            said = self._said.setdefault(name, [])
            said.append(Message(Role.USER, question))
            if show is None and len(self.names) > 1:
                self.console.say(f"{shown}:", style="bold")
            answers[shown] = ""
            wishes = {"max_tokens": self.wishes.max_tokens, "seed": self.wishes.seed, **self.wishes.narrowed}
            async for piece in self.voice.ask(said, voice=name, temperature=self.wishes.temperature, **wishes):
                answers[shown] += piece
                if show is not None:
                    show(answers)
                elif not self.console.json:
                    sys.stdout.write(piece)
                    sys.stdout.flush()
            if show is None and not self.console.json:
                sys.stdout.write("\n")
            said.append(Message(Role.ASSISTANT, answers[shown]))
        return answers

    @property
    def _beside(self) -> bool:
        out = self.console.out
        return len(self.names) > 1 and out.is_terminal and out.width >= _WIDE and not self.console.json

    def _columns(self, answers: dict[str, str]) -> Table:
        table = Table(expand=True, box=None, pad_edge=False, padding=(0, 2))
        for shown, _ in self.names:
            table.add_column(shown, ratio=1, overflow="fold")
        table.add_row(*(Text(answers.get(shown, "")) for shown, _ in self.names))
        return table


async def talk(config: ClientConfig, console: Console, wishes: ChatWishes) -> None:
    """Answer one prompt, or talk until the end of input.

    Raises ConfigError U001, U002; MembershipError J001, J004; DeviceError, ModelError.
    """
    membership = joined_or_left(config.paths)
    wishes.check_company(console)
    other = wishes.compared_version
    document = membership.task_document
    task = document.task
    kept = adapter_here(config.paths.adapters, document, wishes.version, personal=wishes.personal)
    beside: dict[str, Path | None] = {}
    if wishes.compare is not None:
        chosen = None if other is None else version_here(config.paths.adapters, task.id, other)
        beside = {f"version {chosen.version}" if chosen else BASE: chosen.folder if chosen else None}
    async with await open_chat(config, console, membership, kept.folder, beside) as voice:
        first = "personal" if wishes.personal else f"version {kept.version}"
        names = ((first, ""), *((name, name) for name in beside))
        await converse(Talk(console, voice, wishes, names))


async def open_chat(
    config: ClientConfig, console: Console, membership: Membership, adapter: Path, beside: dict[str, Path | None]
) -> WorkerChat:
    """Return a worker that speaks as this adapter and as those beside it, not yet started; may fetch the base."""
    check_training_stack(config.device)
    document = membership.task_document
    chosen = choose_device(document, Machine.here(), config.device, membership)
    base = await find_base(document, config.model or membership.model, config.paths.cache, config.limits, console.say)
    which = "your personal adapter" if adapter.name == FOLDER else f"adapter version {adapter.name}"
    console.say(f"loading {document.task.base.model} with {which} …", style="dim")
    return WorkerChat(base, chosen, adapter, document, beside)


async def converse(talking: Talk) -> None:
    """Answer the one prompt, or questions until an empty line or the end of input."""
    console, wishes = talking.console, talking.wishes
    if wishes.prompt is not None:
        answers = await talking.turn(wishes.prompt)
        sampling = {"temperature": wishes.temperature, "seed": wishes.seed, **wishes.narrowed}
        console.answer("chat", {"prompt": wishes.prompt, "answers": answers, **sampling}, [])
        return
    console.say("an empty line ends the conversation", style="dim")
    while True:
        try:
            said = console.ask("you:", flag="--prompt TEXT")
        except EOFError:
            return
        if not said.strip():
            return
        await talking.turn(said)
