"""One device at a real terminal: paused from elsewhere while it trains, then Ctrl-C and `finish`."""

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fedit_client.events import RoundStage
from fedit_client.home.paths import Paths
from fedit_client.manners.control import Activity, Now, read_now
from fedit_protocol.task import Task

from ..tiny_llama import make_tiny_llama
from .people import People
from .programs import ServerProcess, environment, run_json, run_program, write_task

pytestmark = [pytest.mark.slow, pytest.mark.training, pytest.mark.timeout(290)]


@dataclass
class Terminal:
    """A person at a terminal that one program owns."""

    person: int
    process: "subprocess.Popen[bytes]"
    said: bytearray = field(default_factory=bytearray)

    def read(self) -> None:
        try:
            while piece := os.read(self.person, 65536):
                self.said.extend(piece)
        except OSError:  # how a terminal on Linux says that nobody writes any more
            pass

    def type(self, text: str) -> None:
        os.write(self.person, text.encode())


@contextmanager
def at_a_terminal(*words: str) -> Iterator[Terminal]:
    person, terminal = pty.openpty()
    command = [sys.executable, "-m", "fedit_client", *words]
    env = environment() | {"TERM": "xterm-256color"}
    env.pop("CI", None)
    with subprocess.Popen(command, env=env, stdin=terminal, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        found = Terminal(person, process)
        reading = threading.Thread(target=found.read, daemon=True)
        reading.start()
        try:
            yield found
        finally:
            process.kill()
            process.wait()
            reading.join(10)
            os.close(person)


def until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def long_task(base: Path) -> Task:
    return Task.model_validate(
        {
            "id": "tiny",
            "title": "Tiny",
            "base": {"model": str(base)},
            "adapter": {"rank": 4},
            "training": {"local_steps": 300, "learning_rate": 0.001},
            "round": {"rounds": 9, "deadlines": {"upload_s": 250.0}},
        }
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminals")
def test_paused_from_elsewhere_and_finished_by_ctrl_c(tmp_path: Path) -> None:
    with ServerProcess(
        tmp_path / "server", write_task(long_task(make_tiny_llama(tmp_path / "base")), tmp_path)
    ) as server:
        people = People(tmp_path, str(server.ready["invite"]))
        home, paths = ("--home", people.home("ada")), Paths.under(Path(people.home("ada")))
        given = ("--data", people.rows("ada"), "--accept", "tiny@1", "--device", "cpu", "--threads", "1", "--no-run")
        joined = run_program("fedit_client", "join", "--server", people.invite, *given, *home)
        assert joined.returncode == 0, joined.stderr

        def now(is_so: Callable[[Now], bool]) -> bool:
            seen = read_now(paths)
            return seen is not None and is_so(seen)

        try:
            for name in ("ben", "cyd"):
                people.join(name)
            with at_a_terminal("run", *home) as terminal:
                until(lambda: now(lambda seen: seen.stage is RoundStage.TRAIN and bool(seen.progress)))
                run_program("fedit_client", "pause", *home)
                until(lambda: now(lambda seen: seen.activity is Activity.PAUSED))
                time.sleep(1.5)  # the step that was under way ends, and is written down
                held = read_now(paths)
                told = run_json("fedit_client", "status", *home)["data"]["doing"]
                after = read_now(paths)
                assert held is not None
                assert after is not None
                assert (held.progress, held.round_no) == (after.progress, after.round_no)
                assert "you paused it" in told[0]
                assert "waits at train" in told[1]
                run_program("fedit_client", "resume", *home)
                until(lambda: now(lambda seen: seen.activity is Activity.ROUND))

                terminal.process.send_signal(signal.SIGINT)
                until(lambda: b"[f]inish this round" in terminal.said)
                terminal.type("f\n")
                until(lambda: now(lambda seen: seen.finishing))
                assert terminal.process.wait(200) == 0, terminal.said.decode(errors="replace")
            assert b"is committed" in terminal.said
            assert b"stops after round" in terminal.said
        finally:
            people.stop()
    assert read_now(paths) is None
