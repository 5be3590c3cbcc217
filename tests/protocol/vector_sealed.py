"""The golden vectors of trusted rounds: sealed updates and what opens them, or must not; the seal's chance is given."""

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedit_protocol.adapter import Vector as Update
from fedit_protocol.errors import ProtocolError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.sealed.updates import open_update
from fedit_protocol.testing import seeded_random

from .sealing import ROUND_KEY, one_hot, round_spec, seal_repeatably, trusted_task
from .vector_derivations import Vector

SPEC = round_spec(trusted_task())
CTX0, DEVICE = seeded_random("sealed: round")(32), IdentityKey(seeded_random("sealed: device")(32))
UPDATE: Update = np.array([1, -2, 0.5, 0, 0, 0, 0.25, 3], dtype=np.float32)
TAIL = (2, 10, 3000, 4500, 2, 0)


def sealed() -> list[Vector]:
    """Return updates as they are sealed under stated keys, and the answer of whoever opens them."""
    whole = _vector("an update with every figure")
    box = bytes.fromhex(whole["sealed"])
    return [
        whole,
        _vector("of length zero", np.zeros(8, np.float32), (1, 1, 0, 0, 0, 0)),
        _vector("at the clip", one_hot(2, SPEC.clip_norm), (15, 2**24 - 1, 0, 0, 0, 150_000)),
        _opened("by another device", box, device=IdentityKey(seeded_random("sealed: stranger")(32))),
        _opened("in another round", box, context=seeded_random("sealed: other round")(32)),
        _opened("with another key", box, key=X25519PrivateKey.from_private_bytes(seeded_random("sealed: other")(32))),
        _opened("with its last byte changed", box[:-1] + bytes([box[-1] ^ 1])),
        _opened("a byte too short", box[:-1]),
        _opened("a byte too long", box + b"\x00"),
        _vector("with a value that is not finite", np.where(UPDATE == 3, np.inf, UPDATE).astype(np.float32)),
        _vector("beyond the clip", one_hot(0, SPEC.clip_norm * 1.01)),
        _vector("without weight", tail=(0, *TAIL[1:])),
        _vector("with too much weight", tail=(16, *TAIL[1:])),
        _vector("with more examples than there can be", tail=(2, 2**24, *TAIL[2:])),
    ]


def _vector(name: str, update: Update = UPDATE, tail: tuple[int, ...] = TAIL) -> Vector:
    """Seal a plaintext with a stated ephemeral key; `plain` is what was sealed, whoever would do that."""
    ephemeral = X25519PrivateKey.from_private_bytes(seeded_random(f"sealed: {name}")(32))
    plain = update.astype("<f4").tobytes() + np.array(tail, dtype="<u8").tobytes()
    box = seal_repeatably(plain, SPEC.key, ephemeral, b"FedIT/1|update|" + CTX0 + DEVICE)
    made = {"ephemeral_secret": ephemeral.private_bytes_raw().hex(), "plain": plain.hex()}
    return _opened(name, box) | made


def _opened(
    name: str,
    box: bytes,
    *,
    key: X25519PrivateKey = ROUND_KEY,
    context: bytes = CTX0,
    device: IdentityKey = DEVICE,
) -> Vector:
    asked = {
        "name": name,
        "round_secret": key.private_bytes_raw().hex(),
        "context": context.hex(),
        "device": device.hex(),
        "spec": SPEC.model_dump(mode="json", exclude={"key"}),
        "sealed": box.hex(),
    }
    return asked | answer(box, key, context, device)


def answer(box: bytes, key: X25519PrivateKey, context: bytes, device: IdentityKey) -> Vector:
    """Return what opening a box says."""
    try:
        found = open_update(box, key, SPEC, context, device)
    except ProtocolError as refusal:
        return {"expect": str(refusal.problem)}
    figures = {"update": found.update.tobytes().hex(), "weight": found.weight, "figures": found.figures}
    return {"expect": "success", **figures}
