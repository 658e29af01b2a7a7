//! The API over a store in memory, asked through real sockets.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{Cluster, TOKEN, guest_xml, node, rbd_disk, vm_id, volumes};
use pvc_common::clock::{Clock, HostClock};
use pvc_common::keys;
use pvc_core::records::PrimaryRecord;
use pvc_core::states::{DaemonMode, DaemonState, DomainState, MigrationMethod, VmState};
use serde_json::{Value, json};
use ureq::Agent;

/// What came back.
#[derive(Debug)]
struct Reply {
    status: u16,
    body: Value,
    request_id: String,
}

impl Reply {
    fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

fn agent() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(20)))
        .build()
        .new_agent()
}

/// Asks with a token (an empty one sends none). `form` goes into the body of requests that have one.
fn ask_with(
    cluster: &Cluster,
    token: &str,
    method: &str,
    path: &str,
    form: Option<&[(&str, &str)]>,
) -> Reply {
    let body = form.map(|form| serde_html_form::to_string(form).unwrap());
    let mut request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("{}/api/v1{path}", cluster.url));
    if !token.is_empty() {
        request = request.header("X-Api-Key", token);
    }
    let agent = agent();
    let mut response = match body {
        None => agent.run(request.body(()).unwrap()).unwrap(),
        Some(body) => {
            let request = request.header("Content-Type", "application/x-www-form-urlencoded");
            agent.run(request.body(body).unwrap()).unwrap()
        }
    };
    let text = response.body_mut().read_to_string().unwrap();
    Reply {
        status: response.status().as_u16(),
        request_id: response
            .headers()
            .get("X-Request-Id")
            .map(|id| id.to_str().unwrap().to_owned())
            .unwrap_or_default(),
        body: serde_json::from_str(&text).unwrap_or(Value::Null),
    }
}

fn get(cluster: &Cluster, path: &str) -> Reply {
    ask_with(cluster, TOKEN, "GET", path, None)
}

fn post(cluster: &Cluster, path: &str, form: &[(&str, &str)]) -> Reply {
    ask_with(cluster, TOKEN, "POST", path, Some(form))
}

fn define(cluster: &Cluster, xml: &str, more: &[(&str, &str)]) -> Reply {
    let mut form = vec![("xml", xml)];
    form.extend_from_slice(more);
    post(cluster, "/vm", &form)
}

fn set_state(cluster: &Cluster, vm: &str, state: &str) -> Reply {
    post(cluster, &format!("/vm/{vm}/state"), &[("state", state)])
}

#[test]
fn only_what_was_open_in_the_reference_is_answered_without_a_token() {
    let cluster = Cluster::start();
    for path in ["/", "", "/status/primary_node"] {
        assert_eq!(ask_with(&cluster, "", "GET", path, None).status, 200, "{path}");
    }
    // An empty or partial token opened everything in 1.0.3.
    for token in ["", "a-token", "a-token-for-test", "a-token-for-tests2"] {
        for path in [
            "/status",
            "/node",
            "/vm",
            "/version",
            "/no/such/route",
            "/node/hv1?limit=(",
        ] {
            let reply = ask_with(&cluster, token, "GET", path, None);
            assert_eq!(reply.status, 401, "{token:?} {path}");
            assert_eq!(reply.code(), "unauthorized");
            assert!(!reply.message().is_empty());
        }
    }
    // Who is not let in learns nothing about parameters either.
    assert_eq!(ask_with(&cluster, "", "POST", "/vm", Some(&[])).status, 401);
}

#[test]
fn every_error_has_message_code_and_request_id() {
    let cluster = Cluster::start();
    let reply = get(&cluster, "/no/such/route");
    assert_eq!((reply.status, reply.code()), (404, "not_found"));
    assert_eq!(reply.body["request_id"], json!(reply.request_id));
    assert!(!reply.request_id.is_empty());
    let reply = ask_with(&cluster, TOKEN, "PATCH", "/node", None);
    assert_eq!((reply.status, reply.code()), (405, "method_not_allowed"));
}

