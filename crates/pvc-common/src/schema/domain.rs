//! The keys of a new guest.

use pvc_core::ids::{NodeName, TagName, VmId, VmName, VolumeId};
use pvc_core::states::{MigrationMethod, NodeSelector, VmState};

use crate::keys;
use crate::keys::values::{CommaList, Nothing, OrNone};
use crate::store::Txn;

/// What a guest is defined with. All else begins empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDomain {
    /// Its UUID.
    pub id: VmId,
    /// Its name.
    pub name: VmName,
    /// Its libvirt definition.
    pub xml: String,
    /// Its first state: `stop`, or `provision` and the like for those that are being made.
    pub state: VmState,
    /// The node on which it should run.
    pub node: NodeName,
    /// The provisioner profile that it was made from.
    pub profile: Option<String>,
    /// Its volumes.
    pub volumes: Vec<VolumeId>,
    /// The nodes it may run on; empty for any.
    pub node_limit: Vec<NodeName>,
    /// How its target nodes are chosen.
    pub node_selector: NodeSelector,
    /// Whether it is started when its node becomes ready.
    pub autostart: bool,
    /// How it may be moved.
    pub migration_method: MigrationMethod,
    /// The longest pause of a live migration, in milliseconds; PVC's default is 300.
    pub migration_max_downtime_ms: u32,
    /// Its tags.
    pub tags: Vec<NewTag>,
}

/// A tag of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTag {
    /// The tag.
    pub name: TagName,
    /// Whether it can be removed only on purpose.
    pub protected: bool,
}

/// The creation of every key that a guest has, parents first. It fails with `NodeExists` at index 0 if there is a guest
/// of that UUID.
pub fn domain_keys(new: &NewDomain) -> Txn {
    let domain = keys::domain(new.id);
    let txn = Txn::new()
        .create(&domain.name(), &new.name)
        .create(&domain.xml(), &new.xml)
        .create(&domain.state(), &new.state)
        .create(&domain.profile(), &OrNone(new.profile.clone()))
        .create(&domain.stats(), &None)
        .create(&domain.node(), &new.node)
        .create(&domain.last_node(), &None)
        .create(&domain.failed_reason(), &String::new())
        .create(&domain.volumes(), &CommaList(new.volumes.clone()))
        .create(&domain.console_log(), &String::new())
        .create(&domain.vnc(), &String::new())
        .create(&domain.autostart(), &new.autostart)
        .create(&domain.migration_method(), &new.migration_method)
        .create(
            &domain.migration_max_downtime_ms(),
            &new.migration_max_downtime_ms,
        )
        .create(&domain.node_selector(), &new.node_selector)
        .create(&domain.node_limit(), &CommaList(new.node_limit.clone()))
        .create(&domain.tags(), &Nothing)
        .create(&domain.migrate_sync_lock(), &String::new())
        .create(&domain.snapshots(), &Nothing)
        .and(protocol_keys_of_domain(new.id));
    new.tags
        .iter()
        .fold(txn, |txn, tag| txn.and(tag_keys(new.id, tag)))
}

/// The creation of a tag's keys.
pub fn tag_keys(id: VmId, new: &NewTag) -> Txn {
    let tag = keys::tag(id, &new.name);
    Txn::new()
        .create(&tag.name(), &new.name)
        .create(&tag.kind(), &"user".to_owned())
        .create(&tag.protected(), &new.protected)
}

/// The creation of the keys that schema 16 adds to a guest: no owner, nobody receives it. They exist so that their
/// versions can be checked.
pub fn protocol_keys_of_domain(id: VmId) -> Txn {
    let domain = keys::domain(id);
    Txn::new()
        .create(&domain.owner(), &None)
        .create(&domain.incoming(), &None)
        .create(&domain.recovery_priority(), &0)
        .create(&domain.anti_affinity(), &CommaList(Vec::new()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::keys::{DomainKeys, TagKeys};
    use crate::store::Op;

    #[test]
    fn a_new_guest_has_every_key_of_a_guest() {
        let id: VmId = "6ba7b810-9dad-11d1-80b4-00c04fd430c8".parse().unwrap();
        let txn = domain_keys(&NewDomain {
            id,
            name: VmName::new("web").unwrap(),
            xml: "<domain/>".to_owned(),
            state: VmState::Stop,
            node: NodeName::new("hv1").unwrap(),
            profile: None,
            volumes: vec!["vms/web_disk0".parse().unwrap()],
            node_limit: Vec::new(),
            node_selector: NodeSelector::None,
            autostart: false,
            migration_method: MigrationMethod::None,
            migration_max_downtime_ms: 300,
            tags: vec![NewTag {
                name: TagName::new("prod").unwrap(),
                protected: true,
            }],
        });
        let mut stored = std::collections::BTreeMap::new();
        for op in &txn.ops {
            let Op::Create { path, data } = op else {
                panic!("{op:?}");
            };
            let text = String::from_utf8(data.clone()).unwrap();
            assert_eq!(stored.insert(path.clone(), text), None, "twice: {path}");
        }
        let root = format!("/domains/{id}");
        let expected: BTreeSet<String> = DomainKeys::RELATIVE
            .iter()
            .map(|relative| format!("{root}{relative}"))
            .chain(
                TagKeys::RELATIVE
                    .iter()
                    .map(|relative| format!("{root}/tags/prod{relative}")),
            )
            .collect();
        assert_eq!(stored.keys().cloned().collect::<BTreeSet<_>>(), expected);
        for (relative, text) in [("/profile", "None"), ("/node_autostart", "False"), ("/owner", "")] {
            assert_eq!(stored[&format!("{root}{relative}")], text);
        }
    }
}
