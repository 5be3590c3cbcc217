"""Each check of SPEC, section 8, as source text to take out, and the test that then fails.

`find` stands exactly once in the file and is replaced by `put`; a check whose code has moved is noticed by that. Where
a check has several sentences, or stands on both sides, each is taken out in turn.
"""

from typing import Final

from .deletion import OFF, Deletion, P
from .deletion import attack as _attack
from .deletions_apart import APART
from .deletions_canary import CANARY
from .deletions_domains import DOMAINS
from .deletions_gates import GATES
from .deletions_ranks import RANKS
from .deletions_sealed import SEALED

_PARTICIPANT, _OWN = P + "secagg/participant.py", P + "secagg/own_sum.py"
_LIMITS, _ROSTER, _KEYS = P + "limits.py", P + "secagg/roster.py", P + "secagg/keys.py"
_AGGREGATOR, _STATE, _ENDS = P + "secagg/aggregator.py", P + "secagg/round_state.py", P + "secagg/stage_ends.py"
_QUANTIZE, _RS, _ENROLLED = P + "secagg/quantize.py", P + "methods/fedit_rs.py", P + "enrollment.py"
_INBOX, _UPLOAD = "protocol/test_participant_inbox.py::test_", "protocol/test_participant_upload.py::test_"
_SURVIVORS = "protocol/test_participant_survivors.py::test_survivors_are_refused_and_no_share_leaves"
_GATES = "protocol/test_quantize.py::test_"