#[test]
fn nodes_are_listed_and_filtered() {
    let cluster = Cluster::start();
    common::add_node(&cluster.store, "hv4", DaemonMode::Hypervisor, 1000);
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
    common::commit(
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
    common::add_node(&cluster.store, "hv4", DaemonMode::Hypervisor, 1000);
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

#[test]
fn a_guest_is_defined_shown_and_listed() {
    let cluster = Cluster::start();
    let devices = rbd_disk("vms/web_disk0", "")
        + "<interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='vmbr100'/></interface>";
    let xml = guest_xml("web", vm_id(1), &devices);
    let reply = define(
        &cluster,
        &xml,
        &[
            ("user_tags", "front"),
            ("user_tags", "test"),
            ("protected_tags", "keep"),
            ("limit", "hv1,hv2"),
            ("migration_max_downtime", "500"),
        ],
    );
    assert_eq!(reply.status, 200, "{reply:?}");
    // hv2 has the most free memory.
    assert_eq!(cluster.value(&keys::domain(vm_id(1)).node()), node("hv2"));
    assert_eq!(volumes(&cluster, vm_id(1)), ["vms/web_disk0"]);
    for path in [
        "/vm/web".to_owned(),
        format!("/vm/{}", vm_id(1)),
        "/vm?limit=we".to_owned(),
    ] {
        let reply = get(&cluster, &path);
        assert_eq!(reply.status, 200, "{path}");
        let vms: Vec<pvc_api::vm::Vm> = serde_json::from_value(reply.body).unwrap();
        let [vm] = vms.as_slice() else {
            panic!("{path}: {vms:?}")
        };
        assert_eq!((vm.name.as_str(), vm.state), ("web", VmState::Stop));
        assert_eq!((vm.memory, vm.vcpu, vm.migration_max_downtime), (512, 2, 500));
        assert_eq!(vm.networks[0].vni, "100");
        assert_eq!(vm.disks[0].name, "vms/web_disk0");
        assert_eq!(vm.console, "N/A");
        assert_eq!(vm.node_limit.as_deref().unwrap(), ["hv1", "hv2"]);
        let tags: Vec<(&str, bool)> = vm
            .tags
            .iter()
            .map(|tag| (tag.name.as_str(), tag.protected))
            .collect();
        assert_eq!(tags, [("front", false), ("keep", true), ("test", false)]);
        assert_eq!(vm.xml, xml.replace('"', "'"));
    }
    assert_eq!(
        get(&cluster, "/vm/web/state").body,
        json!({"name": "web", "state": "stop"})
    );
    assert_eq!(
        get(&cluster, "/vm/web/node").body,
        json!({"name": "web", "node": "hv2", "last_node": ""})
    );
    assert_eq!(get(&cluster, "/vm/none").status, 404);
    assert_eq!(get(&cluster, "/vm/a%20b").status, 404);
    assert_eq!(get(&cluster, &format!("/vm/{}", vm_id(9))).status, 404);
}

#[test]
fn guests_are_filtered() {
    let cluster = Cluster::start();
    assert_eq!(get(&cluster, "/vm").status, 404, "no guest is no match");
    for (index, name, on, tag) in [(1, "a", "hv1", "x"), (2, "b", "hv2", "x"), (3, "c", "hv2", "y")] {
        let reply = define(
            &cluster,
            &guest_xml(name, vm_id(index), ""),
            &[("node", on), ("user_tags", tag)],
        );
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    cluster.set(&keys::domain(vm_id(2)).state(), &VmState::Start);
    let names = |query: &str| -> Vec<String> {
        let reply = get(&cluster, &format!("/vm?{query}"));
        if reply.status == 404 {
            return Vec::new();
        }
        assert_eq!(reply.status, 200, "{query}: {reply:?}");
        let vms: Vec<pvc_api::vm::Vm> = serde_json::from_value(reply.body).unwrap();
        vms.into_iter().map(|vm| vm.name).collect()
    };
    assert_eq!(names(""), ["a", "b", "c"]);
    assert_eq!(names("node=hv2"), ["b", "c"]);
    assert_eq!(names("node=hv2&negate=True"), ["a"]);
    assert_eq!(names("state=start"), ["b"]);
    assert_eq!(names("state=start&negate=1"), ["a", "c"]);
    assert_eq!(names("tag=x"), ["a", "b"]);
    assert_eq!(names("tag=x&node=hv2"), ["b"]);
    assert_eq!(names("tag=x&negate=yes"), ["c"]);
    assert_eq!(names("limit=%5Ea%24"), ["a"]);
    assert!(names("limit=q").is_empty());
    for (query, name) in [
        ("node=hv9", "'node'"),
        ("state=running", "'state'"),
        ("negate=maybe", "'negate'"),
        ("limit=[", "'limit'"),
    ] {
        let reply = get(&cluster, &format!("/vm?{query}"));
        assert_eq!(reply.status, 400, "{query}");
        assert!(reply.message().contains(name), "{reply:?}");
    }
}

#[test]
fn a_guest_whose_xml_can_not_be_read_is_still_there() {
    // 1.0.3 dropped it from the list and answered 404.
    let cluster = Cluster::start();
    assert_eq!(define(&cluster, &guest_xml("odd", vm_id(1), ""), &[]).status, 200);
    cluster.set(
        &keys::domain(vm_id(1)).xml(),
        &"<domain><name>odd</name></domain>".to_owned(),
    );
    let body = get(&cluster, "/vm/odd").body;
    assert_eq!(body[0]["name"], json!("odd"));
    assert!(body[0]["xml_error"].as_str().unwrap().contains("<uuid>"));
    assert_eq!(get(&cluster, "/vm").status, 200);
    // Nor does a stray znode hide anything.
    let stray = format!("{}/stray", keys::domains().path());
    common::commit(
        &cluster.store,
        pvc_common::store::Txn::new().create_path(stray, ""),
    );
    assert_eq!(get(&cluster, "/vm").status, 200);
    assert_eq!(get(&cluster, "/status").status, 200);
}

#[test]
fn bad_definitions_are_refused_by_parameter() {
    let cluster = Cluster::start();
    let good = guest_xml("web", vm_id(1), "");
    let big = good.replace("512", "16000");
    let wide = good.replace("<vcpu>2", "<vcpu>7");
    for (xml, more, status, names) in [
        ("<domain", None, 400, "'xml'"),
        ("", None, 400, "'xml'"),
        (&good.replace("<vcpu>2</vcpu>", ""), None, 400, "<vcpu>"),
        (&good, Some(("node", "hv9")), 400, "'node'"),
        (&good, Some(("node", "a/b")), 400, "'node'"),
        (&good, Some(("limit", "hv1,hv9")), 400, "'limit'"),
        (&good, Some(("selector", "best")), 400, "'selector'"),
        (
            &good,
            Some(("migration_method", "fast")),
            400,
            "'migration_method'",
        ),
        (
            &good,
            Some(("migration_max_downtime", "long")),
            400,
            "'migration_max_downtime'",
        ),
        (
            &good,
            Some(("migration_max_downtime", "-1")),
            400,
            "'migration_max_downtime'",
        ),
        (&good, Some(("autostart", "soon")), 400, "'autostart'"),
        (&good, Some(("user_tags", "a b")), 400, "'user_tags'"),
        (&big, Some(("node", "hv1")), 400, "16000 MiB"),
        (&wide, Some(("node", "hv1")), 400, "7 vCPUs"),
        (&big, None, 409, "No node"),
    ] {
        let more: Vec<(&str, &str)> = more.into_iter().collect();
        let reply = define(&cluster, xml, &more);
        assert_eq!(reply.status, status, "{more:?} {reply:?}");
        assert!(reply.message().contains(names), "{more:?} {reply:?}");
    }
    let reply = post(&cluster, "/vm", &[]);
    assert_eq!(reply.status, 400);
    assert!(reply.message().contains("'xml'"), "{reply:?}");
    let reply = define(&cluster, &good, &[("node", "hv1"), ("limit", "hv2")]);
    assert_eq!(reply.status, 400, "{reply:?}");
    let reply = define(&cluster, &good, &[("user_tags", "a"), ("protected_tags", "a")]);
    assert_eq!(reply.status, 400, "{reply:?}");
    assert_eq!(post(&cluster, "/vm/other", &[("xml", &good)]).status, 400);
    assert_eq!(get(&cluster, "/vm").status, 404, "nothing of it was stored");
    // Nobody takes guests: a definition without a node has nowhere to go.
    for name in ["hv1", "hv2", "hv3"] {
        cluster.set(&keys::node(&node(name)).domain_state(), &DomainState::Flushed);
    }
    assert_eq!(define(&cluster, &good, &[]).status, 409);
    assert_eq!(define(&cluster, &good, &[("node", "hv3")]).status, 200);
}

#[test]
fn a_body_that_is_too_large_is_refused_as_such() {
    let cluster = Cluster::start();
    let reply = define(&cluster, &"x".repeat(2 * 1024 * 1024), &[]);
    assert_eq!((reply.status, reply.code()), (413, "too_large"));
    let padded = guest_xml("web", vm_id(1), &" ".repeat(950 * 1024));
    // Spaces are one byte each in a form, so the body passes and the XML does not.
    assert_eq!(define(&cluster, &padded, &[]).status, 413);
}

#[test]
fn names_and_volumes_are_unique() {
    let cluster = Cluster::start();
    let disk = rbd_disk("vms/one", "");
    assert_eq!(
        define(&cluster, &guest_xml("a", vm_id(1), &disk), &[]).status,
        200
    );
    for (xml, says) in [
        (guest_xml("b", vm_id(1), ""), "UUID"),
        (guest_xml("a", vm_id(2), ""), "named a"),
        (guest_xml("b", vm_id(2), &disk), "vms/one belongs to VM a"),
        (
            guest_xml("b", vm_id(2), &rbd_disk("vms/one", "<shareable/>")),
            "vms/one",
        ),
        (
            guest_xml("b", vm_id(2), &rbd_disk("vms/one", "<readonly/>")),
            "vms/one",
        ),
    ] {
        let reply = define(&cluster, &xml, &[]);
        assert_eq!(
            (reply.status, reply.code()),
            (409, "conflict"),
            "{xml}: {reply:?}"
        );
        assert!(reply.message().contains(says), "{reply:?}");
    }
    let shared = rbd_disk("vms/shared", "<shareable/>");
    assert_eq!(
        define(&cluster, &guest_xml("c", vm_id(3), &shared), &[]).status,
        200
    );
    assert_eq!(
        define(&cluster, &guest_xml("d", vm_id(4), &shared), &[]).status,
        200
    );
    // A change may not take another guest's volume either.
    let reply = ask_with(
        &cluster,
        TOKEN,
        "PUT",
        "/vm/c",
        Some(&[("xml", &guest_xml("c", vm_id(3), &disk))]),
    );
    assert_eq!(reply.status, 409, "{reply:?}");
    assert_eq!(volumes(&cluster, vm_id(3)), ["vms/shared"]);
}

#[test]
fn of_definitions_at_one_time_only_one_gets_the_name() {
    // Without the write to the container two guests of one name would be made, and `vm start web` would mean either.
    let cluster = Cluster::start();
    let replies: Vec<Reply> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=8)
            .map(|index| {
                let cluster = &cluster;
                scope.spawn(move || {
                    define(
                        cluster,
                        &guest_xml("same", vm_id(index), &rbd_disk("vms/v", "")),
                        &[],
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
fn many_definitions_at_one_time_are_all_made() {
    // A script that makes a rack of guests in parallel must not have to try again.
    let cluster = Cluster::start();
    std::thread::scope(|scope| {
        for index in 1..=32 {
            let cluster = &cluster;
            scope.spawn(move || {
                let xml = guest_xml(
                    &format!("vm{index}"),
                    vm_id(index),
                    &rbd_disk(&format!("vms/v{index}"), ""),
                );
                let reply = define(cluster, &xml, &[]);
                assert_eq!(reply.status, 200, "{reply:?}");
            });
        }
    });
    assert_eq!(get(&cluster, "/vm").body.as_array().unwrap().len(), 32);
}

#[test]
fn a_definition_is_replaced() {
    let cluster = Cluster::start();
    assert_eq!(define(&cluster, &guest_xml("web", vm_id(1), ""), &[]).status, 200);
    let put = |xml: &str, restart: &str| {
        ask_with(
            &cluster,
            TOKEN,
            "PUT",
            "/vm/web",
            Some(&[("xml", xml), ("restart", restart)]),
        )
    };
    let new = guest_xml("web", vm_id(1), &rbd_disk("vms/new", ""));
    assert_eq!(put(&new, "true").status, 200);
    assert_eq!(cluster.value(&keys::domain(vm_id(1)).xml()), new);
    assert_eq!(volumes(&cluster, vm_id(1)), ["vms/new"]);
    assert_eq!(
        cluster.value(&keys::domain(vm_id(1)).state()),
        VmState::Stop,
        "it did not run"
    );
    cluster.set(&keys::domain(vm_id(1)).state(), &VmState::Start);
    assert_eq!(put(&new, "true").status, 200);
    assert_eq!(cluster.value(&keys::domain(vm_id(1)).state()), VmState::Restart);
    let reply = put(&guest_xml("other", vm_id(1), ""), "false");
    assert_eq!(reply.status, 400);
    assert!(reply.message().contains("renaming"), "{reply:?}");
    assert_eq!(put(&guest_xml("web", vm_id(2), ""), "false").status, 400);
    assert_eq!(put("<x/>", "false").status, 400);
    let reply = ask_with(&cluster, TOKEN, "PUT", "/vm/none", Some(&[("xml", &new)]));
    assert_eq!(reply.status, 404);
}

#[test]
fn states_are_asked_for_and_refused() {
    let cluster = Cluster::start();
    assert_eq!(define(&cluster, &guest_xml("web", vm_id(1), ""), &[]).status, 200);
    let keys = keys::domain(vm_id(1));
    cluster.set(&keys.state(), &VmState::Fail);
    cluster.set(&keys.failed_reason(), &"the volume is locked".to_owned());
    assert_eq!(set_state(&cluster, "web", "start").status, 200);
    assert_eq!(cluster.value(&keys.state()), VmState::Start);
    assert_eq!(
        cluster.value(&keys.failed_reason()),
        "",
        "a start clears the failure"
    );
    let version = cluster.get(&keys.state()).unwrap().version;
    assert_eq!(set_state(&cluster, "web", "start").status, 200);
    assert_eq!(
        cluster.get(&keys.state()).unwrap().version,
        version,
        "nothing was written"
    );
    assert_eq!(set_state(&cluster, "web", "restart").status, 200);
    assert_eq!(set_state(&cluster, "web", "shutdown").status, 200);
    assert_eq!(set_state(&cluster, "web", "stop").status, 200);
    let reply = set_state(&cluster, "web", "restart");
    assert_eq!((reply.status, reply.code()), (409, "conflict"));
    assert!(reply.message().contains("state stop"), "{reply:?}");

    cluster.set(&keys.state(), &VmState::Mirror);
    assert_eq!(set_state(&cluster, "web", "start").status, 409);
    let forced = post(
        &cluster,
        "/vm/web/state",
        &[("state", "start"), ("force", "True")],
    );
    assert_eq!(forced.status, 200);

    let reply = set_state(&cluster, "web", "begin");
    assert_eq!(reply.status, 400);
    assert!(reply.message().contains("'state'"), "{reply:?}");
    assert_eq!(post(&cluster, "/vm/web/state", &[]).status, 400);
    assert_eq!(set_state(&cluster, "none", "start").status, 404);
    assert_eq!(
        post(&cluster, "/vm/web/node", &[("action", "migrate")]).status,
        501
    );
}

#[test]
fn a_waiting_request_ends_with_what_it_waits_for_and_disturbs_nobody() {
    // Eight of these froze the whole API of 1.0.3 for good.
    let cluster = Cluster::start();
    for index in 1..=20 {
        let name = format!("vm{index}");
        assert_eq!(
            define(&cluster, &guest_xml(&name, vm_id(index), ""), &[]).status,
            200
        );
        cluster.set(&keys::domain(vm_id(index)).state(), &VmState::Start);
        cluster.own(vm_id(index), Some("hv1"));
    }
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (1..=20)
            .map(|index| {
                let cluster = &cluster;
                scope.spawn(move || {
                    post(
                        cluster,
                        &format!("/vm/vm{index}/state"),
                        &[("state", "shutdown"), ("wait", "true")],
                    )
                })
            })
            .collect();
        // All have asked, none has an answer, and the API goes on answering.
        for index in 1..=20 {
            eventually(|| cluster.value(&keys::domain(vm_id(index)).state()) == VmState::Shutdown);
        }
        assert_eq!(get(&cluster, "/node").status, 200);
        assert!(waiting.iter().all(|thread| !thread.is_finished()));
        // The state word alone is not the end: a process may still be there.
        cluster.set(&keys::domain(vm_id(1)).state(), &VmState::Stop);
        assert_eq!(get(&cluster, "/vm/vm1").body[0]["owner"], json!("hv1"));
        assert!(!waiting[0].is_finished());
        for index in 1..=19 {
            cluster.set(&keys::domain(vm_id(index)).state(), &VmState::Stop);
            cluster.own(vm_id(index), None);
        }
        // The last one is started again by somebody else.
        cluster.set(&keys::domain(vm_id(20)).state(), &VmState::Start);
        let replies: Vec<Reply> = waiting.into_iter().map(|thread| thread.join().unwrap()).collect();
        for reply in &replies[..19] {
            assert_eq!(reply.status, 200, "{reply:?}");
        }
        assert_eq!(replies[19].status, 409, "{:?}", replies[19]);
        assert!(replies[19].message().contains("start"));
    });
}

#[test]
fn disabling_shuts_down_first_unless_forced() {
    let cluster = Cluster::start();
    for index in 1..=2 {
        let name = format!("vm{index}");
        assert_eq!(
            define(&cluster, &guest_xml(&name, vm_id(index), ""), &[]).status,
            200
        );
        cluster.set(&keys::domain(vm_id(index)).state(), &VmState::Start);
        cluster.own(vm_id(index), Some("hv1"));
    }
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| set_state(&cluster, "vm1", "disable"));
        eventually(|| cluster.value(&keys::domain(vm_id(1)).state()) == VmState::Shutdown);
        cluster.set(&keys::domain(vm_id(1)).state(), &VmState::Stop);
        cluster.own(vm_id(1), None);
        assert_eq!(waiting.join().unwrap().status, 200);
    });
    assert_eq!(cluster.value(&keys::domain(vm_id(1)).state()), VmState::Disable);
    let forced = post(
        &cluster,
        "/vm/vm2/state",
        &[("state", "disable"), ("force", "true")],
    );
    assert_eq!(forced.status, 200);
    assert_eq!(cluster.value(&keys::domain(vm_id(2)).state()), VmState::Disable);
}

#[test]
fn a_guest_is_removed_only_when_no_process_of_it_may_exist() {
    let cluster = Cluster::start();
    let define_tagged = |xml: &str| define(&cluster, xml, &[("user_tags", "x")]);
    assert_eq!(define_tagged(&guest_xml("web", vm_id(1), "")).status, 200);
    assert_eq!(
        ask_with(&cluster, TOKEN, "DELETE", "/vm/web?delete_disks=true", None).status,
        501
    );
    cluster.set(&keys::domain(vm_id(1)).state(), &VmState::Start);
    cluster.own(vm_id(1), Some("hv1"));
    std::thread::scope(|scope| {
        let removing = scope.spawn(|| ask_with(&cluster, TOKEN, "DELETE", "/vm/web", None));
        eventually(|| cluster.value(&keys::domain(vm_id(1)).state()) == VmState::Stop);
        assert!(cluster.get(&keys::domain(vm_id(1)).name()).is_some());
        assert!(!removing.is_finished());
        cluster.own(vm_id(1), None);
        let reply = removing.join().unwrap();
        assert_eq!(reply.status, 200, "{reply:?}");
    });
    assert!(cluster.get(&keys::domain(vm_id(1)).name()).is_none());
    assert_eq!(ask_with(&cluster, TOKEN, "DELETE", "/vm/web", None).status, 404);
    assert_eq!(
        define_tagged(&guest_xml("web", vm_id(1), "")).status,
        200,
        "its name is free again"
    );
}

#[test]
fn a_wait_has_an_end_and_says_who_holds_the_guest() {
    // Without one, a dead node's guest would hold every script that waits for it.
    let cluster = Cluster::impatient(Duration::from_millis(300));
    assert_eq!(define(&cluster, &guest_xml("web", vm_id(1), ""), &[]).status, 200);
    let state = keys::domain(vm_id(1)).state();
    cluster.set(&state, &VmState::Start);
    cluster.own(vm_id(1), Some("hv3"));
    for (reply, left) in [
        (
            post(
                &cluster,
                "/vm/web/state",
                &[("state", "shutdown"), ("wait", "true")],
            ),
            VmState::Shutdown,
        ),
        (set_state(&cluster, "web", "disable"), VmState::Shutdown),
        (
            ask_with(&cluster, TOKEN, "DELETE", "/vm/web", None),
            VmState::Stop,
        ),
    ] {
        assert_eq!((reply.status, reply.code()), (504, "wait_timeout"), "{reply:?}");
        assert!(reply.message().contains("hv3"), "{reply:?}");
        assert!([left, VmState::Stop].contains(&cluster.value(&state)));
    }
    assert!(
        cluster.get(&keys::domain(vm_id(1)).name()).is_some(),
        "it is still defined"
    );
}

#[test]
fn of_requests_at_one_time_each_sees_what_the_others_did() {
    // Eight restarts of a running guest are one restart: the first writes, the others find it so.
    let cluster = Cluster::start();
    assert_eq!(define(&cluster, &guest_xml("web", vm_id(1), ""), &[]).status, 200);
    let state = keys::domain(vm_id(1)).state();
    cluster.set(&state, &VmState::Start);
    let before = cluster.get(&state).unwrap().version;
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(set_state(&cluster, "web", "restart").status, 200));
        }
    });
    let after = cluster.get(&state).unwrap();
    assert_eq!((after.value, after.version.0), (VmState::Restart, before.0 + 1));
    // A stop and a start at one time end in one of both, never in a mixture, and both are answered.
    std::thread::scope(|scope| {
        for wanted in ["stop", "start", "stop", "start"] {
            let cluster = &cluster;
            scope.spawn(move || assert_eq!(set_state(cluster, "web", wanted).status, 200));
        }
    });
    assert!([VmState::Stop, VmState::Start].contains(&cluster.value(&state)));
}

