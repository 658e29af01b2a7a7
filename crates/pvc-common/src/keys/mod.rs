//! Typed keys: each knows its path *and* the type of its value.
//!
//! Paths and formats are those of PVC 1.0.3 (schema 15) and our additions (schema 16), so an existing cluster's store
//! is read as it is. Reading through the wrong key does not compile; bytes that are not of the key's type are an error
//! that names path and value, never a default.
//!
//! * [`config`], [`node`], [`domain`], [`tag`], [`domain_snapshot`], [`network`], [`osd`], [`pool`], [`volume`] and so on:
//!   the keys of one thing.
//! * [`lease_node`], [`lease_primary`], [`fence`]: the high-availability protocol (schema 16).
//! * [`token`], [`user`], [`fn@session`], [`audit_page`]: who may use the API, and what was done through it (schema 16).
//! * [`nodes`], [`domains`] and the other [`Container`]s: where the children of a path are such things.
//! * [`values`]: how values are written.
//! * [`holds_secret`]: which of them must not be shown.

use std::fmt;
use std::marker::PhantomData;

mod access;
mod domain;
mod ha;
mod network;
mod node;
mod root;
mod secrecy;
mod storage;
pub mod values;

pub use access::{
    audit_note, audit_notes, audit_page, audit_pages, session, sessions, token, token_use, tokens, user,
    users,
};
pub use domain::{
    DomainKeys, SnapshotKeys, TagKeys, device_order, domain, domain_snapshot, domain_snapshots, domain_tags,
    domains, tag,
};
pub use ha::{fence, fences, lease_node, lease_nodes, lease_primary, lock_flush, lock_flushes};
pub use network::{
    DhcpLeaseKeys, Direction, NetworkKeys, ReservationKeys, RuleKeys, SriovPfKeys, SriovVfKeys, network,
    network_lease, network_leases, network_reservation, network_reservations, network_rule, network_rules,
    networks, sriov_pf, sriov_pfs, sriov_vf, sriov_vfs,
};
pub use node::{NodeKeys, PluginKeys, monitoring_plugin, monitoring_plugins, node, nodes};
pub use root::{ConfigKeys, FaultKeys, LogKeys, SchemaKeys, config, fault, faults, log, logs, schema};
pub use secrecy::holds_secret;
pub use storage::{
    OsdKeys, PoolKeys, StorageKeys, VolumeKeys, VolumeSnapshotKeys, osd, osds, pool, pool_volumes, pools,
    snapshot_pools, snapshot_volumes, storage, volume, volume_snapshot, volume_snapshots, volumes,
};
pub use values::Value;

use crate::store::Znode;
use crate::store::{ReadError, Versioned};

/// A znode's path together with the type of its value.
pub struct Key<T> {
    path: String,
    kind: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    pub(crate) fn at(path: impl Into<String>) -> Key<T> {
        Key {
            path: path.into(),
            kind: PhantomData,
        }
    }

    /// The znode's path.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl<T: Value> Key<T> {
    /// The value in `znode`, as [`Store::read_many`](crate::store::Store::read_many) returned it; `None` if there is
    /// no such znode.
    ///
    /// # Errors
    /// [`ReadError::Value`] when the bytes are not of this key's type.
    pub fn decode(&self, znode: Option<&Znode>) -> Result<Option<Versioned<T>>, ReadError> {
        let Some(znode) = znode else { return Ok(None) };
        let value = T::decode(&znode.data).map_err(|invalid| ReadError::Value {
            path: self.path.clone(),
            invalid,
        })?;
        Ok(Some(Versioned {
            value,
            version: znode.version,
            modified: znode.modified,
        }))
    }

    /// As [`Key::decode`]; a missing znode is an error.
    ///
    /// # Errors
    /// [`ReadError::Missing`] or [`ReadError::Value`].
    pub fn decode_required(&self, znode: Option<&Znode>) -> Result<Versioned<T>, ReadError> {
        self.decode(znode)?.ok_or_else(|| ReadError::Missing {
            path: self.path.clone(),
        })
    }
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        Key::at(self.path.clone())
    }
}

impl<T> PartialEq for Key<T> {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl<T> Eq for Key<T> {}

impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.path).finish()
    }
}

impl<T> fmt::Display for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.path)
    }
}

/// A znode whose children are named by `C`.
pub struct Container<C> {
    path: String,
    kind: PhantomData<fn() -> C>,
}

impl<C> Container<C> {
    pub(crate) fn at(path: impl Into<String>) -> Container<C> {
        Container {
            path: path.into(),
            kind: PhantomData,
        }
    }

    /// The znode's path.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl<C> Clone for Container<C> {
    fn clone(&self) -> Self {
        Container::at(self.path.clone())
    }
}

impl<C> fmt::Debug for Container<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Container").field(&self.path).finish()
    }
}

