"""The identity key in the system's keyring: where there is one, where there is none, and moved between both."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked, PasswordDeleteError

from fedit_client.cli import invoke
from fedit_client.config import load_config
from fedit_client.home import key_ring
from fedit_client.home.key_ring import KeyStore
from fedit_client.home.paths import Paths
from fedit_client.membership.identity import (
    forget_keyring,
    kept_in,
    load_identity,
    load_or_create_identity,
    move_identity,
)
from fedit_protocol.errors import ConfigError, StorageError

from .conftest import HttpsFederation
from .test_sdk import joined


class MemoryKeyring(KeyringBackend):
    """A keyring like any other, but in memory; locked when a test says so."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # the library has no types there
        self.held: dict[tuple[str, str], str] = {}
        self.locked = False

    def get_password(self, service: str, username: str) -> str | None:
        self._look()
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._look()
        self.held[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self._look()
        if self.held.pop((service, username), None) is None:
            raise PasswordDeleteError("nothing there")

    def _look(self) -> None:
        if self.locked:
            raise KeyringLocked("it is locked")


@pytest.fixture
def ring() -> Iterator[MemoryKeyring]:
    before, ring = keyring.get_keyring(), MemoryKeyring()
    keyring.set_keyring(ring)
    yield ring
    keyring.set_keyring(before)


def place(tmp_path: Path) -> Path:
    return tmp_path / "state" / "identity.key"


def test_a_keyring_that_works_holds_the_key_and_no_file_does(ring: MemoryKeyring, tmp_path: Path) -> None:
    said: list[str] = []
    key = load_or_create_identity(place(tmp_path), say=said.append)
    again = load_identity(place(tmp_path))
    assert again is not None
    assert again.public == key.public
    assert kept_in(place(tmp_path)) is KeyStore.KEYRING
    assert list(ring.held.values()) == [key.secret_bytes().hex()]  # and the probe is gone
    assert said == ["this device's key is kept in this system's keyring"]
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert key.secret_bytes().hex().encode() not in written
    assert key.public.hex().encode() in written


def test_without_a_keyring_a_private_file_is_taken_and_the_choice_stays(tmp_path: Path) -> None:
    said: list[str] = []
    key = load_or_create_identity(place(tmp_path), say=said.append)
    assert kept_in(place(tmp_path)) is KeyStore.FILE
    assert said[0].endswith("(this system has no keyring)")
    keyring_now = MemoryKeyring()
    before = keyring.get_keyring()
    keyring.set_keyring(keyring_now)  # one appears later
    try:
        assert load_or_create_identity(place(tmp_path)).public == key.public
    finally:
        keyring.set_keyring(before)
    assert keyring_now.held == {}


def test_a_keyring_that_is_locked_counts_as_none(ring: MemoryKeyring, tmp_path: Path) -> None:
    ring.locked = True
    said: list[str] = []
    load_or_create_identity(place(tmp_path), say=said.append)
    assert kept_in(place(tmp_path)) is KeyStore.FILE
    assert "the keyring fails: it is locked" in said[0]


def test_who_asks_for_the_keyring_gets_it_or_an_error(ring: MemoryKeyring, tmp_path: Path) -> None:
    ring.locked = True
    with pytest.raises(ConfigError) as told:
        load_or_create_identity(place(tmp_path), KeyStore.KEYRING)
    assert (told.value.code, told.value.fix) == ("C005", "fedit-client set identity.store=file")
    assert kept_in(place(tmp_path)) is None
    ring.locked = False
    load_or_create_identity(place(tmp_path), KeyStore.FILE)
    assert ring.held == {}


def test_a_key_moves_both_ways_and_stays_the_same(ring: MemoryKeyring, tmp_path: Path) -> None:
    key = load_or_create_identity(place(tmp_path), KeyStore.FILE)
    assert move_identity(place(tmp_path), KeyStore.KEYRING)
    assert not move_identity(place(tmp_path), KeyStore.KEYRING)
    assert not place(tmp_path).exists()
    assert len(ring.held) == 1
    assert move_identity(place(tmp_path), KeyStore.FILE)
    found = load_identity(place(tmp_path))
    assert found is not None
    assert (found.public, ring.held, kept_in(place(tmp_path))) == (key.public, {}, KeyStore.FILE)


def test_a_key_that_cannot_be_had_is_never_replaced(ring: MemoryKeyring, tmp_path: Path) -> None:
    load_or_create_identity(place(tmp_path))
    (name,) = ring.held
    for trouble, words in (("locked", "it is locked"), ("gone", "not there any more"), ("other", "another key")):
        ring.locked = trouble == "locked"
        if trouble == "gone":
            ring.held.clear()
        if trouble == "other":
            ring.held[name] = "07" * 32
        with pytest.raises(StorageError, match=words) as told:
            load_or_create_identity(place(tmp_path))
        assert told.value.code == "S021"
    ring.locked = False
    assert forget_keyring(place(tmp_path))
    assert not forget_keyring(place(tmp_path))


async def test_joining_leaving_and_erasing_with_a_keyring(
    https: HttpsFederation, tmp_path: Path, ring: MemoryKeyring
) -> None:
    client = await joined(https, tmp_path)
    paths = Paths.under(tmp_path)
    assert (paths.identity_note.exists(), paths.identity_file.exists(), len(ring.held)) == (True, False, 1)
    receipt = await client.leave(erase=True)
    assert ring.held == {}
    assert receipt.removed[0].what == "identity in the system's keyring"
    assert not paths.identity_note.exists()


async def test_erasing_works_while_the_keyring_is_locked_and_says_what_stayed(
    https: HttpsFederation, tmp_path: Path, ring: MemoryKeyring
) -> None:
    client = await joined(https, tmp_path)
    ring.locked = True
    with pytest.raises(StorageError):
        await client.leave(new_key=True)
    receipt = await client.leave(erase=True)
    assert "it is locked" in (receipt.not_removed or "")
    assert any(line.startswith("  NOT removed: the key in the system's keyring") for line in receipt.lines())
    assert not Paths.under(tmp_path).identity_note.exists()


def test_the_command_shows_and_moves_and_remembers(
    ring: MemoryKeyring, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, path = ("--home", str(tmp_path)), Paths.under(tmp_path).identity_file
    assert invoke(["identity", *home]) == 0
    assert "no key yet" in capsys.readouterr().out
    key = load_or_create_identity(path, KeyStore.FILE)
    assert invoke(["identity", "--move", "keyring", *home]) == 0
    assert "kept in the system's keyring" in capsys.readouterr().out
    assert load_config(tmp_path).identity.store is KeyStore.KEYRING
    assert invoke(["identity", "--json", *home]) == 0
    assert json.loads(capsys.readouterr().out)["data"] == {"public": key.public.hex(), "store": "keyring"}


def test_asking_is_given_up_when_no_answer_comes(ring: MemoryKeyring) -> None:
    asked = ring._look

    def slow() -> None:
        threading.Event().wait(0.2)
        asked()

    ring._look = slow  # type: ignore[method-assign] # a window that nobody answers
    assert key_ring.why_not(patience_s=0.0) == "the keyring has not answered in 0 s"
