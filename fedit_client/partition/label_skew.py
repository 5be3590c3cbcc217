"""Deals in which clients hold the categories in different shares: Dirichlet, shards, some or one category each.

A deal takes the labels of n rows and returns, for each client, which of these n it gets; each row goes to one client.
"""

from typing import Final

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from fedit_client.partition.corpus import Indices, Labels
from fedit_client.partition.forms import Form
from fedit_client.partition.refusals import too_few, unmet_minimum

REDRAWS: Final = 1000
_PATIENCE: Final = 100
_PAPER_MIN: Final = 40
_ROOM: Final = 8
_ROUNDS: Final = 16


def grouped(labels: Labels, rng: RandomState) -> list[Indices]:
    """Return the rows of each category in random order, categories in theirs."""
    order = rng.permutation(len(labels.codes))
    by_code = order[np.argsort(labels.codes[order], kind="stable")]
    ends = np.cumsum(np.bincount(labels.codes, minlength=len(labels.names)))
    return [part.astype(np.int64) for part in np.split(by_code, ends[:-1])]


def shards(labels: Labels, clients: int, each: int, rng: RandomState) -> list[Indices]:
    """Sort by category, cut into equal shards, deal `each` of them to every client (Shepherd, mode 0).

    Raises DataError D041 where there are fewer rows than shards.
    """
    if clients * each > len(labels.codes):
        raise too_few(f"{clients * each:,} shards of {len(labels.codes):,} rows",
                      f"--clients {max(1, len(labels.codes) // each)}")  # fmt: skip
    pieces = np.array_split(np.concatenate(grouped(labels, rng)), clients * each)
    deck = rng.permutation(len(pieces))
    return [np.concatenate([pieces[place] for place in hand]) for hand in deck.reshape(clients, each)]


