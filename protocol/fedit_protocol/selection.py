"""Who takes part in a round: the rules by which a server draws, and by which a device decides for itself. Pure.

A server calls them with what devices have declared, a simulation with what it knows. Random choices come from a seed:
the same seed gives the same draw.
"""

import hashlib
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import ceil, floor, log, log2, sqrt
from typing import Final

from fedit_protocol.encoding import hash_parts

OVER_SELECTION: Final = 1.25
"""Resource-aware: so many times the devices that are wanted are invited, since some will not be ready in time."""


@dataclass(frozen=True)
class Declared:
    """What a device says of itself when it checks in, if its owner lets it and the task asks."""

    domains: frozenset[str] = frozenset()
    """The task's categories that it has more than a little of."""
    round_s: float | None = None
    """How long it expects a round to take, training and upload; None: not said."""

    @property
    def speed(self) -> int | None:
        """The class of its speed: devices of one class differ by a factor of two at most."""
        return None if self.round_s is None else ceil(round(log2(max(self.round_s, 1.0)), 9))


NOTHING_DECLARED: Final = Declared()


def round_seed(run_seed: bytes, round_no: int) -> bytes:
    """Return the 32-byte seed of one round's draw in a run that shall be repeatable: never the bare round number."""
    return hash_parts("selection", run_seed, str(round_no))


def in_random_order(clients: Collection[str], seed: bytes) -> list[str]:
    """Return the clients by SHA-256(seed, client): every order is equally likely, whatever the one they came in."""
    return sorted(clients, key=lambda client: hashlib.sha256(seed + client.encode()).digest())


def uniform(clients: Collection[str], size: int, seed: bytes) -> list[str]:
    """Return at most `size` of the clients: every subset is equally likely."""
    return in_random_order(clients, seed)[:size]


def stratified(declared: Mapping[str, Declared], served: Mapping[str, int], size: int, seed: bytes) -> list[str]:
    """Return at most `size` clients that cover the declared domains: by turns over the domains, least served first.

    The next one comes from the domain with the fewest holders among those chosen so far, then with the fewest `served`
    (domain → times that its holders took part before), then at random. Of its holders the one comes that brings most
    domains nobody has yet, then of the speed that is rarest among the chosen, then at random; who declares one domain
    each is thus drawn uniformly inside it. Then one is exchanged for another as long as that covers more domains.
    """
    order = in_random_order(declared, seed)
    alike: dict[_Kind, deque[tuple[int, str]]] = defaultdict(deque)
    for place, client in enumerate(order):
        alike[declared[client].domains, declared[client].speed].append((place, client))
    turns = in_random_order({domain for domains, _ in alike for domain in domains}, seed)
    held, speeds, chosen = Counter[str](), Counter[int | None](), list[tuple[str, frozenset[str]]]()
    while alike and len(chosen) < size:
        there = {domain for domains, _ in alike for domain in domains}
        turn = min((name for name in turns if name in there), key=lambda name: (held[name], served.get(name, 0)),
                   default=None)  # fmt: skip
        kinds = [kind for kind in alike if turn is None or turn in kind[0]]
        best = max(kinds, key=lambda kind: (_new(kind[0], held), -speeds[kind[1]], -alike[kind][0][0]))
        chosen.append((alike[best].popleft()[1], best[0]))
        if not alike[best]:
            del alike[best]
        held.update(best[0])
        speeds[best[1]] += 1
    return _exchanged(chosen, {domains: queue[0][1] for (domains, _), queue in alike.items()}, held)


_Kind = tuple[frozenset[str], int | None]
"""The domains and the speed that devices declare alike."""


def _new(domains: frozenset[str], held: Counter[str]) -> int:
    return sum(not held[domain] for domain in domains)


def _exchanged(
    chosen: list[tuple[str, frozenset[str]]], left: dict[frozenset[str], str], held: Counter[str]
) -> list[str]:
    """Exchange a chosen client for one of those left, one of each kind, as long as that covers more domains."""
    better = True
    while better:
        better = False
        for (place, (out, old)), new in product(enumerate(chosen), list(left)):
            without = held - Counter(old)
            if _new(new, without) > _new(old, without):
                chosen[place] = left.pop(new), new
                left[old] = out
                held, better = without + Counter(new), True
                break
    return [client for client, _ in chosen]


