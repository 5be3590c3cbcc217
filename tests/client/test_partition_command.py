"""`fedit-client partition`: files that a client reads, all or nothing, and errors that say what works."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedit_client.cli import invoke
from fedit_client.data import Source, read_records
from fedit_client.partition import load_partition, read_corpus, write_partition
from fedit_client.partition.plot import plot_partition
from fedit_protocol.errors import DataError

ROWS = [
    {"instruction": f"q {number}", "context": "", "response": "a" * (number + 1), "category": "xyz"[number % 3],
     "language": ("de", "en")[number % 2]}
    for number in range(60)
]  # fmt: skip


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDIT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "rows.jsonl", ROWS)
    return tmp_path


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def partition(*words: str) -> int:
    return invoke(["partition", *words])


def test_every_client_has_a_file_that_a_client_reads(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        partition("rows.jsonl", "--clients=4", "--by=shards:2", "--test-rows=2", "--seed=7", "--out=parts", "--no-plot")
        == 0
    )
    said = capsys.readouterr().out
    manifest = json.loads((place / "parts" / "manifest.json").read_text())
    found = []
    for client in manifest["clients"]:
        rows = read_records(place / "parts" / client["file"]).records
        assert len(rows) == client["count"] == len(client["rows"])
        assert {row.category for row in rows} == set(client["categories"])
        found += [json.loads(line) for line in (place / "parts" / client["file"]).read_text().splitlines()]
    tested = [json.loads(line) for line in (place / "parts" / "test.jsonl").read_text().splitlines()]
    assert sorted([*found, *tested], key=lambda row: len(row["response"])) == ROWS
    assert [sum(row["category"] == name for row in tested) for name in "xyz"] == [2, 2, 2]
    assert "60 rows → 4 clients by shards:2, seed 7" in said
    assert f"total variation {manifest['meters']['mean_tv']:.3f}" in said


def test_the_same_words_write_the_same_files(place: Path) -> None:
    words = ("rows.jsonl", "--clients=3", "--by=dirichlet:0.5", "--test-rows=1", "--local-test=0.2", "--no-plot")
    for folder in ("one", "two"):
        assert partition(*words, f"--out={folder}") == 0
    names = sorted(path.name for path in (place / "one").iterdir())
    assert {"manifest.json", "client_0.jsonl", "client_0.test.jsonl", "test.jsonl"} < set(names)
    assert all((place / "one" / name).read_bytes() == (place / "two" / name).read_bytes() for name in names)


def test_a_manifest_makes_its_partition_again(place: Path) -> None:
    assert partition("rows.jsonl", "--clients=3", "--by=iid", "--out=one", "--no-plot", "--local-test=0.1") == 0
    assert partition("rows.jsonl", "--like=one/manifest.json", "--out=two", "--no-plot") == 0
    first, second = (json.loads((place / name / "manifest.json").read_text()) for name in ("one", "two"))
    assert first == second


def test_other_formats_and_columns_are_read(place: Path) -> None:
    lines = ["frage;antwort;category", *(f"q{number};a{number};{'xy'[number % 2]}" for number in range(10))]
    (place / "rows.csv").write_text("\n".join(lines))
    words = ("--map", "prompt=frage", "--map", "response=antwort", "--by", "one-category", "--test-rows", "1")
    assert partition("rows.csv", *words, "--out", "parts", "--no-plot") == 0
    rows = read_records(place / "parts" / "client_1.jsonl").records
    assert [row.messages[0].content for row in rows]
    assert {row.category for row in rows} == {"y"}


def test_more_test_rows_are_taken_from_the_lists_of_a_split_file(place: Path) -> None:
    split = {"client_a": list(range(30)), "client_b": list(range(30, 57)), "global_test": [57, 58, 59]}
    (place / "split.json").write_text(json.dumps({"split": split}))
    assert partition("rows.jsonl", "--like=split.json", "--more-test-rows=2", "--out=parts", "--no-plot") == 0
    manifest = json.loads((place / "parts" / "manifest.json").read_text())
    assert (manifest["test"]["count"], manifest["test"]["rows"][-3:]) == (9, [57, 58, 59])
    assert [client["name"] for client in manifest["clients"]] == ["client_a", "client_b"]
    assert sum(client["count"] for client in manifest["clients"]) == 51


@pytest.mark.slow
def test_the_plot_shows_few_clients_and_many(place: Path) -> None:
    pytest.importorskip("matplotlib")
    assert partition("rows.jsonl", "--clients=3", "--by=iid", "--test-rows=0", "--out=parts") == 0
    assert (place / "parts" / "partition.png").read_bytes().startswith(b"\x89PNG")
    manifest = json.loads((place / "parts" / "manifest.json").read_text())
    many = [{"name": f"client_{number}", "count": 3, "categories": {f"c{number % 30}": 3}} for number in range(70)]
    plot_partition(manifest | {"clients": many}, place / "many.png")
    assert (place / "many.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "code", "status", "fix"),
    [
        (("--clients=3",), "U001", 2, "--clients 10 --by dirichlet:0.5"),
        (("--clients=3", "--by=dirichlt:0.5"), "D040", 9, "--by dirichlet:0.5"),
        (("--clients=99", "--by=iid", "--test-rows=0"), "D041", 9, "--clients 60"),
        (("--clients=3", "--by=iid", "--test-rows=20"), "D041", 9, "--test-rows 19"),
        (("--by=by:colour",), "D042", 9, "--by iid"),
        (("--clients=3", "--by=dirichlet:1:min=30", "--test-rows=0"), "D043", 9, "--by dirichlet:1:min=10"),
        (("--like=absent.json",), "D045", 9, "--like"),
        (("--like=rows.jsonl", "--clients=3"), "U001", 2, "--like rows.jsonl"),
    ],
)
def test_what_cannot_be_says_what_can(
    words: tuple[str, ...], code: str, status: int, fix: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert partition("rows.jsonl", *words, "--out=parts") == status
    said = capsys.readouterr().err
    assert f"FEDIT-{code}" in said
    assert fix in next(line for line in said.splitlines() if line.startswith("  fix:"))
    assert not (place / "parts").exists()


def test_a_folder_with_something_in_it_stays_as_it_is(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("rows.jsonl", "--clients=2", "--by=iid", "--test-rows=0", "--no-plot")
    (place / "parts").mkdir()
    assert partition(*words, "--out=parts") == 0
    before = sorted(path.name for path in (place / "parts").iterdir())
    assert partition(*words, "--out=parts") == 9
    said = capsys.readouterr().err
    assert "FEDIT-D044" in said
    assert "--out parts-2" in said
    assert sorted(path.name for path in (place / "parts").iterdir()) == before
    assert partition(*words, "--out=rows.jsonl") == 9


def test_a_write_that_fails_leaves_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with read_corpus(Source("rows.jsonl")) as corpus:
        (place / "split.json").write_text('{"split": {"a": [0], "b/c": [1]}}')
        with pytest.raises(DataError) as refused:
            load_partition(place / "split.json", corpus)
        assert refused.value.code == "D045"
        (place / "split.json").write_text('{"split": {"a": [0], "b": [1]}}')
        good = load_partition(place / "split.json", corpus)
        corpus.close()
        with pytest.raises(ValueError, match="closed"):
            write_partition(corpus, good, place / "parts")
    assert not [path.name for path in place.iterdir() if "parts" in path.name]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"split": {"a": [0, 60]}}', "row 60"),
        ('{"split": {"a": [-1]}}', "row -1"),
        ('{"split": {"a": [0, 1], "b": [1]}}', "row 1 is in two lists"),
        ('{"split": {"a": [1, 1]}}', "twice in a"),
        ('{"split": {"a": [], "b": [1]}}', "a has no row"),
        ('{"split": {"global_test": [1]}}', "no client"),
        ('{"split": {"a": ["1"]}}', "split.a.0"),
        ('{"rows": []}', "split"),
        ("[", "not JSON"),
    ],
)
def test_a_split_file_that_does_not_fit_is_refused(content: str, why: str, place: Path) -> None:
    (place / "split.json").write_text(content)
    with read_corpus(Source("rows.jsonl")) as corpus, pytest.raises(DataError) as refused:
        load_partition(place / "split.json", corpus)
    assert refused.value.code == "D045"
    assert why in str(refused.value)


def test_a_manifest_of_other_rows_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert partition("rows.jsonl", "--clients=2", "--by=iid", "--test-rows=0", "--out=parts", "--no-plot") == 0
    write(place / "rows.jsonl", ROWS[::-1])
    assert partition("rows.jsonl", "--like=parts/manifest.json", "--out=more") == 9
    assert "FEDIT-D046" in capsys.readouterr().err


def test_files_of_several_shapes_are_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "data").mkdir()
    write(place / "data" / "a.jsonl", ROWS)
    write(place / "data" / "b.jsonl", [{"prompt": "a", "completion": "b"}])
    assert partition("data", "--clients=2", "--by=iid", "--out=parts") == 9
    assert "FEDIT-D047" in capsys.readouterr().err


def test_rows_that_cannot_be_used_stop_it_or_are_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(place / "rows.jsonl", [*ROWS, {"instruction": "q", "response": ""}])
    words = ("rows.jsonl", "--clients=2", "--by=iid", "--test-rows=0", "--no-plot")
    assert partition(*words, "--out=parts") == 9
    assert "FEDIT-D008" in capsys.readouterr().err
    assert partition(*words, "--out=parts", "--on-error=skip") == 0
    assert "1 row cannot be used" in capsys.readouterr().err
    assert json.loads((place / "parts" / "manifest.json").read_text())["data"]["left_out"] == 1


def test_the_page_lists_every_form(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["help", "partition"]) == 0
    assert "inner-dirichlet:ALPHA[:FIELD]" in capsys.readouterr().out
