//! What PVC 1.0.3 does is served here or refused as not done yet; it is never "no such route".

use serde_json::Value;

use crate::client::ask_with;
use crate::common::{Cluster, TOKEN};

fn operations() -> Vec<(String, String)> {
    let all: Value = serde_json::from_str(include_str!("../fixtures/operations-1.0.3.json")).unwrap();
    all.as_array()
        .unwrap()
        .iter()
        .map(|operation| {
            let text = |field: &str| operation[field].as_str().unwrap().to_owned();
            (text("method"), text("path"))
        })
        .collect()
}

#[test]
fn every_operation_of_the_reference_is_served_or_said_to_be_missing() {
    let cluster = Cluster::start();
    let mut missing = 0;
    for (method, pattern) in operations() {
        // Names that nothing has, so that what is served changes nothing.
        let path: String = pattern
            .split('/')
            .map(|part| {
                if part.starts_with('{') {
                    "no-such-thing"
                } else {
                    part
                }
            })
            .collect::<Vec<_>>()
            .join("/");
        let reply = ask_with(&cluster, TOKEN, &method, &path, None);
        assert_ne!(reply.status, 405, "{method} {path}");
        assert!(
            !reply.message().contains("There is no route"),
            "{method} {path}: {}",
            reply.message()
        );
        if reply.status == 501 {
            missing += 1;
            assert_eq!(reply.code(), "not_implemented");
            assert!(reply.message().contains(&path), "{}", reply.message());
        }
    }
    // Whoever builds one of these strikes it off.
    assert_eq!(missing, 105, "operations that are not carried out yet");
}

#[test]
fn what_is_missing_is_said_to_those_alone_who_may_ask() {
    let cluster = Cluster::start();
    assert_eq!(ask_with(&cluster, "", "POST", "/network", None).status, 401);
    assert_eq!(ask_with(&cluster, TOKEN, "POST", "/network", None).status, 501);
    // Parameters are not looked at: what can't be done is said at once.
    let reply = ask_with(&cluster, TOKEN, "POST", "/vm/autobackup?force_full=perhaps", None);
    assert_eq!(reply.status, 501);
    // A guest may have such a name all the same.
    assert_eq!(
        ask_with(&cluster, TOKEN, "GET", "/vm/autobackup", None).status,
        404
    );
    assert_eq!(ask_with(&cluster, TOKEN, "PATCH", "/network", None).status, 405);
    assert_eq!(ask_with(&cluster, TOKEN, "POST", "/networks", None).status, 404);
}
