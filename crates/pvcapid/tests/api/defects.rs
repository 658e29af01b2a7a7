//! Defects of PVC 1.0.3, each with a test under its number; D5, requests that wait, is in `states` and `moves`. What they were is in
//! `docs/development/scenarios.md`.

use pvc_common::keys;
use pvc_common::keys::values::{Json, Nothing};
use pvc_common::store::Txn;
use pvc_core::ids::{ImageName, PoolName, VmName};
use pvc_core::states::VmState;
use serde_json::json;

use crate::client::{agent, ask_with, define, get, post, set_state};
use crate::common::{Cluster, TOKEN, commit, guest_xml, vm_id};

fn web() -> Cluster {
    let cluster = Cluster::start();
    let reply = define(&cluster, &guest_xml("web", vm_id(1), ""), &[("node", "hv1")]);
    assert_eq!(reply.status, 200, "{reply:?}");
    cluster
}

// Of 200 writes at a time that were all answered with success, 92 had been made.
#[test]
fn d2_a_write_is_answered_with_success_if_it_was_made_and_not_otherwise() {
    let cluster = web();
    let key = keys::domain(vm_id(1)).migration_max_downtime_ms();
    let before = cluster.get(&key).unwrap().version.0;
    let url = format!("{}/api/v1/vm/web/meta", cluster.url());
    let made: Vec<bool> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..40)
            .map(|index| {
                let url = &url;
                scope.spawn(move || {
                    let value = (300 + index).to_string();
                    let reply = agent()
                        .post(url)
                        .header("X-Api-Key", TOKEN)
                        .send_form([("migration_max_downtime", value.as_str())])
                        .unwrap();
                    let status = reply.status().as_u16();
                    assert!([200, 409].contains(&status), "{status}");
                    status == 200
                })
            })
            .collect();
        asking.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let made = made.into_iter().filter(|made| *made).count();
    let written = cluster.get(&key).unwrap().version.0 - before;
    assert_eq!(usize::try_from(written).unwrap(), made);
    assert!(made > 0);
    // A write to what is not there, and one while the store takes none.
    assert_eq!(
        post(&cluster, "/vm/none/meta", &[("autostart", "true")]).status,
        404
    );
    assert_eq!(
        post(&cluster, "/node/none/domain-state", &[("state", "flush")]).status,
        404
    );
    cluster.server.lose_quorum();
    let reply = set_state(&cluster, "web", "start");
    assert_eq!(
        (reply.status, reply.code()),
        (503, "store_unavailable"),
        "{reply:?}"
    );
    cluster.server.restore_quorum();
    assert_eq!(cluster.value(&keys::domain(vm_id(1)).state()), VmState::Stop);
}

// `token=` got a session that may do everything; see also `accounts`.
#[test]
fn d4_no_part_of_a_token_logs_in() {
    let cluster = Cluster::start();
    for token in ["", "a", "a-token", "a-token-for-test", "a-token-for-tests "] {
        let reply = ask_with(&cluster, "", "POST", "/login", Some(&[("token", token)]));
        assert_eq!(reply.status, 401, "{token:?} {reply:?}");
    }
    assert_eq!(ask_with(&cluster, "", "GET", "/node", None).status, 401);
}

// They always answered with an error.
#[test]
fn d6_state_faults_and_metrics_are_answered() {
    let cluster = web();
    assert_eq!(
        get(&cluster, "/vm/web/state").body,
        json!({"name": "web", "state": "stop"})
    );
    assert_eq!(get(&cluster, "/faults").status, 200);
    // None of the sources on other hosts is there.
    let url = format!("{}/api/v1/metrics", cluster.url());
    let mut reply = ureq::get(url).call().unwrap();
    let text = reply.body_mut().read_to_string().unwrap();
    assert!(text.contains("pvc_nodes 3"), "{text}");
}

// One volume with statistics that can't be read hid all of them.
#[test]
fn d7_one_volume_without_statistics_hides_no_other() {
    let cluster = Cluster::start();
    let pool = PoolName::new("vms").unwrap();
    let mut txn = Txn::new()
        .create(&keys::pool(&pool).root(), &Nothing)
        .create_path("/ceph/volumes", "")
        .create_path("/ceph/volumes/vms", "");
    for name in ["empty", "broken", "good"] {
        let volume = keys::volume(&pool, &ImageName::new(name).unwrap());
        txn = txn.create(&volume.root(), &Nothing);
        txn = match name {
            "good" => txn.create(&volume.stats(), &Some(Json(json!({"name": name, "size": 1024})))),
            "broken" => txn.create_path(volume.stats().path(), "{not json"),
            _ => txn.create_path(volume.stats().path(), ""),
        };
    }
    commit(&cluster.store, txn);
    let reply = get(&cluster, "/storage/ceph/volume");
    assert_eq!(reply.status, 200, "{reply:?}");
    let names: Vec<&str> = reply
        .body
        .as_array()
        .unwrap()
        .iter()
        .map(|volume| volume["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["broken", "empty", "good"]);
}

// A guest whose XML lacks a console was in no list, and nowhere to be found by its name.
#[test]
fn d8_a_guest_without_a_console_is_there() {
    let cluster = web();
    for xml in ["<domain/>", "", "<domain"] {
        cluster.set(&keys::domain(vm_id(1)).xml(), &xml.to_owned());
        let list = get(&cluster, "/vm").body;
        assert_eq!(list[0]["name"], "web", "{xml:?}");
        assert_eq!(get(&cluster, "/vm/web").body[0]["state"], "stop", "{xml:?}");
    }
}

// A list of 1,000 guests was 21,000 round trips to the store, and a session opened and closed besides.
#[test]
fn d12_what_is_shown_asks_the_store_for_nothing() {
    let cluster = web();
    for index in 2..=40 {
        let name: VmName = format!("vm{index}").parse().unwrap();
        assert_eq!(
            define(&cluster, &guest_xml(name.as_str(), vm_id(index), ""), &[]).status,
            200
        );
    }
    assert_eq!(get(&cluster, "/vm").body.as_array().unwrap().len(), 40);
    // Nothing is lost for readers in the moment in which nobody can read the store.
    let url = cluster.url().to_owned();
    cluster.api.disconnect();
    for path in [
        "/vm",
        "/vm/web",
        "/node",
        "/node/hv1",
        "/status",
        "/tasks",
        "/faults",
    ] {
        let mut reply = ureq::get(format!("{url}/api/v1{path}"))
            .header("X-Api-Key", TOKEN)
            .call()
            .unwrap();
        assert!(reply.body_mut().read_to_string().unwrap().len() > 1, "{path}");
    }
    cluster.api.reconnect();
}
