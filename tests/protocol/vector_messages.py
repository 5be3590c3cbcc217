"""The golden vectors of the messages: one of every kind, and bytes close to it that must be refused."""

import math

import cbor2

from fedit_protocol.authority import (
    Answer,
    AuthorityCard,
    AuthorityQueue,
    AuthorityUpdate,
    IssuedCertificate,
    LoggedEntry,
    QueuedRequest,
    RequestKind,
    request_id,
)
from fedit_protocol.catalogue import AdapterInfo, TaskList, TaskListing, TaskState
from fedit_protocol.declaration import Declaration
from fedit_protocol.encoding import Message, decode, digest_of, encode
from fedit_protocol.enrollment import (
    Certificate,
    EnrollReply,
    EnrollRequest,
    FederationDescriptor,
    ProvenCertificate,
    Renew,
)
from fedit_protocol.errors import ProblemType
from fedit_protocol.evaluation import Candidate, CandidateState, CategoryLoss, EvaluationReport
from fedit_protocol.ids import Digest, RoundId, TaskId
from fedit_protocol.keylog import LogEntry, LogGrowth, LogHead, LogInclusion, LogPage, MerkleTree
from fedit_protocol.lineage import LINEAGE, Lineage, LineageProof, LineageSeal, Made, Step, lineage_bytes, prove
from fedit_protocol.messages import (
    Abort,
    Accept,
    Ack,
    CheckIn,
    CheckInReply,
    Confirm,
    Confirmations,
    Inbox,
    Join,
    Leave,
    Offer,
    PrivacySpent,
    Receipt,
    Roster,
    RoundOutcome,
    RoundResult,
    SecondInput,
    Sharers,
    Shares,
    Survivors,
    UnmaskAnswer,
    UploadHeader,
    WaitReason,
)
from fedit_protocol.peft_folder import WEIGHTS
from fedit_protocol.signing import Envelope, Kind, read_envelope, seal
from fedit_protocol.succession import Succession, Successions, succeed
from fedit_protocol.task import Mode
from fedit_protocol.task_record import ChangeKind, TaskChange, TaskRecord, sign_change
from fedit_protocol.testing import MemoryFederation, MemoryRound

from .sealing import SealedPlay
from .vector_derivations import Vector, log_entry

KINDS: dict[str, type[Message]] = {
    kind.__name__: kind
    for kind in (
        Abort, Accept, Ack, AdapterInfo, Certificate, CheckIn, CheckInReply, Confirm, Confirmations, EnrollReply,
        EnrollRequest, Envelope, FederationDescriptor, Inbox, Join, Leave, LogEntry, LogGrowth,
        LogHead, LogInclusion, LogPage, Offer, Receipt, Roster, RoundResult, SecondInput, Sharers,
        Shares, Survivors, TaskList, UnmaskAnswer, UploadHeader,
        AuthorityCard, AuthorityQueue, AuthorityUpdate,
        ProvenCertificate, Renew, Succession, Successions, Candidate, CategoryLoss, EvaluationReport,
        TaskChange, TaskRecord, LineageSeal, LineageProof,
    )
}  # fmt: skip


def successions(federation: MemoryFederation) -> list[Message]:
    """The server's key becomes another one; the whole envelope stands in the list."""
    new_key = federation.devices[0].public
    _, step = succeed(encode(federation.descriptor), federation.server, new_key, 1_767_225_600)
    return [decode(Succession, read_envelope(step, Kind.SUCCESSION).body), Successions(steps=(step,))]


def authority_apart(federation: MemoryFederation) -> list[Message]:
    """What a server and an authority elsewhere say to each other: the card, a queue, an update that answers it."""
    certificate = federation.certificate(federation.devices[0].public)
    request = QueuedRequest(kind=RequestKind.ENROLL, body=bytes(range(64)))
    granted = Answer(request=request_id(request.body), serial=0, problem=None, code="", detail="")
    refused = Answer(
        request=request_id(b""), serial=None, problem=ProblemType.INVITE_USED, code="T005", detail="used up"
    )
    line = LoggedEntry(entry=encode(log_entry(0)), head=federation.log_head())
    described = federation.descriptor
    return [
        AuthorityCard(
            federation_id=described.federation_id,
            name="clinics",
            authority_key=described.authority_key,
            authority_seal_key=described.authority_seal_key,
        ),
        AuthorityQueue(log_size=1, log_head=federation.log_head(), requests=(request,)),
        AuthorityUpdate(
            start=0,
            lines=(line,),
            certificates=(IssuedCertificate(certificate=certificate, label="kitchen table"),),
            answers=(granted, refused),
        ),
    ]


