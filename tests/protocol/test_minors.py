"""Earlier minors stay understood: what their peers said is kept, byte for byte, and both halves still follow it.

`minors/2.0.json` was written when 2.0 was the newest: the fields of its messages, and the digests of its transcripts,
which `test_transcripts` plays again with this version's server against those devices, and the other way round.
"""

import hashlib
import json
from pathlib import Path

import pytest

from fedit_protocol.version import FIRST_VERSION, PROTOCOL_VERSION, can_talk

from .make_vectors import FOLDER
from .test_transcripts import NAMES

MINORS = sorted((Path(__file__).parent / "minors").glob("*.json"))


def test_every_minor_before_this_one_is_kept() -> None:
    major, minor = PROTOCOL_VERSION
    assert [file.stem for file in MINORS] == [f"{major}.{earlier}" for earlier in range(FIRST_VERSION[1], minor)]
    assert all(can_talk((major, earlier)) for earlier in range(minor + 1))


@pytest.mark.parametrize("file", MINORS, ids=lambda file: file.stem)
def test_the_transcripts_of_an_earlier_minor_are_as_they_were(file: Path) -> None:
    kept = json.loads(file.read_text("utf-8"))["transcripts"]
    found = {name: hashlib.sha256((FOLDER / "transcripts" / name).read_bytes()).hexdigest() for name in kept}
    assert found == kept, "bytes of existing messages have changed: that is a new major"
    assert {name.removesuffix(".json") for name in kept} <= set(NAMES)
