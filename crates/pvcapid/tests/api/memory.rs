//! Reads from memory: replies that are told unchanged, compressed, and in time.

use pvc_common::keys;
use pvc_common::schema::{self, NewDomain};
use pvc_common::store::Txn;
use pvc_core::states::{DaemonState, MigrationMethod, NodeSelector, VmState};
use serde_json::{Value, json};

use crate::client::{agent, define, eventually, get, set_state};
use crate::common::{Cluster, TOKEN, commit, guest_xml, node, vm_id};

struct Raw {
    status: u16,
    tag: String,
    age: String,
    encoding: String,
    body: Vec<u8>,
}

fn raw(cluster: &Cluster, path: &str, headers: &[(&str, &str)]) -> Raw {
    let mut request = ureq::http::Request::builder()
        .uri(format!("{}{path}", cluster.url()))
        .header("X-Api-Key", TOKEN);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = agent().run(request.body(()).unwrap()).unwrap();
    let header = |name: &str| {
        response
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
            .unwrap_or_default()
    };
    Raw {
        status: response.status().as_u16(),
        tag: header("ETag"),
        age: header("Age"),
        encoding: header("Content-Encoding"),
        body: response
            .body_mut()
            .with_config()
            .limit(1 << 30)
            .read_to_vec()
            .unwrap(),
    }
}

// A web page that looks every second would load megabytes each time, though nothing has changed.
#[test]
fn what_has_not_changed_is_not_sent_again() {
    let cluster = Cluster::start();
    for (name, last) in [("a", 1), ("b", 2)] {
        assert_eq!(
            define(&cluster, &guest_xml(name, vm_id(last), ""), &[]).status,
            200
        );
    }
    for path in [
        "/api/v1/vm",
        "/api/v1/vm/a",
        "/api/v1/vm?limit=a",
        "/api/v1/node",
        "/api/v1/status",
        "/api/v1/fence",
        "/api/v1/fence/hv1",
        "/api/v1/node?limit=1",
        "/api/v1/node/hv1",
        "/api/v1/node/hv1/domain-state",
        "/api/v1/vm/a/state",
        "/api/v1/vm/a/meta",
        "/api/v1/vm/a/tags",
        "/api/v1/faults",
        "/api/v1/tasks",
        "/api/v1/network",
        "/api/v1/sriov/pf/hv1",
        "/api/v1/storage/ceph/pool",
        "/api/v1/storage/ceph/volume",
        "/api/v1/status/adopt",
    ] {
        let first = raw(&cluster, path, &[]);
        assert_eq!(first.status, 200, "{path}");
        let again = raw(&cluster, path, &[("If-None-Match", &first.tag)]);
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
    }
    let before = raw(&cluster, "/api/v1/vm/b", &[]).tag;
    let list = raw(&cluster, "/api/v1/vm", &[]).tag;
    assert_eq!(set_state(&cluster, "a", "start").status, 200);
    assert_eq!(
        raw(&cluster, "/api/v1/vm/b", &[("If-None-Match", &before)]).status,
        304
    );
    assert_eq!(
        raw(&cluster, "/api/v1/vm", &[("If-None-Match", &list)]).status,
        200
    );
    let state = raw(&cluster, "/api/v1/vm/a/state", &[]).tag;
    assert_eq!(set_state(&cluster, "a", "stop").status, 200);
    let again = raw(&cluster, "/api/v1/vm/a/state", &[("If-None-Match", &state)]);
    assert_eq!((again.status, again.body.is_empty()), (200, false));
}

#[test]
fn compressed_lists_say_the_same_as_plain_ones() {
    let cluster = Cluster::start();
    let compare = |path: &str| {
        // The client does not decompress what it has asked for by itself.
        let compressed = raw(&cluster, path, &[("Accept-Encoding", "gzip")]);
        let plain = raw(&cluster, path, &[("Accept-Encoding", "identity")]);
        assert_eq!(
            (compressed.encoding.as_str(), plain.encoding.as_str()),
            ("gzip", ""),
            "{path}"
        );
        let mut text = Vec::new();
        let mut decoder = flate2::read::GzDecoder::new(&compressed.body[..]);
        std::io::Read::read_to_end(&mut decoder, &mut text).unwrap();
        assert_eq!(text, plain.body, "{path}");
        assert_eq!(compressed.tag, plain.tag, "{path}");
        serde_json::from_slice::<Vec<Value>>(&plain.body).unwrap().len()
    };
    for count in 1..4 {
        let name = format!("vm{count}");
        assert_eq!(
            define(&cluster, &guest_xml(&name, vm_id(count), ""), &[]).status,
            200
        );
        assert_eq!(compare("/api/v1/vm"), usize::from(count));
    }
    assert_eq!(compare("/api/v1/vm?limit=2"), 1);
    assert_eq!(compare("/api/v1/node"), 3);
}

