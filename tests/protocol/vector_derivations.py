"""The golden vectors of what is derived: contexts, keys, masks, sharings and log roots, each from stated inputs."""

from typing import Any

import numpy as np

from fedit_protocol.encoding import encode, hash_parts
from fedit_protocol.keylog import LogAction, LogEntry, MerkleTree, leaf_hash, revocation_digest
from fedit_protocol.messages import Ack
from fedit_protocol.secagg.context import offer_context, roster_context, sum_context
from fedit_protocol.secagg.keys import (
    MaskKey,
    ShareKey,
    canary_seed,
    domain_seed,
    pairwise_seed,
    seal_share,
    self_mask_hash,
    self_mask_seed,
    share_leaf,
)
from fedit_protocol.secagg.prg import KeyStream
from fedit_protocol.secagg.shamir import combine, split
from fedit_protocol.signing import Kind, SigningKey, read_envelope, signed_bytes
from fedit_protocol.testing import MemoryRound, seeded_random

Vector = dict[str, Any]


def contexts(round_: MemoryRound) -> list[Vector]:
    """ctx0 of an offer, ctx of a roster, ctx_j of a set of participants; and what a signature covers."""
    offer = read_envelope(round_.offer, Kind.OFFER).body
    joins = [round_.sent[number][Kind.JOIN] for number in range(3)]
    ctx0 = offer_context(offer)
    ctx = roster_context(ctx0, 0, joins)
    signing = SigningKey(seeded_random("signing")(32))
    return [
        {"name": "H of parts", "parts": ["", "6162", "63"], "digest": hash_parts("", "ab", "c").hex()},
        {"name": "ctx0", "offer": offer.hex(), "context": ctx0.hex()},
        {"name": "ctx", "ctx0": ctx0.hex(), "cohort_id": 0, "joins": _hex(joins), "context": ctx.hex()},
        {
            "name": "ctx of cohort 1",
            "ctx0": ctx0.hex(),
            "cohort_id": 1,
            "joins": _hex(joins),
            "context": roster_context(ctx0, 1, joins).hex(),
        },
        _sum_context("ctx_1 of all three", ctx, 1, [0, 1, 2], b""),
        _sum_context("ctx_1 of two", ctx, 1, [0, 2], b""),
        _sum_context("ctx_2 with a public input", ctx, 2, [0, 1, 2], b"public input"),
        {
            "name": "signature",
            "secret": signing.secret_bytes().hex(),
            "public": signing.public.hex(),
            "kind": "ack",
            "context": ctx.hex(),
            "body": encode(Ack(complaints=())).hex(),
            "signed": signed_bytes(Kind.ACK, ctx, encode(Ack(complaints=()))).hex(),
            "signature": signing.sign(Kind.ACK, ctx, encode(Ack(complaints=()))).hex(),
        },
    ]


def _sum_context(name: str, ctx: bytes, sum_index: int, participants: list[int], public_input: bytes) -> Vector:
    return {
        "name": name,
        "ctx": ctx.hex(),
        "sum_index": sum_index,
        "participants": participants,
        "public_input": public_input.hex(),
        "context": sum_context(ctx, sum_index, participants, public_input).hex(),
    }


