"""Refusals that no other test brings about, by their codes: what a person looks up has to be what happened."""

import importlib.util
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from fedit_protocol.errors import ConfigError, ProtocolError
from fedit_protocol.ids import ClientId
from fedit_protocol.testing import ManualClock
from fedit_server.access.lockout import ATTEMPTS, Lockout
from fedit_server.access.rate import DEVICE, Turnstile
from fedit_server.cli import run
from fedit_server.commands.arguments import lift_global_options
from fedit_server.commands.context import need_server_extra
from fedit_server.problems import as_problem
from fedit_server.storage.audit import broken
from fedit_server.storage.object_store import open_bucket

from .bases import small_task
from .conftest import start

pytestmark = pytest.mark.sqlite
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_command_without_the_packages_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as missing:
        need_server_extra()
    assert missing.value.code == "C040"


def test_an_object_store_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(ConfigError) as missing:
        open_bucket("s3://bucket")
    assert missing.value.code == "C100"


def test_guessing_and_flooding() -> None:
    lockout = Lockout()
    for _ in range(ATTEMPTS):
        lockout.failed("192.0.2.1", NOW)
    with pytest.raises(ProtocolError) as guessed:
        lockout.check("192.0.2.1", NOW)
    assert guessed.value.code == "T021"
    turnstile = Turnstile()
    for _ in range(DEVICE.burst):
        turnstile.pass_device(ClientId("a"), NOW)
    with pytest.raises(ProtocolError) as flooded:
        turnstile.pass_device(ClientId("a"), NOW)
    assert flooded.value.code == "T022"


def test_a_bug_is_told_as_one() -> None:
    assert as_problem(ZeroDivisionError()).code == "X001"
    assert broken("line 3").code == "S110"


@pytest.fixture
async def home(tmp_path: Path, base: Path, clock: ManualClock) -> Path:
    """A folder on which no server runs."""
    async with start(tmp_path / "home", clock, small_task(base)):
        pass
    return tmp_path / "home"


COMMANDS = {
    "no server runs": (["health"], 5, "N130"),
    "no file with a token": (["metrics", "--token-file", "none"], 2, "U130"),
    "nobody at a terminal": (["config", "edit", "--json"], 2, "U132"),
}


@pytest.mark.parametrize(("words", "status", "code"), COMMANDS.values(), ids=COMMANDS)
def test_commands_beside_no_server(
    words: list[str], status: int, code: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(lift_global_options([*words, "--home", str(home)])) == status
    assert f"FEDIT-{code}" in capsys.readouterr().err


def test_a_certificate_from_elsewhere_is_renewed_there(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = trustme.CA().issue_cert("localhost")
    (tmp_path / "c.pem").write_bytes(made.cert_chain_pems[0].bytes())
    (tmp_path / "k.pem").write_bytes(made.private_key_pem.bytes())
    (home / "server.toml").write_text(f"cert = '{tmp_path}/c.pem'\nkey = '{tmp_path}/k.pem'\n")
    assert run(lift_global_options(["cert", "renew", "--home", str(home)])) == 2
    assert "FEDIT-U131" in capsys.readouterr().err
