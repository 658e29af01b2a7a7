//! Moving guests from node to node.

use std::time::Duration;

use pvc_common::keys;
use pvc_common::keys::values::CommaList;
use pvc_common::store::Txn;
use pvc_core::records::{Incoming, Record};
use pvc_core::states::{DomainState, MigrationMethod, VmState};
use serde_json::json;

use crate::client::{Reply, ask_with, define, eventually, get, post};
use crate::common::{Cluster, TOKEN, commit, guest_xml, incarnation, node, vm_id};

/// A guest that runs on hv1.
fn running(cluster: &Cluster, index: u8) -> String {
    let name = format!("vm{index}");
    let xml = guest_xml(&name, vm_id(index), "");
    assert_eq!(define(cluster, &xml, &[("node", "hv1")]).status, 200);
    cluster.set(&keys::domain(vm_id(index)).state(), &VmState::Start);
    cluster.own(vm_id(index), Some("hv1"));
    name
}

fn ask(cluster: &Cluster, vm: &str, form: &[(&str, &str)]) -> Reply {
    post(cluster, &format!("/vm/{vm}/node"), form)
}

/// What the guest's node writes when it begins to send it.
fn incoming(target: &str) -> Incoming {
    let stored = json!({
        "v": 1,
        "target": target,
        "incarnation": incarnation(),
        "ceph_clients": "unrecorded",
    });
    Incoming::decode(stored.to_string().as_bytes()).unwrap()
}

fn place(cluster: &Cluster, index: u8) -> (VmState, String, String) {
    let keys = keys::domain(vm_id(index));
    (
        cluster.value(&keys.state()),
        cluster.value(&keys.node()).to_string(),
        cluster
            .value(&keys.last_node())
            .map(|node| node.to_string())
            .unwrap_or_default(),
    )
}

fn expect(cluster: &Cluster, index: u8, state: VmState, node: &str, home: &str) {
    assert_eq!(place(cluster, index), (state, node.to_owned(), home.to_owned()));
}

#[test]
fn a_guest_is_sent_once_and_memory_is_reserved_for_it() {
    let cluster = Cluster::start();
    running(&cluster, 1);
    cluster.set(
        &keys::domain(vm_id(1)).failed_reason(),
        &"an earlier migration failed".to_owned(),
    );
    let to_hv2 = [("action", "migrate"), ("node", "hv2")];
    let reply = ask(&cluster, "vm1", &to_hv2);
    assert_eq!(reply.status, 200, "{reply:?}");
    expect(&cluster, 1, VmState::Migrate, "hv2", "hv1");
    assert_eq!(cluster.value(&keys::domain(vm_id(1)).failed_reason()), "");
    let reserved = cluster.value(&keys::node(&node("hv2")).reserved()).unwrap();
    assert_eq!((reserved.placements, reserved.memory_mib), (1, 512));
    // Asked for again by an impatient administrator: success, and nothing is written.
    let version = cluster.get(&keys::domain(vm_id(1)).state()).unwrap().version;
    assert_eq!(ask(&cluster, "vm1", &to_hv2).status, 200);
    assert_eq!(
        cluster.get(&keys::domain(vm_id(1)).state()).unwrap().version,
        version
    );
    let other = ask(&cluster, "vm1", &[("action", "migrate"), ("node", "hv3")]);
    assert_eq!(other.status, 409, "lesson 45: {other:?}");
    // It has arrived.
    cluster.own(vm_id(1), Some("hv2"));
    cluster.set(&keys::domain(vm_id(1)).state(), &VmState::Start);
    assert_eq!(
        ask(&cluster, "vm1", &[("action", "migrate"), ("node", "hv3")]).status,
        409
    );
    assert_eq!(ask(&cluster, "vm1", &[("action", "unmigrate")]).status, 200);
    expect(&cluster, 1, VmState::Unmigrate, "hv1", "");
}

