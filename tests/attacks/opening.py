"""What a server can compute from the shares that it was given: secrets, and uploads with their masks taken off."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedit_protocol.messages import Sharers
from fedit_protocol.secagg.context import sum_context
from fedit_protocol.secagg.effects import Send
from fedit_protocol.secagg.keys import MaskKey, pairwise_seed, self_mask_seed
from fedit_protocol.secagg.masking import Mask, apply_masks, pair_sign
from fedit_protocol.secagg.participant import Participant
from fedit_protocol.secagg.prg import Words
from fedit_protocol.secagg.ring import as_words, word_count, word_type
from fedit_protocol.secagg.shamir import combine
from fedit_protocol.secagg.shares import MASK_KEY, SELF_MASK
from fedit_protocol.signing import Kind, seal
from fedit_protocol.testing import small_task

from .cast import AttackedRound, Cast


def until_upload(members: int, kind: type[Participant] = Participant, size: int = 8, **policy: object) -> AttackedRound:
    """A round whose devices hold each other's shares and wait for U2."""
    document = small_task(members, max(size, members), **policy)
    round_ = AttackedRound(members, Cast(devices=dict.fromkeys(range(members), kind)), document=document)
    round_.play_until("upload")
    return round_


@dataclass
class Opened:
    """What a server has rebuilt: `self_masks` and `mask_keys` by member, from t shares each."""

    self_masks: dict[int, bytes]
    mask_keys: dict[int, MaskKey]


def rebuild(round_: AttackedRound, gathered: Mapping[tuple[int, str], dict[int, bytes]]) -> Opened:
    """Combine every secret of which enough shares came."""
    threshold = round_.server._state.roster.thresholds.threshold
    secrets = {key: combine(shares, threshold) for key, shares in gathered.items() if len(shares) >= threshold}
    return Opened(
        {victim: secret for (victim, role), secret in secrets.items() if role == SELF_MASK},
        {victim: MaskKey(secret) for (victim, role), secret in secrets.items() if role == MASK_KEY},
    )


def gather(
    answers: Mapping[int, tuple[bytes, ...]], views: Mapping[int, set[int]]
) -> dict[tuple[int, str], dict[int, bytes]]:
    """Sort the answers: (victim, role) → holder → share."""
    gathered: dict[tuple[int, str], dict[int, bytes]] = {}
    for holder, shares in answers.items():
        for victim, share in enumerate(shares):
            role = SELF_MASK if victim in views[holder] else MASK_KEY
            gathered.setdefault((victim, role), {})[holder] = share
    return gathered


def isolate(
    round_: AttackedRound, uploads: dict[int, Send], chosen: set[int], view: tuple[int, ...], opened: Opened
) -> Words:
    """Return the sum of the chosen uploads with every mask taken off that the server can rebuild, under their view."""
    roster = round_.server._state.roster
    context = sum_context(roster.context, 1, view)
    ring = round_.server.offer.sums[0].ring
    total = np.zeros(word_count(ring), dtype=word_type(ring))
    for number in chosen:
        total += as_words(uploads[number].payload or b"", ring)
    for number in chosen:
        own = roster.members[number].identity
        masks = [Mask(self_mask_seed(opened.self_masks[number], context, own), -1)]
        for peer in (set(view) - chosen) & opened.mask_keys.keys():
            other = roster.keys(peer, 1)
            seed = pairwise_seed(
                opened.mask_keys[peer], roster.keys(number, 1).mask_public, context, own, other.identity
            )
            masks.append(Mask(seed, -pair_sign(own, other.identity)))
        apply_masks(total, masks)
    return total


def signed(words: Words) -> Any:
    """Return ring words as the signed integers that they stand for."""
    return words.view(np.dtype(f"<i{words.dtype.itemsize}")).tolist()


def plain_sum(round_: AttackedRound, chosen: set[int]) -> Any:
    """Return the sum of these devices' plain integers, computed without any mask."""
    size = round_.document.layout.size
    return np.sum([signed(round_.plain[number][:size]) for number in chosen], axis=0).tolist()


def signed_sharers(round_: AttackedRound, members: tuple[int, ...]) -> bytes:
    return seal(round_.federation.server, Kind.SHARERS, round_.context, Sharers(members=members))
