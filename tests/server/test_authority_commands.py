"""`fedit-server authority …` as people type it."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from fedit_protocol.encoding import encode
from fedit_protocol.enrollment import FederationDescriptor, InviteLink
from fedit_protocol.task import Mode
from fedit_server.authority.home import AuthorityHome, LinkedServer
from fedit_server.cli import run
from fedit_server.clock import utc_now
from fedit_server.home.folder import Home, create_identity


class Commands:
    """Runs commands on one authority's folder."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home, self._capsys = home, capsys

    def __call__(self, *words: str, status: int = 0) -> str:
        """Run a command for people; return what it printed, errors included."""
        found = run(["--home", str(self.home), "authority", *words])
        printed = "".join(self._capsys.readouterr())
        assert found == status, printed
        return printed

    def data(self, *words: str) -> dict[str, Any]:
        """Run it with --json; return its data."""
        run(["--json", "--home", str(self.home), "authority", *words])
        answer: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        assert answer["ok"], answer
        data: dict[str, Any] = answer["data"]
        return data

    def link(self) -> None:
        """Let the authority have met its server."""
        home = AuthorityHome(self.home)
        card, keys = home.read()
        sign, seal = keys.public_pair
        descriptor = FederationDescriptor(
            federation_id=card.federation_id,
            name="clinics",
            server_key=bytes(range(32)),
            authority_key=sign,
            authority_seal_key=seal,
            authority_is_server=False,
            tls_ca="",
            modes=(Mode.MASKED,),
        )
        home.link(LinkedServer("fl.example.org", 8443, encode(descriptor)))


@pytest.fixture
def authority(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    """An authority that was set up."""
    commands = Commands(tmp_path / "authority", capsys)
    commands("init", "--federation", "clinics")
    return commands


def test_init_says_what_to_do_with_the_card_and_changes_nothing_the_second_time(authority: Commands) -> None:
    secrets = {path.name: path.read_bytes() for path in (authority.home / "keys").iterdir()}
    first, again = authority.data("init"), authority("init")
    assert first["text"] == (authority.home / "authority.card").read_text().strip()
    assert first["text"] in again
    assert "fedit-server up --authority" in again
    assert secrets == {path.name: path.read_bytes() for path in (authority.home / "keys").iterdir()}
    assert {oct(path.stat().st_mode & 0o777) for path in (authority.home / "keys").iterdir()} == {"0o600"}


def test_init_does_not_rename_an_authority(authority: Commands) -> None:
    card = (authority.home / "authority.card").read_bytes()
    said = authority("init", "--federation", "schools", status=3)
    assert "FEDIT-C039" in said
    assert "«clinics»" in said
    assert "--home OTHER-DIR" in said
    assert (authority.home / "authority.card").read_bytes() == card
    authority("init", "--federation", "clinics")


def test_in_a_servers_folder_the_servers_own_commands_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create_identity(Home(tmp_path / "own"), "x", utc_now())
    create_identity(Home(tmp_path / "apart"), "x", utc_now(), AuthorityHome(tmp_path / "authority").create(""))
    for words in (("invite",), ("clients",), ("revoke", "abc"), ("run",)):
        own, apart = (Commands(tmp_path / folder, capsys)(*words, status=3) for folder in ("own", "apart"))
        assert "FEDIT-C034" in own
        assert "fedit-server invite create" in own
        assert "authority init" not in own
        assert "FEDIT-C034" in apart
        assert "where `fedit-server authority run` runs" in " ".join(apart.split())


def test_invites_are_made_listed_and_revoked(authority: Commands) -> None:
    authority.link()
    made = authority.data("invite", "create", "--uses", "3", "--expires", "2h")
    link = InviteLink.parse(made["link"])
    server = AuthorityHome(authority.home).require_link()
    assert (link.host, link.port, link.pin, made["uses"]) == ("fl.example.org", 8443, server.pin, 3)
    assert "fedit-client join --server" in authority("invite")
    authority("invite", "revoke", made["id"])
    states = {row["id"]: row["state"] for row in authority.data("invite", "list")["invites"]}
    assert states[made["id"]] == "revoked"
    assert sorted(states.values()) == ["active", "revoked"]
    assert link.code not in (authority.home / "fedit.db").read_bytes().decode("latin-1")


def test_an_empty_log_is_in_order(authority: Commands) -> None:
    found = authority.data("log")
    assert (found["size"], found["devices"], found["entries"], found["authority"]) == (0, 0, [], "apart")
    assert "checked: every entry" in authority("log")


REFUSED = {
    "no server yet": (("invite",), 3, "C036"),
    "run without a server": (("run",), 3, "C036"),
    "a server without a pin": (("run", "--server", "fl.example.org"), 2, "U034"),
    "no such invite": (("invite", "revoke", "abc"), 2, "U025"),
    "no such device": (("revoke", "abc"), 2, "U025"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_says_what_to_do(case: tuple[tuple[str, ...], int, str], authority: Commands) -> None:
    words, status, code = case
    said = authority(*words, status=status)
    assert f"FEDIT-{code}" in said
    assert "fix:" in said


@pytest.mark.parametrize("words", [("run",), ("invite",), ("log",), ("clients",), ("revoke", "abc")])
def test_a_folder_without_an_authority_is_named(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = Commands(tmp_path / "nowhere", capsys)(*words, status=3)
    assert "FEDIT-C035" in said
    assert "fedit-server authority init" in said


def test_a_damaged_link_is_not_guessed_at(authority: Commands) -> None:
    AuthorityHome(authority.home).server.write_text('{"host": "fl.example.org"}')
    assert "FEDIT-S005" in authority("invite", status=12)


def test_keys_of_another_folder_are_refused(authority: Commands, tmp_path: Path) -> None:
    AuthorityHome(tmp_path / "other").create("")
    (authority.home / "keys" / "authority.key").write_bytes(
        (tmp_path / "other" / "keys" / "authority.key").read_bytes()
    )
    assert "FEDIT-S005" in authority("log", status=12)


def test_a_database_of_an_older_program_is_brought_up_to_date_by_init(authority: Commands) -> None:
    (authority.home / "fedit.db").unlink()
    sqlite3.connect(authority.home / "fedit.db").close()
    said = authority("clients", status=12)
    assert "FEDIT-S003" in said
    assert "fedit-server authority init" in said
    authority("init")
    assert authority.data("clients") == {"clients": []}
