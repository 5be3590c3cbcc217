"""What the settings leave of a machine, and how they are said back."""

import importlib.util
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest

from fedit_client.hardware.machine import Gpu, Machine
from fedit_client.manners.awake import awake_if
from fedit_client.manners.caps import CappedError, check_disk, check_network, left_of, within_memory
from fedit_client.manners.settings import PoliteSettings
from fedit_client.manners.words import summary
from fedit_client.settings.words import rule
from fedit_protocol.errors import ConfigError, DeviceError

GB = 10**9
GPU = Gpu(0, "NVIDIA RTX 4060", 8 * GB, 7 * GB, (8, 9))
MACHINE = Machine(8, 6, 32 * GB, 20 * GB, (GPU,))


def polite(**values: object) -> PoliteSettings:
    return PoliteSettings.model_validate(values)


def needing(memory: int, gpu_memory: int = 0) -> Any:
    def plan(machine: Machine) -> str:
        if machine.free_bytes < memory or any(gpu.free_bytes < gpu_memory for gpu in machine.gpus):
            raise DeviceError("too little memory", code="H003")
        return "planned"

    return plan


def test_a_gigabyte_of_each_gpu_is_left_to_others_by_default() -> None:
    left = left_of(MACHINE, polite())
    assert (left.gpus[0].free_bytes, left.free_bytes) == (6 * GB, 20 * GB)
    assert left_of(MACHINE, polite(vram_reserve_gb=0, max_memory_gb=4)) == replace(MACHINE, free_bytes=4 * GB)
    assert left_of(MACHINE, polite(max_memory_gb=64)).free_bytes == 20 * GB
    unknown = replace(MACHINE, gpus=(replace(GPU, total_bytes=0, free_bytes=0),))
    assert left_of(unknown, polite()).gpus == unknown.gpus


CAPPED = {
    "main memory": ({"max_memory_gb": 2, "vram_reserve_gb": 0}, 3 * GB, 0, "polite.max_memory_gb=2"),
    "GPU memory": ({"vram_reserve_gb": 4}, 0, 5 * GB, "polite.vram_reserve_gb=4"),
}


@pytest.mark.parametrize(("values", "memory", "gpu_memory", "where"), CAPPED.values(), ids=CAPPED)
def test_a_setting_that_stands_in_the_way_is_named(
    values: dict[str, float], memory: int, gpu_memory: int, where: str
) -> None:
    plan = needing(memory, gpu_memory)
    with pytest.raises(CappedError) as refused:
        within_memory(MACHINE, polite(**values), plan)
    assert (refused.value.code, refused.value.exit_code, refused.value.where) == ("P003", 10, where)
    assert (refused.value.fix or "").startswith(f"fedit-client set {where.partition('=')[0]}=")


def test_a_machine_that_is_too_small_is_not_blamed_on_the_settings() -> None:
    with pytest.raises(DeviceError) as refused:
        within_memory(MACHINE, polite(max_memory_gb=2), needing(40 * GB))
    assert refused.value.code == "H003"
    assert within_memory(MACHINE, polite(), needing(5 * GB, 5 * GB)) == "planned"


def test_the_disk_is_kept_to_before_anything_is_fetched() -> None:
    check_disk(29.0, GB, polite())
    check_disk(40.0, 0, polite())  # nothing to fetch: the rule pauses, this does not refuse
    with pytest.raises(CappedError) as refused:
        check_disk(24.0, 8 * GB, polite())
    assert (refused.value.code, refused.value.fix) == ("P004", "fedit-client set polite.max_disk_gb=33")
    assert "8.0 GB, this client would keep 32.0 GB" in str(refused.value)


def test_a_base_is_not_fetched_over_a_metered_line() -> None:
    check_network(8 * GB, polite(), lambda: None)
    check_network(8 * GB, polite(metered_network="ignore"), lambda: True)
    check_network(0, polite(), lambda: True)
    with pytest.raises(CappedError, match="the network connection is metered") as refused:
        check_network(8 * GB, polite(), lambda: True)
    assert (refused.value.code, refused.value.exit_code) == ("P005", 10)


SAID = {
    "polite.schedule": ("22:00-07:00", "this client trains from 22:00 to 07:00 the next day every day"),
    "polite.on_battery": ("ignore", "this client goes on on battery power"),
    "polite.user_active": ("throttle", "this client trains at half speed while somebody uses the machine"),
    "polite.max_upload_kbps": (2000, "this client sends at most 2000 kilobits a second, 0.25 MB/s"),
    "polite.max_download_kbps": (None, "this client fetches adapters as fast as the line allows"),
    "polite.max_hours_per_day": (6.0, "this client trains at most 6 h a day"),
    "polite.process_priority": ("low", "this client gives way to every other program"),
}


@pytest.mark.parametrize(("key", "value", "words"), [(key, *row) for key, row in SAID.items()], ids=SAID)
def test_a_rule_is_said_back_in_words(key: str, value: object, words: str) -> None:
    assert rule(key, value) == words


@pytest.mark.parametrize("name", PoliteSettings.model_fields)
def test_every_setting_has_words_and_the_order_of_its_strictness(name: str) -> None:
    field = PoliteSettings.model_fields[name]
    said = rule(f"polite.{name}", field.default)
    assert said.startswith("this client ")
    assert said != field.description
    assert field.json_schema_extra is not None or name == "schedule"


def test_a_machine_is_kept_awake_only_if_its_owner_wants_that(monkeypatch: pytest.MonkeyPatch) -> None:
    assert awake_if(False) is nullcontext
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError) as refused:
        awake_if(True)
    assert (refused.value.code, refused.value.fix) == ("C007", 'pip install "fedit[awake]"')


@pytest.mark.skipif(importlib.util.find_spec("wakepy") is None, reason="wakepy is not installed")
def test_a_system_that_cannot_be_kept_awake_is_no_reason_to_stop() -> None:
    with awake_if(True)():
        pass


def test_who_joins_is_told_the_rules_in_one_line() -> None:
    told = summary(polite(), on_gpu=True)
    assert told == (
        "pauses on battery, while a program fills the screen, while another GPU job runs, on a metered network, "
        "above 83 °C; half speed while somebody uses this machine"
    )
    nights = summary(polite(schedule="22:00-07:00", user_active="pause", on_battery="ignore"), on_gpu=False)
    assert nights.startswith(
        "trains from 22:00 to 07:00 the next day every day; pauses while a program fills the screen"
    )
    assert "while somebody uses this machine, on a metered" in nights
