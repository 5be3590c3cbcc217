"""A bug report says what helps and nothing of its owner: looked for by planting it everywhere first."""

import asyncio
import getpass
import json
import socket
import zipfile
from pathlib import Path

import pytest

from fedit_client.cli import invoke
from fedit_client.config import load_config
from fedit_client.doctor.bugreport import Redactor
from fedit_client.home.log_file import CommandLog
from fedit_client.home.paths import Paths
from fedit_client.membership.joined import load_membership
from fedit_protocol.encoding import encode
from fedit_protocol.errors import DataError

from .conftest import CODE
from .test_cli_join import Joining, joining

__all__ = ["joining"]

ROW = "say one"
LINK_CODE = "K7QF-2M9D-XT4B-W8HC"


@pytest.fixture
async def home(joining: Joining, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that has joined, whose log is full of what must not get out."""
    done = await joining.run("--no-run", "--accept", "test-task@1", "--name", "annes-laptop")
    assert done.status == 0, done.err
    monkeypatch.setenv("FEDIT_MODEL", "/home/anne/models/private")
    with CommandLog(load_config(joining.home).paths) as log:
        key = (joining.home / "identity.key").read_text()
        words = f"{joining.https.invite} {LINK_CODE} {key} 192.168.1.20 anne@example.org {socket.gethostname()}"
        try:
            raise DataError(f"{words} {joining.rows} C:\\Users\\anne\\notes.jsonl hf_abcdefghijklmnop")
        except DataError as error:
            log.failed("run", error)
    return joining.home


async def made(joining: Joining, target: Path) -> dict[str, str]:
    assert await asyncio.to_thread(invoke, ["bugreport", "--out", str(target)]) == 0
    with zipfile.ZipFile(target) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


async def test_nothing_of_the_owner_is_in_it(joining: Joining, home: Path, tmp_path: Path) -> None:
    files = await made(joining, tmp_path / "report.zip")
    out = joining.capsys.readouterr().out
    everything = "\n".join(files.values())
    secret = (home / "identity.key").read_text().strip()
    membership = json.loads((home / "membership.json").read_text())
    planted = [
        secret, secret[:32], CODE, LINK_CODE, ROW, "annes-laptop", "192.168.1.20", "anne", "example.org", "hf_abcdef",
        socket.gethostname(), str(joining.rows), joining.rows.name, str(home), membership["certificate"][:40],
        joining.https.federation.descriptor.federation_id, f":{joining.https.port}/",
    ]  # fmt: skip
    assert [word for word in planted if word and word in everything] == []
    if len(user := getpass.getuser()) > 4:
        assert user not in everything
    for text in files.values():
        assert all(line in out for line in text.splitlines() if line), "all of it is shown first"


async def test_what_helps_is_in_it(joining: Joining, home: Path, tmp_path: Path) -> None:
    files = await made(joining, tmp_path / "report.zip")
    assert set(files) == {"about.json", "settings.json", "doctor.txt", "rounds.json", "log.txt"}
    about = json.loads(files["about.json"])
    assert about["packages"]["aiohttp"]
    assert about["task"]["label"] == "test-task@1"
    settings = {setting["key"]: setting for setting in json.loads(files["settings.json"])}
    assert settings["model"] == {"key": "model", "value": "***", "source": "FEDIT_MODEL"}
    assert "python" in files["doctor.txt"]
    assert "run ended with FEDIT-D001" in files["log.txt"]
    assert "Traceback" in files["log.txt"]
    assert "test_bugreport.py" not in files["log.txt"], "only code of ours and of libraries is named"


async def test_it_is_for_its_owner_only_and_replaces_nothing(joining: Joining, home: Path, tmp_path: Path) -> None:
    target = tmp_path / "report.zip"
    await made(joining, target)
    assert target.stat().st_mode & 0o077 == 0
    assert await asyncio.to_thread(invoke, ["bugreport", "--out", str(target)]) == 2


def test_code_is_still_found_in_a_redacted_traceback() -> None:
    line = '  File "/home/anne/.venv/lib/python3.11/site-packages/fedit_client/rounds/device_round.py", line 12, in run'
    assert Redactor([]).text(line) == '  File "…/fedit_client/rounds/device_round.py", line 12, in run'


@pytest.mark.parametrize("text", ["version 1.2.3.4.5", "09:41:07", "0.0.0.0", "127.0.0.1", "test-task@1"])
def test_what_is_nobodys_secret_stays(text: str) -> None:
    assert Redactor([]).text(text) == text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("to 2001:db8::1: refused", "to <ip>: refused"),
        ("to [fe80::1]:8443 and [fe80::1%eth0]", "to <ip> and [<ip>]"),
        ("::ffff:192.168.1.20", "<ip>"),
        ("from 192.168.1.20:8443", "from <ip>"),
        ("by way of proxy.corp.example:3128", "by way of <address>"),
        ("by way of proxy:3128, not localhost:3128", "by way of <address>, not localhost:3128"),
        ("rounds.py:12", "rounds.py:12"),
        ("no file 'C:\\my notes\\private rows' there", "no file '<path>' there"),
        ("cannot read /srv/my notes/private rows.jsonl: gone", "cannot read <path>: gone"),
        ("cannot read C:\\my notes\\private rows.jsonl: gone", "cannot read <path>: gone"),
    ],
)
def test_addresses_and_paths_go_as_a_whole(text: str, left: str) -> None:
    assert Redactor([]).text(text) == left


BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f'"base": "{BASE}",', f'"base": "{BASE}",'),
        (f"the base model {BASE} is not on this machine: look", f"the base model {BASE} is not on this machine: look"),
        (f"{BASE}, not other/base", f"{BASE}, not other<path>"),
        (f"in /home/anne/{BASE}/config.json", "in <path>"),
        (f"in ~/{BASE} and C:\\{BASE}", "in <path> and <path>"),
        (f"at https://huggingface.co/{BASE}", "at <address>"),
        (f"under {BASE}/private", "under HuggingFaceTB<path>"),
    ],
)
def test_the_hub_id_of_the_base_stays_and_no_path_with_it(text: str, left: str) -> None:
    assert Redactor([], BASE).text(text) == left


@pytest.mark.parametrize(("model", "stays"), [(BASE, True), ("bases/private", False), ("/srv/anne/base", False)])
async def test_only_a_hub_id_of_the_joined_task_stays(
    model: str, stays: bool, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bases/private").mkdir(parents=True)
    paths = load_config(home).paths
    joined = load_membership(paths.membership_file)
    assert joined is not None
    task = joined.task_document.task
    task = task.model_copy(update={"base": task.base.model_copy(update={"model": model})})
    document = encode(joined.task_document.model_copy(update={"task": task}))
    said = Redactor.of_home(paths, joined.model_copy(update={"document": document})).text(f"no base {model} here")
    assert (said == f"no base {model} here") is stays
    assert stays or "<path>" in said


def test_the_home_folder_goes_as_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "anne of green gables"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    said = Redactor.of_home(Paths.under(home / "my federation"), None).text(
        f"no room in {home} or {home}/my federation"
    )
    assert said == "no room in <home> or <folder>"
