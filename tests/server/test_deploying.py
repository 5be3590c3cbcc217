"""What the server prints for others to run it and to watch it, checked by the programs that read it."""

import asyncio
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fedit_server.cli import run
from fedit_server.commands.arguments import lift_global_options
from fedit_server.deploy.container import container_file
from fedit_server.deploy.grafana import ALERTS, alert_rules, dashboard, expressions
from fedit_server.deploy.systemd import unit
from fedit_server.metrics import FAMILIES
from fedit_server.running.notify import notify

from .test_serving import Program, program  # noqa: F401  a fixture

pytestmark = pytest.mark.sqlite

PARTS_OF_A_FAMILY = ("_bucket", "_sum", "_count")


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run(lift_global_options(words)) == 0
    return capsys.readouterr().out


def check(*command: str | Path) -> str:
    """Run a checker from outside, and return what it said if it is content."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_every_query_asks_for_a_family_that_there_is() -> None:
    named = {name for query in expressions() for name in re.findall(r"\bfedit_\w+", query)}
    families = {name + end for name in FAMILIES for end in ("", *PARTS_OF_A_FAMILY)}
    assert named <= families
    assert {name for name in FAMILIES if any(name in query for query in expressions())} == set(FAMILIES)


def test_the_dashboard_is_one_that_grafana_imports(capsys: pytest.CaptureFixture[str]) -> None:
    board = json.loads(said(capsys, "grafana"))
    assert board == dashboard()
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)
    assert {variable["name"] for variable in board["templating"]["list"]} == {"source", "task"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool (apt: prometheus)")
def test_promtool_takes_the_rules_and_every_query(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = tmp_path / "alerts.yml"
    rules.write_text(said(capsys, "grafana", "--alerts"))
    assert rules.read_text() == alert_rules()
    assert f"{len(ALERTS)} rules found" in check("promtool", "check", "rules", rules)
    queries = tmp_path / "queries.yml"
    lines = [
        f"      - record: panel:query:{number}\n        expr: {json.dumps(query.replace('$task', 'clinic'))}"
        for number, query in enumerate(expressions())
    ]
    queries.write_text("groups:\n  - name: panels\n    rules:\n" + "\n".join(lines) + "\n")
    check("promtool", "check", "rules", queries)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd")
def test_systemd_takes_the_unit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "ExecStart=" in said(capsys, "systemd")
    file = tmp_path / "fedit-server.service"
    file.write_text(unit(sys.executable))
    check("systemd-analyze", "verify", file)


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="no hadolint (extra dev)")
def test_a_linter_takes_the_container_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "Containerfile"
    file.write_text(said(capsys, "containerfile"))
    assert container_file("1.2.3").count("==1.2.3") == 1
    assert check("hadolint", file) == ""


def test_nobody_to_notify_is_no_trouble(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not notify("READY=1")


async def test_the_units_command_serves_tells_systemd_and_drains(
    program: Program,  # noqa: F811  a fixture
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`serve --init` on an empty folder, as the unit starts it: ready, healthy, scraped, reloaded, stopped."""
    settings, manager = tmp_path / "server.toml", tmp_path / "notify"
    settings.write_text('listen = "127.0.0.1:0"\n')
    monkeypatch.setitem(program._environment, "NOTIFY_SOCKET", str(manager))
    (line,) = re.findall(r"^ExecStart=(.*)$", unit("/usr/bin/fedit-server", str(settings)), re.MULTILINE)
    _, *words = line.split()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(manager))
        told.settimeout(60)
        process, ready = await program.start(*words)
        assert await asyncio.to_thread(told.recv, 100) == b"READY=1"
        assert "invite" not in ready
        config = ["--config", str(settings)]
        assert (await program.run("health", *config))[:2] == (0, "ready\n")
        assert (await program.run("health", "--quiet", *config))[:2] == (0, "")
        checks = (await program.data("health", "--verbose", *config))["checks"]
        assert [check["name"] for check in checks if check["ok"]] == [
            "serving", "database", "blobs", "disk", "certificate",
        ]  # fmt: skip
        _, text, _ = await program.run("metrics", *config)
        families = {family.name for family in text_string_to_metric_families(text)}
        assert "fedit_disk_free_bytes" in families
        token = (await program.data("token", "create", "--role", "viewer", *config))["secret"]
        (tmp_path / "token").write_text(token)
        status, _, err = await program.run("metrics", "--token-file", str(tmp_path / "token"), *config)
        assert (status, "FEDIT-N131" in err) == (5, True)
        before = (await program.data("cert", "show", *config))["served"]
        assert (await program.data("cert", "renew", *config))["served"] != before
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(told.recv, 100) == b"STOPPING=1"
        assert await asyncio.wait_for(process.wait(), 30) == 0
    assert (await program.run("health", *config))[0] == 5
    assert not (program.home / "server.toml").exists()
