//! The making and the migration of the store's layout.

use pvc_common::clock::HostClock;
use pvc_common::keys;
use pvc_common::keys::values::SchemaVersion;
use pvc_common::schema::{self, LATEST, NewNode, Prepared, REFERENCE, SchemaError};
use pvc_common::store::{Store, StoreExt, Txn};
use pvc_core::ids::{NodeName, VmId};
use pvc_core::states::{DaemonMode, DomainState, VmState};

use super::{Ensemble, FaultyClient};

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

/// A node as PVC 1.0.3 leaves it, as far as a migration looks.
fn old_node(node: &NodeName) -> Txn {
    let keys = keys::node(node);
    Txn::new()
        .create(&keys.root(), &DaemonMode::Coordinator)
        .create(&keys.latest_schema(), &REFERENCE)
}

/// A store as PVC 1.0.3 leaves it: what schema 16 added is taken away.
async fn make_old<S: Store>(store: &S, node: &NodeName) {
    schema::prepare(store, &HostClock, node).await.unwrap();
    for path in ["/leases", "/fences"] {
        store.delete_recursive(path).await.unwrap();
    }
    store
        .commit(Txn::new().overwrite(&keys::schema().version(), &REFERENCE))
        .await
        .unwrap();
}

async fn version<S: Store>(store: &S) -> SchemaVersion {
    store.require(&keys::schema().version()).await.unwrap().value
}

pub async fn an_empty_store_is_initialised_once(ensemble: &impl Ensemble) {
    let (one, two) = (ensemble.client().await, ensemble.client().await);
    assert_eq!(schema::check(one.store()).await, Err(SchemaError::Empty));
    let (hv1, hv2) = (name("hv1"), name("hv2"));
    let (first, second) = tokio::join!(
        schema::prepare(one.store(), &HostClock, &hv1),
        schema::prepare(two.store(), &HostClock, &hv2)
    );
    let (first, second) = (first.unwrap(), second.unwrap());
    let made = |prepared: &Prepared| *prepared == Prepared::Initialised;
    assert_eq!(
        usize::from(made(&first)) + usize::from(made(&second)),
        1,
        "{first:?} {second:?}"
    );
    assert_eq!(
        schema::prepare(one.store(), &HostClock, &hv1).await,
        Ok(Prepared::AlreadySo)
    );
    assert_eq!(version(two.store()).await, LATEST);
    assert_eq!(schema::check(two.store()).await, Ok(()));
    // Registration finds all it writes below.
    let new = NewNode {
        name: hv1,
        mode: DaemonMode::Coordinator,
        domain_state: DomainState::Ready,
        keepalive: 1,
    };
    one.store().commit(schema::node_keys(&new)).await.unwrap();
    let missing = schema::missing(one.store(), schema::node_keys(&new))
        .await
        .unwrap();
    assert_eq!(missing, Txn::new());
}

pub async fn what_is_missing_is_made_good(ensemble: &impl Ensemble) {
    let client = ensemble.client().await;
    let store = client.store();
    schema::prepare(store, &HostClock, &name("hv1")).await.unwrap();
    store.delete_recursive("/leases").await.unwrap();
    assert_eq!(
        schema::prepare(store, &HostClock, &name("hv1")).await,
        Ok(Prepared::AlreadySo)
    );
    assert_eq!(store.require(&keys::lease_primary()).await.unwrap().value, None);
}

// An agent that worked on a layout it does not know would undo what the later release relies on.
pub async fn a_newer_and_a_foreign_store_are_refused(ensemble: &impl Ensemble) {
    let client = ensemble.client().await;
    let store = client.store();
    store.commit(Txn::new().create_path("/hbase", "")).await.unwrap();
    assert_eq!(
        schema::prepare(store, &HostClock, &name("hv1")).await,
        Err(SchemaError::NotOurs {
            children: vec!["hbase".to_owned()]
        })
    );
    store
        .commit(Txn::new().delete_path("/hbase", None))
        .await
        .unwrap();
    schema::prepare(store, &HostClock, &name("hv1")).await.unwrap();
    for (found, refusal) in [
        (
            SchemaVersion(17),
            SchemaError::TooNew {
                found: SchemaVersion(17),
            },
        ),
        (
            SchemaVersion(14),
            SchemaError::TooOld {
                found: SchemaVersion(14),
            },
        ),
    ] {
        let txn = Txn::new().overwrite(&keys::schema().version(), &found);
        store.commit(txn).await.unwrap();
        assert_eq!(
            schema::prepare(store, &HostClock, &name("hv1")).await,
            Err(refusal.clone())
        );
        assert_eq!(schema::check(store).await, Err(refusal));
        assert_eq!(version(store).await, found);
    }
    let txn = Txn::new().overwrite_path("/schema/version", "coordinator");
    store.commit(txn).await.unwrap();
    assert!(schema::prepare(store, &HostClock, &name("hv1")).await.is_err());
}

