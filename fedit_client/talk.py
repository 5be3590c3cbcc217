"""`chat`: a conversation with the newest global adapter, and beside it with the base alone."""

import sys
from contextlib import AsyncExitStack
from pathlib import Path

from fedit_client.config import ClientConfig
from fedit_client.console import Console
from fedit_client.data import Message
from fedit_client.data.records import Role
from fedit_client.device import Machine
from fedit_client.evaluation import WorkerChat
from fedit_client.membership import require_membership
from fedit_client.preparation import check_training_stack, choose_device, find_base
from fedit_protocol.errors import ConfigError, MembershipError

_MAX_TOKENS = 256
_ADAPTED, _BASE = "adapter", "base"


async def talk(config: ClientConfig, console: Console, adapter: Path | None, prompt: str | None, beside: bool) -> None:
    """Answer one prompt, or talk until the end of input; `beside` asks the base the same."""
    if prompt is None and not console.interactive:
        raise ConfigError("nobody is here to talk to", code="U002", fix="add --prompt TEXT")
    if adapter is None:
        raise MembershipError(
            "there is no adapter on this device yet", code="J004", fix="fedit-client run --max-rounds 1"
        )
    async with AsyncExitStack() as stack:
        voices = await _voices(config, console, adapter, beside, stack)
        if prompt is not None:
            answers = await _one_turn(console, voices, [Message(Role.USER, prompt)])
            console.answer("chat", {"prompt": prompt, "answers": answers}, [])
        else:
            await _converse(console, voices)


async def _voices(
    config: ClientConfig, console: Console, adapter: Path, beside: bool, stack: AsyncExitStack
) -> dict[str, WorkerChat]:
    check_training_stack(config.device)
    membership = require_membership(config.paths.membership_file)
    document = membership.task_document
    chosen = choose_device(document, Machine.here(), config.device, membership)
    model = config.model or membership.model
    base = await find_base(document, model, config.paths.cache, config.limits, console.say)
    console.say(f"loading {document.task.base.model} with adapter version {adapter.name} …", style="dim")
    voices = {_ADAPTED: await stack.enter_async_context(WorkerChat(base, chosen, adapter, document))}
    if beside:
        voices[_BASE] = await stack.enter_async_context(WorkerChat(base, chosen, None, document))
    return voices


async def _converse(console: Console, voices: dict[str, WorkerChat]) -> None:
    console.say("an empty line ends the conversation", style="dim")
    histories: dict[str, list[Message]] = {name: [] for name in voices}
    while True:
        try:
            said = console.ask("you:", flag="--prompt TEXT")
        except EOFError:
            return
        if not said.strip():
            return
        for name, voice in voices.items():
            histories[name].append(Message(Role.USER, said))
            answer = (await _one_turn(console, {name: voice}, histories[name], labelled=len(voices) > 1))[name]
            histories[name].append(Message(Role.ASSISTANT, answer))


async def _one_turn(
    console: Console, voices: dict[str, WorkerChat], messages: list[Message], *, labelled: bool | None = None
) -> dict[str, str]:
    """Let each voice answer the same messages, streaming to people as the words come."""
    answers: dict[str, str] = {}
    for name, voice in voices.items():
        if labelled or (labelled is None and len(voices) > 1):
            console.say(f"{name}:", style="bold")
        pieces: list[str] = []
        async for piece in voice.ask(messages, max_tokens=_MAX_TOKENS):
            pieces.append(piece)
            if not console.json:
                sys.stdout.write(piece)
                sys.stdout.flush()
        if not console.json:
            sys.stdout.write("\n")
        answers[name] = "".join(pieces)
    return answers
