"""Settings: who wins, and what a wrong one is told."""

from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from fedit_protocol.errors import ConfigError
from fedit_server.commands.arguments import command_of, duration_s, lift_global_options
from fedit_server.commands.settings import edit_file
from fedit_server.config import ServerConfig, split_address
from fedit_server.settings import Sources, settings_of


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
    assert command_of(["--json", "authority", "invite", "list"]) == "authority invite list"


def test_durations() -> None:
    assert [duration_s(text) for text in ("30m", "12h", "7d", "2w")] == [1800, 43200, 604800, 1209600]
    for wrong in ("", "7", "d", "0d", "-1d", "1y", "1.5h"):
        with pytest.raises(ConfigError) as refused:
            duration_s(wrong)
        assert refused.value.code == "U024"


def test_an_unknown_setting_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text("invite_use = 3\n")
    with pytest.raises(ConfigError) as unknown:
        ServerConfig.load({"home": tmp_path}, {})
    assert (unknown.value.code, unknown.value.fix) == ("C001", "write invite_uses")
    with pytest.raises(ConfigError) as unknown:
        ServerConfig.load({"home": tmp_path / "none"}, {"FEDIT_SERVER_LISTN": "h:1"})
    assert (unknown.value.fix, unknown.value.where) == ("write listen", "environment")
    assert ServerConfig.load({"home": tmp_path / "none"}, {"FEDIT_SERVER_URL": "https://elsewhere"}).name == ""


def test_each_value_says_where_it_comes_from(tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text("invite_uses = 3\n")
    environment = {"FEDIT_SERVER_TRUSTED_PROXIES": "10.0.0.0/8, 192.0.2.1", "FEDIT_HOME": str(tmp_path)}
    config = ServerConfig.load({"name": "flag"}, environment)
    found = {one.key: (one.value, one.source) for one in settings_of(config, config.origin)}
    assert found["invite_uses"] == (3, str(tmp_path / "server.toml"))
    assert found["trusted_proxies"] == (("10.0.0.0/8", "192.0.2.1"), "environment")
    assert found["name"] == ("flag", "command line")
    assert found["home"] == (tmp_path, "FEDIT_HOME")
    assert found["drain_s"] == (0.0, "default")


def test_another_settings_file_takes_the_place_of_the_folders_own(tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text("invite_uses = 3\n")
    other = tmp_path / "other.toml"
    other.write_text("invite_days = 2\n")
    config = ServerConfig.load({"home": tmp_path}, {}, other)
    assert (config.invite_uses, config.invite_days, config.file) == (40, 2.0, other)
    with pytest.raises(ConfigError) as missing:
        ServerConfig.load({"home": tmp_path}, {}, tmp_path / "none.toml")
    assert missing.value.code == "C002"


class Secretive(BaseModel):
    """Settings with a secret."""

    password: str = Field("", description="…", json_schema_extra={"secret": True})


def test_a_secret_may_come_from_a_file_and_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2\n")
    (tmp_path / "server.toml").write_text("")
    environment = {"FEDIT_SERVER_PASSWORD_FILE": str(tmp_path / "secret")}
    sources = Sources.read(Secretive, {}, environment, tmp_path / "server.toml")
    config = Secretive(**sources.values)
    assert config.password == "hunter2"
    (shown,) = settings_of(config, sources.origin)
    assert (shown.value, shown.source) == ("***", "environment")
    with pytest.raises(ConfigError) as missing:
        Sources.read(Secretive, {}, {"FEDIT_SERVER_PASSWORD_FILE": str(tmp_path / "none")}, tmp_path / "server.toml")
    assert missing.value.code == "C002"


def test_an_edit_that_cannot_be_leaves_the_file_and_keeps_the_draft(tmp_path: Path) -> None:
    file, draft = tmp_path / "server.toml", tmp_path / "server.draft.toml"
    file.write_text("invite_uses = 3\n")

    def editor(text: str) -> str:
        script = tmp_path / "editor"
        script.write_text(f"#!/bin/sh\nprintf '%s\\n' '{text}' > \"$1\"\n")
        script.chmod(0o700)
        return str(script)

    with pytest.raises(ConfigError) as wrong:
        edit_file(file, editor("invite_uses = 0"))
    assert (wrong.value.code, wrong.value.where) == ("C001", str(draft))
    assert (file.read_text(), draft.read_text()) == ("invite_uses = 3\n", "invite_uses = 0\n")
    assert edit_file(file, editor("invite_uses = 4"))
    assert (file.read_text(), draft.exists()) == ("invite_uses = 4\n", False)
    assert not edit_file(file, editor("invite_uses = 4"))
    for broken in ("false", str(tmp_path / "no-editor")):
        with pytest.raises(ConfigError) as failed:
            edit_file(file, broken)
        assert failed.value.code == "U133"
