"""Where rows come from and what their columns are called: every shape, file and place, and what is asked about."""

import gzip
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fedit_client.data import Message, Role, Shape, Source, read_records, records_from
from fedit_protocol.errors import DataError

PAIR = {"prompt": "Hello?", "completion": "Hello."}
USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}


def lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(*rows: Any) -> bytes:
    import pyarrow
    import pyarrow.parquet

    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), file)
    return file.getvalue()


def arrow(*rows: Any, stream: bool) -> bytes:
    import pyarrow

    file, table = io.BytesIO(), pyarrow.Table.from_pylist(list(rows))
    make = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
    with make(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue()


@dataclass(frozen=True)
class Read:
    """A small file, what it is read as, and what the first record says."""

    name: str
    content: bytes | Callable[[], bytes]
    shape: Shape
    says: tuple[str, ...]
    rows: int = 1
    columns: dict[str, str] = field(default_factory=dict)
    asked: Shape | None = None
    note: str = ""


READ = {
    "sharegpt": Read(
        "a.jsonl",
        lines({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}),
        Shape.SHAREGPT,
        ("Hi", "Hello"),
    ),
    "sharegpt with a system turn": Read(
        "a.jsonl",
        lines({"conversations": [{"from": name, "value": name} for name in ("system", "human", "gpt")]}),
        Shape.SHAREGPT,
        ("system", "human", "gpt"),
    ),
    "conversations by the other convention": Read(
        "a.jsonl", lines({"conversations": [USER, ANSWER]}), Shape.SHAREGPT, ("Hi", "Hello")
    ),
    "messages with tools that nobody reads": Read(
        "a.jsonl", lines({"messages": [USER, ANSWER], "tools": []}), Shape.MESSAGES, ("Hi", "Hello")
    ),
    "a preference": Read(
        "a.jsonl",
        lines({"prompt": "Hi", "chosen": "Hello", "rejected": "What?"}),
        Shape.PREFERENCE,
        ("Hi", "Hello"),
        note="the chosen answer of 1 preferences is used",
    ),
    "a preference that repeats the question": Read(
        "a.jsonl",
        lines({"prompt": "Hi", "chosen": [USER, ANSWER], "rejected": [USER, ANSWER]}),
        Shape.PREFERENCE,
        ("Hi", "Hello"),
    ),
    "a preference of messages beside a text": Read(
        "a.jsonl", lines({"prompt": "Hi", "chosen": [ANSWER], "rejected": [ANSWER]}), Shape.PREFERENCE, ("Hi", "Hello")
    ),
    "questions and answers": Read("a.csv", b"question,answer\nHi,Hello\n", Shape.QUESTION_ANSWER, ("Hi", "Hello")),
    "queries and responses": Read("a.csv", b"query,response\nHi,Hello\n", Shape.QUESTION_ANSWER, ("Hi", "Hello")),
    "a prompt and a response": Read("a.csv", b"prompt,response\nHi,Hello\n", Shape.QUESTION_ANSWER, ("Hi", "Hello")),
    "names of one's own": Read(
        "a.csv",
        b"frage,antwort\nHi,Hello\n",
        Shape.QUESTION_ANSWER,
        ("Hi", "Hello"),
        columns={"prompt": "frage", "response": "antwort"},
        note="prompt is column frage",
    ),
    "one of two answers": Read(
        "a.csv",
        b"question,answer,answer_long\nHi,H,Hello\n",
        Shape.QUESTION_ANSWER,
        ("Hi", "Hello"),
        columns={"prompt": "question", "response": "answer_long"},
    ),
    "names of one's own for dolly": Read(
        "a.csv",
        b"q,c,a\nHi,There,Hello\n",
        Shape.DOLLY,
        ("Hi\n\nThere", "Hello"),
        columns={"instruction": "q", "context": "c", "response": "a"},
    ),
    "a tie that a map settles": Read(
        "a.jsonl",
        lines({"instruction": "Hi", "output": "out", "response": "Hello"}),
        Shape.DOLLY,
        ("Hi", "Hello"),
        columns={"response": "response", "instruction": "instruction"},
    ),
    "semicolons of a spreadsheet": Read("a.csv", b"prompt;completion\na,1;b\n", Shape.PROMPT_COMPLETION, ("a,1", "b")),
    "tabs": Read("a.tsv", b"prompt\tcompletion\na\tb, c\n", Shape.PROMPT_COMPLETION, ("a", "b, c")),
    "a cell longer than Python's limit": Read(
        "a.csv", b"prompt,completion\na," + b"b" * 200_000 + b"\n", Shape.PROMPT_COMPLETION, ("a", "b" * 200_000)
    ),
    "packed JSON lines": Read("a.jsonl.gz", gzip.compress(lines(PAIR)), Shape.PROMPT_COMPLETION, ("Hello?", "Hello.")),
    "packed CSV": Read(
        "a.csv.gz", gzip.compress(b"question,answer\nHi,Hello\n"), Shape.QUESTION_ANSWER, ("Hi", "Hello")
    ),
    "objects over several lines": Read(
        "a.json", (json.dumps(PAIR, indent=2) * 2).encode(), Shape.PROMPT_COMPLETION, ("Hello?", "Hello."), rows=2
    ),
    "parquet": Read("a.parquet", lambda: parquet(PAIR, PAIR), Shape.PROMPT_COMPLETION, ("Hello?", "Hello."), rows=2),
    "packed parquet": Read(
        "a.parquet.gz", lambda: gzip.compress(parquet(PAIR)), Shape.PROMPT_COMPLETION, ("Hello?", "Hello.")
    ),
    "parquet of messages": Read(
        "a.parquet", lambda: parquet({"messages": [USER, ANSWER]}), Shape.MESSAGES, ("Hi", "Hello")
    ),
    "an arrow file": Read("a.arrow", lambda: arrow(PAIR, stream=False), Shape.PROMPT_COMPLETION, ("Hello?", "Hello.")),
    "an arrow stream": Read("a.arrow", lambda: arrow(PAIR, stream=True), Shape.PROMPT_COMPLETION, ("Hello?", "Hello.")),
    "plain text that is asked for": Read(
        "a.txt",
        b"One\ntwo.\n\n\nThree.\n",
        Shape.TEXT,
        ("One\ntwo.",),
        rows=2,
        asked=Shape.TEXT,
        note="every token is trained on",
    ),
    "a column of text that is asked for": Read(
        "a.jsonl", lines({"text": "One."}), Shape.TEXT, ("One.",), asked=Shape.TEXT
    ),
    "alpaca beside its rendered text": Read(
        "a.jsonl",
        lines({"instruction": "Hi", "input": "", "output": "Hello", "text": "### Hi"}),
        Shape.ALPACA,
        ("Hi", "Hello"),
    ),
}


@pytest.mark.parametrize("case", READ.values(), ids=READ)
def test_every_shape_and_file_is_read(case: Read, tmp_path: Path) -> None:
    content = case.content if isinstance(case.content, bytes) else case.content()
    (tmp_path / case.name).write_bytes(content)
    found = Source(str(tmp_path / case.name), case.columns, case.asked).read()
    assert (found.shape, len(found.records), found.skipped) == (case.shape, case.rows, ())
    assert tuple(message.content for message in found.records[0].messages) == case.says
    assert case.note in " ".join(found.notes)
    assert found.records[0].messages[-1].role is Role.ASSISTANT


@dataclass(frozen=True)
class Refused:
    """A small file, the code that it is refused with, and words of message and fix."""

    name: str
    content: bytes
    code: str
    says: str
    fix: tuple[str, ...] = ()
    columns: dict[str, str] = field(default_factory=dict)


ADD = "fedit-client data add "
REFUSED = {
    "two answers": Refused(
        "faq.csv",
        b"question,answer_short,answer_long\nHi,H,Hello\n",
        "D006",
        "2 columns could be the answer: answer_short, answer_long",
        ("--map prompt=question --map response=answer_short", "--map prompt=question --map response=answer_long"),
    ),
    "two questions": Refused(
        "faq.csv",
        b"question_de,question_en,reply\na,b,c\n",
        "D006",
        "2 columns could be the question",
        ("--map prompt=question_de --map response=reply", "--map prompt=question_en --map response=reply"),
    ),
    "two shapes at once": Refused(
        "a.jsonl",
        lines({"messages": [USER, ANSWER], **PAIR}),
        "D006",
        "fit two shapes equally: messages (messages) and prompt_completion (prompt, completion)",
        ("--map messages=messages", "--map prompt=prompt --map completion=completion"),
    ),
    "names that are nearly ours": Refused(
        "a.csv",
        b"User question,Model answer\na,b\n",
        "D004",
        "found Model answer, User question",
        ("--map 'prompt=User question' --map 'response=Model answer'",),
    ),
    "names of nobody": Refused(
        "a.csv", b"q,a\na,b\n", "D004", "found a, q", ("--map prompt=QUESTION --map response=ANSWER",)
    ),
    "a map to a column that is not there": Refused(
        "a.csv", b"q,a\na,b\n", "D004", "there is no column b; found a, q", columns={"prompt": "q", "response": "b"}
    ),
    "a map of a name that nobody knows": Refused(
        "a.csv", b"q,a\na,b\n", "D017", "frage is no column", columns={"frage": "q"}
    ),
    "plain text that nobody asked for": Refused(
        "a.txt", b"One.\n", "D018", "all of it would be trained on", ("--as text",)
    ),
    "a column of text": Refused("a.jsonl", lines({"text": "One."}), "D018", "plain text", ("--as text",)),
    "an unknown speaker": Refused(
        "a.jsonl", lines({"conversations": [{"from": "narrator", "value": "x"}]}), "D009", "conversations[0] has a role"
    ),
    "a conversation without an answer": Refused(
        "a.jsonl",
        lines(
            {"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]},
            {"conversations": [{"from": "human", "value": "x"}]},
        ),
        "D014",
        "not from the assistant",
        ("--on-error skip",),
    ),
    "an empty turn": Refused(
        "a.jsonl",
        lines({"conversations": [{"from": "human", "value": " "}]}),
        "D008",
        "conversations[0].value is empty",
    ),
    "a preference without a question": Refused(
        "a.jsonl", lines({"chosen": "a", "rejected": "b"}), "D004", "column prompt"
    ),
    "arrow that is none": Refused("a.arrow", b"no", "D005", "arrow"),
    "a packed file that is none": Refused("a.jsonl.gz", b"no", "D005", "damaged"),
    "a packed file that breaks off": Refused("a.jsonl.gz", gzip.compress(lines(*[PAIR] * 9))[:-12], "D005", "damaged"),
    "a packed file of nothing known": Refused("a.tar.gz", b"", "D003", ".gz"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_is_not_clear_is_asked_with_lines_to_paste(case: Refused, tmp_path: Path) -> None:
    path = tmp_path / case.name
    path.write_bytes(case.content)
    with pytest.raises(DataError) as told:
        Source(str(path), case.columns).read()
    assert (told.value.code, case.says in str(told.value)) == (case.code, True), str(told.value)
    assert told.value.fix
    fixes = told.value.fix.splitlines()
    assert len(fixes) >= len(case.fix)
    for fix, words in zip(fixes, case.fix, strict=False):
        assert fix.startswith(f"{ADD}{path} ")
        assert words in fix


def test_the_lines_to_paste_do_what_they_say(tmp_path: Path) -> None:
    import shlex

    path = tmp_path / "my rows.csv"
    path.write_bytes(b"User question,Model answer\na,b\n")
    with pytest.raises(DataError) as told:
        Source(str(path)).read()
    words = shlex.split(told.value.fix or "")
    columns = dict(word.split("=") for before, word in pairwise(words) if before == "--map")
    assert len(Source(words[3], columns).read().records) == 1


def test_only_the_first_two_hundred_rows_decide(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(*[PAIR] * 200, *[{"messages": [USER, ANSWER]}] * 300))
    found = read_records(path, on_error="skip")
    assert (found.shape, len(found.records), len(found.skipped)) == (Shape.PROMPT_COMPLETION, 200, 300)


def test_a_folder_is_all_files_in_it_and_says_which_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.jsonl").write_bytes(lines(PAIR))
    (tmp_path / "deep" / "a.csv").write_bytes(b"prompt,completion\nx,y\nz\n")
    (tmp_path / "notes.docx").write_bytes(b"x")
    (tmp_path / ".hidden.jsonl").write_bytes(b"{")
    found = Source(str(tmp_path), on_error="skip").read()
    assert [len(part.records) for part in found.by_file()] == [1, 1]
    assert [(problem.line, problem.code) for problem in found.skipped] == [(3, "D005")]
    assert "not read: 1 other file: notes.docx" in found.notes


def test_a_glob_is_the_files_that_it_names(tmp_path: Path) -> None:
    for name in ("a1.jsonl", "a2.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes(lines(PAIR))
    assert len(Source(str(tmp_path / "a*.jsonl")).read().records) == 2
    with pytest.raises(DataError) as told:
        Source(str(tmp_path / "c*.jsonl")).read()
    assert told.value.code == "D001"


def test_a_folder_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.docx").write_bytes(b"x")
    with pytest.raises(DataError) as told:
        Source(str(tmp_path)).read()
    assert told.value.code == "D003"


@pytest.mark.parametrize(
    ("content", "shape", "asked"),
    [
        (lines(PAIR, PAIR), Shape.PROMPT_COMPLETION, None),
        (json.dumps([PAIR, PAIR]).encode(), Shape.PROMPT_COMPLETION, None),
        (b"prompt,completion\na,b\nc,d\n", Shape.PROMPT_COMPLETION, None),
        (b"One.\n\nTwo.\n", Shape.TEXT, Shape.TEXT),
    ],
)
def test_stdin_is_read(content: bytes, shape: Shape, asked: Shape | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    found = Source("-", shape=asked).read()
    assert (found.shape, len(found.records)) == (shape, 2)


def test_columns_of_rows_in_memory_have_names_of_their_own() -> None:
    found = records_from([{"q": "Hi", "a": "Hello"}], columns={"prompt": "q", "response": "a"})
    assert found.records[0].messages == (Message(Role.USER, "Hi"), Message(Role.ASSISTANT, "Hello"))
    with pytest.raises(DataError) as told:
        records_from([{"question": "Hi", "answer_1": "a", "answer_2": "b"}])
    assert told.value.fix == (
        "pass columns={'prompt': 'question', 'response': 'answer_1'}\n"
        "pass columns={'prompt': 'question', 'response': 'answer_2'}"
    )