def evaluation(adapter: Digest) -> list[Message]:
    """A step that is held, a report about it, and what devices are told of the round meanwhile."""
    task, round_id, parent = TaskId("test-task"), RoundId("0123456789abcdef" * 2), digest_of(b"adapter 0")
    candidate = Candidate(
        task_id=task,
        task_digest=digest_of(b"task document"),
        round_id=round_id,
        round_no=1,
        adapter_version=1,
        adapter_digest=adapter,
        parent_digest=parent,
        state=CandidateState.HELD,
        reported=False,
    )
    report = EvaluationReport(
        task_id=task,
        round_id=round_id,
        adapter_digest=adapter,
        parent_digest=parent,
        loss_before=2.25,
        loss_after=1.9375,
        rows=60,
        tokens=4711,
    )
    letters = CategoryLoss(name="letters", loss_before=2.0, loss_after=1.75, tokens=711)
    lists = CategoryLoss(name="lists", loss_before=2.5, loss_after=2.125, tokens=4000)
    by_category = report.model_copy(update={"categories": (letters, lists)})
    held = RoundResult(
        outcome=RoundOutcome.HELD,
        reason="waiting for an evaluator's report",
        adapter_version=0,
        adapter_digest=parent,
        survivors=0,
        cohorts=0,
        sums_done=0,
    )
    return [candidate, report, by_category, letters, held]


def task_record(federation: MemoryFederation) -> list[Message]:
    """The first two lines of a task's record; the whole envelopes stand in the list."""
    first = TaskChange(
        task_id=TaskId("test-task"),
        number=1,
        previous="",
        at=1_767_225_600,
        kind=ChangeKind.CREATED,
        state=TaskState.ACTIVE,
        version=1,
        document=digest_of(b"task document"),
        by="operator",
        reason="",
    )
    known_as = federation.descriptor.federation_id
    written = sign_change(federation.server, known_as, first)
    paused = {"kind": ChangeKind.PAUSED, "state": TaskState.PAUSED, "reason": "holidays"}
    second = first.model_copy(update={"number": 2, "previous": digest_of(written), **paused})
    return [first, second, TaskRecord(changes=(written, sign_change(federation.server, known_as, second)))]


def lineage(federation: MemoryFederation) -> list[Message]:
    """The seal over an exported folder of two files, and the proof that carries it."""
    first = Step(
        version=0,
        digest=digest_of(b"adapter 0"),
        parent_digest="",
        made=Made.FIRST,
        round_no=0,
        result="",
        document=digest_of(b"task document"),
    )
    told = Lineage(
        federation_id=federation.descriptor.federation_id,
        federation="memory",
        task_id=TaskId("test-task"),
        title="Test",
        base_model="org/base",
        base_revision="",
        base_digest=digest_of(b"base"),
        record_lines=2,
        record_head=digest_of(b"line"),
        steps=(first,),
    )
    files = {WEIGHTS: first.digest, LINEAGE: digest_of(lineage_bytes(told))}
    proof = prove(federation.server, encode(federation.descriptor), Successions(), told, files, 1_767_225_600)
    shown = decode(LineageProof, proof)
    return [decode(LineageSeal, read_envelope(shown.seal, Kind.LINEAGE).body), shown]


