"""An error code means one thing: a person who looks it up must not find another program's page."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fedit_protocol.errors import FeditError

ROOT: Final = Path(__file__).parents[2]

SHARED: Final = {
    "C002": "a settings file cannot be read",
    "M002": "the base model's files are not those that the task pins",
    "M003": "the folder holds no base model",
    "T004": "the invite has expired",
    "T005": "the invite is used up",
    "T006": "the invite is not known, or was revoked",
    "T008": "the device is not enrolled",
    "T117": "the device waits for the operator",
    "U001": "the command line is not understood",
}
"""Codes that server and client, or server and protocol, raise or explain with the same meaning."""


def codes(folder: str) -> set[str]:
    # The server's help explains codes of the protocol as well; it raises none.
    pages = ROOT / "fedit_server" / "help_pages.py"
    sources = (path.read_text("utf-8") for path in (ROOT / folder).rglob("*.py") if path != pages)
    return {code for source in sources for code in re.findall(r'"([A-Z]\d{3})"', source)}


def defaults(error: type[FeditError]) -> set[str]:
    """The protocol's own codes: those of the error classes."""
    return {error.default_code}.union(*(defaults(kind) for kind in error.__subclasses__()))


def test_server_and_client_use_a_code_for_one_thing() -> None:
    both = codes("fedit_server") & codes("fedit_client")
    assert both - defaults(FeditError) == SHARED.keys()
    assert "U025" in codes("fedit_server")


def test_the_protocols_codes_keep_their_meaning_on_the_server() -> None:
    protocol = codes("protocol/fedit_protocol") - defaults(FeditError)
    assert codes("fedit_server") & protocol <= SHARED.keys()


def without_a_fix(tree: ast.AST) -> Iterator[str]:
    """The errors about settings and storage that are made without a word on what helps."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            named = {keyword.arg for keyword in node.keywords}
            if node.func.id in {"ConfigError", "StorageError"} and "fix" not in named:
                yield ast.unparse(node)


def test_each_error_that_an_operator_can_mend_says_how() -> None:
    assert list(without_a_fix(ast.parse('ConfigError("no", code="C001")')))
    found = {
        path.relative_to(ROOT).as_posix(): errors
        for path in (ROOT / "fedit_server").rglob("*.py")
        if (errors := list(without_a_fix(ast.parse(path.read_text("utf-8")))))
    }
    assert not found
