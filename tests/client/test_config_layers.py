"""Settings as their owner meets them: which source wins, which one may not, and what is said about it."""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tomlkit
from pydantic.fields import FieldInfo

from fedit_client.cli import invoke
from fedit_client.config import ClientConfig, check_settings_text
from fedit_client.home.lock import held_alone
from fedit_client.home.paths import Paths
from fedit_client.settings.edit import edit
from fedit_client.settings.project_file import leaves
from fedit_client.settings.strictness import GUARDED, HARMLESS, may_lie_around, may_loosen
from fedit_client.settings.words import rule
from fedit_protocol.errors import ConfigError

from .test_cli_join import Joining, joining

__all__ = ["joining"]

Told = tuple[int, str, str]
Run = Callable[..., Told]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run commands in a folder of their own, with a home beside it; return status, stdout, stderr."""
    for name in [name for name in os.environ if name.startswith("FEDIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FEDIT_HOME", str(tmp_path / "home"))
    (tmp_path / "work").mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def invoked(*words: str) -> Told:
        return (invoke(list(words)), *capsys.readouterr())

    return invoked


def write(folder: Path, text: str, name: str = "fedit.toml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def origin(told: Told, key: str) -> tuple[object, str]:
    """The value and the source that `config show --json` gives a setting."""
    found = {setting["key"]: setting for setting in json.loads(told[1])["data"]["settings"]}
    return found[key]["value"], found[key]["source"]


def test_each_source_beats_the_next(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def threads() -> tuple[object, str]:
        return origin(run("config", "show", "--json"), "device.threads")

    assert threads() == (None, "default")
    write(tmp_path / "home", "[device]\nthreads = 2\n", "client.toml")
    assert threads() == (2, "client.toml")
    lying = write(tmp_path / "work", "[device]\nthreads = 3\n")
    assert threads() == (3, str(lying))
    named = write(tmp_path, "[device]\nthreads = 4\n", "mine.toml")
    assert origin(run("--config", str(named), "config", "show", "--json"), "device.threads") == (4, str(named))
    monkeypatch.setenv("FEDIT_DEVICE__THREADS", "5")
    assert threads() == (5, "FEDIT_DEVICE__THREADS")
    monkeypatch.delenv("FEDIT_DEVICE__THREADS")
    monkeypatch.setenv("FEDIT_DEVICE", '{"threads": 6}')
    assert threads() == (6, "FEDIT_DEVICE")
    home = str(tmp_path / "home")
    assert origin(run("--home", home, "config", "show", "--json"), "home") == (home, "flag")


def test_a_file_that_lies_there_is_announced_once_in_one_line(run: Run, tmp_path: Path) -> None:
    lying = write(tmp_path / "work", "[device]\nmax_tokens = 64\n")
    status, out, err = run("set", "device.threads=2")
    assert (status, err) == (0, f"settings of this folder are in force: {lying}\n")
    assert str(lying) not in out
    assert json.loads(run("paths", "--json")[1])["warnings"] == [f"settings of this folder are in force: {lying}"]
    assert run("-q", "paths")[2] == ""


def test_a_file_that_lies_there_loosens_nothing_and_may_be_stricter(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "home", "[limits]\nhidden_among = 10\nmin_cohort = 12\n", "client.toml")
    text = "[limits]\nhidden_among = 2\nmin_cohort = 20\nmodes = ['masked', 'trusted']\n"
    lying = write(tmp_path / "work", text)
    told = run("config", "show", "--json")
    assert origin(told, "limits.hidden_among") == (10, "client.toml")
    assert origin(told, "limits.min_cohort") == (20, str(lying))
    assert origin(told, "limits.modes") == (["masked"], "default")
    err = run("paths")[2]
    assert "left out, for such a file may not set or loosen them: limits.hidden_among, limits.modes" in err
    named = run("--config", str(lying), "config", "show", "--json")
    assert origin(named, "limits.hidden_among") == (2, str(lying)), "a file named on purpose is its owner's word"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("server = 'https://127.0.0.1:1'", "server"),
        ("model = 'org/name'", "model"),
        ("[device]\npython = '/tmp/program'", "device.python"),
        ("[device]\nprefer = 'cpu'", "device.prefer"),
        ("[device]\nprocesses = 16", "device.processes"),
        ("[identity]\nstore = 'file'", "identity.store"),
        ("[privacy]\noutbox = false", "privacy.outbox"),
        ("[privacy]\noutbox_max_mb = 1", "privacy.outbox_max_mb"),
    ],
)
def test_a_file_that_lies_there_says_nothing_about_programs_servers_keys_and_evidence(
    run: Run, tmp_path: Path, text: str, key: str
) -> None:
    lying = write(tmp_path / "work", text + "\n")
    told = run("config", "show", "--json")
    assert origin(told, key)[1] == "default"
    expected = (
        f"settings of this folder are in force: {lying}; left out, for such a file may not set or loosen them: {key}"
    )
    assert run("paths")[2] == expected + "\n"
    assert origin(run("--config", str(lying), "config", "show", "--json"), key)[1] == str(lying)


def test_every_setting_of_a_file_that_lies_there_is_harmless_or_compared() -> None:
    known = {key for key, _ in leaves(ClientConfig)}
    assert known >= HARMLESS
    assert {key for key in known if may_lie_around(key)} == {
        *HARMLESS,
        *(key for key in known if key.startswith(("limits.", "polite."))),
    }


def test_every_guarded_setting_is_held_against_the_owners_value(run: Run, tmp_path: Path) -> None:
    """Whatever is added to these tables: any value that differs is stricter by a stated order, or is left out."""
    for key, field in leaves(ClientConfig):
        if key.partition(".")[0] in GUARDED and not key.startswith("limits."):
            assert may_loosen(key, "one value", "another", field), key


@pytest.mark.parametrize(
    ("order", "before", "after", "loosens"),
    [
        ("higher", 2, 1, True),
        ("higher", 2, 3, False),
        ("higher", None, 3, False),
        ("lower", 83, 90, True),
        ("lower", 83, None, True),
        ("lower", 83, 70, False),
        (["ignore", "throttle", "pause"], "throttle", "pause", False),
        (["ignore", "throttle", "pause"], "throttle", "ignore", True),
        (["ignore", "throttle", "pause"], "throttle", "dance", True),
        (None, "a", "b", True),
        (None, "a", "a", False),
    ],
)
def test_the_order_of_a_setting_decides(order: object, before: object, after: object, loosens: bool) -> None:
    field = FieldInfo(json_schema_extra={"stricter": order})  # type: ignore[dict-item] # any JSON value
    assert may_loosen("polite.rule", before, after, field) is loosens


async def test_what_was_said_when_joining_and_the_task_stand_below_every_file(
    joining: Joining, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await joining.run("--no-run", "--accept", "test-task@1")).status == 0

    async def told(*words: str) -> Told:
        return (await asyncio.to_thread(invoke, list(words)), *joining.capsys.readouterr())

    shown = await told("config", "show", "--json")
    assert origin(shown, "model") == (str(joining.base), "task test-task@1")
    assert origin(shown, "device.prefer") == ("cpu", "join")
    assert "***" in (await told("get", "server"))[1]
    await told("set", "model=org/name", "device.prefer=auto")
    shown = await told("config", "show", "--json")
    assert origin(shown, "model") == ("org/name", "client.toml")


def test_a_strangers_file_is_not_read(run: Run, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(write(tmp_path / "work", "model = 'theirs'\n"), 1234, 1234)
    status, out, err = run("get", "model")
    assert (status, out) == (0, "–\n")
    assert "belongs to another user" in err


@pytest.mark.parametrize(
    ("where", "text", "words", "fix"),
    [
        ("home/client.toml", "[device]\nthreads = 'many'\n", "client.toml", "fedit-client config reset device.threads"),
        ("work/fedit.toml", "[device]\nthreads = 'many'\n", "fedit.toml", "correct or remove device.threads in "),
        ("work/fedit.toml", "home = '/tmp'\n", "home cannot stand in a file", "correct or remove home in "),
        ("work/fedit.toml", "[device\n", "not TOML", "correct or remove "),
        ("home/client.toml", "[device\n", "not TOML", "fedit-client config edit"),
    ],
)
def test_a_wrong_value_is_found_where_it_stands(
    run: Run, tmp_path: Path, where: str, text: str, words: str, fix: str
) -> None:
    (tmp_path / where).write_text(text)
    status, _, err = run("status")
    assert status == 3
    assert words in err
    assert f"fix:   {fix}" in err


def test_a_wrong_variable_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDIT_DEVICE__THREADS", "many")
    status, _, err = run("status")
    assert (status, "FEDIT_DEVICE__THREADS in the environment" in err) == (3, True)
    assert "fix:   unset FEDIT_DEVICE__THREADS" in err


def test_a_missing_config_file_is_an_error(run: Run) -> None:
    status, _, err = run("--config", "absent.toml", "status")
    assert (status, "FEDIT-C002" in err, "absent.toml" in err) == (3, True, True)


def test_reset_heals_a_file_with_several_wrong_lines(run: Run, tmp_path: Path) -> None:
    file = write(tmp_path / "home", "# mine\ncolour = 1\nshape = 2\nmodel = 'org/name'\n", "client.toml")
    assert run("status")[0] == 3
    run("config", "reset", "colour")
    status, out, err = run("config", "reset", "shape")
    assert (status, out, err) == (0, "shape is taken out\n", "")
    assert file.read_text() == "# mine\nmodel = 'org/name'\n"
    assert run("config", "reset", "model")[1] == "model is now –: this client takes the base model that the task says\n"


def test_set_says_the_rule_back(run: Run) -> None:
    status, out, _ = run("set", "device.threads=2", "device.prefer=cpu")
    assert status == 0
    assert "device.threads is now 2: this client trains with 2 CPU threads" in out
    assert "device.prefer is now cpu: this client trains on the CPU, even where there is a GPU" in out


def test_set_says_what_a_running_client_takes_over(run: Run, tmp_path: Path) -> None:
    lock = Paths.under(tmp_path / "home").lock_file
    lock.parent.mkdir(parents=True, exist_ok=True)
    with held_alone(lock):
        _, out, err = run("set", "device.threads=2")
        assert "keeps its device.threads until it is started again: fedit-client finish" in err
        assert "at once" not in out
        _, out, err = run("set", "polite.schedule=all sat-sun")
        assert (err, "the client that runs here takes it over at once" in out) == ("", True)
    _, out, err = run("set", "device.threads=2", "polite.schedule=always")
    assert (err, "runs here" in out) == ("", False)


SLIPS = {
    "polite.on_batery=ignore": ("nearest is polite.on_battery", "fedit-client set polite.on_battery=ignore"),
    "polite.on_batery=7": ("nearest is polite.on_battery", "fedit-client get polite.on_battery"),
    "polite.nope=1": ("there is no setting polite.nope", "fedit-client get polite"),
    "nonsense=1": ("there is no setting nonsense", "fedit-client config show"),
    "polite.on_battery=sometimes": ("takes pause or ignore", "fedit-client set polite.on_battery=pause"),
    "polite.max_temp_c=200": ("a number of at least 40, at most 110", "fedit-client set polite.max_temp_c=83"),
    "polite.max_upload_kbps=2": ("at least 8, at most 100,000,000", "fedit-client set polite.max_upload_kbps=8"),
    "polite.keep_awake=maybe": ("takes true or false", "fedit-client set polite.keep_awake=false"),
    "polite.schedule=soon": ("'soon' is no day", "fedit-client set polite.schedule=always"),
    "identity.store=x": ("takes auto, keyring or file", "fedit-client set identity.store=auto"),
}


@pytest.mark.parametrize(("slip", "words", "fix"), [(slip, *told) for slip, told in SLIPS.items()], ids=SLIPS)
def test_a_slip_of_the_hand_is_answered_with_what_may_be(run: Run, slip: str, words: str, fix: str) -> None:
    run("set", "polite.on_battery=ignore")
    status, _, err = run("set", slip)
    assert (status, words in err, f"fix:   {fix}\n" in err) == (3, True, True), err
    assert run("get", "polite.on_battery")[1] == "ignore\n"
    if not fix.startswith("fedit-client config"):
        assert run(*fix.split()[1:])[0] == 0


def test_every_setting_has_a_rule_in_words() -> None:
    for key, field in leaves(ClientConfig):
        if key not in {"home", "server"}:
            assert rule(key, field.get_default(call_default_factory=True)), key


def test_set_says_when_something_else_still_decides(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDIT_DEVICE__THREADS", "7")
    status, out, err = run("set", "device.threads=2")
    assert (status, "device.threads is now 7" in out) == (0, True)
    assert "FEDIT_DEVICE__THREADS comes before client.toml" in err


def test_secrets_are_not_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDIT_SERVER", "fedit://host/j/K7QF-2M9D-XT4B-W8HC#sha256:" + "0" * 64)
    for words in [("get", "server"), ("config", "show", "--origin"), ("config", "show", "--json")]:
        told = run(*words)
        assert "***" in told[1]
        assert "K7QF" not in told[1] + told[2]


def test_get_shows_a_value_or_a_table_and_knows_near_names(run: Run) -> None:
    assert run("get", "limits.min_cohort")[1] == "3\n"
    assert "device.prefer = auto\ndevice.threads = –\n" in run("get", "device")[1]
    status, _, err = run("get", "device.thread")
    assert (status, "fix:   fedit-client get device.threads" in err) == (3, True)


def test_the_schema_names_every_setting(run: Run) -> None:
    shown = json.loads(run("config", "schema")[1])
    assert set(shown["properties"]) == set(ClientConfig.model_fields)


def edited(folder: Path, text: str) -> str:
    """An editor that types the given text."""
    script = folder / "editor.py"
    script.write_text(f"import pathlib, sys\npathlib.Path(sys.argv[1]).write_text({text!r})\n")
    return f"{sys.executable} {script}"


def test_the_editor_replaces_the_file_only_with_settings_that_can_be(tmp_path: Path) -> None:
    paths = Paths.under(tmp_path / "home")
    assert edit(paths, edited(tmp_path, "[device]\nthreads = 2  # two\n")) is True
    with pytest.raises(ConfigError, match=r"client\.toml is as it was") as told:
        edit(paths, edited(tmp_path, "[device]\nthreads = 0\n"))
    assert (told.value.code, told.value.where) == ("C001", str(paths.config / "client.toml.draft"))
    assert paths.settings_file.read_text() == "[device]\nthreads = 2  # two\n"
    assert (paths.config / "client.toml.draft").read_text() == "[device]\nthreads = 0\n", "what was typed is kept"
    assert edit(paths, edited(tmp_path, "model = 'org/name'\n")) is True
    assert not (paths.config / "client.toml.draft").exists()
    assert tomlkit.parse(paths.settings_file.read_text())["model"] == "org/name"


@pytest.mark.parametrize("editor", ["/nowhere/editor", f"{sys.executable} -c 'raise SystemExit(3)'"])
def test_an_editor_that_fails_changes_nothing(tmp_path: Path, editor: str) -> None:
    with pytest.raises(ConfigError) as told:
        edit(Paths.under(tmp_path), editor)
    assert told.value.code == "C004"
    assert not (tmp_path / "client.toml").exists()


def test_editing_needs_somebody(run: Run) -> None:
    status, _, err = run("config", "edit")
    assert (status, "FEDIT-U002" in err) == (2, True)


def test_a_draft_is_checked_like_the_file(tmp_path: Path) -> None:
    check_settings_text("[limits]\nmin_cohort = 5\n", tmp_path)
    with pytest.raises(ConfigError, match="limits"):
        check_settings_text("limits = 3\n", tmp_path)


def test_colours_are_the_owners_choice(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "work", "[device]\nthreads = 2\n")
    assert "\x1b[" in run("--color", "always", "paths")[2]
    assert "\x1b[" not in run("paths", "--color=never")[2] + run("paths")[2]
