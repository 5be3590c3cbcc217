"""`data preview` and the lengths of `data check`: the tokens that training will see, from a process without torch."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedit_client.cli import invoke
from fedit_client.console import Console
from fedit_client.conversations.previewing import rendered, tokens_per_round
from fedit_client.data import Shape, records_from
from fedit_client.training.preview import Stretch, view_tokens
from fedit_client.training.tokenize import tokenize
from fedit_protocol.errors import ModelError
from fedit_protocol.task import PromptSpec, Template, TrainingSpec
from fedit_protocol.testing import small_task

from ..joined_home import joined_home

SHORT = {"prompt": "One?", "completion": "ok é"}
LONG = {"prompt": "One?", "completion": "x" * 100}
HIDDEN = {"prompt": "y" * 200, "completion": "ok"}


def test_a_preview_shows_what_training_sees(base: Path, tokenizer: Any) -> None:
    """Sizes and masks are those of `tokenize`; nothing is cut away from what is shown."""
    text = records_from([{"text": "One."}], shape=Shape.TEXT).records
    records, spec = (*records_from([SHORT, LONG, HIDDEN]).records, *text), PromptSpec(cutoff_tokens=64)
    found = view_tokens(records, base, spec, shown=[0, 1, 3])
    trained = tokenize(records, tokenizer, spec)
    sizes = [(min(row.size, 64), row.is_useless) for row in found.sizes]
    assert [size for size, is_useless in sizes if not is_useless] == [len(row.ids) for row in trained.examples]
    assert [is_useless for _, is_useless in sizes] == [False, False, True, False]
    assert (trained.cut, trained.skipped) == (sum(row.size > 64 for row in found.sizes), 1)
    short, long, plain = found.shown
    assert plain == (Stretch("One.<|im_end|>", "trained"),)
    assert short == (
        Stretch("<|im_start|>user\nOne?<|im_end|>\n<|im_start|>assistant\n", "given"),
        Stretch("ok é<|im_end|>", "trained"),
        Stretch("\n", "given"),
    )
    assert "".join(stretch.text for stretch in long) == (
        "<|im_start|>user\nOne?<|im_end|>\n<|im_start|>assistant\n" + "x" * 100 + "<|im_end|>\n"
    )
    assert [stretch.kind for stretch in long] == ["given", "trained", "cut"]


@pytest.mark.slow
def test_rows_that_would_stop_a_round_are_named_and_stop_nothing_here(base: Path, tmp_path: Path) -> None:
    chat = {"messages": [{"role": role, "content": "x"} for role in ("user", "assistant") * 2]}
    records = (*records_from([SHORT]).records, *records_from([chat]).records)
    found = view_tokens(records, base, PromptSpec(template=Template.ALPACA), shown=[0, 1])
    assert {place: error.code for place, error in found.refused.items()} == {1: "D015"}
    assert (found.sizes[1].size, found.shown[1]) == (0, ())
    assert found.shown[0]
    with pytest.raises(ModelError):
        view_tokens(records, tmp_path, PromptSpec())


def test_the_process_that_shows_loads_no_torch() -> None:
    code = (
        "import sys; from fedit_client.training.showing import hide_torch; hide_torch()\n"
        "import fedit_client.training.tokenizer, fedit_client.training.tokenize\n"
        "sys.exit(bool(sys.modules['torch']) or 'peft' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(filter(None, sys.path))})


@pytest.fixture
def home(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that joined a task with a limit of 64 tokens, whose base lies here, and rows beside it."""
    document = small_task(3)
    task = document.task.model_copy(update={"prompt": PromptSpec(cutoff_tokens=64)})
    joined_home(tmp_path / "home", document.model_copy(update={"task": task}), {}, model=str(base))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [SHORT] * 8 + [LONG, HIDDEN]))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def test_the_preview_command_shows_rows_and_figures(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["--home", str(home), "data", "preview", "rows.jsonl", "-n", "2"]) == 0
    told = capsys.readouterr().out
    assert "<|im_start|>assistant\n[[ok é<|im_end|>]]" in told
    assert len(re.findall(r"^── rows\.jsonl line ", told, re.MULTILINE)) == 2
    assert "cut at 64 tokens: 2 rows\n1 of them is not used: nothing of the answer is left" in told
    assert re.search(r"^about [\d,]+ tokens a round on this device\nnothing left this machine$", told, re.MULTILINE)
    assert "← limit" in told


ROW = (Stretch("One?\n", "given"), Stretch("ok\x1b]0;owned\x07", "trained"), Stretch("more", "cut"))
LOOKS = {
    "colours": ({"FORCE_COLOR": "1"}, "One?\n\x1b[1;32mok�]0;owned�\x1b[0m\x1b[9;31mmore\x1b[0m\n"),
    "no colours": ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, "One?\n\x1b[4mok�]0;owned�\x1b[0m\x1b[9mmore\x1b[0m\n"),
    "no terminal": ({}, "One?\n[[ok�]0;owned�]]{{more}}\n"),
}


@pytest.mark.parametrize(("variables", "text"), LOOKS.values(), ids=LOOKS)
def test_trained_tokens_are_coloured_or_underlined_or_in_brackets(
    variables: dict[str, str], text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would command the terminal is shown as a sign that it was there: rows may come from strangers."""
    for name in ("FORCE_COLOR", "NO_COLOR", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    console = Console()
    console.out.print(rendered(console, ROW))
    assert capsys.readouterr().out == text


@pytest.mark.slow
def test_check_counts_tokens_where_the_base_is_here(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["--home", str(home), "--json", "data", "check", "rows.jsonl"]) == 0
    answer = json.loads(capsys.readouterr().out)["data"]
    assert (answer["lengths"]["unit"], answer["lengths"]["limit"]) == ("tokens", 64)
    found = {finding["code"]: [place["line"] for place in finding["places"]] for finding in answer["findings"]}
    assert (found["D032"], found["D035"]) == ([9, 10], [10])


def test_a_base_that_is_not_here_is_not_fetched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    joined_home(tmp_path / "home", small_task(3), {}, model=str(tmp_path / "absent"))
    (tmp_path / "rows.jsonl").write_text(json.dumps(SHORT))
    arguments = ["--home", str(tmp_path / "home"), "--json", "data", "preview", str(tmp_path / "rows.jsonl")]
    assert invoke(arguments) == 5
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "FEDIT-M001"


def test_tokens_of_a_round_follow_from_steps_or_from_passes() -> None:
    assert tokens_per_round(TrainingSpec(local_steps=10, batch_size=8), rows=5, mean=100.0) == 8000
    passes = TrainingSpec(local_steps=0, epochs=2.0, held_out_fraction=0.5)
    assert tokens_per_round(passes, rows=10, mean=100.0) == 1000
