//! What each path is to a backup.

/// The subtrees that a backup is made of. What is below no other root is part of one, whatever is added there.
pub const ROOTS: [&str; 6] = ["/schema", "/config", "/nodes", "/domains", "/networks", "/ceph"];

/// What a path is to a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Ordered by an administrator, or part of what describes the cluster: in a backup, and put back as it was.
    Kept,
    /// Written by agents all the time: in a backup, and put back only where there is nothing.
    Reported,
    /// A secret: in a backup only if it is asked for; put back if it is in there, else left as it is.
    Secret,
    /// Of the moment: never in a backup, and a restore leaves it alone.
    LeftOut,
}

/// Keys of a node that its agent writes.
const NODE_REPORTS: [&str; 24] = [
    "keepalive",
    "activeschema",
    "latestschema",
    "staticdata",
    "pvcversion",
    "runningdomains",
    "domainscount",
    "networkscount",
    "daemonstate",
    "routerstate",
    "cpuload",
    "vcpualloc",
    "memtotal",
    "memused",
    "memfree",
    "memalloc",
    "memprov",
    "monitoring_plugins",
    "monitoring_data",
    "monitoring_health",
    "network_stats",
    "upstream",
    "addresses",
    "bmc",
];

/// What `path` is to a backup.
pub fn part(path: &str) -> Part {
    let mut words = path.strip_prefix('/').unwrap_or(path).split('/');
    let (root, first, second) = (words.next().unwrap_or_default(), words.next(), words.next());
    let deeper = words.next().is_some();
    match (root, first, second) {
        // Locks of migrations are children of the version.
        ("schema", None, _) | ("schema", Some("version"), None) => Part::Kept,
        // The record of the primary role belongs to its lease, and the rest are orders and facts of the moment.
        ("config", None, _) | ("config", Some("maintenance" | "migration_target_selector"), None) => {
            Part::Kept
        }
        ("nodes", None, _) | ("nodes", Some(_), None) => Part::Kept,
        ("nodes", Some(_), Some("ipmipassword")) => Part::Secret,
        // Whether it is on hold, placements under way, a drain under way.
        ("nodes", Some(_), Some("hold" | "reserved" | "drain")) => Part::LeftOut,
        ("nodes", Some(_), Some(key)) if NODE_REPORTS.contains(&key) => Part::Reported,
        (
            "nodes",
            Some(_),
            Some("daemonmode" | "domainstate" | "ipmihostname" | "ipmiusername" | "sriov"),
        ) => Part::Kept,
        // What later releases add below a node is their agents' to write again.
        ("nodes", Some(_), Some(_)) => Part::LeftOut,
        ("domains", Some(_), Some("owner" | "incoming" | "device_order")) => Part::LeftOut,
        // Locks of migrations of PVC 1.0.3 are children of it.
        ("domains", Some(_), Some("migrate_sync_lock")) if deeper => Part::LeftOut,
        ("domains", Some(_), Some("stats" | "consolelog" | "vnc")) => Part::Reported,
        ("domains", _, _) => Part::Kept,
        ("networks", Some(_), Some("dhcp4_leases")) if deeper => Part::Reported,
        ("networks", _, _) => Part::Kept,
        // The texts of Ceph about itself.
        ("ceph", None, _) | ("ceph", Some("health" | "util"), None) => Part::Reported,
        ("ceph", Some("osds" | "pools" | "volumes" | "snapshots"), _) => Part::Kept,
        _ => Part::LeftOut,
    }
}

/// Whether `path` holds the definition of a guest, in which there may be secrets.
pub fn holds_definition(path: &str) -> bool {
    let words: Vec<&str> = path.split('/').collect();
    matches!(
        words.as_slice(),
        ["", "domains", _, "xml"] | ["", "domains", _, "snapshots", _, "xml"]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_act_on_is_never_in_a_backup() {
        for path in [
            "/",
            "/zookeeper",
            "/patroni/x",
            "/leases",
            "/leases/nodes/hv1",
            "/fences/hv1",
            "/flush_locks/5d0e8c58-1d2b-4a30-9d6c-0f7d3f6f6a01",
            "/config/primary_node",
            "/config/primary_node/sync_lock",
            "/config/fence_lock",
            "/config/fence_lock/lock-0000000001",
            "/config/adopt",
            "/config/restore",
            "/config/upstream_ip",
            "/schema/version/lock-0000000001",
            "/nodes/hv1/hold",
            "/nodes/hv1/reserved",
            "/nodes/hv1/something_new",
            "/domains/5d0e8c58-1d2b-4a30-9d6c-0f7d3f6f6a01/owner",
            "/domains/5d0e8c58-1d2b-4a30-9d6c-0f7d3f6f6a01/incoming",
            "/domains/5d0e8c58-1d2b-4a30-9d6c-0f7d3f6f6a01/device_order",
            "/domains/5d0e8c58-1d2b-4a30-9d6c-0f7d3f6f6a01/migrate_sync_lock/a",
            "/audit/1",
            "/tokens/x",
            "/sessions/x",
            "/tasks/1",
            "/faults/X",
            "/logs/hv1/messages",
        ] {
            assert_eq!(part(path), Part::LeftOut, "{path}");
        }
    }

    #[test]
    fn what_describes_the_cluster_is_kept() {
        for path in [
            "/schema/version",
            "/config",
            "/config/maintenance",
            "/nodes",
            "/nodes/hv1",
            "/nodes/hv1/daemonmode",
            "/nodes/hv1/domainstate",
            "/nodes/hv1/sriov/vf/ens1v0/config/vlan_id",
            "/domains",
            "/domains/5d0e8c58-1d2b-4a30-9d6c-0f7d3f6f6a01",
            "/domains/5d0e8c58-1d2b-4a30-9d6c-0f7d3f6f6a01/xml",
            "/domains/5d0e8c58-1d2b-4a30-9d6c-0f7d3f6f6a01/tags/prod/protected",
            "/domains/5d0e8c58-1d2b-4a30-9d6c-0f7d3f6f6a01/something_new",
            "/networks/100/dhcp4_leases",
            "/networks/100/dhcp4_reservations/52:54:00:00:00:01/ipaddr",
            "/ceph/pools/vms/tier",
        ] {
            assert_eq!(part(path), Part::Kept, "{path}");
        }
        assert_eq!(part("/nodes/hv1/ipmipassword"), Part::Secret);
        for path in [
            "/ceph",
            "/ceph/util",
            "/nodes/hv1/memfree",
            "/nodes/hv1/monitoring_data/load/message",
            "/domains/5d0e8c58-1d2b-4a30-9d6c-0f7d3f6f6a01/stats",
            "/networks/100/dhcp4_leases/52:54:00:00:00:01/expiry",
        ] {
            assert_eq!(part(path), Part::Reported, "{path}");
        }
    }
}