def dirichlet(labels: Labels, clients: int, form: Form, rng: RandomState) -> tuple[list[Indices], dict[str, float]]:
    """Cut each category by shares from a Dirichlet distribution (Shepherd, mode 1), and tell what was drawn.

    A client that has its equal share of all rows already gets none of the next category. All is drawn again until
    everybody has the least that the form asks for, at most 1,000 times. Where it asks for nothing that is the paper's
    40, or an eighth of the mean if that is less, and half of it after every 100 draws. Raises DataError D043.
    """
    rows = len(labels.codes)
    asked = form.min_rows or max(1, min(_PAPER_MIN, rows // (_ROOM * clients)))
    if asked * clients > rows:
        raise unmet_minimum(asked, rows // clients // 2, form.without_min, clients,
                            f"{rows:,} rows are fewer than {clients:,} clients × {asked:,}")  # fmt: skip
    counts = np.bincount(labels.codes, minlength=len(labels.names))
    smallest: list[int] = []
    while len(smallest) < REDRAWS:
        least = asked if form.min_rows else max(1, asked >> (len(smallest) // _PATIENCE))
        cuts = _dirichlet_cuts(counts, clients, form.number, rng)
        smallest.append(0 if cuts is None else int(np.diff(cuts, axis=1).sum(axis=0).min()))
        if cuts is not None and smallest[-1] >= least:
            groups = grouped(labels, rng)
            pieces = [np.split(group, cut[1:-1]) for group, cut in zip(groups, cuts, strict=True)]
            dealt = [np.concatenate([piece[client] for piece in pieces]) for client in range(clients)]
            return dealt, {"alpha": form.number, "min_rows": least, "redraws": len(smallest) - 1}
    raise unmet_minimum(least, sorted(smallest)[REDRAWS // 2], form.without_min, clients,
                        f"in {REDRAWS:,} draws the smallest client had at most {max(smallest):,}")  # fmt: skip


def _dirichlet_cuts(
    counts: NDArray[np.int64], clients: int, alpha: float, rng: RandomState
) -> NDArray[np.int64] | None:
    """Return where each category is cut, (categories, clients + 1); None where all shares of a draw are too small."""
    sizes = np.zeros(clients, dtype=np.int64)
    cuts = np.zeros((len(counts), clients + 1), dtype=np.int64)
    for category, count in enumerate(counts):
        shares = rng.standard_gamma(alpha, clients) * (sizes < counts.sum() / clients)
        total = shares.sum()
        if not total > 0:
            return None
        cuts[category, 1:] = (np.cumsum(shares / total) * count).astype(np.int64)
        cuts[category, -1] = count
        sizes += np.diff(cuts[category])
    return cuts


def inner_dirichlet(labels: Labels, clients: int, alpha: float, rng: RandomState) -> list[Indices]:
    """Give each client a mix of categories of its own from a Dirichlet, and all the same size (Acar et al. 2021).

    Clients take turns, a sixteenth of their rows each time, so that nobody is left with what others did not want; who
    wants a category that is used up takes the others in proportion.
    """
    groups = grouped(labels, rng)
    left = np.array([len(group) for group in groups])
    wanted = rng.standard_gamma(alpha, (clients, len(groups))) + 1e-12
    sizes = np.array([len(part) for part in np.array_split(np.arange(len(labels.codes)), clients)])
    taken: list[list[Indices]] = [[] for _ in range(clients)]
    for turn in range(_ROUNDS):
        for client in rng.permutation(clients):
            size = sizes[client] * (turn + 1) // _ROUNDS - sizes[client] * turn // _ROUNDS
            for category, count in enumerate(_draw(wanted[client], left, size, rng)):
                start = len(groups[category]) - left[category]
                taken[client].append(groups[category][start : start + count])
                left[category] -= count
    return [np.concatenate(parts) for parts in taken]


def _draw(wanted: NDArray[np.float64], left: NDArray[np.int64], size: int, rng: RandomState) -> NDArray[np.int64]:
    """Return how many rows of each category one client takes now, together `size`, none more than are left."""
    counts = np.zeros(len(left), dtype=np.int64)
    while (missing := size - counts.sum()) > 0:
        open_ = wanted * (left > counts)
        counts = np.minimum(counts + rng.multinomial(missing, open_ / open_.sum()), left)
    return counts


def pathological(labels: Labels, clients: int, each: int, rng: RandomState) -> list[Indices]:
    """Give each client `each` categories and split a category's rows evenly among those who have it.

    Raises DataError D041 where there are fewer categories than that, or where they would not all be given out.
    """
    total = len(labels.names)
    if each > total:
        raise too_few(f"{each} categories a client, but there are {total}", f"--by pathological:{total}")
    if clients * each < total:
        raise too_few(f"{clients} clients × {each} leave some of {total} categories out",
                      f"--by pathological:{-(-total // clients)}")  # fmt: skip
    held = np.zeros((clients, total), dtype=bool)
    for client in rng.permutation(clients):
        rank = rng.permutation(total)
        held[client, np.lexsort((rank, held.sum(axis=0)))[:each]] = True  # those with the fewest clients first
    return _split_evenly(grouped(labels, rng), held)


def by_values(labels: Labels, clients: int, rng: RandomState, *, one_each: bool) -> list[Indices]:
    """Give each client the rows of one value; of several values where clients are few, unless `one_each` refuses that.

    Where clients are many, values with more rows have more clients. Raises DataError D041.
    """
    total = len(labels.names)
    groups = grouped(labels, rng)
    if clients < total:
        if one_each:
            raise too_few(f"{clients} clients with one value of {labels.field} each leave some of {total} out",
                          f"--clients {total}")  # fmt: skip
        return [np.concatenate([groups[value] for value in hand])
                for hand in np.array_split(rng.permutation(total), clients)]  # fmt: skip
    sharers = np.ones(total, dtype=np.int64)
    sizes = np.array([len(group) for group in groups])
    for _ in range(clients - total):
        sharers[np.argmax(sizes / sharers)] += 1
    held = np.repeat(np.eye(total, dtype=bool), sharers, axis=0)
    return _split_evenly(groups, held)


def _split_evenly(groups: list[Indices], held: NDArray[np.bool_]) -> list[Indices]:
    """Split each group among the clients that hold it, (clients, groups)."""
    parts: list[list[Indices]] = [[] for _ in held]
    for value, group in enumerate(groups):
        owners = np.flatnonzero(held[:, value])
        for owner, part in zip(owners, np.array_split(group, len(owners)), strict=True):
            parts[owner].append(part)
    return [np.concatenate(part) for part in parts]
