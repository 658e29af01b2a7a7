//! `pvc fence` against a real API server over a store in memory.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../../pvcapid/tests/common/mod.rs"]
mod common;
mod program;

use common::{Cluster, node};
use program::{done, pvc};
use pvc_common::keys;
use pvc_core::fence::{
    ConfirmationKind, FencePhase, FenceRecord, PowerTrack, ProofKind, RestartTrack, StorageTrack,
};
use pvc_core::records::{BmcIdentity, BmcReport, UpstreamReading};
use pvc_core::states::DaemonState;

fn put(cluster: &Cluster, change: impl FnOnce(&mut FenceRecord)) {
    let mut record = FenceRecord::suspected(common::incarnation(), node("hv1"));
    record.note(
        1_795_384_000,
        &node("hv1"),
        "silent for 6.0 s, last renewal 4711 seen",
    );
    change(&mut record);
    cluster.set(&keys::fence(&node("hv3")), &Some(record));
}

#[test]
fn a_healthy_cluster_has_one_line_a_node() {
    let cluster = Cluster::start();
    cluster.set(
        &keys::node(&node("hv1")).bmc(),
        &Some(BmcReport {
            works: true,
            reason: String::new(),
            identity: BmcIdentity::Verified {
                guid: "31303043-534d-2500-90d8-7a0e4a1b0000".to_owned(),
            },
            tried_at: 1_795_384_000,
        }),
    );
    let text = done(&cluster, &["fence", "list"]);
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(text.lines().nth(1).unwrap().contains("works"), "{text}");
    let text = done(&cluster, &["fence", "show", "hv2"]);
    assert!(text.contains("No fence"), "{text}");
    assert_eq!(pvc(&cluster, &["fence", "show", "hv9"]).code, 3);
}

#[test]
fn a_fence_that_waits_says_for_what_and_what_can_be_done() {
    let cluster = Cluster::start();
    put(&cluster, |record| {
        record.phase = FencePhase::Proving;
        record.attempt = 2;
        record.power = PowerTrack::Failed {
            reason: "the BMC at 10.1.0.13 did not answer within 3 s".to_owned(),
        };
        record.storage = StorageTrack::Unavailable {
            reason: "no storage cluster is configured".to_owned(),
        };
        record.waits_for = "no proof of its death can be had".to_owned();
        record.next_try_at = Some(1_795_384_030);
        record.note(1_795_384_001, &node("hv1"), "power-off ordered");
        record.note(1_795_384_004, &node("hv1"), "the BMC did not answer");
    });
    cluster.set(&keys::node(&node("hv3")).daemon_state(), &DaemonState::Dead);
    let list = done(&cluster, &["fence", "list"]);
    assert!(list.contains("proving"), "{list}");
    assert!(list.contains("pvc fence show hv3"), "{list}");
    let text = done(&cluster, &["fence", "show", "hv3"]);
    for words in [
        "It waits: no proof",
        "2026-11-22 21:47:10 UTC",
        "Power: failed: the BMC at 10.1.0.13 did not answer",
        "pvc fence confirm hv3 machine-is-off",
        "+3 s",
        "attempt 2",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let status = done(&cluster, &["cluster", "status"]);
    assert!(status.contains("hv3 proving"), "{status}");
    let nodes = done(&cluster, &["node", "list"]);
    assert!(nodes.lines().nth(3).unwrap().contains("proving"), "{nodes}");
    let info = done(&cluster, &["node", "info", "hv3"]);
    assert!(info.contains("pvc fence show hv3"), "{info}");
}

#[test]
fn a_machine_is_confirmed_off_only_by_who_means_it() {
    let cluster = Cluster::start();
    put(&cluster, |_| {});
    let asked = pvc(&cluster, &["fence", "confirm", "hv3", "machine-is-off"]);
    assert_eq!(asked.code, 2, "nobody is there to type the name: {asked:?}");
    assert!(asked.err.contains("run twice"), "{asked:?}");
    let read = || -> FenceRecord { cluster.value(&keys::fence(&node("hv3"))).unwrap() };
    assert_eq!(read().confirmation, None);
    assert_eq!(pvc(&cluster, &["fence", "confirm", "hv3", "maybe"]).code, 2);
    let said = done(&cluster, &["fence", "confirm", "hv3", "machine-is-off", "--yes"]);
    assert!(said.contains("counts as switched off"), "{said}");
    assert_eq!(read().confirmation.unwrap().kind, ConfirmationKind::MachineIsOff);
    assert!(done(&cluster, &["fence", "show", "hv3"]).contains("machine-is-off by token \"tests\""));
    let none = pvc(&cluster, &["fence", "confirm", "hv2", "proceed", "-y"]);
    assert_eq!(none.code, 1);
    assert!(none.err.contains("not suspect"), "{none:?}");
}

#[test]
fn a_fence_that_is_over_tells_its_story() {
    let cluster = Cluster::start();
    put(&cluster, |record| {
        record.phase = FencePhase::Done { by: ProofKind::Power };
        record.power = PowerTrack::Off;
        record.storage = StorageTrack::Barred {
            epoch: 120,
            clients: 7,
            not_covered: Vec::new(),
        };
        record.restart = RestartTrack::Done;
    });
    cluster.set(
        &keys::node(&node("hv2")).upstream(),
        &Some(UpstreamReading {
            up: false,
            reason: "eno1 has no carrier".to_owned(),
            changes: 1,
        }),
    );
    let text = done(&cluster, &["fence", "show", "hv3"]);
    assert!(
        text.contains("It is dead (its BMC says that it is off)"),
        "{text}"
    );
    assert!(!text.contains("confirm"), "{text}");
    assert!(!done(&cluster, &["cluster", "status"]).contains("Fences"));
    assert!(done(&cluster, &["node", "info", "hv2"]).contains("no carrier"));
    assert!(done(&cluster, &["cluster", "status"]).contains("no carrier"));
}
