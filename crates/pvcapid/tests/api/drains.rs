//! Emptying nodes and filling them again.

use pvc_common::keys;
use pvc_core::records::{DrainReport, DrainedGuest};
use pvc_core::states::{DaemonState, DomainState};
use serde_json::json;

use crate::client::{Reply, eventually, get, post};
use crate::common::{Cluster, node};

fn ask(cluster: &Cluster, name: &str, state: &str, wait: &str) -> Reply {
    post(
        cluster,
        &format!("/node/{name}/domain-state"),
        &[("state", state), ("wait", wait)],
    )
}

fn report(order: DomainState, total: u32, left: u32) -> Option<DrainReport> {
    Some(DrainReport {
        order,
        began_at: 1_795_384_000,
        ended_at: None,
        total,
        left,
        shut_down: 0,
        guests: vec![DrainedGuest {
            name: "web1".to_owned(),
            is: "moving".to_owned(),
            trouble: String::new(),
        }],
    })
}

#[test]
fn an_order_is_written_for_the_node_and_replaced_by_its_opposite() {
    // Lesson 50.
    let cluster = Cluster::start();
    let state = keys::node(&node("hv2")).domain_state();
    assert_eq!(ask(&cluster, "hv2", "ready", "False").status, 200, "so already");
    assert_eq!(ask(&cluster, "hv2", "flush", "false").status, 200);
    assert_eq!(cluster.value(&state), DomainState::Flush);
    let version = cluster.get(&state).unwrap().version;
    let again = ask(&cluster, "hv2", "flush", "false");
    assert!(again.message().contains("already"), "{again:?}");
    assert_eq!(
        cluster.get(&state).unwrap().version,
        version,
        "nothing was written"
    );
    assert_eq!(ask(&cluster, "hv2", "ready", "false").status, 200);
    assert_eq!(cluster.value(&state), DomainState::Unflush);
    cluster.set(&state, &DomainState::Flushed);
    assert_eq!(ask(&cluster, "hv2", "flush", "true").status, 200, "so already");
    for (name, state, status) in [("hv9", "ready", 404), ("hv2", "flushed", 400), ("hv2", "", 400)] {
        assert_eq!(
            ask(&cluster, name, state, "false").status,
            status,
            "{name} {state}"
        );
    }
    cluster.set(&state, &DomainState::FenceFlush);
    assert_eq!(ask(&cluster, "hv2", "ready", "false").status, 409);
    cluster.set(&state, &DomainState::Ready);
    cluster.set(&keys::node(&node("hv2")).daemon_state(), &DaemonState::Dead);
    let dead = ask(&cluster, "hv2", "flush", "false");
    assert_eq!(dead.status, 409, "nobody would do it: {dead:?}");
}

#[test]
fn who_waits_sees_the_end_or_that_it_was_ordered_otherwise() {
    let cluster = Cluster::start();
    let keys = keys::node(&node("hv2"));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ask(&cluster, "hv2", "flush", "true"));
        eventually(|| cluster.value(&keys.domain_state()) == DomainState::Flush);
        cluster.set(&keys.drain(), &report(DomainState::Flush, 3, 1));
        let shown = get(&cluster, "/node/hv2/domain-state").body;
        assert_eq!(shown["drain"]["left"], json!(1));
        assert_eq!(shown["drain"]["guests"][0]["doing"], json!("moving"));
        assert!(!waiting.is_finished());
        cluster.set(&keys.drain(), &report(DomainState::Flush, 3, 0));
        cluster.set(&keys.domain_state(), &DomainState::Flushed);
        let reply = waiting.join().unwrap();
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(reply.message().contains("3 of 3 guests done"), "{reply:?}");
    });
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ask(&cluster, "hv2", "ready", "true"));
        eventually(|| cluster.value(&keys.domain_state()) == DomainState::Unflush);
        assert_eq!(ask(&cluster, "hv2", "flush", "false").status, 200);
        let reply = waiting.join().unwrap();
        assert_eq!(reply.status, 409, "{reply:?}");
        assert!(reply.message().contains("ordered otherwise"), "{reply:?}");
    });
}
