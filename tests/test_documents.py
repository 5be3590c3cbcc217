"""Documents say what the code does: commands, fields and thresholds in them are compared with it."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from fedit_protocol.messages import CohortRules
from fedit_protocol.secagg.thresholds import Thresholds

from .documents import ROOT, references

PAGES = ("README.md", "examples/README.md", "fedit_server/OPERATING.md")


def command_lines() -> list[str]:
    """Every line of a document's code blocks, or of its running text, that starts one of our programs."""
    found: set[str] = set()
    for page in PAGES:
        text = (ROOT / page).read_text("utf-8")
        found |= set(re.findall(r"^\$ (fedit-(?:client|server) .+?)(?:\s{2,}#.*)?$", text, re.MULTILINE))
        found |= set(re.findall(r"`(fedit-(?:client|server) [^`]+)`", text))
    return sorted(found)


def programs() -> dict[str, Any]:
    """The command trees of both programs, as typer builds them."""
    from fedit_client.cli import app as client
    from fedit_server.cli import app as server

    return {"fedit-client": get_command(client), "fedit-server": get_command(server)}


def test_every_reference_is_the_one_that_the_code_makes() -> None:
    stale = [page.name for page, text in references().items() if page.read_text("utf-8") != text]
    assert stale == [], "python -m tests.documents"


def test_the_references_say_what_an_option_can_be() -> None:
    text = (ROOT / "fedit_client/COMMANDS.md").read_text("utf-8")
    for option, values in (("--on-error", "stop, skip"), ("--device", "auto, cpu, cuda"), ("--precision", "nf4, int8")):
        rows = [line for line in text.splitlines() if line.startswith(f"| `{option}` |")]
        assert rows
        assert [row for row in rows if values not in row] == []


@pytest.mark.parametrize("line", command_lines())
def test_every_command_in_a_document_exists(line: str) -> None:
    words = shlex.split(line)
    command = programs()[words.pop(0)]
    everywhere = {option for parameter in command.params for option in parameter.opts}
    while words and not words[0].startswith("-") and (known := getattr(command, "commands", None)):
        assert words[0] in known, f"{line}: {words[0]} is no command"
        command = known[words.pop(0)]
    if default := getattr(command, "default", None):
        command = command.commands[default]
    options = {option for parameter in command.params for option in parameter.opts}
    for word in words:
        if word.startswith("--"):
            assert word.partition("=")[0] in options | everywhere, f"{line}: {word} is no option"


def test_the_table_of_hidden_among_is_what_the_rules_give() -> None:
    rows = {
        cells[0].strip(): [int(cell) for cell in cells[1:]]
        for line in (ROOT / "protocol" / "THREATS.md").read_text("utf-8").splitlines()
        if (cells := line.strip("| ").split("|")) and len(cells) == 11 and cells[1].strip().isdigit()
    }
    rules = CohortRules(
        cohort_min=3, corrupt_fraction=0.1, dropout_fraction=0.3, min_survivors=0, threshold=0, min_cert_age_s=0
    )
    sizes = rows["devices in the round"]
    found = [Thresholds.of(n, rules) for n in sizes]
    assert rows["c"] == [thresholds.corrupt for thresholds in found]
    assert rows["least survivors"] == [thresholds.min_survivors for thresholds in found]
    assert rows["hidden among (honest devices behind a sum)"] == [thresholds.hidden_among for thresholds in found]
    strict = [Thresholds.of(n, rules.model_copy(update={"strict": True})).hidden_among for n in sizes]
    assert rows["hidden among in a strict round"] == strict


def test_the_table_of_problem_types_has_the_statuses_that_the_server_sends() -> None:
    from fedit_server.problems import STATUS

    spec = (ROOT / "protocol" / "SPEC.md").read_text("utf-8")
    rows = re.findall(r"^\| (`[a-z`, -]+) \| (\d{3}) \|", spec, re.MULTILINE)
    stated = {name: int(status) for names, status in rows for name in re.findall(r"[a-z-]+", names)}
    assert stated == {problem.value.rpartition(":")[2]: status for problem, status in STATUS.items()}


def test_every_link_between_documents_leads_somewhere() -> None:
    for page in [
        *ROOT.glob("*.md"),
        *ROOT.glob("protocol/**/*.md"),
        *ROOT.glob("fedit_*/*.md"),
        ROOT / "examples/README.md",
    ]:
        text = re.sub(r"`[^`]*`", "", page.read_text("utf-8"))  # code is not read for links
        for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", text):
            assert (page.parent / target).exists() or Path(target).exists(), f"{page.name} links to {target}"
