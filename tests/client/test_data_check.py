"""`data check`, `add`, `list`, `remove`, `convert`: what a person is told about rows, and that none is lost unsaid."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedit_client.cli import invoke
from fedit_client.data import Record, Role, Shape, Source, read_records
from fedit_client.data.findings import Sized, inspect, inspect_lengths, inspect_refused
from fedit_client.data.records import Message, RowFile
from fedit_client.data.remembered import load_sources
from fedit_client.data.sensitive import can_find_persons, find_keys, keys_in, persons_in
from fedit_client.home.paths import Paths
from fedit_protocol.errors import DataError, StorageError

PAIR = {"prompt": "Hello?", "completion": "Hello."}
Ask = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Run a command from a fresh home and return its status and its JSON answer."""
    for name in list(os.environ):
        if name.startswith("FEDIT_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FEDIT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    # As without the extra `check`: the process that finds persons takes seconds, and has tests of its own.
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name.startswith("presidio") else real(name, *rest)
    )

    def asked(*arguments: str) -> tuple[int, dict[str, Any]]:
        status = invoke(["--json", "data", *arguments])
        return status, json.loads(capsys.readouterr().out)

    return asked


def put(path: Path, *rows: Any) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def records(*turns: tuple[str, str]) -> RowFile:
    made = [
        Record((Message(Role.USER, ask), Message(Role.ASSISTANT, answer)), line=line)
        for line, (ask, answer) in enumerate(turns, start=1)
    ]
    return RowFile(tuple(made), Shape.MESSAGES)


# A row of JSON lines, and whether it can be used.
ROWS = st.sampled_from(
    [
        (json.dumps(PAIR), True),
        (json.dumps({**PAIR, "completion": " "}), False),
        (json.dumps({**PAIR, "prompt": 4}), False),
        (json.dumps({"prompt": "x"}), False),
        ("{", False),
        ("[]", False),
        ("\udcff", False),
        ("", None),
        ("  ", None),
    ]
)


@given(st.lists(ROWS, min_size=1, max_size=40))
def test_nothing_is_dropped_in_silence(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, bool]]) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_bytes("\n".join([json.dumps(PAIR), *(text for text, _ in rows)]).encode(errors="surrogateescape"))
    found = read_records(path, on_error="skip")
    good = [1, *(line for line, (_, usable) in enumerate(rows, start=2) if usable)]
    bad = [line for line, (_, usable) in enumerate(rows, start=2) if usable is False]
    assert [record.line for record in found.records] == good
    assert [problem.line for problem in found.skipped] == bad
    assert all(problem.code and problem.reason for problem in found.skipped)


CELLS = st.sampled_from(
    [("a,b", True), ('"a\nb",c', True), ("a", False), ("a,b,c", False), ('"a"b,c', False), ("a, ", False)]
)


@given(st.lists(CELLS, min_size=1, max_size=30))
def test_no_row_of_a_table_is_dropped_in_silence(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, bool]]
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    path.write_text("\n".join(["prompt,completion", "x,y", *(text for text, _ in rows)]))
    found = read_records(path, on_error="skip")
    assert len(found.records) == 1 + sum(usable for _, usable in rows)
    assert len(found.skipped) == sum(not usable for _, usable in rows)


def test_check_warns_of_everything_and_blocks_nothing(tmp_path: Path, ask: Ask) -> None:
    put(
        tmp_path / "rows.jsonl",
        PAIR,
        "{\n",
        {"prompt": "hello?  ", "completion": "HELLO."},
        {**PAIR, "completion": ""},
        PAIR,
        {"prompt": "key", "completion": "AKIA" + "A1B2" * 4},
        {"prompt": "long", "completion": "x" * 5000},
    )
    status, answer = ask("check", "rows.jsonl")
    assert (status, answer["ok"]) == (0, True)
    found = {finding["code"]: finding for finding in answer["data"]["findings"]}
    assert {code: finding["places"][0]["line"] for code, finding in found.items()} == {
        "D005": 2, "D008": 4, "D030": 5, "D031": 3, "D032": 7, "D033": 6,
    }  # fmt: skip
    assert found["D030"]["places"][0]["detail"].endswith("line 1")
    assert (answer["data"]["rows"], answer["data"]["skipped"]) == (5, 2)
    assert found["D033"]["places"][0]["detail"] == "an AWS key"


def test_check_in_words(tmp_path: Path, ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "rows.jsonl", {**PAIR, "category": "x"}, {**PAIR, "completion": ""})
    assert invoke(["data", "check", "rows.jsonl"]) == 0
    told = capsys.readouterr().out
    for words in (
        "rows.jsonl: 1 row · prompt_completion columns · 1 skipped · 1 category",
        "  x                             1\n",
        "D008       1 row   completion is empty\n      lines 2   fedit-client data check rows.jsonl --show D008\n",
        "1 of all rows cannot be used: left out by --on-error skip; without it they stop a join\n",
        "these are warnings: nothing was changed or left out\nnothing left this machine\n",
    ):
        assert words in told


