"""Lays the package and its tests out the way mutmut expects them: `src/`, `tests/`, one pyproject.toml.

mutmut names a mutant by its path below `src/`, and our package lies in `protocol/` (decision 0001).
"""

import json
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STAGE = ROOT / ".mutants"
PACKAGE = "fedit_protocol"
MUTATED = f"src/{PACKAGE}/secagg"

SELECTION = ("tests/protocol", "tests/attacks")
"""The tests that may kill a mutant."""

CONFIG = """
[tool.mutmut]
source_paths = ["src"]
only_mutate = ["MUTATED/*"]
also_copy = ["protocol"]
pytest_add_cli_args_test_selection = SELECTION
pytest_add_cli_args = ["-q", "-m", "not slow", "-p", "no:cacheprovider", "--hypothesis-profile=ci", "-W", "ignore"]
timeout_multiplier = 4.0
timeout_constant = 4.0
use_git_change_detection = false
"""


def stage() -> Path:
    """Copy package, tests, vectors and configuration anew; what mutmut remembers of earlier runs stays."""
    STAGE.mkdir(exist_ok=True)
    pairs = [
        (ROOT / "protocol" / PACKAGE, STAGE / "src" / PACKAGE),
        (ROOT / "protocol" / "vectors", STAGE / "protocol" / "vectors"),
        *((ROOT / folder, STAGE / folder) for folder in SELECTION),
    ]
    for source, target in pairs:
        if target.exists():
            shutil.rmtree(target)
        if source.exists():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests" / "conftest.py", STAGE / "tests" / "conftest.py")
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    selection = json.dumps([folder for folder in SELECTION if (ROOT / folder).exists()])
    config = CONFIG.replace("MUTATED", MUTATED).replace("SELECTION", selection)
    (STAGE / "pyproject.toml").write_text(project + config, "utf-8")
    return STAGE
