"""An exported adapter says where it comes from, and both programs check it; whatever is touched is refused."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from fedit_client.adapters.origin import check_folder as check_as_device
from fedit_protocol.errors import ConfigError, FeditError, SecurityError
from fedit_protocol.ids import Digest
from fedit_protocol.lineage import LINEAGE, Made
from fedit_protocol.peft_folder import CARD, WEIGHTS
from fedit_protocol.testing import ManualClock
from fedit_server.adapters.origin import check_folder
from fedit_server.admin.lineage import sign_version
from fedit_server.admin.operations import Admin
from fedit_server.cli import run
from fedit_server.config import ServerConfig
from fedit_server.home.folder import Home
from fedit_server.keys.rotation import rotate

from .bases import small_task
from .conftest import start
from .test_rounds import play

pytestmark = pytest.mark.sqlite


async def trained(home: Path, base: Path, clock: ManualClock) -> Digest:
    """Two rounds, then the first one's adapter again; returns the pin."""
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\nA base.\n")
    async with start(home, clock, small_task(base, round={"rounds": 9})) as running:
        devices = await running.join(3)
        for _ in range(2):
            await play(running, devices, {})
            for device in devices:
                await device.result()
        async with Admin.open(ServerConfig.load({"home": home}, {})) as admin:
            await admin.roll_back(None, 1)
        return running.parts.identity.pin


async def export(home: Path, out: Path, version: int | None = None) -> Path:
    async with Admin.open(ServerConfig.load({"home": home}, {})) as admin:
        task = await admin.task(None)
        folder = await sign_version(admin, task, await admin.version(task.task_id, version))
    return Path(shutil.copytree(folder, out))


async def test_an_exported_adapter_is_checked_without_the_server(
    tmp_path: Path, base: Path, clock: ManualClock, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    pin = await trained(home, base, clock)
    folder = await export(home, tmp_path / "out")
    origin = check_folder(folder, pin)
    made = [(step.made, step.round_no) for step in origin.lineage.steps]
    assert made == [(Made.FIRST, 0), (Made.ROUND, 1), (Made.ROUND, 2), (Made.ROLLBACK, 1)]
    assert origin.lineage.record_lines == 1
    card = (folder / CARD).read_text()
    for told in (
        "outcome of 2 committed rounds",
        "from 3 to 9 devices",
        "apache-2.0",
        "2.000 for the base alone",
        "## Limits",
    ):
        assert told in card
    assert check_as_device(folder, pin) == origin
    first = check_folder(await export(home, tmp_path / "first", 1), pin)
    assert (first.newest.version, first.newest.digest) == (1, origin.newest.digest)

    for file in sorted(folder.iterdir()):
        kept = file.read_bytes()
        file.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        for check in (check_folder, check_as_device):
            with pytest.raises(SecurityError) as touched:
                check(folder, pin)
            assert file.name in str(touched.value)
        file.write_bytes(kept)

    await rotate(Home(home), lost=False)
    again = check_folder(await export(home, tmp_path / "again"), pin)
    assert again.pin != pin
    with pytest.raises(FeditError) as older:
        check_folder(folder, again.pin)
    assert older.value.code == "T122"


def test_the_commands_check_a_folder_and_say_what_is_wrong(
    tmp_path: Path, base: Path, clock: ManualClock, capsys: pytest.CaptureFixture[str]
) -> None:
    home, folder = tmp_path / "home", tmp_path / "out"

    async def set_up() -> None:
        async with start(home, clock, small_task(base)):
            pass

    asyncio.run(set_up())
    assert run(["--home", str(home), "adapter", "export", "--out", str(folder)]) == 0
    assert f"adapters verify {folder} --pin sha256:" in capsys.readouterr().out
    assert run(["--json", "--home", str(home), "adapter", "verify", str(folder)]) == 0
    said = json.loads(capsys.readouterr().out)["data"]
    assert (said["version"], said["versions"], said["vouched"]) == (0, 1, True)
    assert run(["--home", str(tmp_path / "elsewhere"), "adapter", "verify", str(folder)]) == 0
    assert "compare its pin" in capsys.readouterr().out
    (folder / LINEAGE).write_bytes((folder / LINEAGE).read_bytes().replace(b"Notes", b"Votes"))
    assert run(["--home", str(home), "adapter", "verify", str(folder)]) == 6
    assert "FEDIT-T121: the file lineage.json is not the one that was signed" in capsys.readouterr().err
    (folder / LINEAGE).unlink()
    assert run(["--home", str(home), "adapter", "verify", str(folder)]) == 3
    assert "FEDIT-C121" in capsys.readouterr().err
    with pytest.raises(ConfigError) as unsigned:
        check_as_device(folder, None)
    assert unsigned.value.code == "U127"
    assert (folder / WEIGHTS).exists()
