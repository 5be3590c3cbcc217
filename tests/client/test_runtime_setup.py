"""`setup`: what would be installed for which machine, the size first, and nothing outside FedIT's own folder."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedit_client.cli import invoke
from fedit_client.config import load_config
from fedit_client.hardware.device import plan
from fedit_client.hardware.runtime import check_stack, python_in
from fedit_client.hardware.runtime_setup import plan_setup
from fedit_client.installed import installed_version
from fedit_client.records.contacts import INSTALLER, Contacts
from fedit_client.rounds.preparation import check_training_stack, choose_device
from fedit_protocol.errors import DeviceError

from .test_backends import RECORDED, machine
from .test_device import document

RUNTIME = Path("/home/a/runtime")


def named(name: str) -> Any:
    return machine(RECORDED[name])


@pytest.mark.parametrize(
    ("name", "backend", "kind"),
    [
        ("RTX 4060 on Windows with PyPI's torch, a CPU build", "auto", "cuda"),
        ("GTX 1080 under CUDA 13", "auto", "cuda"),
        ("RX 9070 with a CUDA build", "auto", "rocm"),
        ("Arc B580 with a CPU build", "auto", "xpu"),
        ("MacBook with an old torch", "auto", "mps"),
        ("RX 5700 (RDNA1)", "auto", "cpu"),
        ("RTX 4060 on Linux", "cpu", "cpu"),
        ("Windows laptop without a GPU", "auto", "cpu"),
    ],
)
def test_the_backend_that_a_machine_needs(name: str, backend: Any, kind: str) -> None:
    assert plan_setup(named(name), backend, RUNTIME, "/usr/bin/uv").kind == kind


def test_a_backend_that_is_not_there_is_refused() -> None:
    with pytest.raises(DeviceError) as refused:
        plan_setup(named("Windows laptop without a GPU"), "cuda", RUNTIME, "/usr/bin/uv")
    assert (refused.value.code, refused.value.fix) == ("H002", "fedit-client setup --backend cpu")
    with pytest.raises(DeviceError, match="no 4-bit kernels"):
        plan_setup(named("RX 5700 (RDNA1)"), "rocm", RUNTIME, "/usr/bin/uv")


def test_uv_chooses_the_build_and_writes_into_our_folder_alone() -> None:
    found = plan_setup(named("GTX 1080 under CUDA 13"), "auto", RUNTIME, "/usr/bin/uv")
    venv, install = found.commands
    assert venv == ("/usr/bin/uv", "venv", "--clear", "--python", sys.executable, str(RUNTIME))
    assert install[:5] == ("/usr/bin/uv", "pip", "install", "--python", str(python_in(RUNTIME)))
    assert install[5:7] == ("--torch-backend", "auto")
    assert any("[train]" in word for word in install)
    assert "liger-kernel" in install
    assert "about 5.7 GB" in "\n".join(found.lines())


def test_without_uv_the_exact_lines_for_this_machine_are_printed() -> None:
    plain = plan_setup(named("RTX 4060 on Linux"), "auto", RUNTIME, None)
    assert plain.commands == ()
    assert plain.by_hand[0] == f"{sys.executable} -m venv {RUNTIME}"
    assert plain.by_hand[1].startswith(f'{python_in(RUNTIME)} -m pip install "')
    windows = plan_setup(named("RTX 4060 on Windows with PyPI's torch, a CPU build"), "auto", RUNTIME, None)
    assert windows.by_hand[1] == "fedit-client setup --backend cuda"


def test_too_small_a_disk_is_told_before_anything_is_fetched() -> None:
    found = replace(plan_setup(named("RTX 4060 on Linux"), "auto", RUNTIME, "/usr/bin/uv"), disk_free=10**9)
    with pytest.raises(DeviceError) as refused:
        found.check()
    assert (refused.value.code, "needs 6.8 GB" in str(refused.value)) == ("H008", True)


FAKE_UV = """#!{python}
import os, sys
words = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(" ".join(words) + "\\n")
if {fails}:
    sys.exit("no such package")
if words[0] == "venv":
    folder = words[-1]
    os.makedirs(folder + "/bin")
    with open(folder + "/bin/python", "w") as file:
        file.write("#!/bin/sh\\nexec " + {python!r} + ' "$@"\\n')
    os.chmod(folder + "/bin/python", 0o755)
"""


def fake_uv(folder: Path, monkeypatch: pytest.MonkeyPatch, *, fails: bool = False) -> Path:
    """A program called uv that makes an environment of this interpreter, and keeps a log of what it was asked."""
    log, place = folder / "uv.log", folder / "bin"
    place.mkdir()
    (place / "uv").write_text(FAKE_UV.format(python=sys.executable, log=str(log), fails=fails))
    (place / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
    return log


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for uv is a script")
def test_setup_asks_installs_and_notes_the_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log, home = fake_uv(tmp_path, monkeypatch), tmp_path / "home"
    assert invoke(["--home", str(home), "--no-input", "setup", "--backend", "cpu"]) == 2
    assert not log.exists()
    assert Contacts(load_config(home).paths.contacts_file).all() == {}
    status = invoke(["--home", str(home), "--yes", "--json", "setup", "--backend", "cpu"])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (status, told["data"]["installed"]) == (0, True)
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["venv", "pip"]
    config = load_config(home)
    assert list(Contacts(config.paths.contacts_file).all()) == [INSTALLER]
    assert config.device.python == python_in(home / "runtime")
    check_training_stack(config.device)
    machine_ = named("RTX 4060 on Linux")
    chosen = choose_device(document(), machine_, config.device.model_copy(update={"prefer": "cpu"}), None)
    assert chosen.python == str(config.device.python)


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for uv is a script")
def test_a_setup_that_fails_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_uv(tmp_path, monkeypatch, fails=True)
    home = tmp_path / "home"
    assert invoke(["--home", str(home), "--yes", "setup", "--backend", "cpu"]) == 8
    assert "FEDIT-H009" in (said := capsys.readouterr().err)
    assert "no such package" in said
    assert not (home / "runtime").exists()
    assert load_config(home).device.python is None


def test_an_interpreter_without_the_stack_or_of_another_version_is_told(tmp_path: Path) -> None:
    with pytest.raises(DeviceError) as missing:
        check_stack(tmp_path / "python")
    assert missing.value.code == "H007"
    bare = tmp_path / "bare"
    site = bare / "lib"
    site.mkdir(parents=True)
    script = bare / "python"
    script.write_text(f"#!/bin/sh\necho '{json.dumps([str(site)])}'\n")
    script.chmod(0o755)
    with pytest.raises(DeviceError) as empty:
        check_stack(script)
    assert (empty.value.code, empty.value.fix) == ("H005", "fedit-client setup")
    for name in ("torch", "transformers", "peft", "bitsandbytes"):
        add(site, name, "1.0")
    add(site, "fedit", "0.0.1")
    with pytest.raises(DeviceError, match=r"has FedIT 0\.0\.1") as older:
        check_stack(script)
    assert older.value.code == "H007"
    add(site, "fedit", installed_version())


def add(site: Path, name: str, version: str) -> None:
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_a_plan_made_here_trains_with_this_interpreter() -> None:
    assert plan(document(), named("RTX 4060 on Linux")).python == ""
