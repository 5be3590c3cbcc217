"""Public benchmarks on a tiny model: the harness itself, on a task and rows of this machine."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedit_client.evaluation.benchmarks import BenchmarkRequest, WorkerBenchmarks
from fedit_protocol.errors import EvaluationError

from ..tiny_llama import tiny_document, write_adapter
from .rows import SETTINGS, cpu

pytestmark = [pytest.mark.training, pytest.mark.slow]
pytest.importorskip("lm_eval")
TASK = """
task: tiny_choice
dataset_path: json
dataset_kwargs:
  data_files: {rows}
test_split: train
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = [{"question": f"{n}?", "choices": [" ok", " no"], "answer": n % 2} for n in range(8)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "tiny.yaml").write_text(TASK.format(rows=folder / "rows.jsonl"))
    return folder


def peft_folder(base: Path, folder: Path) -> Path:
    document: Any = tiny_document(base, **SETTINGS)
    folder.mkdir()
    write_adapter(document, folder / "adapter_model.safetensors", zero_b=False)
    spec = document.task.adapter
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": spec.rank, "lora_alpha": spec.alpha,
              "target_modules": list(spec.target_modules), "base_model_name_or_path": str(base)}  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


async def test_the_harness_scores_base_and_adapter(base: Path, tasks: Path, tmp_path: Path) -> None:
    adapters = {"base": None, "tuned": peft_folder(base, tmp_path / "tuned")}
    asked = BenchmarkRequest(base, adapters, ["tiny_choice"], cpu(), tasks, rows=6)
    found = await WorkerBenchmarks().run(asked, lambda _: None)
    assert found.keys() == {"base", "tuned"}
    for scores in found.values():
        assert scores["tiny_choice"]["sample_len"] == 6
        # The question says nothing of the answer, so a model that knows nothing is right on half of them.
        assert scores["tiny_choice"]["acc"] == 0.5


async def test_a_task_that_the_harness_does_not_know_is_named(base: Path, tasks: Path) -> None:
    with pytest.raises(EvaluationError) as refused:
        await WorkerBenchmarks().run(BenchmarkRequest(base, {"base": None}, ["absent"], cpu(), tasks), lambda _: None)
    assert (refused.value.code, "absent" in str(refused.value)) == ("V005", True)


async def test_rows_that_are_not_there_are_said(base: Path, tasks: Path) -> None:
    (tasks / "rows.jsonl").unlink()
    with pytest.raises(EvaluationError) as refused:
        await WorkerBenchmarks().run(
            BenchmarkRequest(base, {"base": None}, ["tiny_choice"], cpu(), tasks), lambda _: None
        )
    assert refused.value.code == "V005"
