"""`fedit-client policy …`: the commands; what they mean is in `policy`."""

from typing import TYPE_CHECKING, Annotated

import typer

from fedit_client.commands.shared import Globals
from fedit_protocol.errors import ConfigError

if TYPE_CHECKING:
    from fedit_client.consent.policy import Change

policy_app = typer.Typer(
    help="Your limits, which no server can loosen: show, set, reset.", no_args_is_help=True, rich_markup_mode=None
)
Name = Annotated[str, typer.Argument(metavar="KEY", help="A limit; `policy show` lists them.")]


@policy_app.command()
def show(context: typer.Context) -> None:
    """Show every limit with its value, default and meaning. Also whether the joined task keeps to them."""
    from fedit_client.consent.policy import policy_of

    given: Globals = context.obj
    found = policy_of(given.config())
    given.console.answer("policy show", found.as_data(), found.lines())


@policy_app.command("set")
def set_limit(
    context: typer.Context,
    name: Name,
    value: Annotated[str, typer.Argument(help="The new value; a list with commas, empty for none.")],
) -> None:
    """Change one limit in client.toml. Comments and other lines in the file stay."""
    from fedit_client.consent.policy import TRUSTED_MEANS, wished, write

    given: Globals = context.obj
    config = given.config()
    change = wished(config, name, value)
    if change.needs_a_yes:
        for line in TRUSTED_MEANS:
            given.console.say(line)
        if not given.console.confirm("Allow servers to see single updates of this device?", flag="--yes"):
            raise ConfigError("the policy was not changed", code="U002", fix="fedit-client policy show")
    write(config.paths, change)
    _tell(given, "policy set", change)


@policy_app.command()
def reset(context: typer.Context, name: Name) -> None:
    """Go back to the default of one limit."""
    from fedit_client.consent.policy import unset, write

    given: Globals = context.obj
    config = given.config()
    change = unset(config, name)
    write(config.paths, change, remove=True)
    _tell(given, "policy reset", change)


def _tell(given: Globals, command: str, change: "Change") -> None:
    from fedit_client.consent.policy import overruled, policy_of

    now = policy_of(given.config())
    if now.refusal is not None:
        given.console.warn(f"the joined task {now.task} is refused from now on: {now.refusal}")
    if variable := overruled(change):
        given.console.warn(f"{variable} in the environment comes before the file, so it still decides")
    given.console.answer(command, change.as_data(), change.lines())
