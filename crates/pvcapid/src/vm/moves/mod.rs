//! Moving guests from node to node.
//!
//! A request is one transaction: it holds only if the guest's state, place, owner and migration are as they were read,
//! and if nobody else was placed on the target meanwhile. The node where the guest runs does the rest.
//!
//! * `decide` - what a request comes to, by what the guest does at the moment: pure.
//! * `follow` - waiting for the end.

mod decide;
mod follow;

pub(crate) use decide::{Action, Liveness, MoveRequest};

use pvc_common::keys;
use pvc_common::placement::{Choice, Places, Unplaced, read_candidates};
use pvc_common::store::{Store, StoreError, Txn};
use pvc_core::ids::{NodeName, VmId};
use pvc_core::placement::{Obstacle, Wish};
use pvc_core::states::{DomainState, VmState};

use self::decide::{Already, Denied, Guest, Plan, Process, To, plan};
use super::RETRIES;
use super::record::{Record, runs};
use super::state::Reply;
use super::transition::Force;
use crate::app::App;
use crate::error::ApiError;

/// What was asked for, once it is written.
#[derive(Debug)]
pub(super) enum Ordered {
    /// It was so already, or there is nothing to wait for; in words.
    Nothing(String),
    /// The guest is on its way to that node; in words.
    UnderWay(NodeName, String),
}

/// Carries out a request to move a guest. Answers in words.
///
/// # Idempotence
/// A guest that is on its way there or there already is success, without a write.
///
/// # Cancellation
/// What was written stays; only the waiting ends.
pub(crate) async fn request<S: Store>(
    app: &App<S>,
    id: VmId,
    request: &MoveRequest,
    reply: Reply,
) -> Result<String, ApiError> {
    let _waiter = match reply {
        Reply::WhenDone => Some(app.waiter()?),
        Reply::AtOnce => None,
    };
    let ordered = {
        let _turn = app.turn_to_place().await?;
        app.listing(order(&app.store, id, request)).await?
    };
    match (ordered, reply) {
        (Ordered::Nothing(text), _) | (Ordered::UnderWay(_, text), Reply::AtOnce) => Ok(text),
        (Ordered::UnderWay(target, _), Reply::WhenDone) => follow::until_there(app, id, &target).await,
    }
}

