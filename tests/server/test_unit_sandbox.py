"""The unit's ExecStart without systemd running: an account without rights or capabilities, everything read-only but
the unit's own folders, no processes but its own, and only the system calls and address families that the unit leaves.
"""

import ctypes.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fedit_server.deploy.systemd import unit

from .filtered import LIBRARY, filter_of
from .test_container import ROOT, can_make_namespaces

ACCOUNT = 61184
"""The first of those that DynamicUser= takes from."""

SANDBOX = """
set -e
mount --bind {tree} {tree}
mount --bind {state} {state}
mount --bind {cache} {cache}
mount -t tmpfs tmpfs {temporary}
mount -t proc -o subset=pid,hidepid=invisible proc /proc
mount -o remount,bind,ro {tree}
mount -o remount,bind,ro /
exec unshare --user --map-user={account} --map-group={account} setpriv --no-new-privs --inh-caps=-all \
    --bounding-set=-all {python} -m tests.server.filtered {filter} sh {script}
"""
SCRIPT = """
set -e
umask {umask}
test "$(id -u)" = {account}
if touch {tree}/forbidden {root}/forbidden 2> /dev/null; then exit 9; fi
if {python} -c "import os; os.nice(1)" 2> /dev/null; then exit 10; fi
if test -e /proc/meminfo; then exit 11; fi
if {python} -c "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)" 2> /dev/null; then exit 12; fi
{start} &
server=$!
tries=0
until {program} health --quiet --config {settings}; do
    tries=$((tries + 1))
    test $tries -lt 120
    kill -0 $server
    sleep 0.5
done
{program} health --verbose --json --config {settings}
kill -HUP $server
{program} health --quiet --config {settings}
kill -TERM $server
wait $server
"""


@pytest.mark.slow
@pytest.mark.skipif(not can_make_namespaces(), reason="no user namespaces here")
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd, which knows the groups of calls")
@pytest.mark.skipif(ctypes.util.find_library("seccomp") is None, reason=f"no {LIBRARY}")
def test_the_units_command_serves_within_what_the_unit_leaves_it(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("state", "cache", "temporary")}
    for folder in folders.values():
        folder.mkdir(mode=0o700)
    program, settings, script = tmp_path / "fedit-server", tmp_path / "server.toml", tmp_path / "script.sh"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m fedit_server "$@"\n')
    program.chmod(0o755)
    settings.write_text('listen = "127.0.0.1:0"\n')
    text = unit(str(program), str(settings))
    kept, sandbox = tmp_path / "filter.json", tmp_path / "sandbox.sh"
    kept.write_text(json.dumps(filter_of(text)))
    (start,), (umask,) = (re.findall(rf"^{name}=(.*)$", text, re.MULTILINE) for name in ("ExecStart", "UMask"))
    given = dict(re.findall(r"^Environment=(\w+)=(.*)$", text, re.MULTILINE))
    names = {
        **folders, "tree": tmp_path, "root": ROOT, "account": ACCOUNT, "python": sys.executable, "filter": kept,
        "script": script, "start": start, "umask": umask, "program": program, "settings": settings,
    }  # fmt: skip
    sandbox.write_text(SANDBOX.format(**names))
    script.write_text(SCRIPT.format(**names))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("FEDIT_")},
        **{name: value.replace("%S", str(folders["state"])).replace("%C", str(folders["cache"]))
           for name, value in given.items()},
        "TMPDIR": str(folders["temporary"]),
        "HOME": "/",  # what an account without a home has
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "protocol"))),
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "sh", str(sandbox)],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (health,) = (json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"schema"'))
    assert all(check["ok"] for check in health["data"]["checks"])
    home = folders["state"] / "fedit-server"
    assert (home / "keys" / "server.key").stat().st_mode & 0o777 == 0o600
    assert (home / "fedit.db").stat().st_mode & 0o777 == 0o600
    assert "Traceback" not in done.stderr
