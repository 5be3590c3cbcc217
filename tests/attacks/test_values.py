"""Rows 11 to 13, 23 to 25, 35: what a server can read in messages, sums and journals; what cannot be encoded."""

import logging
import traceback
from typing import Any

import numpy as np
import pytest

from fedit_protocol.encoding import decode
from fedit_protocol.errors import ProblemType, ProtocolError, TaskRefusedError
from fedit_protocol.limits import Limits, check_offer
from fedit_protocol.messages import Offer, UploadHeader
from fedit_protocol.metrics import MAX_EXAMPLES, MAX_LOSS, ClientReport, metric_specs
from fedit_protocol.secagg.effects import Compute, Effects
from fedit_protocol.secagg.keys import pairwise_seed, self_mask_seed
from fedit_protocol.secagg.quantize import encode_update
from fedit_protocol.secagg.ring import needed_bits
from fedit_protocol.secagg.unmask import UnmaskJob
from fedit_protocol.signing import Kind, read_envelope
from fedit_protocol.testing import ManualClock, MemoryFederation, one_hot_updates, small_task

from ..protocol.rounds import REPORT, WatchedRound
from .cast import VICTIM, AttackedRound, Cast, attacked, looks_uniform, rewrite

SIZE = 20_000

# --- row 11: figures about one device -------------------------------------------------------------


def test_row_11_two_lives_differ_in_masked_bytes_and_hashes_only() -> None:
    """Another update, loss, row count, held-out loss: each message has the same fields, and equal values in all
    that are not a hash of the masked bytes."""
    quiet, loud = AttackedRound(5, Cast()), AttackedRound(5, Cast())
    quiet.play()
    updates = one_hot_updates(5, 8)
    updates[VICTIM] = np.full(8, 0.9, dtype=np.float32)
    reports = [REPORT] * VICTIM + [ClientReport(4711, 13.37, 6.66)] + [REPORT] * (4 - VICTIM)
    loud.run(updates, [1, 1, 15, 1, 1], reports)
    for kind in (Kind.JOIN, Kind.SHARES, Kind.ACK):
        assert quiet.sent[VICTIM][kind] == loud.sent[VICTIM][kind]
    headers = [
        decode(UploadHeader, read_envelope(r.sent[VICTIM][Kind.UPLOAD], Kind.UPLOAD).body) for r in (quiet, loud)
    ]
    assert headers[0].model_copy(update={"digest": headers[1].digest}) == headers[1]
    answers = [read_envelope(r.sent[VICTIM][Kind.UNMASK], Kind.UNMASK).body for r in (quiet, loud)]
    assert answers[0] == answers[1]
    assert quiet.payloads.keys() == loud.payloads.keys()
    assert {len(p) for p in quiet.payloads.values()} == {len(p) for p in loud.payloads.values()}


# --- row 12: overflow -----------------------------------------------------------------------------


@pytest.mark.parametrize("extreme", [-1.0, 1.0])
def test_row_12_a_whole_cohort_of_extremes_sums_exactly(extreme: float) -> None:
    """n = 5, every coordinate at the end of its range, every weight at its maximum: nothing wraps around."""
    round_ = AttackedRound(5, Cast())
    most = round_.server.offer.sums[0].ring.max_weight
    round_.run([np.full(8, extreme, dtype=np.float32)] * 5, [most] * 5, [REPORT] * 5)
    assert round_.aggregate is not None
    assert round_.aggregate.ring_sum.tolist() == [int(extreme) * 5 * most * 127] * 8


def test_row_12_a_ring_one_bit_too_narrow_is_refused_by_the_device() -> None:
    """C3: 86 · 3 · 127 needs 16 bits, 87 needs 17; the offer says 16 in both cases."""
    for weight, refusing in ((86, False), (87, True)):
        assert (needed_bits(3, weight, 8) > 16) is refusing
        ring = small_ring(max_weight=weight)
        if refusing:
            with pytest.raises(ProtocolError) as refused:
                check_ring_of_offer(ring)
            assert refused.value.problem is ProblemType.POLICY_REFUSED
        else:
            check_ring_of_offer(ring)


def small_ring(**changes: Any) -> Offer:
    federation = MemoryFederation(3)
    offer = federation.offer(small_task(3), ManualClock()())
    honest = decode(Offer, read_envelope(offer, Kind.OFFER).body)
    ring = honest.sums[0].ring.model_copy(update={**changes, "metrics": metric_specs(changes["max_weight"])})
    assert ring.word_bits == 16
    return honest.model_copy(update={"sums": (honest.sums[0].model_copy(update={"ring": ring}),)})


def check_ring_of_offer(offer: Offer) -> None:
    check_offer(offer, MemoryFederation(3).descriptor, Limits(), None, int(ManualClock()().timestamp()))


