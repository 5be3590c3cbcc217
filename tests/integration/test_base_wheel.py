"""The wheel as a stranger gets it: what lies inside, and what its commands say where no extra is installed."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

# One worker makes the clean environment once.
pytestmark = pytest.mark.xdist_group("clean environment")

ROOT = Path(__file__).resolve().parents[2]
LINK = "fedit://127.0.0.1:9/j/0000-0000-0000-0000#sha256:" + "0" * 64

# Runs inside the clean environment: one process asks both programs, and every subcommand of them, for --help.
ASK_ALL = """
import contextlib, io, json, sys
from typer.main import get_command
from typer.testing import CliRunner
import fedit_client.cli, fedit_server.cli

def walk(command, words):
    yield words
    for name, child in getattr(command, "commands", {}).items():
        yield from walk(child, [*words, name])

def asked(program, words):
    if program == "fedit-server":
        answer = CliRunner().invoke(fedit_server.cli.app, [*words, "--help"])
        return answer.exit_code, answer.output
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = fedit_client.cli.invoke([*words, "--help"])
    return code, said.getvalue()

answers = {}
for program, app in (("fedit-client", fedit_client.cli.app), ("fedit-server", fedit_server.cli.app)):
    for words in walk(get_command(app), []):
        code, output = asked(program, words)
        answers[" ".join([program, *words])] = code if "Usage" in output else output
print(json.dumps({"answers": answers, "torch": "torch" in sys.modules}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that make built, or one built now when the tests run by hand."""
    if given := os.environ.get("FEDIT_WHEEL"):
        return Path(given)
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a new environment that holds the base wheel and what it asks for, nothing else."""
    folder = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    install += ["--constraint", str(ROOT / "constraints.txt"), str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "bin"


def answer(program: Path, *words: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a program with a home of its own and a screen wide enough that no word is broken."""
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "COLUMNS": "200", "NO_COLOR": "1", "LANG": "C.UTF-8"}
    command = [str(program), *words]
    return subprocess.run(command, cwd=home, env=environment, input="", capture_output=True, text=True, timeout=120)


def test_the_wheel_holds_the_packages_and_no_documents(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"fedit_client", "fedit_server", "fedit_protocol"}
    assert [name for name in names if name.endswith((".md", ".pyc"))] == []
    assert {f"{package}/py.typed" for package in tops} <= set(names)


def test_the_wheel_holds_every_file_that_code_reads(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    folders = [ROOT / "fedit_client", ROOT / "fedit_server", ROOT / "protocol" / "fedit_protocol"]
    wanted = {
        path.relative_to(folder.parent).as_posix()
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in {".md", ".pyc"}
    }
    assert wanted - packed == set()


def test_every_command_answers_without_any_extra(clean: Path, tmp_path: Path) -> None:
    done = answer(clean / "python", "-c", ASK_ALL, home=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert {command: code for command, code in said["answers"].items() if code != 0} == {}
    assert len(said["answers"]) > len(("fedit-client", "fedit-server"))
    assert said["torch"] is False


NEEDS_AN_EXTRA = {
    "joining without the training stack": ("fedit-client", ["join", "--server", LINK, "--yes"], "fedit-client setup"),
    "serving without the database stack": ("fedit-server", ["up"], "fedit[server]"),
}


@pytest.mark.parametrize("case", NEEDS_AN_EXTRA.values(), ids=NEEDS_AN_EXTRA)
def test_a_missing_extra_is_named(case: tuple[str, list[str], str], clean: Path, tmp_path: Path) -> None:
    program, words, extra = case
    done = answer(clean / program, *words, home=tmp_path)
    assert done.returncode not in {0, 2}, done.stdout
    assert extra in done.stderr
    assert "Traceback" not in done.stderr