CLIENT: Final = (
    Deletion(
        "C0", "two sums need eight survivors", _LIMITS,
        "if sums > 1 and thresholds.min_survivors < LEAST_SURVIVORS_OF_TWO_SUMS:", OFF,
        _attack("second_sum", "row_10_two_sums_over_fewer_than_eight_survivors_are_refused_by_everybody"),
    ),
    Deletion(
        "C1", "the pinned server signed the offer", _LIMITS,
        "Kind.OFFER, context, Offer, signer=descriptor.server_key)", "Kind.OFFER, context, Offer)",
        "protocol/test_participant_offer.py::test_c1_an_offer_signed_by_another_key_than_the_pinned_one_is_refused",
    ),
    Deletion(
        "C1", "protocol, suite and version", _LIMITS,
        "if offer.protocol != PROTOCOL_NAME or offer.suite != SUITE or not can_talk(offer.version):", OFF,
        _attack("identities", "row_26_another_suite_is_refused_and_every_suite_has_its_own_contexts"),
    ),
    Deletion(
        "C2", "round numbers grow", _LIMITS, "if offer.round_no <= last.round_no:", OFF,
        _attack("other_rounds", "row_06_a_round_that_is_not_newer_and_an_expired_offer_are_refused"),
    ),
    Deletion(
        "C2", "offers expire", _LIMITS, "if now_s > offer.expires_at:", OFF,
        _attack("other_rounds", "row_06_a_round_that_is_not_newer_and_an_expired_offer_are_refused"),
    ),
    Deletion(
        "C2", "adapters are chained", _LIMITS,
        "if offer.adapter_version < last.adapter_version or same or child:", OFF,
        _attack("other_rounds", "row_08_an_adapter_that_does_not_follow_from_the_last_one_is_refused"),
    ),
    Deletion(
        "C2", "the offer is of the agreed task", _LIMITS,
        "if any(found != wanted for found, wanted in expected):", OFF,
        _attack("other_rounds", "row_08_an_offer_that_is_not_of_the_agreed_task_is_refused"),
    ),
    Deletion(
        "C3", "the owner's smallest cohort", _LIMITS, "if thresholds.members < limits.min_cohort:", OFF,
        _attack("other_rounds", "row_10_a_cohort_one_below_the_owners_floor_is_refused"),
    ),
    Deletion(
        "C3", "the owner's smallest crowd", _LIMITS, "if judged.hidden_among < limits.hidden_among:", OFF,
        _attack("other_rounds", "row_10_a_crowd_one_below_the_owners_floor_is_refused"),
    ),
    Deletion(
        "C3", "clip bounds", _LIMITS,
        "if not limits.min_clip_norm <= spec.ring.clip_norm <= limits.max_clip_norm:", OFF,
        _attack("values", "row_13_a_clip_outside_the_owners_bounds_is_refused"),
    ),
    Deletion(
        "C3", "allowed modules", P + "refusals.py", "if allowed and beyond:", OFF,
        "protocol/test_limits.py::test_row_08_only_allowed_modules_are_adapted_whatever_the_task_calls_them",
    ),
    Deletion(
        "C3", "the size of the base", P + "refusals.py", "if gib > most_gib:", OFF,
        "protocol/test_limits.py::test_a_base_that_cannot_be_small_enough_is_refused_before_it_is_looked_for",
    ),
    Deletion(
        "C3", "no code beside a base", "fedit_client/base/check.py", "if key := code_in(_json(path)):", OFF,
        "client/test_base_check.py::test_row_08_a_base_that_asks_for_code_is_refused",
    ),
    Deletion(
        "C3", "headers that are true", P + "tensor_files.py", "if entry.start != reached:", OFF,
        "protocol/test_tensor_files.py::test_a_header_that_lies_is_refused",
    ),
    Deletion(
        "C3", "adapters of exactly the layout", "fedit_client/adapters/kept.py",
        'if found != {tensor.name: ("F32", tensor.shape) for tensor in layout.tensors}:', OFF,
        "client/test_base_check.py::test_row_08_an_adapter_of_any_other_form_is_refused",
    ),
    Deletion(
        "C3", "the ring is wide enough", P + "secagg/ring.py",
        "if _bits(ring, rules) > modulus_bits(ring) or ring.packed_bits > ring.word_bits:", OFF,
        _attack("values", "row_12_a_ring_one_bit_too_narrow_is_refused_by_the_device"),
    ),
    Deletion(
        "C3", "2t > n + c", P + "secagg/thresholds.py", "(2 * t > n + c, f", "(True, f",
        _attack("views", "row_03_an_offer_with_a_threshold_that_splits_is_refused_at_the_roster"),
    ),
    Deletion(
        "C4", "nearly the same roster", _LIMITS, "if limits.max_overlap < share < 1:", OFF,
        _attack("other_rounds", "row_09_a_roster_that_differs_by_one_device_is_refused_by_an_open_policy"),
    ),
    Deletion(
        "C4", "two answers per adapter", _LIMITS,
        "if len(answered_on(offer.adapter_digest, last)) >= _MOST_ANSWERED_PER_ADAPTER:", OFF,
        _attack("other_rounds", "row_09_a_third_answer_on_one_adapter_is_refused"),
    ),
    Deletion(
        "C4", "never the same vector", _PARTICIPANT,
        "if digest in {earlier.update_digest for earlier in answered_on(self.offer.adapter_digest, self._last)}:", OFF,
        _attack("other_rounds", "row_09_the_vector_of_an_answered_round_is_never_masked_again"),
    ),
    Deletion(
        "C5", "joins are signed", _ROSTER, "join = verified(read, ctx0, Join)",
        "from fedit_protocol.encoding import decode; join = decode(Join, read.body)",
        _attack("identities", "row_01_a_server_that_swaps_keys_is_refused_by_everybody_and_gets_nothing"),
    ),
    Deletion(
        "C5", "a certificate of this very device", _ROSTER,
        "if certificate.identity_key != member.identity:", OFF,
        _attack("identities", "row_02_an_invented_or_repeated_device_in_the_roster_is_refused"),
    ),
    Deletion(
        "C5", "a certificate in force", _ENROLLED,
        "if not certificate.not_before <= now_s <= certificate.not_after:", OFF,
        "protocol/test_enrollment.py::test_a_certificate_is_refused_outside_its_time",
    ),
    Deletion(
        "C5", "in the log", _ENROLLED,
        "check_inclusion(log_leaf(certificate), certificate.log_index, proven.path, self.head)", "pass",
        _attack("identities", "row_02_an_invented_or_repeated_device_in_the_roster_is_refused"),
    ),
    Deletion(
        "C5", "unrevoked", _ENROLLED, "if certificate.serial in self.revoked:", OFF,
        "protocol/test_participant_roster.py::test_c5_a_revoked_device_in_the_roster_is_refused",
    ),
    Deletion(
        "C5", "nobody twice", _ROSTER, "if identities != sorted(set(identities)):", OFF,
        "protocol/test_participant_roster.py::test_a_roster_is_refused_and_nothing_is_dealt",
    ),
    Deletion(
        "C5", "the own entry unchanged", _PARTICIPANT,
        "if roster.members[self._index].envelope != self._join:", OFF,
        "protocol/test_participant_roster.py::test_a_roster_is_refused_and_nothing_is_dealt",
    ),
    Deletion(
        "C6", "weak round keys", _KEYS, "if len(public) != 32 or u >= _FIELD_PRIME or u in _LOW_ORDER_U:", OFF,
        _attack("identities", "row_22_a_device_cannot_stop_the_round_with_a_weak_or_copied_key"),
    ),
    Deletion(
        "C6", "weak identity keys", P + "signing.py",
        "if len(raw) != 32 or y >= _FIELD_PRIME or y in _SMALL_ORDER_Y:", OFF,
        "protocol/test_signing.py::test_a_key_of_small_order_signs_nothing",
    ),
    Deletion(
        "C7", "the log goes on", P + "keylog.py",
        "if _consistent_roots(old, new, path) != (old.root, new.root):", OFF,
        "client/test_key_log.py::test_row_33_a_fork_that_grows_on_is_an_alarm",
    ),
    Deletion(
        "C7", "a fork of the same size", P + "keylog.py",
        "if path or new.root != old.root or new.revoked != old.revoked:", OFF,
        "client/test_key_log.py::test_row_33_a_log_that_does_not_continue_is_an_alarm_also_after_a_restart",
    ),
    Deletion(
        "C8", "the share that was dealt", _PARTICIPANT,
        "if packed_leaves(roster.context, dealer.identity, own, share) != item.leaves:", OFF,
        _INBOX + "c8_a_spoiled_share_is_complained_about_and_not_held",
    ),
    Deletion(
        "C8", "no share opens: another round", _PARTICIPANT,
        "if complaints and len(complaints) == len(dealers):", OFF,
        _attack("liars", "row_16_a_device_whose_every_share_was_altered_stops_with_an_alarm"),
    ),
    Deletion(
        "C9", "this device is in U2", _OWN, "if own not in members:", OFF,
        _attack("views", "row_04_a_sharer_set_without_this_device_or_too_small_is_refused"),
    ),
    Deletion(
        "C9", "U2 is large enough", _OWN, "if len(members) < roster.thresholds.min_survivors:", OFF,
        _attack("views", "row_04_a_sharer_set_without_this_device_or_too_small_is_refused"),
    ),
    Deletion(
        "C10", "the weight", _QUANTIZE, "if not 1 <= weight <= ring.max_weight:", OFF,
        _attack("values", "row_12_a_weight_out_of_range_is_an_error_and_no_warning"),
    ),
    Deletion(
        "C10", "finite values", _QUANTIZE,
        "if not (np.isfinite(norm) and np.isfinite(update[ring.size :]).all()):", OFF,
        _UPLOAD + "c10_what_cannot_be_encoded_never_leaves",
    ),
    Deletion(
        "C10", "metrics in range", _QUANTIZE, "if not 0 <= value <= maximum:", OFF,
        _attack("values", "row_35_one_more_than_the_declared_range_is_refused"),
    ),
    Deletion(
        "C11", "masks cover one update", _PARTICIPANT,
        "own.frozen, self.stage = True, ClientStage.FROZEN  # first:", "pass  # first:",
        _attack("liars", "row_17_masks_cover_one_update_and_never_a_second"),
    ),
    Deletion(
        "C11", "stored before it leaves", _PARTICIPANT,
        'Persist(Record(kind="frozen", body=own.header), payload),', "",
        _attack("liars", "row_17_what_may_leave_is_on_disk_with_its_header_before_it_leaves"),
    ),
    Deletion(
        "C12", "a receipt for this very upload", _PARTICIPANT,
        'if f"sha256:{receipt.header.hex()}" != digest_of(own.header):', OFF,
        _UPLOAD + "c12_a_receipt_is_kept_only_for_the_header_that_was_sent",
    ),
    Deletion("C13", "survivors once each", _OWN, "or alive != sorted(set(alive)) or", "or", _SURVIVORS),
    Deletion(
        "C13", "survivors are sharers", _OWN, " or not set(alive) <= set(self.participants):", ":",
        "protocol/test_participant_survivors.py::test_c13_a_sharer_outside_u2_is_no_survivor",
    ),
    Deletion("C13", "enough survivors", _OWN, "if len(alive) < self.least_survivors:", OFF, _SURVIVORS),
    Deletion("C14", "not lost with a receipt", _OWN, "if self.receipt and own not in alive:  # C14", OFF, _SURVIVORS),
    Deletion(
        "C15", "evidence under the own context", _OWN,
        "header = unseal(survivor.header, Kind.UPLOAD, self.context, UploadHeader, signer=signer)",
        "header = UploadHeader(sum_index=self.index, length=payload_length(self.ring), digest=signer)",
        _attack("split_sharers", "row_27_two_views_of_the_sharers_are_refused_for_want_of_evidence"),
    ),
    Deletion(
        "C15", "evidence for this sum and length", _OWN,
        "if header.sum_index != self.index or header.length != payload_length(self.ring):", OFF, _SURVIVORS,
    ),
    Deletion(
        "C16", "one survivor set", _PARTICIPANT, "if own.asked != received:  # C16", OFF,
        _attack("views", "row_03_a_second_set_of_survivors_is_refused_after_the_first_was_answered"),
    ),
    Deletion(
        "C17", "a quorum, at the device", _OWN,
        "if message.sum_index != self.index or len(signers) < quorum:", OFF,
        _attack("views", "row_05_strict_a_split_cohort_gives_no_share"),
    ),
    Deletion(
        "C17", "a signature before any share", _PARTICIPANT, "if self.offer.cohort.strict:", OFF,
        _attack("views", "row_05_strict_a_split_cohort_gives_no_share"),
    ),
    Deletion(
        "C18", "the signed blobs", _PARTICIPANT,
        "if (second.result, second.input) != (digest_of(result), digest_of(derived)):", OFF,
        _attack("second_sum", "row_29_blobs_other_than_those_that_were_signed_are_refused"),
    ),
    Deletion(
        "C18", "the input enters ctx_2", P + "secagg/sum_state.py",
        'return hash_parts("second", second.result, second.input)', 'return b""',
        _attack("second_sum", "row_29_two_inputs_in_one_cohort_open_nothing_and_cost_only_the_second_sum"),
    ),
    Deletion(
        "C18", "finite", _RS, "if not (np.isfinite(mean).all() and np.isfinite(given).all()):", OFF,
        _attack("second_sum", "row_29_an_input_that_no_honest_server_derives_is_refused_by_everybody"),
    ),
    Deletion(
        "C18", "orthonormal", _RS, "if np.abs(q.T @ q - np.eye(self.s)).max() > _ORTHONORMAL_TO:", OFF,
        _attack("second_sum", "row_29_an_input_that_no_honest_server_derives_is_refused_by_everybody"),
    ),
    Deletion(
        "C18", "three quarters of the first survivors", _PARTICIPANT, "if index == 2:", OFF,
        _attack("second_sum", "row_30_a_second_sum_over_fewer_than_three_quarters_of_the_first_is_refused"),
    ),
    Deletion(
        "C19", "shares are wiped", _PARTICIPANT, "self._held.clear()", "pass",
        _attack("values", "row_25_a_wiped_device_has_nothing_left"),
    ),
    Deletion(
        "C19", "keys are wiped", _PARTICIPANT, "self._secrets = ()", "pass",
        _attack("values", "row_25_a_wiped_device_has_nothing_left"),
    ),
)  # fmt: skip

