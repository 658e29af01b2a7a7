//! States of guests, and waiting for them.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use pvc_common::clock::{Clock as _, HostClock};
use pvc_common::keys;
use pvc_core::states::VmState;
use serde_json::json;

use crate::client::{Reply, ask_with, define, eventually, get, post, set_state};
use crate::common::{Cluster, TOKEN, guest_xml, vm_id};

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
}

// A guest that its administrator has switched off while it waited for a node would come up in the middle of the night.
#[test]
fn a_guest_that_waits_for_a_node_is_not_started_after_a_stop() {
    let cluster = Cluster::start();
    assert_eq!(define(&cluster, &guest_xml("web", vm_id(1), ""), &[]).status, 200);
    let keys = keys::domain(vm_id(1));
    for request in ["stop", "shutdown", "disable"] {
        cluster.set(&keys.state(), &VmState::Stop);
        cluster.set(&keys.autostart(), &true);
        cluster.set(&keys.failed_reason(), &"It waits for a node".to_owned());
        assert_eq!(set_state(&cluster, "web", request).status, 200, "{request}");
        assert!(!cluster.value(&keys.autostart()), "{request}");
        assert_eq!(cluster.value(&keys.failed_reason()), "", "{request}");
    }
    cluster.set(&keys.state(), &VmState::Stop);
    cluster.set(&keys.autostart(), &true);
    assert_eq!(set_state(&cluster, "web", "start").status, 200);
    assert!(cluster.value(&keys.autostart()), "a start takes nothing back");
}

#[test]
fn a_waiting_request_ends_with_what_it_waits_for_and_disturbs_nobody() {
    // Defect D5: eight of these froze the whole API of 1.0.3 for good.
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
        let asked = HostClock.now();
        assert_eq!(ask_with(&cluster, "", "GET", "/", None).status, 200);
        assert_eq!(get(&cluster, "/node").status, 200);
        assert_eq!(get(&cluster, "/vm").status, 200);
        assert!(HostClock.now().since(asked) < Duration::from_secs(2));
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
fn who_finds_no_place_to_wait_has_ordered_nothing_and_who_hangs_up_gives_his_back() {
    let cluster = Cluster::start();
    for (name, id) in [("web", vm_id(1)), ("db", vm_id(2))] {
        assert_eq!(define(&cluster, &guest_xml(name, id, ""), &[]).status, 200);
        cluster.set(&keys::domain(id).state(), &VmState::Start);
        cluster.own(id, Some("hv1"));
    }
    let under_way = |number: u32| {
        let text = ureq::get(format!("{}/api/v1/metrics/daemon", cluster.url()))
            .call()
            .unwrap()
            .body_mut()
            .read_to_string()
            .unwrap();
        text.contains(&format!("pvc_api_requests_under_way {number}\n"))
    };
    let address = cluster.url().strip_prefix("http://").unwrap();
    let body = "state=shutdown&wait=true";
    let request = format!(
        "POST /api/v1/vm/web/state HTTP/1.1\r\nHost: {address}\r\nX-Api-Key: {TOKEN}\r\nContent-Type: \
         application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let waiting: Vec<TcpStream> = (0..256)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            stream
        })
        .collect();
    // And the one that asks.
    eventually(|| under_way(257));
    let wait = [("state", "shutdown"), ("wait", "true")];
    for reply in [
        ask_with(&cluster, TOKEN, "DELETE", "/vm/db", None),
        post(&cluster, "/vm/db/state", &wait),
        set_state(&cluster, "db", "disable"),
    ] {
        assert_eq!((reply.status, reply.code()), (503, "too_many"), "{reply:?}");
    }
    assert_eq!(cluster.value(&keys::domain(vm_id(2)).state()), VmState::Start);
    drop(waiting);
    eventually(|| under_way(1));
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
