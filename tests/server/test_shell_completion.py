"""Completion as bash meets it: the printed script is sourced, then asked what may follow."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fedit_server.cli import run

ASK = """
eval "$(fedit-server completion bash)"
COMP_WORDS=({words}); COMP_CWORD={last}
_fedit_server_completion fedit-server
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["config", "sh"], {"show"}),
        pytest.param(["sta"], {"status"}, marks=pytest.mark.slow),
        pytest.param(["completion", ""], {"bash", "zsh", "fish", "powershell"}, marks=pytest.mark.slow),
        pytest.param(["grafana", "--al"], {"--alerts"}, marks=pytest.mark.slow),
    ],
)
def test_bash_completes_commands_groups_values_and_options(words: list[str], found: set[str], tmp_path: Path) -> None:
    program = tmp_path / "fedit-server"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m fedit_server "$@"\n')
    program.chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "FEDIT_HOME": str(tmp_path / "home")}
    path["PYTHONPATH"] = os.pathsep.join(entry for entry in sys.path if entry)
    quoted = " ".join(f"'{word}'" for word in ["fedit-server", *words])
    script = ASK.format(words=quoted, last=len(words))
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=os.environ | path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert set(done.stdout.split()) == found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_every_shells_script_is_printed_with_where_to_put_it(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    *script, how = capsys.readouterr().out.splitlines()
    assert "_FEDIT_SERVER_COMPLETE" in "\n".join(script)
    assert how.startswith("# ")
