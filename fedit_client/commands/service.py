"""`fedit-client service`: run without a terminal, from log-in on."""

import os
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from fedit_client.commands.shared import Globals
from fedit_protocol.errors import ConfigError

if TYPE_CHECKING:
    from fedit_client.service.plan import ServicePlan

service_app = typer.Typer(
    help="Take part from log-in on, without a terminal.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be written and run; change nothing.")]


@service_app.command()
def install(context: typer.Context, dry_run: DryRun = False) -> None:
    """Write the service's description for this system, and start it."""
    from fedit_client.membership.joined import require_membership
    from fedit_client.service.systems import system_here

    given: Globals = context.obj
    _refuse_environment()
    _refuse_lying_file(given)
    config = given.config()
    manager, plan = system_here(), _plan(given)
    commands = [" ".join(command) for command in manager.begin()]
    text = _text(manager.content(plan))
    data = {"manager": manager.name, "file": str(manager.file), "content": text, "commands": commands}
    if dry_run:
        lines = [f"would write {manager.file}:", "", *text.splitlines(), "", "and run:", *commands]
        given.console.answer("service install", data | {"installed": False}, lines)
        return
    require_membership(config.paths.membership_file)
    manager.install(plan)
    lines = [f"installed as a service of {manager.name}: {manager.file}", manager.hint(),
             "fedit-client status · pause · finish · service uninstall"]  # fmt: skip
    given.console.answer("service install", data | {"installed": True}, lines)


@service_app.command()
def status(context: typer.Context) -> None:
    """Say whether the service runs, and what the client does."""
    from fedit_client.manners.control import read_now, read_wish
    from fedit_client.network.patience import utc_now
    from fedit_client.running.doing import doing_lines
    from fedit_client.service.systems import system_here

    given: Globals = context.obj
    manager, paths = system_here(), given.config().paths
    now, state = read_now(paths), manager.state()
    doing = doing_lines(now, read_wish(paths), utc_now())
    data = {"manager": manager.name, "file": str(manager.file), "installed": manager.file.exists(), "state": state,
            "running": now is not None, "doing": doing}  # fmt: skip
    given.console.answer("service status", data, [f"service     {state} ({manager.name})", *_indented(doing)])


@service_app.command()
def uninstall(context: typer.Context, dry_run: DryRun = False) -> None:
    """Stop the service and remove its description. The membership, rows and adapters stay."""
    from fedit_client.service.systems import system_here

    given: Globals = context.obj
    manager = system_here()
    commands = [" ".join(command) for command in (*manager.end(), *manager.after())]
    if dry_run:
        data = {"removed": False, "file": str(manager.file), "commands": commands}
        given.console.answer("service uninstall", data, [f"would run {' and '.join(commands)}",
                                                         f"and remove {manager.file}"])  # fmt: skip
        return
    removed = manager.uninstall()
    line = f"removed {manager.file}" if removed else "no service is installed"
    given.console.answer("service uninstall", {"removed": removed, "file": str(manager.file)}, [line])


def _plan(given: Globals) -> "ServicePlan":
    from fedit_client.service.plan import ServicePlan

    config = given.config()
    home = config.home.expanduser().absolute() if config.home else None
    file = given.settings_file.expanduser().absolute() if given.settings_file else None
    log = config.paths.log_file.with_name("service.log")
    return ServicePlan(home, log, max_memory_gb=config.polite.max_memory_gb, settings_file=file)


def _refuse_environment() -> None:
    """Raise ConfigError C006 for settings of this shell: a service would run without them, with other limits."""
    from fedit_client.config import ClientConfig

    settings = {f"FEDIT_{name.upper()}" for name in ClientConfig.model_fields} - {"FEDIT_HOME"}
    named = sorted(name for name in os.environ if name.upper().partition("__")[0] in settings)
    if named:
        key = named[0].upper().removeprefix("FEDIT_").lower().replace("__", ".")
        limit = key.removeprefix("limits.")
        raise ConfigError(
            f"a service does not see the settings of this shell: {', '.join(named)}", code="C006", where="environment",
            fix=f"fedit-client set {key}=VALUE, and unset {named[0]}"
            if limit == key
            else f"fedit-client policy set {limit} VALUE, and unset {named[0]}",
        )  # fmt: skip


def _refuse_lying_file(given: Globals) -> None:
    """Raise ConfigError C080 for settings of a ./fedit.toml: a service runs elsewhere, with other limits."""
    from fedit_client.config import ClientConfig, load_config
    from fedit_client.settings.origin import shown
    from fedit_client.settings.project_file import leaves, value_of

    loaded = given.loaded()
    if loaded.file is None or given.settings_file is not None:
        return
    alone = load_config(given.home)
    told = {
        key: shown(value_of(loaded.config, key))
        for key, _ in leaves(ClientConfig)
        if value_of(loaded.config, key) != value_of(alone, key)
    }
    if told:
        settings = [f"{key}={quote(value)}" for key, value in told.items() if not key.startswith("limits.")]
        limits = [f"fedit-client policy set {key.removeprefix('limits.')} {quote(value)}"
                  for key, value in told.items() if key.startswith("limits.")]  # fmt: skip
        lines = [f"fedit-client set {' '.join(settings)}"] * bool(settings) + limits
        raise ConfigError(f"a service does not see the settings of this folder: {', '.join(told)}", code="C080",
                          where=str(loaded.file.path), fix="\n".join(lines))  # fmt: skip


def _text(content: bytes) -> str:
    return content.decode("utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8")


def _indented(lines: list[str]) -> list[str]:
    return [f"{'' if place else 'client':<12}{line}" for place, line in enumerate(lines)]
