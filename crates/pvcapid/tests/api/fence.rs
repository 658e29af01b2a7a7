//! Fences: what an administrator sees and can confirm.

use pvc_common::keys;
use pvc_core::fence::{
    ConfirmationKind, FencePhase, FenceRecord, PowerTrack, ProofKind, RestartTrack, StorageTrack,
};
use pvc_core::records::{BmcIdentity, BmcReport};
use pvc_core::states::DaemonState;
use serde_json::{Value, json};

use crate::client::{define, get, post};
use crate::common::{Cluster, guest_xml, incarnation, lease, node, vm_id};

fn confirm(cluster: &Cluster, name: &str, kind: &str) -> crate::client::Reply {
    post(cluster, &format!("/fence/{name}/confirm"), &[("kind", kind)])
}

fn put(cluster: &Cluster, change: impl FnOnce(&mut FenceRecord)) {
    let mut record = FenceRecord::suspected(incarnation(), node("hv1"));
    record.note(1_795_384_000, &node("hv1"), "silent for 6 s");
    change(&mut record);
    cluster.set(&keys::fence(&node("hv3")), &Some(record));
}

fn record(cluster: &Cluster) -> FenceRecord {
    cluster.value(&keys::fence(&node("hv3"))).unwrap()
}

#[test]
fn every_node_has_one_entry_and_it_says_who_is_suspect_and_why() {
    let cluster = Cluster::start();
    let list = get(&cluster, "/fence").body;
    assert_eq!(list.as_array().unwrap().len(), 3);
    assert_eq!(list[2]["state"], json!("none"));
    cluster.set(
        &keys::node(&node("hv3")).bmc(),
        &Some(BmcReport {
            works: false,
            reason: "no answer within 3 s".to_owned(),
            identity: BmcIdentity::Unverified {
                reason: "never read".to_owned(),
            },
            tried_at: 1_795_383_000,
        }),
    );
    put(&cluster, |record| {
        record.phase = FencePhase::Proving;
        record.power = PowerTrack::Failed {
            reason: "the BMC did not answer".to_owned(),
        };
        record.storage = StorageTrack::Barring;
        record.waits_for = "OSD 2 does not answer".to_owned();
        record.next_try_at = Some(1_795_384_010);
    });
    cluster.set(&keys::node(&node("hv3")).daemon_state(), &DaemonState::Dead);
    let shown = get(&cluster, "/fence/hv3").body;
    assert_eq!(shown["state"], json!("proving"));
    assert_eq!(shown["open"], json!(true));
    assert_eq!(shown["next"], json!("It waits: OSD 2 does not answer"));
    assert_eq!(shown["next_try_at"], json!(1_795_384_010));
    assert_eq!(shown["missing"].as_array().unwrap().len(), 3);
    assert_eq!(shown["fence"]["events"][0]["text"], json!("silent for 6 s"));
    assert_eq!(shown["bmc"]["works"], json!(false));
    let status = get(&cluster, "/status").body;
    assert_eq!(status["fences"][0]["node"], json!("hv3"));
    let found = get(&cluster, "/node/hv3").body;
    assert_eq!(found[0]["fence"], json!("proving"));
    assert_eq!(found[0]["fence_open"], json!(true));
    assert_eq!(get(&cluster, "/fence/hv9").status, 404);
}

#[test]
fn guests_of_the_dead_boot_are_named_and_no_others() {
    // Recovery that leaves one behind must be seen by its name.
    let cluster = Cluster::start();
    for (index, name) in [(1, "a"), (2, "b")] {
        assert_eq!(
            define(&cluster, &guest_xml(name, vm_id(index), ""), &[("node", "hv3")]).status,
            200
        );
    }
    cluster.own(vm_id(1), Some("hv3"));
    cluster.own(vm_id(2), Some("hv2"));
    put(&cluster, |record| {
        record.phase = FencePhase::Recovering {
            by: ProofKind::Storage,
        };
        record.storage = StorageTrack::Barred {
            epoch: 12,
            clients: 1,
            not_covered: vec![vm_id(1)],
        };
        record.left = vec![vm_id(1)];
        record.parked = vec![vm_id(2)];
        record.restart = RestartTrack::NotDue;
    });
    let shown = get(&cluster, "/fence/hv3").body;
    assert_eq!(shown["fence"]["guests_owned"], json!(["a"]));
    assert_eq!(shown["fence"]["guests_left"], json!(["a"]));
    assert_eq!(shown["fence"]["guests_parked"], json!(["b"]));
    assert_eq!(shown["proof"], json!("storage"));
    assert_eq!(shown["can_confirm"], json!(["machine-is-off"]));
}

#[test]
fn a_confirmation_is_written_once_and_says_by_whom() {
    let cluster = Cluster::start();
    put(&cluster, |_| {});
    assert_eq!(confirm(&cluster, "hv3", "proceed").status, 200);
    let written = record(&cluster).confirmation.unwrap();
    assert_eq!(written.kind, ConfirmationKind::Proceed);
    assert_eq!(written.by, "token \"tests\"");
    assert_eq!(record(&cluster).events.len(), 2);
    assert_eq!(confirm(&cluster, "hv3", "proceed").status, 200, "so already");
    assert_eq!(record(&cluster).events.len(), 2, "nothing was written");
    let reply = confirm(&cluster, "hv3", "machine-is-off");
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(
        record(&cluster).confirmation.unwrap().kind,
        ConfirmationKind::MachineIsOff
    );
    // The weaker word does not take the stronger back.
    assert_eq!(confirm(&cluster, "hv3", "proceed").status, 200);
    assert_eq!(
        record(&cluster).confirmation.unwrap().kind,
        ConfirmationKind::MachineIsOff
    );
}

#[test]
fn nothing_is_confirmed_where_nothing_is_open() {
    let cluster = Cluster::start();
    let check = |kind: &str, status: u16, words: &str| {
        let reply = confirm(&cluster, "hv3", kind);
        assert_eq!(reply.status, status, "{kind}: {reply:?}");
        assert!(reply.message().contains(words), "{reply:?}");
    };
    check("machine-is-off", 409, "no fence");
    check("proceed", 409, "no fence");
    check("perhaps", 400, "machine-is-off");
    put(&cluster, |record| {
        record.phase = FencePhase::Done { by: ProofKind::Power };
    });
    check("machine-is-off", 409, "done");
    put(&cluster, |record| {
        record.phase = FencePhase::Proving;
        record.power = PowerTrack::Off;
    });
    check("machine-is-off", 409, "goes on without");
    check("proceed", 409, "goes on without");
    assert_eq!(confirm(&cluster, "hv9", "proceed").status, 404);
    assert_eq!(record(&cluster).confirmation, None);
    let list: Value = get(&cluster, "/fence").body;
    assert_eq!(list[2]["can_confirm"], json!([]));
}

#[test]
fn a_node_that_renews_its_lease_is_not_off_whoever_says_so() {
    // Somebody pulls the plug of hv2 and types hv3: hv3's guests would run twice.
    let cluster = Cluster::start();
    put(&cluster, |_| {});
    let key = keys::lease_node(&node("hv3"));
    cluster.set(&key, &Some(lease(1)));
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| confirm(&cluster, "hv3", "machine-is-off"));
        let mut counter = 1;
        while !asked.is_finished() {
            counter += 1;
            cluster.set(&key, &Some(lease(counter)));
            std::thread::yield_now();
        }
        let reply = asked.join().unwrap();
        assert_eq!(reply.status, 409, "{reply:?}");
        assert!(reply.message().contains("renewed its lease"), "{reply:?}");
    });
    assert_eq!(record(&cluster).confirmation, None);
}