def test_one_finding_is_listed_whole(tmp_path: Path, ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "rows.jsonl", *[PAIR] * 60)
    _, answer = ask("check", "rows.jsonl")
    assert len(answer["data"]["findings"][0]["places"]) == 20
    _, whole = ask("check", "rows.jsonl", "--show", "d030")
    assert len(whole["data"]["findings"][0]["places"]) == 59
    assert invoke(["data", "check", "rows.jsonl", "--show", "D030"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 60
    status, unknown = ask("check", "rows.jsonl", "--show", "D099")
    assert (status, unknown["error"]["code"]) == (2, "FEDIT-U012")


def test_check_says_what_it_did_not_look_for(tmp_path: Path, ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "rows.jsonl", PAIR)
    assert ask("check", "rows.jsonl")[1]["data"]["not_looked_for"] == ["personal data"]
    invoke(["data", "check", "rows.jsonl"])
    assert 'pip install "fedit[check]"' in capsys.readouterr().out


def test_check_never_quotes_a_row(tmp_path: Path, ask: Ask) -> None:
    secret = "hf_" + "a1B2c3" * 6
    put(tmp_path / "rows.jsonl", {"prompt": secret, "completion": secret}, {"prompt": secret, "completion": ""})
    assert secret not in json.dumps(ask("check", "rows.jsonl")[1])


KEYS = {
    "an AWS key": "AKIAIOSFODNN7EXAMPLE",
    "a GitHub token": "ghp_" + "a1B2" * 9,
    "a private key": "-----BEGIN OPENSSH PRIVATE KEY-----",
    "a key of a model API": "sk-ant-" + "a1B2" * 6,
    "a password": "password: hunter2hunter",
    "a signed web token": f"eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.{'a1' * 8}",
}


@pytest.mark.parametrize(("kind", "text"), KEYS.items())
def test_keys_are_found_by_their_published_formats(kind: str, text: str) -> None:
    assert find_keys(f"use {text} for it") == {kind}


@pytest.mark.parametrize(
    "text", ["my password is a secret", "token: yes", "sk-learn", "the API key lies in the drawer"]
)
def test_talk_of_keys_is_no_key(text: str) -> None:
    assert find_keys(text) == frozenset()


PERSONS = {
    "a mail address": "write to ada@example.org today",
    "a card number": "card 4111 1111 1111 1111",
    "a bank account": "DE89370400440532013000",
    "an address of a computer": "it runs on 93.184.216.34",
    "a phone number": "call +49 30 901820 now",
}


EVERYDAY = ["1939-1945", "pages 1212/1263", "127.0.0.1", "a @ b", "12:30:45", "version 1.2.3", "call me", "é"]


@pytest.mark.skipif(not can_find_persons(), reason="needs the extra check")
def test_persons_are_found_by_patterns_and_everyday_numbers_are_none() -> None:
    found = persons_in([*PERSONS.values(), *EVERYDAY])
    assert found == [*(frozenset({kind}) for kind in PERSONS), *(frozenset[str]() for _ in EVERYDAY)]


@pytest.mark.skipif(not can_find_persons(), reason="needs the extra check")
def test_looking_for_persons_asks_no_network_and_loads_no_torch() -> None:
    """presidio's own check of mail addresses asks the network for a list of domains."""
    code = (
        "import logging, socket, sys\n"
        "def refuse(*_, **__): raise AssertionError('network')\n"
        "socket.getaddrinfo = socket.create_connection = socket.socket.connect = refuse\n"
        "logging.basicConfig(level=logging.INFO)\n"
        "from fedit_client.data.persons import recognisers\n"
        "finders = recognisers()\n"
        f"assert [kind for kind, find in finders.items() if find({' and '.join(PERSONS.values())!r})]\n"
        "assert not sys.modules['torch']\n"
    )
    paths = {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **paths})
    assert done.returncode == 0, done.stderr
    assert "suffix" not in done.stderr


def test_lengths_say_which_rows_are_cut_and_which_are_useless() -> None:
    file = records(("a", "b"), ("a", "c"), ("a", "d"))
    found = inspect([file], keys_in, None)
    inspect_lengths(found, [file], [Sized(5, 2), Sized(12, 2), Sized(30, 0, is_useless=True)], limit=10)
    assert {finding.code: [place.line for place in finding.places] for finding in found.findings} == {
        "D032": [2, 3],
        "D035": [3],
    }


def test_rows_that_the_template_does_not_take_are_warned_of() -> None:
    file = records(("a", "b"), ("a", "c"))
    found = inspect([file], keys_in, None)
    inspect_refused(found, [file], {1: DataError("two system turns", code="D016")})
    ((finding,), place) = found.findings, found.findings[0].places[0]
    assert (finding.code, place.line, place.detail) == ("D016", 2, "two system turns")


def test_data_is_added_listed_and_removed_by_name_only(tmp_path: Path, ask: Ask) -> None:
    rows = tmp_path / "faq.csv"
    rows.write_text("question,answer_a,answer_b\nWhat?,this,that\n")
    status, refused = ask("add", "faq.csv")
    assert (status, refused["error"]["code"]) == (9, "FEDIT-D006")
    status, added = ask("add", "faq.csv", "--map", "prompt=question", "--map", "response=answer_b")
    assert (status, added["data"]["rows"]) == (0, 1)
    _, listed = ask("list")
    assert listed["data"]["sources"] == [
        {
            "place": str(rows),
            "columns": {"prompt": "question", "response": "answer_b"},
            "shape": None,
            "on_error": "stop",
        }
    ]
    assert load_sources(Paths.under(tmp_path / "home"))[0].read().records[0].messages[1].content == "that"
    assert "that" not in (tmp_path / "home" / "sources.json").read_text()
    assert ask("add", "faq.csv", "--map", "prompt=question", "--map", "response=answer_a")[1]["data"]["sources"] == [
        str(rows)
    ]
    assert ask("check")[1]["data"]["rows"] == 1
    assert ask("remove", "faq.csv")[1]["data"]["sources"] == []
    assert ask("remove", "faq.csv")[1]["error"]["code"] == "FEDIT-D022"
    assert rows.exists()


def test_adding_with_skipping_says_which_rows_are_left_out(
    tmp_path: Path, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "rows.jsonl", PAIR, {**PAIR, "completion": ""})
    assert ask("add", "rows.jsonl")[1]["error"]["fix"] == "fedit-client data add rows.jsonl --on-error skip"
    assert invoke(["data", "add", "rows.jsonl", "--on-error", "skip"]) == 0
    assert "line 2 is left out: completion is empty (D008)" in capsys.readouterr().out


def test_adding_warns_at_once_of_keys_and_repetitions(
    tmp_path: Path, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "rows.jsonl", PAIR, PAIR, {"prompt": "key", "completion": "AKIA" + "A1B2" * 4})
    assert invoke(["data", "add", "rows.jsonl"]) == 0
    told = capsys.readouterr().out
    assert "1 row: the same as an earlier row   (fedit-client data check rows.jsonl --show D030)" in told
    assert "1 row: a key or a password, as it seems   (fedit-client data check rows.jsonl --show D033)" in told


def test_stdin_is_not_remembered(ask: Ask) -> None:
    assert ask("add", "-")[1]["error"]["code"] == "FEDIT-U001"


def test_a_map_that_is_none_is_said(tmp_path: Path, ask: Ask) -> None:
    put(tmp_path / "rows.jsonl", PAIR)
    assert ask("add", "rows.jsonl", "--map", "question")[1]["error"]["code"] == "FEDIT-U001"


def test_a_list_of_sources_that_is_damaged_says_so(tmp_path: Path) -> None:
    (tmp_path / "sources.json").write_text("{}}")
    with pytest.raises(StorageError) as told:
        load_sources(Paths.under(tmp_path))
    assert told.value.code == "S013"


def test_convert_writes_messages_that_read_back_the_same(tmp_path: Path, ask: Ask) -> None:
    dolly = {"instruction": "Add.", "context": "2 and 3", "response": "5", "category": "sums"}
    source = put(tmp_path / "rows.jsonl", dolly, {**dolly, "response": ""})
    _, answer = ask("convert", "rows.jsonl", "--to", "messages", "--out", "out.jsonl", "--on-error", "skip")
    assert (answer["data"]["rows"], answer["data"]["skipped"]) == (1, 1)
    converted = read_records(tmp_path / "out.jsonl")
    (before,), (after,) = read_records(source, on_error="skip").records, converted.records
    assert (converted.shape, after.messages, after.category) == (Shape.MESSAGES, before.messages, before.category)
    assert ask("convert", "rows.jsonl", "--out", "out.jsonl")[1]["error"]["code"] == "FEDIT-U001"


def test_convert_to_stdout_is_rows_only(tmp_path: Path, ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "rows.jsonl", PAIR)
    assert invoke(["data", "convert", "rows.jsonl"]) == 0
    assert json.loads(capsys.readouterr().out)["messages"][1] == {"role": "assistant", "content": "Hello."}
    assert ask("convert", "rows.jsonl")[1]["error"]["code"] == "FEDIT-U001"
    (tmp_path / "notes.txt").write_text("One.")
    assert ask("convert", "notes.txt", "--as", "text", "--out", "x")[1]["error"]["code"] == "FEDIT-D025"


def test_a_source_with_no_usable_row_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError) as told:
        Source(str(put(tmp_path / "rows.jsonl", {**PAIR, "completion": ""})), on_error="skip").read()
    assert told.value.code == "D011"
