"""`fedit-client chat`, `export` and `adapters …`: what came of it."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from fedit_client.commands.shared import (
    DeviceOption,
    Globals,
    Model,
    Threads,
    device_flags,
)

_FORMS = ("peft", "merged", "gguf", "gguf-lora", "ollama")

adapters_app = typer.Typer(
    help="The global adapters on this device: list, pull, verify.", no_args_is_help=True, rich_markup_mode=None
)


@adapters_app.command("list")
def list_adapters(context: typer.Context) -> None:
    """List the adapter versions on this device. With their rounds, and their losses on your own held-out rows."""
    from fedit_client.adapters.editions import as_data, kept_versions
    from fedit_client.adapters.personal import personal_line
    from fedit_client.membership.joined import joined_or_left

    given: Globals = context.obj
    paths = given.config().paths
    document = joined_or_left(paths).task_document
    kept, own = kept_versions(paths.adapters, document.task.id), personal_line(paths.adapters, document)
    lines = [one.line() for one in kept] or ["none yet: fedit-client adapters pull"]
    data = {"task": document.task.label, "adapters": [as_data(one) for one in kept], "personal": own is not None}
    given.console.answer("adapters list", data, [*lines, *([own] if own else [])])


@adapters_app.command()
def pull(
    context: typer.Context,
    version: Annotated[int | None, typer.Argument(min=0, help="Which version; default: the newest.")] = None,
) -> None:
    """Fetch an adapter version without taking part in a round."""
    from fedit_client.adapters.editions import as_data
    from fedit_client.consent.terms import size_text
    from fedit_client.conversations.foreground import run_async
    from fedit_client.conversations.pulling import pull as fetch

    given: Globals = context.obj
    told: list[int] = []

    def tell(done: int, of: int) -> None:
        if done == of and not told:
            told.append(done)
            given.console.say(f"fetched {size_text(done)}", style="dim")

    kept = run_async(fetch(given.config(), version, lambda event: given.console.say(event.text, style="dim"), tell))
    given.console.answer("adapters pull", as_data(kept), [f"version {kept.version} is in {kept.folder}"])


@adapters_app.command()
def verify(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="A folder that a server exported.")],
    pin: Annotated[
        str | None, typer.Option(help="The federation's pin, sha256:…; left out: that of the one joined.")
    ] = None,
) -> None:
    """Check an exported adapter without a network. Every byte, every version before it, and who signed it."""
    from fedit_client.adapters.origin import as_data, as_lines, check_folder
    from fedit_client.membership.joined import load_membership
    from fedit_protocol.encoding import digest_of
    from fedit_protocol.ids import Digest

    given: Globals = context.obj
    joined = None if pin else load_membership(given.config().paths.membership_file)
    trusted = None if joined is None else digest_of(joined.descriptor)
    origin = check_folder(folder, Digest(pin) if pin else trusted)
    given.console.answer("adapters verify", as_data(origin), as_lines(origin))


def chat(
    context: typer.Context,
    prompt: Annotated[str | None, typer.Option(help="Ask this and stop.")] = None,
    compare: Annotated[
        str | None, typer.Option(metavar="base|VERSION", help="Ask the base, or another version, the same.")
    ] = None,
    version: Annotated[int | None, typer.Option(min=0, help="Adapter version; default: the newest here.")] = None,
    personal: Annotated[
        bool, typer.Option("--personal", help="The adapter of this device alone, in tasks that keep one.")
    ] = False,
    adapter: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Any PEFT folder instead; nothing has to be joined.")
    ] = None,
    template: Annotated[
        Literal["chat", "alpaca", "alpaca_short", "alpaca_legacy", "vigogne"],
        typer.Option(help="With --adapter: how a question becomes text."),
    ] = "chat",
    temperature: Annotated[float, typer.Option(min=0.0, max=5.0, help="0: always the likeliest word.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Decides what is drawn; the same for all who are compared.")] = 0,
    max_tokens: Annotated[int, typer.Option(min=1, max=8192, help="Longest answer.")] = 256,
    top_p: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Draw from the likeliest words that have this share together.")
    ] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="Draw from so many likeliest words; 0: from all.")] = 0,
    beams: Annotated[int, typer.Option(min=1, max=16, help="Follow so many answers at once, give the likeliest.")] = 1,
    device: DeviceOption = None,
    threads: Threads = None,
    model: Model = None,
) -> None:
    """Talk with an adapter; with --compare, see what it changes."""
    from fedit_client.conversations.folder_chat import talk_with_folder
    from fedit_client.conversations.foreground import run_async
    from fedit_client.conversations.talk import ChatWishes, talk
    from fedit_protocol.task import Template

    given: Globals = context.obj
    config = given.config(model=model, device=device_flags(device, threads))
    wishes = ChatWishes(prompt, version, compare, temperature, seed, max_tokens, top_p, top_k, beams, personal=personal)
    if adapter is not None:
        run_async(talk_with_folder(config, given.console, wishes, adapter, Template(template)))
    else:
        run_async(talk(config, given.console, wishes))


def export(
    context: typer.Context,
    to: Annotated[
        str, typer.Option("--to", metavar="FORM", help=", ".join(_FORMS), autocompletion=lambda: list(_FORMS))
    ],
    out: Annotated[Path | None, typer.Option(help="A new folder; default: under exports, see `paths`.")] = None,
    version: Annotated[int | None, typer.Option(min=0, help="Adapter version; default: the newest here.")] = None,
    personal: Annotated[
        bool, typer.Option("--personal", help="The adapter of this device alone, in tasks that keep one.")
    ] = False,
    dtype: Annotated[
        Literal["f32", "bf16", "f16", "q8_0"] | None,
        typer.Option(help="How numbers are stored; default: as the base (merged), f16 (gguf, ollama)."),
    ] = None,
    model: Model = None,
) -> None:
    """Write an adapter in a form that other programs load. It says what comes next."""
    from fedit_client.conversations.exporting import ExportWishes, form_named
    from fedit_client.conversations.exporting import export as write
    from fedit_client.export.precision import Precision

    given: Globals = context.obj
    wishes = ExportWishes(form_named(to), out, version, Precision(dtype) if dtype else None, personal)
    made = write(given.config(model=model), wishes, given.console.say)
    given.console.answer("export", made.as_data(), made.lines())
