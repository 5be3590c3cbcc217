"""The rules of the house that no linter knows: who may import torch, what lies where, what has to be documented."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fedit_protocol.errors import ProblemType

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "fedit_client": ROOT / "fedit_client",
    "fedit_server": ROOT / "fedit_server",
    "fedit_protocol": ROOT / "protocol" / "fedit_protocol",
}
TORCH_STACK = {"torch", "transformers", "peft", "bitsandbytes", "accelerate", "gguf"}
TORCH_ROOMS = (PACKAGES["fedit_client"] / "training", PACKAGES["fedit_client"] / "evaluation")
TOP_FOLDERS = {"fedit_client", "fedit_server", "protocol", "examples", "tests", ".ci"}

MOST_LINES = 400
# path → why it is allowed to be longer than MOST_LINES
LONG_FILES: dict[str, str] = {}


def sources() -> Iterator[Path]:
    """Every Python file of the three packages."""
    for folder in PACKAGES.values():
        yield from sorted(folder.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports_of(path: Path) -> set[str]:
    """The top-level packages that a file imports anywhere, also inside functions and behind TYPE_CHECKING."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        match node:
            case ast.Import(names=names):
                found |= {alias.name.split(".")[0] for alias in names}
            case ast.ImportFrom(module=str(module), level=0):
                found.add(module.split(".")[0])
            case ast.Call(func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__")):
                found |= {str(arg.value).split(".")[0] for arg in node.args if isinstance(arg, ast.Constant)}
    return found


def files_of_the_project() -> list[Path]:
    """What git tracks or would add, relative to the root; skips where there is no git to ask."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split("\0")
    return [Path(name) for name in names if name and (ROOT / name).exists()]


def run_fresh(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a new process that sees installed packages only, and fail with its output if it fails."""
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_torch_is_imported_in_its_two_rooms_only() -> None:
    guests = {name_of(path): sorted(imports_of(path) & TORCH_STACK) for path in sources() if not in_torch_room(path)}
    # The writer of GGUF files is numpy throughout, and is loaded when it is first used.
    assert {name: found for name, found in guests.items() if found} == {"fedit_client/export/gguf_file.py": ["gguf"]}


def in_torch_room(path: Path) -> bool:
    return path.name != "__init__.py" and any(path.is_relative_to(room) for room in TORCH_ROOMS)


# Declared although no line imports them: SQLAlchemy and transformers load these by name.
LOADED_BY_OTHERS = {"accelerate", "aiosqlite", "bitsandbytes", "sentencepiece"}


def test_what_is_imported_is_declared_and_the_other_way_round() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *extras["train"], *extras["server"]]
    declared = {Requirement(line).name for line in lines}
    homes = packages_distributions()
    third_party = set().union(*map(imports_of, sources())) - set(sys.stdlib_module_names) - set(PACKAGES)
    imported = {canonicalize_name(homes.get(name, [name])[0]) for name in third_party}
    later = {
        Requirement(line).name
        for extra in ("awake", "check", "hub", "postgres", "s3", "sim", "eval", "dp")
        for line in extras[extra]
    }
    undeclared, unused = imported - declared - later, declared - imported - LOADED_BY_OTHERS
    assert not undeclared, f"pyproject.toml does not declare {sorted(undeclared)}"
    assert not unused, f"nothing imports {sorted(unused)}"


def test_ray_is_imported_in_one_file_only() -> None:
    importers = {name_of(path) for path in sources() if "ray" in imports_of(path)}
    assert importers <= {"fedit_client/fleet/on_ray.py"}


WITHOUT_TORCH = {
    "the SDK": "import fedit_client",
    "the client's command": "import sys, fedit_client.cli as cli; sys.argv[1:] = ['--help']; run(cli.main)",
    "the server's command": "import sys, fedit_server.cli as cli; sys.argv[1:] = ['--help']; run(cli.main)",
    "every module of the server": "import_all('fedit_server')",
    "every module of the protocol": "import_all('fedit_protocol')",
}
PRELUDE = """
import importlib, pkgutil, sys

def run(main):
    try:
        main()
    except SystemExit as end:
        assert not end.code, end.code

def import_all(package):
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(root.__path__, package + "."):
        parts = module.name.split(".")
        # alembic runs env.py and the numbered migrations itself; __main__ would start the program
        if "migrations" not in parts and parts[-1] != "__main__":
            importlib.import_module(module.name)
"""


@pytest.mark.parametrize("statement", WITHOUT_TORCH.values(), ids=WITHOUT_TORCH)
def test_torch_stays_unloaded(statement: str, tmp_path: Path) -> None:
    check = f"loaded = {TORCH_STACK!r} & set(sys.modules); sys.exit(f'loaded {{loaded}}' if loaded else 0)"
    run_fresh(sys.executable, "-c", f"{PRELUDE}\n{statement}\n{check}", cwd=tmp_path)


@pytest.mark.parametrize("command", ["fedit-client", "fedit-server"])
def test_both_commands_are_installed(command: str, tmp_path: Path) -> None:
    program = Path(sysconfig.get_path("scripts")) / command
    assert "Usage" in run_fresh(str(program), "--help", cwd=tmp_path).stdout


def test_make_test_tests_the_installed_wheel() -> None:
    if "FEDIT_WHEEL" not in os.environ:
        pytest.skip("run by hand against the working tree; make test runs the installed wheel")
    site = Path(sysconfig.get_path("purelib"))
    for package in PACKAGES:
        found = sys.modules.get(package) or __import__(package)
        assert found.__file__ is not None
        assert Path(found.__file__).is_relative_to(site), f"{package} comes from {found.__file__}"


def test_the_protocol_folder_is_not_a_package() -> None:
    assert not (ROOT / "protocol" / "__init__.py").exists()


def test_every_package_is_typed() -> None:
    assert [name for name, folder in PACKAGES.items() if not (folder / "py.typed").exists()] == []


def test_only_known_folders_lie_at_the_top() -> None:
    assert {path.parts[0] for path in files_of_the_project() if len(path.parts) > 1} <= TOP_FOLDERS


def test_files_stay_short() -> None:
    files = [path for path in files_of_the_project() if path.suffix == ".py"]
    lines = {path.as_posix(): len((ROOT / path).read_text("utf-8").splitlines()) for path in files}
    long = {name: count for name, count in lines.items() if count > MOST_LINES}
    assert {name: count for name, count in long.items() if name not in LONG_FILES} == {}
    assert set(LONG_FILES) <= set(long), "a file that became short needs no reason any more"


def test_every_problem_type_is_in_the_spec() -> None:
    spec = (ROOT / "protocol" / "SPEC.md").read_text("utf-8")
    documented = set(re.findall(r"[\w-]+", spec))
    assert {problem.value.rpartition(":")[2] for problem in ProblemType} - documented == set()