#[test]
fn a_target_that_can_not_take_the_guest_is_refused_with_the_reason() {
    let cluster = Cluster::start();
    running(&cluster, 1);
    let check = |form: &[(&str, &str)], status: u16, words: &str| {
        let reply = ask(&cluster, "vm1", form);
        assert_eq!(reply.status, status, "{form:?} {reply:?}");
        assert!(reply.message().contains(words), "{form:?} {reply:?}");
    };
    check(&[], 400, "'action'");
    check(&[("action", "teleport")], 400, "unmigrate");
    check(&[("action", "migrate"), ("node", "hv9")], 400, "hv9");
    check(&[("action", "migrate"), ("node", "hv1")], 400, "already");
    cluster.set(
        &keys::domain(vm_id(1)).node_limit(),
        &CommaList(vec![node("hv1"), node("hv2")]),
    );
    check(&[("action", "move"), ("node", "hv3")], 400, "node limit");
    cluster.set(&keys::node(&node("hv2")).domain_state(), &DomainState::Flushed);
    check(&[("action", "move"), ("node", "hv2")], 409, "flushed");
    check(&[("action", "move")], 409, "flushed");
    cluster.set(&keys::node(&node("hv2")).domain_state(), &DomainState::Ready);
    cluster.set(&keys::node(&node("hv2")).memory_total_mib(), &500);
    check(&[("action", "move"), ("node", "hv2")], 409, "500 MiB in all");
    cluster.set(&keys::node(&node("hv2")).memory_total_mib(), &16_000);
    cluster.set(
        &keys::domain(vm_id(1)).migration_method(),
        &MigrationMethod::Shutdown,
    );
    check(
        &[("action", "move"), ("node", "hv2"), ("force_live", "true")],
        400,
        "force_live",
    );
    assert_eq!(ask(&cluster, "none", &[("action", "move")]).status, 404);
    expect(&cluster, 1, VmState::Start, "hv1", "");
    // A guest that does not run changes its place only, even if nobody is there yet.
    cluster.set(&keys::domain(vm_id(1)).state(), &VmState::Stop);
    check(&[("action", "move"), ("node", "hv2")], 409, "may still exist");
    cluster.own(vm_id(1), None);
    cluster.set(&keys::node(&node("hv2")).domain_state(), &DomainState::Flushed);
    check(&[("action", "move"), ("node", "hv2")], 200, "hv2");
    expect(&cluster, 1, VmState::Stop, "hv2", "");
}

#[test]
fn guests_that_should_be_apart_are_put_together_only_on_purpose() {
    let cluster = Cluster::start();
    for index in 1..=2 {
        running(&cluster, index);
        cluster.set(
            &keys::domain(vm_id(index)).anti_affinity(),
            &CommaList(vec!["db".parse().unwrap()]),
        );
    }
    assert_eq!(
        ask(&cluster, "vm1", &[("action", "move"), ("node", "hv2")]).status,
        200
    );
    let reply = ask(&cluster, "vm2", &[("action", "migrate"), ("node", "hv2")]);
    assert_eq!(reply.status, 409, "{reply:?}");
    assert!(
        reply.message().contains("db") && reply.message().contains("force"),
        "{reply:?}"
    );
    assert_eq!(ask(&cluster, "vm2", &[("action", "migrate")]).status, 200);
    expect(&cluster, 2, VmState::Migrate, "hv3", "hv1");
    assert_eq!(get(&cluster, "/vm/vm2").body[0]["anti_affinity"], json!(["db"]));
}

