"""`[polite]`: how this client behaves on its owner's machine. No task, no server and no ./fedit.toml can loosen it."""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from fedit_client.manners.schedule import Schedule

Reaction = Literal["pause", "ignore"]

_PAUSE_IS_STRICTER: Final = {"stricter": ["ignore", "pause"]}
_LOWER: Final = {"stricter": "lower"}
_HIGHER: Final = {"stricter": "higher"}


def _setting(default: Any, description: str, stricter: dict[str, Any] | None = None, **bounds: Any) -> Any:
    return Field(default, description=description, json_schema_extra=stricter, **bounds)


class PoliteSettings(BaseModel):
    """`[polite]`: when this device trains, and how much of it (EXPERIENCE, section 6)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    on_battery: Reaction = _setting("pause", "what to do while the machine runs on its battery", _PAUSE_IS_STRICTER)
    gpu_busy: Reaction = _setting(
        "pause", "what to do while other programs take more than 15 % or 600 MB of the GPU for 20 s", _PAUSE_IS_STRICTER
    )
    fullscreen: Reaction = _setting("pause", "what to do while a program fills the screen", _PAUSE_IS_STRICTER)
    user_active: Literal["pause", "throttle", "ignore"] = _setting(
        "throttle", "what to do while somebody uses the machine", {"stricter": ["ignore", "throttle", "pause"]}
    )
    metered_network: Reaction = _setting("pause", "what to do on a metered connection", _PAUSE_IS_STRICTER)
    schedule: str = _setting("always", 'hours for training, such as "22:00-07:00 mon-fri, all sat-sun"')
    max_hours_per_day: float | None = _setting(
        None, "most hours of training in a day; empty means any", _LOWER, gt=0, le=24
    )
    max_temp_c: float = _setting(83.0, "pause above this temperature of what trains, in °C", _LOWER, ge=40, le=110)
    vram_reserve_gb: float = _setting(1.0, "GPU memory that is left to other programs, in GB", _HIGHER, ge=0, le=1000)
    max_memory_gb: float | None = _setting(
        None, "most main memory that training may take, in GB; empty means what is free", _LOWER, gt=0, le=100_000
    )
    max_disk_gb: float = _setting(30.0, "most that this client may keep on the disk, in GB", _LOWER, gt=0, le=1_000_000)
    max_upload_kbps: int | None = _setting(
        None, "most kilobits a second to send; empty means any", _LOWER, ge=8, le=100_000_000
    )
    max_download_kbps: int | None = _setting(
        None, "most kilobits a second to fetch; empty means any", _LOWER, ge=8, le=100_000_000
    )
    keep_awake: bool = _setting(
        False, "keep the machine from falling asleep while it trains", {"stricter": [True, False]}
    )
    process_priority: Literal["low", "normal"] = _setting(
        "low", "priority of the training process", {"stricter": ["normal", "low"]}
    )

    @field_validator("schedule")
    @classmethod
    def _is_a_schedule(cls, text: str) -> str:
        Schedule.parse(text)
        return text

    @property
    def hours(self) -> Schedule:
        """The schedule, parsed."""
        return Schedule.parse(self.schedule)