def samples(round_: MemoryRound) -> list[Message]:
    """One message of every kind; those of a round are the transcript's own."""
    federation, device = round_.federation, round_.federation.devices[0].public
    sent = round_.sent[0]
    certificate, adapter = federation.certificate(device), digest_of(b"adapter 1")
    server = round_.server
    proven = decode(ProvenCertificate, federation.proven(device))

    def body(kind: Kind, received: bytes, of: type[Message]) -> Message:
        return decode(of, read_envelope(received, kind).body)

    return [
        federation.descriptor,
        EnrollRequest(code="K7QF2M9DXT4BW8HC", label="kitchen table", sent_at=1_767_225_600),
        EnrollReply(certificate=certificate, log_head=federation.log_head(), path=proven.path),
        proven,
        LogGrowth(path=MerkleTree(federation.log.leaves).consistency(1), revoked=(0, 7, 300)),
        LogInclusion(path=proven.path),
        LogPage(entries=(encode(log_entry(0)), encode(log_entry(3)))),
        Renew(serial=3, sent_at=1_767_225_600),
        *successions(federation),
        *authority_apart(federation),
        body(Kind.CERTIFICATE, certificate, Certificate),
        body(Kind.LOG_HEAD, federation.log_head(), LogHead),
        log_entry(0),
        CheckIn(
            version=(2, 0),
            client_version="0.1.0",
            device_kind="cpu",
            task_id=TaskId("test-task"),
            consent_version=1,
            sent_at=1_767_225_600,
            certificate=certificate,
        ),
        CheckIn(
            version=(2, 2),
            client_version="0.1.0",
            device_kind="cpu",
            task_id=TaskId("test-task"),
            consent_version=1,
            sent_at=1_767_225_600,
            certificate=certificate,
            declared=Declaration(domains=("closed_qa", "poetry"), round_s=512),
        ),
        CheckInReply(
            offer=None,
            reason=WaitReason.GATHERING,
            free_clients=2,
            wanted_clients=3,
            round_no=0,
            adapter_version=0,
            retry_after_s=2.5,
            server_time=1_767_225_600,
        ),
        body(Kind.OFFER, round_.offer, Offer),
        body(Kind.OFFER, SealedPlay().offer, Offer),
        Accept(mode=Mode.TRUSTED),
        body(Kind.JOIN, sent[Kind.JOIN], Join),
        decode(Envelope, sent[Kind.JOIN]),
        body(Kind.ROSTER, server.roster(device), Roster),
        body(Kind.SHARES, sent[Kind.SHARES], Shares),
        body(Kind.INBOX, server.inbox(device), Inbox),
        Ack(complaints=()),
        Ack(complaints=(0, 23, 24, 127)),
        body(Kind.SHARERS, server.sharers(device), Sharers),
        body(Kind.UPLOAD, sent[Kind.UPLOAD], UploadHeader),
        body(Kind.RECEIPT, server.receipt(device, 1), Receipt),
        body(Kind.SURVIVORS, server.survivors(device, 1), Survivors),
        body(Kind.UNMASK, sent[Kind.UNMASK], UnmaskAnswer),
        *_of_strict_and_second_sums(federation),
        RoundResult(
            outcome=RoundOutcome.FAILED,
            reason="the adapter's step is too long",
            adapter_version=1,
            adapter_digest=adapter,
            survivors=0,
            cohorts=0,
            sums_done=1,
            privacy=PrivacySpent(rounds=2, round_epsilon=0.75, total_epsilon=1.125, delta=1e-5),
        ),
        RoundResult(
            outcome=RoundOutcome.COMMITTED,
            reason="",
            adapter_version=1,
            adapter_digest=adapter,
            survivors=3,
            cohorts=1,
            sums_done=1,
        ),
        *evaluation(adapter),
        *task_record(federation),
        *lineage(federation),
        Abort(problem=ProblemType.POLICY_REFUSED),
        Leave(sent_at=1_767_225_600),
        TaskList(tasks=(TaskListing(document=encode(round_.document), state="active"),)),
        AdapterInfo(
            task_id=TaskId("test-task"), version=0, digest=Digest(adapter), parent_digest="", round_no=0
        ),
    ]  # fmt: skip


def _of_strict_and_second_sums(federation: MemoryFederation) -> list[Message]:
    confirm = Confirm(sum_index=1, survivors=bytes(range(32)))
    signed = [seal(device, Kind.CONFIRM, bytes(32), confirm) for device in federation.devices]
    result, derived = bytes(40), bytes(24)
    second = SecondInput(
        result=digest_of(result), result_bytes=len(result), input=digest_of(derived), input_bytes=len(derived)
    )
    return [confirm, Confirmations(sum_index=1, confirmations=tuple(signed)), second]