pub(super) async fn order<S: Store>(store: &S, id: VmId, request: &MoveRequest) -> Result<Ordered, ApiError> {
    for _ in 0..RETRIES {
        let record = Record::require(store, id).await?;
        let name = &record.name;
        let planned = plan(request, &guest(&record)).map_err(|denied| denied_text(name.as_str(), &denied))?;
        let (to, home, state) = match planned {
            Plan::AlreadySo(Already::There) => {
                return Ok(Ordered::Nothing(format!(
                    "VM {name} is on node {} already",
                    record.node.value
                )));
            }
            Plan::AlreadySo(Already::UnderWay) => {
                let node = record.node.value.clone();
                let text = format!("VM {name} is on its way to node {node} already");
                return Ok(Ordered::UnderWay(node, text));
            }
            Plan::SettleHere => match settle(store, id, &record).await {
                Ok(()) => {
                    return Ok(Ordered::Nothing(format!(
                        "VM {name} is on node {} for good",
                        record.node.value
                    )));
                }
                Err(StoreError::BadVersion { .. } | StoreError::NoNode { .. }) => continue,
                Err(error) => return Err(error.into()),
            },
            Plan::Go { to, home, state } => (to, home, state),
        };
        let settings = read_settings(store, id).await?;
        let places = read_candidates(store, &std::collections::BTreeSet::new()).await?;
        let Some(wish) = places.wish(id, vec![record.node.value.clone()]) else {
            // Removed meanwhile, or one that nobody can place.
            Record::require(store, id).await?;
            return Err(ApiError::conflict(format!(
                "VM {name}: its definition can not be read"
            )));
        };
        let choice = match choose(&places, &wish, &record, to, request.force) {
            Ok(choice) => choice,
            // Refused by settings that may be younger than the record: that holds only if the record is still as it was.
            Err(refused) if Record::require(store, id).await?.versions() == record.versions() => {
                return Err(refused);
            }
            Err(_) => continue,
        };
        let target = choice.node.clone();
        let txn = places.reserve(going(id, &record, &target, home, state).and(settings), &choice);
        match store.commit(txn).await {
            Ok(_) => {
                tracing::info!(
                    vm = %id, name = %name, from = %record.node.value, to = %target, action = %request.action,
                    "VM ordered to another node"
                );
                return Ok(match state {
                    Some(_) => {
                        let text = format!(
                            "VM {name} is on its way from node {} to {target}",
                            record.node.value
                        );
                        Ordered::UnderWay(target, text)
                    }
                    None if record.state.value == VmState::Start => {
                        let text = format!("VM {name} does not run yet; it starts on node {target}");
                        Ordered::UnderWay(target, text)
                    }
                    None => Ordered::Nothing(format!("VM {name} does not run; its node is {target} now")),
                });
            }
            Err(StoreError::BadVersion { .. } | StoreError::NoNode { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::busy("The VM or its new node"))
}

/// Checks that the guest's settings are as they are now: what is placed by them, read after this, is placed by these.
async fn read_settings<S: Store>(store: &S, id: VmId) -> Result<Txn, ApiError> {
    let keys = keys::domain(id);
    let paths = [
        keys.node_limit().path(),
        keys.node_selector().path(),
        keys.anti_affinity().path(),
    ]
    .map(str::to_owned);
    let znodes = store.read_many(&paths).await?;
    // What is not there can't be named; the guest has been removed then.
    Ok(paths
        .into_iter()
        .zip(znodes)
        .filter_map(|(path, znode)| Some((path, znode?)))
        .fold(Txn::new(), |txn, (path, znode)| {
            txn.check_path(path, znode.version)
        }))
}

fn guest(record: &Record) -> Guest<'_> {
    Guest {
        state: record.state.value,
        node: &record.node.value,
        last_node: record.last_node.value.as_ref(),
        process: match &record.owner.value {
            None => Process::None,
            Some(owner) if runs(owner) => Process::Runs(&owner.node),
            Some(owner) => Process::Starting(&owner.node),
        },
        incoming: record.incoming.value.is_some(),
        method: record.migration_method,
    }
}

fn denied_text(name: &str, denied: &Denied) -> ApiError {
    let text = format!("VM {name}: {denied}");
    match denied {
        Denied::OnThatNode { .. } | Denied::TargetGiven { .. } => ApiError::invalid("node", text),
        Denied::NotLive => ApiError::invalid("force_live", text),
        Denied::MigratedAlready { .. }
        | Denied::UnderWay { .. }
        | Denied::Ending
        | Denied::Busy { .. }
        | Denied::Starting { .. }
        | Denied::ProcessLeft { .. } => ApiError::conflict(text),
    }
}

/// The target, with all that a reservation there depends on.
fn choose(places: &Places, wish: &Wish, record: &Record, to: To, force: Force) -> Result<Choice, ApiError> {
    let name = &record.name;
    match to {
        To::Best => places
            .choose(wish)
            .map_err(|no_place| ApiError::conflict(format!("VM {name} can not be moved: {no_place}"))),
        To::Named(node) => {
            // One that should run starts there at once, if it does not run yet.
            let should_run = record.state.value == VmState::Start;
            let passed_over = |obstacle: &Obstacle| {
                if should_run {
                    passed_over_while_running(obstacle, force)
                } else {
                    passed_over_while_stopped(obstacle)
                }
            };
            places
                .named(wish, &node, passed_over)
                .map_err(|unplaced| match &unplaced {
                    Unplaced::NotOpen { .. } => {
                        ApiError::invalid("node", format!("VM {name} can not be moved: {unplaced}"))
                    }
                    Unplaced::Refused { obstacles, .. } => {
                        let text = format!("VM {name} can not be moved: {unplaced}");
                        if obstacles.contains(&Obstacle::Limited) {
                            ApiError::invalid("node", text)
                        } else if obstacles
                            .iter()
                            .all(|obstacle| matches!(obstacle, Obstacle::Together { .. }))
                        {
                            ApiError::conflict(format!("{text}. Ask with force to put them together"))
                        } else {
                            ApiError::conflict(text)
                        }
                    }
                    Unplaced::NoPlace(_) => ApiError::conflict(format!("VM {name}: {unplaced}")),
                })
        }
    }
}

/// What an administrator who names a node for a running guest may pass over. A node that is being filled again takes
/// its guests back.
fn passed_over_while_running(obstacle: &Obstacle, force: Force) -> bool {
    match obstacle {
        Obstacle::NotReady { state } => *state == DomainState::Unflush,
        Obstacle::Together { .. } => force == Force::Yes,
        Obstacle::Excluded
        | Obstacle::Limited
        | Obstacle::Silent
        | Obstacle::NotRunning { .. }
        | Obstacle::Unknown
        | Obstacle::TooLarge { .. }
        | Obstacle::Full { .. }
        | Obstacle::Vcpus { .. } => false,
    }
}

/// Of a guest without a process only the place changes: only what it could never run with stands against that.
fn passed_over_while_stopped(obstacle: &Obstacle) -> bool {
    match obstacle {
        Obstacle::Excluded
        | Obstacle::Limited
        | Obstacle::Unknown
        | Obstacle::TooLarge { .. }
        | Obstacle::Vcpus { .. } => false,
        Obstacle::Silent
        | Obstacle::NotRunning { .. }
        | Obstacle::NotReady { .. }
        | Obstacle::Full { .. }
        | Obstacle::Together { .. } => true,
    }
}

/// All that the decision depended on is as it was read.
fn unchanged(id: VmId, record: &Record) -> Txn {
    let keys = keys::domain(id);
    Txn::new()
        .check(&keys.owner(), record.owner.version)
        .check(&keys.incoming(), record.incoming.version)
}

fn going(
    id: VmId,
    record: &Record,
    target: &NodeName,
    home: Option<NodeName>,
    state: Option<VmState>,
) -> Txn {
    let keys = keys::domain(id);
    let mut txn = unchanged(id, record)
        .set(&keys.node(), target, record.node.version)
        .set(&keys.last_node(), &home, record.last_node.version);
    txn = match state {
        Some(state) => txn.set(&keys.state(), &state, record.state.version),
        None => txn.check(&keys.state(), record.state.version),
    };
    if state.is_some() && !record.failed_reason.value.is_empty() {
        // What an earlier migration failed by is told until the next one.
        txn = txn.set(
            &keys.failed_reason(),
            &String::new(),
            record.failed_reason.version,
        );
    }
    txn
}

/// Makes the node where the guest is its home.
async fn settle<S: Store>(store: &S, id: VmId, record: &Record) -> Result<(), StoreError> {
    let keys = keys::domain(id);
    let txn = unchanged(id, record)
        .check(&keys.state(), record.state.version)
        .check(&keys.node(), record.node.version)
        .set(&keys.last_node(), &None, record.last_node.version);
    store.commit(txn).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use pvc_common::store::memory::MemoryServer;

    use super::*;
    use crate::access::AuthPolicy;
    use crate::app::{Settings, Waits};

    // Fifty at a time used up each other's tries, and the last were told that somebody else was at it.
    #[test]
    fn a_move_waits_until_those_before_it_are_written() {
        let settings = Settings {
            auth: AuthPolicy::Tokens(Vec::new()),
            waits: Waits::for_shutdown_timeout(std::time::Duration::from_secs(1)),
            max_age: std::time::Duration::from_secs(5),
            node: "hv1".parse().unwrap(),
            tls: false,
            metrics: false,
        };
        let ask = MoveRequest {
            action: Action::Move,
            target: None,
            force: Force::No,
            liveness: Liveness::AsSet,
        };
        let unknown = "5d0e8c58-1d2b-4a30-9d6c-0f7d3f6f6a01".parse().unwrap();
        actix_web::rt::System::new().block_on(async {
            let app = App::new(MemoryServer::new().client(), settings);
            let turn = app.turn_to_place().await.unwrap();
            let mut asked = std::pin::pin!(request(&app, unknown, &ask, Reply::AtOnce));
            for _ in 0..1000 {
                assert!(
                    futures::poll!(&mut asked).is_pending(),
                    "it did not wait for its turn"
                );
            }
            drop(turn);
            assert_eq!(
                asked.await.unwrap_err().code,
                pvc_api::message::ErrorCode::NotFound
            );
        });
    }
}
