"""The container file's steps without a container engine: a wheel installed into a tree, run there by a user without
rights while the whole tree is read-only and only /data and a temporary folder can be written."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fedit_server.deploy.container import USER, container_file

ROOT = Path(__file__).parents[2]
SANDBOX = """
set -e
mount --bind {data} {data}
mount -t tmpfs tmpfs {temporary}
mount -o remount,bind,ro /
if touch {image}/forbidden 2> /dev/null; then exit 9; fi
exec unshare --user --map-user={user} --map-group={user} \
    setpriv --no-new-privs --inh-caps=-all --bounding-set=-all sh {script}
"""
SCRIPT = """
set -e
test "$(id -u)" = {user}
if touch {image}/forbidden 2> /dev/null; then exit 9; fi
{entry} &
server=$!
tries=0
until {health}; do
    tries=$((tries + 1))
    test $tries -lt 60
    kill -0 $server
    sleep 0.5
done
{program} status --json
{program} doctor --json || true
kill -TERM $server
wait $server
"""


def can_make_namespaces() -> bool:
    if shutil.which("unshare") is None or shutil.which("setpriv") is None:
        return False
    tried = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(tried, capture_output=True).returncode == 0


def words(file: str, instruction: str) -> list[str]:
    """The words of an instruction in its JSON form."""
    (found,) = re.findall(rf"^{instruction}\b[^\[\n]*(\[.*\])$", file, re.MULTILINE)
    return list(json.loads(found))


def variables(file: str) -> dict[str, str]:
    """What ENV sets."""
    (block,) = re.findall(r"^ENV ((?:.*\\\n)*.*)$", file, re.MULTILINE)
    return dict(part.split("=", 1) for part in block.replace("\\\n", " ").split())


def install(image: Path, work: Path) -> None:
    """Build the wheel and install it into the tree; the libraries it needs are this environment's own."""
    python = [sys.executable, "-m"]
    build = [*python, "build", "--quiet", "--wheel", "--no-isolation", "--outdir", str(work), str(ROOT)]
    subprocess.run(build, check=True, timeout=200)
    (wheel,) = work.glob("*.whl")
    pip = [*python, "pip", "install", "--quiet", "--no-cache-dir", "--no-deps", "--target", str(image), str(wheel)]
    subprocess.run(pip, check=True, timeout=200)


@pytest.mark.slow
@pytest.mark.skipif(not can_make_namespaces(), reason="no user namespaces here")
def test_the_image_serves_as_an_unprivileged_user_on_a_read_only_tree(tmp_path: Path) -> None:
    file = container_file("0")
    image, data, temporary = (tmp_path / name for name in ("image", "data", "temporary"))
    for folder in (image, data, temporary):
        folder.mkdir()
    assert f"USER {USER}" in file
    install(image, tmp_path / "wheel")
    for path in image.rglob("*"):
        path.chmod(path.stat().st_mode & ~0o222)
    program = image / "bin" / "fedit-server"
    entry, command, health = (words(file, name) for name in ("ENTRYPOINT", "CMD", "HEALTHCHECK"))
    assert (entry, health[0]) == (["fedit-server"], "fedit-server")
    assert variables(file)["FEDIT_HOME"] == "/data"
    script, sandbox = tmp_path / "script.sh", tmp_path / "sandbox.sh"
    names = {"image": image, "data": data, "temporary": temporary, "script": script, "user": USER, "program": program}
    script.write_text(
        SCRIPT.format(**names, entry=f"{program} {' '.join(command)}", health=f"{program} {' '.join(health[1:])}")
    )
    sandbox.write_text(SANDBOX.format(**names))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("FEDIT_")},
        **variables(file),
        "FEDIT_HOME": str(data),
        "FEDIT_SERVER_LISTEN": "127.0.0.1:0",
        "FEDIT_SERVER_DRAIN_S": "0",
        "TMPDIR": str(temporary),
        "HOME": str(temporary),
        "PYTHONPATH": str(image),
    }
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", str(sandbox)],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    status, doctor = (json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"schema"'))
    assert status["data"]["server"]["running"]
    assert {one["check"]: one["level"] for one in doctor["data"]["findings"]}["address"] == "ok"
    assert (data / "keys" / "server.key").stat().st_mode & 0o777 == 0o600
    assert "Traceback" not in done.stderr
