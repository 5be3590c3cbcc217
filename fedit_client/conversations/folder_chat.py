"""`chat --adapter FOLDER`: a talk with any PEFT adapter on its base; nothing has to be joined."""

import asyncio
import json
from pathlib import Path
from shlex import quote

from fedit_client.base.look import imagined
from fedit_client.base.model import resolve_base
from fedit_client.config import ClientConfig
from fedit_client.console import Console
from fedit_client.conversations.talk import BASE, ChatWishes, Talk, converse
from fedit_client.evaluation import WorkerChat
from fedit_client.hardware.device import DevicePlan, Machine
from fedit_client.rounds.preparation import check_training_stack, choose_device
from fedit_protocol.errors import ConfigError, ModelError
from fedit_protocol.peft_folder import CONFIG, WEIGHTS
from fedit_protocol.task import Quantization, Template


async def talk_with_folder(
    config: ClientConfig, console: Console, wishes: ChatWishes, folder: Path, template: Template = Template.CHAT
) -> None:
    """Talk with the adapter in a folder, and with `--compare base` beside its base.

    The base is that of the settings, else the one that `adapter_config.json` names. Raises ConfigError U001, U002;
    DeviceError, ModelError.
    """
    wishes.check_company(console)
    if wishes.version is not None or wishes.personal or wishes.compare not in (None, BASE):
        raise ConfigError("--adapter names the adapter, so nothing but its base can be beside it", code="U001",
                          fix=f"fedit-client chat --adapter {quote(str(folder))} --compare base")  # fmt: skip
    check_training_stack(config.device)
    model = config.model or _base_of(folder)
    base, plan = await asyncio.to_thread(_ready, config, console, model)
    console.say(f"loading {model} with {folder.name} …", style="dim")
    beside: dict[str, Path | None] = {BASE: None} if wishes.compare else {}
    async with WorkerChat(base, plan, folder, beside=beside, template=template) as voice:
        names = ((folder.resolve().name, ""), *((name, name) for name in beside))
        await converse(Talk(console, voice, wishes, names))


def _base_of(folder: Path) -> str:
    try:
        told = json.loads((folder / CONFIG).read_text("utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"this is no folder with {CONFIG} and {WEIGHTS}", code="M001", where=str(folder),
                         fix="fedit-client chat --adapter PEFT_FOLDER") from error  # fmt: skip
    if not isinstance(told, str) or not told:
        raise ModelError("the adapter does not say on which base it was trained", code="M001", where=str(folder),
                         fix="fedit-client chat --adapter PEFT_FOLDER --model BASE", again="--model BASE")  # fmt: skip
    return told


def _ready(config: ClientConfig, console: Console, model: str) -> tuple[Path, DevicePlan]:
    """Return the base's folder, fetched if it must be, and how it is held here: in 4 bits unless settings differ."""
    base = resolve_base(model, "", config.paths.cache, most_bytes=config.limits.max_base_bytes, say=console.say)
    document = imagined(str(base), None)
    wanted = config.device.base_class
    held = Quantization.NF4 if wanted == "auto" else Quantization(wanted)
    spec = document.task.base.model_copy(update={"quantization": held})
    document = document.model_copy(update={"task": document.task.model_copy(update={"base": spec})})
    settings = config.device.model_copy(update={"base_class": "auto"})
    return base, choose_device(document, Machine.here(), settings, None)
