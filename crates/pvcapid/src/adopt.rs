//! Nodes on hold, and the order that ends it: what really runs on the nodes is taken as the truth.

use pvc_api::status::{Adoption, NodeHold};
use pvc_common::keys;
use pvc_common::mirror::View;
use pvc_common::store::{Store, StoreError, StoreExt, Txn};
use pvc_core::hold::{AdoptOrder, HoldPhase, HoldRecord};
use pvc_core::ids::{NodeName, VmId};

use crate::access::Caller;
use crate::app::App;
use crate::error::ApiError;
use crate::fence::renews;
use crate::node;
use crate::snapshot::{Reading, Snapshot, Wanted, children_of};
use crate::vm::record;

/// How often a transaction is tried again after somebody else was faster.
const RETRIES: usize = 8;

/// Why a node holds still, in words; empty if it does not.
pub(crate) fn hold_text(record: &HoldRecord) -> String {
    match &record.phase {
        HoldPhase::Free | HoldPhase::Lifted { .. } => String::new(),
        HoldPhase::Held { reason } => format!("{reason}; 'pvc cluster adopt' ends it"),
        HoldPhase::Adopting { .. } if record.trouble.is_empty() => {
            "what runs here is being put on record".to_owned()
        }
        HoldPhase::Adopting { .. } => "guests in trouble keep it, and all others, from going on".to_owned(),
        HoldPhase::Adopted { waits_for, .. } => {
            let names: Vec<&str> = waits_for.iter().map(NodeName::as_str).collect();
            match (names.is_empty(), record.trouble.is_empty()) {
                (false, _) => format!("what runs here is on record; it waits for {}", names.join(", ")),
                (true, false) => "what runs here is on record but for guests in trouble".to_owned(),
                (true, true) => "what runs here is on record; it goes on at once".to_owned(),
            }
        }
    }
}

/// The order that a node is at.
fn works_on(phase: &HoldPhase) -> Option<&str> {
    match phase {
        HoldPhase::Adopting { order } | HoldPhase::Adopted { order, .. } => Some(order),
        HoldPhase::Free | HoldPhase::Held { .. } | HoldPhase::Lifted { .. } => None,
    }
}

const fn word(phase: &HoldPhase) -> &'static str {
    match phase {
        HoldPhase::Free => "free",
        HoldPhase::Held { .. } => "held",
        HoldPhase::Adopting { .. } => "adopting",
        HoldPhase::Adopted { .. } => "adopted",
        HoldPhase::Lifted { .. } => "lifted",
    }
}

fn holds(phase: &HoldPhase) -> bool {
    match phase {
        HoldPhase::Held { .. } | HoldPhase::Adopting { .. } | HoldPhase::Adopted { .. } => true,
        HoldPhase::Free | HoldPhase::Lifted { .. } => false,
    }
}

struct Seen {
    records: Vec<(NodeName, Option<HoldRecord>)>,
    order: Option<pvc_common::store::Versioned<Option<AdoptOrder>>>,
}

impl Seen {
    fn holding(&self) -> Vec<&str> {
        self.records
            .iter()
            .filter(|(_, record)| record.as_ref().is_some_and(|record| holds(&record.phase)))
            .map(|(name, _)| name.as_str())
            .collect()
    }
}

/// Refuses what depends on which guests run. While a node is on hold the store tells of the past: a guest without an owner on
/// record may be running, with disks that it does not have any more there.
///
/// # Errors
/// 409 while a node is on hold.
pub(crate) async fn refuse_on_hold<S: Store>(store: &S) -> Result<(), ApiError> {
    let seen = read_store(store).await?;
    let holding = seen.holding();
    if holding.is_empty() {
        return Ok(());
    }
    Err(ApiError::conflict(format!(
        "What runs on {} is not known while nodes are on hold; see 'pvc cluster adopt'",
        holding.join(", ")
    )))
}

/// What an order depends on, as the store has it now.
async fn read_store<S: Store>(store: &S) -> Result<Seen, ApiError> {
    let names = children_of(store, &keys::nodes()).await?;
    let mut wanted = Wanted::default();
    wanted.key(&keys::config().adopt());
    for name in &names {
        wanted.key(&keys::node(name).hold());
    }
    read(&Snapshot::read(store, wanted).await?, names)
}

fn read(seen: &impl Reading, names: Vec<NodeName>) -> Result<Seen, ApiError> {
    Ok(Seen {
        order: seen.get(&keys::config().adopt())?,
        records: names
            .into_iter()
            .map(|name| {
                let record = seen.shown(&keys::node(&name).hold(), None);
                (name, record)
            })
            .collect(),
    })
}

