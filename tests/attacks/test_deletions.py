"""Without any one check some test fails: each is taken out of a copy of the code, and its test is run against that.

`python -m tests.attacks` prints the list: check, file and line, test.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .deletion import Deletion
from .deletions import DELETIONS
from .test_table import CHECKS, functions_of

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("protocol/fedit_protocol", "fedit_server", "fedit_client")


def copied(folder: Path) -> Path:
    """Copy the three packages, so that a check can be taken out without touching the working tree."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def run(code: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    """Run tests against the packages in `code` instead of the working tree's."""
    path = os.pathsep.join(str(folder) for folder in (code, code / "protocol", ROOT))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not slow", *tests]
    # A safe path keeps the working directory, and with it the unchanged fedit_server, from being found first.
    environment = os.environ | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)


def test_every_check_is_on_the_list() -> None:
    assert {deletion.check for deletion in DELETIONS} == CHECKS


@pytest.mark.parametrize("deletion", DELETIONS, ids=lambda one: f"{one.check}: {one.what}")
def test_the_code_of_every_check_is_where_the_list_says(deletion: Deletion) -> None:
    assert (ROOT / deletion.file).read_text("utf-8").count(deletion.find) == 1
    file, _, function = deletion.killer.partition("::")
    assert function in functions_of(ROOT / "tests" / file)


@pytest.mark.slow
@pytest.mark.parametrize("deletion", DELETIONS, ids=lambda one: f"{one.check}: {one.what}")
def test_a_check_that_is_deleted_makes_its_test_fail(deletion: Deletion, tmp_path: Path) -> None:
    file = copied(tmp_path) / deletion.file
    file.write_text(file.read_text("utf-8").replace(deletion.find, deletion.put), "utf-8")
    done = run(tmp_path, f"tests/{deletion.killer}")
    assert done.returncode == 1, f"the test passes, or does not run, without {deletion.check}:\n{done.stdout[-2000:]}"
    assert "error" not in done.stdout.splitlines()[-1], done.stdout[-2000:]


@pytest.mark.slow
def test_the_same_tests_pass_against_an_unchanged_copy(tmp_path: Path) -> None:
    killers = sorted({f"tests/{deletion.killer}" for deletion in DELETIONS})
    done = run(copied(tmp_path), *killers)
    assert done.returncode == 0, done.stdout[-3000:]