@pytest.mark.parametrize("weight", [0, -1, 16])
def test_row_12_a_weight_out_of_range_is_an_error_and_no_warning(weight: int) -> None:
    """C10: the known bug elsewhere logs it, and then overflows."""
    round_ = AttackedRound(5, Cast())
    round_.play_until("upload")
    member = round_.members[VICTIM]
    member.on_sharers(round_.server.sharers(round_.device(VICTIM)))
    with pytest.raises(ProtocolError) as refused:
        member.freeze(one_hot_updates(5, 8)[VICTIM], weight, REPORT)
    assert refused.value.problem is ProblemType.ENCODING_REFUSED


# --- row 13: clip ---------------------------------------------------------------------------------


def offer_with_clip(clip: float) -> bytes:
    federation = MemoryFederation(5)
    honest = federation.offer(small_task(5), ManualClock()())
    sums = decode(Offer, read_envelope(honest, Kind.OFFER).body).sums
    ring = sums[0].ring.model_copy(update={"clip_norm": clip})
    changed = (sums[0].model_copy(update={"ring": ring}),)
    return rewrite(federation.server, Kind.OFFER, federation.context, honest, Offer, sums=changed)


def test_row_13_two_clips_in_one_cohort_never_meet() -> None:
    """The ring enters ctx0: a device that was told another clip is turned away at its join, and uploads nothing."""
    round_ = AttackedRound(5, Cast(offers={VICTIM: offer_with_clip(50.0)})).play()
    assert round_.turned_away[VICTIM].problem is ProblemType.BAD_SIGNATURE
    assert round_.kinds_said(VICTIM) == [Kind.JOIN]
    assert round_.aggregate is not None
    assert round_.aggregate.ring_sum[VICTIM] == 0


@pytest.mark.parametrize("clip", [1e-4, 1e4])
def test_row_13_a_clip_outside_the_owners_bounds_is_refused(clip: float) -> None:
    """C3: a clip near zero erases one device's update, a huge one bounds nothing."""
    round_ = AttackedRound(5, Cast(offers=dict.fromkeys(range(5), offer_with_clip(clip))))
    assert all(isinstance(refusal, TaskRefusedError) for refusal in round_.refusals.values())
    assert len(round_.refusals) == 5


# --- row 23: masks --------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_row_23_a_single_upload_is_uniform_in_every_bit(value: float) -> None:
    """χ² over the high and the low byte, and the frequency of every bit, for a constant update."""
    round_ = AttackedRound(3, Cast(), document=small_task(3, SIZE))
    round_.run([np.full(SIZE, value, dtype=np.float32)] * 3, [1] * 3, [REPORT] * 3)
    assert round_.aggregate is not None
    for payload in round_.payloads.values():
        words = payload[:SIZE]
        assert looks_uniform(words)
        assert looks_uniform((words << 8).astype(np.uint16))
        for bit in range(16):
            ones = int(((words >> bit) & 1).sum())
            assert abs(ones - SIZE / 2) < 5 * (SIZE / 4) ** 0.5


def test_row_23_the_test_of_uniformity_fails_for_what_is_not_masked() -> None:
    ring = AttackedRound(3, Cast(), document=small_task(3, SIZE)).server.offer.sums[0].ring
    plain = encode_update(np.full(SIZE, 0.5, dtype=np.float32), 1, REPORT, ring, bytes(32))
    assert not looks_uniform(plain[:SIZE])


# --- row 24: a sparse contribution ----------------------------------------------------------------


def test_row_24_whoever_contributed_a_spike_the_server_decodes_the_same() -> None:
    """One device's rare token moves one coordinate; the server's whole result does not say which device it was."""
    results = []
    for owner in (0, 4):
        updates = [np.zeros(8, dtype=np.float32)] * 5
        updates[owner] = np.eye(1, 8, 3, dtype=np.float32).reshape(-1)
        round_ = AttackedRound(5, Cast())
        round_.run(updates, [1] * 5, [REPORT] * 5)
        assert round_.aggregate is not None
        results.append((round_.aggregate.ring_sum.tolist(), round_.aggregate.weight, round_.aggregate.report))
    assert results[0] == results[1]


# --- row 25: secrets in logs ----------------------------------------------------------------------


class KeepsJobs(AttackedRound):
    """Keeps the jobs and effects that pass, as a careless log of objects would."""

    def perform(self, effects: Effects) -> None:
        self.seen = [*getattr(self, "seen", []), *effects]
        super().perform(effects)


