//! The keys that every store has.

use pvc_core::records::PrimaryRecord;

use super::LATEST;
use crate::keys;
use crate::keys::values::{Maintenance, Nothing};
use crate::store::Txn;

/// The creation of every key of the cluster as a whole, parents first.
pub fn base_keys() -> Txn {
    let config = keys::config();
    let storage = keys::storage();
    Txn::new()
        .create_path("/schema", "")
        .create(&keys::schema().version(), &LATEST)
        .create(&config.cluster_name(), &String::new())
        .create(&config.maintenance(), &Maintenance::Off)
        .create(&config.fence_lock(), &Nothing)
        .create(&config.primary_node(), &PrimaryRecord::None)
        .create(&config.primary_sync_lock(), &Nothing)
        .create(&config.upstream_ip(), &String::new())
        .create(&config.migration_target_selector(), &None)
        .create_path(keys::logs().path(), "")
        .create_path(keys::faults().path(), "")
        .create_path(keys::nodes().path(), "")
        .create_path(keys::domains().path(), "")
        .create_path(keys::networks().path(), "")
        .create(&storage.status(), &String::new())
        .create(&storage.health(), &None)
        .create(&storage.utilization(), &String::new())
        .create_path(keys::osds().path(), "")
        .create_path(keys::pools().path(), "")
        .create_path(keys::volumes().path(), "")
        .create_path("/ceph/snapshots", "")
        // New in schema 16.
        .create_path("/leases", "")
        .create_path(keys::lease_nodes().path(), "")
        .create(&keys::lease_primary(), &None)
        .create_path(keys::fences().path(), "")
        .create(&config.adopt(), &None)
        .create_path("/access", "")
        .create_path(keys::tokens().path(), "")
        .create_path(keys::users().path(), "")
        .create_path(keys::sessions().path(), "")
        .create_path("/audit", "")
        .create_path(keys::audit_notes().path(), "")
        .create_path(keys::audit_pages().path(), "")
        .create(&config.restore(), &None)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::store::Op;

    #[test]
    fn the_reference_finds_each_of_its_keys() {
        let schema: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/fixtures/schema-15.json")).unwrap();
        let mut expected: BTreeSet<&str> = schema["keys"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|key| key["key"].as_str().unwrap().starts_with("base."))
            .map(|key| key["path"].as_str().unwrap())
            .filter(|path| *path != "/")
            .collect();
        expected.extend([
            "/leases",
            "/leases/nodes",
            "/leases/primary",
            "/fences",
            "/config/adopt",
            "/access",
            "/access/tokens",
            "/access/users",
            "/access/sessions",
            "/audit",
            "/audit/notes",
            "/audit/pages",
            "/config/restore",
        ]);
        let txn = base_keys();
        let ours: Vec<&str> = txn
            .ops
            .iter()
            .map(|op| {
                let Op::Create { path, .. } = op else {
                    panic!("{op:?}");
                };
                path.as_str()
            })
            .collect();
        assert_eq!(ours.iter().copied().collect::<BTreeSet<_>>(), expected);
        assert_eq!(ours.len(), expected.len());
    }
}
