"""Services of three systems: files that their own rules accept, and commands that install, ask and remove."""

import json
import os
import plistlib
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fedit_client.cli import invoke
from fedit_client.service import launchd, systemd, task_scheduler
from fedit_client.service.plan import ServicePlan
from fedit_client.service.systems import Launchd, Said, ServiceSystem, Systemd, TaskScheduler, run_tool
from fedit_protocol.errors import DeviceError

PLAN = ServicePlan(Path("/home/ada/my notes/100% mine"), Path("/home/ada/.local/state/log/service.log"))
COMMAND = [*PLAN.command]
XML = f"{{{task_scheduler.NAMESPACE}}}"


def settings(unit: str) -> dict[str, str]:
    """The `Key=Value` lines of a unit."""
    return dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and not line.startswith("#"))


def test_the_unit_starts_the_program_and_survives_odd_folders() -> None:
    found = settings(systemd.unit(PLAN))
    # systemd reads words as a shell does, and turns %% into %.
    assert [word.replace("%%", "%") for word in shlex.split(found["ExecStart"])] == COMMAND
    assert (found["WantedBy"], found["NoNewPrivileges"], found["Nice"]) == ("default.target", "yes", "10")
    assert found["SuccessExitStatus"] == "130"
    assert "10" not in found["RestartPreventExitStatus"].split()  # a pause passes by itself
    assert systemd.quoted('a "b" $HOME \\') == '"a \\"b\\" $$HOME \\\\"'


def test_a_memory_cap_is_the_kernels_business() -> None:
    assert settings(systemd.unit(replace(PLAN, max_memory_gb=6.0)))["MemoryMax"] == "6000000000"
    assert "MemoryMax" not in settings(systemd.unit(PLAN))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here")
