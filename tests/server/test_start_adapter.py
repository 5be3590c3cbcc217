"""`task create --start`: a task goes on from an adapter trained before, if it is one of its kind."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fedit_protocol.adapter import first_adapter
from fedit_protocol.encoding import digest_of
from fedit_protocol.errors import ConfigError, DataError
from fedit_protocol.peft_folder import CARD, CONFIG, WEIGHTS, Edition
from fedit_protocol.task import Task, TaskDocument
from fedit_protocol.testing import ManualClock
from fedit_server.adapters.peft_folder import write_peft_folder
from fedit_server.adapters.tensors import to_safetensors
from fedit_server.admin.operations import Admin
from fedit_server.admin.tasks import TaskDesk
from fedit_server.cli import run
from fedit_server.config import ServerConfig
from fedit_server.storage.rows import TaskRow
from fedit_server.tasks.base_model import read_folder
from fedit_server.tasks.files import resolve
from fedit_server.tasks.start_adapter import read_adapter

from .bases import small_task
from .conftest import start

pytestmark = pytest.mark.sqlite


@pytest.fixture
def document(base: Path) -> TaskDocument:
    return resolve(small_task(base), read_folder(base))


@pytest.fixture
def trained(document: TaskDocument, tmp_path: Path) -> Path:
    """A PEFT folder of the task's kind, with a B that is not 0."""
    vector = first_adapter(document.layout, 5) + np.float32(0.25)
    content = to_safetensors(document.layout, vector)
    edition = Edition(version=3, digest=digest_of(content))
    write_peft_folder(tmp_path / "trained", document, content, edition)
    return tmp_path / "trained"


def rewrite(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)


class Desk:
    """What an operator does beside the server."""

    def __init__(self, home: Path) -> None:
        self._config = ServerConfig(home=home)

    async def create(self, task: Task, **how: Any) -> TaskRow:
        async with Admin.open(self._config) as admin:
            return await TaskDesk(admin).create(task, **how)

    async def edit(self, task: Task) -> TaskRow:
        async with Admin.open(self._config) as admin:
            await TaskDesk(admin).edit(task.id, task)
            return await admin.task(task.id)

    async def first_digest(self, task: Task) -> str:
        async with Admin.open(self._config) as admin:
            return (await admin.version(task.id, 0)).digest


def other(base: Path, **top: object) -> Task:
    return small_task(base, top={"id": "other", "title": "Other", **top})


async def test_a_task_goes_on_from_an_adapter(base: Path, trained: Path, tmp_path: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, small_task(base)):
        desk = Desk(tmp_path / "home")
        made = await desk.create(other(base), start=trained)
        digest = digest_of((trained / WEIGHTS).read_bytes())
        assert made.document.task.adapter.start == await desk.first_digest(other(base)) == digest
        folder = next((tmp_path / "home").glob("**/adapters/other/*0*"))
        assert (folder / WEIGHTS).read_bytes() == (trained / WEIGHTS).read_bytes()
        assert "trained before" in (folder / CARD).read_text()
        edited = await desk.edit(other(base, version=2, title="Others"))
        assert edited.document.task.adapter.start == digest
        another = small_task(base, adapter={"start": digest_of(b"another")}, top={"id": "other", "version": 3})
        with pytest.raises(ConfigError) as refused:
            await desk.edit(another)
        assert refused.value.code == "C016"


@pytest.mark.slow
async def test_a_draft_keeps_its_start(base: Path, trained: Path, tmp_path: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, small_task(base)):
        desk = Desk(tmp_path / "home")
        await desk.create(other(base), draft=True, start=trained)
        edited = await desk.edit(other(base, title="Another"))
        assert edited.document.task.adapter.start == await desk.first_digest(other(base))
        assert edited.document.task.adapter.start == digest_of((trained / WEIGHTS).read_bytes())


