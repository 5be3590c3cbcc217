"""What the server signs about a round: the offer that defines it, and the result that ends it."""

from dataclasses import dataclass, field

from fedit_protocol.enrollment import federation_context
from fedit_protocol.ids import Digest, RoundId
from fedit_protocol.messages import BlobRef, Offer, RoundResult, StageSeconds
from fedit_protocol.methods import State
from fedit_protocol.methods.combination import combination_of
from fedit_protocol.round_plan import cohort_rules, sealed_spec, second_rule, sum_specs, version_of
from fedit_protocol.secagg.context import offer_context
from fedit_protocol.signing import Kind, SigningKey, read_envelope, seal
from fedit_protocol.task import Deadlines, TaskDocument
from fedit_protocol.version import PROTOCOL_NAME, SUITE
from fedit_server.home.folder import Identity
from fedit_server.storage.rows import AdapterRow


@dataclass(frozen=True)
class RoundFacts:
    """What makes one round of a task different from another."""

    round_id: RoundId
    round_no: int
    adapter: AdapterRow
    log_head: bytes
    now_s: int
    cohorts: int = 1
    sealed_key: bytes | None = None
    """HK of a trusted round, 32 bytes; None in masked rounds."""
    state: BlobRef | None = None
    """What devices know besides the adapter; None if that is nothing."""
    public: State = field(default_factory=dict, repr=False)
    """The same, read."""


def signed_offer(identity: Identity, document: TaskDocument, facts: RoundFacts) -> bytes:
    """Return the signed envelope of a round's offer."""
    descriptor, task = identity.descriptor, document.task
    seconds = _stage_seconds(task.round.deadlines)
    offer = Offer(
        protocol=PROTOCOL_NAME,
        version=version_of(document),
        suite=SUITE,
        mode=task.round.mode,
        federation_id=descriptor.federation_id,
        authority_key=descriptor.authority_key,
        log_head=facts.log_head,
        task_id=task.id,
        task_version=task.version,
        task_digest=document.digest,
        round_id=facts.round_id,
        round_no=facts.round_no,
        opened_at=facts.now_s,
        expires_at=facts.now_s + _lifetime_s(seconds),
        base_digest=Digest(task.base.digest),
        layout_digest=document.layout.digest,
        adapter_version=facts.adapter.version,
        adapter_digest=facts.adapter.digest,
        parent_digest=facts.adapter.parent_digest,
        cohort=cohort_rules(task),
        combination=combination_of(task, facts.cohorts),
        sums=sum_specs(document, facts.adapter.version, facts.public),
        sealed=None if facts.sealed_key is None else sealed_spec(document, facts.sealed_key, facts.adapter.version),
        second_rule=second_rule(document),
        seconds=seconds,
        state=facts.state,
    )
    return seal(identity.keys.server, Kind.OFFER, federation_context(descriptor.federation_id), offer)


def signed_result(key: SigningKey, offer: bytes, result: RoundResult) -> bytes:
    """Return the signed envelope of a round's result, bound to the offer that it answers."""
    context = offer_context(read_envelope(offer, Kind.OFFER).body)
    return seal(key, Kind.RESULT, context, result)


def _stage_seconds(deadlines: Deadlines) -> StageSeconds:
    return StageSeconds(
        join_s=deadlines.join_s,
        shares_s=deadlines.shares_s,
        upload_s=deadlines.upload_s,
        confirm_s=deadlines.confirm_s,
        unmask_s=deadlines.unmask_s,
        second_s=deadlines.second_s,
    )


def _lifetime_s(seconds: StageSeconds) -> int:
    """Every stage at its longest (shares has two halves, a second sum too), and once more for one restart."""
    first = seconds.join_s + 2 * seconds.shares_s + seconds.upload_s + seconds.confirm_s + seconds.unmask_s
    second = 2 * seconds.second_s + seconds.confirm_s + seconds.unmask_s
    return 2 * round(first + second) + 60
