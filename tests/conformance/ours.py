"""Our implementation as an answerer: JSON questions on stdin, one a line, JSON answers on stdout.

`python -m tests.conformance.ours` is what `python -m tests.conformance vectors` asks if no other program is named.
"""

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedit_protocol.encoding import decode, encode, hash_parts
from fedit_protocol.errors import ProtocolError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.keylog import merkle_root
from fedit_protocol.messages import RingSpec, SealedSpec
from fedit_protocol.metrics import CanaryLoss, ClientReport, OwnDomain, Unknown
from fedit_protocol.sealed.updates import open_update
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
from fedit_protocol.secagg.masking import pair_sign
from fedit_protocol.secagg.noisy_update import encode_noisy
from fedit_protocol.secagg.packing import pack
from fedit_protocol.secagg.prg import KeyStream
from fedit_protocol.secagg.quantize import decode_sum, encode_update
from fedit_protocol.secagg.ring import as_words
from fedit_protocol.secagg.shamir import split
from fedit_protocol.secagg.shares import ROLES
from fedit_protocol.signing import Kind, SigningKey, signed_bytes
from fedit_protocol.task import Quantization

from ..protocol.canaries import figures_of
from ..protocol.replays import ServerReplay
from ..protocol.vector_messages import KINDS

Fields = dict[str, Any]


def _raw(text: str) -> bytes:
    return bytes.fromhex(text)


def _decode(asked: Fields) -> Fields:
    try:
        message = decode(KINDS[asked["kind"]], _raw(asked["bytes"]))
    except ProtocolError as refusal:
        return {"result": str(refusal.problem)}
    return {"result": "success" if encode(message).hex() == asked["bytes"] else "other bytes"}


def _sign(asked: Fields) -> Fields:
    key, kind = SigningKey(_raw(asked["secret"])), Kind(asked["kind"])
    context, body = _raw(asked["context"]), _raw(asked["body"])
    return {
        "public": key.public.hex(),
        "signed": signed_bytes(kind, context, body).hex(),
        "signature": key.sign(kind, context, body).hex(),
    }


def _pairwise(asked: Fields) -> Fields:
    own = MaskKey(_raw(asked["own_secret"]))
    names = _raw(asked["own_identity"]), _raw(asked["peer_identity"])
    seed = pairwise_seed(own, _raw(asked["peer_public"]), _raw(asked["context"]), *names)
    return {"own_public": own.public.hex(), "seed": seed.hex(), "sign": pair_sign(*names)}


def _canary_pad(asked: Fields) -> Fields:
    names = _raw(asked["own_identity"]), _raw(asked["peer_identity"])
    own = ShareKey(_raw(asked["own_secret"]))
    seed = canary_seed(own, _raw(asked["peer_public"]), _raw(asked["context"]), *names)
    return {"seed": seed.hex(), "sign": pair_sign(*names)}


def _domain_pad(asked: Fields) -> Fields:
    names = _raw(asked["own_identity"]), _raw(asked["peer_identity"])
    own = ShareKey(_raw(asked["own_secret"]))
    seed = domain_seed(own, _raw(asked["peer_public"]), _raw(asked["context"]), names, asked["domain"])
    return {"seed": seed.hex(), "sign": pair_sign(*names)}


def _pack(asked: Fields) -> Fields:
    words, bits = _raw(asked["words"]), asked["bits"]
    plain = np.frombuffer(words, "<u2") if bits <= 16 else np.frombuffer(words, "<u4")
    return {"payload": pack(plain, bits).hex()}


def _self_mask(asked: Fields) -> Fields:
    secret = _raw(asked["secret"])
    seed = self_mask_seed(secret, _raw(asked["context"]), _raw(asked["owner"]))
    return {"commitment": self_mask_hash(secret).hex(), "seed": seed.hex()}


def _seal_share(asked: Fields) -> Fields:
    context, dealer, holder = (_raw(asked[name]) for name in ("context", "dealer", "holder"))
    share = _raw(asked["share"])
    sealed = seal_share(
        ShareKey(_raw(asked["dealer_secret"])), _raw(asked["holder_public"]), context, dealer, holder, share
    )
    parts = zip(ROLES, (share[:32], share[32:]), strict=True)
    leaves = [share_leaf(context, dealer, holder, 1, role, part).hex() for role, part in parts]
    return {"sealed": sealed.hex(), "leaves": leaves}


