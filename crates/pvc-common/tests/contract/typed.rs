//! Typed keys over a store.

use pvc_common::keys;
use pvc_common::store::{ReadError, Store, StoreError, StoreExt, Txn, ZnodeVersion};
use pvc_core::ids::NodeName;
use pvc_core::records::PrimaryRecord;
use pvc_core::states::DaemonState;

use super::{Ensemble, FaultyClient};

async fn with_config<S: Store>(store: &S) {
    let txn = Txn::new()
        .create_path("/config", "")
        .create(&keys::config().primary_node(), &PrimaryRecord::None)
        .create_path("/nodes", "");
    store.commit(txn).await.unwrap();
}

// The reference once read the version text in place of the mode and treated a coordinator as a hypervisor.
pub async fn a_key_refuses_a_value_of_another_kind_and_names_the_path(ensemble: &impl Ensemble) {
    let client = ensemble.client().await;
    let store = client.store();
    with_config(store).await;
    let node = keys::node(&NodeName::new("hv1").unwrap());
    let txn = Txn::new()
        .create_path("/nodes/hv1", "")
        .create_path("/nodes/hv1/daemonstate", "2.0.0");
    store.commit(txn).await.unwrap();
    let error = store.get(&node.daemon_state()).await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("/nodes/hv1/daemonstate holds \"2.0.0\", which is not a daemon state"),
        "{error}"
    );
    assert_eq!(store.get(&node.daemon_mode()).await, Ok(None));
    assert_eq!(
        store.require(&node.daemon_mode()).await,
        Err(ReadError::Missing {
            path: "/nodes/hv1/daemonmode".to_owned()
        })
    );
    store
        .commit(Txn::new().create_path("/nodes/not a node", ""))
        .await
        .unwrap();
    let error = store.children_as::<NodeName>(&keys::nodes()).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("/nodes has a child named \"not a node\""),
        "{error}"
    );
}

pub async fn typed_values_come_back_with_their_versions(ensemble: &impl Ensemble) {
    let client = ensemble.client().await;
    let store = client.store();
    with_config(store).await;
    let record = keys::config().primary_node();
    let read = store.require(&record).await.unwrap();
    assert_eq!((read.value, read.version), (PrimaryRecord::None, ZnodeVersion(0)));
    let hv1 = NodeName::new("hv1").unwrap();
    store
        .commit(Txn::new().set(&record, &PrimaryRecord::Node(hv1.clone()), read.version))
        .await
        .unwrap();
    let read = store.require(&record).await.unwrap();
    assert_eq!(
        (read.value, read.version),
        (PrimaryRecord::Node(hv1.clone()), ZnodeVersion(1))
    );

    let hv2 = NodeName::new("hv2").unwrap();
    let states = [&hv1, &hv2].map(|name| keys::node(name).daemon_state());
    let txn = Txn::new()
        .create_path("/nodes/hv1", "")
        .create(&states[0], &DaemonState::Run);
    store.commit(txn).await.unwrap();
    let read = store.get_many(&states).await.unwrap();
    assert_eq!(read[0].as_ref().map(|state| state.value), Some(DaemonState::Run));
    assert_eq!(read[1], None);
    assert_eq!(store.children_as(&keys::nodes()).await, Ok(vec![hv1]));
}

// Half a tree left behind would be a guest that lists and cannot be read.
pub async fn a_tree_is_deleted_whole_or_not_at_all(ensemble: &impl Ensemble) {
    let client = ensemble.client().await;
    let store = client.store();
    let tree = ["/d", "/d/a", "/d/a/b", "/d/c"];
    let create = || {
        tree.iter()
            .fold(Txn::new(), |txn, path| txn.create_path(*path, ""))
    };
    store.commit(create()).await.unwrap();
    assert_eq!(store.delete_recursive("/d").await, Ok(()));
    assert_eq!(store.read("/d").await, Ok(None));
    assert_eq!(
        store.delete_recursive("/d").await,
        Ok(()),
        "already so is success"
    );

    store.commit(create()).await.unwrap();
    let read = store.read_tree("/d").await.unwrap();
    assert_eq!(read.len(), tree.len());
    store
        .commit(Txn::new().overwrite_path("/d/a/b", "moved"))
        .await
        .unwrap();
    let deletion = read.iter().rev().fold(Txn::new(), |txn, (path, znode)| {
        txn.delete_path(path.clone(), Some(znode.version))
    });
    let refused = store.commit(deletion).await;
    assert!(
        matches!(refused, Err(StoreError::BadVersion { ref path, .. }) if path == "/d/a/b"),
        "{refused:?}"
    );
    assert_eq!(store.read_tree("/d").await.unwrap().len(), tree.len());
}
