"""Golden vectors of the protocol: `python -m tests.protocol.make_vectors` writes protocol/vectors/*.json.

They freeze every byte on the wire. A change here is a change of the protocol: raise its version, and say why in
protocol/decisions/. All inputs come from seeds, so a second implementation can follow each derivation.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fedit_protocol.testing import MemoryFederation, MemoryRound, small_task

from .vector_changes import changes
from .vector_derivations import Vector, contexts, keylog, keys, masks, shamir
from .vector_encodings import encodings
from .vector_messages import messages
from .vector_sealed import sealed
from .vector_transcripts import THREE, TRANSCRIPTS

FOLDER = Path(__file__).resolve().parents[2] / "protocol" / "vectors"


def transcript_round() -> MemoryRound:
    """Three devices, one sum, nobody lost."""
    round_ = MemoryRound(MemoryFederation(3, seed="vectors"), small_task(3, 8))
    return round_.run(THREE, [1, 2, 15])


FILES: Final[dict[str, Callable[[], list[Vector] | Vector]]] = {
    "messages": lambda: messages(transcript_round()),
    "contexts": lambda: contexts(transcript_round()),
    "keys": keys,
    "masks": masks,
    "shamir": shamir,
    "keylog": keylog,
    "encodings": encodings,
    "sealed": sealed,
    "changes": changes,
    **{f"transcripts/{name}": record for name, record in TRANSCRIPTS.items()},
}
"""What makes each file below protocol/vectors."""


def main() -> None:
    """Write all files."""
    for name, make in FILES.items():
        path = FOLDER / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(make(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
