"""A setting of `[polite]` said back as the rule that it is."""

from collections.abc import Callable
from typing import Any, Final

from fedit_client.manners.schedule import Schedule
from fedit_client.manners.settings import PoliteSettings


def _reaction(what: str) -> Callable[[Any], str]:
    return lambda value: f"{'pauses' if value == 'pause' else 'goes on'} {what}"


def _cap(value: Any, verb: str) -> str:
    if value is None:
        return f"{verb} as fast as the line allows"
    return f"{verb} at most {value} kilobits a second, {value / 8000:.2g} MB/s"


_ACTIVE: Final = {
    "pause": "pauses while somebody uses the machine",
    "throttle": "trains at half speed while somebody uses the machine",
    "ignore": "goes on while somebody uses the machine",
}

RULES: Final[dict[str, Callable[[Any], str]]] = {
    "on_battery": _reaction("on battery power"),
    "gpu_busy": _reaction("while another program uses the GPU (more than 15 % or 600 MB for 20 s)"),
    "fullscreen": _reaction("while a program fills the screen"),
    "user_active": lambda value: _ACTIVE[value],
    "metered_network": _reaction("on a metered connection"),
    "schedule": lambda value: f"trains {Schedule.parse(value).text()}",
    "max_hours_per_day": lambda value: (
        f"trains at most {value:g} h a day" if value else "trains as many hours a day as there is work"
    ),
    "max_temp_c": lambda value: f"pauses while what trains is above {value:g} °C",
    "vram_reserve_gb": lambda value: f"leaves {value:g} GB of GPU memory to other programs",
    "max_memory_gb": lambda value: (
        f"takes at most {value:g} GB of main memory" if value else "takes main memory that is free"
    ),
    "max_disk_gb": lambda value: f"keeps at most {value:g} GB on the disk",
    "max_upload_kbps": lambda value: _cap(value, "sends"),
    "max_download_kbps": lambda value: _cap(value, "fetches adapters"),
    "keep_awake": lambda value: (
        "keeps the machine awake while it trains" if value else "lets the machine fall asleep as it likes"
    ),
    "process_priority": lambda value: (
        "gives way to every other program" if value == "low" else "competes with other programs for the cores"
    ),
}
"""Key of `[polite]` → what this client does, given the value."""


def summary(polite: PoliteSettings, *, on_gpu: bool) -> str:
    """The rules in one line, for somebody who has just joined."""
    pauses = [
        *(["on battery"] if polite.on_battery == "pause" else []),
        *(["while a program fills the screen"] if polite.fullscreen == "pause" else []),
        *(["while another GPU job runs"] if on_gpu and polite.gpu_busy == "pause" else []),
        *(["while somebody uses this machine"] if polite.user_active == "pause" else []),
        *(["on a metered network"] if polite.metered_network == "pause" else []),
        f"above {polite.max_temp_c:g} °C",
    ]
    slower = "; half speed while somebody uses this machine" if polite.user_active == "throttle" else ""
    hours = "" if polite.hours == Schedule() else f"trains {polite.hours.text()}; "
    return f"{hours}pauses {', '.join(pauses)}{slower}"
