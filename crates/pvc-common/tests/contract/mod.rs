//! What every implementation of the coordination store must do, as one list of async functions over an [`Ensemble`].
#![expect(
    unreachable_pub,
    clippy::unwrap_used,
    reason = "helpers of tests, shared by two of them"
)]

use std::future::Future;
use std::time::Duration;

use pvc_common::clock::{Clock, HostClock};
use pvc_common::store::{SessionState, Store};

pub mod locks;
pub mod mirror;
pub mod schema;
pub mod typed;
pub mod watches;
pub mod writes;

/// How long a condition may take to come true on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a test runs against: servers with nothing in their tree, and clients of them.
pub trait Ensemble: Send + Sync {
    /// A client together with the faults that can be done to it.
    type Client: FaultyClient;

    /// A new client, connected in a session of its own.
    fn client(&self) -> impl Future<Output = Self::Client> + Send;
}

/// What becomes of a write whose caller does not see the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hidden {
    /// It never reaches a server.
    Lost,
    /// It is applied.
    Applied,
}

/// A client whose connection the test can spoil.
pub trait FaultyClient: Send + Sync {
    /// The implementation under test.
    type Store: Store;

    /// The client's store.
    fn store(&self) -> &Self::Store;

    /// Cuts the connection; returns when the client knows.
    fn disconnect(&self) -> impl Future<Output = ()> + Send;

    /// Restores the connection; returns when the client is connected, in the old session if that still exists.
    fn reconnect(&self) -> impl Future<Output = ()> + Send;

    /// Ends the session on the servers while the client is cut off, then lets it connect: returns when the client is
    /// connected in a new session.
    fn expire(&self) -> impl Future<Output = ()> + Send;

    /// The client's next write has this fate, and its caller sees no answer. Call [`FaultyClient::reconnect`] after it.
    fn hide_next_write(&self, hidden: Hidden) -> impl Future<Output = ()> + Send;
}

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not come true.
pub async fn eventually<F, Fut>(what: &str, mut condition: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let clock = HostClock;
    let deadline = clock.now() + PATIENCE;
    while !condition().await {
        assert!(clock.now() < deadline, "never happened: {what}");
        clock.sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the store's session is in `state`.
pub async fn session_is<S: Store>(store: &S, state: SessionState) {
    eventually("the session's state", async || store.session() == state).await;
}

/// Declares a test for each function of the contract, run on what `$start` makes.
#[macro_export]
macro_rules! contract {
    ($start:path) => {
        contract!(@ $start;
            writes::a_created_znode_is_read_back,
            writes::a_write_with_a_stale_version_fails_and_changes_nothing,
            writes::a_write_of_several_keys_is_all_or_nothing,
            writes::every_refusal_names_its_operation,
            writes::later_operations_see_what_earlier_ones_did,
            writes::many_reads_are_answered_in_order,
            writes::children_are_sorted_and_distinguished_from_absence,
            writes::an_unseen_write_is_reported_as_unknown,
            writes::without_a_connection_nothing_is_written,
            writes::what_cannot_be_sent_is_refused,
            writes::another_client_reads_what_was_written,
            typed::a_key_refuses_a_value_of_another_kind_and_names_the_path,
            typed::typed_values_come_back_with_their_versions,
            typed::a_tree_is_deleted_whole_or_not_at_all,
            locks::one_of_two_contenders_wins_and_the_other_steps_back,
            locks::a_waiting_contender_gets_the_lock_when_it_is_released,
            locks::a_holder_whose_session_expired_cannot_write,
            locks::a_lock_on_a_missing_key_fails_at_once,
            locks::a_dropped_guard_frees_the_lock,
            locks::an_abandoned_attempt_leaves_nothing_behind,
            locks::contenders_of_the_reference_are_waited_for,
            locks::an_unseen_creation_is_found_or_withdrawn,
            locks::a_release_without_connection_happens_later,
            watches::a_watch_sees_changes_below_its_path,
            watches::a_watch_outlives_connections_and_sessions,
            mirror::a_mirror_shows_what_is_there_and_what_changes,
            mirror::a_mirror_misses_nothing_of_concurrent_writers,
            mirror::a_mirror_catches_up_after_lost_connections_and_sessions,
            mirror::a_mirror_without_connection_grows_old_and_young_again,
            mirror::a_commit_returns_when_the_mirror_shows_it,
            mirror::a_mirror_finds_by_itself_what_no_watch_has_told,
            schema::an_empty_store_is_initialised_once,
            schema::what_is_missing_is_made_good,
            schema::a_newer_and_a_foreign_store_are_refused,
            schema::a_migration_waits_for_every_node_and_happens_once,
            schema::a_store_with_guests_that_may_run_is_not_migrated,
        );
    };
    (@ $start:path; $($module:ident::$name:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                contract::$module::$name(&$start().await).await;
            }
        )+
    };
}
