"""Where a setting comes from, and what a wrong one says."""

from pathlib import Path

import pytest

from fedit_client.config import assigned, edit_settings, load_config
from fedit_client.home.paths import Paths
from fedit_protocol.errors import ConfigError


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FEDIT_HOME", "FEDIT_SERVER", "FEDIT_MODEL", "FEDIT_DEVICE__THREADS"):
        monkeypatch.delenv(name, raising=False)


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_config(tmp_path).device.threads is None
    (tmp_path / "client.toml").write_text("[device]\nthreads = 2\nprefer = 'cpu'\n")
    assert load_config(tmp_path).device.threads == 2
    monkeypatch.setenv("FEDIT_DEVICE__THREADS", "3")
    assert load_config(tmp_path).device.threads == 3
    flagged = load_config(tmp_path, {"device": {"threads": 4}})
    assert flagged.device.threads == 4
    assert flagged.device.prefer == "cpu"


def test_the_home_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "client.toml").write_text("model = 'org/name'\n")
    monkeypatch.setenv("FEDIT_HOME", str(tmp_path))
    config = load_config()
    assert config.paths == Paths.under(tmp_path)
    assert config.model == "org/name"


@pytest.mark.parametrize(
    ("text", "code", "named"),
    [
        ("[limits]\nhidden_among = 1\n", "C001", "limits.hidden_among"),
        ("[limits]\nno_such_limit = 1\n", "C001", "limits.no_such_limit"),
        ("colour = 'red'\n", "C001", "colour"),
        ("[device\n", "C002", "not TOML"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, code: str, named: str) -> None:
    (tmp_path / "client.toml").write_text(text)
    with pytest.raises(ConfigError, match=named) as told:
        load_config(tmp_path)
    assert told.value.code == code
    assert told.value.exit_code == 3


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "client.toml").write_bytes("model = 'modèle'\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="not TOML") as told:
        load_config(tmp_path)
    assert told.value.code == "C002"


def test_settings_are_changed_in_place_and_comments_stay(tmp_path: Path) -> None:
    file = tmp_path / "client.toml"
    file.write_text("# mine\n[device]\nthreads = 2  # two\n")
    edit_settings(Paths.under(tmp_path), assigned(["device.threads=3", "network.max_wait_s=5", "model=org/name"]))
    text = file.read_text()
    assert text.startswith("# mine")
    assert "threads = 3" in text
    assert load_config(tmp_path).network.max_wait_s == 5
    assert load_config(tmp_path).model == "org/name"


@pytest.mark.parametrize(
    "wrong", ["device.threads=0", "no.such.key=1", "just words", "home=/elsewhere", "limits.min_cohort=5"]
)
def test_a_wrong_change_changes_nothing(tmp_path: Path, wrong: str) -> None:
    file = tmp_path / "client.toml"
    file.write_text("[device]\nthreads = 2\n")
    with pytest.raises(ConfigError):
        edit_settings(Paths.under(tmp_path), assigned([wrong]))
    assert file.read_text() == "[device]\nthreads = 2\n"


def test_no_setting_is_frozen_halfway(tmp_path: Path) -> None:
    config = load_config(tmp_path)
    with pytest.raises(Exception, match="frozen"):
        config.model = "other"  # type: ignore[misc] # what this is about
