//! What clients of PVC 1.0.3 rely on: routes, parameters and fields, against facts recorded from that release.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Cluster, TOKEN, guest_xml, node, rbd_disk, vm_id};
use pvc_common::keys;
use pvc_common::keys::values::{Json, Nothing, SpaceList};
use pvc_common::store::Txn;
use serde_json::{Value, json};

fn reference() -> Value {
    serde_json::from_str(include_str!("fixtures/reference-1.0.3.json")).unwrap()
}

fn get(cluster: &Cluster, path: &str) -> Value {
    let mut response = ureq::get(format!("{}/api/v1{path}", cluster.url()))
        .header("X-Api-Key", TOKEN)
        .call()
        .unwrap();
    serde_json::from_str(&response.body_mut().read_to_string().unwrap()).unwrap()
}

/// Everything in `shape` that `found` does not have.
fn missing(shape: &Value, found: &Value, place: &str, list: &mut Vec<String>) {
    match (shape, found) {
        (Value::Object(fields), Value::Object(found)) => {
            for (name, inner) in fields {
                match found.get(name) {
                    Some(found) => missing(inner, found, &format!("{place}.{name}"), list),
                    None => list.push(format!("{place}.{name}")),
                }
            }
        }
        (Value::Array(shape), Value::Array(found)) => {
            for inner in shape {
                match found.first() {
                    Some(found) => missing(inner, found, &format!("{place}[]"), list),
                    None => list.push(format!("{place}[] (the test has none)")),
                }
            }
        }
        (Value::Object(_) | Value::Array(_), other) => list.push(format!("{place} is {other}")),
        (_, _) => {}
    }
}

fn check(shape: &str, found: &Value) {
    let mut list = Vec::new();
    missing(&reference()["shapes"][shape], found, shape, &mut list);
    // Ceph's OSDs come with storage management.
    list.retain(|place| place != "cluster_status.detail.osd[] (the test has none)");
    assert!(list.is_empty(), "missing: {list:?} in {found}");
}

/// Statistics as a node's agent stores them.
fn stats() -> Value {
    json!({
        "state": 1, "maxmem": 1, "livemem": 1, "cpus": 2, "cputime": 1,
        "mem_stats": {"actual": 1, "swap_in": 1, "swap_out": 1, "major_fault": 1, "minor_fault": 1, "unused": 1,
            "available": 1, "usable": 1, "last_update": 1, "rss": 1, "disk_caches": 1, "hugetlb_pgalloc": 1,
            "hugetlb_pgfail": 1},
        "cpu_stats": {"cpu_time": 1, "user_time": 1, "system_time": 1},
        "disk_stats": [{"name": "vms/other", "dev": "sdq", "rd_req": 9}, {"name": "vms/a", "dev": "sda", "rd_req": 7,
            "rd_bytes": 1, "wr_req": 1, "wr_bytes": 1}],
        "net_stats": [{"mac": "52:54:00:00:00:01", "bridge": "vmbr100", "rd_bytes": 5}],
    })
}

#[test]
fn every_field_of_the_reference_is_in_the_replies() {
    let cluster = Cluster::start();
    let devices = rbd_disk("vms/a", "")
        + "<interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='vmbr100'/></interface>\
           <controller type='scsi' model='virtio-scsi'/>";
    let xml = guest_xml("a", vm_id(1), &devices);
    let defined = ureq::post(format!("{}/api/v1/vm", cluster.url()))
        .header("X-Api-Key", TOKEN)
        .send_form([("xml", xml.as_str()), ("user_tags", "t"), ("node", "hv1")])
        .unwrap();
    assert_eq!(defined.status(), 200);
    cluster.set(&keys::domain(vm_id(1)).stats(), &Some(Json(stats())));
    let snapshot = keys::domain_snapshot(vm_id(1), "s1");
    let plugin = keys::monitoring_plugin(&node("hv1"), "load");
    let fault = keys::fault("F1");
    common::commit(
        &cluster.store,
        Txn::new()
            .create(&snapshot.name(), &"s1".to_owned())
            .create(&snapshot.timestamp(), &"1700000000.5".to_owned())
            .create(
                &snapshot.xml(),
                &xml.replace("<memory unit=\"MiB\">512<", "<memory unit=\"MiB\">256<"),
            )
            .create(
                &snapshot.rbd_snapshots(),
                &pvc_common::keys::values::CommaList(vec!["vms/a@s1".to_owned()]),
            )
            .overwrite(
                &keys::node(&node("hv1")).monitoring_plugins(),
                &SpaceList(vec!["load".to_owned()]),
            )
            .create(&plugin.root(), &"load".to_owned())
            .create(&plugin.last_run(), &1_700_000_000)
            .create(&plugin.health_delta(), &10)
            .create(&plugin.message(), &"high".to_owned())
            .create(&plugin.data(), &Some(Json(json!({"load": 9}))))
            .create(&fault.root(), &Nothing)
            .create(&fault.delta(), &5)
            .create(&fault.status(), &"new".to_owned())
            .create(&fault.message(), &"something".to_owned()),
    );

    let node = get(&cluster, "/node/hv1");
    check("node", &node[0]);
    assert_eq!(node[0]["health_details"][0]["data"]["load"], json!(9));
    let mut vm = get(&cluster, "/vm/a");
    assert_eq!(
        vm[0]["disks"][0]["rd_req"],
        json!(7),
        "joined by name, not by place"
    );
    assert_eq!(vm[0]["networks"][0]["rd_bytes"], json!(5));
    let changes = vm[0]["snapshots"][0]["xml_diff_lines"].as_array().unwrap();
    for line in [
        "-<memory unit=\"MiB\">512</memory>",
        "+<memory unit=\"MiB\">256</memory>",
    ] {
        assert!(changes.contains(&json!(line)), "{line} is not in {changes:?}");
    }
    vm[0]["features"] = json!([""]);
    vm[0]["node_limit"] = json!([""]);
    check("vm", &vm[0]);
    let status = get(&cluster, "/status");
    check("cluster_status", &status);
    assert_eq!(status["cluster_health"]["health"], json!(95));
}

#[test]
fn every_route_takes_the_parameters_of_the_reference() {
    let document: Value = serde_json::from_str(&pvcapid::openapi().unwrap()).unwrap();
    let reference = reference();
    for route in reference["routes"].as_array().unwrap() {
        let (path, method) = (route["path"].as_str().unwrap(), route["method"].as_str().unwrap());
        let operation = &document["paths"][path][method];
        assert!(operation.is_object(), "{method} {path} is missing");
        let is_open = operation["security"] == json!([{}]);
        assert_eq!(route["open"], json!(is_open), "{method} {path}");
        for status in route["success"].as_array().unwrap() {
            assert!(
                operation["responses"][status.as_str().unwrap()].is_object(),
                "{method} {path} {status}"
            );
        }
        let documented = common::parameters(operation);
        for wanted in route["parameters"].as_array().unwrap() {
            let found = documented.iter().find(|(name, _)| wanted["name"] == *name);
            let (_, required) = found.unwrap_or_else(|| panic!("{method} {path}: no parameter {wanted}"));
            assert!(
                !required || wanted["required"] == json!(true),
                "{method} {path}: {wanted} is required here"
            );
        }
    }
}
