//! The conformance suite: what every broker must pass. A case for every sentence of the contract.
//!
//! A broker's tests implement [`Rig`] and invoke the macros, each once a file. They make one `#[tokio::test]` a case,
//! so the tests' crate needs tokio with `macros` and `rt-multi-thread`.
//!
//! ```ignore
//! async fn rig() -> impl wf_broker::conformance::Rig { ... }
//!
//! wf_broker::conformance_tests!(rig);           // every broker
//! wf_broker::conformance_restart_tests!(rig);   // brokers that keep what they store over a restart
//! wf_broker::conformance_reconnect_tests!(rig); // brokers that are reached over connections
//! ```
//!
//! What a broker cannot show (`memory://` survives no restart) its tests leave out by not asking for it: no case
//! passes without having run.

// This is test support: a case that finds a broker wrong panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod names;
mod patience;
mod rig;
mod taker;

pub mod consume;
pub mod control;
pub mod dead;
pub mod lease;
pub mod outcome_log;
pub mod publish;
pub mod reconnect;
pub mod records;
pub mod schedule;
pub mod settling;
pub mod traces;

use std::time::Duration;

pub use rig::{Fill, Rig};

/// Runs one case on a rig of its own, for two minutes at most.
pub async fn run(rig: impl Rig, case: impl AsyncFnOnce(&dyn Rig)) {
    let done = tokio::time::timeout(Duration::from_secs(120), Box::pin(case(&rig))).await;
    assert!(done.is_ok(), "the case did not end within two minutes");
}

/// One test a case, for every broker: `conformance_tests!(rig)`, where `rig` is the path of an
/// `async fn() -> impl Rig` (or of one that returns a certain rig).
#[macro_export]
macro_rules! conformance_tests {
    ($rig:path) => {
        $crate::__conformance_cases! { $rig;
            publish: [
                a_message_comes_as_it_was_published,
                an_id_stored_before_is_not_stored_again,
                ids_may_be_long_and_odd,
                many_publishes_may_be_under_way,
                of_one_id_at_once_one_is_stored,
                a_message_too_large_is_refused,
                a_full_lane_refuses_until_there_is_room,
                a_full_lane_knows_what_it_has,
                a_full_lane_blocks_no_other,
                together_all_are_stored,
                together_again_is_success,
                together_too_many_are_refused,
                together_none_is_stored_if_one_is_refused,
            ];
            schedule: [
                it_comes_when_due_and_not_before,
                none_comes_early_along_with_another,
                a_time_that_has_passed_means_now,
                many_may_be_due_together,
                another_of_the_same_key_replaces_it,
                a_key_can_be_used_again,
                a_repetition_does_not_fire_again,
                what_was_cancelled_does_not_come,
                what_was_cancelled_can_be_scheduled_again,
                what_is_too_large_is_refused,
                a_full_lane_holds_no_schedule_back,
                a_cron_ticks,
                a_cron_waits_for_its_tick,
                a_cron_that_cannot_be_read_is_refused,
                another_cron_of_the_same_key_replaces_it,
                a_cron_that_was_deleted_fires_no_more,
            ];
            consume: [
                nothing_comes_without_credit,
                no_more_comes_than_was_granted,
                a_delivery_may_overdraw_the_bytes,
                nothing_comes_once_credit_is_withdrawn,
                a_mended_source_goes_on_with_its_credit,
                a_slow_consumer_keeps_what_it_has_and_gets_no_more,
                next_is_cancel_safe,
                next_waits_while_the_lane_is_empty,
                lanes_are_apart,
                sources_share_a_lane,
                a_redelivery_is_the_same_run,
                every_message_is_a_run_of_its_own,
                a_dropped_source_releases_the_untaken,
                a_dropped_source_does_not_sit_on_the_untaken,
            ];
            lease: [
                the_lease_is_the_same_for_every_node,
                a_lease_that_runs_out_is_delivered_again,
                a_renewed_lease_is_kept,
                a_lease_is_kept_no_longer_than_it_is_renewed,
                what_was_acknowledged_is_gone,
                what_was_released_comes_again,
                a_release_with_a_delay_is_not_early,
                a_second_settling_is_ignored,
                a_late_ack_loses_nothing_else,
                a_late_renew_loses_nothing,
                a_late_release_loses_nothing,
            ];
            outcome_log: [
                an_append_elsewhere_is_fenced,
                an_empty_log_stands_at_none,
                of_many_writers_one_wins,
                runs_and_batches_are_independent,
                reading_gives_all_runs_in_order,
                a_log_gives_its_records_and_says_where_it_stands,
                an_outcome_published_again_is_shown_once,
                a_log_stands_whatever_the_outcomes_do,
                a_log_that_has_ended_takes_nothing_more,
                what_has_ended_elsewhere_is_not_ended,
                a_message_is_told_to_be_stored_until_it_is_gone,
                a_record_too_large_is_refused,
                a_watch_tells_of_a_change,
                a_watch_is_of_its_batch,
                a_watch_of_all_tells_of_all,
            ];
            records: [
                a_record_is_changed_where_it_stands,
                a_record_that_is_gone_can_be_created_again,
                what_never_was_cannot_be_changed,
                of_many_writers_one_wins,
                keys_are_apart,
                a_record_is_gone_when_its_time_is_over,
                an_update_starts_the_time_anew,
                a_watch_answers_when_the_record_changes,
                a_watch_answers_at_once_or_when_time_is_over,
            ];
            dead: [
                a_dead_letter_is_kept_as_it_was,
                an_id_buried_before_is_not_kept_twice,
                dead_letters_come_in_pages,
                a_queue_without_dead_letters_has_an_empty_page,
                a_dead_letter_is_removed_once,
                a_dead_letter_too_large_is_refused,
                the_oldest_make_room_when_the_store_is_full,
                a_dead_letter_larger_than_the_store_is_refused,
            ];
            control: [
                stats_tell_how_full_a_lane_is,
                stats_tell_who_waits,
                what_nobody_asks_for_is_told,
                a_queue_that_is_held_delivers_nothing,
                a_pause_holds_lanes_made_later,
                a_pause_leaves_what_was_delivered,
                a_pause_ends_by_itself,
                a_queue_that_is_not_held_can_be_let_go,
                a_ping_is_answered,
                a_closed_broker_answers_nothing_more,
            ];
            settling: [
                a_late_owner_is_fenced_and_nothing_comes_twice,
            ];
            traces: [
                a_message_is_found_from_its_lane_to_its_end,
                a_schedule_is_found_wherever_it_is,
                a_batch_is_found_as_long_as_anything_of_it_is_stored,
                what_was_not_looked_at_is_unknown,
                outcomes_are_kept_from_a_time_on,
            ];
        }
    };
}

