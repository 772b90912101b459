//! One suite, both databases: every test here is a function of a store, and runs on a fresh `SQLite` file
//! and on a fresh `PostgreSQL` database. Where the two differ, the test says so with a match.

#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

/// The suites: one file per table.
mod conformance {
    pub(crate) mod support;

    pub(crate) mod api_tokens;
    pub(crate) mod audit_logs;
    pub(crate) mod events;
    pub(crate) mod external_records;
    pub(crate) mod external_systems;
    pub(crate) mod idempotency_keys;
    pub(crate) mod installation;
    pub(crate) mod member_rules;
    pub(crate) mod member_syncs;
    pub(crate) mod pos_transactions;
    pub(crate) mod rate_budgets;
    pub(crate) mod record_patches;
    pub(crate) mod records_handed_in;
    pub(crate) mod run_notes;
    pub(crate) mod schema;
    pub(crate) mod sessions;
    pub(crate) mod supplier_orders;
    pub(crate) mod sync_cursors;
    pub(crate) mod sync_failures;
    pub(crate) mod sync_logs;
    pub(crate) mod users;
    pub(crate) mod vendor_tokens;
    pub(crate) mod webhook_claims;
    pub(crate) mod webhook_events;
}

/// Runs each function of each suite on both databases.
macro_rules! on_both {
    ($($suite:ident { $($test:ident),+ $(,)? })+) => {$(
        mod $suite {
            use zhilian_sync_store::{Clock, testing};

            mod sqlite {
                use super::{Clock, testing};
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $test() {
                        let db = testing::sqlite(Clock::fake(testing::noon())).await;
                        crate::conformance::$suite::$test(db.store.clone()).await;
                    }
                )+
            }

            mod postgres {
                use super::{Clock, testing};
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $test() {
                        let Some(db) = testing::postgres(Clock::fake(testing::noon())).await else { return };
                        crate::conformance::$suite::$test(db.store.clone()).await;
                    }
                )+
            }
        }
    )+};
}

