//! Who is let in, and what errors look like.

use serde_json::json;

use crate::client::{ask_with, get};
use crate::common::{Cluster, TOKEN};

#[test]
fn only_what_was_open_in_the_reference_is_answered_without_a_token() {
    let cluster = Cluster::start();
    for path in ["/", "", "/status/primary_node"] {
        assert_eq!(ask_with(&cluster, "", "GET", path, None).status, 200, "{path}");
    }
    // An empty or partial token opened everything in 1.0.3.
    for token in ["", "a-token", "a-token-for-test", "a-token-for-tests2"] {
        for path in [
            "/status",
            "/node",
            "/vm",
            "/version",
            "/no/such/route",
            "/node/hv1?limit=(",
        ] {
            let reply = ask_with(&cluster, token, "GET", path, None);
            assert_eq!(reply.status, 401, "{token:?} {path}");
            assert_eq!(reply.code(), "unauthorized");
            assert!(!reply.message().is_empty());
        }
    }
    // Who is not let in learns nothing about parameters either.
    assert_eq!(ask_with(&cluster, "", "POST", "/vm", Some(&[])).status, 401);
}

#[test]
fn every_error_has_message_code_and_request_id() {
    let cluster = Cluster::start();
    let reply = get(&cluster, "/no/such/route");
    assert_eq!((reply.status, reply.code()), (404, "not_found"));
    assert_eq!(reply.body["request_id"], json!(reply.request_id));
    assert!(!reply.request_id.is_empty());
    let reply = ask_with(&cluster, TOKEN, "PATCH", "/node", None);
    assert_eq!((reply.status, reply.code()), (405, "method_not_allowed"));
}