def _mask(asked: Fields) -> Fields:
    stream = KeyStream(_raw(asked["seed"]), np.dtype("<u2"), asked["offset"] // 2)
    return {"bytes": stream.read_into(bytearray(64), 32).tobytes().hex()}


def _split(asked: Fields) -> Fields:
    coefficients: Iterator[str] = iter(asked["coefficients"])
    shares = split(_raw(asked["secret"]), asked["threshold"], asked["members"], lambda _: _raw(next(coefficients)))
    return {"shares": [share.hex() for share in shares]}


def _sum_context(asked: Fields) -> Fields:
    inputs = _raw(asked["ctx"]), asked["sum_index"], asked["participants"], _raw(asked["public_input"])
    return {"context": sum_context(*inputs).hex()}


def _roster_context(asked: Fields) -> Fields:
    joins = [_raw(join) for join in asked["joins"]]
    return {"context": roster_context(_raw(asked["ctx0"]), asked["cohort_id"], joins).hex()}


def _encode(asked: Fields) -> Fields:
    update, ring = np.frombuffer(_raw(asked["update"]), "<f4"), RingSpec.model_validate(asked["ring"])
    own = {name: OwnDomain(**values) for name, values in asked.get("domains", {}).items()}
    report, given = ClientReport(**asked["report"], domains=own), asked.get("canary")
    canary = None if given is None else CanaryLoss(Quantization(given["base_class"]), given["loss"])
    try:
        words = encode_update(update, asked["weight"], report, ring, _raw(asked["rounding_seed"]), canary)
    except ProtocolError as refusal:
        return {"expect": str(refusal.problem)}
    return {"words": words.tobytes().hex(), "expect": "success"}


def _encode_noisy(asked: Fields) -> Fields:
    update, ring = np.frombuffer(_raw(asked["update"]), "<f4"), RingSpec.model_validate(asked["ring"])
    seeds = _raw(asked["rounding_seed"]), _raw(asked["noise_seed"])
    return {"words": encode_noisy(update, ring, asked["variance"], seeds).tobytes().hex()}


def _decode_sum(asked: Fields) -> Fields:
    ring, slots = RingSpec.model_validate(asked["ring"]), asked.get("canary", {})
    opened = {Quantization(name): each if isinstance(each, int) else Unknown(each) for name, each in slots.items()}
    try:
        found = decode_sum(as_words(_raw(asked["words"]), ring), asked["survivors"], ring, canary=opened)
    except ProtocolError as refusal:
        return {"expect": str(refusal.problem)}
    figures = {"ring_sum": found.ring_sum.tolist(), "weight": found.weight, "report": figures_of(found.report)}
    return figures | {"sketch": found.sketch.tolist(), "expect": "success"}


def _server(asked: Fields) -> Fields:
    replay = ServerReplay(asked)
    documents = replay.play()
    return {"documents": documents, "outcome": replay.outcome()}


def _open_sealed(asked: Fields) -> Fields:
    secret = X25519PrivateKey.from_private_bytes(_raw(asked["round_secret"]))
    spec = SealedSpec(**asked["spec"], key=secret.public_key().public_bytes_raw())
    try:
        found = open_update(
            _raw(asked["sealed"]), secret, spec, _raw(asked["context"]), IdentityKey(_raw(asked["device"]))
        )
    except ProtocolError as refusal:
        return {"expect": str(refusal.problem)}
    figures = {"update": found.update.tobytes().hex(), "weight": found.weight, "figures": found.figures}
    return figures | {"expect": "success"}


ANSWERS: Final[dict[str, Callable[[Fields], Fields]]] = {
    "decode": _decode,
    "hash-parts": lambda asked: {"digest": hash_parts(*map(_raw, asked["parts"])).hex()},
    "ctx0": lambda asked: {"context": offer_context(_raw(asked["offer"])).hex()},
    "ctx": _roster_context,
    "ctx-j": _sum_context,
    "sign": _sign,
    "pairwise-seed": _pairwise,
    "canary-pad": _canary_pad,
    "domain-pad": _domain_pad,
    "pack": _pack,
    "self-mask": _self_mask,
    "seal-share": _seal_share,
    "mask": _mask,
    "split": _split,
    "encode": _encode,
    "encode-noisy": _encode_noisy,
    "decode-sum": _decode_sum,
    "server": _server,
    "open-sealed": _open_sealed,
    "merkle-root": lambda asked: {"root": merkle_root([_raw(leaf) for leaf in asked["leaves"]]).hex()},
}


def main() -> None:
    """Answer until the questions end."""
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(ANSWERS[asked["do"]](asked)), flush=True)


if __name__ == "__main__":
    main()