on_both! {
    schema {
        both_databases_have_the_same_schema,
        migrating_again_changes_nothing,
    }
    installation {
        a_wrong_master_key_is_told_before_anything_is_sealed,
        one_process_of_many_makes_the_first_admin,
    }
    external_systems {
        a_system_is_read_back_as_it_was_written,
        a_change_on_an_old_reading_is_a_conflict,
        a_slot_is_taken_once,
        failures_lead_to_error_and_a_success_leads_back,
        a_deleted_system_keeps_nothing_secret,
        a_webhook_secret_ends_when_it_was_told_to,
        a_version_is_held_until_it_changes,
        systems_are_listed_within_the_callers_scope,
        systems_are_listed_newest_first_page_by_page,
    }
    sync_logs {
        a_second_active_run_is_refused,
        a_run_that_webhooks_asked_for_later_is_not_done_when_it_is_hurried,
        a_pending_run_says_whether_it_is_in_the_middle_of_something,
        a_slot_fires_once,
        a_run_is_claimed_once_and_only_when_due,
        an_expired_lease_is_taken_over_and_the_old_worker_is_fenced_off,
        an_attempt_given_back_is_not_spent_and_the_fence_still_moves,
        a_run_out_of_attempts_is_failed_by_the_scheduler,
        a_cancelled_run_stops_its_worker,
        progress_is_kept_with_the_claim,
        of_many_schedulers_one_rings,
        runs_are_listed_within_the_callers_scope,
        runs_are_listed_newest_first_page_by_page,
        old_runs_are_purged_once_they_ended,
    }
    run_notes {
        notes_are_kept_with_the_claim,
        what_is_usual_is_the_same_hour_of_the_same_weekday,
        only_runs_of_the_same_kind_that_ended_well_are_usual,
    }
    webhook_events {
        an_event_is_kept_as_it_was_received,
        a_second_delivery_is_counted_on_the_first,
        a_batch_may_hold_an_event_twice,
        what_was_verified_with_an_older_version_is_stale,
        another_delivery_wakes_a_dead_event,
        nobody_waits_for_whoever_works_on_a_repeated_event,
        overlapping_batches_at_once_make_one_row_each,
        a_refused_event_fails_its_batch_and_only_that,
        nul_characters_do_not_lose_an_event,
        a_quarantined_copy_does_not_stand_in_the_way,
        the_quarantine_is_measured_and_paged,
        an_accepted_event_is_pending_or_a_duplicate,
        accepting_and_receiving_at_once_makes_one_event,
        events_are_filtered_and_scoped,
        events_are_listed_newest_first_page_by_page,
    }
    webhook_claims {
        what_is_due_longest_is_claimed_first,
        a_claim_is_bounded_in_bytes_too,
        of_many_workers_none_claims_what_another_has,
        what_somebody_holds_is_skipped,
        an_event_whose_worker_fell_silent_comes_alone,
        every_outcome_leaves_its_mark,
        an_outcome_is_amended_only_by_its_claim,
        a_process_that_is_alone_ends_every_lease,
        events_of_a_paused_system_wait_and_are_in_nobodys_way,
        what_was_put_off_comes_by_itself_or_when_its_system_changes,
        events_of_a_deleted_system_die,
        an_event_is_replayed_unless_somebody_works_on_it,
        events_are_replayed_by_filter_in_bites,
        old_events_are_purged_once_they_ended,
        a_minutes_log_adds_up,
        many_workers_fill_one_minute,
    }
    rate_budgets {
        a_budget_grants_its_burst_and_then_makes_wait,
        many_workers_together_never_exceed_a_budget,
        a_blocked_budget_makes_everybody_wait,
        several_budgets_are_spent_together_or_not_at_all,
        a_budget_that_is_whole_again_leaves_no_row,
    }
    vendor_tokens {
        a_token_is_read_back_and_is_nowhere_in_clear,
        one_of_many_has_the_turn,
        a_turn_ends_with_the_token_or_without_it,
        a_lease_that_ran_out_is_taken_over_and_its_holder_writes_nothing,
        tokens_that_ended_long_ago_are_purged,
    }
    events {
        events_are_heard_in_order_after_a_position,
        an_event_that_commits_late_is_not_skipped,
        many_who_place_at_once_leave_no_gap,
    }
    pos_transactions {
        a_record_is_stored_with_all_its_fields,
        the_newer_version_wins,
        equal_content_changes_nothing,
        a_newer_version_of_equal_content_keeps_older_ones_out,
        a_tombstone_is_raised_by_a_newer_version_only,
        a_replay_may_force_an_older_version,
        a_page_may_hold_a_record_twice,
        a_batch_may_hold_what_was_observed_at_different_times,
        a_batch_may_be_larger_than_a_statement,
        a_record_that_the_database_refuses_stands_alone,
        records_that_cannot_be_keys_are_named,
        nul_characters_do_not_lose_a_record,
        the_same_id_of_two_systems_is_two_records,
        a_shop_is_mapped_to_its_store,
        batches_in_opposite_order_do_not_deadlock,
        lists_are_newest_first_and_complete,
        lists_are_filtered_and_scoped,
        no_list_is_longer_than_a_page,
        a_tally_counts_what_is_not_gone,
        the_numbers_of_whoever_paid_are_told_once,
    }
    external_records {
        a_record_is_stored_with_all_its_fields,
        the_newer_version_wins,
        equal_content_changes_nothing,
        a_newer_version_of_equal_content_keeps_older_ones_out,
        a_tombstone_is_raised_by_a_newer_version_only,
        a_replay_may_force_an_older_version,
        a_batch_may_hold_what_was_observed_at_different_times,
        the_same_id_in_two_streams_is_two_records,
        a_record_that_the_database_refuses_stands_alone,
        records_that_cannot_be_keys_are_named,
        batches_in_opposite_order_do_not_deadlock,
        lists_are_newest_first_and_complete,
        a_tally_counts_what_is_not_gone,
    }
    supplier_orders {
        an_order_is_stored_with_all_its_fields,
        the_newer_version_wins,
        equal_content_changes_nothing,
        a_newer_version_of_equal_content_keeps_older_ones_out,
        a_tombstone_is_raised_by_a_newer_version_only,
        a_replay_may_force_an_older_version,
        an_order_that_cannot_be_stored_stands_alone,
        batches_in_opposite_order_do_not_deadlock,
        lists_are_newest_first_and_complete,
        lists_are_filtered_and_scoped,
        a_tally_counts_what_is_not_gone,
        a_patch_finds_its_order_by_number_or_by_id,
        a_patch_tells_the_delivery_and_the_tracking_number,
        a_tracking_number_alone_does_not_keep_out_an_older_state,
    }
    member_rules {
        what_waits_is_not_replaced_by_a_word_without_a_version,
        the_newer_version_wins,
        the_rule_says_who_overwrites_whom,
        a_row_of_ours_learns_the_vendors_id,
        what_a_record_does_not_tell_makes_nothing_new_of_equal_content,
        what_was_pushed_comes_back_as_nothing_new,
        members_of_several_runs_stand_beside_their_own,
        batches_in_opposite_order_do_not_deadlock,
        a_systems_rule_is_kept,
    }
    member_syncs {
        a_member_is_stored_with_all_its_fields,
        by_default_the_newer_word_counts,
        the_vendors_word_may_count_whatever_the_versions,
        our_word_may_count_and_the_vendor_only_names_it,
        equal_content_changes_nothing,
        what_the_api_does_not_tell_stays,
        a_tombstone_is_raised_by_a_newer_version_only,
        a_replay_passes_over_versions_and_not_over_the_rule,
        a_member_that_cannot_be_stored_stands_alone,
        a_batch_of_a_client_is_answered_one_by_one,
        a_member_that_the_database_refuses_fails_alone,
        clients_batches_and_pulls_in_opposite_order_do_not_deadlock,
        all_that_waits_of_a_system_fails_together,
        a_push_ends_only_what_it_sent,
        a_failed_push_is_told_and_asked_for_again,
        lists_are_newest_first_and_complete,
        lists_are_filtered_and_scoped,
    }
    records_handed_in {
        each_record_is_told_what_became_of_it,
        of_one_id_twice_in_a_batch_the_last_is_written,
        what_cannot_be_stored_stands_alone,
        an_undated_record_keeps_its_time,
        of_two_at_once_one_is_new,
        every_table_tells,
        lists_are_filtered,
    }
    record_patches {
        a_patch_before_its_record_is_missing,
        a_patch_changes_the_state_and_nothing_else,
        the_same_patch_again_changes_nothing,
        an_older_record_after_a_patch_overwrites_all_but_the_state,
        the_same_record_polled_again_does_not_undo_a_patch,
        a_newer_record_after_a_patch_overwrites_the_state_too,
        a_newer_version_of_equal_content_puts_its_state_back,
        news_without_a_time_is_newer_than_what_was_observed_before_it,
        on_a_tie_of_versions_the_later_observation_wins,
        a_stale_poll_does_not_bring_back_what_was_deleted,
        a_newer_poll_brings_back_what_was_deleted,
        a_forced_replay_overwrites_what_is_newer,
        in_whatever_order_news_comes_the_newest_wins,
        a_patch_waits_for_the_record_that_is_being_written,
        an_impossible_patch_is_refused_with_its_reason,
    }
    sync_failures {
        a_record_that_fails_again_is_the_same_failure,
        a_resolved_failure_may_open_anew,
        failures_are_kept_whatever_the_record,
        only_named_records_of_the_stream_are_resolved,
        failures_are_listed_page_by_page,
        only_resolved_failures_are_purged,
        failures_to_try_again_are_open_and_were_there,
        what_was_told_anew_is_not_mended_by_an_older_reading,
        large_records_are_tried_again_one_by_one,
    }
    sync_cursors {
        a_cursor_never_moves_backwards_unless_forced,
        a_vendors_own_mark_is_kept,
        everything_can_be_read_anew,
    }
    users {
        a_name_is_one_person_in_any_case,
        a_taken_name_is_a_conflict_and_the_transaction_lives_on,
        a_new_password_ends_every_session,
        an_own_new_password_keeps_the_present_session_only,
        somebody_kept_out_has_no_session,
        a_user_is_changed_from_what_was_read,
        the_last_admin_of_the_chain_stays,
        of_many_admins_who_remove_each_other_at_once_one_stays,
        users_are_listed_newest_first_within_the_callers_scope,
        users_are_listed_by_name,
    }
    sessions {
        a_session_lives_until_it_ends_or_expires,
        being_seen_is_noted_once_a_minute,
        ending_one_session_leaves_the_others,
        open_sessions_are_listed_newest_first,
        an_address_is_known_to_who_signed_in_from_it,
        old_sessions_are_purged,
    }
    api_tokens {
        a_token_lives_until_it_is_revoked_or_over,
        being_used_is_noted_once_a_minute,
        tokens_are_listed_newest_first_within_the_callers_scope,
    }
    audit_logs {
        an_entry_is_written_with_its_change_or_not_at_all,
        entries_are_listed_newest_first,
        entries_are_found_by_every_filter_and_within_the_scope,
    }
    idempotency_keys {
        a_repeated_request_gets_the_first_answer,
        a_failed_request_leaves_no_key,
        of_two_at_once_one_does_the_work,
        a_key_of_one_who_died_is_soon_another_ones,
        an_expired_key_may_be_used_anew,
    }
}
