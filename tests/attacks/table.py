"""The failure and attack table of the protocol: each row, the checks that answer it, and the tests that prove it.

The rows are those of the design's table of failures and attacks; the checks are those of SPEC, section 8. A test is
named `file::function` below tests/; one function may stand for several parameters.
"""

from typing import Final

from .row import Row
from .row import here as _here
from .table_canary import CANARY_ATTACKS
from .table_domains import DOMAIN_ATTACKS

ROWS: Final[dict[int, Row]] = {
    1: Row(
        "the server swaps keys",
        ("C5",),
        (
            *_here("identities", "row_01_a_server_that_swaps_keys_is_refused_by_everybody_and_gets_nothing"),
            "protocol/test_participant_roster.py::test_a_roster_is_refused_and_nothing_is_dealt",
        ),
    ),
    2: Row(
        "invented devices",
        ("C5", "S2"),
        (
            *_here("identities", "row_02_an_invented_or_repeated_device_in_the_roster_is_refused"),
            "server/test_key_log.py::test_row_2_an_excluded_device_is_refused_everywhere_and_cannot_return",
            "server/test_key_log.py::test_row_2_who_returns_after_leaving_counts_once",
            "server/test_key_log.py::test_row_2_a_device_that_is_too_new_waits_until_it_is_old_enough",
        ),
    ),
    3: Row(
        "both secrets of one device asked for",
        ("C3", "C13", "C16"),
        _here(
            "views",
            "row_03_a_second_set_of_survivors_is_refused_after_the_first_was_answered",
            "row_03_an_offer_with_a_threshold_that_splits_is_refused_at_the_roster",
            "row_03_no_choice_of_views_collects_t_shares_of_both_secrets",
        ),
    ),
    4: Row(
        "two views of U2",
        ("C9", "S5"),
        _here(
            "views",
            "row_04_two_views_of_the_sharers_leave_a_sum_that_is_uniform",
            "row_04_a_sharer_set_without_this_device_or_too_small_is_refused",
            "row_04_headers_under_another_view_are_turned_away_by_an_honest_server",
        ),
    ),
    5: Row(
        "two views of U3",
        ("C3", "C17"),
        _here(
            "views",
            "row_05_an_exhaustive_search_over_views_reaches_the_bound_and_never_goes_below_it",
            "row_05_strict_two_confirmed_sets_need_more_than_c_double_signers",
            "row_05_strict_a_split_cohort_gives_no_share",
        ),
    ),
    6: Row(
        "replay across rounds",
        ("C2",),
        _here(
            "other_rounds",
            "row_06_no_document_of_an_old_round_moves_a_device",
            "row_06_no_message_of_an_old_round_moves_the_server",
            "row_06_a_round_that_is_not_newer_and_an_expired_offer_are_refused",
        ),
    ),
    7: Row(
        "another model for one device",
        ("C2", "C5", "C8"),
        _here(
            "other_rounds",
            "row_07_a_device_with_another_model_is_turned_away_before_any_upload",
            "row_07_a_server_that_mixes_models_is_refused_by_the_others",
            "row_07_even_with_joins_unchecked_no_share_opens_and_the_victim_stops",
        ),
    ),
    8: Row(
        "the same malicious model or plan for everybody",
        ("C2", "C3"),
        (
            *_here(
                "other_rounds",
                "row_08_an_unknown_base_is_refused",
                "row_08_a_tensor_that_reveals_words_is_refused",
                "row_08_an_offer_that_is_not_of_the_agreed_task_is_refused",
                "row_08_an_adapter_that_does_not_follow_from_the_last_one_is_refused",
            ),
            "client/test_base_check.py::test_row_08_a_base_that_asks_for_code_is_refused",
            "client/test_base_check.py::test_row_08_pickled_weights_are_refused_unopened",
            "client/test_base_check.py::test_row_08_an_adapter_of_any_other_form_is_refused",
            "protocol/test_limits.py::test_row_08_only_allowed_modules_are_adapted_whatever_the_task_calls_them",
            "training/test_base_view.py::test_row_08_what_lies_beside_the_pinned_files_changes_nothing",
            "training/test_chat_template.py::test_row_08_a_template_reaches_nothing_but_its_inputs",
        ),
    ),
    9: Row(
        "the difference of two rounds",
        ("C4",),
        _here(
            "other_rounds",
            "row_09_a_roster_that_differs_by_one_device_is_refused_by_an_open_policy",
            "row_09_a_third_answer_on_one_adapter_is_refused",
            "row_09_the_vector_of_an_answered_round_is_never_masked_again",
        ),
    ),
    10: Row(
        "a tiny cohort",
        ("C0", "C3"),
        _here("second_sum", "row_10_two_sums_over_fewer_than_eight_survivors_are_refused_by_everybody")
        + _here(
            "other_rounds",
            "row_10_a_cohort_one_below_the_owners_floor_is_refused",
            "row_10_a_crowd_one_below_the_owners_floor_is_refused",
            "row_10_thresholds_that_would_leave_too_few_survivors_are_refused",
            "row_10_one_device_alone_is_never_a_cohort",
        ),
    ),
    11: Row(
        "figures about one device",
        ("C20",),
        (
            *_here("canary", *CANARY_ATTACKS),
            *_here("domains", *DOMAIN_ATTACKS),
            *_here("values", "row_11_two_lives_differ_in_masked_bytes_and_hashes_only"),
            "integration/test_privacy.py::test_no_figure_of_one_device_reaches_the_server",
        ),
    ),
    12: Row(
        "modular overflow",
        ("C3", "C10"),
        _here(
            "values",
            "row_12_a_whole_cohort_of_extremes_sums_exactly",
            "row_12_a_ring_one_bit_too_narrow_is_refused_by_the_device",
            "row_12_a_weight_out_of_range_is_an_error_and_no_warning",
        ),
    ),
    13: Row(
        "clip and rounding as attack or loss",
        ("C3",),
        (
            *_here(
                "values",
                "row_13_two_clips_in_one_cohort_never_meet",
                "row_13_a_clip_outside_the_owners_bounds_is_refused",
            ),
            "protocol/test_quantize.py::test_rounding_is_unbiased",
            "protocol/test_quantize.py::test_no_integer_exceeds_the_range_at_its_very_edge",
        ),
    ),
    14: Row(
        "a garbage upload",
        ("S8",),
        (
            *_here("liars", "row_14_a_garbage_upload_never_becomes_a_result"),
            "integration/test_garbage_cohort.py::test_row_14_a_trimmed_mean_stays_in_the_honest_range",
            "integration/test_garbage_cohort.py::test_row_14_a_gate_rejects_what_a_weighted_mean_lets_through",
            "server/test_suspects.py::test_row_14_a_persistent_offender_is_named_and_stays_until_the_operator_acts",
            "simulation/test_suspicion.py::test_row_14_one_of_64_is_named_within_six_rounds_and_nobody_else",
        ),
    ),
    15: Row(
        "shares that lie",
        ("S6", "S7"),
        _here(
            "liars",
            "row_15_a_lying_holder_is_dropped_and_blamed_and_the_sum_is_exact",
            "row_15_a_lying_holder_among_the_last_t_makes_the_round_fail_and_not_the_sum_wrong",
            "row_15_a_dealer_of_inconsistent_shares_is_named_and_the_rerun_without_it_succeeds",
            "row_15_one_share_of_a_dealer_that_is_off_is_repaired_by_the_others",
        ),
    ),
    16: Row(
        "shares altered on the way, false complaints",
        ("C8", "S3"),
        _here(
            "liars",
            "row_16_an_altered_share_is_a_complaint_about_one_dealer_and_no_reason_to_stop",
            "row_16_a_device_whose_every_share_was_altered_stops_with_an_alarm",
            "row_16_false_complaints_evict_nobody_until_there_are_more_than_c",
        ),
    ),
    17: Row(
        "one mask over two updates",
        ("C11",),
        (
            *_here(
                "liars",
                "row_17_masks_cover_one_update_and_never_a_second",
                "row_17_what_may_leave_is_on_disk_with_its_header_before_it_leaves",
                "row_17_a_device_that_starts_again_cannot_join_the_round_again",
            ),
            "client/test_session.py::test_a_frozen_upload_is_finished_after_a_crash_with_the_same_bytes",
            "integration/test_cut_lines.py::test_an_upload_that_is_cut_fifty_times_is_one_upload",
        ),
    ),
    18: Row(
        "cut, doubled or swapped parts",
        ("S1", "S5"),
        (
            *_here(
                "liars",
                "row_18_messages_cut_short_are_refused_and_doubled_ones_count_once",
                "row_18_a_payload_of_another_length_is_refused_by_its_header",
                "row_18_garbage_at_any_door_is_refused_and_changes_nothing",
            ),
            "server/test_uploads.py::test_an_upload_resumes_where_the_line_was_cut",
            "integration/test_cut_lines.py::test_an_upload_goes_on_where_its_line_was_cut",
            "server/test_uploads.py::test_a_wrong_upload_is_refused_and_the_right_one_still_counts",
        ),
    ),
    19: Row(
        "an upload after the freeze",
        ("S4",),
        _here(
            "liars",
            "row_19_an_upload_is_counted_before_the_freeze_or_never",
            "row_19_a_thousand_orders",
            "row_19_an_upload_after_the_freeze_stays_out_even_if_it_is_the_honest_one",
        ),
    ),
    20: Row(
        "a server that crashes",
        ("S4",),
        (
            "protocol/test_round_crashes.py::test_the_same_round_goes_on_after_a_crash_at_every_record",
            "integration/test_server_crash.py::test_a_killed_server_goes_on_with_the_same_round",
        ),
    ),
    21: Row(
        "a starved event loop",
        (),
        ("server/test_event_loop.py::test_row_21_nothing_of_a_vectors_or_a_cohorts_size_runs_on_the_event_loop",),
    ),
    22: Row(
        "weak keys, zero secrets",
        ("C6", "S2"),
        _here(
            "identities",
            "row_22_a_weak_round_key_in_the_roster_is_refused_by_everybody",
            "row_22_a_device_cannot_stop_the_round_with_a_weak_or_copied_key",
        ),
    ),
    23: Row(
        "masks that are not uniform",
        (),
        (
            *_here(
                "values",
                "row_23_a_single_upload_is_uniform_in_every_bit",
                "row_23_the_test_of_uniformity_fails_for_what_is_not_masked",
            ),
            "protocol/test_prg.py::test_the_stream_is_nists_aes_256_in_counter_mode",
        ),
    ),
    24: Row(
        "sparse updates",
        ("C2",),
        (
            *_here("values", "row_24_whoever_contributed_a_spike_the_server_decodes_the_same"),
            *_here("other_rounds", "row_08_a_tensor_that_reveals_words_is_refused"),
        ),
    ),
    25: Row(
        "keys in logs and journals",
        ("C19",),
        _here(
            "values",
            "row_25_no_secret_is_in_journal_messages_reprs_or_logs",
            "row_25_a_traceback_through_the_machines_shows_no_secret",
            "row_25_a_wiped_device_has_nothing_left",
        ),
    ),
    26: Row(
        "a weaker suite or version",
        ("C1",),
        _here(
            "identities",
            "row_26_another_suite_is_refused_and_every_suite_has_its_own_contexts",
            "row_26_another_protocol_is_refused",
        ),
    ),
    27: Row(
        "two views of U2 that shrink the sum",
        ("C15",),
        _here(
            "split_sharers",
            "row_27_two_views_of_the_sharers_are_refused_for_want_of_evidence",
            "row_27_the_same_attack_succeeds_when_the_evidence_is_not_checked",
        ),
    ),
    28: Row(
        "keys of one sum in another",
        ("S2",),
        _here(
            "second_sum",
            "row_28_a_device_lost_in_the_second_sum_keeps_its_first_vector",
            "row_28_with_one_mask_key_for_both_sums_the_same_attack_reads_the_vector",
            "row_28_one_mask_key_for_both_sums_is_refused_at_the_door",
        ),
    ),
    29: Row(
        "a malicious or differing input of the second sum",
        ("C18",),
        _here(
            "second_sum",
            "row_29_two_inputs_in_one_cohort_open_nothing_and_cost_only_the_second_sum",
            "row_29_an_input_that_no_honest_server_derives_is_refused_by_everybody",
            "row_29_blobs_other_than_those_that_were_signed_are_refused",
        ),
    ),
    30: Row(
        "a second sum that fails",
        ("C18",),
        _here(
            "second_sum",
            "row_30_a_second_sum_that_fails_leaves_the_first_byte_for_byte",
            "row_30_a_server_that_crashes_in_the_second_sum_ends_with_the_first",
            "row_30_a_second_sum_over_fewer_than_three_quarters_of_the_first_is_refused",
        ),
    ),
    31: Row(
        "down to trusted mode",
        ("C1", "C2", "C3"),
        (
            *_here(
                "identities",
                "row_31_an_offer_without_masks_is_refused_by_an_owner_who_agreed_to_masks",
                "row_31_a_mode_changed_on_the_way_breaks_the_signature_and_signed_anew_is_another_round",
            ),
            *_here(
                "downgrade",
                "row_31_an_owner_who_allows_masks_only_refuses_every_trusted_offer",
                "row_31_a_device_in_a_masked_task_refuses_a_trusted_offer_although_its_owner_allows_both",
                "row_31_a_federation_that_was_pinned_for_masks_has_no_trusted_rounds_whatever_its_server_signs",
                "row_31_a_descriptor_with_another_mode_is_another_federation_and_no_successor",
                "row_31_an_offer_that_is_neither_wholly_masked_nor_wholly_trusted_is_refused",
                "row_31_a_task_that_turns_trusted_is_another_task_and_outside_the_limits",
                "row_31_what_is_sealed_and_to_whom_is_under_the_servers_signature",
                "row_31_a_signed_offer_seals_what_the_task_says",
                "row_31_a_round_key_of_low_order_is_refused",
            ),
        ),
    ),
    32: Row(
        "a stolen invite, a server in the middle at enrolment",
        ("S1",),
        (
            "client/test_enrollment.py::test_row_32_with_a_wrong_pin_nothing_but_the_descriptor_is_asked_for",
            "client/test_succession.py::test_row_32_an_invite_leads_to_a_new_key_only_where_the_old_one_vouches",
            "protocol/test_enrollment.py::test_row_32_a_relay_reads_nothing_of_a_request",
            "protocol/test_succession.py::test_row_32_a_tls_authority_is_followed_only_where_the_one_before_vouches",
            "protocol/test_succession.py::test_row_32_who_was_not_appointed_by_the_pinned_key_is_not_followed",
            "server/test_authority_apart.py::test_row_32_the_server_relays_a_code_and_never_reads_it",
            "server/test_enrollment.py::test_row_32_who_may_not_join",
            "server/test_enrollment.py::test_row_32_guessing_codes_locks_the_address_for_a_minute",
        ),
    ),
    33: Row(
        "a forked key log",
        ("C7",),
        (
            "client/test_key_log.py::test_row_33_a_log_that_does_not_continue_is_an_alarm_also_after_a_restart",
            "client/test_key_log.py::test_row_33_a_fork_that_grows_on_is_an_alarm",
        ),
    ),
    34: Row(
        "survivors that never uploaded",
        ("C14", "C15"),
        _here("views", "row_34_a_survivor_that_never_uploaded_is_refused"),
    ),
    35: Row(
        "figures beyond their range",
        ("C10", "S8"),
        _here(
            "values",
            "row_35_the_largest_figures_of_every_device_decode_exactly",
            "row_35_one_more_than_the_declared_range_is_refused",
        ),
    ),
    36: Row(
        "noise diluted by drop-outs or split views",
        (),
        (
            "protocol/test_noisy_round.py::test_row_36_the_smallest_honest_sum_has_the_noise_that_was_promised",
            "protocol/test_noisy_round.py::test_row_36_every_roster_that_the_rules_allow_keeps_the_target",
        ),
    ),
}
