//! Operations of PVC 1.0.3 that this release does not carry out yet.
//!
//! They are told apart from what does not exist: a client gets 501 and is told what is missing, whatever parameters it
//! sends. An operation that comes to be served is struck off this table; a test asks for each that is in it.

use std::fmt;

use actix_web::http::Method;

/// What an operation belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Area {
    VmSnapshots,
    VmBackups,
    VmMirrors,
    Networks,
    Sriov,
    Benchmarks,
    CephOptions,
    Osds,
    Pools,
    Volumes,
    VolumeSnapshots,
    Provisioner,
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Area::VmSnapshots => "Snapshots of VMs can not be made, used or removed",
            Area::VmBackups => "Backups of VMs can not be made, used or removed",
            Area::VmMirrors => "VMs can not be sent to or received from other clusters",
            Area::Networks => "Virtual networks can be looked at and not changed",
            Area::Sriov => "SR-IOV functions can be looked at and not changed",
            Area::Benchmarks => "Benchmarks of the storage cluster can not be run or shown",
            Area::CephOptions => {
                "Options of the storage cluster can not be set; use 'ceph osd set' on a coordinator"
            }
            Area::Osds => "OSDs can be looked at and not changed; use 'ceph' on their node",
            Area::Pools => "Pools can be looked at and not changed; use 'ceph' on a coordinator",
            Area::Volumes => "Volumes can be looked at and not changed; use 'rbd' on a coordinator",
            Area::VolumeSnapshots => {
                "Snapshots of volumes can be looked at and not changed; use 'rbd' on a coordinator"
            }
            Area::Provisioner => "There is no provisioner",
        })
    }
}

