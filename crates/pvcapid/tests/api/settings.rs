//! How guests are placed, moved and recovered, and nodes on hold.

use pvc_common::keys;
use pvc_common::keys::values::CommaList;
use pvc_core::hold::{HoldPhase, HoldReason, HoldRecord};
use pvc_core::states::VmState;
use serde_json::json;

use crate::client::{ask_with, define, get, post};
use crate::common::{Cluster, TOKEN, guest_xml, incarnation, lease, node, rbd_disk, vm_id};

#[test]
fn settings_are_shown_and_changed_one_by_one() {
    let cluster = Cluster::start();
    let xml = guest_xml("web", vm_id(1), "");
    let more = [
        ("recovery_priority", "5"),
        ("anti_affinity", "db"),
        ("node", "hv1"),
    ];
    assert_eq!(define(&cluster, &xml, &more).status, 200);
    let before = get(&cluster, "/vm/web/meta").body;
    assert_eq!(
        before,
        json!({"name": "web", "node_limit": null, "node_selector": "none", "node_autostart": "False",
               "migration_method": "none", "migration_max_downtime": 300, "recovery_priority": 5,
               "anti_affinity": ["db"]})
    );
    let change = |form: &[(&str, &str)]| post(&cluster, "/vm/web/meta", form);
    // A change of one setting leaves the others: 1.0.3's client reset the method each time.
    assert_eq!(change(&[("migration_method", "live")]).status, 200);
    assert_eq!(change(&[("recovery_priority", "-3")]).status, 200);
    let after = get(&cluster, "/vm/web/meta").body;
    assert_eq!(after["migration_method"], json!("live"));
    assert_eq!(after["recovery_priority"], json!(-3));
    assert_eq!(after["anti_affinity"], json!(["db"]));
    let reply = change(&[("limit", "hv2,hv3"), ("autostart", "True"), ("anti_affinity", "")]);
    assert!(reply.message().contains("stays there"), "{reply:?}");
    let vm = &get(&cluster, "/vm/web").body[0];
    assert_eq!(vm["node_limit"], json!(["hv2", "hv3"]));
    assert_eq!(vm["anti_affinity"], json!([]));
    assert_eq!(vm["recovery_priority"], json!(-3));
    assert_eq!(change(&[("limit", "")]).status, 200);
    assert_eq!(get(&cluster, "/vm/web/meta").body["node_limit"], json!(null));
    for (form, name) in [
        (("limit", "hv9"), "'limit'"),
        (("selector", "best"), "'selector'"),
        (("recovery_priority", "high"), "'recovery_priority'"),
        (("anti_affinity", "a b"), "'anti_affinity'"),
        (("autostart", "soon"), "'autostart'"),
    ] {
        let reply = change(&[form]);
        assert_eq!(reply.status, 400, "{form:?} {reply:?}");
        assert!(reply.message().contains(name), "{reply:?}");
    }
    assert_eq!(post(&cluster, "/vm/none/meta", &[("limit", "")]).status, 404);
    assert!(change(&[]).message().contains("nothing"));
}

#[test]
fn guests_of_a_group_are_defined_apart() {
    let cluster = Cluster::start();
    let mut nodes = Vec::new();
    for index in 1..=3 {
        let xml = guest_xml(&format!("db{index}"), vm_id(index), "");
        assert_eq!(define(&cluster, &xml, &[("anti_affinity", "db")]).status, 200);
        cluster.set(&keys::domain(vm_id(index)).state(), &VmState::Start);
        nodes.push(cluster.value(&keys::domain(vm_id(index)).node()));
    }
    nodes.sort();
    nodes.dedup();
    assert_eq!(nodes.len(), 3, "one each: {nodes:?}");
}

fn hold(cluster: &Cluster, name: &str, phase: HoldPhase) {
    cluster.set(
        &keys::node(&node(name)).hold(),
        &Some(HoldRecord {
            incarnation: incarnation(),
            phase,
            since: 1_795_384_000,
            running: vec![vm_id(1)],
            adopted: Vec::new(),
            trouble: Vec::new(),
        }),
    );
}

