"""Lays one module's package and its tests out the way mutmut expects them: `src/`, `tests/`, one pyproject.toml.

mutmut names a mutant by its path below `src/`, and our package lies in `protocol/` (decision 0001). Every module gets
a stage of its own with the tests that are about it, or each mutant would wait for tests of everything else.
"""

import json
import shutil
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
STAGES: Final = ROOT / ".mutants"
PACKAGE: Final = "fedit_protocol"
SECAGG: Final = ROOT / "protocol" / PACKAGE / "secagg"

_DEVICE: Final = (
    "protocol/test_participant_*.py",
    "protocol/test_round.py",
    "protocol/test_second_sum.py",
    "protocol/test_confirm.py",
)
_SERVER: Final = (
    "protocol/test_aggregator_*.py",
    *_DEVICE[1:],
    "protocol/test_round_*.py",
    "protocol/test_transcripts.py",
)
_ROUNDS: Final = ("protocol/test_second_sum.py", "protocol/test_transcripts.py")
_NOISE: Final = ("protocol/test_accounting.py", "protocol/test_noisy_round.py", "protocol/test_sensitivity.py")
_VECTORS: Final = ("protocol/test_vectors.py",)
TESTS: Final[dict[str, tuple[str, ...]]] = {
    "aggregator": _SERVER,
    "canary": ("protocol/test_base_classes.py", "protocol/test_transcripts.py", "attacks/test_canary.py", *_VECTORS),
    "domain_slots": ("attacks/test_domains.py", "protocol/test_transcripts.py", *_VECTORS),
    "own_words": (
        "protocol/test_participant_upload.py",
        "protocol/test_transcripts.py",
        "attacks/test_canary.py",
        "attacks/test_domains.py",
        *_NOISE,
        *_VECTORS,
    ),
    "noisy_update": (*_NOISE, *_VECTORS),
    "own_sum": (*_DEVICE, *_ROUNDS),
    "participant": (*_DEVICE, *_ROUNDS, *_NOISE),
    "ring": ("protocol/test_ring.py", "protocol/test_quantize.py", *_NOISE, *_VECTORS),
    "sensitivity": _NOISE,
    "ranges": ("protocol/test_masking.py", "protocol/test_round.py"),
    "roster": ("protocol/test_aggregator_joins.py", *_DEVICE, *_ROUNDS),
    "round_documents": _SERVER,
    "round_state": _SERVER,
    "stage_ends": _SERVER,
    "sum_state": _SERVER,
    "unmask": (
        "protocol/test_aggregator_answers.py",
        "protocol/test_round.py",
        "protocol/test_noisy_round.py",
        *_ROUNDS,
    ),
}
"""Module → the tests below tests/ that may kill its mutants; others have tests of their name, and the vectors."""

JOURNALLED: Final = ("round_state", "sum_state")
"""Modules that a journal rebuilds: only for them the tests that crash a server at every record are worth their time."""

CONFIG: Final = """
[tool.mutmut]
source_paths = ["src"]
only_mutate = ["MUTATED"]
also_copy = ["protocol"]
pytest_add_cli_args_test_selection = SELECTION
pytest_add_cli_args = ["-q", "-m", "not slow", "-k", "KEYWORDS", "-p", "no:cacheprovider", "-W", "ignore"]
timeout_multiplier = 4.0
timeout_constant = 8.0
use_git_change_detection = false
"""


def modules() -> list[str]:
    """Return the modules of secagg that have code to mutate."""
    return sorted(path.stem for path in SECAGG.glob("*.py") if path.stem != "__init__")


def stage(module: str) -> Path:
    """Copy package, tests, vectors and configuration anew; what mutmut remembers of earlier runs stays."""
    folder = STAGES / module
    pairs = [
        (ROOT / "protocol" / PACKAGE, folder / "src" / PACKAGE),
        (ROOT / "protocol" / "vectors", folder / "protocol" / "vectors"),
        (ROOT / "tests" / "protocol", folder / "tests" / "protocol"),
        (ROOT / "tests" / "attacks", folder / "tests" / "attacks"),
    ]
    for source, target in pairs:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests" / "conftest.py", folder / "tests" / "conftest.py")
    keywords = "test" if module in JOURNALLED else "not crash"
    config = CONFIG.replace("MUTATED", mutated(module)).replace("SELECTION", json.dumps(selection(module)))
    config = config.replace("KEYWORDS", keywords)
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text("utf-8") + config, "utf-8")
    return folder


def mutated(module: str) -> str:
    """Return where a module lies in its stage."""
    return f"src/{PACKAGE}/secagg/{module}.py"


def selection(module: str) -> list[str]:
    """Return the test files of a module, as they lie in its stage."""
    patterns = TESTS.get(module, (f"protocol/test_{module}.py", *_VECTORS))
    found = {path.relative_to(ROOT).as_posix() for pattern in patterns for path in (ROOT / "tests").glob(pattern)}
    return sorted(found)
