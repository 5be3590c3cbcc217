"""`audit tail`, `export` and `verify`, beside a store on which no server runs."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedit_protocol.testing import ManualClock
from fedit_server.cli import run
from fedit_server.commands.arguments import lift_global_options

from .conftest import start


@pytest.fixture
async def home(tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDIT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    async with start(tmp_path / "home", clock):
        return tmp_path / "home"


def invoke(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """Return the data of a command, or its error."""
    run(lift_global_options([*words, "--json"]))
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    return dict(said["error"] or said["data"])


@pytest.mark.sqlite
def test_a_log_is_exported_and_checked_anywhere(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = invoke(capsys, "token", "create", "--role", "owner")
    first = invoke(capsys, "audit", "export", "--out", "one.jsonl")
    invoke(capsys, "token", "revoke", made["token"]["id"])
    tail = invoke(capsys, "audit", "tail", "-n", "1")
    live = invoke(capsys, "audit", "verify", "--against", "one.jsonl")
    away = invoke(capsys, "audit", "verify", "--file", "one.jsonl")
    assert (first["entries"], tail["size"], live["size"], away["size"]) == (1, 2, 2, 1)
    assert [(row["action"], row["subject"]) for row in tail["lines"]] == [("token.revoke", made["token"]["id"])]
    assert made["secret"] not in Path("one.jsonl").read_text()
    assert invoke(capsys, "audit", "export", "--out", "one.jsonl")["code"] == "FEDIT-U027"
    invoke(capsys, "audit", "export", "--out", "two.jsonl")
    cut = invoke(capsys, "audit", "verify", "--file", "one.jsonl", "--against", "two.jsonl")
    forged = Path("two.jsonl").read_text().replace('"role": "admin"', '"role": "viewer"')
    Path("forged.jsonl").write_text(forged)
    Path("none.jsonl").write_text("{")
    assert (cut["code"], cut["exit"]) == ("FEDIT-S110", 12)
    assert invoke(capsys, "audit", "verify", "--file", "forged.jsonl")["code"] == "FEDIT-S110"
    assert invoke(capsys, "audit", "verify", "--file", "none.jsonl")["code"] == "FEDIT-U110"


@pytest.mark.sqlite
def test_the_log_is_signed_by_the_servers_key_whatever_became_of_the_one_before(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    invoke(capsys, "token", "create", "--role", "viewer")
    invoke(capsys, "audit", "export", "--out", "before.jsonl")
    rotated = invoke(capsys, "keys", "rotate")
    after = invoke(capsys, "audit", "verify", "--against", "before.jsonl")
    (home / "keys" / "server.key").unlink()
    lost = invoke(capsys, "keys", "rotate", "--lost")
    last = invoke(capsys, "audit", "verify", "--against", "before.jsonl")
    tail = invoke(capsys, "audit", "tail", "-n", "2")
    assert (after["size"], after["pin"]) == (2, rotated["pin"])
    assert (last["size"], last["pin"]) == (3, lost["pin"])
    assert [row["action"] for row in tail["lines"]] == ["keys.rotate", "keys.rotate"]
