"""An adapter's folder is believed as a whole: whatever is touched, the check names it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from fedit_protocol.encoding import decode, digest_of, encode
from fedit_protocol.errors import SecurityError
from fedit_protocol.ids import Digest, TaskId
from fedit_protocol.lineage import (
    LINEAGE,
    Lineage,
    LineageProof,
    Made,
    Origin,
    Step,
    check_origin,
    lineage_bytes,
    prove,
)
from fedit_protocol.peft_folder import FACTORS, WEIGHTS
from fedit_protocol.signing import SigningKey
from fedit_protocol.succession import Successions, succeed
from fedit_protocol.testing import MemoryFederation, seeded_random

FEDERATION = MemoryFederation(1, seed="lineage")
FIRST = encode(FEDERATION.descriptor)
PIN = digest_of(FIRST)
LATER, THIEF = (SigningKey(seeded_random(name)(32)) for name in ("later", "thief"))


def steps() -> tuple[Step, ...]:
    """Two rounds, a rollback to the first one's content, and another round; round 3 has failed."""
    contents = [b"0", b"1", b"2", b"1", b"4"]
    made = [Made.FIRST, Made.ROUND, Made.ROUND, Made.ROLLBACK, Made.ROUND]
    rounds = [0, 1, 2, 1, 4]
    return tuple(
        Step(
            version=version,
            digest=digest_of(content),
            parent_digest=digest_of(contents[version - 1]) if version else "",
            made=how,
            round_no=number,
            result=digest_of(b"result %d" % number) if how is Made.ROUND else "",
            document=digest_of(b"document"),
        )
        for version, (content, how, number) in enumerate(zip(contents, made, rounds, strict=True))
    )


@dataclass
class Folder:
    """An exported folder in memory."""

    told: Lineage = field(
        default_factory=lambda: Lineage(
            federation_id=FEDERATION.descriptor.federation_id,
            federation="memory",
            task_id=TaskId("notes"),
            title="Notes",
            base_model="org/base",
            base_revision="",
            base_digest=digest_of(b"base"),
            record_lines=1,
            record_head=digest_of(b"line"),
            steps=steps(),
        )
    )
    files: dict[str, bytes] = field(default_factory=lambda: {WEIGHTS: b"4", "README.md": b"card"})
    key: SigningKey = FEDERATION.server
    descriptor: bytes = FIRST
    successions: Successions = field(default_factory=Successions)
    proof: bytes = b""

    def export(self) -> "Folder":
        self.files[LINEAGE] = lineage_bytes(self.told)
        digests = {name: digest_of(content) for name, content in self.files.items()}
        self.proof = prove(self.key, self.descriptor, self.successions, self.told, digests, 7)
        return self

    def check(self, pin: Digest | None = PIN) -> Origin:
        digests = {name: digest_of(content) for name, content in self.files.items()}
        return check_origin(self.proof, self.files.get(LINEAGE, b""), digests, pin)


def test_a_folder_that_nobody_touched_says_where_it_comes_from() -> None:
    origin = Folder().export().check()
    assert (origin.newest.version, origin.newest.round_no, origin.vouched, origin.at) == (4, 4, True, 7)
    assert origin.pin == digest_of(FIRST)
    assert not Folder().export().check(None).vouched


def test_where_an_adapter_is_built_the_digest_is_of_what_travelled() -> None:
    files = {WEIGHTS: b"built of 4", FACTORS: b"4"}
    assert Folder(files=files).export().check().newest.digest == digest_of(b"4")
    with pytest.raises(SecurityError, match=r"factors\.safetensors is not version 4"):
        Folder(files={WEIGHTS: b"4", FACTORS: b"another"}).export().check()


def test_the_signature_is_found_from_an_earlier_pin() -> None:
    second, step = succeed(FIRST, FEDERATION.server, LATER.public, 1)
    folder = Folder(key=LATER, descriptor=second, successions=Successions(steps=(step,))).export()
    assert folder.check().pin == digest_of(second)
    assert folder.check(digest_of(second)).vouched


def at(place: int, **changes: object) -> Callable[[], Folder]:
    """A folder that a server signed although one step does not follow."""

    def forge() -> Folder:
        forged = [*steps()]
        forged[place] = forged[place].model_copy(update=changes)
        folder = Folder()
        return replace(folder, told=folder.told.model_copy(update={"steps": tuple(forged)})).export()

    return forge


def touched(name: str, content: bytes | None) -> Callable[[], Folder]:
    def forge() -> Folder:
        folder = Folder().export()
        if content is None:
            del folder.files[name]
        else:
            folder.files[name] = content
        return folder

    return forge


def of_a_thief() -> Folder:
    """Everything agrees, but the descriptor and its step were made up."""
    made_up, step = succeed(FIRST, THIEF, THIEF.public, 1)
    return Folder(key=THIEF, descriptor=made_up, successions=Successions(steps=(step,))).export()


def by_another_key() -> Folder:
    return replace(Folder(), key=THIEF).export()


def with_another_seal() -> Folder:
    folder, other = Folder().export(), by_another_key()
    seal = decode(LineageProof, other.proof).seal
    return replace(folder, proof=encode(decode(LineageProof, folder.proof).model_copy(update={"seal": seal})))


FORGED: dict[str, tuple[Callable[[], Folder], str]] = {
    "a byte of the adapter": (touched(WEIGHTS, b"5"), "adapter_model.safetensors is not the one"),
    "a byte of the card": (touched("README.md", b"cord"), "README.md is not the one"),
    "a byte of the lineage": (touched(LINEAGE, b"{}"), "lineage.json is not the one"),
    "a file less": (touched("README.md", None), "README.md is missing"),
    "a file more": (touched("adapter_model.bin", b""), "adapter_model.bin was not there"),
    "no proof": (lambda: replace(Folder().export(), proof=b""), "lineage.sig cannot be read"),
    "another key's signature": (by_another_key, "signature in lineage.sig does not hold"),
    "another key's seal": (with_another_seal, "signature in lineage.sig does not hold"),
    "another federation": (of_a_thief, "change of the server's key"),
    "a version left out": (at(2, version=3), "version 3 does not follow"),
    "another parent": (at(2, parent_digest=digest_of(b"x")), "version 2 does not follow"),
    "a round without a result": (at(1, result=""), "version 1 cannot"),
    "a round again": (at(4, round_no=2), "version 4 cannot"),
    "a rollback to what never was": (at(3, round_no=2), "version 3 cannot"),
    "another content": (at(4, digest=digest_of(b"x")), "adapter_model.safetensors is not version 4"),
    "a second beginning": (at(2, made=Made.FIRST), "version 2 cannot"),
}


@pytest.mark.parametrize("case", FORGED.values(), ids=FORGED)
def test_what_was_touched_is_named(case: tuple[Callable[[], Folder], str]) -> None:
    forge, where = case
    folder = forge()
    with pytest.raises(SecurityError, match=where) as broken:
        folder.check()
    assert broken.value.code == "T121"


def test_another_pin_than_the_federations_is_told_as_such() -> None:
    with pytest.raises(SecurityError) as other:
        Folder().export().check(digest_of(b"another federation"))
    assert other.value.code == "T122"


@pytest.mark.parametrize("place", range(0, 2000, 97))
def test_every_byte_of_the_signature_counts(place: int) -> None:
    folder = Folder().export()
    flipped = bytearray(folder.proof)
    flipped[place % len(flipped)] ^= 1
    with pytest.raises(SecurityError):
        replace(folder, proof=bytes(flipped)).check()
