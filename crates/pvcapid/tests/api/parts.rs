//! What belongs to one guest: tags, name, devices, console; and what its definition names in the cluster.

use pvc_common::keys;
use pvc_common::store::Txn;
use pvc_core::device_order::{DeviceAction, DeviceOrderState};
use pvc_core::states::{DaemonState, VmState};
use serde_json::{Value, json};

use crate::client::{Reply, ask_with, define, get, post};
use crate::common::{Cluster, TOKEN, commit, guest_xml, node, rbd_disk, vm_id};

fn put(cluster: &Cluster, path: &str, form: &[(&str, &str)]) -> Reply {
    ask_with(cluster, TOKEN, "PUT", path, Some(form))
}

fn delete(cluster: &Cluster, path: &str, form: &[(&str, &str)]) -> Reply {
    ask_with(cluster, TOKEN, "DELETE", path, Some(form))
}

fn defined(xml: &str) -> Cluster {
    let cluster = Cluster::start();
    let reply = define(&cluster, xml, &[("node", "hv1")]);
    assert_eq!(reply.status, 200, "{reply:?}");
    cluster
}

/// As its node does once it runs.
fn run(cluster: &Cluster) {
    cluster.set(&keys::domain(vm_id(1)).state(), &VmState::Start);
    cluster.own(vm_id(1), Some("hv1"));
}

fn tags(cluster: &Cluster) -> Value {
    get(cluster, "/vm/web/tags").body["tags"].clone()
}

#[test]
fn tags_come_and_go_and_protected_ones_stay() {
    let cluster = defined(&guest_xml("web", vm_id(1), ""));
    assert_eq!(
        get(&cluster, "/vm/web/tags").body,
        json!({"name": "web", "tags": []})
    );
    let change = |action: &str, tag: &str, protected: &str| -> Reply {
        post(
            &cluster,
            "/vm/web/tags",
            &[("action", action), ("tag", tag), ("protected", protected)],
        )
    };
    assert_eq!(change("add", "prod", "false").status, 200);
    assert_eq!(change("add", "prod", "false").status, 200, "asked twice");
    assert_eq!(
        tags(&cluster),
        json!([{"name": "prod", "type": "user", "protected": false}])
    );
    assert_eq!(get(&cluster, "/vm?tag=prod").body[0]["name"], "web");
    assert_eq!(get(&cluster, "/vm?tag=prod&negate=true").status, 404);
    for _ in 0..2 {
        assert_eq!(change("remove", "prod", "false").status, 200);
        assert_eq!(tags(&cluster), json!([]));
    }
    assert_eq!(change("add", "keep", "true").status, 200);
    for (action, protected) in [("remove", "false"), ("remove", "true"), ("add", "false")] {
        let reply = change(action, "keep", protected);
        assert_eq!(reply.status, 409, "{action}: {reply:?}");
        assert!(reply.message().contains("protected"), "{reply:?}");
    }
    // One that 1.0.3's backups set.
    let auto = "auto".parse().unwrap();
    commit(
        &cluster.store,
        Txn::new()
            .create(&keys::tag(vm_id(1), &auto).name(), &auto)
            .create(&keys::tag(vm_id(1), &auto).kind(), &"system".to_owned())
            .create(&keys::tag(vm_id(1), &auto).protected(), &false),
    );
    assert_eq!(change("remove", "auto", "false").status, 409);
    for (form, name) in [
        (vec![("action", "keep"), ("tag", "a")], "'action'"),
        (vec![("tag", "a")], "'action'"),
        (vec![("action", "add"), ("tag", "a b")], "'tag'"),
        (vec![("action", "add")], "'tag'"),
        (
            vec![("action", "add"), ("tag", "a"), ("protected", "perhaps")],
            "'protected'",
        ),
    ] {
        let reply = post(&cluster, "/vm/web/tags", &form);
        assert_eq!(reply.status, 400, "{form:?} {reply:?}");
        assert!(reply.message().contains(name), "{form:?} {reply:?}");
    }
    assert_eq!(get(&cluster, "/vm/none/tags").status, 404);
    assert_eq!(
        post(&cluster, "/vm/none/tags", &[("action", "add"), ("tag", "a")]).status,
        404
    );
}

