"""The demo's rows: what is checked in is what the generator writes, and nobody has what the evaluation asks."""

from collections import Counter
from pathlib import Path

from fedit_client.data import RowFile, Shape, read_records
from fedit_client.demo.rows import CLIENTS, client_rows, held_out_rows, task_file
from fedit_client.demo.rows.generate import CRAFTS, OFFICES, shards, write
from fedit_protocol.task import Quantization, Task


def clients() -> dict[str, RowFile]:
    found = {}
    for client in CLIENTS:
        with client_rows(client) as path:
            found[client] = read_records(path)
    return found


def held_out() -> RowFile:
    with held_out_rows() as path:
        return read_records(path)


def test_the_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    write(tmp_path)
    with held_out_rows() as path:
        assert path.read_bytes() == (tmp_path / "held_out.jsonl").read_bytes()
    for client in CLIENTS:
        with client_rows(client) as path:
            assert path.read_bytes() == (tmp_path / f"{client}.jsonl").read_bytes()


def test_another_seed_writes_other_rows() -> None:
    assert shards(1) != shards(2)


def test_all_rows_have_dollys_columns() -> None:
    assert {rows.shape for rows in [*clients().values(), held_out()]} == {Shape.DOLLY}


def test_every_client_is_strong_in_two_crafts_of_its_own_and_none_has_all() -> None:
    strong: list[str] = []
    for client, rows in clients().items():
        counts = Counter(record.category for record in rows.records)
        assert set(counts) == set(OFFICES[client])
        strong += [category for category, count in counts.items() if count >= 40]
        assert len(counts) < len(CRAFTS)
    assert sorted(strong) == sorted(CRAFTS)


def test_every_category_is_asked_about_alike() -> None:
    counts = Counter(record.category for record in held_out().records)
    assert len(counts) == 6
    assert len(set(counts.values())) == 1


def test_no_answer_is_known_to_anybody_else() -> None:
    answers = [record.messages[-1].content for rows in [*clients().values(), held_out()] for record in rows.records]
    assert len(answers) == len(set(answers)) == 360


def test_the_task_stays_within_the_demos_budget() -> None:
    import tomllib

    with task_file() as path:
        task = Task.model_validate(tomllib.loads(path.read_text("utf-8")))
    rows = task.round.rounds * task.training.local_steps * task.training.batch_size * len(CLIENTS)
    longest_mean_tokens = 78
    # Three clients together, and each of them once more alone.
    assert 2 * rows * longest_mean_tokens <= 45_000
    assert task.base.quantization is Quantization.NF4
    assert task.round.rounds >= 2