/// Methods, path below `/api/v1`, area. A part in braces stands for any one part.
const OPERATIONS: &[(&[Method], &str, Area)] = &[
    (&[Method::POST], "/vm/autobackup", Area::VmBackups),
    (&[Method::POST], "/vm/automirror", Area::VmMirrors),
    (
        &[Method::POST, Method::DELETE],
        "/vm/{vm}/backup",
        Area::VmBackups,
    ),
    (&[Method::POST], "/vm/{vm}/restore", Area::VmBackups),
    (
        &[Method::POST, Method::DELETE],
        "/vm/{vm}/snapshot",
        Area::VmSnapshots,
    ),
    (&[Method::POST], "/vm/{vm}/snapshot/rollback", Area::VmSnapshots),
    (&[Method::POST], "/vm/{vm}/snapshot/export", Area::VmSnapshots),
    (&[Method::POST], "/vm/{vm}/snapshot/import", Area::VmSnapshots),
    (&[Method::POST], "/vm/{vm}/snapshot/send", Area::VmMirrors),
    (
        &[Method::POST, Method::PUT, Method::PATCH],
        "/vm/{vm}/snapshot/receive/block",
        Area::VmMirrors,
    ),
    (
        &[Method::POST],
        "/vm/{vm}/snapshot/receive/config",
        Area::VmMirrors,
    ),
    (&[Method::POST], "/vm/{vm}/mirror/create", Area::VmMirrors),
    (&[Method::POST], "/vm/{vm}/mirror/promote", Area::VmMirrors),
    (&[Method::POST], "/network", Area::Networks),
    (
        &[Method::POST, Method::PUT, Method::DELETE],
        "/network/{vni}",
        Area::Networks,
    ),
    (&[Method::POST], "/network/{vni}/lease", Area::Networks),
    (
        &[Method::POST, Method::DELETE],
        "/network/{vni}/lease/{mac}",
        Area::Networks,
    ),
    (&[Method::POST], "/network/{vni}/acl", Area::Networks),
    (
        &[Method::POST, Method::DELETE],
        "/network/{vni}/acl/{description}",
        Area::Networks,
    ),
    (&[Method::PUT], "/sriov/vf/{node}/{vf}", Area::Sriov),
    (
        &[Method::GET, Method::POST],
        "/storage/ceph/benchmark",
        Area::Benchmarks,
    ),
    (&[Method::POST], "/storage/ceph/option", Area::CephOptions),
    (&[Method::POST], "/storage/ceph/osddb", Area::Osds),
    (&[Method::POST], "/storage/ceph/osd", Area::Osds),
    (
        &[Method::POST, Method::PUT, Method::DELETE],
        "/storage/ceph/osd/{osdid}",
        Area::Osds,
    ),
    (&[Method::POST], "/storage/ceph/osd/{osdid}/state", Area::Osds),
    (&[Method::POST], "/storage/ceph/pool", Area::Pools),
    (
        &[Method::POST, Method::PUT, Method::DELETE],
        "/storage/ceph/pool/{pool}",
        Area::Pools,
    ),
    (&[Method::POST], "/storage/ceph/volume", Area::Volumes),
    (
        &[Method::POST, Method::PUT, Method::DELETE],
        "/storage/ceph/volume/{pool}/{volume}",
        Area::Volumes,
    ),
    (
        &[Method::POST],
        "/storage/ceph/volume/{pool}/{volume}/scan",
        Area::Volumes,
    ),
    (
        &[Method::POST],
        "/storage/ceph/volume/{pool}/{volume}/clone",
        Area::Volumes,
    ),
    (
        &[Method::POST],
        "/storage/ceph/volume/{pool}/{volume}/upload",
        Area::Volumes,
    ),
    (&[Method::POST], "/storage/ceph/snapshot", Area::VolumeSnapshots),
    (
        &[Method::POST, Method::PUT, Method::DELETE],
        "/storage/ceph/snapshot/{pool}/{volume}/{snapshot}",
        Area::VolumeSnapshots,
    ),
    (
        &[Method::POST],
        "/storage/ceph/snapshot/{pool}/{volume}/{snapshot}/rollback",
        Area::VolumeSnapshots,
    ),
    (&[Method::GET], "/provisioner", Area::Provisioner),
    (&[Method::GET], "/provisioner/template", Area::Provisioner),
    (
        &[Method::GET, Method::POST],
        "/provisioner/template/{kind}",
        Area::Provisioner,
    ),
    (
        &[Method::GET, Method::POST, Method::PUT, Method::DELETE],
        "/provisioner/template/{kind}/{template}",
        Area::Provisioner,
    ),
    (
        &[Method::GET, Method::POST],
        "/provisioner/template/{kind}/{template}/{part}",
        Area::Provisioner,
    ),
    (
        &[Method::GET, Method::POST, Method::DELETE],
        "/provisioner/template/{kind}/{template}/{part}/{id}",
        Area::Provisioner,
    ),
    (&[Method::POST], "/provisioner/create", Area::Provisioner),
    (
        &[Method::GET, Method::POST],
        "/provisioner/{kind}",
        Area::Provisioner,
    ),
    (
        &[Method::GET, Method::POST, Method::PUT, Method::DELETE],
        "/provisioner/{kind}/{name}",
        Area::Provisioner,
    ),
];

/// What is missing, if that operation is one of PVC 1.0.3 that this release does not carry out. `path` is the part
/// below `/api/v1`.
pub(crate) fn find(method: &Method, path: &str) -> Option<Area> {
    OPERATIONS
        .iter()
        .find(|(methods, pattern, _)| methods.contains(method) && matches(pattern, path))
        .map(|(_, _, area)| *area)
}

fn matches(pattern: &str, path: &str) -> bool {
    let mut parts = path.split('/');
    let fits = pattern.split('/').all(|wanted| {
        parts
            .next()
            .is_some_and(|part| part == wanted || (wanted.starts_with('{') && !part.is_empty()))
    });
    fits && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_found_by_method_and_path() {
        assert_eq!(find(&Method::POST, "/network"), Some(Area::Networks));
        assert_eq!(find(&Method::PUT, "/network/100"), Some(Area::Networks));
        assert_eq!(find(&Method::POST, "/vm/web/snapshot"), Some(Area::VmSnapshots));
        assert_eq!(
            find(&Method::PATCH, "/vm/web/snapshot/receive/block"),
            Some(Area::VmMirrors)
        );
        for (method, path) in [
            (Method::GET, "/network"),
            (Method::PUT, "/network/"),
            (Method::PUT, "/network/100/200"),
            (Method::POST, "/vm/web"),
            (Method::PATCH, "/vm/web/snapshot"),
            (Method::POST, ""),
        ] {
            assert_eq!(find(&method, path), None, "{method} {path}");
        }
    }
}
