//! Nodes and the primary role.

use pvc_common::keys;
use pvc_core::records::PrimaryRecord;
use pvc_core::states::{DaemonMode, DaemonState};
use serde_json::json;

use crate::client::{get, post};
use crate::common::{Cluster, node};

#[test]
fn nodes_are_listed_and_filtered() {
    let cluster = Cluster::start();
    crate::common::add_node(&cluster.store, "hv4", DaemonMode::Hypervisor, 1000);
    let names = |path: &str| -> Vec<String> {
        let reply = get(&cluster, path);
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        let nodes: Vec<pvc_api::node::Node> = serde_json::from_value(reply.body).unwrap();
        nodes.into_iter().map(|node| node.name).collect()
    };
    assert_eq!(names("/node"), ["hv1", "hv2", "hv3", "hv4"]);
    assert_eq!(names("/node?limit=v[23]"), ["hv2", "hv3"]);
    assert_eq!(names("/node?coordinator_state=client"), ["hv4"]);
    assert_eq!(names("/node?daemon_state=run&limit=%5Ehv1"), ["hv1"]);
    assert_eq!(names("/node/hv2"), ["hv2"]);
    assert_eq!(get(&cluster, "/node?limit=zzz").status, 404);
    assert_eq!(get(&cluster, "/node/hv9").status, 404);
    assert_eq!(get(&cluster, "/node/a%2Fb").status, 404);
    for (path, name) in [
        ("/node?limit=(", "'limit'"),
        ("/node?daemon_state=running", "'daemon_state'"),
        ("/node?limit=a&limit=b", "'limit'"),
    ] {
        let reply = get(&cluster, path);
        assert_eq!(reply.status, 400, "{path}");
        assert!(reply.message().contains(name), "{reply:?}");
    }
    let one = get(&cluster, "/node/hv1").body;
    assert_eq!(one[0]["memory"]["free"], json!(8000));
    assert_eq!(one[0]["health"], json!(100));
    assert_eq!(
        get(&cluster, "/node/hv1/daemon-state").body,
        json!({"name": "hv1", "daemon_state": "run"})
    );
    assert_eq!(
        get(&cluster, "/node/hv1/coordinator-state").body,
        json!({"name": "hv1", "coordinator_state": "primary"})
    );
    assert_eq!(
        get(&cluster, "/node/hv1/domain-state").body,
        json!({"name": "hv1", "domain_state": "ready"})
    );
}

#[test]
fn a_node_whose_statistics_can_not_be_read_is_listed_all_the_same() {
    let cluster = Cluster::start();
    let key = keys::node(&node("hv2")).memory_free_mib();
    crate::common::commit(
        &cluster.store,
        pvc_common::store::Txn::new().overwrite_path(key.path(), "lots"),
    );
    assert_eq!(get(&cluster, "/node/hv2").body[0]["memory"]["free"], json!(0));
    assert_eq!(get(&cluster, "/node").status, 200);
}

#[test]
fn the_primary_role_is_handed_on_by_the_record() {
    let cluster = Cluster::start();
    let record = keys::config().primary_node();
    let ask = |name: &str, state: &str| {
        post(
            &cluster,
            &format!("/node/{name}/coordinator-state"),
            &[("state", state)],
        )
    };
    // In 1.0.3 a request was sometimes lost; here it is in the record when the reply is sent.
    assert_eq!(ask("hv2", "primary").status, 200);
    assert_eq!(cluster.value(&record), PrimaryRecord::Node(node("hv2")));
    let version = cluster.get(&record).unwrap().version;
    assert_eq!(ask("hv2", "primary").status, 200, "so already");
    assert_eq!(ask("hv3", "secondary").status, 200, "so already");
    assert_eq!(
        cluster.get(&record).unwrap().version,
        version,
        "nothing was written"
    );
    assert_eq!(ask("hv2", "secondary").status, 200);
    assert_eq!(cluster.value(&record), PrimaryRecord::None);
    assert_eq!(get(&cluster, "/status/primary_node").status, 204);

    cluster.set(&keys::node(&node("hv3")).daemon_state(), &DaemonState::Stop);
    crate::common::add_node(&cluster.store, "hv4", DaemonMode::Hypervisor, 1000);
    for (name, state, status) in [
        ("hv3", "primary", 400),
        ("hv4", "primary", 400),
        ("hv4", "secondary", 400),
        ("hv9", "primary", 404),
        ("hv1", "takeover", 400),
        ("hv1", "", 400),
    ] {
        let reply = ask(name, state);
        assert_eq!(reply.status, status, "{name} {state}: {reply:?}");
    }
    assert_eq!(cluster.value(&record), PrimaryRecord::None);
}
