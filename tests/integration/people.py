"""Three people at home, as processes: each with rows of its own, and a task small enough for tests."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from fedit_protocol.task import Task

from .programs import environment

NAMES = ("ada", "ben", "cyd")


@dataclass
class People:
    """Three homes with rows of their own, and the processes of those who take part."""

    folder: Path
    invite: str
    running: dict[str, "subprocess.Popen[str]"] = field(default_factory=dict)

    def home(self, name: str) -> str:
        return str(self.folder / name)

    def rows(self, name: str) -> str:
        path = self.folder / f"{name}.jsonl"
        row = {"instruction": f"say {name}", "context": "", "response": f"{name} it is", "category": "names"}
        path.write_text(f"{json.dumps(row)}\n" * 40, encoding="utf-8")
        return str(path)

    def start(self, name: str, *words: str) -> None:
        """Start the client in the background; what it says goes into a file."""
        command = [sys.executable, "-m", "fedit_client", *words, "--home", self.home(name)]
        with (self.folder / f"{name}.out").open("a") as out:
            self.running[name] = subprocess.Popen(
                command, env=environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, text=True
            )

    def join(self, name: str) -> None:
        words = ["--server", self.invite, "--data", self.rows(name), "--name", name]
        self.start(name, "join", *words, "--accept", "tiny@1", "--device", "cpu", "--threads", "1")

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.out").read_text("utf-8")

    def stop(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()


def tiny_task(base: Path, **policy: object) -> Task:
    return Task.model_validate(
        {
            "id": "tiny",
            "title": "Tiny",
            "base": {"model": str(base)},
            "adapter": {"rank": 4},
            "training": {"local_steps": 4, "learning_rate": 0.01},
            "round": {"rounds": 1, **policy},
        }
    )