SERVER: Final = (
    Deletion(
        "S1", "bodies are limited before they are read", "fedit_server/access/bodies.py",
        "if len(received) > most:", OFF,
        "server/test_body_limits.py::test_s1_a_body_beyond_the_limit_is_refused_and_one_at_the_limit_is_not",
    ),
    Deletion(
        "S1", "canonical bytes only", P + "encoding.py", "if encode(message) != received:", OFF,
        "protocol/test_vectors.py::test_messages",
    ),
    Deletion(
        "S1", "signatures over the received bytes", P + "signing.py",
        "    verify(envelope.signer, envelope.kind, context, envelope.body, envelope.signature)\n", "",
        "protocol/test_aggregator_doors.py::test_s1_only_whole_signed_messages_of_the_right_kind_come_in",
    ),
    Deletion(
        "S2", "invited devices only", _AGGREGATOR,
        "if state.invited is not None and member.identity not in state.invited:", OFF,
        "protocol/test_aggregator_joins.py::test_s2_a_device_that_was_not_invited_is_refused",
    ),
    Deletion(
        "S2", "one set of keys per device", _AGGREGATOR, "if known != received:", OFF,
        "protocol/test_aggregator_joins.py::test_s2_a_device_joins_once_and_with_one_set_of_keys",
    ),
    Deletion(
        "S2", "distinct keys", _ROSTER, "if len(set(keys)) != len(keys):", OFF,
        _attack("second_sum", "row_28_one_mask_key_for_both_sums_is_refused_at_the_door"),
    ),
    Deletion(
        "S3", "shares of the right number and size", _AGGREGATOR,
        "if sealed != [packed + _TAG_BYTES] * (count - 1) or leaves != [packed] * count:", OFF,
        "protocol/test_aggregator_shares.py::test_s3_shares_of_a_wrong_number_or_size_are_refused",
    ),
    Deletion(
        "S3", "more than c complaints", _ENDS, "if state.complaints(index) <= thresholds.corrupt)", ")",
        _attack("liars", "row_16_false_complaints_evict_nobody_until_there_are_more_than_c"),
    ),
    Deletion(
        "S4", "nothing after the freeze", _AGGREGATOR,
        "elif wanted.survivors or self.stage in (Stage.SUM, Stage.SECOND_INPUT, *ENDED):", "elif False:",
        _attack("liars", "row_19_an_upload_after_the_freeze_stays_out_even_if_it_is_the_honest_one"),
    ),
    Deletion(
        "S5", "the length of every payload", _STATE, "if header.length != payload_length(wanted.ring):", OFF,
        _attack("liars", "row_18_a_payload_of_another_length_is_refused_by_its_header"),
    ),
    Deletion(
        "S5", "the digest of the body", "fedit_server/storage/spool.py",
        "if self._hash.digest() == self.slot.digest:", "if True:",
        "server/test_uploads.py::test_a_wrong_upload_is_refused_and_the_right_one_still_counts",
    ),
    Deletion(
        "S6", "the share that was dealt", _STATE,
        "if share and share_leaf(roster.context, *names, current.index, role, share) == leaf:", "if share:",
        _attack("liars", "row_15_a_lying_holder_is_dropped_and_blamed_and_the_sum_is_exact"),
    ),
    Deletion(
        "S7", "the secret that was announced", P + "secagg/unmask.py", "if public_of(secret) == expected:", "if True:",
        _attack("liars", "row_15_a_dealer_of_inconsistent_shares_is_named_and_the_rerun_without_it_succeeds"),
    ),
    Deletion(
        "S8", "the least weight", _QUANTIZE, "if weight < survivors:", OFF,
        _GATES + "a_sum_whose_weight_is_below_one_per_survivor_is_refused",
    ),
    Deletion(
        "S8", "metrics in range", _QUANTIZE, "if tail[spec.name] > survivors * spec.maximum:", OFF,
        _GATES + "a_sum_with_an_impossible_metric_is_refused",
    ),
    Deletion(
        "S8", "a mean within the clip", _QUANTIZE,
        "if _norm(total) / weight > ring.clip_norm + rounding:", OFF,
        _GATES + "a_mean_longer_than_the_clip_is_refused",
    ),
    Deletion(
        "S9", "the journal of an ended round", "fedit_server/storage/rounds.py",
        "await db.execute(update(journal).where(journal.c.round_id == round_id).values(body=None))", "pass",
        "server/test_storage.py::test_nothing_of_the_journal_lingers_in_the_files_of_an_ended_round",
    ),
    Deletion(
        "S9", "uploads of an ended round", "fedit_server/storage/spool.py",
        "await asyncio.to_thread(shutil.rmtree, self._folder / round_id, ignore_errors=True)", "pass",
        "server/test_rounds.py::test_a_committed_round_leaves_files_and_figures_and_nothing_else",
    ),
)  # fmt: skip

DELETIONS: Final = (*CLIENT, *SERVER, *SEALED, *APART, *GATES, *CANARY, *DOMAINS, *RANKS)