/// The keys below one root, each a method that knows its type.
macro_rules! key_group {
    ($(#[$doc:meta])* $name:ident { $( $(#[$key_doc:meta])* $key:ident : $kind:ty = $relative:literal ),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name {
            root: String,
        }

        impl $name {
            /// The keys' paths below the root; the empty text is the root itself.
            pub const RELATIVE: &'static [&'static str] = &[ $( $relative ),+ ];

            pub(crate) fn below(root: impl Into<String>) -> $name {
                $name { root: root.into() }
            }

            /// The path that all of these keys begin with.
            pub fn path(&self) -> &str {
                &self.root
            }

            $(
                $(#[$key_doc])*
                pub fn $key(&self) -> $kind {
                    <$kind>::at(format!("{}{}", self.root, $relative))
                }
            )+
        }
    };
}
use key_group;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The reference's keys whose name begins with one of `groups`, relative to their root.
    fn reference(groups: &[&str]) -> BTreeSet<String> {
        let schema: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/fixtures/schema-15.json")).unwrap();
        let keys = schema["keys"].as_array().unwrap();
        keys.iter()
            .filter(|key| groups.contains(&key["key"].as_str().unwrap().split('.').next().unwrap()))
            .map(|key| key["relative"].as_str().unwrap().to_owned())
            .collect()
    }

    fn check(ours: &[&str], groups: &[&str], added: &[&str]) {
        let ours: BTreeSet<String> = ours.iter().map(|path| (*path).to_owned()).collect();
        let mut expected = reference(groups);
        assert!(!expected.is_empty(), "{groups:?}");
        expected.extend(added.iter().map(|path| (*path).to_owned()));
        assert_eq!(ours, expected, "{groups:?}");
    }

    #[test]
    fn every_key_has_the_path_that_the_reference_gave_it() {
        // A path that differs would show an existing cluster as empty and write beside what its daemons read.
        check(
            NodeKeys::RELATIVE,
            &["node"],
            &[
                "/upstream",
                "/reserved",
                "/addresses",
                "/bmc",
                "/hold",
                "/drain",
                "/agent_stats",
            ],
        );
        check(PluginKeys::RELATIVE, &["monitoring_plugin"], &[]);
        check(
            DomainKeys::RELATIVE,
            &["domain"],
            &["/owner", "/incoming", "/recovery_priority", "/anti_affinity"],
        );
        check(TagKeys::RELATIVE, &["tag"], &[]);
        check(SnapshotKeys::RELATIVE, &["domain_snapshot"], &[]);
        check(FaultKeys::RELATIVE, &["faults"], &[]);
        check(LogKeys::RELATIVE, &["logs"], &[]);
        check(NetworkKeys::RELATIVE, &["network"], &[]);
        check(ReservationKeys::RELATIVE, &["reservation"], &[]);
        check(DhcpLeaseKeys::RELATIVE, &["lease"], &[]);
        check(RuleKeys::RELATIVE, &["rule"], &[]);
        check(SriovPfKeys::RELATIVE, &["sriov_pf"], &[]);
        check(SriovVfKeys::RELATIVE, &["sriov_vf"], &[]);
        check(OsdKeys::RELATIVE, &["osd"], &[]);
        check(PoolKeys::RELATIVE, &["pool"], &[]);
        check(VolumeKeys::RELATIVE, &["volume"], &[]);
        check(VolumeSnapshotKeys::RELATIVE, &["snapshot"], &[]);
    }

    #[test]
    fn roots_are_where_the_reference_has_them() {
        let base = reference(&["base"]);
        let ours = [
            schema().version().path().to_owned(),
            config().cluster_name().path().to_owned(),
            config().maintenance().path().to_owned(),
            config().primary_node().path().to_owned(),
            config().primary_sync_lock().path().to_owned(),
            config().upstream_ip().path().to_owned(),
            config().migration_target_selector().path().to_owned(),
            config().fence_lock().path().to_owned(),
            logs().path().to_owned(),
            faults().path().to_owned(),
            nodes().path().to_owned(),
            domains().path().to_owned(),
            networks().path().to_owned(),
            storage().status().path().to_owned(),
            storage().health().path().to_owned(),
            storage().utilization().path().to_owned(),
            osds().path().to_owned(),
            pools().path().to_owned(),
            volumes().path().to_owned(),
            "/ceph/snapshots".to_owned(),
            "/schema".to_owned(),
            "/".to_owned(),
        ];
        let ours: BTreeSet<String> = ours.into_iter().collect();
        // The root's relative path is recorded as the empty text.
        let base: BTreeSet<String> = base
            .into_iter()
            .map(|path| if path.is_empty() { "/".to_owned() } else { path })
            .collect();
        assert_eq!(ours, base);
    }

    #[test]
    fn a_value_of_another_kind_is_refused_by_path_and_value() {
        // The reference once read the version text in place of the mode and took a coordinator for a hypervisor.
        let znode = Znode {
            data: b"2.0.0".to_vec(),
            version: crate::store::ZnodeVersion(4),
            modified: crate::store::Zxid(9),
        };
        let name = pvc_core::ids::NodeName::new("hv1").unwrap();
        let error = node(&name).daemon_state().decode(Some(&znode)).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("/nodes/hv1/daemonstate holds \"2.0.0\", which is not a daemon state"),
            "{error}"
        );
        let error = node(&name).daemon_state().decode_required(None).unwrap_err();
        assert_eq!(error.to_string(), "/nodes/hv1/daemonstate does not exist");
    }
}
