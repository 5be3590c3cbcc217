"""What desktops and drivers say, as it was recorded or as their manuals show it, read into facts."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from fedit_client.manners import desktop
from fedit_client.manners.facts import MachineFacts, others_on_gpu, used_gb
from fedit_client.manners.rules import Facts, GpuUse, Rules
from fedit_client.manners.settings import PoliteSettings
from fedit_client.manners.windows import fullscreen_program, idle_s

NOW_S = 1_800_000_000.0
XPROP_VIDEO = '_NET_WM_STATE(ATOM) = _NET_WM_STATE_FULLSCREEN, _NET_WM_STATE_FOCUSED\nWM_CLASS(STRING) = "mpv", "mpv"\n'
XPROP_EDITOR = '_NET_WM_STATE(ATOM) = _NET_WM_STATE_MAXIMIZED_HORZ\nWM_CLASS(STRING) = "gedit", "Gedit"\n'


def test_logind_tells_whether_somebody_is_there() -> None:
    asked = desktop.idle_from_logind
    assert asked("IdleHint=no\nIdleSinceHint=1799999990000000\nSessions=2\n", NOW_S) == 0.0
    assert asked("IdleHint=yes\nIdleSinceHint=1799999700000000\nSessions=2 c1\n", NOW_S) == 300.0
    assert asked("IdleHint=yes\nIdleSinceHint=0\nSessions=\n", NOW_S) is None  # a server: nobody sits at it
    assert asked("", NOW_S) is None


def test_x11_tells_what_fills_the_screen() -> None:
    assert desktop.active_window("_NET_ACTIVE_WINDOW(WINDOW): window id # 0x3400007\n") == "0x3400007"
    assert desktop.active_window("_NET_ACTIVE_WINDOW(WINDOW): window id # 0x0\n") is None
    assert desktop.active_window("_NET_ACTIVE_WINDOW:  not found.\n") is None
    assert desktop.fullscreen_program(XPROP_VIDEO) == "mpv"
    assert desktop.fullscreen_program(XPROP_EDITOR) == ""
    assert desktop.fullscreen_program("") is None


def test_networkmanager_and_windows_tell_whether_the_line_is_metered() -> None:
    assert [desktop.metered_from_networkmanager(f"u {value}\n") for value in range(5)] == [
        None,
        True,
        False,
        True,
        False,
    ]
    assert desktop.metered_from_networkmanager("Failed to connect to bus") is None
    windows = [desktop.metered_from_windows(cost) for cost in ("Unrestricted\r\n", "Fixed", "Variable", "Unknown", "")]
    assert windows == [False, True, True, None, None]


def test_macos_tells_how_long_nobody_typed() -> None:
    assert desktop.idle_from_ioreg('    | |   "HIDIdleTime" = 93000000000\n') == 93.0
    assert desktop.idle_from_ioreg("") is None


ME, WORKER, BLENDER, DESKTOP, HIDDEN = 9, 10, 20, 30, 4711
NAMES = {WORKER: "python", BLENDER: "blender.exe", DESKTOP: "Xorg"}


def test_our_own_work_and_the_desktop_are_no_others() -> None:
    processes = {WORKER: 4000.0, BLENDER: 2100.0, DESKTOP: 900.0}
    assert others_on_gpu(processes, {ME, WORKER}, NAMES, 0.7, 7000.0) == GpuUse(0.7, 2100.0, "blender.exe")
    assert others_on_gpu({WORKER: 4000.0}, {ME, WORKER}, NAMES, 0.0, 4100.0) == GpuUse(0.0, 0.0, "")


def test_without_memory_per_process_the_device_is_taken_while_nothing_of_ours_can_be_on_it() -> None:
    assert others_on_gpu({}, {ME}, {}, 0.4, 3000.0) == GpuUse(0.4, 3000.0)
    assert others_on_gpu({}, {ME, WORKER}, {}, None, 6000.0) == GpuUse(None, 0.0)


def test_a_process_outside_the_container_is_not_taken_for_a_stranger_while_it_may_be_our_own() -> None:
    assert others_on_gpu({HIDDEN: 4000.0}, {ME, WORKER}, {}, None, 4100.0) == GpuUse(None, 0.0)
    assert others_on_gpu({HIDDEN: 4000.0}, {ME}, {}, 0.9, 4100.0) == GpuUse(0.9, 4000.0)


def test_a_gpu_that_another_program_used_when_this_was_recorded_is_busy() -> None:
    """Read on an H200 while another process multiplied matrices."""
    seen = Facts(
        gpu_others=GpuUse(share=0.98, memory_mb=916.455424, program="python3"), temperature_c=57.0, sensor="GPU"
    )
    rules, begun = Rules(PoliteSettings()), datetime(2026, 11, 27, 14, 35, tzinfo=UTC)
    assert rules.judge(seen, begun).hold is None
    hold = rules.judge(seen, begun + timedelta(seconds=20)).hold
    assert hold is not None
    assert hold.text == "another program uses the GPU (python3, 98 %)"


def test_folders_are_counted_once(tmp_path: Path) -> None:
    inner = tmp_path / "cache"
    inner.mkdir()
    (inner / "model").write_bytes(bytes(3000))
    (tmp_path / "adapter").write_bytes(bytes(1000))
    assert used_gb((tmp_path, inner, tmp_path / "missing")) == 4000 / 1e9


def test_this_machine_can_be_asked_and_what_is_ignored_is_not(tmp_path: Path) -> None:
    (tmp_path / "adapter").write_bytes(bytes(5_000_000))
    asked = MachineFacts(PoliteSettings(), (tmp_path,)).read("cpu")
    assert asked.disk_gb == 0.005
    assert asked.gpu_others is None
    ignored = dict.fromkeys(("on_battery", "fullscreen", "user_active", "metered_network", "gpu_busy"), "ignore")
    facts = MachineFacts(PoliteSettings.model_validate(ignored)).read("cuda:0")
    assert (facts.on_battery, facts.fullscreen, facts.idle_s, facts.metered, facts.gpu_others) == (None,) * 5


def test_windows_is_asked_on_windows_only() -> None:
    import sys

    if sys.platform != "win32":
        assert (idle_s(), fullscreen_program()) == (None, None)