pub async fn a_migration_waits_for_every_node_and_happens_once(ensemble: &impl Ensemble) {
    let (one, two) = (ensemble.client().await, ensemble.client().await);
    let store = one.store();
    let (hv1, hv2) = (name("hv1"), name("hv2"));
    make_old(store, &hv1).await;
    store.commit(old_node(&hv1).and(old_node(&hv2))).await.unwrap();
    let guest: VmId = "6ba7b810-9dad-11d1-80b4-00c04fd430c8".parse().unwrap();
    let txn = Txn::new()
        .create_path(format!("/domains/{guest}"), "web")
        .create(&keys::domain(guest).state(), &VmState::Stop);
    store.commit(txn).await.unwrap();

    let waiting = Prepared::WaitingFor {
        nodes: vec![hv2.clone()],
    };
    assert_eq!(schema::prepare(store, &HostClock, &hv1).await, Ok(waiting));
    assert_eq!(
        schema::check(store).await,
        Err(SchemaError::OldNodes {
            found: REFERENCE,
            nodes: vec![hv2.clone()]
        })
    );
    assert_eq!(version(store).await, REFERENCE);
    // The asking node has told the others that it is ready.
    let known = store.require(&keys::node(&hv1).latest_schema()).await.unwrap();
    assert_eq!(known.value, LATEST);
    assert_eq!(store.get(&keys::lease_primary()).await, Ok(None));

    let (first, second) = tokio::join!(
        schema::prepare(store, &HostClock, &hv2),
        schema::prepare(two.store(), &HostClock, &hv1)
    );
    let outcomes = [first.unwrap(), second.unwrap()];
    let migrated = Prepared::Migrated { from: REFERENCE };
    let count = outcomes.iter().filter(|outcome| **outcome == migrated).count();
    assert_eq!(count, 1, "{outcomes:?}");
    assert_eq!(
        schema::prepare(store, &HostClock, &hv1).await,
        Ok(Prepared::AlreadySo)
    );
    assert_eq!(
        store.require(&keys::schema().version()).await.unwrap().value,
        LATEST
    );
    for node in [&hv1, &hv2] {
        assert_eq!(store.require(&keys::lease_node(node)).await.unwrap().value, None);
        assert!(store.require(&keys::fence(node)).await.unwrap().value.is_none());
    }
    assert_eq!(
        store.require(&keys::domain(guest).owner()).await.unwrap().value,
        None
    );
}

// A guest that runs and has no owner on record could be started a second time by any node.
pub async fn a_store_with_guests_that_may_run_is_not_migrated(ensemble: &impl Ensemble) {
    let client = ensemble.client().await;
    let store = client.store();
    let hv1 = name("hv1");
    make_old(store, &hv1).await;
    store.commit(old_node(&hv1)).await.unwrap();
    let guest: VmId = "6ba7b810-9dad-11d1-80b4-00c04fd430c8".parse().unwrap();
    let txn = Txn::new()
        .create_path(format!("/domains/{guest}"), "web")
        .create(&keys::domain(guest).state(), &VmState::Start);
    store.commit(txn).await.unwrap();
    assert_eq!(
        schema::prepare(store, &HostClock, &hv1).await,
        Err(SchemaError::UnownedGuests {
            count: 1,
            first: guest
        })
    );
    assert_eq!(version(store).await, REFERENCE);
    assert_eq!(store.get(&keys::domain(guest).owner()).await, Ok(None));
}