#[test]
fn without_quorum_every_route_answers_within_two_seconds() {
    let cluster = Cluster::start();
    assert_eq!(define(&cluster, &guest_xml("web", vm_id(1), ""), &[]).status, 200);
    cluster.server.lose_quorum();
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

#[test]
fn a_device_of_the_node_keeps_a_guest_from_moving_live() {
    let cluster = Cluster::start();
    let device = "<interface type='hostdev'><source><address domain='0' bus='3' slot='0x10' function='1'/></source>\
                  </interface>";
    let reply = define(
        &cluster,
        &guest_xml("vf", vm_id(1), device),
        &[("migration_method", "live")],
    );
    assert_eq!(reply.status, 200);
    assert_eq!(
        cluster.value(&keys::domain(vm_id(1)).migration_method()),
        MigrationMethod::Shutdown
    );
}

#[test]
fn a_node_is_made_ready_and_starts_what_waited_for_it() {
    let cluster = Cluster::start();
    let xml = guest_xml("auto", vm_id(1), "");
    assert_eq!(
        define(&cluster, &xml, &[("node", "hv2"), ("autostart", "true")]).status,
        200
    );
    assert_eq!(
        define(&cluster, &guest_xml("other", vm_id(2), ""), &[("node", "hv2")]).status,
        200
    );
    let state = keys::node(&node("hv2")).domain_state();
    cluster.set(&state, &DomainState::Flushed);
    let ask = |name: &str, state: &str| {
        post(
            &cluster,
            &format!("/node/{name}/domain-state"),
            &[("state", state), ("wait", "False")],
        )
    };
    assert_eq!(ask("hv2", "ready").status, 200);
    assert_eq!(cluster.value(&state), DomainState::Ready);
    assert_eq!(cluster.value(&keys::domain(vm_id(1)).state()), VmState::Start);
    assert!(!cluster.value(&keys::domain(vm_id(1)).autostart()));
    assert_eq!(cluster.value(&keys::domain(vm_id(2)).state()), VmState::Stop);
    assert_eq!(ask("hv2", "ready").status, 200, "so already");
    assert_eq!(ask("hv9", "ready").status, 404);
    assert_eq!(ask("hv2", "flush").status, 501);
    assert_eq!(ask("hv2", "flushed").status, 400);
    // A guest that belongs there but runs elsewhere would be forgotten.
    cluster.set(&state, &DomainState::Flushed);
    cluster.set(&keys::domain(vm_id(2)).last_node(), &Some(node("hv2")));
    assert_eq!(ask("hv2", "ready").status, 501);
    assert_eq!(cluster.value(&state), DomainState::Flushed);
}

/// Waits until it is so, for at most ten seconds.
fn eventually(so: impl Fn() -> bool) {
    let clock = HostClock;
    let deadline = clock.now() + Duration::from_secs(10);
    while !so() {
        assert!(clock.now() < deadline, "it did not come to be so");
        std::thread::yield_now();
    }
}

#[test]
fn every_documented_route_is_served_and_the_document_is_up_to_date() {
    let document = pvcapid::openapi().unwrap();
    let checked_in = include_str!("../../../docs/openapi/pvcapid.json");
    assert!(
        document == checked_in,
        "docs/openapi/pvcapid.json is stale: run `cargo xtask openapi`"
    );
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["openapi"], json!("3.1.0"));
    let cluster = Cluster::start();
    let mut ids = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path.replace("{node}", "hv1").replace("{vm}", "none");
        for (method, operation) in methods.as_object().unwrap() {
            let reply = ask_with(&cluster, TOKEN, &method.to_uppercase(), &path, None);
            assert_ne!(reply.status, 405, "{method} {path}");
            assert!(!reply.message().contains("There is no route"), "{method} {path}");
            ids.push(
                operation["operationId"]
                    .as_str()
                    .expect("operation id")
                    .to_owned(),
            );
        }
    }
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count, "operation ids are unique");
    assert!(count >= 21, "{count}");
}
