"""What keeps one device's canary loss out of sight, as source text to take out (`deletions`)."""

from typing import Final

from .deletion import OFF, Deletion, P
from .deletion import attack as _attack

_CANARY, _ROSTER, _LIMITS = P + "secagg/canary.py", P + "secagg/roster.py", P + "limits.py"
_ABSTAINS = _attack("canary", "row_11_who_cannot_keep_to_the_floor_declares_no_class")

CANARY: Final = (
    Deletion(
        "C20", "a class of enough devices", _CANARY, "if len(members) >= least", "if True",
        _attack("canary", "row_11_a_class_of_too_few_sends_no_loss_at_all"),
    ),
    Deletion(
        "C20", "those who may collude do not count", _CANARY, "least = roster.thresholds.corrupt + ", "least = ",
        _attack("canary", "row_11_a_class_of_too_few_sends_no_loss_at_all"),
    ),
    Deletion(
        "C20", "pads over the slot", _CANARY,
        "return CanaryLoss(declared, loss), _pads(roster, members, index, share_key, own.context)",
        "return CanaryLoss(declared, loss), []",
        _attack("canary", "row_11_a_dropout_takes_its_whole_class_out_of_sight"),
    ),
    Deletion(
        "C20", "pads that no dropout gives away", P + "secagg/participant.py",
        "apply_masks(words[canary_place(own.ring, loss.base_class)], pads)", "pass",
        _attack("canary", "row_11_a_server_that_leaves_a_device_out_reads_neither_it_nor_the_rest"),
    ),
    Deletion(
        "C20", "the owner's floor", _CANARY, "and limits.hidden_among <= slots.hidden_among", "and True", _ABSTAINS,
    ),
    Deletion(
        "C20", "the owner's share of colluders", _CANARY,
        "and limits.corrupt_fraction <= offer.cohort.corrupt_fraction", "and True", _ABSTAINS,
    ),
    Deletion(
        "C20", "once per adapter", _CANARY,
        "and (last is None or offer.adapter_digest not in last.canaries)", "and True",
        _attack("canary", "row_11_one_adapter_gets_one_loss_of_a_device"),
    ),
    Deletion(
        "C20", "offered classes only", _ROSTER,
        "if join.base_class is not None and join.base_class not in canary_classes(offer.sums[0].ring):", OFF,
        _attack("canary", "row_11_a_roster_with_a_class_that_was_not_offered_is_refused_by_everybody"),
    ),
    Deletion(
        "C20", "exact first sums only", _LIMITS,
        "if spec.ring.canary is not None and (spec.index != 1 or spec.ring.noise):", OFF,
        _attack("canary", "row_11_losses_are_asked_for_in_the_first_exact_sum_only"),
    ),
    Deletion(
        "S2", "offered classes only", P + "secagg/aggregator.py", "check_declared(member.join, self.offer)", "pass",
        _attack("canary", "row_11_a_class_that_was_not_offered_is_turned_away"),
    ),
)  # fmt: skip
