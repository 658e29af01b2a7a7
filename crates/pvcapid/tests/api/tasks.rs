//! Tasks, and the logs of nodes.

use pvc_common::keys;
use pvc_common::keys::values::Nothing;
use pvc_common::store::Txn;
use pvc_core::lock_flush::{LockFlush, LockFlushState, RemovedLock};
use serde_json::json;

use crate::client::{define, eventually, get};
use crate::common::{Cluster, commit, guest_xml, node, vm_id};

fn order(state: LockFlushState) -> LockFlush {
    LockFlush {
        id: "1b4e28ba-2fa1-11d2-883f-0016d3cca427".to_owned(),
        by: "tests".to_owned(),
        at: 7,
        node: node("hv1"),
        force: false,
        removed: vec![RemovedLock {
            volume: "vms/web".to_owned(),
            id: "auto".to_owned(),
            locker: "client.1".to_owned(),
            client: "10.102.0.1:0/1".to_owned(),
        }],
        state,
    }
}

#[test]
fn orders_are_shown_as_tasks_from_their_beginning_to_their_end() {
    let cluster = Cluster::start();
    assert_eq!(
        get(&cluster, "/tasks").body,
        json!({"scheduled": {}, "active": {}, "reserved": {}, "finished": {}})
    );
    assert_eq!(define(&cluster, &guest_xml("web", vm_id(1), ""), &[]).status, 200);
    let key = keys::lock_flush(vm_id(1));
    commit(
        &cluster.store,
        Txn::new()
            .create_path(keys::lock_flushes().path(), "")
            .create(&key, &Some(order(LockFlushState::Ordered))),
    );
    eventually(|| get(&cluster, "/tasks").body["reserved"] != json!({}));
    let tasks = get(&cluster, "/tasks").body;
    assert_eq!(
        tasks["reserved"]["hv1"],
        json!([{
            "id": "1b4e28ba", "name": "vm.flush_locks", "args": [], "kwargs": {"domain": "web", "run_on": "hv1"},
            "ordered_by": "tests", "ordered_at": 7, "state": "PENDING",
        }])
    );
    let task = get(&cluster, "/tasks/1b4e28ba").body;
    assert_eq!((&task["state"], &task["current"]), (&json!("PENDING"), &json!(0)));

    cluster.set(&key, &Some(order(LockFlushState::Done)));
    eventually(|| get(&cluster, "/tasks/1b4e28ba").body["state"] == json!("SUCCESS"));
    let whole = get(&cluster, "/tasks/1b4e28ba-2fa1-11d2-883f-0016d3cca427").body;
    assert_eq!(whole["result"]["status"], json!("1 locks were removed"));
    assert_eq!(
        get(&cluster, "/tasks").body["finished"]["hv1"][0]["state"],
        json!("SUCCESS")
    );

    let reason = "no way".to_owned();
    cluster.set(&key, &Some(order(LockFlushState::Failed { reason })));
    eventually(|| {
        let task = get(&cluster, "/tasks/1b4e28ba").body;
        task == json!({"state": "FAILURE", "current": 1, "total": 1, "status": "no way"})
    });
    assert_eq!(get(&cluster, "/tasks/00000000").status, 404);
}

#[test]
fn the_last_lines_of_a_nodes_log_are_shown() {
    let cluster = Cluster::start();
    assert_eq!(
        get(&cluster, "/node/hv1/log").body,
        json!({"name": "hv1", "data": ""})
    );
    let log = keys::log(&node("hv1"));
    commit(
        &cluster.store,
        Txn::new()
            .create_path("/logs", "")
            .create(&log.root(), &Nothing)
            .create(&log.messages(), &"a\nb\nc".to_owned()),
    );
    assert_eq!(get(&cluster, "/node/hv1/log").body["data"], json!("a\nb\nc"));
    assert_eq!(get(&cluster, "/node/hv1/log?lines=2").body["data"], json!("b\nc"));
    assert_eq!(get(&cluster, "/node/hv1/log?lines=0").body["data"], json!(""));
    for wrong in ["-1", "x", "1.5"] {
        let reply = get(&cluster, &format!("/node/hv1/log?lines={wrong}"));
        assert_eq!(reply.status, 400, "{wrong}");
    }
    assert_eq!(get(&cluster, "/node/hv9/log").status, 404);
}
