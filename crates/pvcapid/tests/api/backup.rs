//! Backups of the store: making one, putting one back, making the store anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::executor::block_on;
use pvc_common::keys;
use pvc_common::keys::values::Maintenance;
use pvc_common::secret::Secret;
use pvc_common::store::{StoreExt, Txn};
use pvc_core::hold::{HoldPhase, HoldReason, HoldRecord, RestorePhase, RestoreRecord};
use pvc_core::states::VmState;
use serde_json::{Map, Value, json};

use crate::client::{define, eventually, get, post};
use crate::common::{Cluster, commit, guest_xml, incarnation, lease, node, vm_id};

const YES: (&str, &str) = ("yes-i-really-mean-it", "yes");

/// A backup as a client gets it.
fn backup(cluster: &Cluster, query: &str) -> String {
    let reply = get(cluster, &format!("/backup{query}"));
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.body.as_str().unwrap().to_owned()
}

fn values(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap()
}

fn start() -> Cluster {
    let cluster = Cluster::start();
    assert_eq!(define(&cluster, &guest_xml("web", vm_id(1), ""), &[]).status, 200);
    cluster
}

#[test]
fn a_backup_has_what_was_ordered_and_nothing_that_is_of_the_moment() {
    let cluster = start();
    cluster.own(vm_id(1), Some("hv1"));
    let password = keys::node(&node("hv1")).ipmi_password();
    commit(
        &cluster.store,
        Txn::new().create(&password, &Secret::new("hunter2")),
    );
    eventually(|| backup(&cluster, "?secrets=true").contains("hunter2"));
    let text = backup(&cluster, "");
    assert!(!text.contains("hunter2"), "a secret only if it is asked for");
    let found = values(&text);
    assert_eq!(found[&format!("/domains/{}", vm_id(1))], json!("web"));
    assert_eq!(found["/nodes/hv2/daemonmode"], json!("coordinator"));
    assert_eq!(found["/schema/version"], json!("16"));
    for path in found.keys() {
        let of_the_moment = ["/leases", "/fences", "/faults", "/config/primary_node"]
            .iter()
            .any(|root| path.starts_with(root))
            || path.ends_with("/owner")
            || path.ends_with("/incoming")
            || path.ends_with("/hold");
        assert!(!of_the_moment, "{path}");
    }
    assert_eq!(get(&cluster, "/backup?secrets=perhaps").status, 400);
}

#[test]
fn a_backup_is_put_back_whole_and_says_so_to_every_agent() {
    let cluster = start();
    eventually(|| backup(&cluster, "").contains("web"));
    let text = backup(&cluster, "");
    // What has changed since.
    cluster.set(&keys::domain(vm_id(1)).state(), &VmState::Start);
    cluster.set(&keys::config().maintenance(), &Maintenance::On);
    assert_eq!(define(&cluster, &guest_xml("db", vm_id(2), ""), &[]).status, 200);
    cluster.own(vm_id(1), Some("hv1"));

    let reply = post(&cluster, "/restore", &[YES, ("cluster_data", &text)]);
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(cluster.value(&keys::domain(vm_id(1)).state()), VmState::Stop);
    assert_eq!(cluster.value(&keys::config().maintenance()), Maintenance::Off);
    assert!(cluster.get(&keys::domain(vm_id(2)).name()).is_none());
    assert!(
        cluster.value(&keys::domain(vm_id(1)).owner()).is_some(),
        "where it runs is no matter of a backup"
    );
    let restore = cluster.value(&keys::config().restore()).unwrap();
    assert_eq!(restore.phase, RestorePhase::Done);
    // Once more changes nothing, and is another restore.
    let reply = post(&cluster, "/restore", &[YES, ("cluster_data", &text)]);
    assert!(reply.message().contains(" 0 changes"), "{}", reply.message());
    assert_ne!(cluster.value(&keys::config().restore()).unwrap().id, restore.id);
}

#[test]
fn nothing_is_touched_by_what_is_no_backup_or_not_confirmed() {
    let cluster = start();
    eventually(|| backup(&cluster, "").contains("web"));
    let text = backup(&cluster, "");
    cluster.set(&keys::domain(vm_id(1)).state(), &VmState::Start);
    let mut broken = values(&text);
    broken.insert(format!("/domains/{}/state", vm_id(1)), json!("dancing"));
    let broken = Value::Object(broken).to_string();
    let earlier = text.replace("\"/schema/version\":\"16\"", "\"/schema/version\":\"15\"");
    for (form, word) in [
        (vec![("cluster_data", text.as_str())], "yes-i-really-mean-it"),
        (
            vec![("yes-i-really-mean-it", ""), ("cluster_data", text.as_str())],
            "yes-i-really-mean-it",
        ),
        (vec![YES], "cluster_data"),
        (vec![YES, ("cluster_data", "{")], "cluster_data"),
        (vec![YES, ("cluster_data", "[1]")], "cluster_data"),
        (vec![YES, ("cluster_data", &broken)], "dancing"),
        (vec![YES, ("cluster_data", &earlier)], "schema 15"),
    ] {
        let reply = post(&cluster, "/restore", &form);
        assert_eq!(reply.status, 400, "{word}: {reply:?}");
        assert!(reply.message().contains(word), "{word}: {}", reply.message());
    }
    // A guest that runs would be left to itself.
    assert_eq!(define(&cluster, &guest_xml("db", vm_id(2), ""), &[]).status, 200);
    cluster.own(vm_id(2), Some("hv2"));
    eventually(|| get(&cluster, "/vm/db").body[0]["owner"] == json!("hv2"));
    let reply = post(&cluster, "/restore", &[YES, ("cluster_data", &text)]);
    assert_eq!(reply.status, 409, "{reply:?}");
    assert!(reply.message().contains(&vm_id(2).to_string()));
    assert_eq!(cluster.value(&keys::domain(vm_id(1)).state()), VmState::Start);
    assert_eq!(cluster.value(&keys::config().restore()), None);
}

