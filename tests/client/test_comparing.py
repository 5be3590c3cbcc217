"""What an evaluator believes: the server's signed word about one task, and bytes by their digests."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from fedit_client.evaluation import CategoryLosses
from fedit_client.evaluation.comparing import Bench, Comparison, Counter, by_category
from fedit_client.events import Event
from fedit_client.membership.succession import PinnedDescriptor
from fedit_client.network.patience import Patience
from fedit_client.network.problems import NotReadyError
from fedit_client.network.transport import OnBytes
from fedit_client.rounds.preparation import unplanned
from fedit_client.testing import FakeEvaluator
from fedit_protocol.encoding import digest_of, encode
from fedit_protocol.enrollment import federation_context
from fedit_protocol.errors import ConsentError, MembershipError, ProblemType, ProtocolError, SecurityError
from fedit_protocol.evaluation import MOST_CATEGORIES, Candidate, CandidateState, EvaluationReport
from fedit_protocol.ids import Digest, RoundId
from fedit_protocol.signing import Kind, SigningKey, seal, unseal
from fedit_protocol.task import TaskDocument
from fedit_protocol.testing import MemoryFederation, small_task

DOCUMENT = small_task(3)
FEDERATION = MemoryFederation(1)
CONTEXT = federation_context(FEDERATION.descriptor.federation_id)
BEFORE, AFTER = (
    save(DOCUMENT.layout.unflatten(np.full(DOCUMENT.layout.size, value, np.float32))) for value in (0.0, 1.0)
)


@dataclass
class OneServer:
    """A Transport that answers every question with one document, or one refusal."""

    answer: bytes = b""
    refusal: ProtocolError | None = None
    knows_categories: bool = True
    posted: list[tuple[str, bytes]] = field(default_factory=list)

    async def get(self, path: str) -> bytes:
        if path.startswith("/v1/federation"):
            return encode(FEDERATION.descriptor)
        if self.refusal is not None:
            raise self.refusal
        return self.answer

    async def post(self, path: str, body: bytes) -> bytes:
        if self.refusal is not None:
            raise self.refusal
        self.posted.append((path, body))
        if not self.knows_categories and b"categories" in body:
            raise ProtocolError(ProblemType.MALFORMED, "categories: this field does not exist")
        return b""

    async def upload(self, path: str, header: bytes, payload: bytes, on_bytes: OnBytes) -> bytes:
        raise AssertionError("an evaluator uploads nothing")

    async def download(
        self, digest: Digest, target: Path, limit: int, on_bytes: OnBytes, known: Path | None = None
    ) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes({digest_of(one): one for one in (BEFORE, AFTER)}[digest])


def counter(server: OneServer, document: TaskDocument = DOCUMENT) -> Counter:
    events: list[Event] = []
    pinned = PinnedDescriptor(encode(FEDERATION.descriptor), lambda _: None)
    return Counter(FEDERATION.devices[0], server, pinned, document, Patience(events.append))


def candidate(**changes: object) -> Candidate:
    return Candidate(
        task_id=DOCUMENT.task.id,
        task_digest=DOCUMENT.digest,
        round_id=RoundId("ab" * 16),
        round_no=3,
        adapter_version=3,
        adapter_digest=digest_of(AFTER),
        parent_digest=digest_of(BEFORE),
        state=CandidateState.HELD,
        reported=False,
    ).model_copy(update=changes)


def signed(message: Candidate, key: SigningKey = FEDERATION.server, kind: Kind = Kind.CANDIDATE) -> bytes:
    return seal(key, kind, CONTEXT, message)


async def test_the_servers_signed_candidate_is_believed() -> None:
    assert await counter(OneServer(signed(candidate()))).newest(2) == candidate()


FORGED = {
    "another key": signed(candidate(), SigningKey(bytes(range(32)))),
    "another kind": signed(candidate(), kind=Kind.RESULT),
    "another federation": seal(FEDERATION.server, Kind.CANDIDATE, bytes(32), candidate()),
    "another task": signed(candidate(task_id="other")),
    "an old round": signed(candidate(round_no=2)),
}


@pytest.mark.parametrize("answer", FORGED.values(), ids=FORGED)
async def test_a_candidate_that_the_server_did_not_sign_for_this_question_is_an_alarm(answer: bytes) -> None:
    with pytest.raises(SecurityError):
        await counter(OneServer(answer)).newest(2)


async def test_a_candidate_of_a_changed_task_needs_a_new_yes() -> None:
    with pytest.raises(ConsentError) as changed:
        await counter(OneServer(signed(candidate(task_digest=digest_of(b"another"))))).newest(0)
    assert changed.value.code == "A003"


async def test_nothing_new_is_no_error() -> None:
    assert await counter(OneServer(refusal=NotReadyError("come again", 1.0))).newest(0) is None


async def test_both_adapters_are_compared_on_the_same_rows_and_removed(tmp_path: Path) -> None:
    evaluator = FakeEvaluator(before=2.0, after=float("nan"))
    bench = Bench(DOCUMENT, tmp_path, unplanned(DOCUMENT), (), tmp_path / "candidates", evaluator)
    found = await bench.compare(candidate(), OneServer())
    assert (found.loss_before, found.loss_after, found.tokens) == (2.0, 1000.0, 100)
    assert list((tmp_path / "candidates").iterdir()) == []


async def test_a_report_is_signed_and_names_both_digests() -> None:
    server = OneServer()
    assert await counter(server).report(Comparison(candidate(), 2.0, 1.5, 10, 100))
    ((path, body),) = server.posted
    report = unseal(body, Kind.EVALUATION, CONTEXT, EvaluationReport, signer=FEDERATION.devices[0].public)
    assert path == f"/v1/rounds/{'ab' * 16}/evaluation"
    assert (report.adapter_digest, report.parent_digest) == (digest_of(AFTER), digest_of(BEFORE))


async def test_a_round_that_was_decided_meanwhile_is_no_error() -> None:
    server = OneServer(refusal=ProtocolError(ProblemType.ROUND_FAILED, "rejected by the operator"))
    assert not await counter(server).report(Comparison(candidate(), 2.0, 1.5, 10, 100))


async def test_a_refusal_names_who_can_appoint_this_device() -> None:
    server = OneServer(refusal=ProtocolError(ProblemType.POLICY_REFUSED, "no evaluator"))
    with pytest.raises(MembershipError) as refused:
        await counter(server).newest(0)
    assert refused.value.code == "J005"
    assert "fedit-server evaluator add" in (refused.value.fix or "")


BY_CATEGORY = CategoryLosses({"letters": 2.0, "lists": 3.0, "": 1.0}, {"letters": 10, "lists": 90, "": 5})
BETTER = CategoryLosses({"letters": 1.5, "lists": float("nan"), "": 1.0}, {"letters": 10, "lists": 90, "": 5})


def test_named_categories_are_compared_those_with_most_tokens_first() -> None:
    lists, letters = by_category(BY_CATEGORY, BETTER)
    assert (lists.name, lists.loss_after, lists.tokens) == ("lists", 1000.0, 90)
    assert (letters.name, letters.loss_before, letters.loss_after) == ("letters", 2.0, 1.5)
    one = CategoryLosses({"letters": 2.0, "x" * 65: 1.0, "": 1.0}, {"letters": 10, "x" * 65: 5, "": 5})
    assert by_category(one, one) == (), "one category says no more than the whole"
    many = CategoryLosses({str(n): 1.0 for n in range(40)}, {str(n): n + 1 for n in range(40)})
    assert len(by_category(many, many)) == MOST_CATEGORIES


async def test_a_server_of_before_gets_the_report_without_categories() -> None:
    server = OneServer(knows_categories=False)
    found = Comparison(candidate(), 2.0, 1.5, 3, 100, by_category(BY_CATEGORY, BETTER))
    assert await counter(server).report(found)
    reports = [unseal(body, Kind.EVALUATION, CONTEXT, EvaluationReport) for _, body in server.posted]
    assert [len(report.categories) for report in reports] == [2, 0]
