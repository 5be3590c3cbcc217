"""Will it fit, how long, how many megabytes: known before anything is fetched, and refused before it is too late."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fedit_client.base.fetch import Fetch
from fedit_client.base.look import imagined
from fedit_client.base.model import to_fetch
from fedit_client.cli import invoke
from fedit_client.data import records_from
from fedit_client.hardware.device import DevicePlan, Gpu, plan
from fedit_client.hardware.fit import fit_of
from fedit_client.hardware.history import MachineHistory, Run, recipe_of
from fedit_protocol.base_shapes import BaseShapes
from fedit_protocol.errors import ModelError
from fedit_protocol.task import AdapterSpec, TaskDocument

from .test_device import LAPTOP, document

MEGABYTE, GIGABYTE = 10**6, 10**9
THERE = Fetch(Path("/models/x"), Path("/models/x"), 0, 0, 10**12)


@pytest.fixture
def history(tmp_path: Path) -> MachineHistory:
    return MachineHistory(tmp_path / "machine.json")


def a_plan(task: TaskDocument) -> DevicePlan:
    return plan(task, LAPTOP, "cpu")


def test_the_answer_in_lines_and_as_data(history: MachineHistory) -> None:
    task = document()
    found = fit_of(task, a_plan(task), LAPTOP, THERE, history)
    lines = "\n".join(found.lines())
    assert f"about {found.memory_bytes / 1e9:.1f} GB of 12.0 GB free, estimated" in lines
    assert "a round (a guess, until a round was done here)" in lines
    assert "1.8 MB down a round" in lines
    assert "is here already: /models/x" in lines
    assert found.as_data()["memory_bytes"] == sum(vars(found.parts).values())
    assert json.loads(json.dumps(found.as_data())) == found.as_data()


def test_a_round_that_was_done_here_replaces_every_guess(history: MachineHistory) -> None:
    task = document()
    chosen = a_plan(task)
    history.note_run(task, chosen, Run(1000.0, 20.0, 3 * GIGABYTE, GIGABYTE, recipe_of(chosen)))
    found = fit_of(task, chosen, LAPTOP, THERE, history)
    assert (found.memory_bytes, found.measured) == (3 * GIGABYTE, True)
    assert found.time.seconds == pytest.approx(20 + 10 * 4 * 512 / 1000)
    assert "seen here before" in found.lines()[1]
    lowered = fit_of(task, replace(chosen, checkpointing=True), LAPTOP, THERE, history)
    assert not lowered.measured  # another rung takes other memory


def test_short_rows_take_less_time_than_the_longest_that_the_task_allows(history: MachineHistory) -> None:
    task = document()
    rows = records_from([{"prompt": "Say it.", "completion": "ok"}] * 20).records
    short, long = (fit_of(task, a_plan(task), LAPTOP, THERE, history, records) for records in (rows, ()))
    assert short.time.seconds < long.time.seconds


def test_what_lies_here_is_not_fetched(tmp_path: Path) -> None:
    found = to_fetch(str(tmp_path), "", tmp_path / "cache", 5 * GIGABYTE)
    assert (found.place, found.size) == (tmp_path, 0)


def test_a_hub_model_is_told_with_its_size_and_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = to_fetch("org/absent-model", "", tmp_path, 5 * GIGABYTE)
    assert (found.place, found.size, found.disk_needed) == (None, 5 * GIGABYTE, 6 * GIGABYTE)
    assert "5.0 GB to fetch into" in found.words()


def test_too_little_disk_is_refused_before_the_first_byte() -> None:
    tight = Fetch(None, Path("/cache"), 5 * GIGABYTE, 5 * GIGABYTE, 6 * GIGABYTE - 1)
    with pytest.raises(ModelError) as refused:
        tight.check()
    assert (refused.value.code, "needs 6.0 GB of disk" in str(refused.value)) == ("M005", True)
    replace(tight, disk_free=6 * GIGABYTE).check()


def a_base(folder: Path) -> Path:
    """A folder with a Llama's shapes and config, two layers of width 64."""
    shapes = {"q_proj": (64, 64), "k_proj": (32, 64), "v_proj": (32, 64), "o_proj": (64, 64)}
    tensors = {
        f"model.layers.{layer}.self_attn.{name}.weight": np.zeros(shape, np.float32)
        for layer in range(2)
        for name, shape in shapes.items()
    } | {"model.embed_tokens.weight": np.zeros((300, 64), np.float32)}
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    config = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128, "vocab_size": 300}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_base_that_no_task_names_can_be_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = a_base(tmp_path / "base")
    found = imagined(str(base), None)
    assert (found.linear_parameters, found.vocabulary, found.layers) == (2 * 192 * 64, 300, 2)
    assert invoke(["--home", str(tmp_path / "home"), "fit", str(base), "--json", "--device", "cpu"]) == 0
    told = json.loads(capsys.readouterr().out)["data"]
    assert told["memory_bytes"] > 10 * MEGABYTE
    assert told["base"] == str(base)


def test_a_base_without_the_adapters_layers_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    save_file({"h.0.attn.weight": np.zeros((4, 4), np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    assert invoke(["--home", str(tmp_path / "home"), "fit", str(folder)]) == 5
    assert "FEDIT-M009" in capsys.readouterr().err


def test_without_a_task_and_a_base_there_is_nothing_to_look_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["--home", str(tmp_path), "fit"]) == 4
    assert invoke(["--home", str(tmp_path), "prefetch"]) == 4


def test_a_base_is_fetched_without_a_task_where_it_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, home = tmp_path / "rows.jsonl", ["--home", str(tmp_path / "home")]
    rows.write_text('{"prompt":"a","completion":"b"}\n')
    assert invoke([*home, "data", "preview", str(rows), "--model", "org/absent"]) == 5
    (fix,) = [line.split("fix:")[1] for line in capsys.readouterr().err.splitlines() if "fix:" in line]
    assert fix.split() == ["fedit-client", *home, "prefetch", "--model", "org/absent"]
    assert invoke([*fix.split()[1:]]) == 5
    assert "FEDIT-M001" in capsys.readouterr().err
    base = a_base(tmp_path / "base")
    assert invoke([*home, "prefetch", "--model", str(base)]) == 0
    assert f"was here already: {base}" in capsys.readouterr().out
    assert invoke([*home, "data", "preview", str(rows), "--model", "/nowhere"]) == 5
    assert "there is no folder /nowhere" in capsys.readouterr().err


def test_a_7b_on_a_data_centre_card_is_guessed_within_half_of_what_was_measured(history: MachineHistory) -> None:
    """On an H200 10,448 tokens a second went through a 7B in NF4; NVML names 16,896 cores at 1.98 GHz."""
    shapes = BaseShapes({"l.q_proj": (1, 1)}, 6_738_000_000, 4096, 32, 11008, 32000)
    task = TaskDocument.of(document().task.model_copy(update={"adapter": AdapterSpec(target_modules=("q_proj",))}),
                           shapes, 0).model_copy(update={"linear_parameters": 6_476_000_000})  # fmt: skip
    card = Gpu(0, "NVIDIA H200", 140 * GIGABYTE, 139 * GIGABYTE, (9, 0), flops=2 * 16_896 * 1.98e9)
    machine = replace(LAPTOP, gpus=(card,))
    found = fit_of(task, plan(task, machine), machine, THERE, history)
    tokens = task.task.training.local_steps * task.task.training.batch_size * 512
    measured = tokens / 10_448
    assert 0.5 < (found.time.seconds - 10) / measured < 2
