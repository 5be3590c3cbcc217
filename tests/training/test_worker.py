"""The training process from outside: same result as inside, and gone whenever nobody waits for it."""

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from fedit_client.training import TrainingProgress, TrainingRequest, WorkerTrainer, trainer
from fedit_client.training.process import Worker, started
from fedit_protocol.errors import DataError, DeviceError, FeditError, ModelError, StorageError, TaskRefusedError
from fedit_protocol.task import Template

from ..tiny_llama import tiny_document, write_adapter
from .rows import SETTINGS, cpu, letters

pytestmark = pytest.mark.training


def request(base: Path, folder: Path, **training: Any) -> TrainingRequest:
    sections = {**SETTINGS, "training": {**SETTINGS["training"], **training}}
    document = tiny_document(base, **sections)
    return TrainingRequest(
        document, base, write_adapter(document, folder / "g.safetensors"), letters(), b"seed", cpu("nf4")
    )


async def test_a_worker_gives_what_this_process_would_give_and_leaves_nothing_on_disk(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedit_client.training.local import load, train_here

    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    asked, told, seen = request(base, tmp_path), list[TrainingProgress](), set[Path]()

    def tell(progress: TrainingProgress) -> None:
        told.append(progress)
        seen.update(temporary.rglob("*"))

    result = await WorkerTrainer().train(asked, tell)
    here = train_here(load(asked.document, asked.base, asked.plan), asked, lambda _: None)
    assert result.update.tobytes() == here.update.tobytes()
    assert replace(result, update=here.update, seconds=here.seconds) == replace(here, update=here.update)
    assert [told[0].stage, told[-1].stage] == ["load", "evaluate"]
    assert (seen, list(temporary.iterdir())) == (set(), [])
    assert no_worker_is_left()


async def test_the_workers_own_errors_come_back(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as refused:
        await WorkerTrainer().train(replace(request(base, tmp_path), global_adapter=Path("missing")), lambda _: None)
    assert (refused.value.code, refused.value.where) == ("M004", "missing")
    assert no_worker_is_left()


@pytest.mark.parametrize("kind", [DataError, DeviceError, ModelError, StorageError, TaskRefusedError])
async def test_every_kind_of_error_comes_back_as_it_was(
    kind: type[FeditError], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = f"""
        from fedit_client.training.room import run
        from fedit_protocol.errors import {kind.__name__}
        def work(channel, request, plan):
            raise {kind.__name__}("it broke", code="H999", where="here", fix="mend it")
        run(work)
    """
    async with stand_in(monkeypatch, tmp_path, code) as worker:
        await worker.send({"plan": vars(cpu())})
        with pytest.raises(kind, match="it broke") as refused:
            await worker.receive()
    assert (refused.value.code, refused.value.where, refused.value.fix) == ("H999", "here", "mend it")


ENDLESS = """
    import time
    from fedit_client.training.channel import Channel
    channel = Channel()
    channel.send("progress", stage="train", done=1, total=2)
    time.sleep(600)
"""


async def test_cancelling_kills_the_worker_at_once(base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    begun = asyncio.Event()
    with instead_of_ours(monkeypatch, tmp_path, ENDLESS):
        asked = request(base, tmp_path)
        training = asyncio.create_task(WorkerTrainer().train(asked, lambda _: begun.set()))
        await begun.wait()
        assert len(workers()) == 1
        training.cancel()
        with pytest.raises(asyncio.CancelledError):
            await training
    assert no_worker_is_left()


async def test_a_killed_worker_is_told_as_want_of_memory(
    base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def kill(progress: TrainingProgress) -> None:
        if progress.stage == "train":
            workers()[0].kill()

    lowest = replace(cpu("nf4"), micro_batch_size=1, checkpointing=True, loss_chunk=32, available_bytes=10**9)
    with instead_of_ours(monkeypatch, tmp_path, ENDLESS), pytest.raises(DeviceError) as refused:
        await WorkerTrainer().train(replace(request(base, tmp_path), plan=lowest), kill)
    assert refused.value.code == "H003"
    assert "out of memory even at micro-batch 1: 512 tokens need" in str(refused.value)
    assert "free are 1.0 GB" in str(refused.value)


def watched(base: Path, folder: Path) -> TrainingRequest:
    """A run with dropout that keeps a checkpoint after every step."""
    asked = request(base, folder, local_steps=12)
    adapter = asked.document.task.adapter.model_copy(update={"dropout": 0.3})
    prompt = asked.document.task.prompt.model_copy(update={"template": Template.ALPACA_SHORT})
    task = asked.document.task.model_copy(update={"adapter": adapter, "prompt": prompt})
    return replace(asked, document=asked.document.model_copy(update={"task": task}))


@pytest.mark.slow  # two workers load the base and the training stack
async def test_a_killed_worker_goes_on_from_its_last_step_with_the_same_bits(base: Path, tmp_path: Path) -> None:
    from fedit_client.training.local import load, train_here

    asked, steps = watched(base, tmp_path), list[int]()

    def kill_once(progress: TrainingProgress) -> None:
        if progress.stage == "train":
            steps.append(progress.done)
            if steps == [1, 2, 3]:
                workers()[0].kill()

    result = await WorkerTrainer(tmp_path / "kept", every_s=0).train(asked, kill_once)
    whole = train_here(load(asked.document, asked.base, asked.plan), asked, lambda _: None)
    assert result.update.tobytes() == whole.update.tobytes()
    assert replace(result, update=whole.update, seconds=0) == replace(whole, seconds=0)
    # A step that was told may have to be made again, since it was not kept yet: that one, and no other.
    assert {after - before for before, after in pairwise(steps)} <= {0, 1}
    assert (steps[-1], len(steps)) in {(12, 12), (12, 13)}
    assert list((tmp_path / "kept").iterdir()) == []
    assert no_worker_is_left()


@pytest.mark.slow
async def test_a_long_pause_ends_the_worker_and_changes_nothing(base: Path, tmp_path: Path) -> None:
    from fedit_client.training.local import load, train_here

    asked, seen = watched(base, tmp_path), list[psutil.Process]()

    def pause_once(progress: TrainingProgress) -> None:
        if progress.stage == "train" and progress.done == 2 and not seen:
            seen.extend(workers())
            asked.pause.pause("another program uses the GPU")

    async def resume_when_gone() -> None:
        await asked.pause.until_paused()
        await asyncio.to_thread(psutil.wait_procs, seen, timeout=60)
        asked.pause.resume()

    resuming = asyncio.create_task(resume_when_gone())
    result = await WorkerTrainer(tmp_path / "kept", every_s=3600, hold_s=0.1).train(asked, pause_once)
    await resuming
    whole = train_here(load(asked.document, asked.base, asked.plan), asked, lambda _: None)
    assert result.update.tobytes() == whole.update.tobytes()
    assert not seen[0].is_running()
    assert list((tmp_path / "kept").iterdir()) == []


BAD_UPDATES = {
    "of another length": "np.zeros(3, np.float32)",
    "of another type": "np.zeros({size}, np.float64)",
    "with a NaN": "np.full({size}, np.nan, np.float32)",
}


@pytest.mark.parametrize("update", BAD_UPDATES.values(), ids=BAD_UPDATES)
async def test_an_update_is_checked_on_this_side_too(
    update: str, base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = request(base, tmp_path)
    code = f"""
        import numpy as np
        from fedit_client.training.channel import Channel
        channel = Channel()
        channel.receive()
        channel.send_with({update.format(size=asked.document.layout.size)}.tobytes(), "result")
    """
    with instead_of_ours(monkeypatch, tmp_path, code), pytest.raises(DeviceError, match="unusable update"):
        await WorkerTrainer().train(asked, lambda _: None)


async def test_a_worker_that_dies_in_the_middle_of_its_update_is_no_hang(
    base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = request(base, tmp_path)
    code = f"""
        from fedit_client.training.channel import Channel
        channel = Channel()
        channel.receive()
        channel.send("result", bytes={asked.document.layout.size * 4})
        raise SystemExit(5)
    """
    with instead_of_ours(monkeypatch, tmp_path, code), pytest.raises(DeviceError, match="status 5"):
        await WorkerTrainer().train(asked, lambda _: None)


async def test_a_crash_keeps_the_last_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with stand_in(monkeypatch, tmp_path, "import sys; sys.exit('boom')") as worker:
        with pytest.raises(DeviceError) as refused:
            await worker.receive()
    assert (refused.value.code, refused.value.where) == ("H004", "boom")
    assert "status 1" in str(refused.value)


async def test_a_worker_that_dies_before_it_reads_is_no_hang(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with stand_in(monkeypatch, tmp_path, "raise SystemExit(3)") as worker:
        await worker.send({"records": "x" * 5_000_000})
        with pytest.raises(DeviceError, match="status 3"):
            await worker.receive()


async def test_libraries_cannot_spoil_the_pipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = """
        from fedit_client.training.channel import Channel
        channel = Channel()
        print("a library's advice")
        channel.send("result", value=channel.receive()["value"])
    """
    async with stand_in(monkeypatch, tmp_path, code) as worker:
        await worker.send({"value": 7})
        assert await worker.receive() == {"kind": "result", "value": 7}


async def test_a_missing_library_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = """
        import sys
        sys.modules["transformers"] = None
        from fedit_client.training.room import run
        run(lambda channel, request, plan: None)
    """
    async with stand_in(monkeypatch, tmp_path, code) as worker:
        await worker.send({"plan": vars(cpu())})
        with pytest.raises(DeviceError, match="needs transformers") as refused:
            await worker.receive()
    assert (refused.value.code, refused.value.fix) == ("H005", 'pip install "fedit[train]"')


async def test_out_of_memory_has_its_own_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = """
        from fedit_client.training.room import run
        def work(channel, request, plan):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
        run(work)
    """
    async with stand_in(monkeypatch, tmp_path, code) as worker:
        await worker.send({"plan": vars(cpu())})
        with pytest.raises(DeviceError) as refused:
            await worker.receive()
    assert refused.value.code == "H003"


@pytest.mark.skipif(sys.platform == "win32", reason="kills with a POSIX signal")
def test_no_worker_survives_its_parent(tmp_path: Path) -> None:
    """The parent dies without a chance to clean up; its worker notices by the end of its own input."""
    (tmp_path / "endless.py").write_text(
        "import time\nfrom fedit_client.training.channel import Channel\nChannel()\ntime.sleep(600)\n"
    )
    parent_code = (
        "import asyncio, os, sys\n"
        f"sys.path[:0] = {[str(tmp_path), *sys.path]!r}\n"
        "from pathlib import Path\n"
        "from fedit_client.training import process\n"
        "from fedit_client.hardware.device import DevicePlan\n"
        f"plan = DevicePlan(*{('cpu', 1, 'fp32', 'float32', '', 0, 0)!r})\n"
        "async def main():\n"
        "    async with process.started('endless', plan, Path('.')) as worker:\n"
        "        print(worker._process.pid, flush=True)\n"
        "        await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", parent_code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    psutil.wait_procs([worker], timeout=20)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


@asynccontextmanager
async def stand_in(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> AsyncIterator[Worker]:
    """A worker process that runs this code instead of ours, through the same pipes."""
    put_module(monkeypatch, folder, code)
    async with started("stand_in", cpu(), folder) as worker:
        yield worker


@contextmanager
def instead_of_ours(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> Iterator[None]:
    """WorkerTrainer starts this code within the block."""
    put_module(monkeypatch, folder, code)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "_WORKER", "stand_in")
        yield


def put_module(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> None:
    (folder / "stand_in.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(str(folder))


def workers() -> list[psutil.Process]:
    """The living worker processes of this one."""
    return [child for child in psutil.Process(os.getpid()).children() if {"-P", "-m"} <= set(child.cmdline())]


def no_worker_is_left() -> bool:
    return workers() == []
