"""From the clients that are free to the cohorts of a round: pure, so that a seed repeats a draw."""

import hashlib
from collections.abc import Mapping, Sequence
from math import ceil

from fedit_protocol.ids import ClientId
from fedit_protocol.selection import NOTHING_DECLARED, Declared, resource_aware, stratified, uniform
from fedit_protocol.task import RoundSpec, Selection


def draw_cohort(free: Sequence[ClientId], size: int, selection: Selection, seed: bytes) -> list[ClientId]:
    """Return at most `size` of the free clients, who are given in the order in which they came.

    `first_come` takes the first. `uniform` ranks each client by SHA-256(seed, client): every subset is equally likely,
    and the order of arrival, which an adversary could steer, does not enter.
    """
    if selection is Selection.FIRST_COME:
        return list(free[:size])
    return [ClientId(client) for client in uniform(free, size, seed)]


def draw_round(
    free: Sequence[ClientId],
    policy: RoundSpec,
    declared: Mapping[ClientId, Declared],
    served: Mapping[str, int],
    seed: bytes,
) -> list[ClientId]:
    """Return whom a round invites, by the task's rule.

    `declared` is what devices said when they checked in, `served` how often holders of each domain took part. Where
    devices decide for themselves, those who are asked are drawn uniformly.
    """
    said: dict[str, Declared] = {client: declared.get(client, NOTHING_DECLARED) for client in free}
    match policy.selection:
        case Selection.STRATIFIED:
            chosen = stratified(said, served, policy.most_clients, seed)
        case Selection.RESOURCE_AWARE:
            chosen = resource_aware(said, policy.most_clients, policy.deadlines.upload_s, seed)
        case Selection.FIRST_COME:
            chosen = list(free[: policy.most_clients])
        case _:
            chosen = uniform(free, policy.most_clients, seed)
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
