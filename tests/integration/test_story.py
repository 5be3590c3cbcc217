"""The README's five minutes, run as commands: an organisation hosts, three people join, train, look, talk and leave."""

import signal
import time
from pathlib import Path

import pytest

from ..tiny_llama import make_tiny_llama
from .page import visit
from .people import NAMES, People, tiny_task
from .programs import ServerProcess, run_json, run_program, write_task

pytestmark = [pytest.mark.training, pytest.mark.xdist_group("training federations"), pytest.mark.timeout(280)]


def test_the_readme_story(tmp_path: Path) -> None:
    task = write_task(tiny_task(make_tiny_llama(tmp_path / "base")), tmp_path)
    assert run_program("fedit_server", "task", "check", str(task)).returncode == 0
    with ServerProcess(tmp_path / "server", task) as server:
        people = People(tmp_path, str(server.ready["invite"]))
        try:
            checked = run_program("fedit_client", "data", "check", people.rows("ada"))
            assert (checked.returncode, "40" in checked.stdout) == (0, True), checked.stderr
            for name in NAMES:
                people.join(name)
            ended = {name: process.wait(200) for name, process in people.running.items()}
            assert ended == dict.fromkeys(NAMES, 0), people.said("ada")
        finally:
            people.stop()
        home = ("--home", str(server.home))
        status = run_json("fedit_server", "status", *home)["data"]
        assert status["tasks"][0]["state"] == "finished"
        assert status["tasks"][0]["last_report"]["survivors"] == 3
        assert len(run_json("fedit_server", "round", "list", *home)["data"]["rounds"]) == 1
        assert len(run_json("fedit_server", "adapter", "list", *home)["data"]["adapters"]) == 2
        invited = run_program("fedit_server", "invite", "create", "--uses", "40", "--expires", "7d", *home)
        assert "fedit-client join --server" in invited.stdout
        ada = ("--home", people.home("ada"))
        assert run_json("fedit_client", "status", *ada)["ok"]
        talked = run_json("fedit_client", "chat", "--prompt", "say ada", *ada)["data"]["answers"]
        told = next(iter(talked.values()))
        assert told.strip()
        shown, answer, status_of_page = visit(people.home("ada"), "say ada")
        assert (answer, status_of_page) == (told, 130), "the page's chat is the same model"
        assert [entry["outcome"] for entry in shown["rounds"]] == ["committed"]
        assert (len(shown["adapters"]), len(shown["outbox"]), shown["problems"]) == (2, 1, [])
        left = run_program("fedit_client", "leave", *ada)
        assert left.returncode == 0, left.stderr
        assert run_program("fedit_client", "status", *ada).returncode == 0
        assert run_program("fedit_client", "run", *ada).returncode == 4
        assert server.stop() == 0


@pytest.mark.slow
def test_a_killed_client_is_a_dropout_and_takes_part_again(tmp_path: Path) -> None:
    """SIGKILL while its worker trains: the other two finish, its home opens again, the next round has three."""
    policy = {"rounds": 2, "min_survivors": 2, "deadlines": {"upload_s": 25.0, "gather_s": 60.0}}
    task = write_task(tiny_task(make_tiny_llama(tmp_path / "base"), **policy), tmp_path)
    with ServerProcess(tmp_path / "server", task) as server:
        people = People(tmp_path, str(server.ready["invite"]))
        try:
            for name in NAMES:
                people.join(name)
            while "loading the base model" not in people.said("ben"):
                time.sleep(0.1)
            people.running["ben"].send_signal(signal.SIGKILL)
            people.running["ben"].wait()
            people.start("ben", "run")
            ended = {name: process.wait(240) for name, process in people.running.items()}
            assert ended == dict.fromkeys(NAMES, 0), people.said("ben")
        finally:
            people.stop()
        rounds = run_json("fedit_server", "round", "list", "--home", str(server.home))["data"]["rounds"]
    assert [(row["state"], row["report"]["survivors"]) for row in rounds] == [("committed", 2), ("committed", 3)]
