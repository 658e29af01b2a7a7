//! Records that can not be read, as those of a later release during an upgrade.

use pvc_common::keys;
use pvc_common::store::Txn;
use serde_json::{Value, json};

use crate::client::{agent, ask_with, define, get, set_state};
use crate::common::{Cluster, TOKEN, commit, guest_xml, node, vm_id};

fn write(cluster: &Cluster, path: &str, word: &str) {
    commit(&cluster.store, Txn::new().overwrite_path(path, word));
}

fn messages(cluster: &Cluster) -> Vec<(String, u64)> {
    let status = get(cluster, "/status");
    assert_eq!(status.status, 200, "{status:?}");
    status.body["cluster_health"]["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| {
            (
                message["id"].as_str().unwrap().to_owned(),
                message["health_delta"].as_u64().unwrap(),
            )
        })
        .collect()
}

fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    list.as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] == name)
        .unwrap()
}

fn metrics(cluster: &Cluster) -> String {
    let url = format!("{}/api/v1/metrics", cluster.url());
    let mut response = agent().get(url).call().unwrap();
    assert_eq!(response.status(), 200);
    response.body_mut().read_to_string().unwrap()
}

// In the middle of an upgrade one guest in a state that only the new release knows must not take the list of all guests, the status
// and the metrics from whoever watches over it.
#[test]
fn a_guest_in_a_state_of_a_later_release_is_shown_among_the_others_and_left_alone() {
    let cluster = Cluster::start();
    for (name, last) in [("a", 1), ("b", 2), ("c", 3)] {
        let xml = guest_xml(name, vm_id(last), "");
        assert_eq!(define(&cluster, &xml, &[("node", "hv2")]).status, 200);
    }
    let state = keys::domain(vm_id(2)).state();
    write(&cluster, state.path(), "hibernate");
    write(&cluster, keys::domain(vm_id(3)).node().path(), "not a node!");
    let list = get(&cluster, "/vm");
    assert_eq!(list.status, 200, "{list:?}");
    assert_eq!(list.body.as_array().unwrap().len(), 3);
    assert_eq!(named(&list.body, "a")["store_error"], Value::Null);
    let shown = named(&list.body, "b");
    assert_eq!(shown["state"], "fail");
    let error = shown["store_error"].as_str().unwrap();
    assert!(
        error.contains(state.path()) && error.contains("hibernate"),
        "{error}"
    );
    assert_eq!(get(&cluster, "/vm/b").body[0]["store_error"], json!(error));
    let shown = named(&list.body, "c");
    assert_eq!((&shown["state"], &shown["node"]), (&json!("stop"), &json!("")));
    assert!(shown["store_error"].as_str().unwrap().contains("not a node!"));
    // What is shown is what is filtered by.
    assert_eq!(get(&cluster, "/vm?state=fail").body[0]["name"], "b");
    assert_eq!(get(&cluster, "/vm?node=hv2").body.as_array().unwrap().len(), 2);
    // It is told once, and as what it is.
    assert_eq!(messages(&cluster), [("VM_UNREADABLE_B".to_owned(), 10)]);
    let told = metrics(&cluster);
    assert!(told.contains("pvc_vm_states{state=\"fail\"} 1"), "{told}");
    assert!(told.contains("pvc_cluster_health 90"), "{told}");
    for (method, path, form) in [
        ("POST", "/vm/b/state", &[("state", "start")][..]),
        ("POST", "/vm/b/state", &[("state", "stop"), ("force", "true")]),
        ("POST", "/vm/b/node", &[("action", "migrate")]),
        ("DELETE", "/vm/b", &[]),
    ] {
        let reply = ask_with(&cluster, TOKEN, method, path, Some(form));
        assert_eq!(reply.code(), "store_corrupt", "{method} {path}: {reply:?}");
        assert!(reply.message().contains("hibernate"), "{reply:?}");
    }
    assert_eq!(set_state(&cluster, "a", "disable").status, 200, "others go on");
    assert_eq!(cluster.server.peek(state.path()).unwrap().data, b"hibernate");
}

// A node's agent is updated first, and says how it is in the words of its release.
#[test]
fn a_node_in_a_state_of_a_later_release_is_shown_among_the_others() {
    let cluster = Cluster::start();
    let keys = keys::node(&node("hv2"));
    for (path, field, shown) in [
        (keys.coordinator_state().path(), "coordinator_state", "client"),
        (keys.domain_state().path(), "domain_state", "flush"),
        (keys.daemon_state().path(), "daemon_state", "init"),
    ] {
        let before = cluster.server.peek(path).unwrap().data;
        write(&cluster, path, "sleepy");
        let list = get(&cluster, "/node");
        assert_eq!(list.status, 200, "{list:?}");
        assert_eq!(list.body.as_array().unwrap().len(), 3);
        let one = named(&list.body, "hv2");
        assert_eq!(one[field], shown);
        let error = one["store_error"].as_str().unwrap();
        assert!(error.contains(path) && error.contains("sleepy"), "{error}");
        assert_eq!(get(&cluster, "/node/hv2").body[0]["store_error"], json!(error));
        assert_eq!(named(&list.body, "hv1")["store_error"], Value::Null);
        assert_eq!(messages(&cluster), [("NODE_UNREADABLE_HV2".to_owned(), 10)]);
        assert!(metrics(&cluster).contains("pvc_nodes 3"));
        assert_eq!(get(&cluster, "/fence").body.as_array().unwrap().len(), 3);
        write(&cluster, path, std::str::from_utf8(&before).unwrap());
    }
    assert_eq!(messages(&cluster), []);
}

// A fence that can not be read must look like an open one, and must not hide that of another node.
#[test]
fn a_fence_that_can_not_be_read_is_shown_as_such() {
    let cluster = Cluster::start();
    write(&cluster, keys::fence(&node("hv2")).path(), "{\"phase\": 7}");
    let fences = get(&cluster, "/fence");
    assert_eq!(fences.status, 200, "{fences:?}");
    assert_eq!(fences.body.as_array().unwrap().len(), 3);
    assert_eq!(fences.body[1]["state"], "unreadable");
    assert_eq!(fences.body[1]["open"], true);
    let status = get(&cluster, "/status");
    assert_eq!(status.status, 200, "{status:?}");
    assert_eq!(status.body["fences"][0]["node"], "hv2");
    assert_eq!(get(&cluster, "/node/hv2").body[0]["fence"], "unreadable");
}