def resource_aware(declared: Mapping[str, Declared], size: int, limit_s: float, seed: bytes) -> list[str]:
    """Return at most `size` clients that expect to be ready within `limit_s`, drawn uniformly.

    Who has not said how long it takes is taken to be in time. If too few are, the others fill up, the fastest first: a
    slow device holds other rows, and with FedNova it may come with fewer steps.
    """
    order = in_random_order(declared, seed)
    late = {client: seconds for client in order if (seconds := declared[client].round_s or 0.0) > limit_s}
    in_time = [client for client in order if client not in late]
    return (in_time + sorted(late, key=late.__getitem__))[:size]


def invited(wanted: int) -> int:
    """Return how many devices are invited where `wanted` updates are."""
    return ceil(round(OVER_SELECTION * wanted, 9))


def join_probability(utility: float | None, scale: float | None, share: float, least: float, most: float) -> float:
    """Return π = clip(c·u, π_min, π_max), with which a device joins a round that lets devices decide.

    `scale` is the c that the server has published, `utility` the device's own u. Without one of them it is `share`, the
    mean that the server aims at. Joining says at most the likelihood ratio π_max / π_min of the utility.
    """
    wanted = share if utility is None or scale is None else scale * utility
    return min(max(wanted, least), most)


def inverse_weight(weight: int, probability: float, most: float, steps: int, uniform01: float) -> int:
    """Return the whole number of `1 / steps` that stands for w·π_max/π: rounded at random, so that its mean is exact.

    A device that joins with the probability π stands for 1/π such as itself (Horvitz and Thompson 1952).
    """
    exact = weight * steps * most / probability
    return floor(exact) + (uniform01 < exact - floor(exact))


def join_scale(share: float, utilities: float, inverses: float) -> float | None:
    """Return the next c = share / ū; ū is the ratio of the sums of u/π and 1/π over those that joined."""
    return share * inverses / utilities if utilities > 0 and inverses > 0 else None


@dataclass(frozen=True)
class Seen:
    """What a server that sees single devices remembers of one: Oort and Power-of-Choice need it, masks forbid it."""

    rows: int
    square_loss: float
    """Mean of the squared losses of its rows."""
    round_s: float
    last_round: int = field(default=1)
    """The round it was last in, from 1."""


def oort(
    clients: Collection[str], seen: Mapping[str, Seen], size: int, round_no: int, limit_s: float, seed: bytes
) -> list[str]:
    """Return Oort's choice (Lai et al. 2021, Algorithm 1). Needs losses and times of single devices: trusted mode only.

    U = rows·√(mean squared loss) · (T/t)² for those slower than T, + √(0.1·ln R / L); statistical utilities are cut at
    their 95 % quantile; a share ε of the places, 0.9 at first and less by 2 % each round until 0.2, goes to devices
    never seen, drawn uniformly.
    """
    order = in_random_order(clients, seed)
    known, new = [client for client in order if client in seen], [client for client in order if client not in seen]
    explored = min(len(new), max(round(max(0.2, 0.9 * 0.98 ** (round_no - 1)) * size), size - len(known)))
    raw = {client: seen[client].rows * sqrt(seen[client].square_loss) for client in known}
    cap = sorted(raw.values())[ceil(0.95 * len(raw)) - 1] if raw else 0.0

    def utility(client: str) -> float:
        one = seen[client]
        late = (limit_s / one.round_s) ** 2 if one.round_s > limit_s else 1.0
        return min(raw[client], cap) * late + sqrt(0.1 * log(max(round_no, 1)) / max(one.last_round, 1))

    exploited = sorted(known, key=utility, reverse=True)[: size - explored]
    return exploited + new[:explored]


def power_of_choice(losses: Mapping[str, float], asked: int, size: int, seed: bytes) -> list[str]:
    """Return the `size` largest losses of `asked` uniformly drawn clients (Cho et al. 2020). Trusted mode only."""
    return sorted(uniform(losses, asked, seed), key=losses.__getitem__, reverse=True)[:size]


def domain_threshold(share: float | None = None) -> float:
    """Return the share of its rows above which a device counts as one that has a domain.

    5 %, or half of what the domain is of all rows together, if that is less: else a rare one would never be covered.
    """
    return 0.05 if share is None else min(0.05, share / 2)


def domains_of(rows: Mapping[str, int], names: Sequence[str], shares: Sequence[float] = ()) -> frozenset[str]:
    """Return the named domains that a device has, given its rows of each; `shares` are those of all rows together."""
    total = sum(rows.values())
    known = dict(zip(names, shares, strict=False))
    return frozenset(name for name in names if rows.get(name, 0) > domain_threshold(known.get(name)) * total)


def coverage(names: Sequence[str], counts: Mapping[str, int]) -> float:
    """Return the share of the named domains that somebody has, given how many have each."""
    return sum(counts.get(name, 0) > 0 for name in names) / len(names)
