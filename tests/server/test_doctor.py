"""`doctor` finds what is in the way, worst first; `bugreport` gathers it without a word that is private."""

import json
import socket
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from fedit_protocol.errors import ConfigError, StorageError
from fedit_protocol.testing import ManualClock
from fedit_server.clock import utc_now
from fedit_server.config import ServerConfig
from fedit_server.doctor.bugreport import Report, bug_report
from fedit_server.doctor.checkup import Checkup, examine
from fedit_server.doctor.redaction import Redactor
from fedit_server.home.folder import Home
from fedit_server.home.last_backup import LastBackup, note_backup

from .bases import small_task
from .conftest import start

pytestmark = pytest.mark.sqlite


@pytest.fixture
async def home(tmp_path: Path, base: Path, clock: ManualClock) -> Home:
    """A folder that was set up, and on which nothing runs."""
    async with start(tmp_path / "home", clock, small_task(base)):
        pass
    return Home(tmp_path / "home")


async def look(home: Home, **settings: Any) -> Checkup:
    config = {"home": home.root, "listen": "127.0.0.1:0", "min_free_mb": 0, **settings}
    return await examine(lambda: ServerConfig.load(config, {}))


def save(home: Home, days_ago: float) -> None:
    note_backup(home, LastBackup(int(utc_now().timestamp() - days_ago * 86400), "fedit.backup", 1))


def found(checkup: Checkup) -> dict[str, str]:
    return {one.check: one.level.name.lower() for one in checkup.findings}


async def test_a_good_server_has_nothing_in_the_way(home: Home) -> None:
    save(home, 0)
    checkup = await look(home, advertise="fl.example.org", trusted_proxies="10.0.0.0/8")
    assert checkup.exit_code == 0
    levels = found(checkup)
    assert {name for name, level in levels.items() if level == "ok"} >= {
        "settings", "identity", "folder", "database", "blobs", "reach", "disk", "backup",
    }  # fmt: skip
    assert {name for name, level in levels.items() if level in ("warning", "error")} == set()


async def test_a_folder_without_a_server(tmp_path: Path) -> None:
    checkup = await look(Home(tmp_path))
    assert (checkup.findings[0].code, checkup.exit_code) == ("C030", 3)


async def test_settings_that_cannot_be(home: Home) -> None:
    assert (await look(home, cert="c.pem")).findings[0].code == "C135"


async def test_what_others_can_open(home: Home) -> None:
    home.root.chmod(0o755)
    (home.keys / "server.key").chmod(0o644)
    worst = (await look(home)).findings[0]
    assert (worst.check, worst.code) == ("folder", "S001")
    assert "server.key" in worst.what


async def test_a_database_that_needs_a_migration(home: Home) -> None:
    home.database.unlink()
    worst = (await look(home)).findings[0]
    assert (worst.check, worst.code) == ("database", "S003")


async def test_a_port_that_somebody_has(home: Home) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        worst = (await look(home, listen=f"127.0.0.1:{port}")).findings[0]
    assert (worst.check, worst.code) == ("address", "C017")


async def test_a_given_certificate_that_ends_soon(home: Home, tmp_path: Path) -> None:
    def given(days: int) -> dict[str, Any]:
        ca = trustme.CA()
        made = ca.issue_cert("localhost", not_after=utc_now() + timedelta(days=days))
        cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
        cert.write_bytes(made.cert_chain_pems[0].bytes())
        key.write_bytes(made.private_key_pem.bytes())
        return {"cert": cert, "key": key}

    assert found(await look(home, **given(40)))["certificate"] == "ok"
    assert found(await look(home, **given(3)))["certificate"] == "warning"
    assert found(await look(home, **given(40), advertise="fl.example.org"))["certificate"] == "warning"
    worst = (await look(home, **given(-1))).findings[0]
    assert (worst.check, worst.code) == ("certificate", "C132")


async def test_a_disk_that_is_nearly_full(home: Home) -> None:
    worst = (await look(home, min_free_mb=10**12)).findings[0]
    assert (worst.check, worst.code) == ("disk", "S004")


async def test_blobs_that_are_gone(home: Home) -> None:
    home.blobs.rename(home.root / "elsewhere")
    assert found(await look(home))["blobs"] == "error"


async def test_an_old_backup_and_none(home: Home) -> None:
    assert found(await look(home))["backup"] == "warning"
    save(home, 9)
    assert found(await look(home))["backup"] == "warning"


SECRETS = {
    "an invite": ("fedit://192.0.2.9:8443/j/K7QF-2M9D-XT4B-W8HC#sha256:" + "ab" * 32, "<invite>"),
    "a token": ("fedit_" + "Ab3-_" * 8, "<token>"),
    "a code": ("K7QF-2M9D-XT4B-W8HC", "<code>"),
    "a URL": ("postgresql://me:secret@db.example.org/fedit", "<address>"),
    "an address": ("192.0.2.9", "<ip>"),
    "an address of IPv6": ("2001:db8::7", "<ip>"),
    "a digest or a client": ("0123456789abcdef" * 2, "<digits>"),
    "a path": ("/srv/clinic/notes", "<path>"),
    "mail": ("anna@example.org", "<mail>"),
    "the server's name": ("fl.example.org", "<server>"),
}


@pytest.mark.parametrize(("secret", "instead"), SECRETS.values(), ids=SECRETS)
def test_what_is_private_is_taken_out(secret: str, instead: str) -> None:
    said = Redactor.of_machine([("fl.example.org", "<server>")]).text(f"it says {secret} here")
    assert said == f"it says {instead} here"


async def test_the_report_is_shown_whole_and_written_once(home: Home, tmp_path: Path) -> None:
    config = ServerConfig.load({"home": home.root, "advertise": "fl.example.org", "invite_uses": 7}, {})
    report = await bug_report(config, await look(home), utc_now())
    target = tmp_path / "report.zip"
    report.write(target)
    assert target.stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(target) as archive:
        assert {name: archive.read(name).decode() for name in archive.namelist()} == report.files
    told = "\n".join(report.lines())
    assert str(tmp_path) not in told
    assert "fl.example.org" not in told
    values = {one["key"]: one["value"] for one in json.loads(report.files["settings.json"])}
    assert (values["invite_uses"], values["advertise"]) == (7, "***")
    with pytest.raises(ConfigError) as there:
        Report({}).write(target)
    assert there.value.code == "U135"
    with pytest.raises(StorageError):
        Report({}).write(tmp_path / "no" / "folder.zip")