async def test_a_version_that_is_here_may_be_named(base: Path, tmp_path: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, small_task(base)):
        desk = Desk(tmp_path / "home")
        digest = await desk.first_digest(small_task(base))
        made = await desk.create(small_task(base, adapter={"start": digest}, top={"id": "other"}))
        assert await desk.first_digest(other(base)) == digest == made.document.task.adapter.start
        with pytest.raises(DataError, match="is not here") as refused:
            await desk.create(small_task(base, adapter={"start": digest_of(b"x")}, top={"id": "third"}))
        assert refused.value.code == "D048"
        with pytest.raises(DataError, match="other tensors"):
            await desk.create(small_task(base, adapter={"start": digest, "rank": 1}, top={"id": "third"}))


async def test_the_command_takes_a_folder(
    base: Path, trained: Path, tmp_path: Path, clock: ManualClock, capsys: pytest.CaptureFixture[str]
) -> None:
    async with start(tmp_path / "home", clock, small_task(base)):
        pass
    (tmp_path / "task.toml").write_text(f'id = "new"\ntitle = "New"\n[base]\nmodel = "{base}"\n[adapter]\nrank = 9\n')
    words = ["--home", str(tmp_path / "home"), "task", "create", str(tmp_path / "task.toml"), "--start", str(trained)]
    assert run_apart(words) == 9
    assert "FEDIT-D048" in capsys.readouterr().err


def run_apart(words: list[str]) -> int:
    """Run a command that has an event loop of its own, from a test that has one."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run, words).result()


@pytest.mark.parametrize("kind", ["F16", "F64", "BF16", "in memory", "a file alone"])
def test_other_number_types_and_names_are_read(kind: str, trained: Path, document: TaskDocument) -> None:
    expected = read_adapter(trained, document)
    place = trained
    if kind in {"F16", "F64"}:
        rewrite(trained, lambda found: {name: array.astype(f"f{int(kind[1:]) // 8}") for name, array in found.items()})
    elif kind == "in memory":
        rewrite(trained, lambda found: {name.replace(".weight", ".default.weight"): a for name, a in found.items()})
    elif kind == "a file alone":
        place = Path(shutil.copy(trained / WEIGHTS, trained.parent / "weights.safetensors"))
    else:
        as_bfloat16(trained / WEIGHTS)
    np.testing.assert_allclose(read_adapter(place, document), expected, rtol=0 if kind == "in memory" else 0.01)


def as_bfloat16(file: Path) -> None:
    """Write a weight file again with the upper half of each number."""
    header: dict[str, Any] = {}
    body = b""
    for name, array in load_file(file).items():
        raw = (array.view(np.uint32) >> 16).astype("<u2").tobytes()
        offsets = [len(body), len(body) + len(raw)]
        header[name] = {"dtype": "BF16", "shape": list(array.shape), "data_offsets": offsets}
        body += raw
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + body)


def spoil(folder: Path, how: str) -> None:
    config = json.loads((folder / CONFIG).read_bytes())
    changed = {
        "another rank": {"r": 3}, "another alpha": {"lora_alpha": 1}, "DoRA": {"use_dora": True},
        "another kind": {"peft_type": "IA3"},
    }.get(how)  # fmt: skip
    if changed is not None:
        (folder / CONFIG).write_text(json.dumps(config | changed))
    elif how == "no configuration that can be read":
        (folder / CONFIG).write_text("[")
    elif how == "no weights":
        (folder / WEIGHTS).unlink()
    elif how == "no weight file":
        (folder / WEIGHTS).write_bytes(b"\0" * 64)
    elif how == "too large":
        (folder / WEIGHTS).write_bytes(b"\0" * 10_000_000)
    elif how == "whole numbers":
        rewrite(folder, lambda found: {name: array.astype(np.int32) for name, array in found.items()})
    elif how == "not finite":
        rewrite(folder, lambda found: {name: np.full_like(array, np.nan) for name, array in found.items()})
    else:
        rewrite(folder, lambda found: dict(list(found.items())[1:]))


@pytest.mark.parametrize(
    "how",
    ["another rank", "another alpha", "DoRA", "another kind", "no configuration that can be read", "no weights",
     "no weight file", "too large", "whole numbers", "not finite", "a tensor is missing"],
)  # fmt: skip
def test_an_adapter_of_another_kind_is_refused(how: str, trained: Path, document: TaskDocument) -> None:
    spoil(trained, how)
    with pytest.raises(DataError) as refused:
        read_adapter(trained, document)
    assert refused.value.code == "D048"