/// One test a case, for brokers that keep what they store over a restart; see [`conformance_tests!`]. The cases
/// restart the broker, so each rig needs a store of its own.
#[macro_export]
macro_rules! conformance_restart_tests {
    ($rig:path) => {
        mod restart {
            #[allow(unused_imports, reason = "the rig's path may be absolute")]
            use super::*;

            $crate::__conformance_cases! { $rig;
                publish: [
                    what_was_published_is_there_after_a_restart,
                    what_was_answered_before_a_crash_is_there,
                    an_id_published_again_after_a_restart_is_not_lost,
                ];
                schedule: [
                    a_schedule_comes_after_a_restart,
                    a_cron_fires_once_after_downtime,
                ];
                consume: [
                    a_run_stays_itself_over_a_restart,
                ];
                lease: [
                    closing_keeps_what_is_owned_on_its_lease,
                    what_was_settled_stays_settled_over_a_restart,
                ];
                outcome_log: [
                    the_log_stands_after_a_restart,
                    a_log_stands_whatever_the_outcomes_do_over_a_restart,
                ];
                records: [
                    records_stand_after_a_restart,
                ];
                dead: [
                    dead_letters_stand_after_a_restart,
                    a_full_store_makes_room_after_a_restart,
                ];
                control: [
                    a_pause_stands_after_a_restart,
                ];
                settling: [
                    a_restart_before_the_record,
                    a_restart_after_the_record,
                    a_restart_after_the_retries,
                    a_restart_before_the_ack,
                    a_restart_after_the_ack,
                    a_restart_after_every_step,
                ];
                traces: [
                    what_was_stored_is_found_after_a_restart,
                ];
            }
        }
    };
}

/// One test a case, for brokers that are reached over connections, which break and mend; see [`conformance_tests!`].
/// The cases restart the broker while they hold on to it, so each rig needs a store of its own.
#[macro_export]
macro_rules! conformance_reconnect_tests {
    ($rig:path) => {
        $crate::__conformance_cases! { $rig;
            reconnect: [
                a_source_goes_on_after_a_restart,
                credit_is_the_same_after_a_restart,
                waiting_sources_only_wait_longer,
                publishes_under_way_are_not_lost,
                acks_are_repeated_until_answered,
                what_is_released_meanwhile_comes_again,
                what_is_asked_meanwhile_is_retryable,
                hints_go_on_after_a_restart,
                a_watched_record_is_told_after_a_restart,
                what_was_not_settled_comes_again,
            ];
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_cases {
    ($rig:path; $($role:ident: [$($case:ident),* $(,)?];)*) => {
        $(
            mod $role {
                #[allow(unused_imports, reason = "the rig's path may be absolute")]
                use super::*;

                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $case() {
                        $crate::conformance::run($rig().await, $crate::conformance::$role::$case).await;
                    }
                )*
            }
        )*
    };
}

#[cfg(test)]
mod tests {
    /// A case that no macro names would never run.
    #[test]
    fn every_case_is_named_in_a_macro() {
        let roles = [
            ("consume", include_str!("conformance/consume.rs")),
            ("control", include_str!("conformance/control.rs")),
            ("dead", include_str!("conformance/dead.rs")),
            ("lease", include_str!("conformance/lease.rs")),
            ("outcome_log", include_str!("conformance/outcome_log.rs")),
            ("publish", include_str!("conformance/publish.rs")),
            ("reconnect", include_str!("conformance/reconnect.rs")),
            ("records", include_str!("conformance/records.rs")),
            ("schedule", include_str!("conformance/schedule.rs")),
            ("settling", include_str!("conformance/settling.rs")),
            ("traces", include_str!("conformance/traces.rs")),
        ];
        let mut named: Vec<(&str, &str)> = Vec::new();
        let mut role = "";
        for line in include_str!("conformance.rs").lines().map(str::trim) {
            match (line.strip_suffix(": ["), line.strip_suffix(',')) {
                (Some(begins), _) => role = begins,
                (None, Some(case)) => named.push((role, case)),
                (None, None) => {}
            }
        }
        for (role, source) in roles {
            let cases =
                source.lines().filter_map(|line| line.strip_prefix("pub async fn ")?.split_once('(')).map(|(case, _)| case);
            for case in cases {
                assert!(named.contains(&(role, case)), "{role}::{case} is in no macro");
            }
        }
    }
}
