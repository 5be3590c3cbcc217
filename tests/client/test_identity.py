"""The device's key at rest, and what survives when a write is cut short."""

import os
import stat
from pathlib import Path

import pytest

from fedit_client.home.durable import append_durably, write_atomic
from fedit_client.home.lock import held_alone, is_held
from fedit_client.membership.identity import held_out_seed, load_identity, load_or_create_identity
from fedit_protocol.errors import MembershipError, StorageError


def test_a_key_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "state" / "identity.key"
    assert load_identity(path) is None
    key = load_or_create_identity(path)
    again = load_or_create_identity(path)
    assert key.public == again.public
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_key_that_others_can_read_is_refused_with_the_cure(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    load_or_create_identity(path)
    path.chmod(0o644)
    with pytest.raises(StorageError) as told:
        load_identity(path)
    assert told.value.code == "S012"
    assert told.value.fix == "fedit-client doctor --fix"


def test_a_damaged_key_is_never_replaced_silently(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    path.write_text("half a ke")
    path.chmod(0o600)
    with pytest.raises(StorageError) as told:
        load_or_create_identity(path)
    assert told.value.code == "S013"
    assert path.read_text() == "half a ke"


def test_the_held_out_seed_belongs_to_the_device(tmp_path: Path) -> None:
    one, other = (load_or_create_identity(tmp_path / name) for name in ("one", "other"))
    assert held_out_seed(one) == held_out_seed(one) != held_out_seed(other)


def test_a_failed_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "membership.json"
    write_atomic(path, b"old")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fedit_client.home.durable.os.fsync", full)
    with pytest.raises(StorageError) as told:
        write_atomic(path, b"new")
    assert told.value.code == "S011"
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["membership.json"]


def test_appending_keeps_what_was_there(tmp_path: Path) -> None:
    append_durably(tmp_path / "log", b"one\n")
    append_durably(tmp_path / "log", b"two\n")
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"


@pytest.mark.skipif(os.name == "nt", reason="flock is POSIX; Windows locks by region")
def test_one_client_runs_per_home(tmp_path: Path) -> None:
    lock = tmp_path / "client.lock"
    assert not is_held(lock)
    with held_alone(lock):
        assert is_held(lock)
        with pytest.raises(MembershipError) as told, held_alone(lock):
            pass
    assert told.value.code == "J003"
    assert not is_held(lock)