// An agent that went on acting would start guests where the backup has them while they run elsewhere.
#[test]
fn nothing_is_written_before_every_living_agent_holds_still() {
    let cluster = start();
    eventually(|| backup(&cluster, "").contains("web"));
    let text = backup(&cluster, "");
    cluster.set(&keys::domain(vm_id(1)).state(), &VmState::Start);
    let stop = Arc::new(AtomicBool::new(false));
    let (store, stopped) = (cluster.store.clone(), stop.clone());
    let agent = std::thread::spawn(move || {
        let (mut counter, mut seen_at_hold) = (0, None);
        let mut looks = 0;
        while !stopped.load(Ordering::Relaxed) {
            counter += 1;
            let renewed = Txn::new().overwrite(&keys::lease_node(&node("hv2")), &Some(lease(counter)));
            commit(&store, renewed);
            let restore = block_on(store.require(&keys::config().restore())).unwrap().value;
            if let Some(RestoreRecord { id, .. }) = restore
                && seen_at_hold.is_none()
            {
                looks += 1;
                // It takes its time.
                if looks > 20 {
                    let state = block_on(store.require(&keys::domain(vm_id(1)).state())).unwrap();
                    seen_at_hold = Some(state.value);
                    let hold = HoldRecord {
                        incarnation: incarnation(),
                        phase: HoldPhase::Held {
                            reason: HoldReason::Restored { id },
                        },
                        since: 1,
                        running: Vec::new(),
                        adopted: Vec::new(),
                        trouble: Vec::new(),
                    };
                    commit(
                        &store,
                        Txn::new().overwrite(&keys::node(&node("hv2")).hold(), &Some(hold)),
                    );
                }
            }
            std::thread::park_timeout(std::time::Duration::from_millis(50));
        }
        seen_at_hold
    });
    let reply = post(&cluster, "/restore", &[YES, ("cluster_data", &text)]);
    assert_eq!(reply.status, 200, "{reply:?}");
    stop.store(true, Ordering::Relaxed);
    assert_eq!(agent.join().unwrap(), Some(VmState::Start), "as it was before");
    assert_eq!(cluster.value(&keys::domain(vm_id(1)).state()), VmState::Stop);
}

#[test]
fn a_store_that_is_half_restored_is_not_taken_for_the_truth() {
    let cluster = start();
    let restore = RestoreRecord {
        id: "r1".to_owned(),
        by: "tests".to_owned(),
        at: 1,
        phase: RestorePhase::Writing,
    };
    cluster.set(&keys::config().restore(), &Some(restore));
    let reply = post(&cluster, "/status/adopt", &[]);
    assert_eq!(reply.status, 409);
    assert!(
        reply.message().contains("put it back again"),
        "{}",
        reply.message()
    );
}

#[test]
fn a_store_is_made_anew_only_on_purpose_and_never_under_a_guest() {
    let cluster = start();
    assert_eq!(post(&cluster, "/initialize", &[]).status, 400);
    for overwrite in ["", "true", "False", "yes"] {
        let reply = post(&cluster, "/initialize", &[YES, ("overwrite", overwrite)]);
        assert_eq!(reply.status, 409, "{overwrite}: {reply:?}");
    }
    cluster.own(vm_id(1), Some("hv1"));
    eventually(|| get(&cluster, "/vm/web").body[0]["owner"] == json!("hv1"));
    let reply = post(&cluster, "/initialize", &[YES, ("overwrite", "True")]);
    assert_eq!(reply.status, 409);
    assert!(
        reply.message().contains(&vm_id(1).to_string()),
        "{}",
        reply.message()
    );
    cluster.own(vm_id(1), None);
    eventually(|| get(&cluster, "/vm/web").body[0]["owner"] == json!(""));
    // Somebody starts a guest while the agents are looked for.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            eventually(|| cluster.server.peek("/schema").is_none());
            cluster.own(vm_id(1), Some("hv1"));
        });
        let reply = post(&cluster, "/initialize", &[YES, ("overwrite", "True")]);
        assert_eq!(reply.status, 409, "{reply:?}");
    });
    assert!(cluster.server.peek("/schema").is_some());
    cluster.own(vm_id(1), None);
    let reply = post(&cluster, "/initialize", &[YES, ("overwrite", "True")]);
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(cluster.get(&keys::domain(vm_id(1)).name()).is_none());
    assert!(cluster.get(&keys::config().fence_lock()).is_some());
    eventually(|| get(&cluster, "/node").status == 404);
}
