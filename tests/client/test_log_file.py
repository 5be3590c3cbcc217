"""The log file: tracebacks go there and not to people, it stays small and private, and its trouble stops nothing."""

import logging
from pathlib import Path

import pytest

from fedit_client.cli import invoke
from fedit_client.home.log_file import CommandLog
from fedit_client.home.paths import Paths
from fedit_protocol.errors import ConfigError, FeditError, StorageError


def raised(error: FeditError) -> FeditError:
    try:
        raise error
    except FeditError as caught:
        return caught


def test_a_traceback_lies_in_the_log_and_its_path_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "membership.json").write_text("damaged")
    assert invoke(["--home", str(tmp_path), "status"]) == 12
    said = capsys.readouterr().err
    log = tmp_path / "log" / "client.log"
    assert f"\n  log:   {log}" in said
    assert "Traceback" not in said
    text = log.read_text()
    assert "status ended with FEDIT-S013" in text
    assert "Traceback" in text
    assert log.stat().st_mode & 0o077 == 0


def test_a_bug_is_always_written_down(tmp_path: Path) -> None:
    with CommandLog(Paths.under(tmp_path / "new")) as log:
        assert log.failed("run", raised(FeditError("a bug"))) == log.path
    assert "FEDIT-X001: a bug" in log.path.read_text()


@pytest.mark.parametrize("error", [ConfigError("typed wrongly", code="U001"), StorageError("full", code="S011")])
def test_a_command_that_keeps_nothing_leaves_no_log(tmp_path: Path, error: FeditError) -> None:
    with CommandLog(Paths.under(tmp_path / "new")) as log:
        assert log.failed("status", error) is None
    assert not (tmp_path / "new").exists()


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file where the folder should be")
    with CommandLog(Paths.under(tmp_path)) as log:
        assert log.failed("run", raised(FeditError("a bug"))) is None


def test_the_log_turns_over(tmp_path: Path) -> None:
    with CommandLog(Paths.under(tmp_path)) as log:
        for _ in range(50):
            logging.getLogger("fedit_client").info("%s", "x" * 100_000)
    names = sorted(path.name for path in log.path.parent.iterdir())
    assert names == ["client.log", "client.log.1", "client.log.2", "client.log.3"]
    assert sum(path.stat().st_size for path in log.path.parent.iterdir()) < 4_100_000


def test_the_commands_leave_no_handler_behind(tmp_path: Path) -> None:
    before = list(logging.getLogger("fedit_client").handlers)
    invoke(["--home", str(tmp_path), "run"])
    assert logging.getLogger("fedit_client").handlers == before
