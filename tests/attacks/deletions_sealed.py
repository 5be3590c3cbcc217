"""The checks of trusted rounds, and those that keep a device out of them, as source text to take out (`deletions`)."""

from typing import Final

from .deletion import OFF, Deletion, P, attack

_MODES, _LIMITS = P + "modes.py", P + "limits.py"
_UPDATES, _COLLECTOR, _DEVICE = P + "sealed/updates.py", P + "sealed/collector.py", P + "sealed/participant.py"
_SEAL, _ROUND = "protocol/test_sealed_updates.py::test_", "protocol/test_sealed_round.py::test_"
_SERVER = "server/test_sealed_rounds.py::test_"
_MIXED = attack("downgrade", "row_31_an_offer_that_is_neither_wholly_masked_nor_wholly_trusted_is_refused")
_WRONG = _SEAL + "s8_what_no_honest_device_seals_is_refused"

SEALED: Final = (
    Deletion(
        "C1", "the owner's modes", _MODES, "if mode in allowed:", "if True:",
        attack("downgrade", "row_31_an_owner_who_allows_masks_only_refuses_every_trusted_offer"),
    ),
    Deletion(
        "C1", "the pinned federation's modes", _MODES, "if mode not in descriptor.modes:", OFF,
        attack(
            "downgrade", "row_31_a_federation_that_was_pinned_for_masks_has_no_trusted_rounds_whatever_its_server_signs"
        ),
    ),
    Deletion(
        "C1", "the agreed task's mode", _LIMITS, "if offer.mode is not mode:", OFF,
        attack(
            "downgrade", "row_31_a_device_in_a_masked_task_refuses_a_trusted_offer_although_its_owner_allows_both"
        ),
    ),
    Deletion("C3", "sums in masked rounds only", _MODES, "or bool(offer.sums) is not masked", "", _MIXED),
    Deletion("C3", "a key in trusted rounds only", _MODES, "or (offer.sealed is None) is not masked", "", _MIXED),
    Deletion(
        "C3", "one cohort where single updates are sent", _MODES,
        "if offer.combination.cohorts > 1 and (second or not masked):", OFF, _MIXED,
    ),
    Deletion(
        "C3", "three devices where masks hide", _MODES,
        "if masked and offer.cohort.cohort_min < LEAST_MASKED:", OFF, _MIXED,
    ),
    Deletion(
        "C2", "what is sealed is what the task says", _LIMITS,
        "(offer.sealed, offer.sealed and sealed_spec(document, offer.sealed.key, offer.adapter_version)),", "",
        attack("downgrade", "row_31_a_signed_offer_seals_what_the_task_says"),
    ),
    Deletion(
        "C6", "the round's key", _DEVICE, "check_agreement_key(self._spec.key)", "pass",
        attack("downgrade", "row_31_a_round_key_of_low_order_is_refused"),
    ),
    Deletion(
        "C10", "the length of what is sealed", _UPDATES, "if update.shape != (spec.size,):", OFF,
        _SEAL + "c10_what_cannot_be_sent_is_never_sealed",
    ),
    Deletion(
        "C12", "the receipt for what was sealed", _DEVICE,
        'if f"sha256:{receipt.header.hex()}" != digest_of(self._header):', OFF,
        _ROUND + "c12_a_receipt_for_something_else_is_refused",
    ),
    Deletion(
        "S2", "only invited devices are let in", _COLLECTOR, "if device not in self._invited:", OFF,
        _ROUND + "s2_only_invited_devices_accept_and_only_in_time",
    ),
    Deletion(
        "S5", "the length that a sealed upload has", _COLLECTOR,
        "if opened.sum_index != 1 or opened.length != sealed_length(self.spec):", OFF,
        _ROUND + "s5_headers_that_are_turned_away",
    ),
    Deletion(
        "S5", "uploads that are fixed stay so", _COLLECTOR, "elif self.stage in (Stage.OPEN, *_ENDED):", "elif False:",
        _ROUND + "nothing_counts_once_the_uploads_are_fixed",
    ),
    Deletion(
        "S8", "whose update it is", _UPDATES, "return _INFO + ctx0 + device", "return _INFO + ctx0",
        _SEAL + "a_seal_opens_for_its_round_its_device_and_its_key_only",
    ),
    Deletion(
        "S8", "of which round it is", _UPDATES, "return _INFO + ctx0 + device", "return _INFO + device",
        _SEAL + "a_seal_opens_for_its_round_its_device_and_its_key_only",
    ),
    Deletion("S8", "the clip of one update", _UPDATES, "if norm > spec.clip_norm * (1 + _ROUNDING):", OFF, _WRONG),
    Deletion("S8", "the figures of one update", _UPDATES, "if figures[metric.name] > metric.maximum:", OFF, _WRONG),
    Deletion(
        "S8", "enough updates that can be used", _COLLECTOR, "if opened.survivors < self._least():", OFF,
        _ROUND + "updates_that_cannot_be_used_do_not_count_and_their_senders_are_named",
    ),
    Deletion(
        "S9", "the key of an ended round", "fedit_server/rounds/task_runner.py",
        "await asyncio.to_thread(self._services.desk.round_keys.destroy, live.opening.round_id)", "pass",
        _SERVER + "the_rounds_key_is_there_before_the_offer_and_gone_with_the_result",
    ),
    Deletion(
        "S9", "keys that a crash left", "fedit_server/rounds/coordinator.py",
        "await asyncio.to_thread(self.services.desk.round_keys.destroy_all_but, live)", "pass",
        _SERVER + "a_start_deletes_keys_that_belong_to_no_open_round",
    ),
    Deletion(
        "S9", "what lay in a key's file", "fedit_server/rounds/round_keys.py",
        "os.write(descriptor, bytes(path.stat().st_size))", "pass",
        _SERVER + "a_destroyed_key_is_overwritten_before_its_name_goes",
    ),
)  # fmt: skip