#[test]
fn two_who_place_at_one_time_do_not_give_the_same_memory_away() {
    // hv2 has room for one of them. Without the reservation both would see it free, and the second guest would push
    // the node out of memory.
    let cluster = Cluster::start();
    cluster.set(&keys::node(&node("hv2")).memory_total_mib(), &1000);
    for index in 1..=6 {
        running(&cluster, index);
    }
    let replies: Vec<Reply> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=6)
            .map(|index| {
                let cluster = &cluster;
                scope.spawn(move || {
                    ask(
                        cluster,
                        &format!("vm{index}"),
                        &[("action", "move"), ("node", "hv2")],
                    )
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let done = replies.iter().filter(|reply| reply.status == 200).count();
    assert_eq!(done, 1, "{replies:?}");
    assert!(
        replies.iter().all(|reply| [200, 409].contains(&reply.status)),
        "{replies:?}"
    );
}

#[test]
fn of_moves_of_one_guest_at_a_time_one_is_made() {
    // Lesson 41: two requests must not mix one's target with the other's home.
    let cluster = Cluster::start();
    running(&cluster, 1);
    let replies: Vec<Reply> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|index| {
                let cluster = &cluster;
                let target = if index % 2 == 0 { "hv2" } else { "hv3" };
                scope.spawn(move || ask(cluster, "vm1", &[("action", "migrate"), ("node", target)]))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (state, target, home) = place(&cluster, 1);
    assert_eq!((state, home.as_str()), (VmState::Migrate, "hv1"));
    for (index, reply) in replies.iter().enumerate() {
        let asked = if index % 2 == 0 { "hv2" } else { "hv3" };
        let expected = if asked == target { 200 } else { 409 };
        assert_eq!(reply.status, expected, "{asked} {target} {reply:?}");
    }
}

#[test]
fn fifty_who_wait_for_migrations_hold_up_nobody() {
    // Defect D5: eight waiting requests froze the whole API of 1.0.3 for good.
    let cluster = Cluster::start();
    for index in 1..=50 {
        running(&cluster, index);
    }
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (1..=50)
            .map(|index| {
                let cluster = &cluster;
                scope.spawn(move || {
                    ask(
                        cluster,
                        &format!("vm{index}"),
                        &[("action", "migrate"), ("wait", "true")],
                    )
                })
            })
            .collect();
        for index in 1..=50 {
            eventually(|| cluster.value(&keys::domain(vm_id(index)).state()) == VmState::Migrate);
        }
        assert_eq!(get(&cluster, "/node").status, 200);
        assert_eq!(get(&cluster, "/vm/vm7/state").body["state"], json!("migrate"));
        assert!(waiting.iter().all(|thread| !thread.is_finished()));
        // One goes halfway, and is not at its end by that.
        let target = cluster.value(&keys::domain(vm_id(1)).node());
        cluster.set(
            &keys::domain(vm_id(1)).incoming(),
            &Some(incoming(target.as_str())),
        );
        assert_eq!(
            get(&cluster, "/vm/vm1").body[0]["incoming"],
            json!(target.to_string())
        );
        assert!(!waiting[0].is_finished());
        // One is called off by its node, and said why.
        let keys50 = keys::domain(vm_id(50));
        commit(
            &cluster.store,
            Txn::new()
                .overwrite(&keys50.failed_reason(), &"three tries failed".to_owned())
                .overwrite(&keys50.node(), &node("hv1"))
                .overwrite(&keys50.state(), &VmState::Start),
        );
        for index in 1..=49 {
            let keys = keys::domain(vm_id(index));
            let target = cluster.value(&keys.node());
            cluster.own(vm_id(index), Some(target.as_str()));
            cluster.set(&keys.state(), &VmState::Start);
        }
        let replies: Vec<Reply> = waiting.into_iter().map(|thread| thread.join().unwrap()).collect();
        for reply in &replies[..49] {
            assert_eq!(reply.status, 200, "{reply:?}");
            assert!(reply.message().contains("runs on node"), "{reply:?}");
        }
        assert_eq!(replies[49].status, 409, "{:?}", replies[49]);
        assert!(replies[49].message().contains("stays on hv1: three tries failed"));
    });
}

#[test]
fn a_wait_for_a_move_ends_when_nothing_goes_on() {
    let cluster = Cluster::impatient(Duration::from_millis(300));
    running(&cluster, 1);
    cluster.set(
        &keys::domain(vm_id(1)).migration_method(),
        &MigrationMethod::Shutdown,
    );
    let reply = ask(&cluster, "vm1", &[("action", "move"), ("wait", "true")]);
    assert_eq!((reply.status, reply.code()), (504, "wait_timeout"), "{reply:?}");
    assert!(reply.message().contains("hv1 still holds it"), "{reply:?}");
}

// A half of it may be on that node: without its record nobody would ever end that.
#[test]
fn a_guest_that_is_on_its_way_is_not_removed() {
    let cluster = Cluster::start();
    let xml = guest_xml("vm1", vm_id(1), "");
    assert_eq!(define(&cluster, &xml, &[("node", "hv1")]).status, 200);
    let key = keys::domain(vm_id(1)).incoming();
    cluster.set(&key, &Some(incoming("hv2")));
    let remove = || ask_with(&cluster, TOKEN, "DELETE", "/vm/vm1", None);
    let reply = remove();
    assert_eq!((reply.status, reply.code()), (409, "conflict"), "{reply:?}");
    assert!(reply.message().contains("hv2"), "{reply:?}");
    cluster.set(&key, &None);
    assert_eq!(remove().status, 200);
}
