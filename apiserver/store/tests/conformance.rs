//! One suite for all stores: each test runs on memory, on redb, and on a real etcd.
#![forbid(unsafe_code)]

mod common;
mod suite;

macro_rules! on_each_store {
    ($($group:ident :: { $($test:ident),* $(,)? })*) => {
        on_each_store!(@ memory, Memory, $($group::{$($test),*})*);
        on_each_store!(@ redb, Redb, $($group::{$($test),*})*);
        on_each_store!(@ etcd, Etcd, $($group::{$($test),*})*);
    };
    (@ $backend:ident, $kind:ident, $($group:ident :: { $($test:ident),* })*) => {
        mod $backend {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    if let Some(fixture) = crate::common::Fixture::start(crate::common::Kind::$kind).await {
                        crate::common::in_time(crate::suite::$group::$test(&fixture)).await;
                    }
                }
            )*)*
        }
    };
}

on_each_store! {
    keys::{
        an_empty_store_has_a_revision_and_no_keys,
        a_key_is_created_only_when_absent,
        a_key_is_updated_only_at_the_revision_it_was_read_at,
        a_key_is_deleted_only_at_the_revision_it_was_read_at,
        a_key_that_comes_again_is_a_new_one,
        every_write_has_the_next_revision,
        keys_and_values_are_any_bytes,
        what_is_too_large_is_refused,
        a_prefix_is_listed_in_byte_order_with_its_count,
        pages_are_of_one_revision_while_writes_go_on,
        old_revisions_show_what_was,
        revisions_to_come_cannot_be_read,
        compaction_forgets_the_past_and_keeps_the_present,
        compaction_goes_forward_only,
    }
    watch::{
        changes_are_told_in_order_with_what_was_before,
        a_watch_begins_at_its_revision,
        a_watch_of_one_key_hears_of_no_other,
        a_watch_may_wait_for_a_revision_to_come,
        a_compacted_revision_cannot_be_watched,
        a_watch_that_resumes_misses_and_repeats_nothing,
        a_slow_reader_hears_everything_or_that_it_is_compacted,
        progress_is_told_after_the_changes_before_it,
        many_idle_watches_stay_silent,
    }
    lease::{
        keys_go_when_their_lease_runs_out,
        a_lease_that_is_kept_alive_stays,
        a_revoked_lease_takes_its_keys_at_one_revision,
        a_key_belongs_to_its_last_lease,
        a_lease_that_is_not_there_is_refused,
    }
    linear::{
        concurrent_writers_are_linearizable,
        every_watch_sees_the_writers_history,
    }
    snapshot::{
        a_snapshot_is_of_one_revision_and_restores_to_the_same,
        a_damaged_snapshot_is_refused,
        a_store_that_has_keys_is_not_restored_into,
    }
}