#[test]
fn a_guest_at_rest_is_renamed_and_one_that_may_run_is_not() {
    let log = "<serial type='pty'><log file='/var/log/libvirt/web.log'/></serial>";
    let cluster = defined(&guest_xml(
        "web",
        vm_id(1),
        &(rbd_disk("vms/web_disk0", "") + log),
    ));
    assert_eq!(define(&cluster, &guest_xml("db", vm_id(2), ""), &[]).status, 200);
    let rename = |vm: &str, new: &str| post(&cluster, &format!("/vm/{vm}/rename"), &[("new_name", new)]);
    let reply = rename("web", "db");
    assert_eq!((reply.status, reply.code()), (409, "conflict"), "{reply:?}");
    assert_eq!(rename("web", "a b").status, 400);
    // 1.0.3 answered 500.
    assert_eq!(post(&cluster, "/vm/web/rename", &[]).status, 400);
    assert_eq!(rename("none", "other").status, 404);
    for state in [VmState::Start, VmState::Shutdown, VmState::Migrate] {
        cluster.set(&keys::domain(vm_id(1)).state(), &state);
        assert_eq!(rename("web", "other").status, 409, "{state}");
    }
    cluster.set(&keys::domain(vm_id(1)).state(), &VmState::Stop);
    // A process of it may still be there.
    cluster.own(vm_id(1), Some("hv1"));
    assert_eq!(rename("web", "other").status, 409);
    cluster.own(vm_id(1), None);
    assert_eq!(rename("web", "www").status, 200);
    assert_eq!(rename(&vm_id(1).to_string(), "www").status, 200, "already so");
    assert_eq!(get(&cluster, "/vm/web").status, 404);
    let vm = &get(&cluster, "/vm/www").body[0];
    assert_eq!(vm["disks"][0]["name"], "vms/web_disk0");
    let xml = vm["xml"].as_str().unwrap();
    assert!(
        xml.contains("<name>www</name>") && xml.contains("/www.log"),
        "{xml}"
    );
    // The old name is free, the new one is not.
    assert_eq!(define(&cluster, &guest_xml("www", vm_id(3), ""), &[]).status, 409);
    assert_eq!(define(&cluster, &guest_xml("web", vm_id(3), ""), &[]).status, 200);
}

const CARD: &str =
    "<interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br0'/></interface>";

fn attach(cluster: &Cluster, xml: &str) -> Reply {
    post(cluster, "/vm/web/device", &[("xml", xml)])
}

#[test]
fn a_device_order_goes_to_the_node_that_runs_the_guest() {
    let disk = rbd_disk("vms/one", "");
    let cluster = defined(&guest_xml("web", vm_id(1), &disk));
    assert_eq!(get(&cluster, "/vm/web/device").status, 404);
    let reply = attach(&cluster, &disk);
    assert_eq!(reply.status, 409, "it does not run: {reply:?}");
    cluster.set(&keys::domain(vm_id(1)).state(), &VmState::Start);
    assert_eq!(attach(&cluster, &disk).status, 409, "it does not run yet");
    run(&cluster);
    let reply = attach(&cluster, &disk);
    assert_eq!(reply.status, 202, "{reply:?}");
    assert_eq!(reply.body["task_name"], "vm.device_attach");
    assert_eq!(reply.body["run_on"], "hv1");
    let id = reply.body["task_id"].as_str().unwrap().to_owned();
    assert_eq!(id.len(), 8);
    assert_eq!(
        attach(&cluster, &disk).body["task_id"],
        id.as_str(),
        "asked twice"
    );
    // One at a time: two that are worked on at once could let the guest run too soon.
    let reply = attach(&cluster, CARD);
    assert_eq!(reply.status, 409, "{reply:?}");
    assert!(reply.message().contains(&id), "{reply:?}");
    let shown = get(&cluster, "/vm/web/device").body;
    assert_eq!(shown["state"], "ordered");
    assert_eq!(shown["device"], "disk sda (vms/one)");
    let key = keys::device_order(vm_id(1));
    let mut order = cluster.value(&key).unwrap();
    assert_eq!((order.action, order.node.as_str()), (DeviceAction::Attach, "hv1"));
    for (state, word) in [
        (
            DeviceOrderState::Working {
                epoch: 1,
                before: Vec::new(),
            },
            "working",
        ),
        (DeviceOrderState::Recorded { epoch: 1 }, "working"),
        (
            DeviceOrderState::Failed {
                reason: "no".to_owned(),
            },
            "failed",
        ),
        (DeviceOrderState::Done, "done"),
    ] {
        order.state = state;
        cluster.set(&key, &Some(order.clone()));
        assert_eq!(get(&cluster, "/vm/web/device").body["state"], word);
    }
    let reply = delete(&cluster, "/vm/web/device", &[("xml", CARD)]);
    assert_eq!(reply.status, 202, "{reply:?}");
    assert_eq!(reply.body["task_name"], "vm.device_detach");
    // The guest has left the node meanwhile: nobody will carry that out.
    cluster.own(vm_id(1), Some("hv2"));
    assert_eq!(get(&cluster, "/vm/web/device").body["state"], "failed");
    assert_eq!(attach(&cluster, CARD).body["run_on"], "hv2");
}

