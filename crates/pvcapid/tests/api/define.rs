//! Defining guests and replacing their definitions.

use pvc_common::keys;
use pvc_core::states::{DomainState, MigrationMethod, VmState};
use serde_json::json;

use crate::client::{Reply, ask_with, define, get, post};
use crate::common::{Cluster, TOKEN, guest_xml, node, rbd_disk, vm_id, volumes};

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
        assert_eq!(vm.xml, xml, "as it is stored");
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

// A description with an apostrophe came back as XML that nobody can read, since every quote had become one.
#[test]
fn a_definition_is_shown_as_it_is_stored() {
    let cluster = Cluster::start();
    let devices = rbd_disk("vms/a", "<serial>it's \"mine\"</serial>") + "<!-- don't -->";
    let xml = guest_xml("web", vm_id(1), &devices);
    assert_eq!(define(&cluster, &xml, &[]).status, 200);
    assert_eq!(get(&cluster, "/vm/web").body[0]["xml"], json!(xml));
}

// Two administrators who edit one guest at a time: the second would undo what the first did, and never know.
#[test]
fn a_change_of_what_somebody_else_has_changed_is_refused() {
    let cluster = Cluster::start();
    assert_eq!(define(&cluster, &guest_xml("web", vm_id(1), ""), &[]).status, 200);
    let read = get(&cluster, "/vm/web").body[0]["xml_version"].to_string();
    let put = |memory: &str, version: &str| {
        let xml = guest_xml("web", vm_id(1), "").replace("512", memory);
        ask_with(
            &cluster,
            TOKEN,
            "PUT",
            "/vm/web",
            Some(&[("xml", xml.as_str()), ("xml_version", version)]),
        )
    };
    assert_eq!(put("600", &read).status, 200);
    let reply = put("700", &read);
    assert_eq!((reply.status, reply.code()), (409, "conflict"), "{reply:?}");
    assert_eq!(get(&cluster, "/vm/web").body[0]["memory"], json!(600));
    let now = get(&cluster, "/vm/web").body[0]["xml_version"].to_string();
    assert_eq!(put("700", &now).status, 200);
    assert_eq!(put("700", "latest").status, 400);
}

// The process of a guest keeps a volume open that was taken out of its definition. A guest that was given it would write into
// the other's file system.
#[test]
fn a_volume_that_a_process_may_have_open_is_given_to_nobody() {
    let cluster = Cluster::start();
    let keys1 = keys::domain(vm_id(1));
    let both = rbd_disk("vms/a", "") + &rbd_disk("vms/b", "").replace("sda", "sdb");
    assert_eq!(
        define(&cluster, &guest_xml("web", vm_id(1), &both), &[]).status,
        200
    );
    cluster.set(&keys1.state(), &VmState::Start);
    cluster.own(vm_id(1), Some("hv1"));
    let modify = |devices: &str| {
        let xml = guest_xml("web", vm_id(1), devices);
        ask_with(&cluster, TOKEN, "PUT", "/vm/web", Some(&[("xml", xml.as_str())]))
    };
    let other = |mark: &str| {
        define(
            &cluster,
            &guest_xml("db", vm_id(2), &rbd_disk("vms/b", mark)),
            &[],
        )
    };
    // To be told that others may read or write beside it does not make it so for the process that runs.
    for mark in ["<readonly/>", "<shareable/>"] {
        let marked = both.replace("dev='sdb' bus='scsi'/>", &format!("dev='sdb' bus='scsi'/>{mark}"));
        let reply = modify(&marked);
        assert_eq!((reply.status, reply.code()), (409, "conflict"), "{reply:?}");
        assert!(reply.message().contains("vms/b"), "{reply:?}");
    }
    assert_eq!(modify(&rbd_disk("vms/a", "")).status, 200);
    assert_eq!(volumes(&cluster, vm_id(1)), ["vms/a", "vms/b"]);
    for mark in ["", "<shareable/>", "<readonly/>"] {
        let reply = other(mark);
        assert_eq!((reply.status, reply.code()), (409, "conflict"), "{reply:?}");
        assert!(reply.message().contains("detach"), "{reply:?}");
    }
    // Nor does it come back in another way.
    let back = rbd_disk("vms/a", "") + &rbd_disk("vms/b", "<readonly/>").replace("sda", "sdb");
    assert_eq!(modify(&back).status, 409);
    // Its process has ended: the volume is free, whoever was not there to say so.
    cluster.set(&keys1.state(), &VmState::Stop);
    cluster.own(vm_id(1), None);
    assert_eq!(other("").status, 200);
    assert_eq!(
        volumes(&cluster, vm_id(1)),
        ["vms/a"],
        "a flush of its locks must not touch it"
    );
    assert_eq!(modify(&both).status, 409);
    // Of a guest that rests, a definition frees what it drops.
    assert_eq!(modify("").status, 200);
    assert!(volumes(&cluster, vm_id(1)).is_empty());
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