def secrets_of(round_: WatchedRound) -> dict[str, bytes]:
    """Everything that nobody but its owner may see: keys, self masks, mask seeds, held shares."""
    found = {}
    for number, member in enumerate(round_.members):
        assert member._share_key is not None
        found[f"share key {number}"] = member._share_key._secret
        for secrets in member._secrets:
            found[f"mask key {number}"] = secrets.mask_key.secret_bytes()
            found[f"self mask {number}"] = secrets.self_mask
            found[f"self seed {number}"] = self_mask_seed(secrets.self_mask, round_.context1, round_.device(number))
            for peer in range(len(round_.members)):
                if peer != number:
                    names = round_.device(number), round_.device(peer)
                    public = round_.members[peer]._secrets[0].mask_key.public
                    seed = pairwise_seed(secrets.mask_key, public, round_.context1, *names)
                    found[f"pair seed {number}-{peer}"] = seed
    return found


def shows(text: str, secret: bytes) -> bool:
    return secret.hex() in text.lower() or repr(secret)[2:-1] in text


def test_row_25_no_secret_is_in_journal_messages_reprs_or_logs(caplog: pytest.LogCaptureFixture) -> None:
    """A round with a lost device; everything that leaves a machine is searched, and every object that is printed."""
    caplog.set_level(logging.DEBUG)
    round_ = KeepsJobs(5, Cast())
    round_.drops = {1: "upload"}
    round_.play_until("unmask")
    secrets = secrets_of(round_)
    for number in (0, 2, 3, 4):
        round_.act("unmask", number, round_.members[number], one_hot_updates(5, 8)[number], 1, REPORT)
    round_.settle(round_.server.stage)
    raw = [record.body for record in round_.journal]
    raw += [message.envelope for said in round_.said.values() for message in said]
    jobs = [effect.job for effect in round_.seen if isinstance(effect, Compute)]
    assert [type(job) for job in jobs] == [UnmaskJob]
    machines = [*round_.members, round_.server, *jobs, *round_.seen, round_.aggregate]
    machines += [own for member in round_.members for own in member._sums]
    machines += [secret for member in round_.members for secret in (member._share_key, *member._secrets)]
    texts = [repr(one) for one in machines] + [str(one) for one in machines] + [caplog.text]
    for name, secret in secrets.items():
        assert not any(secret in body for body in raw), name
        assert not any(shows(text, secret) for text in texts), name


def test_row_25_a_traceback_through_the_machines_shows_no_secret() -> None:
    round_ = AttackedRound(5, Cast())
    round_.play_until("upload")
    member = round_.members[VICTIM]
    member.on_sharers(round_.server.sharers(round_.device(VICTIM)))
    try:
        member.freeze(np.full(8, np.inf, dtype=np.float32), 1, REPORT)
    except ProtocolError as error:
        shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    for name, secret in secrets_of(round_).items():
        if not name.endswith(f" {VICTIM}"):
            continue
        assert not shows(shown, secret), name


def test_row_25_a_wiped_device_has_nothing_left() -> None:
    """C19."""
    round_ = attacked(members=5)
    for member in round_.members:
        member.wipe()
        assert (member._share_key, member._secrets, member._held, member._sums) == (None, (), {}, [])


# --- row 35: the tail -----------------------------------------------------------------------------


def test_row_35_the_largest_figures_of_every_device_decode_exactly() -> None:
    round_ = AttackedRound(5, Cast())
    most = round_.server.offer.sums[0].ring.max_weight
    report = ClientReport(MAX_EXAMPLES, MAX_LOSS, MAX_LOSS, 1.0)
    round_.run([np.ones(8, dtype=np.float32)] * 5, [most] * 5, [report] * 5)
    assert round_.aggregate is not None
    found = round_.aggregate.report
    assert (found.examples, found.train_loss, found.held_out_loss) == (5 * MAX_EXAMPLES, MAX_LOSS, MAX_LOSS)
    assert round_.aggregate.weight == 5 * most


NARROWED = {"examples": 999, "train_loss": 3999}


@pytest.mark.parametrize("name", ["weight", *NARROWED])
def test_row_35_one_more_than_the_declared_range_is_refused(name: str) -> None:
    """C10, by the encoder itself: a range that is one too narrow is exceeded by the same honest report."""
    ring = AttackedRound(5, Cast()).server.offer.sums[0].ring
    report, update = ClientReport(1000, 2.0, None), np.zeros(8, dtype=np.float32)
    encode_update(update, 2, report, ring, bytes(32))
    metrics = [
        spec.model_copy(update={"maximum": NARROWED[name]}) if spec.name == name else spec for spec in ring.metrics
    ]
    changes = {"max_weight": 1} if name == "weight" else {"metrics": tuple(metrics)}
    with pytest.raises(ProtocolError) as refused:
        encode_update(update, 2, report, ring.model_copy(update=changes), bytes(32))
    assert refused.value.problem is ProblemType.ENCODING_REFUSED
