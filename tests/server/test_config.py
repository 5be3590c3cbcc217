"""Settings: who wins, and what a wrong one is told."""

from pathlib import Path

import pytest

from fedit_protocol.errors import ConfigError
from fedit_server.commands.arguments import command_of, duration_s, lift_global_options
from fedit_server.config import ServerConfig, split_address


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text('listen = "127.0.0.1:1"\nname = "file"\ninvite_uses = 3\n')
    environment = {"FEDIT_HOME": str(tmp_path), "FEDIT_SERVER_LISTEN": "127.0.0.1:2", "FEDIT_SERVER_NAME": "env"}
    config = ServerConfig.load({"listen": "127.0.0.1:3", "name": None}, environment)
    assert (config.home, config.listen, config.name, config.invite_uses) == (tmp_path, "127.0.0.1:3", "env", 3)
    assert config.invite_days == 7.0
    assert (config.host, config.port) == ("127.0.0.1", 3)


WRONG = {
    "a listen address without port": ({"listen": "localhost"}, "listen: ", "command line"),
    "a port that is no port": ({"listen": "localhost:99999"}, "listen: ", "command line"),
    "no uses": ({"invite_uses": 0}, "invite_uses: ", "command line"),
    "an unknown setting": ({"colour": "red"}, "there is no setting colour", "command line"),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_a_wrong_setting_is_named_with_its_source(case: tuple[dict[str, object], str, str], tmp_path: Path) -> None:
    flags, message, source = case
    with pytest.raises(ConfigError) as wrong:
        ServerConfig.load({"home": tmp_path, **flags}, {})
    assert str(wrong.value).startswith(message)
    assert wrong.value.where == source
    assert wrong.value.fix
    assert "alue error" not in str(wrong.value)


def test_the_file_is_named_when_it_is_broken(tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text("listen = [")
    with pytest.raises(ConfigError) as broken:
        ServerConfig.load({"home": tmp_path}, {})
    assert broken.value.where == str(tmp_path / "server.toml")


def test_saving_keeps_comments_and_writes_only_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text("# ours\ninvite_uses = 3\n")
    ServerConfig.load({"home": tmp_path, "listen": "127.0.0.1:9"}, {}).save()
    assert path.read_text() == '# ours\ninvite_uses = 3\nlisten = "127.0.0.1:9"\n'
    ServerConfig.load({"home": tmp_path, "listen": "127.0.0.1:0"}, {}).save()
    assert "127.0.0.1:0" not in path.read_text()


def test_addresses() -> None:
    assert split_address("[::1]:8443") == ("::1", 8443)
    assert split_address("example.org", 8443) == ("example.org", 8443)
    assert split_address("[::1]", 8443) == ("::1", 8443)
    assert split_address("example.org:1", 8443) == ("example.org", 1)


LIFTED = {
    "status --json": "--json status",
    "round list --home /x --task a": "--home /x round list --task a",
    "--data=/x up --listen h:1": "--home /x up --listen h:1",
    "up -q -- --json": "-q up -- --json",
}


@pytest.mark.parametrize("typed", LIFTED)
def test_global_options_may_stand_anywhere(typed: str) -> None:
    assert lift_global_options(typed.split()) == LIFTED[typed].split()


def test_the_command_is_named_without_its_options() -> None:
    assert command_of(["--home", "/x", "round", "show", "3"]) == "round show"
    assert command_of(["--json", "status"]) == "status"
    assert command_of(["invite", "--uses", "3"]) == "invite"


def test_durations() -> None:
    assert [duration_s(text) for text in ("30m", "12h", "7d", "2w")] == [1800, 43200, 604800, 1209600]
    for wrong in ("", "7", "d", "0d", "-1d", "1y", "1.5h"):
        with pytest.raises(ConfigError):
            duration_s(wrong)
