"""The three systems of services: where each keeps its file, and the commands that install, remove and ask."""

import getpass
import os
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedit_client.home.durable import translating, write_atomic
from fedit_client.service import launchd, systemd, task_scheduler
from fedit_client.service.plan import ServicePlan
from fedit_protocol.errors import DeviceError

_TOOL_S: Final = 30.0
_WORLD_READABLE: Final = 0o644


@dataclass(frozen=True)
class Said:
    """What a system's tool answered."""

    status: int
    text: str


Run = Callable[[Sequence[str]], Said]


def run_tool(command: Sequence[str]) -> Said:
    """Run a tool of the system; raises DeviceError H030 if it is missing or hangs."""
    try:
        done = subprocess.run(
            list(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TOOL_S, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise _no_service(command[0], type(error).__name__) from error
    return Said(done.returncode, (done.stdout + done.stderr).strip())


class ServiceSystem(ABC):
    """One way to start a program when its owner logs in."""

    name: str
    tool: str

    def __init__(self, run: Run = run_tool) -> None:
        """`run` carries out a command."""
        self._run = run

    @property
    @abstractmethod
    def file(self) -> Path:
        """Where the service's description lies."""

    @abstractmethod
    def content(self, plan: ServicePlan) -> bytes:
        """Return the description."""

    @abstractmethod
    def words_of(self, content: bytes) -> list[str]:
        """Return the command line of a description; raises ValueError if it is none."""

    @abstractmethod
    def begin(self) -> tuple[tuple[str, ...], ...]:
        """The commands that make a written description a running service."""

    @abstractmethod
    def end(self) -> tuple[tuple[str, ...], ...]:
        """The commands that stop it and forget it."""

    @abstractmethod
    def question(self) -> tuple[str, ...]:
        """The command that says whether it runs."""

    def hint(self) -> str:
        """What its owner should know, in one line."""
        return "it runs while you are logged in"

    def after(self) -> tuple[tuple[str, ...], ...]:
        """The commands once the description is removed."""
        return ()

    def install(self, plan: ServicePlan) -> None:
        """Write the description and start the service; raises DeviceError H030, StorageError."""
        if self._run is run_tool and shutil.which(self.tool) is None:
            raise _no_service(self.tool, "it is not installed")
        write_atomic(self.file, self.content(plan), _WORLD_READABLE)
        for command in self.begin():
            said = self._run(command)
            if said.status:
                raise _no_service(self.tool, said.text)

    def uninstall(self) -> bool:
        """Stop the service and remove its description; False if there was none. Raises DeviceError, StorageError."""
        if not self.file.exists():
            return False
        for command in self.end():
            self._run(command)  # not running any more is what is wanted
        with translating(self.file):
            self.file.unlink(missing_ok=True)
        for command in self.after():
            self._run(command)
        return True

    def state(self) -> str:
        """What the manager says about it, one line."""
        if not self.file.exists():
            return "not installed"
        said = self._run(self.question())
        return said.text.splitlines()[0] if said.text else f"status {said.status}"


class Systemd(ServiceSystem):
    """Linux: the user's own systemd."""

    name, tool = "systemd", "systemctl"

    @property
    def file(self) -> Path:
        base = os.environ.get("XDG_CONFIG_HOME")
        folder = Path(base) if base else Path.home() / ".config"
        return folder / "systemd" / "user" / systemd.UNIT

    def content(self, plan: ServicePlan) -> bytes:
        return systemd.unit(plan).encode()

    def words_of(self, content: bytes) -> list[str]:
        return systemd.words_of(content.decode())

    def begin(self) -> tuple[tuple[str, ...], ...]:
        return (*self.after(), ("systemctl", "--user", "enable", "--now", systemd.UNIT))

    def end(self) -> tuple[tuple[str, ...], ...]:
        return (("systemctl", "--user", "disable", "--now", systemd.UNIT),)

    def after(self) -> tuple[tuple[str, ...], ...]:
        return (("systemctl", "--user", "daemon-reload"),)

    def question(self) -> tuple[str, ...]:
        return ("systemctl", "--user", "is-active", systemd.UNIT)

    def hint(self) -> str:
        return "it runs while you are logged in; `loginctl enable-linger` keeps it running after that"


class Launchd(ServiceSystem):
    """macOS: a job of the logged-in user."""

    name, tool = "launchd", "launchctl"

    @property
    def file(self) -> Path:
        return Path.home() / "Library" / "LaunchAgents" / f"{launchd.LABEL}.plist"

    def content(self, plan: ServicePlan) -> bytes:
        return launchd.plist(plan)

    def words_of(self, content: bytes) -> list[str]:
        return launchd.words_of(content)

    def begin(self) -> tuple[tuple[str, ...], ...]:
        return (("launchctl", "bootstrap", _domain(), str(self.file)),)

    def end(self) -> tuple[tuple[str, ...], ...]:
        return (("launchctl", "bootout", f"{_domain()}/{launchd.LABEL}"),)

    def question(self) -> tuple[str, ...]:
        return ("launchctl", "list", launchd.LABEL)


class TaskScheduler(ServiceSystem):
    """Windows: a task at log-on."""

    name, tool = "Task Scheduler", "schtasks"

    @property
    def file(self) -> Path:
        base = os.environ.get("LOCALAPPDATA")
        return (Path(base) if base else Path.home()) / "fedit-client" / "service.xml"

    def content(self, plan: ServicePlan) -> bytes:
        domain = os.environ.get("USERDOMAIN")
        user = getpass.getuser()
        return task_scheduler.task_xml(plan, f"{domain}\\{user}" if domain else user)

    def words_of(self, content: bytes) -> list[str]:
        return task_scheduler.words_of(content)

    def begin(self) -> tuple[tuple[str, ...], ...]:
        create = ("schtasks", "/Create", "/F", "/TN", task_scheduler.TASK, "/XML", str(self.file))
        return create, ("schtasks", "/Run", "/TN", task_scheduler.TASK)

    def end(self) -> tuple[tuple[str, ...], ...]:
        stop = ("schtasks", "/End", "/TN", task_scheduler.TASK)
        return stop, ("schtasks", "/Delete", "/F", "/TN", task_scheduler.TASK)

    def question(self) -> tuple[str, ...]:
        return ("schtasks", "/Query", "/TN", task_scheduler.TASK, "/FO", "CSV", "/NH")


def system_here(run: Run = run_tool) -> ServiceSystem:
    """Return the manager of this system; only `install` asks whether its program is here."""
    kinds: dict[str, type[ServiceSystem]] = {"win32": TaskScheduler, "darwin": Launchd}
    return kinds.get(sys.platform, Systemd)(run)


def _domain() -> str:
    return f"gui/{os.getuid()}" if hasattr(os, "getuid") else "gui"


def _no_service(tool: str, reason: str) -> DeviceError:
    return DeviceError(f"{tool} does not manage services for this user: {reason or 'it gave no reason'}", code="H030",
                       fix="fedit-client service install --dry-run, and start what it prints by hand")  # fmt: skip
