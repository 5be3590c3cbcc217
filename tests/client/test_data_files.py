"""A zoo of good and broken data files: what is read, and what a person is told about the rest."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fedit_client.data import Message, Role, RowFile, Shape, read_records, records_from
from fedit_protocol.errors import DataError

DOLLY = {"instruction": "Name a bird.", "context": "", "response": "A wren.", "category": "open_qa"}
ALPACA = {"instruction": "Add.", "input": "2 and 3", "output": "5"}
PAIR = {"prompt": "Hello?", "completion": "Hello."}
CHAT = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@dataclass(frozen=True)
class Good:
    name: str
    content: str | bytes
    shape: Shape
    rows: int
    ignored: tuple[str, ...] = ()


GOOD = {
    "dolly as JSON lines": Good("rows.jsonl", lines(DOLLY, DOLLY), Shape.DOLLY, 2),
    "dolly without context and category": Good(
        "rows.jsonl", lines({"instruction": "a", "response": "b"}), Shape.DOLLY, 1
    ),
    "alpaca as a JSON list": Good("rows.json", json.dumps([ALPACA, ALPACA, ALPACA], indent=2), Shape.ALPACA, 3),
    "JSON lines that are called .json": Good("rows.json", lines(PAIR, PAIR), Shape.PROMPT_COMPLETION, 2),
    "prompt and completion as CSV": Good("rows.csv", "prompt,completion\nHi,Hello\n", Shape.PROMPT_COMPLETION, 1),
    "CSV with line breaks in a cell": Good(
        "rows.csv", 'instruction,response\n"two\nlines",yes\nask,no\n', Shape.DOLLY, 2
    ),
    "prompt and completion as messages": Good(
        "rows.jsonl",
        lines({"prompt": [CHAT["messages"][0]], "completion": [CHAT["messages"][1]]}),
        Shape.PROMPT_COMPLETION,
        1,
    ),
    "chat messages": Good("rows.jsonl", lines(CHAT), Shape.MESSAGES, 1),
    "a system message first": Good(
        "rows.jsonl",
        lines({"messages": [{"role": "system", "content": "Be brief."}, *CHAT["messages"]]}),
        Shape.MESSAGES,
        1,
    ),
    "a byte order mark": Good("rows.jsonl", b"\xef\xbb\xbf" + lines(DOLLY).encode(), Shape.DOLLY, 1),
    "a byte order mark in CSV": Good("rows.csv", b"\xef\xbb\xbfprompt,completion\na,b\n", Shape.PROMPT_COMPLETION, 1),
    "Windows line ends": Good("rows.jsonl", lines(PAIR, PAIR).replace("\n", "\r\n"), Shape.PROMPT_COMPLETION, 2),
    "blank lines between rows": Good(
        "rows.jsonl", "\n" + lines(PAIR) + "\n\n" + lines(PAIR), Shape.PROMPT_COMPLETION, 2
    ),
    "no line end at the end": Good("rows.jsonl", lines(PAIR).rstrip(), Shape.PROMPT_COMPLETION, 1),
    "columns that nobody needs": Good("rows.jsonl", lines({**PAIR, "id": 7}), Shape.PROMPT_COMPLETION, 1, ("id",)),
    "null where a context may be": Good("rows.jsonl", lines({**DOLLY, "context": None}), Shape.DOLLY, 1),
    "an ending in capitals": Good("ROWS.JSONL", lines(PAIR), Shape.PROMPT_COMPLETION, 1),
    "text of every script": Good(
        "rows.jsonl", json.dumps({"prompt": "你好", "completion": "नमस्ते 🙂"}), Shape.PROMPT_COMPLETION, 1
    ),
}


@pytest.mark.parametrize("case", GOOD.values(), ids=GOOD)
def test_good_files_are_read_whole(case: Good, tmp_path: Path) -> None:
    found = read_records(put(tmp_path, case.name, case.content))
    assert (found.shape, len(found.records), found.skipped) == (case.shape, case.rows, ())
    assert found.ignored_columns == case.ignored


@dataclass(frozen=True)
class Bad:
    name: str
    content: str | bytes | None
    code: str
    says: str
    where: str = ""


BAD = {
    "a missing file": Bad("rows.jsonl", None, "D001", "does not exist"),
    "an empty file": Bad("rows.jsonl", "", "D002", "not a single row"),
    "a file of blank lines": Bad("rows.jsonl", "\n \n", "D002", "not a single row"),
    "an empty list": Bad("rows.json", "[]", "D002", "not a single row"),
    "CSV with a header only": Bad("rows.csv", "prompt,completion\n", "D002", "not a single row"),
    "an unknown ending": Bad("rows.xlsx", "x", "D003", ".xlsx"),
    "no ending": Bad("rows", "x", "D003", "without an ending"),
    "unknown columns": Bad("rows.jsonl", lines({"q": "a", "a": "b"}), "D004", "found a, q"),
    "a column missing in one row": Bad(
        "rows.jsonl", lines(PAIR, PAIR, {"prompt": "x"}), "D004", "column completion is missing", "line 3"
    ),
    "two shapes at once": Bad("rows.jsonl", lines({**DOLLY, **ALPACA}), "D006", "dolly"),
    "a broken line": Bad("rows.jsonl", lines(PAIR) + '{"prompt": "x"\n', "D005", "not valid JSON", "line 2"),
    "a broken element in a list": Bad(
        "rows.json", '[\n{"prompt": "a", "completion": "b"},\n{oops}\n]', "D005", "JSON", "line 3"
    ),
    "a list that does not end": Bad("rows.json", json.dumps([PAIR])[:-1], "D005", "not valid JSON from here on"),
    "JSON nested too deeply": Bad("rows.jsonl", "[" * 100_000 + "\n", "D005", "not valid JSON", "line 1"),
    "bytes that are no text": Bad("rows.jsonl", b'{"prompt": "\xff"}\n', "D005", "not UTF-8", "line 1"),
    "CSV in another encoding": Bad("rows.csv", "prompt,completion\nä,b\n".encode("latin-1"), "D005", "UTF-8"),
    "CSV with a cell too many": Bad("rows.csv", "prompt,completion\na,b\nc,d,e\n", "D005", "number of cells", "line 3"),
    "CSV with an open quote": Bad("rows.csv", 'prompt,completion\na,"b\n', "D005", "not valid CSV"),
    "a list where an object should be": Bad("rows.jsonl", "[1]\n", "D007", "not a JSON object", "line 1"),
    "a number for an answer": Bad("rows.jsonl", lines({**PAIR, "completion": 4}), "D007", "completion is a number"),
    "text for messages": Bad("rows.jsonl", lines({"messages": "hi"}), "D007", "messages is of type str"),
    "a message that is no object": Bad("rows.jsonl", lines({"messages": ["hi"]}), "D007", "messages[0]"),
    "content that is no text": Bad(
        "rows.jsonl", lines({"messages": [{"role": "user", "content": {}}]}), "D007", "content is an object"
    ),
    "a category that is no text": Bad("rows.jsonl", lines({**DOLLY, "category": 1}), "D007", "category is a number"),
    "an empty response": Bad(
        "rows.jsonl", lines(DOLLY, {**DOLLY, "response": "  "}), "D008", "response is empty", "line 2"
    ),
    "null for a response": Bad("rows.jsonl", lines({**DOLLY, "response": None}), "D008", "response is empty"),
    "an unknown role": Bad("rows.jsonl", lines({"messages": [{"role": "bot", "content": "x"}]}), "D009", "role"),
    "two users in a row": Bad(
        "rows.jsonl", lines({"messages": [CHAT["messages"][0], *CHAT["messages"]]}), "D009", "take turns"
    ),
    "the assistant first": Bad("rows.jsonl", lines({"messages": [CHAT["messages"][1]]}), "D009", "take turns"),
    "no answer at the end": Bad(
        "rows.jsonl", lines({"messages": [CHAT["messages"][0]]}), "D014", "not from the assistant"
    ),
    "no message at all": Bad("rows.jsonl", lines({"messages": []}), "D014", "not from the assistant"),
    "parquet that is none": Bad("rows.parquet", "no", "D005", "parquet"),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_bad_files_are_refused_with_file_and_line(case: Bad, tmp_path: Path) -> None:
    path = put(tmp_path, case.name, case.content)
    with pytest.raises(DataError) as refused:
        read_records(path)
    assert refused.value.code == case.code
    assert case.says in str(refused.value)
    assert str(path) in (refused.value.where or "")
    assert case.where in (refused.value.where or "")
    assert refused.value.exit_code == 9


def put(folder: Path, name: str, content: str | bytes | None) -> Path:
    path = folder / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_folder_is_no_data_file(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        read_records(tmp_path / "rows.jsonl")


def test_all_broken_rows_are_counted_and_the_first_ones_named(tmp_path: Path) -> None:
    rows = [PAIR if number % 2 else {**PAIR, "completion": ""} for number in range(20)]
    path = put(tmp_path, "rows.jsonl", lines(*rows))
    with pytest.raises(DataError) as refused:
        read_records(path)
    assert str(refused.value) == "10 of 20 rows cannot be used; line 1: completion is empty"
    assert refused.value.where == f"{path} lines 1, 3, 5, 7, 9 …   (fedit-client data check {path} --show D008)"
    assert refused.value.fix is not None
    assert "--on-error skip" in refused.value.fix


def test_skipping_is_asked_for_and_counted(tmp_path: Path) -> None:
    path = put(tmp_path, "rows.jsonl", lines(PAIR) + "{\n" + lines({**PAIR, "completion": ""}, PAIR))
    found = read_records(path, on_error="skip")
    assert [record.line for record in found.records] == [1, 4]
    assert [(problem.line, problem.code) for problem in found.skipped] == [(2, "D005"), (3, "D008")]


def test_skipping_everything_is_an_error() -> None:
    with pytest.raises(DataError) as refused:
        records_from([{**PAIR, "completion": ""}], on_error="skip")
    assert refused.value.code == "D011"


def test_lines_of_a_json_list_are_those_of_the_file(tmp_path: Path) -> None:
    path = put(tmp_path, "rows.json", json.dumps([PAIR, PAIR, PAIR], indent=1))
    assert [record.line for record in read_records(path).records] == [2, 6, 10]


def test_lines_of_csv_are_where_a_row_begins(tmp_path: Path) -> None:
    path = put(tmp_path, "rows.csv", 'prompt,completion\n"a\nb",c\nd,e\nf,g\n')
    assert [record.line for record in read_records(path).records] == [2, 4, 5]


def test_a_given_shape_settles_a_tie() -> None:
    assert only(records_from([{**DOLLY, **ALPACA}], shape=Shape.ALPACA)).messages[1].content == "5"


def test_context_follows_the_instruction_and_is_kept_apart() -> None:
    record = only(records_from([ALPACA]))
    assert record.messages == (Message(Role.USER, "Add.\n\n2 and 3"), Message(Role.ASSISTANT, "5"))
    assert record.context == "2 and 3"


def test_categories_are_kept_for_every_shape() -> None:
    found = records_from([{**PAIR, "category": "a"}, {**PAIR, "category": "b"}, {**PAIR, "category": "a"}])
    assert {category: len(records) for category, records in found.by_category().items()} == {"a": 2, "b": 1}
    assert found.ignored_columns == ()


def test_rows_in_memory_may_not_be_anything() -> None:
    with pytest.raises(DataError, match="not a mapping"):
        records_from(["text"])  # type: ignore[list-item]  # what a caller without a type checker does


def test_error_texts_never_quote_a_row() -> None:
    secret = "my-private-note"
    for row in (
        {**PAIR, "completion": {secret: 1}},
        {"messages": [{"role": secret, "content": "x"}]},
        {secret: 1, **PAIR, "prompt": ""},
    ):
        with pytest.raises(DataError) as refused:
            records_from([row])
        assert secret not in f"{refused.value} {refused.value.where} {refused.value.fix}"


def test_parquet_is_read_with_pyarrow(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([DOLLY, DOLLY]), path)
    found = read_records(path)
    assert (found.shape, [record.line for record in found.records]) == (Shape.DOLLY, [1, 2])


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError) as refused:
        read_records(put(tmp_path, "rows.parquet", "x"))
    assert (refused.value.code, refused.value.fix) == ("D010", 'pip install "fedit[train]"')


def only(found: RowFile) -> Any:
    (record,) = found.records
    return record
