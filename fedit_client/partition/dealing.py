"""From a form to a partition: test rows are held out first, then the rest is dealt."""

import numpy as np
from numpy.random import RandomState

from fedit_client.partition.corpus import CATEGORY, Corpus, Indices, Labels
from fedit_client.partition.draws import draws
from fedit_client.partition.forms import KINDS, Form, parse_form
from fedit_client.partition.held_out import check_nobody_is_empty, hold_out
from fedit_client.partition.label_skew import by_values, dirichlet, inner_dirichlet, pathological, shards
from fedit_client.partition.refusals import too_few
from fedit_client.partition.result import ClientRows, Partition, client_names
from fedit_client.partition.size_skew import by_rank, by_size, by_users, iid
from fedit_protocol.words import counted

LENGTH = "answer length"
"""The field of a partition that is made by how long answers are."""


def make_partition(
    corpus: Corpus,
    form: Form | str,
    clients: int | None = None,
    seed: int = 0,
    test_rows: int = 0,
    *,
    test_by: str | None = None,
    together: str | None = None,
) -> Partition:
    """Deal a data set to clients; the same seed, data and arguments give the same lists on every machine.

    First `test_rows` of each category, or of each value of `test_by`, are held out; rows that share a value of
    `together` stay together in that. Without `clients`, forms that follow a column make one for each of its values.
    Raises DataError D040 to D043.
    """
    form = parse_form(form) if isinstance(form, str) else form
    test_field = test_by or (form.field if form.field and not corpus.has_categories else None) or CATEGORY
    test = hold_out(corpus, corpus.labels(test_field), test_rows, seed, together)
    rows = np.setdiff1d(np.arange(len(corpus)), test)
    labels = labels_of(corpus, form)
    count = clients if clients is not None else _clients_of(form, labels, rows)
    if count > len(rows):
        raise too_few(f"{counted(count, 'client')} of {counted(len(rows), 'row')}", f"--clients {max(1, len(rows))}")
    rng = draws("deal", seed, corpus.digest, form.kind, form.value, form.field, count)
    dealt, parameters = _dealt(form, labels.of_rows(rows), count, rng)
    check_nobody_is_empty(dealt)
    named = zip(client_names(count), dealt, strict=True)
    return Partition(
        form.text, seed, tuple(ClientRows(name, np.sort(rows[places])) for name, places in named), test, corpus.digest,
        labels.field, test_field, {"clients": count, "test_rows": test_rows, **parameters},
    )  # fmt: skip


def labels_of(corpus: Corpus, form: Form) -> Labels:
    """Return what the clients of this form differ in; raises DataError D042."""
    if form.kind == "length":
        return by_rank(LENGTH, corpus.lengths.astype(np.float64))
    if form.kind == "quality":
        return by_rank(str(form.field), corpus.numbers(str(form.field)))
    return corpus.labels(form.field or CATEGORY)


def _clients_of(form: Form, labels: Labels, rows: Indices) -> int:
    if not KINDS[form.kind].counts_clients:
        raise too_few(f"nobody said how many clients there are for {form.text}")
    counts = labels.counts(rows)
    return int((counts >= (form.min_rows or 1)).sum())


def _dealt(form: Form, labels: Labels, clients: int, rng: RandomState) -> tuple[list[Indices], dict[str, float]]:
    match form.kind:
        case "dirichlet" | "length" | "quality":
            return dirichlet(labels, clients, form, rng)
        case "inner-dirichlet":
            return inner_dirichlet(labels, clients, form.number, rng), {"alpha": form.number}
        case "shards":
            return shards(labels, clients, int(form.number), rng), {"each": form.number}
        case "pathological":
            return pathological(labels, clients, int(form.number), rng), {"each": form.number}
        case "one-category" | "by":
            return by_values(labels, clients, rng, one_each=form.kind == "one-category"), {}
        case "users":
            return by_users(labels, clients, form.min_rows or 1, rng), {"min_rows": form.min_rows or 1}
        case "size":
            return by_size(len(labels.codes), clients, str(form.value), rng), {}
        case _:
            return iid(len(labels.codes), clients, rng), {}
