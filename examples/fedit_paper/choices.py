"""Who takes part in a round of a simulated federation: the rules that the server has, over virtual clients."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fedit_client.simulation import Choice, Progress, VirtualClient
from fedit_protocol.encoding import hash_parts
from fedit_protocol.errors import ConfigError
from fedit_protocol.selection import Declared, Seen, coverage, domains_of, oort, round_seed, stratified, uniform

STRATEGIES: Final = ("uniform", "stratified", "oort")


def choice_of(spec: Mapping[str, Any], clients: Sequence[VirtualClient], seed: int) -> Choice | None:
    """Return the rule that a row's `choose` names, `strategy` and `count`; everybody without one. F026 if unknown."""
    if not spec:
        return None
    strategy, count = str(spec["strategy"]), int(spec["count"])
    if strategy not in STRATEGIES:
        raise ConfigError(f"there is no selection {strategy} here: there are {', '.join(STRATEGIES)}", code="F026",
                          fix="correct the row's task file")  # fmt: skip
    run_seed = hash_parts("choice", seed.to_bytes(8, "big"))
    places = {client.name: place for place, client in enumerate(clients)}
    declared = {client.name: Declared(domains_of_client(client)) for client in clients}
    rows = {client.name: len(client.records) for client in clients}

    def choose(number: int, progress: Progress) -> list[int]:
        names, draw = list(places), round_seed(run_seed, number + 1)
        if strategy == "uniform":
            chosen = uniform(names, count, draw)
        elif strategy == "stratified":
            chosen = stratified(declared, served(progress, names, declared), count, draw)
        else:
            chosen = oort(names, seen(progress, names, rows), count, number + 1, 1.0, draw)
        return sorted(places[name] for name in chosen)

    return choose


def domains_of_client(client: VirtualClient) -> frozenset[str]:
    """Return the categories that a client has more than a little of."""
    counts = Counter(record.category for record in client.records)
    return domains_of(counts, sorted(counts))


def covered(chosen: Sequence[int], clients: Sequence[VirtualClient]) -> float:
    """Return the share of all categories that the chosen clients have."""
    every = sorted({record.category for client in clients for record in client.records})
    return coverage(every, Counter(name for place in chosen for name in domains_of_client(clients[place])))


def served(progress: Progress, names: list[str], declared: Mapping[str, Declared]) -> Counter[str]:
    """Return how often each domain's holders took part before."""
    earlier = (names[place] for note in progress.notes for place in chosen_in(note))
    return Counter(domain for name in earlier for domain in declared[name].domains)


def seen(progress: Progress, names: list[str], rows: Mapping[str, int]) -> dict[str, Seen]:
    """Return what a server that sees single devices would remember; virtual clients are all equally fast."""
    found: dict[str, Seen] = {}
    for note in progress.notes:
        losses: list[float] = note["losses"]
        for place, loss in zip(chosen_in(note), losses, strict=True):
            found[names[place]] = Seen(rows[names[place]], float(loss) ** 2, 1.0, int(note["round"]))
    return found


def chosen_in(note: Mapping[str, Any]) -> list[int]:
    """Return the places of the clients that took part in a round."""
    chosen: list[int] = note["chosen"]
    return chosen