#[test]
fn what_can_not_be_attached_is_refused_at_once() {
    let cluster = defined(&guest_xml("web", vm_id(1), &rbd_disk("vms/one", "")));
    run(&cluster);
    for (xml, status, says) in [
        ("", 400, "'xml'"),
        ("<disk", 400, "'xml'"),
        ("<hostdev/>", 400, "only <disk> and <interface>"),
        (
            "<interface type='bridge'><source bridge='br0'/></interface>",
            400,
            "mac address",
        ),
        (
            &rbd_disk("vms/other", "").replace("sda", "sdb"),
            409,
            "not in its definition",
        ),
        (&rbd_disk("vms/other", ""), 409, "in that place"),
    ] {
        let reply = attach(&cluster, xml);
        assert_eq!(reply.status, status, "{xml} {reply:?}");
        assert!(reply.message().contains(says), "{xml} {reply:?}");
    }
    assert_eq!(post(&cluster, "/vm/none/device", &[("xml", CARD)]).status, 404);
    cluster.set(&keys::node(&node("hv1")).daemon_state(), &DaemonState::Dead);
    let reply = attach(&cluster, CARD);
    assert_eq!(reply.status, 409, "{reply:?}");
    assert!(reply.message().contains("dead"), "{reply:?}");
    assert_eq!(
        get(&cluster, "/vm/web/device").status,
        404,
        "nothing of it was stored"
    );
}

#[test]
fn the_last_lines_of_a_console_are_shown() {
    let cluster = defined(&guest_xml("web", vm_id(1), ""));
    assert_eq!(
        get(&cluster, "/vm/web/console").body,
        json!({"name": "web", "data": ""})
    );
    let log: String = (1..=30).map(|line| format!("line {line}\n")).collect();
    cluster.set(&keys::domain(vm_id(1)).console_log(), &log);
    assert_eq!(
        get(&cluster, "/vm/web/console?lines=2").body["data"],
        "line 29\nline 30"
    );
    let ten = get(&cluster, "/vm/web/console").body["data"].clone();
    assert_eq!(ten.as_str().unwrap().lines().count(), 10);
    assert_eq!(get(&cluster, "/vm/web/console?lines=many").status, 400);
    assert_eq!(get(&cluster, "/vm/none/console").status, 404);
}

#[test]
fn a_definition_names_networks_and_volumes_that_the_cluster_has() {
    let cluster = Cluster::start();
    let card = |vni: u32| {
        format!(
            "<interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='vmbr{vni}'/></interface>"
        )
    };
    let first = guest_xml("web", vm_id(1), &(card(100) + &rbd_disk("vms/one", "")));
    // The store knows of none: they are looked after by other means.
    assert_eq!(define(&cluster, &first, &[]).status, 200);
    commit(
        &cluster.store,
        Txn::new()
            .create_path("/networks/200", "")
            .create_path("/ceph/pools/vms", "")
            .create_path("/ceph/volumes", "")
            .create_path("/ceph/volumes/vms", "")
            .create_path("/ceph/volumes/vms/two", ""),
    );
    for (devices, says) in [
        (card(300), Some("no network 300")),
        (card(200), None),
        (rbd_disk("vms/three", ""), Some("vms/three")),
        (rbd_disk("other/two", ""), Some("no pool other")),
        (rbd_disk("vms/two", ""), None),
    ] {
        let reply = define(&cluster, &guest_xml("db", vm_id(2), &devices), &[]);
        match says {
            Some(says) => {
                assert_eq!(reply.status, 400, "{reply:?}");
                assert!(reply.message().contains(says), "{reply:?}");
            }
            None => {
                assert_eq!(reply.status, 200, "{reply:?}");
                assert_eq!(delete(&cluster, "/vm/db", &[]).status, 200);
            }
        }
    }
    // What a guest has it keeps, known or not.
    let more = first.replace("512", "640");
    assert_eq!(put(&cluster, "/vm/web", &[("xml", &more)]).status, 200);
    let stray = first.replace("vmbr100", "vmbr300");
    assert_eq!(put(&cluster, "/vm/web", &[("xml", &stray)]).status, 400);
}