// An administrator who has changed something looks right afterwards whether it is so.
#[test]
fn a_reply_to_a_write_comes_when_reads_show_it() {
    let cluster = Cluster::start();
    let agent = agent();
    // Without the help of the other tests' client, which waits for the mirror before it asks.
    let url = cluster.url().to_owned();
    let ask = |method: &str, path: &str, form: &[(&str, &str)]| -> (u16, Value) {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{url}/api/v1{path}"))
            .header("X-Api-Key", TOKEN)
            .header("Content-Type", "application/x-www-form-urlencoded");
        let body = serde_html_form::to_string(form).unwrap();
        let mut response = agent.run(request.body(body).unwrap()).unwrap();
        let text = response.body_mut().read_to_string().unwrap();
        (
            response.status().as_u16(),
            serde_json::from_str(&text).unwrap_or(Value::Null),
        )
    };
    for round in 0..10 {
        let xml = guest_xml("web", vm_id(1), "");
        assert_eq!(ask("POST", "/vm", &[("xml", &xml)]).0, 200, "{round}");
        assert_eq!(ask("GET", "/vm/web/state", &[]).1["state"], json!("stop"));
        assert_eq!(ask("POST", "/vm/web/state", &[("state", "start")]).0, 200);
        assert_eq!(ask("GET", "/vm/web/state", &[]).1["state"], json!("start"));
        assert_eq!(ask("GET", "/vm", &[]).1[0]["state"], json!("start"));
        assert_eq!(ask("POST", "/vm/web/meta", &[("autostart", "true")]).0, 200);
        assert_eq!(ask("GET", "/vm/web/meta", &[]).1["node_autostart"], json!("True"));
        assert_eq!(ask("DELETE", "/vm/web", &[]).0, 200);
        assert_eq!(ask("GET", "/vm/web", &[]).0, 404, "{round}");
    }
}

#[test]
fn a_renamed_guest_is_found_by_its_new_name_alone() {
    let cluster = Cluster::start();
    for (name, last) in [("a", 1), ("b", 2)] {
        assert_eq!(
            define(&cluster, &guest_xml(name, vm_id(last), ""), &[]).status,
            200
        );
    }
    assert_eq!(get(&cluster, "/vm/a/state").status, 200);
    // Two that exchange their names, one after the other.
    for (vm, name) in [(1, "c"), (2, "a"), (1, "b")] {
        cluster.set(&keys::domain(vm_id(vm)).name(), &name.parse().unwrap());
    }
    for (name, vm) in [("a", vm_id(2)), ("b", vm_id(1))] {
        assert_eq!(
            get(&cluster, &format!("/vm/{name}")).body[0]["uuid"],
            json!(vm.to_string())
        );
    }
    assert_eq!(get(&cluster, "/vm/c").status, 404);
}

/// So many guests, a multiple of a hundred.
pub(crate) fn add_guests(cluster: &Cluster, count: usize, devices: &str) {
    for first in (0..count).step_by(100) {
        let txn = (first..first + 100).fold(Txn::new(), |txn, number| {
            let id = format!("5d0e8c58-1d2b-4a30-9d6c-0f7d3f6{number:05x}")
                .parse()
                .unwrap();
            txn.and(schema::domain_keys(&NewDomain {
                id,
                name: format!("vm{number:05}").parse().unwrap(),
                xml: guest_xml("x", id, devices),
                state: VmState::Stop,
                node: node("hv1"),
                profile: None,
                volumes: Vec::new(),
                node_limit: Vec::new(),
                node_selector: NodeSelector::None,
                autostart: false,
                migration_method: MigrationMethod::None,
                migration_max_downtime_ms: 300,
                tags: Vec::new(),
            }))
        });
        commit(&cluster.store, txn);
    }
}

#[test]
fn a_very_long_list_is_complete_and_in_order() {
    let cluster = Cluster::start();
    let count = 3100;
    add_guests(&cluster, count, "");
    let reply = raw(&cluster, "/api/v1/vm", &[("Accept-Encoding", "identity")]);
    let list: Vec<Value> = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(list.len(), count);
    let names: Vec<&str> = list.iter().map(|vm| vm["name"].as_str().unwrap()).collect();
    assert!(names.is_sorted());
    // What nodes write all the time is not in it.
    let keys = keys::node(&node("hv1"));
    cluster.set(&keys.memory_free_mib(), &7);
    let again = |tag: &str| raw(&cluster, "/api/v1/vm", &[("If-None-Match", tag)]);
    assert_eq!(again(&reply.tag).status, 304);
    let id = "5d0e8c58-1d2b-4a30-9d6c-0f7d3f600007".parse().unwrap();
    cluster.set(&keys::domain(id).state(), &VmState::Disable);
    assert_eq!(again(&reply.tag).status, 200);
}

// Who acts on what he is shown has to know that it may be of some seconds ago.
#[test]
fn a_reply_says_how_old_it_may_be() {
    let cluster = Cluster::start();
    let age = |path: &str| raw(&cluster, path, &[]).age.parse::<u64>().ok();
    eventually(|| age("/api/v1/node") == Some(0));
    assert_eq!(age("/api/v1/node/none"), None, "nothing is shown");
    cluster.server.lose_quorum();
    eventually(|| age("/api/v1/node").is_some_and(|age| age >= 2));
    cluster.server.restore_quorum();
    eventually(|| age("/api/v1/status") == Some(0));
}

#[test]
fn a_load_balancer_learns_whether_it_is_alive_and_ready() {
    let cluster = Cluster::start();
    let agent = agent();
    let ask = |path: &str| {
        let mut response = agent.get(format!("{}{path}", cluster.url())).call().unwrap();
        let text = response.body_mut().read_to_string().unwrap();
        let body: Value = serde_json::from_str(&text).unwrap();
        (
            response.status().as_u16(),
            body["status"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(ask("/healthz"), (200, "alive".to_owned()));
    assert_eq!(ask("/readyz"), (200, "ready".to_owned()));
    cluster.server.lose_quorum();
    eventually(|| ask("/readyz") == (503, "stale".to_owned()));
    assert_eq!(ask("/healthz"), (200, "alive".to_owned()));
    cluster.server.restore_quorum();
    eventually(|| ask("/readyz") == (200, "ready".to_owned()));
    // What was written in between shows.
    cluster.set(&keys::node(&node("hv3")).daemon_state(), &DaemonState::Dead);
    assert_eq!(get(&cluster, "/node/hv3").body[0]["daemon_state"], json!("dead"));
}
