"""Every code that the server can show has a page, and a test that brings it about."""

import ast
import re
from pathlib import Path

import pytest

from fedit_protocol.errors import ConfigError, FeditError
from fedit_server.cli import run
from fedit_server.help_pages import documented_codes, help_lines

ROOT = Path(__file__).parents[2]
OF_CLIENTS_ALONE = {
    **dict.fromkeys(
        ["K001", "K003", "K004", "K009", "K010", "K011"], "an owner's limits: only devices hold tasks to them"
    ),
    **dict.fromkeys(["N009", "N010", "N012", "V013"], "named for their exit status; the protocol raises none of them"),
    **dict.fromkeys(["A001", "F001", "H001", "J001", "V001"], "consent, fleets, hardware, membership, evaluation"),
    "D001": "a file of rows; the server's own errors about data have a code each",
    "N001": "the network; the server's own errors about it have a code each",
    "T014": "a device compares the log of devices with what it saw before; the server shows it",
    "U003": "an invite link is read where it is pasted, and made here",
}
"""Codes of the protocol that no command of the server can print, and why."""


def codes(folder: Path) -> set[str]:
    sources = (path.read_text("utf-8") for path in folder.rglob("*.py") if path.name != "help_pages.py")
    return {code for source in sources for code in re.findall(r"\"([A-Z]\d{3})\"", source)}


def raised_without_a_code(kind: str) -> list[str]:
    """Where the server raises an error of a class as it is, so that its default code would be shown."""
    return [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in (ROOT / "fedit_server").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == kind
        if "code" not in {keyword.arg for keyword in node.keywords}
    ]


def test_every_code_has_a_page_and_every_page_a_code() -> None:
    protocol = codes(ROOT / "protocol" / "fedit_protocol")
    assert protocol >= OF_CLIENTS_ALONE.keys()
    assert documented_codes() == codes(ROOT / "fedit_server") | protocol - OF_CLIENTS_ALONE.keys() | {"U134"}


def test_codes_of_clients_alone_are_no_default_of_an_error_that_the_server_raises() -> None:
    kinds = {kind.__name__ for kind in FeditError.__subclasses__() if kind.default_code in OF_CLIENTS_ALONE}
    assert {"DataError", "TransportError", "TaskRefusedError"} <= kinds
    assert {kind: raised_without_a_code(kind) for kind in kinds} == {kind: [] for kind in kinds}
    assert raised_without_a_code("ModelError")


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
