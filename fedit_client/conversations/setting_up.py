"""The conversation behind `setup`, which `join` offers too where nothing can train yet."""

from fedit_client.config import ClientConfig, edit_settings
from fedit_client.console import Console
from fedit_client.hardware.machine import Machine
from fedit_client.hardware.runtime_setup import Backend, SetupPlan, carry_out, find_uv, plan_setup
from fedit_client.records.contacts import note_installer
from fedit_protocol.errors import ConfigError


def set_up(config: ClientConfig, console: Console, backend: Backend) -> SetupPlan:
    """Say what would be installed where and how large it is, ask, and do it; without uv only say it.

    The interpreter is then noted as `device.python`. Raises DeviceError H002, H008, H009, ConfigError U002 for a no.
    """
    plan = plan_setup(Machine.here(), backend, config.paths.runtime, find_uv())
    for line in plan.lines():
        console.say(line)
    if not plan.commands:
        return plan
    plan.check()
    if not console.confirm(f"Install about {plan.size / 1e9:.1f} GB?", flag="--yes"):
        raise ConfigError("nothing was installed", code="U002", fix="fedit-client setup", again="")
    note_installer(config.paths.cache)
    python = carry_out(plan, lambda text: console.say(f"  {text}", style="dim"))
    edit_settings(config.paths, {"device.python": str(python)})
    console.done(f"training runs with {python}")
    return plan
