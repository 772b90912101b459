//! The applying half of the inbox, in process: every test runs on a fresh `SQLite` file and on a fresh
//! `PostgreSQL` database. Time stands still unless a test moves it; nothing sleeps.
//!
//! `PostgreSQL` is found by `TEST_DATABASE_URL`, Redis by `TEST_REDIS_URL`; where one is absent its tests say
//! so and pass, or fail if `ZHILIAN_REQUIRE_BACKENDS` is `1`.

#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

#[path = "vendors/server.rs"]
#[expect(dead_code, reason = "shared with the tests of vendor calls, which provoke more")]
mod server;

#[path = "apply/support.rs"]
mod support;

#[path = "apply/failing.rs"]
mod failing;
#[path = "apply/hostile.rs"]
mod hostile;
#[path = "apply/logs.rs"]
mod logs;
#[path = "apply/replays.rs"]
mod replays;
#[path = "apply/rings.rs"]
mod rings;
#[path = "apply/thin.rs"]
mod thin;
#[path = "apply/versions.rs"]
mod versions;

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
        versions {
            the_newest_version_wins_whatever_the_order,
            a_record_twice_in_one_batch_is_written_once_in_its_newest_version,
            a_patch_that_comes_before_its_record_waits_for_it,
            a_patch_in_the_batch_of_its_record_is_applied_after_it,
            a_deletion_outlives_a_poll_of_an_older_version,
            an_erased_record_stays_erased,
            a_patch_without_a_time_beats_a_vendor_whose_clock_is_ahead,
            a_patch_whose_record_never_comes_is_dead_at_last,
            a_forced_replay_overwrites_what_is_newer,
            systems_do_not_mix_in_a_batch,
        }
        failing {
            an_event_that_cannot_be_mapped_fails_alone_and_is_dead_at_last,
            a_record_that_the_database_refuses_fails_its_event_alone,
            the_bad_records_of_an_array_are_kept_and_the_others_stored,
            an_event_that_kills_its_worker_dies_alone,
            a_worker_that_lost_its_claim_writes_nothing,
            events_of_a_deleted_system_are_dead,
            events_of_a_paused_system_wait_until_it_is_resumed,
            a_manifest_that_is_mended_in_time_loses_nothing,
            a_stopping_process_claims_nothing,
        }
        hostile {
            a_hostile_event_costs_itself,
            hostile_records_cost_themselves,
        }
        logs {
            what_a_minute_did_is_one_row_with_its_counts,
            events_that_mean_nothing_are_applied_and_say_so,
            live_clients_hear_of_a_minute_once,
            a_dead_event_is_counted_and_its_reason_shown,
            a_record_bears_the_log_of_its_own_event,
            a_minute_log_is_never_claimed,
        }
        thin {
            the_record_of_a_thin_event_is_fetched,
            a_vendor_that_is_down_is_asked_again_later,
            a_vendor_that_refuses_the_credentials_puts_the_system_in_error,
            a_vendor_that_is_down_for_hours_costs_no_event,
            a_vendor_that_stays_away_ends_the_event_at_last,
            a_record_that_the_vendor_does_not_know_is_asked_for_again_and_in_the_end_not,
            an_answer_without_the_record_is_waited_for,
            a_vendor_that_is_away_is_asked_a_few_times_for_a_whole_batch,
            an_event_asks_for_a_pull_and_several_share_it,
            what_is_announced_too_late_for_a_pull_has_it_run_once_more,
            what_waits_for_a_budget_spends_nothing_however_old_it_is,
            a_spent_budget_gives_the_attempt_back,
        }
        replays {
            a_dead_event_is_woken_by_a_replay,
            a_replay_by_filter_goes_in_bites_and_says_how_far,
            a_replay_takes_no_event_that_came_after_it,
            a_replay_leaves_the_quarantine_alone,
            a_second_replay_of_the_same_events_joins_and_another_is_a_conflict,
            old_events_are_purged,
            a_table_that_cannot_be_tidied_keeps_nothing_in_the_others,
        }
        rings {
            a_full_batch_calls_a_colleague,
            the_scheduler_rings_for_what_is_due_and_not_twice,
            a_backlog_shared_by_many_workers_is_applied_once,
            an_interrupted_process_frees_its_events_at_its_start,
        }
    }
}
