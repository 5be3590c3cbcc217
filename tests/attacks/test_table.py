"""The table of failures and attacks is whole: every row has tests, and every test that it names is there."""

import ast
from functools import cache
from pathlib import Path

import pytest

from .table import ROWS

TESTS = Path(__file__).resolve().parents[1]
CHECKS = {f"C{number}" for number in range(22)} | {f"S{number}" for number in range(1, 10)}


@cache
def functions_of(path: Path) -> frozenset[str]:
    """Return the names of a file's functions, those in classes too."""
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_every_row_is_there() -> None:
    assert list(ROWS) == list(range(1, 37))


@pytest.mark.parametrize("number", ROWS)
def test_every_test_that_a_row_names_is_there(number: int) -> None:
    assert ROWS[number].tests
    for named in ROWS[number].tests:
        file, _, function = named.partition("::")
        assert function in functions_of(TESTS / file), named


def test_every_named_attack_stands_in_its_row() -> None:
    for path in Path(__file__).parent.glob("test_*.py"):
        for function in functions_of(path):
            if function.startswith("test_row_"):
                named = f"attacks/{path.name}::{function}"
                assert named in ROWS[int(function[9:11])].tests, named


def test_rows_name_checks_that_exist() -> None:
    assert {check for row in ROWS.values() for check in row.checks} <= CHECKS
