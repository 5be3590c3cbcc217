"""`chat --adapter FOLDER`: any PEFT adapter on its base answers, with nothing joined."""

import json
from pathlib import Path

import pytest

from fedit_client.cli import invoke
from fedit_protocol.encoding import digest_of
from fedit_protocol.peft_folder import CONFIG, Edition
from fedit_server.adapters.peft_folder import write_peft_folder

from ..tiny_llama import tiny_document, write_adapter

pytestmark = pytest.mark.training


@pytest.fixture
def folder(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PEFT folder of the tiny base, and a home in which nothing is joined."""
    monkeypatch.setenv("FEDIT_HOME", str(tmp_path / "home"))
    document = tiny_document(base)
    content = write_adapter(document, tmp_path / "weights", zero_b=False).read_bytes()
    write_peft_folder(tmp_path / "mine", document, content, Edition(version=1, digest=digest_of(content)))
    return tmp_path / "mine"


@pytest.mark.slow
def test_an_adapter_answers_beside_its_base(base: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["chat", "--adapter", str(folder), "--compare", "base", "--prompt", "hello", "--max-tokens", "5"]
    assert invoke([*words, "--model", str(base), "--template", "alpaca", "--device", "cpu", "--json"]) == 0
    answers = json.loads(capsys.readouterr().out.splitlines()[-1])["data"]["answers"]
    assert set(answers) == {"mine", "base"}


@pytest.mark.parametrize(
    ("words", "code", "fix"),
    [
        (("--adapter", "mine", "--version", "1", "--prompt", "a"), "U001", "--compare base"),
        (("--adapter", "mine", "--compare", "3", "--prompt", "a"), "U001", "--compare base"),
        (("--adapter", "mine", "--no-input"), "U002", "--prompt Hello"),
        (("--adapter", "absent", "--prompt", "a", "--device", "cpu"), "M001", "PEFT_FOLDER"),
    ],
)
def test_what_cannot_be_is_refused(
    words: tuple[str, ...], code: str, fix: str, folder: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(folder.parent)
    invoke(["chat", *words])
    said = capsys.readouterr().err
    assert f"FEDIT-{code}" in said
    assert fix in next(line for line in said.splitlines() if line.startswith("  fix:"))


def test_an_adapter_that_names_no_base_needs_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"base_model_name_or_path": None}))
    assert invoke(["chat", "--adapter", str(folder), "--prompt", "a", "--device", "cpu"]) == 5
    assert "--model BASE" in capsys.readouterr().err
