"""A data set dealt to clients: forms, deals, test rows and meters, by the same lists on every machine."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fedit_client.data import Source
from fedit_client.partition import (
    Corpus,
    Partition,
    client_table,
    corpus_of,
    coverage,
    form_lines,
    hold_out_more,
    load_partition,
    make_partition,
    measured_labels,
    meters,
    parse_form,
    random_coverage,
    read_corpus,
    split_off_local_test,
)
from fedit_protocol.errors import DataError

SIZES = {"open": 60, "closed": 45, "write": 30, "sum": 15}
FORMS = (
    "iid", "dirichlet:0.5:min=2", "inner-dirichlet:0.3", "shards:2", "pathological:2", "one-category", "by:language",
    "users:user", "size:linear", "size:exponential", "size:lognormal", "length:0.5", "quality:score:1",
    "dirichlet:1:language",
)  # fmt: skip


def row(number: int, category: str) -> dict[str, object]:
    return {
        "prompt": f"question {number}", "completion": "word " * (1 + number % 37), "category": category,
        "language": ("de", "en", "zh")[number % 3], "user": f"user {number % 11:02}", "score": number * 7 % 50,
        "id": number // 3,
    }  # fmt: skip


@pytest.fixture(scope="module")
def corpus() -> Iterator[Corpus]:
    categories = [name for name, size in SIZES.items() for _ in range(size)]
    rows = [row(number, category) for number, category in enumerate(categories)]
    with corpus_of(rows, fields=("language", "user", "score", "id")) as found:
        yield found


@pytest.fixture(scope="module")
def dolly() -> Iterator[Corpus]:
    with read_corpus(Source(str(folder() / "dolly15k.jsonl"))) as found:
        yield found


def folder() -> Path:
    """Like the fixture test_data, for a fixture of a module."""
    import os

    found = Path(os.environ.get("FEDIT_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")
    if not found.is_dir():
        pytest.skip(f"no public data at {found}")
    return found


def dealt(partition: Partition) -> list[int]:
    return sorted(int(row) for client in partition.clients for row in client.rows)


@pytest.mark.parametrize("form", FORMS)
def test_every_row_is_a_test_row_or_with_one_client(form: str, corpus: Corpus) -> None:
    clients = 5 if form != "users:user" else 11
    partition = make_partition(corpus, form, clients, seed=3, test_rows=3)
    assert sorted([*dealt(partition), *partition.test]) == list(range(len(corpus)))
    assert len(partition.clients) == clients
    assert all(len(client.rows) for client in partition.clients)


# Made once and kept: a partition is the same on every machine and with every later numpy.
KEPT = {
    "iid": "905e1aef991148c2375e39a1a9d5f1f9522a40205234c5a5640bc6a96c045fc6",
    "dirichlet:0.5:min=2": "4ca6b5b5bc96b222cc5268e17374e6c14610636b067852aa3b0d064496ab447a",
    "inner-dirichlet:0.3": "08eda919b40ed93ab493287eb6ea058d3442b7665c30f3f8d13c57c59ace5301",
    "shards:2": "9f77ff0889b833b5c7ca9c3cf22877eca4d6fe55d1b4da782833617b041beb2d",
    "pathological:2": "b96eb7a79df9b75cfe583d91cb73ab115893c300c6a44d6fec888a541973c54c",
    "one-category": "3135f2b69fe45a4bdaf8c882eafc3c0f49fa29aa81e0989e5d157a4671f79c55",
    "by:language": "18b267288a15455ba8526019f0276eee21dd1117f2254d892d83a45837e68bb3",
    "users:user": "4ebe76b09368cc880d3699bb6caddd1453b8fcc0f506e35fa35c71037628e254",
    "size:linear": "12fa038667fc4b6e826a0c526cd8cad5511b5f072c4e77b010816e24e22b5210",
    "size:exponential": "1cf7702c0ad485f42f8f6a3940c8493eaa8a309d74ada39300c863f7d69fdcc7",
    "size:lognormal": "01af3b9769ea2c6219263f536a9046a035cb079e9f12408bd0804227639da273",
    "length:0.5": "4a2d6d7743da5c94c35973e83efc6263e3bfc20e606e48a93e36fb98a2961b7c",
    "quality:score:1": "91240a78fb48de4c4e03368bc5b55ff3f0d88200c2b06a4c4bd614977fd1d81f",
    "dirichlet:1:language": "78d6f6f25fce5c4551a34593dd1ca3cd1634efe3f326643982f1e2f5fd223bd1",
}


@pytest.mark.parametrize("form", FORMS)
def test_the_lists_are_those_of_every_other_machine(form: str, corpus: Corpus) -> None:
    assert make_partition(corpus, form, 5, seed=3, test_rows=3).digest == f"sha256:{KEPT[form]}"


def test_another_seed_deals_otherwise(corpus: Corpus) -> None:
    one, two = (make_partition(corpus, "shards:2", 5, seed=seed) for seed in (1, 2))
    assert one.digest != two.digest


def test_a_field_that_is_the_default_changes_nothing(corpus: Corpus) -> None:
    one, two = (make_partition(corpus, form, 5, 1) for form in ("dirichlet:0.5:min=1", "dirichlet:0.50:category:min=1"))
    assert one.digest == two.digest


def test_test_rows_depend_on_the_seed_alone(corpus: Corpus) -> None:
    one, two, more = (
        make_partition(corpus, form, clients, 4, rows)
        for form, clients, rows in (("iid", 4, 3), ("shards:2", 9, 3), ("iid", 4, 5))
    )
    assert one.test.tolist() == two.test.tolist()
    assert set(one.test) < set(more.test)
    assert corpus.labels().counts(one.test).tolist() == [3, 3, 3, 3]


def test_more_test_rows_come_from_the_clients(corpus: Corpus) -> None:
    before = make_partition(corpus, "shards:2", 5, 4, 2)
    after = hold_out_more(corpus, before, 4, 9)
    assert corpus.labels().counts(after.test).tolist() == [6, 6, 6, 6]
    assert set(before.test) < set(after.test)
    assert sorted([*dealt(after), *after.test]) == list(range(len(corpus)))
    assert hold_out_more(corpus, before, 4, 9).digest == after.digest
    assert hold_out_more(corpus, before, 4, 8).digest != after.digest


def test_translations_are_held_out_together(corpus: Corpus) -> None:
    partition = make_partition(corpus, "by:language", 3, 1, 2, test_by="language", together="id")
    ids = corpus.labels("id").codes
    assert corpus.labels("language").counts(partition.test).tolist() == [2, 2, 2]
    assert not set(ids[partition.test]) & set(ids[dealt(partition)])


def test_each_client_may_keep_rows_to_be_tested_on(corpus: Corpus) -> None:
    before = make_partition(corpus, "iid", 5, 4)
    after = split_off_local_test(corpus, before, 0.2, 1)
    for one, two in zip(before.clients, after.clients, strict=True):
        assert sorted([*two.rows, *two.local_test]) == one.rows.tolist()
        assert len(two.local_test) == round(0.2 * len(one.rows))


def test_a_category_is_with_its_client(corpus: Corpus) -> None:
    alone = make_partition(corpus, "one-category", None, 1)
    assert client_table(corpus.labels(), alone).tolist() == np.diag([45, 60, 15, 30]).tolist()
    shared = make_partition(corpus, "one-category", 6, 1)
    assert ((client_table(corpus.labels(), shared) > 0).sum(axis=1) == 1).all()
    two = make_partition(corpus, "pathological:2", 6, 1)
    held = client_table(corpus.labels(), two) > 0
    assert (held.sum(axis=1) == 2).all()
    assert held.any(axis=0).all()


def test_two_shards_hold_few_categories(corpus: Corpus) -> None:
    table = client_table(corpus.labels(), make_partition(corpus, "shards:2", 5, 1))
    assert table.sum(axis=1).tolist() == [30] * 5
    assert ((table > 0).sum(axis=1) <= 4).all()


def test_sizes_follow_their_law(corpus: Corpus) -> None:
    sizes = {law: [len(client.rows) for client in make_partition(corpus, f"size:{law}", 5, 1).clients]
             for law in ("linear", "exponential")}  # fmt: skip
    assert sizes == {"linear": [11, 20, 30, 40, 49], "exponential": [2, 4, 11, 32, 101]}


def test_persons_are_drawn_and_the_others_stay_out(corpus: Corpus) -> None:
    partition = make_partition(corpus, "users:user:min=14", 4, 1)
    users = corpus.labels("user").codes
    assert [len(set(users[client.rows])) for client in partition.clients] == [1, 1, 1, 1]
    assert partition.used < len(corpus)


def test_length_skew_makes_lengths_differ(corpus: Corpus) -> None:
    alike, unlike = (meters(corpus, make_partition(corpus, form, 5, 2)) for form in ("iid", "length:0.2"))
    assert unlike.length_kl > 3 * alike.length_kl
    assert unlike.field == "answer length"


def test_meters_of_clients_that_share_nothing(corpus: Corpus) -> None:
    found = meters(corpus, make_partition(corpus, "one-category", 4, 1))
    shares = np.array([60, 45, 30, 15]) / 150
    assert found.mean_tv == pytest.approx(np.mean(1 - shares))
    assert found.size_cv == pytest.approx(np.std(shares) / np.mean(shares))
    assert found.size_gini == pytest.approx(0.25)
    assert found.coverage == {"1": pytest.approx(0.25), "2": pytest.approx(0.5), "4": 1.0}
    assert 0 < found.mean_js < 1


def test_meters_of_clients_that_are_alike() -> None:
    rows = [row(number, "ab"[number % 2]) for number in range(40)]
    with corpus_of(rows) as corpus:
        lists = [[number for number in range(40) if number % 4 in hand] for hand in ((0, 1), (2, 3))]
        partition = make_partition(corpus, "iid", 2)
        same = Partition("iid", 0, tuple(one for one in partition.clients), partition.test, corpus.digest)
        alike = Partition(
            "iid", 0,
            tuple(type(one)(one.name, np.array(hand)) for one, hand in zip(same.clients, lists, strict=True)),
            same.test, corpus.digest,
        )  # fmt: skip
        found = meters(corpus, alike)
    assert found.mean_js == pytest.approx(0)
    assert (found.mean_tv, found.size_cv, found.size_gini) == (0, 0, 0)


def test_a_rare_category_can_be_covered() -> None:
    table = np.array([[98, 2], [96, 4]])
    assert coverage(table, [0]) == 1.0
    assert coverage(table, [0, 1], share=0.05) == 0.5


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("dirichlet", "dirichlet:0.5"), ("dirichlet:x", "dirichlet:0.5"), ("dirichlet:-1", "dirichlet:0.5"),
        ("dirichlet:nan", "dirichlet:0.5"), ("dirichlt:0.3", "dirichlet:0.3"), ("shards:2.5", "shards:2"),
        ("shard:3", "shards:3"), ("one_task_per_client", "one-category"), ("by", "by:language"),
        ("by_language", "by:language"), ("size:big", "size:lognormal"), ("iid:3", "iid"), ("", "iid"),
        ("iid:min=3", "iid"), ("dirichlet:0.5:min=0", "dirichlet:0.5:min=40"), ("length_skew:0.2", "length:0.2"),
        ("dirichlet:0.5:a:b", "dirichlet:0.5:a"), ("xyzzy", "iid"), ("quality", "quality:score"),
        ("inner_dirichlet:0.3:language", "inner-dirichlet:0.3:language"),
    ],
)  # fmt: skip
def test_a_form_that_is_none_is_told_the_nearest(text: str, nearest: str) -> None:
    with pytest.raises(DataError) as refused:
        parse_form(text)
    assert (refused.value.code, refused.value.again) == ("D040", f"--by {nearest}")
    parse_form(nearest)


def test_every_form_has_a_line_of_help() -> None:
    assert {line.split()[0].split(":")[0].split("[")[0] for line in form_lines()} == {
        form.split(":")[0] for form in FORMS
    }


@pytest.mark.parametrize(
    ("form", "clients", "test_rows", "code", "again"),
    [
        ("iid", 151, 0, "D041", "--clients 150"),
        ("iid", None, 0, "D041", "--clients 10"),
        ("shards:30", 6, 0, "D041", "--clients 5"),
        ("pathological:5", 3, 0, "D041", "--by pathological:4"),
        ("pathological:1", 3, 0, "D041", "--by pathological:2"),
        ("one-category", 3, 0, "D041", "--clients 4"),
        ("users:user", 12, 0, "D041", "--clients 11"),
        ("iid", 2, 15, "D041", "--test-rows 14"),
        ("by:colour", 2, 0, "D042", "--by iid"),
        ("by:langauge", 2, 0, "D042", "--by by:language"),
        ("quality:language", 2, 0, "D042", "--by iid"),
        ("dirichlet:0.5:min=80", 2, 0, "D043", "--by dirichlet:0.5:min=37"),
        ("dirichlet:0.01:min=20", 7, 0, "D043", "--clients 1"),
    ],
)
def test_what_does_not_fit_is_refused(
    form: str, clients: int | None, test_rows: int, code: str, again: str, corpus: Corpus
) -> None:
    with pytest.raises(DataError) as refused:
        make_partition(corpus, form, clients, 1, test_rows)
    assert (refused.value.code, refused.value.again) == (code, again)


def test_a_column_that_some_rows_lack_is_refused() -> None:
    rows = [row(0, "a"), {name: value for name, value in row(1, "a").items() if name != "language"}]
    with corpus_of(rows, fields=("language",)) as corpus, pytest.raises(DataError, match="row 2") as refused:
        make_partition(corpus, "by:language")
    assert refused.value.code == "D042"


def test_without_a_minimum_the_paper_s_is_halved_until_it_can_be_met(dolly: Corpus) -> None:
    assert make_partition(dolly, "dirichlet:0.5", 10, 1, 10).parameters["min_rows"] == 40
    partition = make_partition(dolly, "dirichlet:0.1", 100, 1, 10)
    assert partition.parameters["min_rows"] in (9, 4, 2)
    assert min(len(client.rows) for client in partition.clients) >= float(partition.parameters["min_rows"])


TABLE = {
    "iid": (10, 0.026), "dirichlet:5": (10, 0.167), "dirichlet:0.5": (10, 0.459), "shards:2": (10, 0.652),
    "dirichlet:0.1:min=10": (10, 0.721), "one-category": (8, 0.875),
}  # fmt: skip
COVERED = {"iid": 0.96, "dirichlet:5": 0.99, "dirichlet:0.5": 0.96, "shards:2": 0.82, "dirichlet:0.1:min=10": 0.74,
           "one-category": 0.50}  # fmt: skip
"""With 4 clients at random and a flat 5 %."""


@pytest.mark.parametrize("form", TABLE)
def test_dolly_is_as_unlike_as_others_measured(form: str, dolly: Corpus) -> None:
    clients, expected = TABLE[form]
    made = [make_partition(dolly, form, clients, seed, 10) for seed in range(3)]
    tables = [client_table(measured_labels(dolly, partition), partition) for partition in made]
    assert np.mean([meters(dolly, partition).mean_tv for partition in made]) == pytest.approx(expected, abs=0.06)
    covered = [random_coverage(table, 4, dolly.digest, share=0.05) for table in tables]
    assert np.mean(covered) == pytest.approx(COVERED[form], abs=0.06)
    assert all(len(partition.test) == 80 for partition in made)


@pytest.mark.parametrize(("name", "expected", "sizes"), [("shards", 0.643, (1492, 1494)),
                                                         ("dirichlet", 0.428, (443, 2831)),
                                                         ("stratified", 0.001, (443, 2831))])  # fmt: skip
def test_the_published_splits_are_read(name: str, expected: float, sizes: tuple[int, int], dolly: Corpus) -> None:
    partition = load_partition(folder() / f"dolly15k.split10_{name}.json", dolly)
    found = meters(dolly, partition)
    assert (found.smallest, found.largest) == sizes
    assert found.mean_tv == pytest.approx(expected, abs=0.0005)
    assert (len(partition.test), partition.used, len(partition.clients)) == (80, 15011, 10)
    more = hold_out_more(dolly, partition, 15, 42)
    assert dolly.labels().counts(more.test).tolist() == [25] * 8


def test_a_digest_is_of_what_rows_say(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "completion": "é"}, {"prompt": "b", "completion": "d"}]
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion":"\\u00e9"}\n{"prompt":"b","completion":"d"}\n')
    (tmp_path / "rows.csv").write_text("prompt,completion\na,é\nb,d\n", "utf-8")
    text = '{"prompt": "a", "completion": "é"}\n{"prompt": "b", "completion": "d"}\n'
    expected = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    for name in ("rows.jsonl", "rows.csv"):
        with read_corpus(Source(str(tmp_path / name))) as corpus:
            assert corpus.digest == expected
    with corpus_of(rows) as corpus:
        assert corpus.digest == expected
        assert [record.messages[-1].content for record in corpus.records([1, 0])] == ["d", "é"]
