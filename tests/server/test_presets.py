"""`task new`: each recipe is a task that can be published, with the values of its source."""

import json
import tomllib
from pathlib import Path

import pytest

from fedit_protocol.task import Task
from fedit_server.cli import run
from fedit_server.clock import utc_now
from fedit_server.commands.task_new import PresetName
from fedit_server.home.folder import Home, create_identity
from fedit_server.tasks.files import load_task
from fedit_server.tasks.presets import PRESETS, preset_text


def task_of(name: str) -> Task:
    return Task.model_validate(tomllib.loads(preset_text(name, "notes", "Notes", "org/name")))


def test_the_command_knows_every_preset() -> None:
    assert {str(name) for name in PresetName} == set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_task_file(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "task.toml"
    assert run(["task", "new", "--preset", name, "--model", "org/name", "--title", "Notes", "--out", str(file)]) == 0
    assert load_task(file) == task_of(name)
    assert run(["task", "new", "--preset", name, "--out", str(file)]) == 2
    assert "FEDIT-U135" in capsys.readouterr().err


def test_a_new_file_is_published_by_the_first_up_or_beside_the_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, home = tmp_path / "my task.toml", tmp_path / "home"
    new = ["--home", str(home), "task", "new", "--out", str(file)]
    assert run(new) == 0
    assert f"then: fedit-server up --task '{file}'" in capsys.readouterr().out
    assert not home.exists()
    create_identity(Home(home), "Notes", utc_now())
    file.unlink()
    assert run(new) == 0
    assert f"then: fedit-server task create '{file}'" in capsys.readouterr().out
    file.unlink()
    assert run(["--home", str(tmp_path / "other"), "--server", "https://there", *new[2:]]) == 0
    assert f"then: fedit-server task create '{file}'" in capsys.readouterr().out


def test_the_recipe_is_shepherd_s() -> None:
    task = task_of("shepherd")
    training = task.training
    assert (training.batch_size, training.micro_batch_size, training.epochs, training.learning_rate) == (
        64,
        8,
        10,
        3e-4,
    )
    assert (task.adapter.rank, task.adapter.alpha, task.adapter.dropout) == (16, 16, 0.05)
    assert (task.adapter.target_modules, task.prompt.template) == (("q_proj",), "alpaca")
    assert (task.prompt.train_on_inputs, task.prompt.cutoff_tokens, training.held_out_fraction) == (True, 512, 0)
    assert (training.schedule, training.batching, task.base.quantization) == ("linear", "padded", "int8")
    example = task_of("shepherd-example")
    assert (example.adapter.rank, example.training.epochs, example.training.micro_batch_size) == (8, 2, 32)
    assert set(example.adapter.target_modules) == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert example.training.batching == "grouped"
    paper = task_of("paper")
    assert (paper.training.learning_rate, paper.round.cohort_size) == (1.5e-4, 5)


@pytest.mark.parametrize(("name", "steps"), [("shepherd", 240), ("shepherd-example", 48), ("paper", 6)])
def test_the_range_holds_the_learning_rates_of_its_steps(name: str, steps: int) -> None:
    task = task_of(name)
    reached = 1.05 * task.training.learning_rate * (steps + 1) / 2  # linear to 0
    assert task.encoding.value_range == pytest.approx(reached, rel=0.12)


def test_without_a_file_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["task", "new"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["id"] == "fedit-small"
    assert run(["--json", "task", "new"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["preset"] == "small"
