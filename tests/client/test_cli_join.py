"""`join` against a real HTTPS server: what is shown, what is asked, what is sent, and in which order."""

import asyncio
import json
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save

from fedit_client.base.digest import digest_files
from fedit_client.base.model import digest_folder
from fedit_client.cli import invoke
from fedit_protocol.base_files import base_manifest
from fedit_protocol.encoding import digest_of, encode
from fedit_protocol.errors import ProblemType, SecurityError

from .conftest import HttpsFederation

ROWS = '{"prompt":"say one","completion":"one"}\n' * 30


@dataclass
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str


def attended() -> None:
    """Signals as a terminal's foreground has them: this test run may be a background job, which ignores some."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Joining:
    """A home, rows, and a base model small enough to hash at once; `run` starts the command beside the server."""

    def __init__(self, https: HttpsFederation, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.https, self.home, self.capsys = https, folder / "home", capsys
        self.rows, base = folder / "rows.jsonl", folder / "base"
        self.rows.write_text(ROWS)
        base.mkdir()
        (base / "config.json").write_text("{}")
        (base / "model.safetensors").write_bytes(save({"w": np.zeros(4, np.float32)}))
        spec = https.document.task.base.model_copy(update={"model": str(base), "digest": digest_folder(base)})
        task = https.document.task.model_copy(update={"base": spec})
        https.loopback.document = https.document.model_copy(update={"task": task})
        self.base = base

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        path = {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fedit_client", *arguments, env=os.environ | path, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, preexec_fn=attended,
        )  # fmt: skip

    async def run(self, *arguments: str) -> Done:
        """Join in a thread of this process: the server needs the event loop."""
        line = ["join", "--data", str(self.rows), "--device", "cpu", *arguments]
        status = await asyncio.to_thread(invoke, line)
        return Done(status, *self.capsys.readouterr())


@pytest.fixture
def joining(
    https: HttpsFederation, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Joining:
    joining = Joining(https, tmp_path, capsys)
    monkeypatch.setenv("FEDIT_SERVER", https.invite)
    monkeypatch.setenv("FEDIT_HOME", str(joining.home))
    return joining


async def test_without_a_terminal_consent_has_to_be_given_by_name(joining: Joining) -> None:
    done = await joining.run("--no-run")
    assert done.status == 7
    assert "FEDIT-A001" in done.err
    assert "--accept test-task@1" in done.err
    assert "hidden among at least 3 devices, yours counted" in done.out
    assert joining.https.asked == ["GET /v1/federation", "GET /v1/tasks"]
    assert not (joining.home / "identity.key").exists()


async def test_a_yes_to_another_version_is_not_a_yes(joining: Joining) -> None:
    done = await joining.run("--no-run", "--accept", "test-task@2")
    assert (done.status, "FEDIT-A003" in done.err) == (7, True)
    assert "POST /v1/enroll" not in joining.https.asked


async def test_what_is_soon_known_is_said_before_rows_are_read(joining: Joining) -> None:
    for words, code in ((["--accept", "test-task@2"], "A003"), ([], "A001")):
        done = await joining.run("--no-run", "--data", "nowhere.jsonl", *words)
        assert f"FEDIT-{code}" in done.err


async def test_a_base_that_has_to_be_fetched_is_not_fetched_for_an_invite_that_nobody_made(joining: Joining) -> None:
    joining.https.refuse["/v1/enroll"] = SecurityError(ProblemType.INVITE_REFUSED, "no")
    done = await joining.run("--yes", "--no-run", "--model", "org/not-here")
    assert (done.status, "FEDIT-T006" in done.err) == (6, True), done.err


async def test_an_accepted_task_is_joined_and_remembered(joining: Joining) -> None:
    done = await joining.run("--no-run", "--accept", "test-task@1", "--name", "a laptop", "--json")
    assert done.status == 0, done.err
    assert json.loads(done.out)["data"]["task"] == "test-task@1"
    assert joining.https.asked == ["GET /v1/federation", "GET /v1/tasks", "POST /v1/enroll"]
    kept = json.loads((joining.home / "membership.json").read_text())
    assert (kept["consent"], kept["label"]) == ("test-task@1", "a laptop")
    assert str(joining.rows) in (joining.home / "sources.json").read_text()
    assert invoke(["status"]) == 0
    assert "A task for tests (test-task@1), masked" in joining.capsys.readouterr().out


async def test_a_policy_that_the_joined_task_does_not_keep_to_is_said_and_stops_its_rounds(joining: Joining) -> None:
    assert (await joining.run("--no-run", "--accept", "test-task@1")).status == 0
    assert invoke(["policy", "show", "--json"]) == 0
    shown = json.loads(joining.capsys.readouterr().out.splitlines()[-1])
    assert shown["data"]["joined"] == {"task": "test-task@1", "fits": True}
    assert invoke(["policy", "set", "min_cohort", "128"]) == 0
    assert "test-task@1 is refused from now on" in joining.capsys.readouterr().err
    assert invoke(["policy", "show", "--json"]) == 0
    joined = json.loads(joining.capsys.readouterr().out)["data"]["joined"]
    least = joining.https.document.task.round.cohort_min
    assert joined["fits"] is False
    assert joined["fix"].startswith(f"fedit-client policy set min_cohort {least}")
    assert await asyncio.to_thread(invoke, ["run"]) == 11
    assert f"policy set min_cohort {least}" in joining.capsys.readouterr().err
    assert invoke(["status"]) == 0
    said = joining.capsys.readouterr().out
    assert "min_cohort 128" in said
    assert "refused     the task does not keep to the policy" in said
    assert f"\n  fix: fedit-client policy set min_cohort {least}" in said
    assert invoke(["status", "--json"]) == 0
    assert json.loads(joining.capsys.readouterr().out)["data"]["fix"] == joined["fix"]
    assert invoke(["policy", "reset", "min_cohort"]) == 0
    joining.capsys.readouterr()
    assert invoke(["status"]) == 0
    assert "refused" not in joining.capsys.readouterr().out


@pytest.mark.parametrize("apart", [False, True])
async def test_join_and_status_say_who_admits_devices(apart: bool, joining: Joining) -> None:
    """And the level that is claimed stays the same."""
    https = joining.https
    https.federation.descriptor = https.federation.descriptor.model_copy(update={"authority_is_server": not apart})
    https.descriptor = encode(https.federation.descriptor)
    done = await joining.run("--no-run", "--accept", "test-task@1", "--server", https.invite)
    assert done.status == 0, done.err
    who = "an authority apart from the server (key " if apart else "the server itself"
    assert f"devices are admitted by {who}" in done.out
    assert "Level T1" in done.out
    assert "T2" not in done.out
    assert invoke(["status"]) == 0
    assert f"admission   by {who}" in joining.capsys.readouterr().out


async def test_a_base_with_another_digest_is_refused_before_consent(joining: Joining) -> None:
    (joining.base / "model.safetensors").write_bytes(save({"w": np.ones(4, np.float32)}))
    done = await joining.run("--accept", "test-task@1")
    assert (done.status, "FEDIT-M002" in done.err) == (5, True)
    assert "POST /v1/enroll" not in joining.https.asked
    assert f"expected {joining.https.document.task.base.digest}, got sha256:" in done.err


async def test_the_manifest_says_which_files_of_a_base_are_others(joining: Joining) -> None:
    manifest = base_manifest(digest_files(joining.base))
    joining.https.loopback.blobs[digest_of(manifest)] = manifest
    (joining.base / "model.safetensors").write_bytes(save({"w": np.ones(4, np.float32)}))
    (joining.base / "chat_template.jinja").write_text("{{ messages }}")
    for _ in range(2):
        done = await joining.run("--accept", "test-task@1")
        assert (done.status, "FEDIT-M002" in done.err) == (5, True)
        said = "chat_template.jinja is not one of its files; model.safetensors has another content"
        assert said in " ".join(done.err.split())
    place = f"GET /v1/blobs/{digest_of(manifest)}"
    assert joining.https.asked.count(place) == 1, "the second time it is here"
    assert "POST /v1/enroll" not in joining.https.asked


async def test_an_absent_base_is_named(joining: Joining) -> None:
    done = await joining.run("--accept", "test-task@1", "--model", str(joining.base / "nowhere"))
    assert (done.status, "FEDIT-M001" in done.err) == (5, True)


async def test_a_wrong_pin_ends_before_the_code_is_used(joining: Joining) -> None:
    wrong = joining.https.invite[:-6] + ("000000" if not joining.https.invite.endswith("000000") else "111111")
    done = await joining.run("--server", wrong, "--yes")
    assert (done.status, "FEDIT-T001" in done.err) == (6, True)
    assert joining.https.asked == ["GET /v1/federation", "GET /v1/federation/successions"]  # reads, nothing sent


@pytest.mark.parametrize(
    ("problem", "code"),
    [(ProblemType.INVITE_EXPIRED, "T004"), (ProblemType.INVITE_USED, "T005"), (ProblemType.CLOCK_SKEW, "T007")],
)
async def test_a_refused_invite_ends_with_words(joining: Joining, problem: ProblemType, code: str) -> None:
    joining.https.refuse["/v1/enroll"] = SecurityError(problem, "no")
    done = await joining.run("--yes", "--no-run")
    assert (done.status, f"FEDIT-{code}" in done.err) == (6, True)
    assert not (joining.home / "membership.json").exists()


async def test_a_task_outside_the_limits_is_refused(joining: Joining) -> None:
    joining.home.mkdir()
    (joining.home / "client.toml").write_text("[limits]\nhidden_among = 10\n")
    done = await joining.run("--yes")
    assert (done.status, "FEDIT-K001" in done.err) == (11, True)
    assert "setting limits.hidden_among" in done.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_ctrl_c_leaves_cleanly(joining: Joining, number: signal.Signals) -> None:
    process = await joining.start("join", "--data", str(joining.rows), "--device", "cpu", "--yes")
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while b"waiting for devices" not in await process.stdout.readline():
            pass
        process.send_signal(number)
        rest, err = await process.communicate()
    assert process.returncode == 130, err
    assert b"left the round" in rest
    assert b"Traceback" not in err


async def test_joining_says_what_it_takes_and_fit_and_prefetch_say_it_again(joining: Joining) -> None:
    done = await joining.run("--no-run", "--accept", joining.https.document.task.label)
    assert done.status == 0, done.err
    assert "fits: about" in done.out
    assert f"base model is here already: {joining.base}" in done.out
    assert await asyncio.to_thread(invoke, ["fit", "--json"]) == 0
    assert json.loads(joining.capsys.readouterr().out)["data"]["device"] == "cpu"
    assert await asyncio.to_thread(invoke, ["prefetch"]) == 0
    assert "was here already" in joining.capsys.readouterr().out


async def test_nothing_is_fetched_onto_a_disk_that_is_too_small(
    joining: Joining,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loopback, usage = joining.https.loopback, SimpleNamespace(free=5 * 10**9)
    spec = loopback.document.task.base.model_copy(update={"model": "org/absent-model"})
    task = loopback.document.task.model_copy(update={"base": spec})
    loopback.document = loopback.document.model_copy(update={"task": task, "base_bytes": 5 * 10**9})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    done = await joining.run("--no-run", "--accept", task.label)
    assert (done.status, "FEDIT-M005" in done.err) == (5, True)


async def test_the_cpu_is_used_after_a_yes_only(joining: Joining) -> None:
    label = joining.https.document.task.label
    line = ["join", "--data", str(joining.rows), "--no-run", "--accept", label]
    assert await asyncio.to_thread(invoke, line) == 7
    assert "FEDIT-A006" in joining.capsys.readouterr().err
    assert await asyncio.to_thread(invoke, [*line, "--yes"]) == 0