def messages(round_: MemoryRound) -> list[Vector]:
    """Each message's bytes, and bytes close to them that must be refused."""
    vectors = []
    for message in samples(round_):
        kind, good = type(message).__name__, encode(message)
        fields = cbor2.loads(good)
        vectors += [
            _message(kind, "as it should be", good),
            _message(kind, "a byte behind it", good + b"\x00", ProblemType.MALFORMED),
            _message(kind, "its last byte missing", good[:-1], ProblemType.MALFORMED),
            _message(kind, "an unknown field", _cbor({**fields, "zzz": 1}), ProblemType.MALFORMED),
            _message(kind, "its first field missing", _cbor(dict(list(fields.items())[1:])), ProblemType.MALFORMED),
            _message(kind, "the map's length in a longer form", b"\xb8" + bytes([len(fields)]) + good[1:],
                     ProblemType.MALFORMED),
            _message(kind, "a list of its values", _cbor(list(fields.values())), ProblemType.MALFORMED),
            _message(kind, "a message of another kind", _another(kind), ProblemType.MALFORMED),
        ]  # fmt: skip
    return vectors + _odd_messages(round_)


def _odd_messages(round_: MemoryRound) -> list[Vector]:
    """Refusals that belong to one kind only."""
    join = round_.sent[0][Kind.JOIN]
    relabelled = cbor2.loads(join) | {"kind": "nonsense"}
    short_key = cbor2.loads(read_envelope(join, Kind.JOIN).body) | {"share_key": bytes(31)}
    bad = ProblemType.MALFORMED
    report = evaluation(digest_of(b"adapter 1"))[1].model_dump()
    nameless = {"name": "", "loss_before": 2.0, "loss_after": 1.0, "tokens": 1}
    return [
        _message("EvaluationReport", "a loss that is no number", _cbor({**report, "loss_after": math.nan}), bad),
        _message("EvaluationReport", "a loss without end", _cbor({**report, "loss_after": math.inf}), bad),
        _message("EvaluationReport", "a negative loss", _cbor({**report, "loss_before": -0.5}), bad),
        _message("EvaluationReport", "a loss above 1000", _cbor({**report, "loss_before": 1000.5}), bad),
        _message("EvaluationReport", "a category without a name", _cbor({**report, "categories": [nameless]}), bad),
        _message("EvaluationReport", "no rows", _cbor({**report, "rows": 0}), bad),
        _message("Ack", "an integer in a longer form", b"\xa1jcomplaints\x81\x18\x05", bad),
        _message("Ack", "a member beyond the largest cohort", _cbor({"complaints": [128]}), bad),
        _message("Ack", "a negative member", _cbor({"complaints": [-1]}), bad),
        _message("Ack", "a float for a member", _cbor({"complaints": [1.0]}), bad),
        _message("Ack", "true for a member", _cbor({"complaints": [True]}), bad),
        _message("Ack", "the field twice", b"\xa2jcomplaints\x80jcomplaints\x80", bad),
        _message("Ack", "a list without announced length", b"\xa1jcomplaints\x9f\xff", bad),
        _message("Ack", "129 complaints", _cbor({"complaints": [0] * 129}), bad),
        _message("Receipt", "a hash of 31 bytes", _cbor({"header": bytes(31)}), bad),
        _message("Receipt", "text for a hash", _cbor({"header": "0" * 32}), bad),
        _message("Join", "a share key of 31 bytes", _cbor(short_key), bad),
        _message("Envelope", "an unknown kind", _cbor(relabelled), bad),
        _message("UnmaskAnswer", "a third sum", _cbor({"sum_index": 3, "shares": []}), bad),
        _message("UnmaskAnswer", "a share of 33 bytes", _cbor({"sum_index": 1, "shares": [bytes(33)]}), bad),
        _message("UploadHeader", "an empty payload", _cbor({"sum_index": 1, "length": 0, "digest": bytes(32)}), bad),
        _message("Leave", "nothing", b"", bad),
        _message("Accept", "of a masked round", _cbor({"mode": "masked"}), bad),
    ]


def _another(kind: str) -> bytes:
    return encode(Leave(sent_at=5) if kind != "Leave" else Abort(problem="x"))


def _cbor(value: object) -> bytes:
    return cbor2.dumps(value, canonical=True)


def _message(kind: str, what: str, raw: bytes, expect: ProblemType | None = None) -> Vector:
    return {"name": f"{kind}: {what}", "kind": kind, "bytes": raw.hex(), "expect": str(expect or "success")}
