"""`fedit-client fit`, `prefetch` and `setup`: this machine, before it trains."""

from typing import Annotated, Literal

import typer

from fedit_client.commands.shared import DeviceOption, Globals, Threads, device_flags


def fit(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(help="A base, folder or hub id; default: the task's.")] = None,
    device: DeviceOption = None,
    threads: Threads = None,
) -> None:
    """Say whether a task fits this machine, before any download. Memory, disk, minutes and megabytes are estimated."""
    from fedit_client.conversations.fitting import fit_here

    given: Globals = context.obj
    found = fit_here(given.config(device=device_flags(device, threads)), model)
    given.console.answer("fit", found.as_data(), found.lines())
    found.fetch.check()


def prefetch(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Option(help="Where the task's base lies, or, where nothing was joined, the base to fetch.")
    ] = None,
) -> None:
    """Fetch the joined task's base model now, or without a task another. No round has to wait for it then."""
    from fedit_client.conversations.fitting import fetch_base
    from fedit_client.conversations.foreground import run_async

    given: Globals = context.obj
    folder, fetched = run_async(fetch_base(given.config(model=model), given.console.say))
    said = "fetched" if fetched else "was here already:"
    given.console.answer("prefetch", {"base": str(folder), "fetched": fetched}, [f"the base model {said} {folder}"])


def setup(
    context: typer.Context,
    backend: Annotated[
        Literal["auto", "cuda", "rocm", "xpu", "mps", "cpu"], typer.Option(help="What trains; auto looks at the GPU.")
    ] = "auto",
) -> None:
    """Make a training environment in FedIT's own folder. It has the PyTorch that this machine needs."""
    from fedit_client.conversations.setting_up import set_up

    given: Globals = context.obj
    plan = set_up(given.config(), given.console, backend)
    data = {"backend": plan.kind, "folder": str(plan.folder), "bytes": plan.size, "installed": bool(plan.commands)}
    given.console.answer("setup", {**data, "by_hand": list(plan.by_hand)}, [])
