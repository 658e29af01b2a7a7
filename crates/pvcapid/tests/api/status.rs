//! The cluster as a whole, and a store that fails.

use std::time::Duration;

use futures::executor::block_on;
use pvc_common::clock::{Clock, HostClock};
use pvc_common::faults::{self, Fault};
use pvc_common::keys;
use pvc_common::store::StoreExt as _;
use pvc_core::states::{DaemonState, VmState};
use serde_json::json;

use crate::client::{ask_with, define, eventually, get, post, set_state};
use crate::common::{Cluster, TOKEN, guest_xml, node, vm_id};

#[test]
fn the_status_counts_what_there_is() {
    let cluster = Cluster::start();
    assert_eq!(define(&cluster, &guest_xml("a", vm_id(1), ""), &[]).status, 200);
    cluster.set(&keys::node(&node("hv3")).daemon_state(), &DaemonState::Dead);
    let reply = get(&cluster, "/status");
    assert_eq!(reply.status, 200);
    let status: pvc_api::status::ClusterStatus = serde_json::from_value(reply.body).unwrap();
    assert_eq!(status.cluster_name, "test");
    assert_eq!(status.primary_node, "hv1");
    assert_eq!(status.nodes["total"], 3);
    assert_eq!(status.nodes["run,ready"], 2);
    assert_eq!(status.nodes["dead,ready"], 1);
    assert_eq!(status.vms["stop"], 1);
    assert_eq!(status.resources.memory.total, 48_000);
    assert_eq!(status.cluster_health.health, pvc_api::node::Health::Percent(50));
    assert!(status.cluster_health.messages[0].text.contains("hv3"));

    assert_eq!(post(&cluster, "/status", &[("state", "true")]).status, 200);
    assert_eq!(get(&cluster, "/status").body["maintenance"], json!("true"));
    assert_eq!(post(&cluster, "/status", &[("state", "perhaps")]).status, 400);
}

// A dead node that is told twice, as what is seen and as a fault, would take the whole health, acknowledged or not.
#[test]
fn what_is_on_record_as_a_fault_counts_once_and_can_be_acknowledged() {
    let cluster = Cluster::start();
    assert_eq!(define(&cluster, &guest_xml("web", vm_id(1), ""), &[]).status, 200);
    cluster.set(&keys::node(&node("hv3")).daemon_state(), &DaemonState::Dead);
    cluster.set(&keys::domain(vm_id(1)).state(), &VmState::Fail);
    let health = |cluster: &Cluster| {
        let status = get(cluster, "/status").body;
        let told = status["cluster_health"]["messages"].as_array().unwrap().clone();
        let ids: Vec<String> = told
            .iter()
            .map(|message| message["id"].as_str().unwrap().to_owned())
            .collect();
        (status["cluster_health"]["health"].as_u64().unwrap(), ids)
    };
    let both = ["DEAD_NODE_HV3", "VM_FAILED_WEB"].map(str::to_owned).to_vec();
    assert_eq!(
        health(&cluster),
        (40, both.clone()),
        "before the primary has looked"
    );
    for (words, delta) in [
        (["DEAD_NODE", "hv3"], 50),
        (["VM_FAILED", "web"], 10),
        (["PLAIN", "hv1"], 0),
    ] {
        let fault = Fault::new(&words, delta, "is wrong");
        futures::executor::block_on(faults::raise(&cluster.store, &HostClock, &fault)).unwrap();
    }
    let all = [both, vec!["PLAIN_HV1".to_owned()]].concat();
    assert_eq!(health(&cluster), (40, all));
    assert_eq!(
        ask_with(&cluster, TOKEN, "PUT", "/faults/DEAD_NODE_HV3", None).status,
        200
    );
    let left = ["VM_FAILED_WEB", "PLAIN_HV1"].map(str::to_owned).to_vec();
    assert_eq!(health(&cluster), (90, left), "somebody knows of the node");
}

#[test]
fn without_quorum_every_route_answers_within_two_seconds() {
    let cluster = Cluster::start();
    assert_eq!(define(&cluster, &guest_xml("web", vm_id(1), ""), &[]).status, 200);
    cluster.server.lose_quorum();
    // What was known is shown for a while, and every answer comes at once.
    assert_eq!(get(&cluster, "/vm/web/state").status, 200);
    eventually(|| get(&cluster, "/status").status == 503);
    let clock = HostClock;
    for (method, path, form) in [
        ("GET", "/status", None),
        ("GET", "/status/primary_node", None),
        ("GET", "/node", None),
        ("GET", "/node/hv1", None),
        ("GET", "/node/hv1/daemon-state", None),
        (
            "POST",
            "/node/hv1/coordinator-state",
            Some([("state", "primary")]),
        ),
        ("GET", "/vm", None),
        ("GET", "/vm/web", None),
        ("GET", "/vm/web/state", None),
        ("POST", "/vm/web/state", Some([("state", "start")])),
        ("DELETE", "/vm/web", None),
    ] {
        let begun = clock.now();
        let reply = ask_with(&cluster, TOKEN, method, path, form.as_ref().map(|form| &form[..]));
        assert_eq!(
            (reply.status, reply.code()),
            (503, "store_unavailable"),
            "{method} {path}: {reply:?}"
        );
        assert!(
            clock.now().since(begun) < Duration::from_secs(2),
            "{method} {path}"
        );
    }
    assert_eq!(get(&cluster, "/").status, 200, "what needs no store is answered");
    cluster.server.restore_quorum();
    eventually(|| get(&cluster, "/vm/web").status == 200);
}

#[test]
fn a_write_whose_outcome_is_unknown_is_told_as_such() {
    let cluster = Cluster::start();
    assert_eq!(define(&cluster, &guest_xml("web", vm_id(1), ""), &[]).status, 200);
    // The next write is to be that of the request, not the log's of the one before.
    let notes = || block_on(cluster.store.children_as(&keys::audit_notes())).unwrap();
    eventually(|| notes().is_empty());
    cluster
        .api
        .hide_next_write(pvc_common::store::memory::Fate::Applied);
    let reply = set_state(&cluster, "web", "start");
    assert_eq!(
        (reply.status, reply.code()),
        (503, "outcome_unknown"),
        "{reply:?}"
    );
    assert_eq!(cluster.value(&keys::domain(vm_id(1)).state()), VmState::Start);
}