/// Which nodes hold still, and how far the last order has come.
pub(crate) fn show(view: &View) -> Result<Adoption, ApiError> {
    let seen = read(view, node::names(view))?;
    let named =
        |ids: &[VmId]| -> Vec<String> { ids.iter().map(|id| record::shown_name(view, *id)).collect() };
    let order = seen.order.and_then(|order| order.value);
    Ok(Adoption {
        ordered_by: order.as_ref().map(|order| order.by.clone()).unwrap_or_default(),
        ordered_at: order.as_ref().map(|order| order.at),
        without: order
            .iter()
            .flat_map(|order| order.without.iter().map(NodeName::to_string))
            .collect(),
        nodes: seen
            .records
            .into_iter()
            .map(|(name, record)| match record {
                None => NodeHold {
                    node: name.to_string(),
                    state: "unknown".to_owned(),
                    ..NodeHold::default()
                },
                Some(record) => NodeHold {
                    node: name.to_string(),
                    state: word(&record.phase).to_owned(),
                    reason: hold_text(&record),
                    since: Some(record.since),
                    running: named(&record.running),
                    adopted: named(&record.adopted),
                    trouble: record.trouble.clone(),
                },
            })
            .collect(),
    })
}

/// Orders that what really runs on the nodes is taken as the truth. Nodes of `without` are off, on the administrator's
/// word. Answers in words.
///
/// # Idempotence
/// The same order while it is under way is success, without a write.
pub(crate) async fn order<S: Store>(
    app: &App<S>,
    without: Vec<NodeName>,
    by: &Caller,
) -> Result<String, ApiError> {
    let seen = app.promptly(read_store(&app.store)).await?;
    for name in &without {
        let Some((_, record)) = seen.records.iter().find(|(known, _)| known == name) else {
            return Err(ApiError::invalid("without", format!("there is no node {name}")));
        };
        // SAFETY(fencing): a node left out is not waited for, and its guests count as ended. One that has put on record
        // what runs there may have died since: its lease tells.
        if let Some(record) = record
            && works_on(&record.phase).is_some()
            && renews(app, name, None).await?
        {
            return Err(ApiError::conflict(format!(
                "Node {name} has put on record what runs there and renews its lease: it is not off"
            )));
        }
    }
    app.promptly(write_order(app, without, by)).await
}

async fn write_order<S: Store>(
    app: &App<S>,
    without: Vec<NodeName>,
    by: &Caller,
) -> Result<String, ApiError> {
    let key = keys::config().adopt();
    for _ in 0..RETRIES {
        let restore = app.store.get(&keys::config().restore()).await?;
        if let Some(restore) = restore.and_then(|restore| restore.value)
            && !restore.phase.is_over()
        {
            return Err(ApiError::conflict(
                "A backup was not put back to its end, so the store is half of one and half of the other: put it back \
                 again first",
            ));
        }
        let seen = read_store(&app.store).await?;
        let holding = seen.holding();
        if holding.is_empty() {
            return Err(ApiError::conflict(
                "No node is on hold: there is nothing to adopt. Who takes over a cluster of PVC 1.0.3 begins on a node, \
                 with 'pvcnoded --adopt'",
            ));
        }
        let text = format!(
            "What runs on the nodes is taken as the truth. On hold until then: {}",
            holding.join(", ")
        );
        let (before, version) = match seen.order {
            Some(order) => (order.value, Some(order.version)),
            None => (None, None),
        };
        let under_way = before.as_ref().is_some_and(|before| {
            let same_nodes = without.iter().all(|name| before.without.contains(name));
            same_nodes
                && seen.records.iter().any(|(_, record)| {
                    record
                        .as_ref()
                        .is_some_and(|record| works_on(&record.phase) == Some(before.id.as_str()))
                })
        });
        if under_way {
            return Ok(text);
        }
        let order = Some(AdoptOrder {
            id: uuid::Uuid::new_v4().to_string(),
            by: by.to_string(),
            at: app.clock_seconds(),
            without: without.clone(),
        });
        let txn = match version {
            Some(version) => Txn::new().set(&key, &order, version),
            None => Txn::new().create(&key, &order),
        };
        match app.store.commit(txn).await {
            Ok(_) => {
                tracing::warn!(by = %by, ?without, "adoption ordered");
                return Ok(text);
            }
            Err(StoreError::BadVersion { .. } | StoreError::NodeExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::busy("The order to adopt"))
}
