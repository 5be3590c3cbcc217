"""`fedit-client set`, `get`, `config …` and `paths`: the owner's settings, and where things lie."""

from typing import Annotated

import typer

from fedit_client.commands.shared import Globals
from fedit_protocol.errors import ConfigError

config_app = typer.Typer(
    help="The settings in force, and where each comes from.", no_args_is_help=True, rich_markup_mode=None
)
Key = Annotated[str, typer.Argument(metavar="KEY", help="A setting, such as device.threads.")]


def change(
    context: typer.Context,
    settings: Annotated[list[str], typer.Argument(metavar="KEY=VALUE…", help="Such as device.threads=2.")],
) -> None:
    """Change settings in client.toml, and say the new rule back. Comments in the file stay."""
    from fedit_client.config import ClientConfig, assigned, config_paths, edit_settings
    from fedit_client.settings.assignments import check_assignments

    given: Globals = context.obj
    changes = assigned(settings)
    check_assignments(ClientConfig, changes)
    edit_settings(config_paths(given.home), changes)
    _tell(given, "set", list(changes))


def get(context: typer.Context, key: Key) -> None:
    """Show one setting, or all of one table."""
    from fedit_client.settings.origin import find_setting, settings_of

    given: Globals = context.obj
    found = find_setting(settings_of(given.loaded(), given.flags()), key)
    lines = [found[0].text] if found[0].key == key else [f"{setting.key} = {setting.text}" for setting in found]
    given.console.answer("get", {"settings": [setting.as_data() for setting in found]}, lines)


@config_app.command()
def show(
    context: typer.Context,
    origin: Annotated[bool, typer.Option("--origin", help="Also where each value comes from.")] = False,
) -> None:
    """Show every setting with its value; secrets as ***."""
    from fedit_client.settings.origin import settings_of

    given: Globals = context.obj
    found = settings_of(given.loaded(), given.flags())
    wide = max(len(setting.key) for setting in found)
    broad = min(max(len(setting.text) for setting in found), 40) if origin else 0
    lines = [
        f"{setting.key:<{wide}}  {setting.text:<{broad}}" + (f"  {setting.source}" if origin else "")
        for setting in found
    ]
    given.console.answer("config show", {"settings": [setting.as_data() for setting in found]}, lines)


@config_app.command()
def schema(context: typer.Context) -> None:
    """Print the JSON Schema of client.toml. For editors that check while one types."""
    import json

    from fedit_client.config import ClientConfig

    given: Globals = context.obj
    found = ClientConfig.model_json_schema()
    given.console.answer("config schema", {"schema": found}, json.dumps(found, indent=2).splitlines())


@config_app.command()
def edit(context: typer.Context) -> None:
    """Open client.toml in your editor ($VISUAL, $EDITOR). It is replaced only by settings that can be."""
    from fedit_client.config import config_paths
    from fedit_client.settings.edit import edit as open_editor

    given: Globals = context.obj
    if not given.console.interactive:
        raise ConfigError("nobody is here to edit", code="U002", fix="fedit-client set KEY=VALUE")
    place = config_paths(given.home)
    changed = open_editor(place)
    words = f"{place.settings_file} {'is changed' if changed else 'is as it was'}"
    given.console.answer("config edit", {"changed": changed, "file": str(place.settings_file)}, [words])


@config_app.command()
def reset(context: typer.Context, key: Key) -> None:
    """Take one setting out of client.toml. It goes back to its default, also where its value cannot be read."""
    from fedit_client.config import config_paths, edit_settings

    given: Globals = context.obj
    edit_settings(config_paths(given.home), {key: None})
    _tell(given, "config reset", [key])


def paths(context: typer.Context) -> None:
    """Show where everything lies on this machine."""
    given: Globals = context.obj
    places = given.config().paths.labelled()
    lines = [f"{name:<11} {place}" for name, place in places.items()]
    given.console.answer("paths", {name: str(place) for name, place in places.items()}, lines)


def _tell(given: Globals, command: str, keys: list[str]) -> None:
    """Say what is now in force: something above the file may still decide."""
    from fedit_client.home.lock import is_held
    from fedit_client.manners.live import is_live
    from fedit_client.settings.origin import settings_of
    from fedit_client.settings.words import rule

    found = {setting.key: setting for setting in settings_of(given.loaded(), given.flags())}
    lines = [f"{key} is now {found[key].text}: {rule(key, found[key].value)}" for key in keys if key in found]
    lines += [f"{key} is taken out" for key in keys if key not in found]
    running = is_held(given.config().paths.lock_file)
    later = [key for key in keys if not is_live(key)] if running else []
    if running and len(later) < len(keys):
        lines.append("the client that runs here takes it over at once")
    if later:
        given.console.warn(f"the client that runs here keeps its {', '.join(later)} until it is started again: "
                           "fedit-client finish, then fedit-client run")  # fmt: skip
    for setting in (found[key] for key in keys if key in found):
        if setting.source not in {"client.toml", "default"} and not setting.source.startswith(("join", "task ")):
            given.console.warn(f"{setting.source} comes before client.toml, so it still decides about {setting.key}")
    data = {
        "settings": [found[key].as_data() for key in keys if key in found],
        "running": running,
        "at_next_start": later,
    }
    given.console.answer(command, data, lines)
