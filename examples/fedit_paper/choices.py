"""Who takes part in a round of a simulated federation: the rules that the server has, over virtual clients."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fedit_client.simulation import Choice, Progress, VirtualClient
from fedit_protocol.encoding import hash_parts
from fedit_protocol.errors import ConfigError
from fedit_protocol.selection import round_seed, stratified, uniform


def choice_of(spec: Mapping[str, Any], clients: Sequence[VirtualClient], seed: int) -> Choice | None:
    """Return the rule that a row's `choose` names, `strategy` and `count`; everybody without one. F026 if unknown."""
    if not spec:
        return None
    count, run_seed = int(spec["count"]), hash_parts("choice", seed.to_bytes(8, "big"))
    names = [client.name for client in clients]
    places = {name: place for place, name in enumerate(names)}

    def by_chance(number: int, _progress: Progress) -> list[int]:
        return sorted(places[name] for name in uniform(names, count, round_seed(run_seed, number)))

    strata = {client.name: most_common(client) for client in clients}

    def by_domain(number: int, progress: Progress) -> list[int]:
        served = Counter(strata[names[place]] for note in progress.notes for place in note["chosen"])
        chosen = stratified(strata, served, count, round_seed(run_seed, number))
        return sorted(places[name] for name in chosen)

    rules: dict[str, Choice] = {"uniform": by_chance, "stratified": by_domain}
    if spec["strategy"] not in rules:
        raise ConfigError(f"there is no selection {spec['strategy']} here: there are {', '.join(rules)}", code="F026",
                          fix="correct the row's task file")  # fmt: skip
    return rules[spec["strategy"]]


def most_common(client: VirtualClient) -> str:
    """Return the domain that a client would declare: the category of most of its rows."""
    return Counter(record.category for record in client.records).most_common(1)[0][0]
