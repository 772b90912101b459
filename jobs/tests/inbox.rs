//! The receiving half of the inbox, in process: every test runs on a fresh `SQLite` file and on a fresh
//! `PostgreSQL` database.
//!
//! `PostgreSQL` is found by `TEST_DATABASE_URL`; where it is absent its tests say so and pass, or fail if
//! `ZHILIAN_REQUIRE_BACKENDS` is `1`.

#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

#[path = "inbox/support.rs"]
mod support;

#[path = "inbox/away.rs"]
mod away;
#[path = "inbox/commits.rs"]
mod commits;
#[path = "inbox/quarantine.rs"]
mod quarantine;
#[path = "inbox/reverify.rs"]
mod reverify;
#[path = "inbox/verdicts.rs"]
mod verdicts;

/// Runs each function of each suite on both databases.
macro_rules! on_both {
    ($($suite:ident { $($test:ident),+ $(,)? })+) => {$(
        mod $suite {
            mod sqlite {
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $test() {
                        crate::$suite::$test(crate::support::Bench::sqlite().await).await;
                    }
                )+
            }

            mod postgres {
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $test() {
                        let Some(bench) = crate::support::Bench::postgres().await else { return };
                        crate::$suite::$test(bench).await;
                    }
                )+
            }
        }
    )+};
}

mod on_both {
    on_both! {
        verdicts {
            a_signed_event_is_a_pending_row_before_it_is_answered,
            an_event_that_comes_again_is_answered_like_the_first,
            events_that_differ_in_their_type_alone_are_two,
            a_changed_byte_is_refused_and_kept,
            paths_that_lead_nowhere_are_told_apart,
            a_handshake_leaves_no_row,
            a_signed_body_that_cannot_be_read_is_kept_aside,
            a_waived_system_takes_what_comes,
            a_vendor_that_signs_nothing_fills_the_quarantine_only,
            secrets_in_the_request_are_kept_sealed,
            a_secret_counts_or_not_at_once_in_every_process,
            an_overlap_that_is_over_counts_no_more_though_it_is_cached,
            a_deleted_system_is_unknown_at_once,
        }
        commits {
            what_arrives_during_a_commit_shares_the_next,
            an_event_that_the_database_refuses_fails_alone,
            a_full_queue_takes_no_more_rows,
            a_full_queue_takes_no_more_bytes,
            a_commit_that_takes_too_long_is_never_called_accepted,
            a_duplicate_storm_over_two_processes_is_one_row_each,
            after_the_stop_what_waits_is_kept_and_nothing_new_is_taken,
            commits_ring_and_quarantine_does_not,
        }
        quarantine {
            a_strangers_copy_does_not_stand_in_the_way,
            a_flood_of_unsigned_events_costs_genuine_ones_nothing,
            an_address_has_an_allowance_of_its_own,
            what_exceeds_the_quota_is_not_kept,
            the_quota_of_bytes_and_that_of_all_systems_hold_too,
            addresses_that_guess_are_stopped_and_known_systems_are_not,
            a_flood_does_not_turn_away_what_a_new_secret_signed,
        }
        reverify {
            a_mended_secret_brings_events_out_of_quarantine,
            an_event_that_came_again_properly_is_a_duplicate,
            the_replay_window_is_measured_from_the_receipt,
            a_release_needs_no_signature,
            what_leaves_the_quarantine_makes_room_at_once,
            each_step_is_written_down_with_who_asked,
            a_system_that_is_changed_meanwhile_is_judged_by_what_it_is_now,
            a_step_that_is_the_victim_of_a_deadlock_is_repeated,
            an_address_that_was_told_wrong_is_mended_like_a_secret,
        }
    }
}
