"""Every code that the server can show has a page, and a test that brings it about."""

import re
from pathlib import Path

import pytest

from fedit_protocol.errors import ConfigError
from fedit_server.cli import run
from fedit_server.help_pages import documented_codes, help_lines

ROOT = Path(__file__).parents[2]
OF_THE_PROTOCOL = {"C021", "C023", "C024", "C025", "C026", "C041"}
"""Raised by the protocol when a task is checked or published here."""


def codes(folder: Path) -> set[str]:
    sources = (path.read_text("utf-8") for path in folder.rglob("*.py") if path.name != "help_pages.py")
    return {code for source in sources for code in re.findall(r"\"([A-Z]\d{3})\"", source)}


def test_every_code_has_a_page_and_every_page_a_code() -> None:
    assert documented_codes() == codes(ROOT / "fedit_server") | OF_THE_PROTOCOL | {"U134"}


def test_every_code_is_brought_about_by_a_test() -> None:
    mentioned = {
        code
        for path in (ROOT / "tests").rglob("*.py")
        for code in re.findall(r"\b([A-Z]\d{3})\b", path.read_text("utf-8"))
    }
    assert documented_codes() - mentioned == set()


@pytest.mark.parametrize("topic", ["", "c017", "FEDIT-C017", "proxy", "exit-codes", "json"])
def test_pages_are_found_by_code_and_by_topic(topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["help", topic] if topic else ["help"]) == 0
    assert capsys.readouterr().out.strip()


def test_a_page_that_is_not_there() -> None:
    with pytest.raises(ConfigError) as unknown:
        help_lines("nonsense")
    assert unknown.value.code == "U134"


@pytest.mark.parametrize("code", sorted(documented_codes()))
def test_a_page_names_only_commands_that_exist(code: str) -> None:
    from typer.main import get_command

    from fedit_server.cli import app

    for line in re.findall(r"fedit-server ([a-z-]+(?: [a-z-]+)?)", " ".join(help_lines(code)[1:])):
        words, tree = line.split(), get_command(app)
        for word in words:
            known = getattr(tree, "commands", None)
            if known is None:
                break
            assert word in known, line
            tree = known[word]
