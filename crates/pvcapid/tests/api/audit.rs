//! The audit log.

use pvc_common::keys;
use pvc_common::store::StoreExt;
use serde_json::{Value, json};

use crate::client::{Reply, ask_with, define, eventually, get, post, set_state};
use crate::common::{Cluster, OPERATOR_TOKEN, TOKEN, VIEWER_TOKEN, guest_xml, vm_id};

/// The entry of the request that was answered so, once it is written.
fn entry_of(cluster: &Cluster, reply: &Reply) -> Value {
    let path = format!("/audit?request_id={}", reply.request_id);
    let entry = || get(cluster, &path).body[0].clone();
    eventually(|| entry()["status"].is_u64());
    entry()
}

#[test]
fn every_change_is_entered_with_who_what_and_what_came_of_it() {
    let cluster = Cluster::start();
    let reply = define(&cluster, &guest_xml("web1", vm_id(1), ""), &[("node", "hv1")]);
    assert_eq!(reply.status, 200, "{reply:?}");
    let entry = entry_of(&cluster, &reply);
    assert_eq!(entry["who"], json!("token \"tests\""));
    assert_eq!(entry["role"], json!("admin"));
    assert_eq!(entry["from"], json!("127.0.0.1"));
    assert_eq!(entry["node"], json!("hv1"));
    assert_eq!(entry["operation"], json!("define_vm"));
    assert_eq!(entry["method"], json!("POST"));
    assert_eq!(entry["target"], json!("/api/v1/vm"));
    assert_eq!(entry["parameters"], json!("xml=... node=hv1"));
    assert_eq!(entry["status"], json!(200));
    assert_eq!(entry["message"], json!(reply.message()));
    assert!(entry["at"].as_u64().unwrap() > 1_700_000_000);
    let reply = ask_with(&cluster, OPERATOR_TOKEN, "DELETE", "/vm/web1", None);
    let entry = entry_of(&cluster, &reply);
    assert_eq!(entry["who"], json!("token \"operator\""));
    assert_eq!(entry["target"], json!("/api/v1/vm/web1"));
    // Their notes are gone with them.
    let notes = || futures::executor::block_on(cluster.store.children_as(&keys::audit_notes())).unwrap();
    eventually(|| notes().is_empty());
}

#[test]
fn what_failed_and_what_was_refused_is_entered_as_well() {
    let cluster = Cluster::start();
    let missing = set_state(&cluster, "none", "start");
    assert_eq!(missing.status, 404);
    let entry = entry_of(&cluster, &missing);
    assert_eq!(
        (&entry["status"], &entry["message"]),
        (&json!(404), &json!(missing.message()))
    );
    let refused = ask_with(
        &cluster,
        VIEWER_TOKEN,
        "POST",
        "/status",
        Some(&[("state", "true")]),
    );
    assert_eq!(refused.status, 403);
    let entry = entry_of(&cluster, &refused);
    assert_eq!(
        (&entry["who"], &entry["status"]),
        (&json!("token \"viewer\""), &json!(403))
    );
    let wrong = ask_with(&cluster, "wrong", "POST", "/status", Some(&[("state", "true")]));
    let entry = entry_of(&cluster, &wrong);
    assert_eq!((&entry["role"], &entry["status"]), (&json!(null), &json!(401)));
    // What only looks is not entered.
    get(&cluster, "/vm");
    ask_with(&cluster, "wrong", "GET", "/vm", None);
    let all = get(&cluster, "/audit").body;
    assert_eq!(all.as_array().unwrap().len(), 3, "{all}");
    // The latest comes first.
    assert_eq!(all[0]["request_id"], json!(wrong.request_id));
    assert_eq!(get(&cluster, "/audit?limit=1").body.as_array().unwrap().len(), 1);
    assert_eq!(get(&cluster, "/audit?who=viewer").body[0]["status"], json!(403));
    assert_eq!(get(&cluster, "/audit?what=NONE").body[0]["status"], json!(404));
    assert_eq!(get(&cluster, "/audit?failed=false").body, json!([]));
    for bad in ["limit=0", "limit=x", "since=yesterday", "failed=perhaps"] {
        assert_eq!(get(&cluster, &format!("/audit?{bad}")).status, 400, "{bad}");
    }
    assert_eq!(
        ask_with(&cluster, OPERATOR_TOKEN, "GET", "/audit", None).status,
        403
    );
}

#[test]
fn no_secret_is_entered() {
    let cluster = Cluster::start();
    let form = [
        ("username", "ann"),
        ("role", "viewer"),
        ("password", "correct horse battery"),
    ];
    entry_of(&cluster, &post(&cluster, "/user", &form));
    let login = post(&cluster, "/login", &[("token", TOKEN)]);
    assert_eq!(login.status, 200);
    let entry = entry_of(&cluster, &login);
    assert!(
        entry["message"].as_str().unwrap().contains("Logged in as token"),
        "{entry}"
    );
    assert_eq!(entry["who"], json!("token \"tests\""));
    let token = post(&cluster, "/token", &[("name", "a"), ("role", "viewer")]);
    entry_of(&cluster, &token);
    let secret = token.body["token"].as_str().unwrap();
    let tree = futures::executor::block_on(cluster.store.read_tree("/audit")).unwrap();
    for (path, znode) in tree {
        let text = String::from_utf8(znode.data).unwrap();
        for secret in [secret, TOKEN, "correct horse"] {
            assert!(!text.contains(secret), "{path}: {text}");
        }
    }
}

#[test]
fn who_is_not_known_can_not_push_out_what_others_did() {
    let cluster = Cluster::start();
    for guess in 0..5 {
        let token = format!("guess-{guess}");
        assert_eq!(ask_with(&cluster, "", "POST", "/logout", Some(&[])).status, 200);
        assert_eq!(ask_with(&cluster, "", "POST", "/login", Some(&[])).status, 400);
        ask_with(&cluster, "", "POST", "/login", Some(&[("token", &token)]));
    }
    // Somebody who is known is entered among them.
    let reply = post(&cluster, "/status", &[("state", "true")]);
    entry_of(&cluster, &reply);
    let all = get(&cluster, "/audit").body;
    assert_eq!(all.as_array().unwrap().len(), 2, "{all}");
    assert_eq!(all[1]["role"], json!(null));
}

#[test]
fn looking_at_secrets_is_entered() {
    let cluster = Cluster::start();
    assert_eq!(
        define(&cluster, &guest_xml("web1", vm_id(1), ""), &[]).status,
        200
    );
    let shown = get(&cluster, "/vm/web1?secrets=true");
    assert_eq!(entry_of(&cluster, &shown)["operation"], json!("show_vm"));
    let backup = get(&cluster, "/backup?secrets=true");
    assert_eq!(entry_of(&cluster, &backup)["who"], json!("token \"tests\""));
    assert_eq!(entry_of(&cluster, &backup)["target"], json!("/api/v1/backup"));
    let plain = get(&cluster, "/backup");
    let path = format!("/audit?request_id={}", plain.request_id);
    assert_eq!(get(&cluster, &path).body, json!([]));
}

// A client that hangs up half-way must not make the trace of an erasure vanish.
#[test]
fn making_the_store_anew_is_entered() {
    let cluster = Cluster::start();
    let form = [("yes-i-really-mean-it", "yes"), ("overwrite", "True")];
    let reply = post(&cluster, "/initialize", &form);
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(entry_of(&cluster, &reply)["operation"], json!("initialize"));
}
