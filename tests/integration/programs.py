"""The two programs as processes of their own, the way people run them."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomlkit

from fedit_protocol.task import Task


def environment() -> dict[str, str]:
    """A clean environment: nothing of the developer's settings, no hub, one thread."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FEDIT_") or name == "FEDIT_WHEEL"}
    return {**kept, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200"}


def run_program(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `fedit_client` or `fedit_server` to its end, with no terminal and nothing to read."""
    command = [sys.executable, "-m", program, *words]
    return subprocess.run(
        command, env=environment(), input="", capture_output=True, text=True, timeout=120, check=False
    )


def run_json(program: str, *words: str) -> dict[str, Any]:
    """Run a command with --json and return its envelope."""
    done = run_program(program, *words, "--json")
    envelope: dict[str, Any] = json.loads(done.stdout)
    return envelope


def write_task(task: Task, folder: Path) -> Path:
    """Write a task as the TOML file that an operator would give."""
    path = folder / "task.toml"
    path.write_text(tomlkit.dumps(task.model_dump(mode="json", exclude_none=True)), encoding="utf-8")
    return path


@dataclass
class ServerProcess:
    """`fedit-server up` on a folder of its own; can be killed and started again on the same port."""

    home: Path
    task: Path
    port: int = 0
    words: tuple[str, ...] = ()
    """Further options of `up`."""
    ready: dict[str, Any] = field(default_factory=dict)
    _process: "subprocess.Popen[str] | None" = None

    def start(self) -> "ServerProcess":
        """Start and wait until it listens."""
        listen = f"127.0.0.1:{self.port}"
        words = ["up", "--home", str(self.home), "--task", str(self.task), "--listen", listen, "--json", *self.words]
        log = (self.home.parent / "server.log").open("a")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fedit_server", *words],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        log.close()
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, (self.home.parent / "server.log").read_text()
        self.ready = json.loads(line)
        self.port = int(self.ready["port"])
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """Kill it as a power failure would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Ask it to stop; return its exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(number)
        code = self._process.wait(30)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None
        return code

    def __enter__(self) -> "ServerProcess":
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._end(signal.SIGKILL)