def test_systemd_itself_finds_nothing_wrong(tmp_path: Path) -> None:
    home = tmp_path / "my notes"
    home.mkdir()
    unit = tmp_path / systemd.UNIT
    unit.write_text(systemd.unit(replace(PLAN, home=home, max_memory_gb=6.0)), encoding="utf-8")
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    done = subprocess.run(
        ["systemd-analyze", "--user", "--man=no", "verify", str(unit)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(run)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    complaints = [line for line in done.stderr.splitlines() if systemd.UNIT in line]
    assert (done.returncode, complaints) == (0, []), done.stderr


def test_the_property_list_holds_what_launchd_needs() -> None:
    job = plistlib.loads(launchd.plist(PLAN))
    assert (job["Label"], job["ProgramArguments"], job["RunAtLoad"]) == (launchd.LABEL, COMMAND, True)
    assert job["KeepAlive"] == {"SuccessfulExit": False}
    assert (job["ProcessType"], job["Nice"], job["Umask"]) == ("Background", 10, 0o077)
    assert job["StandardErrorPath"] == str(PLAN.log)


def test_the_task_holds_what_the_scheduler_needs() -> None:
    raw = task_scheduler.task_xml(PLAN, "HOME\\ada")
    assert raw.startswith((b"\xff\xfe", b"\xfe\xff"))  # schtasks wants UTF-16 with its mark
    task = ElementTree.fromstring(raw)
    assert (task.tag, task.get("version")) == (f"{XML}Task", "1.2")

    def text(path: str) -> str | None:
        return task.findtext("/".join(XML + name for name in path.split("/")))

    assert text("Triggers/LogonTrigger/UserId") == "HOME\\ada"
    assert text("Principals/Principal/RunLevel") == "LeastPrivilege"
    assert text("Principals/Principal/LogonType") == "InteractiveToken"
    assert (text("Settings/ExecutionTimeLimit"), text("Settings/MultipleInstancesPolicy")) == ("PT0S", "IgnoreNew")
    assert text("Settings/RestartOnFailure/Count") == "5"
    assert text("Actions/Exec/Command") == COMMAND[0]
    assert '"/home/ada/my notes/100% mine"' in (text("Actions/Exec/Arguments") or "")
    order = [child.tag.removeprefix(XML) for child in task]
    assert order == ["RegistrationInfo", "Triggers", "Principals", "Settings", "Actions"]


def test_a_service_keeps_the_settings_file_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "strict.toml").write_text("[limits]\nhidden_among = 9\n")
    words = ["--home", str(tmp_path / "home"), "--config", "strict.toml", "--json", "service", "install", "--dry-run"]
    assert invoke(words) == 0
    assert f"--config {tmp_path / 'strict.toml'} run" in json.loads(capsys.readouterr().out)["data"]["content"]


def test_a_service_would_not_see_a_file_of_this_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDIT_HOME", str(tmp_path / "home"))
    (tmp_path / "fedit.toml").write_text("[limits]\nhidden_among = 9\n[polite]\nmax_temp_c = 70\n")
    assert invoke(["service", "install", "--dry-run"]) == 3
    said = capsys.readouterr().err
    assert "FEDIT-C080" in said
    for line in ("set polite.max_temp_c=70", "policy set hidden_among 9"):
        assert f"fedit-client {line}\n" in said
        assert invoke([*line.split(), "--yes"]) == 0
    assert invoke(["service", "install", "--dry-run"]) == 0


def test_a_service_would_not_see_settings_of_this_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEDIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FEDIT_LIMITS__HIDDEN_AMONG", "9")
    assert invoke(["service", "install", "--dry-run"]) == 3
    said = capsys.readouterr().err
    assert "FEDIT-C006" in said
    assert "fedit-client policy set hidden_among VALUE" in said
    monkeypatch.delenv("FEDIT_LIMITS__HIDDEN_AMONG")
    assert invoke(["service", "install", "--dry-run"]) == 0


@dataclass
class Recorder:
    """Stands in for the system's tools at the seam."""

    answer: Said = field(default_factory=lambda: Said(0, "active"))
    commands: list[list[str]] = field(default_factory=list)

    def __call__(self, command: Sequence[str]) -> Said:
        self.commands.append(list(command))
        return self.answer


@pytest.mark.parametrize("kind", [Systemd, Launchd, TaskScheduler])
def test_installed_asked_and_removed(
    kind: type[ServiceSystem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "XDG_CONFIG_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    tool = Recorder()
    manager = kind(tool)
    assert (manager.state(), manager.uninstall(), tool.commands) == ("not installed", False, [])
    manager.install(PLAN)
    assert manager.file.read_bytes() == manager.content(PLAN)
    assert manager.file.is_relative_to(tmp_path)
    assert manager.state() == "active"
    assert manager.uninstall()
    assert not manager.file.exists()
    assert {command[0] for command in tool.commands} == {manager.tool}


def test_a_manager_that_refuses_is_told_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(DeviceError, match="Failed to connect to bus") as refused:
        Systemd(Recorder(Said(1, "Failed to connect to bus"))).install(PLAN)
    assert (refused.value.code, refused.value.exit_code) == ("H030", 8)


def test_a_tool_that_is_missing_is_said_so() -> None:
    with pytest.raises(DeviceError, match="no-such-tool does not manage services"):
        run_tool(["no-such-tool"])


def test_a_dry_run_shows_all_and_a_service_needs_a_membership(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("HOME", "XDG_CONFIG_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "user"))
    home = ("--home", str(tmp_path / "home"))
    assert invoke(["service", "install", "--dry-run", *home]) == 0
    shown = capsys.readouterr().out
    assert str(tmp_path / "home") in shown
    assert "and run:" in shown
    assert invoke(["service", "install", *home]) == 4
    assert "FEDIT-J001" in capsys.readouterr().err
    assert invoke(["service", "uninstall", *home]) == 0
    assert "no service is installed" in capsys.readouterr().out
    assert not (tmp_path / "user").exists()
