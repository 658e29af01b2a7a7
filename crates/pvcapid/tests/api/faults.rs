//! Faults.

use pvc_common::clock::HostClock;
use pvc_common::faults::{self, Fault};
use serde_json::json;

use crate::client::{ask_with, get};
use crate::common::{Cluster, TOKEN};

fn raise(cluster: &Cluster, words: &[&str], delta: u32) {
    let fault = Fault::new(words, delta, format!("{} is wrong", words.join(" ")));
    futures::executor::block_on(faults::raise(&cluster.store, &HostClock, &fault)).unwrap();
}

fn put(cluster: &Cluster, path: &str) -> u16 {
    ask_with(cluster, TOKEN, "PUT", path, None).status
}

fn delete(cluster: &Cluster, path: &str) -> u16 {
    ask_with(cluster, TOKEN, "DELETE", path, None).status
}

#[test]
fn faults_are_seen_acknowledged_and_deleted() {
    let cluster = Cluster::start();
    assert_eq!(get(&cluster, "/faults").body, json!([]));
    raise(&cluster, &["bmc", "hv1"], 10);
    raise(&cluster, &["upstream", "hv2"], 25);
    let all = get(&cluster, "/faults?sort_key=health_delta").body;
    assert_eq!(all[1]["id"], json!("UPSTREAM_HV2"));
    assert_eq!(all[1]["status"], json!("new"));
    assert_eq!(get(&cluster, "/faults?sort_key=age").status, 400);
    assert_eq!(
        get(&cluster, "/status").body["cluster_health"]["health"],
        json!(65)
    );
    assert_eq!(put(&cluster, "/faults/UPSTREAM_HV2"), 200);
    assert_eq!(put(&cluster, "/faults/UPSTREAM_HV2"), 200, "so already");
    let one = get(&cluster, "/faults/UPSTREAM_HV2").body;
    assert_eq!(one[0]["status"], json!("ack"));
    assert_ne!(one[0]["acknowledged_at"], json!(""));
    // What is known lowers the health no more, but is still there.
    let status = get(&cluster, "/status").body;
    assert_eq!(status["cluster_health"]["health"], json!(90));
    assert_eq!(status["detail"]["faults"].as_array().unwrap().len(), 2);
    // It still lasts: that somebody knows of it stays.
    raise(&cluster, &["upstream", "hv2"], 30);
    assert_eq!(
        get(&cluster, "/faults/UPSTREAM_HV2").body[0]["status"],
        json!("ack")
    );
    assert_eq!(put(&cluster, "/faults/NONE"), 404);
    assert_eq!(delete(&cluster, "/faults/NONE"), 404);
    assert_eq!(delete(&cluster, "/faults/a%2Fb"), 404);
    assert_eq!(get(&cluster, "/faults/NONE").body, json!([]));
    assert_eq!(delete(&cluster, "/faults/UPSTREAM_HV2"), 200);
    assert_eq!(get(&cluster, "/faults").body.as_array().unwrap().len(), 1);
    assert_eq!(put(&cluster, "/faults"), 200);
    assert_eq!(delete(&cluster, "/faults"), 200);
    assert_eq!(get(&cluster, "/faults").body, json!([]));
    assert_eq!(delete(&cluster, "/faults"), 200, "so already");
}
