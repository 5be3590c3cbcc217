"""The attacks on the losses of domains, of row 11 of the table."""

from typing import Final

DOMAIN_ATTACKS: Final = (
    "row_11_whole_domains_give_their_means_and_rows",
    "row_11_a_domain_of_too_few_sends_nothing",
    "row_11_a_dropout_takes_its_domains_out_of_sight",
    "row_11_who_cannot_keep_to_the_floor_declares_no_domain",
    "row_11_a_domain_that_was_not_offered_is_turned_away",
    "row_11_losses_of_domains_are_asked_for_in_the_first_exact_sum_only",
    "row_11_a_device_that_feeds_a_domain_notes_the_adapter_first",
    "row_11_the_pads_over_a_domain_belong_to_this_sum_and_this_pair",
)
