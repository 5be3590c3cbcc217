"""`fedit-client setup`: a training environment in FedIT's own folder, with the PyTorch that this machine needs.

uv knows where the builds of PyTorch lie and which one fits a driver; without it, the lines for pip are printed.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

from fedit_client.base.fetch import free_disk
from fedit_client.hardware.backends import KIND_OF, obstacle, torch_kinds
from fedit_client.hardware.machine import Machine
from fedit_client.hardware.plan import Kind
from fedit_client.hardware.runtime import check_stack, python_in
from fedit_client.installed import installed_version
from fedit_protocol.errors import DeviceError
from fedit_protocol.task import Quantization

Backend = Literal["auto", "cuda", "rocm", "xpu", "mps", "cpu"]

_INSTALLED_BYTES: Final[dict[Kind, int]] = {
    "cuda": 5_700_000_000,
    "rocm": 16_000_000_000,
    "xpu": 6_000_000_000,
    "mps": 1_500_000_000,
    "cpu": 1_800_000_000,
}
"""What the environment takes up, about; a little more than half of it is fetched."""

_SPARE_DISK: Final = 1.2
_PLAIN: Final = "2.13.0"
"""Any plain version: what PyPI's own wheel of PyTorch can compute on does not depend on it."""

_INSTALL_S: Final = 3600


@dataclass(frozen=True)
class SetupPlan:
    """What would be done, before anything is."""

    kind: Kind
    reason: str
    folder: Path
    size: int
    disk_free: int
    commands: tuple[tuple[str, ...], ...]
    by_hand: tuple[str, ...]
    """The lines for a person, where uv is not there; empty where it is."""

    def lines(self) -> list[str]:
        """The plan in words."""
        free = f"{self.disk_free / 1e9:.1f} GB are free there"
        told = [
            f"backend    {self.kind}: {self.reason}",
            f"folder     {self.folder}, FedIT's own; nothing else is changed",
            f"size       about {self.size / 1e9:.1f} GB, {free}",
        ]
        return [*told, *(f"  {line}" for line in self.by_hand)]

    def check(self) -> None:
        """Raise DeviceError H008 if the disk has too little room."""
        if self.disk_free < self.size * _SPARE_DISK:
            raise DeviceError(
                f"the training environment needs {self.size * _SPARE_DISK / 1e9:.1f} GB of disk, "
                f"{self.disk_free / 1e9:.1f} GB are free",
                code="H008",
                where=str(self.folder),
                fix="free some disk space, or put everything elsewhere: fedit-client --home DIR setup",
            )


def plan_setup(machine: Machine, backend: Backend, folder: Path, uv: str | None) -> SetupPlan:
    """Return what setting up would do here; `uv` is where uv lies, None without one.

    Raises DeviceError H002 if the machine has no such GPU, or none that could train with any build.
    """
    kind, reason = _chosen(machine, backend)
    python, wanted = python_in(folder), _requirement()
    extra = ("liger-kernel",) if kind == "cuda" and machine.system == "Linux" else ()
    # uv reads the driver for NVIDIA, AMD and Intel; Apple's build is the plain one.
    torch_backend = "auto" if kind in {"cuda", "rocm", "xpu", "mps"} else "cpu"
    commands: tuple[tuple[str, ...], ...] = ()
    if uv is not None:
        install = (uv, "pip", "install", "--python", str(python), "--torch-backend", torch_backend, wanted, *extra)
        commands = ((uv, "venv", "--clear", "--python", sys.executable, str(folder)), install)
    by_hand = () if uv else _by_hand(machine, kind, folder, wanted)
    return SetupPlan(kind, reason, folder, _INSTALLED_BYTES[kind], free_disk(folder), commands, by_hand)


def find_uv() -> str | None:
    """Return where uv lies on this machine, or None."""
    return shutil.which("uv")


def carry_out(plan: SetupPlan, say: Callable[[str], None]) -> Path:
    """Make the environment and return its interpreter; a failed attempt leaves none behind. Raises DeviceError H009."""
    for command in plan.commands:
        say(" ".join(command))
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=_INSTALL_S)
        except (OSError, subprocess.SubprocessError) as error:
            shutil.rmtree(plan.folder, ignore_errors=True)
            said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
            raise DeviceError(
                f"setting up the training environment failed: {said[-1] if said else 'it said nothing'}",
                code="H009",
                where=" ".join(command),
                fix="check the network, then run it again: fedit-client setup",
            ) from error
    python = python_in(plan.folder)
    check_stack(python)
    return python


def _chosen(machine: Machine, backend: Backend) -> tuple[Kind, str]:
    if backend == "cpu":
        return "cpu", "as you asked"
    for gpu in machine.gpus:
        kind = KIND_OF[gpu.vendor]
        if backend not in {"auto", kind}:
            continue
        found = obstacle(gpu, machine, Quantization.NF4)
        if found is None or found.fix is not None:  # what a build of PyTorch can mend
            return kind, gpu.name
        if backend != "auto":
            raise DeviceError(found.reason, code="H002", fix="fedit-client setup --backend cpu")
    if backend != "auto":
        raise DeviceError(f"no GPU for {backend} is seen in this machine", code="H002",
                          fix="fedit-client setup --backend cpu")  # fmt: skip
    return "cpu", "no GPU that can train is seen"


def _by_hand(machine: Machine, kind: Kind, folder: Path, wanted: str) -> tuple[str, ...]:
    """The lines for pip where PyPI's own wheel is the right one, else those that bring uv, which finds the others."""
    plain = Machine(1, 1, 0, 0, torch=_PLAIN, system=machine.system, architecture=machine.architecture)
    if kind in torch_kinds(plain):
        return (f"{_shell(sys.executable)} -m venv {_shell(folder)}",
                f'{_shell(python_in(folder))} -m pip install "{wanted}"')  # fmt: skip
    return (f"{_shell(sys.executable)} -m pip install uv", f"fedit-client setup --backend {kind}")


def _shell(path: object) -> str:
    return f'"{path}"' if " " in str(path) else str(path)


def _requirement() -> str:
    """What to install: this very version, or the folder that this copy was installed from."""
    try:
        about = json.loads(distribution("fedit").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        about = {}
    url = urlsplit(about.get("url", ""))
    if url.scheme == "file":
        return f"{unquote(url.path)}[train]"
    return f"fedit[train]=={installed_version()}"
