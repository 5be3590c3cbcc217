"""Talk to a base model with or without an adapter: one worker process for a whole conversation. No torch here."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from fedit_client.data import Message
from fedit_client.evaluation.losses import WORKER
from fedit_client.evaluation.sampling import Sampling
from fedit_client.hardware.device import DevicePlan
from fedit_client.training.process import Worker, started
from fedit_client.training.trainer import plan_values
from fedit_protocol.task import TaskDocument, Template


class WorkerChat:
    """A loaded model to ask; use as an async context manager.

    `adapter` is a PEFT folder (`adapter_config.json` beside the tensors), or a safetensors file together with the
    `document` that says how to attach it. `beside` are further voices on the same base, which is in memory once: a name
    → a PEFT folder, or None for the base alone. Without a document `template` says how a conversation becomes text.
    Prompts and answers stay between the two processes.
    """

    def __init__(
        self,
        base: Path,
        plan: DevicePlan,
        adapter: Path | None = None,
        document: TaskDocument | None = None,
        beside: Mapping[str, Path | None] | None = None,
        template: Template = Template.CHAT,
    ) -> None:
        self._base, self._plan, self._adapter, self._document = base, plan, adapter, document
        self._beside, self._template = dict(beside or {}), template
        self._block: AbstractAsyncContextManager[Worker] | None = None
        self._worker: Worker | None = None
        self._answering: object | None = None  # what stands for the answer that is under way

    async def __aenter__(self) -> Self:
        """Start the worker and wait until the model is loaded; raises DeviceError, ModelError, TaskRefusedError."""
        self._block = started(WORKER, self._plan, self._base)
        self._worker = await self._block.__aenter__()
        try:
            await self._worker.send(
                {
                    "verb": "generate",
                    "base": str(self._base),
                    "plan": plan_values(self._plan),
                    "adapter": str(self._adapter) if self._adapter else None,
                    "document": self._document.model_dump(mode="json") if self._document else None,
                    "template": self._template.value,
                    "beside": {name: str(folder) if folder else None for name, folder in self._beside.items()},
                }
            )
            while (await self._worker.receive())["kind"] != "ready":
                pass
        except BaseException:
            await self._block.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the worker, in the middle of an answer too."""
        if self._block:
            await self._block.__aexit__(kind, error, trace)

    async def ask(
        self,
        messages: Sequence[Message],
        *,
        voice: str = "",
        max_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
        top_p: float = 1.0,
        top_k: int = 0,
        beams: int = 1,
        context: str = "",
    ) -> AsyncGenerator[str, None]:
        """Yield the answer piece by piece; how it is chosen: `Sampling`.

        Without the name of a `voice` the adapter answers. `context` is the end of the only question, where a built-in
        template shows it apart. Leaving the loop early ends the answer.
        """
        if self._worker is None:
            raise RuntimeError("ask() belongs inside `async with WorkerChat(...)`")
        await self._finish_last_answer(self._worker)
        turns = [[message.role.value, message.content] for message in messages]
        wishes = {
            "voice": voice,
            "max_tokens": max_tokens,
            "sampling": asdict(Sampling(temperature, top_p, top_k, beams, seed)),
            "context": context,
        }
        await self._worker.send({"messages": turns, **wishes})
        mine = self._answering = object()
        try:
            while (message := await self._worker.receive())["kind"] == "piece":
                yield message["text"]
            self._answering = None
        finally:
            if self._answering is mine:  # a loop that was left may end here only when the next answer is under way
                self._worker.post({"stop": True})

    async def _finish_last_answer(self, worker: Worker) -> None:
        """Read what is left of an answer that nobody wanted to the end."""
        while self._answering is not None:
            if (await worker.receive())["kind"] != "piece":
                self._answering = None
