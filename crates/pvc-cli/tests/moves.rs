//! `pvc vm migrate|unmigrate|move` against a real API server over a store in memory.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../../pvcapid/tests/common/mod.rs"]
mod common;
mod program;

use common::{Agents, Cluster, guest_xml, node, vm_id};
use program::{done, pvc};
use pvc_common::keys;
use pvc_core::states::VmState;

/// A guest that runs on hv1.
fn running(cluster: &Cluster) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("guest.xml");
    std::fs::write(&file, guest_xml("web1", vm_id(1), "")).unwrap();
    done(cluster, &["vm", "define", file.to_str().unwrap(), "-t", "hv1"]);
    cluster.set(&keys::domain(vm_id(1)).state(), &VmState::Start);
    cluster.own(vm_id(1), Some("hv1"));
}

#[test]
fn a_guest_goes_away_and_comes_home() {
    let cluster = Cluster::start();
    running(&cluster);
    let said = done(&cluster, &["vm", "migrate", "web1", "-t", "hv2"]);
    assert!(said.contains("from node hv1 to hv2"), "{said}");
    let again = done(&cluster, &["vm", "migrate", "web1", "-t", "hv2"]);
    assert!(again.contains("already"), "{again}");
    let other = pvc(&cluster, &["vm", "migrate", "web1", "-t", "hv3"]);
    assert_eq!(other.code, 1);
    assert!(other.err.contains("on its way to hv2"), "{other:?}");
    let _agents = Agents::start(&cluster, vec![vm_id(1)]);
    let said = done(&cluster, &["vm", "migrate", "web1", "-t", "hv2", "--wait"]);
    assert!(said.contains("runs on node hv2"), "{said}");
    assert!(done(&cluster, &["vm", "info", "web1"]).contains("from hv1"));
    let twice = pvc(&cluster, &["vm", "migrate", "web1", "-t", "hv3"]);
    assert!(twice.err.contains("unmigrate it first"), "{twice:?}");
    let said = done(&cluster, &["vm", "migrate", "web1", "-t", "hv3", "-f", "-w"]);
    assert!(said.contains("runs on node hv3"), "{said}");
    let said = done(&cluster, &["vm", "unmigrate", "web1", "-w"]);
    assert!(said.contains("runs on node hv1"), "{said}");
    assert!(done(&cluster, &["vm", "unmigrate", "web1", "-w"]).contains("node hv1"));
    let said = done(&cluster, &["vm", "move", "web1", "-w", "--force-live"]);
    assert!(said.contains("runs on node hv"), "{said}");
    assert_eq!(cluster.value(&keys::domain(vm_id(1)).last_node()), None);
    let there = pvc(&cluster, &["vm", "move", "web1", "-t", "hv9"]);
    assert_eq!(there.code, 1);
    assert!(there.err.contains("hv9"), "{there:?}");
}

#[test]
fn a_migration_that_is_called_off_says_why() {
    let cluster = Cluster::start();
    running(&cluster);
    let keys = keys::domain(vm_id(1));
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| pvc(&cluster, &["vm", "migrate", "web1", "-t", "hv2", "-w"]));
        while cluster.value(&keys.state()) != VmState::Migrate {
            std::thread::yield_now();
        }
        cluster.set(
            &keys.failed_reason(),
            &"the migration to hv2 was called off: three tries failed".to_owned(),
        );
        cluster.set(&keys.last_node(), &None);
        cluster.set(&keys.node(), &node("hv1"));
        cluster.set(&keys.state(), &VmState::Start);
        let said = asked.join().unwrap();
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains("three tries failed"), "{said:?}");
        assert!(said.err.contains("hv1"), "{said:?}");
    });
    assert!(done(&cluster, &["vm", "info", "web1"]).contains("three tries failed"));
}
