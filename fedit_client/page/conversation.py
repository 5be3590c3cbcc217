"""The page's chat: one model in one worker process, loaded at the first question, ended when nobody asks any more."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Final, Protocol

from fedit_client.adapters.kept import newest_adapter
from fedit_client.config import ClientConfig
from fedit_client.data import Message
from fedit_client.evaluation import WorkerChat
from fedit_client.hardware.device import Machine
from fedit_client.membership.joined import joined_or_left
from fedit_client.rounds.preparation import check_training_stack, choose_device, find_base
from fedit_protocol.errors import DeviceError, FeditError, MembershipError

UNLOAD_AFTER_S: Final = 300.0
"""An idle model would take memory from training and from its owner."""


class Voice(Protocol):
    """What answers."""

    def ask(self, messages: Sequence[Message]) -> AsyncGenerator[str, None]:
        """Yield an answer piece by piece."""
        ...


OpenVoice = Callable[[Path], AbstractAsyncContextManager[Voice]]


class Conversation:
    """Answers one question at a time; use as an async context manager."""

    def __init__(
        self, adapter: Callable[[], Path], open_voice: OpenVoice, unload_after_s: float = UNLOAD_AFTER_S
    ) -> None:
        self._adapter, self._open_voice, self._unload_after_s = adapter, open_voice, unload_after_s
        self._stack = AsyncExitStack()
        self._loaded: tuple[Path, Voice] | None = None
        self._asking = asyncio.Lock()
        self._unloading: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Conversation":
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._unloading is not None:
            self._unloading.cancel()
        await self._unload()

    async def ask(self, messages: Sequence[Message]) -> AsyncGenerator[str, None]:
        """Yield the answer of the newest adapter; raises DeviceError H011 while another question is answered.

        Raises what loading a model can raise, and MembershipError J001, J004.
        """
        if self._asking.locked():
            raise DeviceError("the model is answering another question", code="H011", fix="wait for that answer")
        async with self._asking:
            if self._unloading is not None:
                self._unloading.cancel()
            try:
                voice = await self._voice()
                async with aclosing(voice.ask(messages)) as pieces:  # leaving early ends the answer, not the model
                    async for piece in pieces:
                        yield piece
            except FeditError:
                await self._unload()  # of a worker that died nothing more can be asked
                raise
            finally:
                self._unloading = asyncio.get_running_loop().call_later(self._unload_after_s, self._start_unloading)

    async def _voice(self) -> Voice:
        adapter = self._adapter()
        if self._loaded is not None and self._loaded[0] == adapter:
            return self._loaded[1]
        await self._unload()
        voice = await self._stack.enter_async_context(self._open_voice(adapter))
        self._loaded = adapter, voice
        return voice

    def _start_unloading(self) -> None:
        if not self._asking.locked():
            self._ending = asyncio.get_running_loop().create_task(self._unload())

    async def _unload(self) -> None:
        self._loaded = None
        await self._stack.aclose()
        self._stack = AsyncExitStack()


def newest_of(config: ClientConfig) -> Path:
    """Return the newest adapter of what was joined; raises MembershipError J001, J004."""
    task = joined_or_left(config.paths).task_document.task
    newest = newest_adapter(config.paths.adapters, task.id)
    if newest is None:
        raise MembershipError("there is no adapter on this device yet", code="J004",
                              fix="fedit-client run --max-rounds 1")  # fmt: skip
    return newest[1]


def voice_of(config: ClientConfig) -> OpenVoice:
    """Return what loads the joined task's base with an adapter, in a process of its own."""

    @asynccontextmanager
    async def opened(adapter: Path) -> AsyncIterator[Voice]:
        check_training_stack(config.device)
        membership = joined_or_left(config.paths)
        document = membership.task_document
        machine = await asyncio.to_thread(Machine.here)
        chosen = choose_device(document, machine, config.device, membership)
        model = config.model or membership.model
        base = await find_base(document, model, config.paths.cache, config.limits, lambda _: None)
        async with WorkerChat(base, chosen, adapter, document) as voice:
            yield voice

    return opened
