//! Lists of guests.

use pvc_common::keys;
use pvc_common::store::Txn;
use pvc_core::states::VmState;
use serde_json::json;

use crate::client::{define, get};
use crate::common::{Cluster, guest_xml, vm_id};

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
    crate::common::commit(&cluster.store, Txn::new().create_path(stray, ""));
    assert_eq!(get(&cluster, "/vm").status, 200);
    assert_eq!(get(&cluster, "/status").status, 200);
}

// What stands in the store was not always written by this release, nor by a program: a daemon that ends over it ends again as soon as
// somebody looks.
#[test]
fn a_snapshot_of_an_impossible_time_is_shown() {
    let cluster = Cluster::start();
    assert_eq!(define(&cluster, &guest_xml("a", vm_id(1), ""), &[]).status, 200);
    let snapshot = keys::domain_snapshot(vm_id(1), "s1");
    let txn = Txn::new()
        .create(&snapshot.name(), &"s1".to_owned())
        .create(&snapshot.timestamp(), &u64::MAX.to_string());
    crate::common::commit(&cluster.store, txn);
    let reply = get(&cluster, "/vm/a");
    assert_eq!(reply.status, 200);
    let shown = &reply.body[0]["snapshots"][0];
    assert_eq!(shown["timestamp"], json!(u64::MAX.to_string()));
    assert_eq!(shown["age"], json!(0));
}

// Who looks for the snapshot to go back to sees what it would change; but not what the password of the console was.
#[test]
fn a_snapshot_tells_how_its_definition_differs_without_secrets() {
    let cluster = Cluster::start();
    let screen = |password: &str| format!("\n<graphics type='vnc' passwd='{password}'/>\n");
    let xml = guest_xml("a", vm_id(1), &screen("of-today"));
    assert_eq!(define(&cluster, &xml, &[]).status, 200);
    let then = guest_xml("a", vm_id(1), &screen("of-then"));
    for (name, kept) in [
        ("changed", Some(then.replace("<vcpu>2<", "<vcpu>1<"))),
        ("same", Some(then)),
        ("without", None),
    ] {
        let keys = keys::domain_snapshot(vm_id(1), name);
        let mut txn = Txn::new()
            .create(&keys.name(), &name.to_owned())
            .create(&keys.timestamp(), &"1700000000".to_owned());
        if let Some(kept) = &kept {
            txn = txn.create(&keys.xml(), kept);
        }
        crate::common::commit(&cluster.store, txn);
    }
    let reply = get(&cluster, "/vm/a");
    let snapshots = reply.body[0]["snapshots"].as_array().unwrap();
    assert_eq!(
        snapshots[0]["xml_diff_lines"],
        json!([
            "--- current",
            "+++ changed",
            "@@ -4,3 +4,3 @@",
            " <memory unit=\"MiB\">512</memory>",
            "-<vcpu>2</vcpu>",
            "+<vcpu>1</vcpu>",
            " <devices>",
        ])
    );
    assert_eq!(snapshots[1]["xml_diff_lines"], json!([]), "but for the password");
    assert_eq!(snapshots[2]["xml_diff_lines"], json!([]));
    assert!(!reply.body.to_string().contains("of-t"), "{reply:?}");
}
