"""Golden vectors of the protocol: `python -m tests.protocol.make_vectors` writes protocol/vectors/*.json.

They freeze every byte on the wire. A change here is a change of the protocol: raise its version, and say why in
protocol/decisions/. All inputs come from seeds, so a second implementation can follow each derivation.
"""

import json
from pathlib import Path

import numpy as np

from fedit_protocol.encoding import encode
from fedit_protocol.signing import Kind
from fedit_protocol.testing import MemoryFederation, MemoryRound, small_task

from .vector_derivations import Vector, contexts, keylog, keys, masks, shamir
from .vector_messages import messages

FOLDER = Path(__file__).resolve().parents[2] / "protocol" / "vectors"

SIZE = 8
UPDATES = [
    np.array([1, 0, 0, 0.5, -0.5, 0, 0, -1], dtype=np.float32),
    np.array([0, 1, 0, 0.25, -0.25, 0, 1, -1], dtype=np.float32),
    np.array([0, 0, 1, 0.125, 0.75, 0, 1, -1], dtype=np.float32),
]
WEIGHTS = [1, 2, 15]


def build() -> dict[str, list[Vector]]:
    """Return every vector file's content by its name."""
    round_ = transcript_round()
    return {
        "messages": messages(round_),
        "contexts": contexts(round_),
        "keys": keys(),
        "masks": masks(),
        "shamir": shamir(),
        "keylog": keylog(),
        "transcript": transcript(round_),
    }


def transcript_round() -> MemoryRound:
    """Three devices, one sum, nobody lost."""
    round_ = MemoryRound(MemoryFederation(3, seed="vectors"), small_task(3, SIZE))
    return round_.run(UPDATES, WEIGHTS)


def transcript(round_: MemoryRound) -> list[Vector]:
    """Everything that three devices and the server said to each other, in order, and the sum that came out."""
    devices = [device.public for device in round_.federation.devices]
    aggregate = round_.aggregate
    assert aggregate is not None
    server = round_.server
    said: list[Vector] = [
        {"name": "descriptor", "bytes": encode(round_.federation.descriptor).hex()},
        {"name": "offer", "bytes": round_.offer.hex()},
        *_from_members(round_, Kind.JOIN),
        {"name": "roster", "bytes": server.roster(devices[0]).hex()},
        *_from_members(round_, Kind.SHARES),
        *({"name": f"inbox {number}", "bytes": server.inbox(device).hex()} for number, device in enumerate(devices)),
        *_from_members(round_, Kind.ACK),
        {"name": "sharers", "bytes": server.sharers(devices[0]).hex()},
        *_from_members(round_, Kind.UPLOAD),
        *(
            {"name": f"payload {number}", "bytes": round_.payloads[device].tobytes().hex()}
            for number, device in enumerate(devices)
        ),
        *(
            {"name": f"receipt {number}", "bytes": server.receipt(device, 1).hex()}
            for number, device in enumerate(devices)
        ),
        {"name": "survivors", "bytes": server.survivors(devices[0], 1).hex()},
        *_from_members(round_, Kind.UNMASK),
    ]
    result = {
        "name": "sum",
        "updates": [update.tolist() for update in UPDATES],
        "weights": WEIGHTS,
        "ring_sum": aggregate.ring_sum.tolist(),
        "weight": aggregate.weight,
        "survivors": aggregate.survivors,
        "examples": aggregate.report.examples,
    }
    return [*said, result]


def _from_members(round_: MemoryRound, kind: Kind) -> list[Vector]:
    return [{"name": f"{kind} {number}", "bytes": sent[kind].hex()} for number, sent in sorted(round_.sent.items())]


def main() -> None:
    """Write all files."""
    for name, vectors in build().items():
        (FOLDER / f"{name}.json").write_text(json.dumps(vectors, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