#[test]
fn an_order_to_adopt_is_given_where_somebody_holds_still() {
    let cluster = Cluster::start();
    let ask = |form: &[(&str, &str)]| post(&cluster, "/status/adopt", form);
    assert_eq!(ask(&[]).status, 409, "nobody is on hold");
    let held = HoldPhase::Held {
        reason: HoldReason::StoreBehind { seen: 9, found: 4 },
    };
    hold(&cluster, "hv1", held.clone());
    hold(&cluster, "hv2", HoldPhase::Free);
    assert!(
        get(&cluster, "/node/hv1").body[0]["hold"]
            .as_str()
            .unwrap()
            .contains("snapshot")
    );
    assert_eq!(get(&cluster, "/status").body["holding"], json!(1));
    assert_eq!(ask(&[("without", "hv9")]).status, 400);
    let reply = ask(&[("without", "hv3")]);
    assert_eq!(reply.status, 200, "{reply:?}");
    let order = cluster.value(&keys::config().adopt()).unwrap();
    assert_eq!(order.by, "token \"tests\"");
    assert_eq!(order.without, [node("hv3")]);
    let adopted = HoldPhase::Adopted {
        order: order.id.clone(),
        waits_for: vec![node("hv2")],
    };
    hold(&cluster, "hv1", adopted);
    assert_eq!(ask(&[("without", "hv3")]).status, 200, "so already");
    assert_eq!(cluster.value(&keys::config().adopt()).unwrap().id, order.id);
    let lease_key = keys::lease_node(&node("hv1"));
    cluster.set(&lease_key, &Some(lease(1)));
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| ask(&[("without", "hv1")]));
        let mut counter = 1;
        while !asked.is_finished() {
            counter += 1;
            cluster.set(&lease_key, &Some(lease(counter)));
            std::thread::yield_now();
        }
        assert_eq!(asked.join().unwrap().status, 409, "it is not off");
    });
    let shown = get(&cluster, "/status/adopt").body;
    assert_eq!(shown["nodes"][0]["state"], json!("adopted"));
    assert_eq!(shown["nodes"][2]["state"], json!("unknown"));
    // It has died since.
    assert_eq!(ask(&[("without", "hv1")]).status, 200);
    let order = cluster.value(&keys::config().adopt()).unwrap();
    assert_eq!(order.without, [node("hv1")]);
}

// After a restore no guest has an owner on record, and all of them may be running.
#[test]
fn while_a_node_is_on_hold_no_volume_changes_hands() {
    let cluster = Cluster::start();
    let web = guest_xml("web", vm_id(1), &rbd_disk("vms/a", ""));
    assert_eq!(define(&cluster, &web, &[]).status, 200);
    // Left on its list, as when a disk was dropped while it ran.
    let listed = CommaList(vec!["vms/a".parse().unwrap(), "vms/b".parse().unwrap()]);
    cluster.set(&keys::domain(vm_id(1)).volumes(), &listed);
    let held = HoldPhase::Held {
        reason: HoldReason::StoreBehind { seen: 9, found: 4 },
    };
    cluster.set(&keys::domain(vm_id(1)).state(), &VmState::Start);
    hold(&cluster, "hv1", held);
    let bare = guest_xml("web", vm_id(1), "");
    let modify = || ask_with(&cluster, TOKEN, "PUT", "/vm/web", Some(&[("xml", bare.as_str())]));
    let remove = || ask_with(&cluster, TOKEN, "DELETE", "/vm/web", None);
    let takes = |volume: &str| {
        let xml = guest_xml("db", vm_id(2), &rbd_disk(volume, ""));
        define(&cluster, &xml, &[])
    };
    for reply in [modify(), remove(), takes("vms/b")] {
        assert_eq!((reply.status, reply.code()), (409, "conflict"), "{reply:?}");
        assert!(reply.message().contains("adopt"), "{reply:?}");
    }
    assert_eq!(
        cluster.value(&keys::domain(vm_id(1)).state()),
        VmState::Start,
        "nothing was asked of it"
    );
    // What the store has lost is defined again before the order.
    assert_eq!(takes("vms/c").status, 200);
    hold(&cluster, "hv1", HoldPhase::Free);
    assert_eq!(modify().status, 200);
    assert_eq!(remove().status, 200);
}

#[test]
fn locks_are_flushed_by_the_guest_s_node_and_never_under_an_owner() {
    let cluster = Cluster::start();
    let xml = guest_xml("web", vm_id(1), "");
    assert_eq!(define(&cluster, &xml, &[("node", "hv1")]).status, 200);
    let ask = |form: &[(&str, &str)]| post(&cluster, "/vm/web/locks", form);
    assert_eq!(
        get(&cluster, "/vm/web/locks").status,
        404,
        "nobody has ordered it"
    );
    cluster.own(vm_id(1), Some("hv2"));
    let owned = ask(&[("force", "true")]);
    assert_eq!(owned.status, 409, "{owned:?}");
    assert!(owned.message().contains("hv2 owns it"), "{owned:?}");
    cluster.own(vm_id(1), None);
    cluster.set(&keys::domain(vm_id(1)).state(), &VmState::Start);
    assert_eq!(ask(&[]).status, 409);
    cluster.set(&keys::domain(vm_id(1)).state(), &VmState::Fail);
    let first = ask(&[]);
    assert_eq!(first.status, 202, "{first:?}");
    assert_eq!(first.body["task_name"], json!("vm.flush_locks"));
    assert_eq!(first.body["run_on"], json!("hv1"));
    let task = first.body["task_id"].as_str().unwrap();
    assert_eq!(first.location, format!("/api/v1/tasks/{task}"));
    assert_eq!(
        get(&cluster, &format!("/tasks/{task}")).body["state"],
        json!("PENDING")
    );
    assert_eq!(ask(&[]).body, first.body, "asked for twice");
    let shown = get(&cluster, "/vm/web/locks").body;
    assert_eq!(shown["state"], json!("ordered"));
    assert_eq!(shown["ordered_by"], json!("token \"tests\""));
    cluster.set(
        &keys::node(&node("hv1")).daemon_state(),
        &pvc_core::states::DaemonState::Stop,
    );
    cluster.set(&keys::lock_flush(vm_id(1)), &None);
    assert!(ask(&[]).message().contains("move the VM"));
}
