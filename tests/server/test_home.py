"""The data folder: made once, private, locked, and never silently remade."""

import json
import os
import ssl
import stat
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from fedit_protocol.encoding import digest_of
from fedit_protocol.errors import ConfigError, StorageError
from fedit_protocol.testing import ManualClock
from fedit_server.home.folder import Home, create_identity, load_identity
from fedit_server.home.lock import FolderLock, holder_of
from fedit_server.keys.tls import TlsFiles, own_names


def test_the_first_start_makes_everything_private(tmp_path: Path, clock: ManualClock) -> None:
    home = Home(tmp_path / "home")
    identity = create_identity(home, "Clinic", clock())
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in home.keys.iterdir()}
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700
    assert set(modes.values()) == {0o600}
    assert {"server.key", "authority.key", "authority-seal.key", "ca.key.pem"} <= modes.keys()
    assert identity.pin == digest_of(home.descriptor.read_bytes())
    assert identity.descriptor.name == "Clinic"


def test_the_second_start_finds_the_same_identity(tmp_path: Path, clock: ManualClock) -> None:
    home = Home(tmp_path)
    first = create_identity(home, "one", clock())
    assert create_identity(home, "another name", clock()).pin == first.pin
    assert load_identity(home).keys.server.public == first.keys.server.public


def test_secrets_do_not_show_themselves(tmp_path: Path, clock: ManualClock) -> None:
    identity = create_identity(Home(tmp_path), "one", clock())
    shown = repr(identity)
    assert identity.keys.server.secret_bytes().hex() not in shown
    assert "X25519" not in shown


@pytest.mark.parametrize("name", ["server.key", "authority.key", "authority-seal.key"])
def test_a_lost_key_is_not_made_anew(name: str, tmp_path: Path, clock: ManualClock) -> None:
    home = Home(tmp_path)
    create_identity(home, "one", clock())
    (home.keys / name).unlink()
    with pytest.raises(StorageError) as lost:
        create_identity(home, "one", clock())
    assert (lost.value.code, name in str(lost.value)) == ("S005", True)


def test_keys_of_another_server_are_refused(tmp_path: Path, clock: ManualClock) -> None:
    home = Home(tmp_path)
    create_identity(home, "one", clock())
    (home.keys / "server.key").write_bytes(os.urandom(32))
    with pytest.raises(StorageError) as mixed:
        load_identity(home)
    assert mixed.value.code == "S005"


def test_an_empty_folder_says_how_to_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as empty:
        load_identity(Home(tmp_path))
    assert empty.value.code == "C030"


def test_a_second_server_is_kept_out_and_told_who_is_in(tmp_path: Path) -> None:
    with FolderLock(tmp_path / "lock"), pytest.raises(StorageError) as locked:
        FolderLock(tmp_path / "lock").acquire()
    assert locked.value.code == "S002"
    assert f"process {os.getpid()}" in str(locked.value)
    FolderLock(tmp_path / "lock").acquire().release()


def test_the_lock_ends_with_the_process_that_is_killed(tmp_path: Path) -> None:
    hold = (
        "import sys, os, signal; from pathlib import Path; from fedit_server.home.lock import FolderLock;"
        "FolderLock(Path(sys.argv[1])).acquire(); print('held', flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    path = tmp_path / "lock"
    done = subprocess.run([sys.executable, "-c", hold, str(path)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("held\n", -9)
    assert holder_of(path) is None


def test_a_running_server_is_found_with_its_address(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert home.running_server() is None
    with home.lock():
        home.announce(os.getpid(), "https://localhost:1")
        assert home.running_server() == {"pid": os.getpid(), "url": "https://localhost:1"}
    assert home.running_server() is None
    assert home.last_url() == "https://localhost:1"
    home.running.write_text(json.dumps({"pid": 1}))
    assert home.last_url() is None


def certificate(folder: Path, name: str = "tls.pem") -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / name).read_bytes())


def test_the_certificate_names_every_way_to_this_machine(tmp_path: Path, clock: ManualClock) -> None:
    tls = TlsFiles(tmp_path)
    tls.create_authority(clock())
    assert tls.renew_leaf(own_names("192.168.7.7"), clock())
    names = certificate(tmp_path).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    assert {"127.0.0.1", "::1", "192.168.7.7"} <= addresses
    assert "localhost" in names.get_values_for_type(x509.DNSName)
    assert certificate(tmp_path).not_valid_before_utc == clock() - timedelta(days=1)
    certificate(tmp_path).verify_directly_issued_by(certificate(tmp_path, "ca.pem"))
    assert tls.server_context().minimum_version is ssl.TLSVersion.TLSv1_3


RENEWALS = {
    "nothing changed": (0, ["localhost"], False),
    "two months have passed": (61, ["localhost"], True),
    "the machine has a new name": (0, ["localhost", "10.1.2.3"], True),
    "a name is gone": (0, [], False),
}


@pytest.mark.parametrize("case", RENEWALS.values(), ids=RENEWALS)
def test_when_the_leaf_is_renewed(case: tuple[int, list[str], bool], tmp_path: Path, clock: ManualClock) -> None:
    days, names, renewed = case
    tls = TlsFiles(tmp_path)
    tls.create_authority(clock())
    authority = tls.authority_pem()
    tls.renew_leaf(["localhost"], clock())
    clock.advance(seconds=days * 86400)
    assert tls.renew_leaf(names, clock()) is renewed
    tls.create_authority(clock())
    assert tls.authority_pem() == authority


def test_a_key_without_its_certificate_is_replaced(tmp_path: Path, clock: ManualClock) -> None:
    """A power cut between the two files must not leave a server that cannot start."""
    tls = TlsFiles(tmp_path)
    tls.create_authority(clock())
    tls.renew_leaf(["localhost"], clock())
    (tmp_path / "tls.key.pem").write_bytes((tmp_path / "ca.key.pem").read_bytes())
    assert tls.renew_leaf(["localhost"], clock())
    tls.server_context()
