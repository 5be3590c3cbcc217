"""From the clients that are free to the cohorts of a round: pure, so that a seed repeats a draw."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, inf

from fedit_protocol.ids import ClientId
from fedit_protocol.selection import (
    NOTHING_DECLARED,
    Declared,
    Seen,
    oort,
    power_of_choice,
    resource_aware,
    stratified,
    uniform,
)
from fedit_protocol.task import RoundSpec, Selection


def draw_cohort(free: Sequence[ClientId], size: int, selection: Selection, seed: bytes) -> list[ClientId]:
    """Return at most `size` of the free clients, who are given in the order in which they came.

    `first_come` takes the first. `uniform` ranks each client by SHA-256(seed, client): every subset is equally likely,
    and the order of arrival, which an adversary could steer, does not enter.
    """
    if selection is Selection.FIRST_COME:
        return list(free[:size])
    return [ClientId(client) for client in uniform(free, size, seed)]


@dataclass(frozen=True)
class Known:
    """What a server goes by when it draws: in memory only, and forgotten with the process."""

    round_no: int = 1
    declared: Mapping[ClientId, Declared] = field(default_factory=dict)
    """What devices said when they checked in."""
    served: Mapping[str, int] = field(default_factory=dict)
    """How often holders of each domain were invited."""
    seen: Mapping[str, Seen] = field(default_factory=dict, repr=False)
    """In trusted mode: what each device's last update said."""


def draw_round(
    free: Sequence[ClientId],
    policy: RoundSpec,
    known: Known,
    seed: bytes,
) -> list[ClientId]:
    """Return whom a round invites, by the task's rule.

    Where devices decide for themselves, those who are asked are drawn uniformly. Power-of-Choice asks twice as many as
    it takes, and takes whom it has not seen yet first.
    """
    declared, served, size = known.declared, known.served, policy.most_clients
    said: dict[str, Declared] = {client: declared.get(client, NOTHING_DECLARED) for client in free}
    match policy.selection:
        case Selection.STRATIFIED:
            chosen = stratified(said, served, size, seed)
        case Selection.RESOURCE_AWARE:
            chosen = resource_aware(said, size, policy.deadlines.upload_s, seed)
        case Selection.FIRST_COME:
            chosen = list(free[:size])
        case Selection.OORT:
            chosen = oort(free, known.seen, size, known.round_no, policy.deadlines.upload_s, seed)
        case Selection.POWER_OF_CHOICE:
            losses: dict[str, float] = {one: known.seen[one].square_loss if one in known.seen else inf for one in free}
            chosen = power_of_choice(losses, 2 * size, size, seed)
        case _:
            chosen = uniform(free, size, seed)
    return [ClientId(client) for client in chosen]


def divide(
    chosen: Sequence[ClientId], policy: RoundSpec, seed: bytes, suspects: Mapping[ClientId, int] | None = None
) -> list[list[ClientId]]:
    """Assign the chosen clients to cohorts at random: as many as fill them, never fewer than the task's rule needs.

    Robust rules and suspicion over rounds both rest on the order of arrival saying nothing about the cohort, whatever
    the selection was. Sizes differ by one at most; nobody beyond `cohorts * cohort_size` is taken. Suspects, each with
    the rounds in a row in which its cohort was far off, are dealt first, so that no two share a cohort while there is
    another one; which cohort gets whom is random too.
    """
    filled = min(policy.cohorts, ceil(len(chosen) / policy.ring_size), len(chosen) // policy.cohort_min)
    count = max(filled, policy.least_cohorts, 1)
    dealt = draw_cohort(chosen, count * policy.ring_size, Selection.UNIFORM, hashlib.sha256(seed + b"deal").digest())
    dealt.sort(key=lambda client: -(suspects or {}).get(client, 0))
    places = sorted(range(count), key=lambda number: hashlib.sha256(seed + b"place" + bytes([number])).digest())
    return [dealt[number::count] for number in places]
