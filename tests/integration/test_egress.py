"""Whom a real client process, and every process that it starts, opens a socket to: the server, the hub, nobody else.

A recorder is loaded into each Python process by `sitecustomize` and writes down every address that is connected to and
every name that is looked up, before the operating system is asked.
"""

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fedit_protocol.task import Task

from ..server.bases import make_base
from ..tiny_llama import make_tiny_llama
from .programs import ServerProcess, environment, run_json, write_task

RECORDER = """
import json, os, sys

def note(event, args):
    if event == "socket.connect":
        said = args[1]
    elif event == "socket.getaddrinfo":
        said = [args[0], args[1]]
    else:
        return
    if isinstance(said, (str, bytes)):
        return  # a socket of this machine, without an address on the network
    with open(os.environ["EGRESS_RECORD"], "a") as record:
        record.write(json.dumps([str(said[0]), said[1]]) + "\\n")

sys.addaudithook(note)
"""
TRUSTING = {"FEDIT_LIMITS__MODES": '["masked", "trusted"]'}
"""One device makes a round of its own then, so that one process is all that there is to watch."""


PROGRAM = """
import json, os, sys
from fedit_client.cli import invoke

for number, words in enumerate(json.loads(sys.argv[1])):
    print("====", flush=True)
    status = invoke(words)
    with open(os.environ["EGRESS_RECORD"], "a") as record:
        record.write(json.dumps(["", status]) + "\\n")
"""
"""Command after command in one process, as an app that embeds the client may do; a line between their addresses."""

Addresses = set[tuple[str, int]]


@dataclass(frozen=True)
class Ended:
    """How one command ended, what it said, and whom it talked to."""

    status: int
    out: str
    hosts: Addresses


@dataclass
class Watched:
    """Runs the client's commands in one home and keeps the addresses that they went to."""

    home: Path
    record: Path
    variables: dict[str, str] = field(default_factory=dict)

    def run(self, *commands: list[str]) -> list[Ended]:
        """Run commands; an address counts with the name that was looked up for it."""
        self.record.write_text("")
        folder = self.record.parent / "recorder"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(RECORDER)
        paths = [str(folder), *(entry for entry in sys.path if entry)]
        watched = {"PYTHONPATH": os.pathsep.join(paths), "EGRESS_RECORD": str(self.record)}
        lines = json.dumps([[*words, "--home", str(self.home)] for words in commands])
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, lines], env=environment() | TRUSTING | watched | self.variables, input="",
            capture_output=True, text=True, timeout=200,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said, hosts = done.stdout.split("====\n")[1:], set()
        ended: list[Ended] = []
        for host, port in map(json.loads, self.record.read_text().splitlines()):
            if host:
                hosts.add((host, int(port or 0)))
            else:
                ended.append(Ended(port, said[len(ended)], hosts))
                hosts = set()
        assert len(ended) == len(commands)
        return ended


def lone_task(base: Path, **changes: object) -> Task:
    return Task.model_validate(
        {
            "id": "alone",
            "title": "A round of one",
            "base": {"model": str(base)},
            "adapter": {"rank": 4},
            "training": {"local_steps": 2, "learning_rate": 0.01},
            "round": {"rounds": 1, "mode": "trusted", "cohort_min": 1, "cohort_size": 1},
            **changes,
        }
    )


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    rows = "".join(json.dumps({"prompt": f"say {n}", "completion": "word"}) + "\n" for n in range(20))
    (tmp_path / "rows.jsonl").write_text(rows)
    return Watched(tmp_path / "home", tmp_path / "record")


def join_words(server: ServerProcess, folder: Path, *more: str) -> list[str]:
    data = ("--data", str(folder / "rows.jsonl"), "--device", "cpu")
    return ["join", "--server", str(server.ready["invite"]), *data, "--yes", *more]


QUIET = ["status", "consent show", "outbox list", "history", "privacy", "policy show", "paths"]


def test_commands_without_training_talk_to_the_server_and_to_nobody_else(tmp_path: Path, watched: Watched) -> None:
    task = write_task(lone_task(make_base(tmp_path / "base")), tmp_path)
    with ServerProcess(tmp_path / "server", task, words=("--allow-trusted",)) as server:
        quiet = [words.split() for words in QUIET]
        joined, *looked, asked, told, left = watched.run(
            join_words(server, tmp_path, "--no-run"),
            *quiet,
            ["consent", "diff"],
            ["explain", "network", "--json"],
            ["leave", "--erase", "--yes"],
        )
        only = {("127.0.0.1", server.port)}
    assert [(one.status, one.hosts) for one in (joined, asked, left)] == [(0, only)] * 3
    assert [(one.status, one.hosts) for one in (*looked, told)] == [(0, set())] * (len(QUIET) + 1)
    shown = {host["host"]: host["last_at"] for host in json.loads(told.out)["data"]["hosts"]}
    never = {"huggingface.co", "the package sources of your uv"}
    assert shown.keys() == never | {f"127.0.0.1:{server.port}"}
    assert {name for name, last in shown.items() if last is None} == never


@pytest.mark.slow
def test_a_base_that_is_elsewhere_is_asked_for_at_the_hub_and_nowhere_else(tmp_path: Path, watched: Watched) -> None:
    base = make_base(tmp_path / "base")
    task = lone_task(base)
    elsewhere = task.model_copy(update={"base": task.base.model_copy(update={"model": "org/name"})})
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        words = ("--allow-trusted", "--base", str(base))
        hub = {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(tmp_path / "hub")}
        with ServerProcess(tmp_path / "server", write_task(elsewhere, tmp_path), words=words) as server:
            only = {("127.0.0.1", server.port)}
            join = join_words(server, tmp_path, "--no-run")
            watched.variables = {**hub, "HF_HUB_OFFLINE": "1"}
            (offline,) = watched.run(join)
            assert (offline.status, offline.hosts) == (5, only)
            watched.variables["HF_HUB_OFFLINE"] = "0"
            online, told = watched.run(join, ["explain", "network", "--json"])
    assert (online.status, online.hosts) == (5, {*only, ("127.0.0.1", port)})
    found = next(one for one in json.loads(told.out)["data"]["hosts"] if one["purpose"] == "model hub")
    assert (found["host"], found["last_at"] is not None) == (f"127.0.0.1:{port}", True)


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.timeout(600)
def test_a_whole_round_talks_to_the_server_and_a_dry_run_to_nobody(tmp_path: Path, watched: Watched) -> None:
    task = write_task(lone_task(make_tiny_llama(tmp_path / "base")), tmp_path)
    with ServerProcess(tmp_path / "server", task, words=("--allow-trusted",)) as server:
        only, home = {("127.0.0.1", server.port)}, ("--home", str(server.home))
        (tried,) = watched.run(join_words(server, tmp_path, "--dry-run"))
        assert (tried.status, tried.hosts) == (0, only)
        assert "nothing was sent" in tried.out
        assert run_json("fedit_server", "clients", "list", *home)["data"]["clients"] == []
        joined, tried = watched.run(join_words(server, tmp_path, "--no-run"), ["run", "--dry-run"])
        assert (joined.status, tried.status, tried.hosts) == (0, 0, set())
        assert run_json("fedit_server", "round", "list", *home)["data"]["rounds"] == []
        done, verified = watched.run(["run", "--max-rounds", "1"], ["history", "--verify"])
        assert (done.status, done.hosts) == (0, only)
        assert (verified.status, verified.hosts) == (0, set())
        assert len(run_json("fedit_server", "round", "list", *home)["data"]["rounds"]) == 1
