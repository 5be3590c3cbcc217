"""Down the ladder for real: a process whose memory is limited, or that is killed, trains on with less at once."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from fedit_client.data import Record, records_from
from fedit_client.hardware.history import MachineHistory, Run, recipe_of
from fedit_client.training import LocalResult, TrainingProgress, TrainingRequest, WorkerTrainer
from fedit_client.training.descent import Descent

from ..tiny_llama import tiny_document, write_adapter
from .rows import SETTINGS, cpu, letters
from .test_worker import ENDLESS, instead_of_ours, workers

pytestmark = pytest.mark.training

_ROOM = 150_000_000
"""More than four of the long rows take, and less than eight."""

TRAINING = {**SETTINGS["training"], "local_steps": 2}


def asked(base: Path, folder: Path, rows: list[Record], **sections: Any) -> TrainingRequest:
    document = tiny_document(base, **{**SETTINGS, "training": TRAINING, **sections})
    adapter = write_adapter(document, folder / "global.safetensors")
    return TrainingRequest(document, base, adapter, rows, b"seed", cpu("fp32"))


def long_rows(count: int = 8) -> list[Record]:
    """Rows that fill every token a task allows."""
    texts = ["".join(chr(97 + (n * step) % 26) for n in range(4000)) for step in range(1, count + 1)]
    return list(records_from([{"prompt": "Go on.", "completion": text} for text in texts]).records)


def limited(room: int, notes: list[str]) -> Callable[[TrainingProgress], None]:
    """Give each worker so many bytes beyond what it holds once its base is loaded: a real limit of the kernel."""
    import resource

    def tell(progress: TrainingProgress) -> None:
        if progress.note:
            notes.append(progress.note)
        if (progress.stage, progress.done) == ("load", 1):
            worker = workers()[0]
            most = psutil.Process(worker.pid).memory_info().vms + room
            resource.prlimit(worker.pid, resource.RLIMIT_AS, (most, most))

    return tell


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of another process as Linux can")
async def test_a_process_that_runs_out_of_memory_trains_on_with_fewer_rows_at_once(base: Path, tmp_path: Path) -> None:
    sections = {
        "prompt": {"cutoff_tokens": 2048, "template": "alpaca_short"},
        "training": {**TRAINING, "batch_size": 8, "micro_batch_size": 8, "batching": "padded"},
    }
    request, notes = asked(base, tmp_path, long_rows(), **sections), list[str]()
    history = MachineHistory(tmp_path / "machine.json")
    trainer = WorkerTrainer(tmp_path / "kept", every_s=0, history=history)
    result = await trainer.train(request, limited(_ROOM, notes))
    assert notes
    assert notes[0].startswith("out of memory: 4 rows in memory at once instead of 8")
    assert np.isfinite(result.update).all()
    again = MachineHistory(tmp_path / "machine.json").lowered(request.document, request.plan)
    assert 0 < again.micro_batch_size < 8
    roomy = await WorkerTrainer().train(request, lambda _: None)
    np.testing.assert_allclose(result.update, roomy.update, atol=2e-3)


async def test_a_process_that_is_killed_twice_goes_one_rung_down(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = ENDLESS.replace(
        "channel.send(",
        """plan = channel.receive()["plan"]
    if plan["checkpointing"]:
        channel.send("error", error="DeviceError", message="seen", code="H009", where=None, fix=None)
    channel.send(""",
    )
    request, notes = asked(base, tmp_path, letters()), list[str]()
    request = replace(request, plan=replace(request.plan, micro_batch_size=1))

    def kill(progress: TrainingProgress) -> None:
        notes.extend([progress.note] if progress.note else [])
        for worker in workers() if progress.stage == "train" else []:
            worker.kill()

    with instead_of_ours(monkeypatch, tmp_path, code), pytest.raises(Exception, match="seen"):
        await WorkerTrainer().train(request, kill)
    assert notes == [
        "the training process was killed, probably for want of memory; it begins again",
        "out of memory: activations are computed twice instead of kept: about a third slower",
    ]


def trained(request: TrainingRequest) -> Any:
    from fedit_client.training.local import load, train_here

    return train_here(load(request.document, request.base, request.plan), request, lambda _: None)


def test_what_the_ladder_lowers_changes_memory_and_not_what_is_learned(base: Path, tmp_path: Path) -> None:
    request = asked(base, tmp_path, letters())
    whole = trained(request)
    lowered = replace(request.plan, micro_batch_size=1, checkpointing=True, loss_chunk=8)
    again = trained(replace(request, plan=lowered))
    np.testing.assert_allclose(again.update, whole.update, atol=1e-4)
    assert again.tokens == whole.tokens
    assert whole.peak_bytes > 10**8
    assert whole.tokens_per_second > 0


def test_a_progress_of_training_tells_what_it_takes_of_its_device(base: Path, tmp_path: Path) -> None:
    from fedit_client.training.local import load, train_here

    request, seen = asked(base, tmp_path, letters()), list[TrainingProgress]()
    train_here(load(request.document, request.base, request.plan), request, seen.append)
    uses = [progress.use for progress in seen if progress.stage == "train"]
    assert all(use is not None and use.gpu_share == 0 and use.used_bytes > 10**8 for use in uses)


def test_fewer_tokens_are_counted_as_cut_rows(base: Path, tmp_path: Path) -> None:
    sections = {"prompt": {"cutoff_tokens": 512, "min_cutoff_tokens": 128, "template": "alpaca_short"}}
    request = asked(base, tmp_path, [*long_rows(2), *letters(6)], **sections)
    assert trained(request).cut_rows == 2
    shorter = trained(replace(request, plan=replace(request.plan, max_tokens=128)))
    assert shorter.cut_rows == 2
    assert shorter.tokens < trained(request).tokens


def test_a_round_leaves_its_speed_and_peak_to_the_next(base: Path, tmp_path: Path) -> None:
    request, path = asked(base, tmp_path, letters()), tmp_path / "machine.json"
    update = np.zeros(request.document.layout.size, np.float32)
    result = LocalResult(update, 20, 1000, 1.0, None, None, 30.0, tokens_per_second=50.0, peak_bytes=10**9)
    Descent(MachineHistory(path)).done(request, result)
    assert MachineHistory(path).run_of(request.document, request.plan) == Run(
        50.0, 10.0, 10**9, 0, recipe_of(request.plan)
    )


async def test_another_interpreter_trains_where_one_is_named(base: Path, tmp_path: Path) -> None:
    request, wrapper = asked(base, tmp_path, letters()), tmp_path / "python"
    path = ":".join(entry for entry in sys.path if entry)
    wrapper.write_text(f'#!/bin/sh\ntouch {tmp_path}/used\nPYTHONPATH={path} exec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    result = await WorkerTrainer().train(
        replace(request, plan=replace(request.plan, python=str(wrapper))), lambda _: None
    )
    assert result.examples
    assert (tmp_path / "used").exists()
