"""The attacks on canary losses, of row 11 of the table."""

from typing import Final

CANARY_ATTACKS: Final = (
    "row_11_whole_classes_give_their_means_beside_an_exact_sum",
    "row_11_one_class_of_all_survivors_is_whole_too",
    "row_11_a_class_of_too_few_sends_no_loss_at_all",
    "row_11_a_dropout_takes_its_whole_class_out_of_sight",
    "row_11_a_server_that_leaves_a_device_out_reads_neither_it_nor_the_rest",
    "row_11_pads_that_do_not_cancel_spoil_the_figure_and_not_the_round",
    "row_11_who_cannot_keep_to_the_floor_declares_no_class",
    "row_11_one_adapter_gets_one_loss_of_a_device",
    "row_11_a_class_that_was_not_offered_is_turned_away",
    "row_11_a_roster_with_a_class_that_was_not_offered_is_refused_by_everybody",
    "row_11_losses_are_asked_for_in_the_first_exact_sum_only",
    "row_11_two_devices_of_a_class_differ_in_masked_bytes_only",
    "row_11_what_left_is_on_disk_before_it_leaves",
)