def keys() -> list[Vector]:
    """Seeds, commitments, sealed shares and leaf hashes from stated secrets."""
    draw = seeded_random("key vectors")
    ctx, anna, bert = draw(32), draw(32), draw(32)
    own, peer, secret, share = draw(32), draw(32), draw(32), draw(64)
    public = {name: MaskKey(raw).public.hex() for name, raw in (("own", own), ("peer", peer))}
    return [
        {
            "name": "pairwise seed",
            "own_secret": own.hex(),
            "own_public": public["own"],
            "peer_public": public["peer"],
            "context": ctx.hex(),
            "own_identity": anna.hex(),
            "peer_identity": bert.hex(),
            "seed": pairwise_seed(MaskKey(own), MaskKey(peer).public, ctx, anna, bert).hex(),
            "sign": 1 if anna < bert else -1,
        },
        {
            "name": "self mask",
            "secret": secret.hex(),
            "context": ctx.hex(),
            "owner": anna.hex(),
            "commitment": self_mask_hash(secret).hex(),
            "seed": self_mask_seed(secret, ctx, anna).hex(),
        },
        {
            "name": "canary pad",
            "own_secret": own.hex(),
            "peer_public": public["peer"],
            "context": ctx.hex(),
            "own_identity": anna.hex(),
            "peer_identity": bert.hex(),
            "seed": canary_seed(ShareKey(own), ShareKey(peer).public, ctx, anna, bert).hex(),
            "sign": 1 if anna < bert else -1,
        },
        {
            "name": "domain pad",
            "own_secret": own.hex(),
            "peer_public": public["peer"],
            "context": ctx.hex(),
            "own_identity": anna.hex(),
            "peer_identity": bert.hex(),
            "domain": "Türkçe",
            "seed": domain_seed(ShareKey(own), ShareKey(peer).public, ctx, (anna, bert), "Türkçe").hex(),
            "sign": 1 if anna < bert else -1,
        },
        {
            "name": "sealed share",
            "dealer_secret": own.hex(),
            "holder_public": public["peer"],
            "context": ctx.hex(),
            "dealer": anna.hex(),
            "holder": bert.hex(),
            "share": share.hex(),
            "sealed": seal_share(ShareKey(own), ShareKey(peer).public, ctx, anna, bert, share).hex(),
            "leaves": [
                share_leaf(ctx, anna, bert, 1, "mask-key", share[:32]).hex(),
                share_leaf(ctx, anna, bert, 1, "self-mask", share[32:]).hex(),
            ],
        },
    ]


def masks() -> list[Vector]:
    """The first 64 bytes of some masks; words of 16 and 32 bits are the same bytes."""
    vectors = []
    for number in range(3):
        seed = seeded_random(f"mask vector {number}")(32)
        for start in (0, 16):
            stream = KeyStream(seed, np.dtype("<u2"), start).read_into(bytearray(64), 32).tobytes()
            vectors.append({"name": f"seed {number}, from byte {2 * start}", "seed": seed.hex(), "offset": 2 * start,
                            "bytes": stream.hex()})  # fmt: skip
    return vectors


def shamir() -> list[Vector]:
    """Sharings with stated coefficients, and what subsets give back."""
    vectors = []
    for threshold, members in ((2, 3), (4, 5), (5, 8)):
        draw = seeded_random(f"shamir vector {threshold} of {members}")
        secret = b"\x00" + draw(31)
        coefficients: list[bytes] = []

        def recorded(count: int, draw: Any = draw, kept: list[bytes] = coefficients) -> bytes:
            kept.append(draw(count))
            return kept[-1]

        shares = split(secret, threshold, members, recorded)
        last = {member: shares[member] for member in range(members - threshold, members)}
        assert combine(last, threshold) == secret
        vectors.append(
            {
                "name": f"{threshold} of {members}",
                "threshold": threshold,
                "secret": secret.hex(),
                "coefficients": _hex(coefficients),
                "shares": _hex(shares),
            }
        )
    return vectors


def log_entry(number: int) -> LogEntry:
    return LogEntry(
        action=LogAction.REVOKE if number == 3 else LogAction.ENROLL,
        identity_hash=seeded_random(f"log vector {number}")(32),
        serial=number,
        time=1_767_225_600 + number,
    )


def keylog() -> list[Vector]:
    """Merkle roots of logs that grow entry by entry, proofs between them, and the digest of what they revoke."""
    leaves = [leaf_hash(log_entry(number)) for number in range(7)]
    trees = [MerkleTree(leaves[:size]) for size in range(8)]
    roots: list[Vector] = [
        {"name": f"{tree.size} entries", "leaves": _hex(leaves[: tree.size]), "root": tree.root.hex()} for tree in trees
    ]
    inclusions: list[Vector] = [
        {"name": f"entry {index} of 7", "index": index, "path": _hex(list(trees[7].inclusion(index)))}
        for index in range(7)
    ]
    growths: list[Vector] = [
        {"name": f"from {old} to {new}", "from": old, "to": new, "path": _hex(list(trees[new].consistency(old)))}
        for old, new in ((1, 2), (3, 4), (3, 7), (4, 7), (6, 7), (2, 5), (7, 7))
    ]
    revoked = [
        {"name": f"revoked: {list(serials)}", "serials": list(serials), "digest": revocation_digest(serials).hex()}
        for serials in ((), (3,), (0, 3, 70_000))
    ]
    return [*roots, *inclusions, *growths, *revoked]


def _hex(raws: list[bytes]) -> list[str]:
    return [raw.hex() for raw in raws]
