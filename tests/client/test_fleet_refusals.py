"""What a fleet refuses before anything is fetched or trained, and the nearest setting that it names."""

import json
from pathlib import Path

import pytest

from fedit_client.cli import invoke
from fedit_client.data import Source
from fedit_client.fleet import FleetSettings
from fedit_client.fleet.own_server import task_text
from fedit_client.fleet.population import deal
from fedit_protocol.errors import DataError, FleetError


def task_file(folder: Path, more: str) -> Path:
    """A task with this behind its first lines."""
    file = folder / "task.toml"
    file.write_text(f'id = "no"\ntitle = "No"\n[base]\nmodel = "somebody/absent"\n{more}')
    return file


def rows(folder: Path, count: int) -> Path:
    """Write rows of two categories."""
    path = folder / "rows.jsonl"
    lines = [{"instruction": f"Say {n}.", "response": "ok", "category": "ab"[n % 2]} for n in range(count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


SOME_JOIN = """
[round]
cohort_size = 20
cohort_min = 4
selection = "self"
[selection]
join_share = 0.5
join_least = 0.5
"""
WAITING: dict[str, tuple[str, int, int, list[str]]] = {
    "more than there are": ("[round]\ncohort_size = 8\ncohort_min = 8\n", 5, 0, ["--clients 8"]),
    "several cohorts": ("[round]\ncohort_size = 4\ncohorts = 3\nmin_cohorts = 2\n", 5, 0, ["--clients 6"]),
    "some that will not join": (SOME_JOIN, 10, 0, ["--clients 12"]),
    "a cohort that was asked for": ("", 5, 10, ["--clients 7", "--cohort 5"]),
}


@pytest.mark.parametrize(("policy", "clients", "cohort", "choices"), WAITING.values(), ids=WAITING)
def test_a_round_that_would_be_waited_for_for_ever_is_refused_with_the_nearest_setting(
    policy: str, clients: int, cohort: int, choices: list[str], tmp_path: Path
) -> None:
    file, settings = task_file(tmp_path, policy), FleetSettings("local", "rows", clients, cohort=cohort)
    with pytest.raises(FleetError, match=f"this fleet has {clients}, so that none would ever begin") as refused:
        task_text(settings, file)
    assert (refused.value.code, str(refused.value.again).splitlines()) == ("F001", choices)
    for choice in choices:  # and each of them works
        option, value = choice.split()
        changed = {"clients": clients, "cohort": cohort} | {option.removeprefix("--"): int(value)}
        task_text(FleetSettings("local", "rows", changed["clients"], cohort=changed["cohort"]), file)


def test_a_smaller_cohort_in_the_task_would_do_as_well_where_so_few_hide_one_another(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match=r"round\.cohort_min = 5 in the task would do as well"):
        task_text(FleetSettings("local", "rows", 5), task_file(tmp_path, "[round]\ncohort_size = 8\ncohort_min = 8\n"))
    assert task_text(
        FleetSettings("local", "rows", 5), task_file(tmp_path, "[round]\ncohort_size = 8\ncohort_min = 5\n")
    )
    two_sums = task_file(tmp_path, '[method]\nname = "fedit_rs"\n[round]\ncohort_size = 11\ncohort_min = 11\n')
    with pytest.raises(FleetError, match=r"none would ever begin$"):
        task_text(FleetSettings("local", "rows", 5), two_sums)


NO_TASKS: dict[str, tuple[str, str]] = {
    "a key that no task has": ('colour = "blue"\n', "base.colour: this key does not exist"),
    "rules that contradict each other": ("[round]\ncohort_size = 3\ncohort_min = 4\n", "set cohort_size = 4"),
    "tables that do not fit each other": ('[method]\nname = "scaffold"\n', "is refused: method.name = scaffold needs"),
    "sketches of so few": ('[method]\nname = "fedit_rs"\n', "set round.cohort_min = 11 and cohort_size = 11"),
    "ranks that so few would never send": (
        '[method]\nname = "nested"\n[adapter]\nrank = 8\nranks = [4, 8]\n[round]\ncohort_min = 4\ncohort_size = 4\n',
        "set cohort_size = 5 or more",
    ),
    "thresholds that so few cannot have": ("[round]\ncohort_size = 4\nmin_survivors = 100\n", "min_survivors"),
}


@pytest.mark.parametrize(("more", "words"), NO_TASKS.values(), ids=NO_TASKS)
def test_a_task_that_is_none_is_refused_before_its_base_is_looked_for(
    more: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(rows(tmp_path, 20).parent)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    task_file(tmp_path, more)
    line = ["--server", "local", "--clients", "5", "--data", "rows.jsonl", "--task", "task.toml", "--partition", "iid"]
    assert invoke(["--json", "--home", str(tmp_path / "home"), "fleet", *line, "--test-rows", "0"]) == 14
    told = json.loads(capsys.readouterr().out.splitlines()[-1])["error"]
    assert told["code"] == "FEDIT-F009"
    assert words in told["message"]
    assert [path.name for path in (tmp_path / "fleet").iterdir()] == ["fleet.lock"]


def test_what_only_the_operator_knows_of_a_task_is_not_refused(tmp_path: Path) -> None:
    """`[retention]` is no part of a task; the server takes it out of the file."""
    text = task_text(FleetSettings("local", "rows", 5), task_file(tmp_path, "[retention]\nkeep_last = 2\n"))
    assert "keep_last" in text


NEAREST: dict[str, tuple[str, int, str, str]] = {
    "fewer rows than clients": ("iid", 50, "F001", "--clients 20"),
    "fewer rows than clients of unlike sizes": ("dirichlet:0.5", 50, "F001", "--clients 20 --partition iid"),
    "an unknown form": ("dirichlt:1", 5, "D040", "--partition dirichlet:1"),
    "a form without its number": ("dirichlet:much", 5, "D040", "--partition dirichlet:0.5"),
    "more categories than there are": ("pathological:9", 5, "D041", "--partition pathological:2"),
    "a column that is not there": ("by:catgory", 5, "D042", "--partition by:category"),
}


@pytest.mark.parametrize(("form", "clients", "code", "again"), NEAREST.values(), ids=NEAREST)
def test_rows_that_cannot_be_dealt_are_refused_with_an_option_of_the_fleets_own_that_works(
    form: str, clients: int, code: str, again: str, tmp_path: Path
) -> None:
    source = Source(str(rows(tmp_path, 20)))
    with pytest.raises((DataError, FleetError)) as refused:
        deal(source, FleetSettings("local", "rows", clients, form, test_rows=0), tmp_path / "one")
    assert (refused.value.code, refused.value.again) == (code, again)
    assert refused.value.fix == f"fedit-client fleet {again}"
    words = again.split()
    said = dict(zip(words[::2], words[1::2], strict=True))
    changed = FleetSettings("local", "rows", int(said.get("--clients", clients)), said.get("--partition", form),
                            test_rows=0)  # fmt: skip
    assert len(deal(source, changed, tmp_path / "two")["clients"]) == changed.clients
