"""The owner's limits as a command: what is shown, what may be set, what is said about it, what is written."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedit_client.cli import invoke
from fedit_client.config import load_config
from fedit_client.consent.policy import Change
from fedit_client.settings import strictness
from fedit_protocol.limits import Limits
from fedit_protocol.task import Mode

DIGEST = "sha256:" + "0" * 64


class Owner:
    """Somebody at a shell without a terminal."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home, self.file, self._capsys = home, home / "client.toml", capsys

    def says(self, *words: str) -> tuple[int, str, str]:
        """Run a command of the policy; return status, stdout, stderr."""
        status = invoke(["policy", *words])
        return status, *self._capsys.readouterr()

    def gets(self, *words: str) -> Any:
        """The data of a command's JSON answer."""
        status, out, err = self.says(*words, "--json")
        assert status == 0, err
        return json.loads(out)["data"]

    @property
    def limits(self) -> Limits:
        """What is in force."""
        return load_config(self.home).limits


@pytest.fixture
def owner(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Owner:
    monkeypatch.setenv("FEDIT_HOME", str(tmp_path))
    return Owner(tmp_path, capsys)


def test_every_limit_is_shown_with_value_default_and_meaning(owner: Owner) -> None:
    found = owner.gets("show")
    assert [limit["name"] for limit in found["limits"]] == list(Limits.model_fields)
    assert all(limit["value"] == limit["default"] and limit["meaning"] for limit in found["limits"])
    assert (found["file"], found["joined"]) == (str(owner.file), None)
    assert not owner.file.exists()
    status, out, _ = owner.says("show")
    assert status == 0
    assert all(f"  {name} " in out for name in Limits.model_fields)
    assert "no federation is joined" in out


def test_a_changed_limit_is_marked_and_where_it_stands_is_said(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    owner.says("set", "min_cohort", "5")
    monkeypatch.setenv("FEDIT_LIMITS__MAX_RANK", "8")
    sources = {limit["name"]: limit["source"] for limit in owner.gets("show")["limits"]}
    assert sources | {"min_cohort": "client.toml", "max_rank": "FEDIT_LIMITS__MAX_RANK"} == sources
    assert sources["hidden_among"] == "default"
    out = owner.says("show")[1]
    assert "* min_cohort" in out
    assert "from the environment, above the file: max_rank" in out


SET: dict[str, tuple[str, str, Any]] = {
    "a number": ("min_cohort", "7", 7),
    "a fraction": ("max_overlap", "0.9", 0.9),
    "a list": ("target_modules", "q_proj, v_proj,q_proj", ("q_proj", "v_proj")),
    "digests": ("base_digests", DIGEST, (DIGEST,)),
    "an empty list": ("base_digests", "", ()),
    "fewer kinds": ("quantizations", "nf4", ("nf4",)),
    "with the table's name": ("limits.hidden_among", "3", 3),
}


@pytest.mark.parametrize(("name", "text", "value"), SET.values(), ids=SET)
def test_a_limit_is_set_and_holds_from_then_on(name: str, text: str, value: Any, owner: Owner) -> None:
    status, out, err = owner.says("set", name, text)
    assert (status, err) == (0, "")
    key = name.removeprefix("limits.")
    assert out.startswith(f"{key} is ")
    assert getattr(owner.limits, key) == value


def test_comments_order_and_other_settings_of_the_file_stay(owner: Owner) -> None:
    owner.file.write_text(
        "# my machine\nmodel = 'org/name'\n\n[limits]\n# my family\nmin_cohort = 4 # four\nmax_rank = 8\n"
    )
    assert owner.gets("set", "min_cohort", "5") == {"limit": "min_cohort", "value": 5, "before": 4, "looser": False}
    assert owner.file.read_text() == (
        "# my machine\nmodel = 'org/name'\n\n[limits]\n# my family\nmin_cohort = 5 # four\nmax_rank = 8\n"
    )
    owner.says("reset", "max_rank")
    assert "max_rank" not in owner.file.read_text()
    assert owner.limits.max_rank == Limits().max_rank


WRONG: dict[str, tuple[tuple[str, str], str]] = {
    "below the floor": (("min_cohort", "2"), "greater than or equal to 3"),
    "no number": (("min_cohort", "many"), "integer"),
    "no such limit": (("min_cohorts", "3"), "is it min_cohort?"),
    "no digest": (("base_digests", "sha256:abc"), "pattern"),
    "no such mode": (("modes", "plain"), "masked"),
    "one wrong of several": (("quantizations", "nf4,q2"), "nf4"),
    "not a number at all": (("max_epsilon", "nan"), "finite number"),
    "no bound": (("max_clip_norm", "inf"), "finite number"),
    "no mode at all": (("modes", ""), "no task would be left"),
    "no base class at all": (("quantizations", " , "), "no task would be left"),
    "a floor above its ceiling": (("min_clip_norm", "2000"), "no clip would be left"),
}


@pytest.mark.parametrize(("words", "said"), WRONG.values(), ids=WRONG)
def test_a_value_that_cannot_be_is_refused_and_nothing_is_written(
    words: tuple[str, str], said: str, owner: Owner
) -> None:
    status, _, err = owner.says("set", *words)
    assert status == 3
    assert "FEDIT-C001" in err
    assert said in err
    assert "fix:   fedit-client policy" in err
    assert not owner.file.exists()


def test_a_limit_in_the_environment_still_decides_and_that_is_said(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDIT_LIMITS__MIN_COHORT", "9")
    status, _, err = owner.says("set", "min_cohort", "5")
    assert (status, owner.limits.min_cohort) == (0, 9)
    assert "FEDIT_LIMITS__MIN_COHORT in the environment comes before the file" in err


LOOSER: dict[str, tuple[str, Any, Any]] = {
    "fewer devices": ("min_cohort", 5, 3),
    "fewer to hide among": ("hidden_among", 10, 2),
    "fewer expected to collude": ("corrupt_fraction", 0.2, 0.1),
    "a smaller clip": ("min_clip_norm", 0.1, 0.01),
    "a larger clip": ("max_clip_norm", 10.0, 100.0),
    "a larger base": ("max_base_gib", 8.0, 64.0),
    "more rounds a day": ("max_rounds_per_day", 3, 4),
    "any number of rounds a day": ("max_rounds_per_day", 3, 0),
    "a larger epsilon": ("max_epsilon", 1.0, 8.0),
    "any epsilon": ("max_epsilon", 8.0, 0.0),
    "younger devices": ("min_cert_age_h", 24.0, 0.0),
    "another module": ("target_modules", ("q_proj",), ("q_proj", "v_proj")),
    "other modules": ("target_modules", ("q_proj", "k_proj"), ("v_proj",)),
    "any module": ("target_modules", ("q_proj",), ()),
    "another base": ("base_digests", (DIGEST,), (DIGEST, "sha256:" + "1" * 64)),
    "any base": ("base_digests", (DIGEST,), ()),
    "more kinds of bases": ("quantizations", ("nf4",), ("nf4", "int8")),
    "another mode": ("modes", ("masked",), ("masked", "trusted")),
}


@pytest.mark.parametrize(("name", "before", "after"), LOOSER.values(), ids=LOOSER)
def test_a_looser_policy_says_so_and_the_way_back_does_not(name: str, before: Any, after: Any) -> None:
    there, back = Change(name, before, after), Change(name, after, before)
    assert there.is_looser
    assert "looser than before" in " ".join(there.lines())
    # Other modules than before are looser in both directions: each lets something pass that the other refused.
    assert back.is_looser == (isinstance(before, tuple) and not set(before) <= set(after) and bool(after))
    assert not Change(name, before, before).is_looser


def test_every_limit_has_a_direction() -> None:
    """A limit that is added has a name that says which way is looser, or is listed as one where more is stricter."""
    for name, field in Limits.model_fields.items():
        is_list = isinstance(field.get_default(), tuple)
        assert is_list or name.startswith("max_") != (name in strictness._MORE_IS_STRICTER), name


def test_trusted_mode_is_allowed_by_a_yes_only() -> None:
    assert Change("modes", ("masked",), ("masked", "trusted")).needs_a_yes
    assert not Change("modes", ("masked", "trusted"), ("masked",)).needs_a_yes
    assert not Change("modes", ("masked", "trusted"), ("trusted",)).needs_a_yes


def test_nobody_allows_trusted_mode_without_being_asked(owner: Owner) -> None:
    """It means that a server reads single updates: the command says so, and wants a yes."""
    status, out, err = owner.says("set", "modes", "masked,trusted")
    assert (status, "FEDIT-U002" in err, "--yes" in err) == (2, True, True)
    assert "reads the update of this device by itself" in out
    assert "level T0" in out
    assert (owner.file.exists(), owner.limits.modes) == (False, (Mode.MASKED,))
    status, out, _ = owner.says("set", "modes", "masked,trusted", "--yes")
    assert (status, owner.limits.modes) == (0, (Mode.MASKED, Mode.TRUSTED))
    assert "reads the update of this device by itself" in out
    assert "looser than before" in out
    assert owner.gets("reset", "modes")["looser"] is False
    assert owner.limits.modes == (Mode.MASKED,)


def test_limits_are_not_changed_past_the_policy(owner: Owner, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["set", "limits.min_cohort=5"]) == 3
    assert "fedit-client policy set min_cohort 5" in capsys.readouterr().err
    assert not owner.file.exists()
