"""What keeps one device's loss on a domain out of sight, as source text to take out (`deletions`)."""

from typing import Final

from .deletion import OFF, Deletion, P
from .deletion import attack as _attack

_SLOTS, _ABSTAINS = (
    P + "secagg/domain_slots.py",
    _attack("domains", "row_11_who_cannot_keep_to_the_floor_declares_no_domain"),
)
_FEW, _DROPPED = (
    _attack("domains", "row_11_a_domain_of_too_few_sends_nothing"),
    _attack("domains", "row_11_a_dropout_takes_its_domains_out_of_sight"),
)

DOMAINS: Final = (
    Deletion("C20", "a domain of enough devices", _SLOTS, "if len(members) >= least", "if True", _FEW),
    Deletion(
        "C20", "those who may collude do not count in a domain", _SLOTS,
        "least = roster.thresholds.corrupt + ", "least = ", _FEW,
    ),
    Deletion(
        "C20", "pads over a domain's slot", P + "secagg/participant.py",
        "apply_masks(words[place], slot_pads)", "pass", _DROPPED,
    ),
    Deletion(
        "C20", "the owner's floor of a domain", _SLOTS,
        "or limits.hidden_among > slots.hidden_among", "or False", _ABSTAINS,
    ),
    Deletion(
        "C20", "the owner's share of colluders in a domain", _SLOTS,
        "or limits.corrupt_fraction > offer.cohort.corrupt_fraction", "or False", _ABSTAINS,
    ),
    Deletion(
        "C20", "once per adapter and domain", _SLOTS,
        "or (last is not None and offer.adapter_digest in last.canaries)", "or False", _ABSTAINS,
    ),
    Deletion(
        "C20", "domains in exact first sums only", P + "limits.py",
        "if spec.ring.domains is not None and (spec.index != 1 or spec.ring.noise):", OFF,
        _attack("domains", "row_11_losses_of_domains_are_asked_for_in_the_first_exact_sum_only"),
    ),
    Deletion(
        "S2", "offered domains only", P + "secagg/roster.py",
        "if list(join.domains) != sorted(set(join.domains)) or not set(join.domains) <= offered:", OFF,
        _attack("domains", "row_11_a_domain_that_was_not_offered_is_turned_away"),
    ),
    Deletion(
        "C20", "the mark of a domain", P + "secagg/own_words.py", "or report.domains", "or False",
        _attack("domains", "row_11_a_device_that_feeds_a_domain_notes_the_adapter_first"),
    ),
)  # fmt: skip
