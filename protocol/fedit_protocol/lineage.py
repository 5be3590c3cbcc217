"""Where an adapter comes from, told so that anybody can check it without a network (SPEC, section 18).

An exported folder holds the adapter, its card, `lineage.json` and `lineage.sig`. The lineage names every version from
the untrained start on; the signature covers the digest of every file, and brings along the descriptors that lead to its
key.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, Literal, NoReturn

from pydantic import Field, ValidationError

from fedit_protocol.encoding import AsTuple, DigestText, Message, decode, digest_of, encode
from fedit_protocol.enrollment import FederationDescriptor, federation_context
from fedit_protocol.errors import ProblemType, ProtocolError, SecurityError
from fedit_protocol.ids import Digest, FederationId, TaskId
from fedit_protocol.peft_folder import FACTORS, WEIGHTS
from fedit_protocol.signing import Kind, SigningKey, seal, unseal
from fedit_protocol.succession import MOST_SUCCESSIONS, Successions, check_successor
from fedit_protocol.task import SLUG

LINEAGE: Final = "lineage.json"
SIGNATURE: Final = "lineage.sig"

MOST_STEPS: Final = 200_000
MOST_FILES: Final = 16


class Made(StrEnum):
    """How a version came about."""

    FIRST = "first"
    ROUND = "round"
    ROLLBACK = "rollback"


class Step(Message):
    """One version of the adapter, and what it was made from."""

    version: int = Field(ge=0)
    digest: DigestText
    parent_digest: DigestText | Literal[""] = Field(description="of the version before; empty for version 0")
    made: Made
    round_no: int = Field(ge=0, description="the round whose content it has; 0 for that of version 0")
    result: DigestText | Literal[""] = Field(description="of that round's signed result; empty where no round made it")
    document: DigestText = Field(description="of the task's document by which it was made")


class Lineage(Message):
    """All versions of an adapter up to one, oldest first. Travels as JSON, beside the adapter."""

    schema_: Literal["fedit.lineage/1"] = Field("fedit.lineage/1", alias="schema")
    federation_id: FederationId
    federation: str = Field(max_length=200)
    task_id: Annotated[TaskId, Field(pattern=SLUG)]
    title: str = Field(max_length=200)
    base_model: str = Field(max_length=512)
    base_revision: str = Field(max_length=128)
    base_digest: DigestText
    record_lines: int = Field(ge=0, description="lines of the task's record when this was written")
    record_head: DigestText | Literal[""] = Field(description="digest of the newest of them")
    steps: Annotated[tuple[Step, ...], AsTuple] = Field(min_length=1, max_length=MOST_STEPS)


class SignedFile(Message):
    """A file of the folder."""

    name: str = Field(min_length=1, max_length=128)
    digest: DigestText


class LineageSeal(Message):
    """What the server signs: every file of the folder but the signature. Signed by the server, context: federation."""

    task_id: Annotated[TaskId, Field(pattern=SLUG)]
    version: int = Field(ge=0)
    at: int = Field(ge=0, description="seconds since 1970, UTC")
    files: Annotated[tuple[SignedFile, ...], AsTuple] = Field(min_length=1, max_length=MOST_FILES)


class LineageProof(Message):
    """`lineage.sig`: the seal, the descriptor that names its signer, and how earlier descriptors lead to that one."""

    descriptor: bytes = Field(max_length=16_384)
    successions: Annotated[tuple[bytes, ...], AsTuple] = Field(max_length=MOST_SUCCESSIONS)
    seal: bytes = Field(max_length=8192)


@dataclass(frozen=True)
class Origin:
    """What a checked folder says of itself. `vouched` is False where nobody outside the folder named the federation."""

    lineage: Lineage
    pin: Digest
    vouched: bool
    at: int

    @property
    def newest(self) -> Step:
        """The version that the folder holds."""
        return self.lineage.steps[-1]


def lineage_bytes(lineage: Lineage) -> bytes:
    """Return the bytes of `lineage.json`."""
    return (lineage.model_dump_json(indent=1, by_alias=True) + "\n").encode()


def prove(
    key: SigningKey, descriptor: bytes, successions: Successions, lineage: Lineage, files: Mapping[str, Digest], at: int
) -> bytes:
    """Return `lineage.sig` over the digests of all other files of the folder, by name."""
    named = tuple(SignedFile(name=name, digest=files[name]) for name in sorted(files))
    said = LineageSeal(task_id=lineage.task_id, version=lineage.steps[-1].version, at=at, files=named)
    sealed = seal(key, Kind.LINEAGE, federation_context(lineage.federation_id), said)
    return encode(LineageProof(descriptor=descriptor, successions=successions.steps, seal=sealed))


def check_origin(proof: bytes, lineage: bytes, files: Mapping[str, Digest], pin: Digest | None) -> Origin:
    """Check a folder: `files` are the digests of all its files but the signature, `lineage` the bytes of one of them.

    `pin` is of the federation as somebody trusted named it; None asks only whether the folder agrees with itself.
    Raises SecurityError: T121 names the link that does not hold, T122 another federation than the pinned one.
    """
    try:
        shown = decode(LineageProof, proof)
        descriptor = decode(FederationDescriptor, shown.descriptor)
    except ProtocolError as error:
        _broken(f"{SIGNATURE} cannot be read: {error}", error)
    _check_pin(pin, shown)
    context = federation_context(descriptor.federation_id)
    try:
        said = unseal(shown.seal, Kind.LINEAGE, context, LineageSeal, signer=descriptor.server_key)
    except ProtocolError as error:
        _broken(f"the signature in {SIGNATURE} does not hold: {error}", error)
    _check_files({file.name: file.digest for file in said.files}, files)
    told = _read(lineage)
    if (told.federation_id, told.task_id, told.steps[-1].version) != (
        descriptor.federation_id, said.task_id, said.version,
    ):  # fmt: skip
        _broken(f"{LINEAGE} is about another federation, task or version than {SIGNATURE}")
    check_steps(told.steps)
    came = FACTORS if FACTORS in files else WEIGHTS
    if files[came] != told.steps[-1].digest:
        _broken(f"{came} is not version {said.version} of {LINEAGE}")
    return Origin(told, digest_of(shown.descriptor), pin is not None, said.at)


def check_steps(steps: Sequence[Step]) -> None:
    """Raise SecurityError T121 unless each version follows from the one before."""
    known: dict[str, int] = {}
    newest_round = 0
    for number, step in enumerate(steps):
        before = steps[number - 1].digest if number else ""
        if step.version != number or step.parent_digest != before:
            _broken(f"version {step.version} does not follow from the one before it")
        match step.made:
            case Made.FIRST:
                holds = number == 0 and not step.result and step.round_no == 0
            case Made.ROUND:
                holds = number > 0 and bool(step.result) and step.round_no > newest_round
                newest_round = step.round_no
            case Made.ROLLBACK:
                holds = known.get(step.digest) == step.round_no
        if not holds:
            _broken(f"version {step.version} cannot have been made by {step.made} {step.round_no or ''}".rstrip())
        known.setdefault(step.digest, step.round_no)


def _check_pin(pin: Digest | None, shown: LineageProof) -> None:
    """Accept the pinned descriptor itself, and one that signatures lead to from the pinned one."""
    found = digest_of(shown.descriptor)
    if pin is None or pin == found:
        return
    try:
        leads = check_successor(pin, shown.descriptor, Successions(steps=shown.successions))
    except ProtocolError as error:
        _broken(f"a change of the server's key in {SIGNATURE} does not hold: {error}", error)
    if leads is None:
        raise SecurityError(
            ProblemType.KEY_REFUSED,
            f"this was signed by the federation {found}, and nothing leads there from {pin}",
            code="T122",
            fix="ask whoever gave it to you; after a change of the server's key export it anew",
        )


def _check_files(signed: Mapping[str, Digest], found: Mapping[str, Digest]) -> None:
    for name in (LINEAGE, WEIGHTS):
        if name not in signed:
            _broken(f"{name} is not among the signed files")
    for name, digest in signed.items():
        if name not in found:
            _broken(f"the file {name} is missing")
        if found[name] != digest:
            _broken(f"the file {name} is not the one that was signed")
    if added := sorted(found.keys() - signed.keys()):
        _broken(f"the file {added[0]} was not there when the folder was signed")


def _read(lineage: bytes) -> Lineage:
    try:
        return Lineage.model_validate_json(lineage)
    except ValidationError as error:
        _broken(f"{LINEAGE} cannot be read", error)


def _broken(why: str, cause: Exception | None = None) -> NoReturn:
    raise SecurityError(
        ProblemType.DIGEST_MISMATCH, why, code="T121", fix="do not use it; ask for the folder again, and compare"
    ) from cause
