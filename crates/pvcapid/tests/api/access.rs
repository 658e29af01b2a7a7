//! Who is let in, and what errors look like.

use std::time::Duration;

use pvc_core::access::Role;
use serde_json::{Value, json};

use crate::client::{agent, ask_with, define, get};
use crate::common::{Cluster, OPERATOR_TOKEN, TOKEN, VIEWER_TOKEN, guest_xml, vm_id};

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
    assert_eq!((reply.status, reply.code()), (404, "no_route"));
    assert_eq!(reply.body["request_id"], json!(reply.request_id));
    assert!(!reply.request_id.is_empty());
    let reply = ask_with(&cluster, TOKEN, "PATCH", "/node", None);
    assert_eq!((reply.status, reply.code()), (405, "method_not_allowed"));
}

/// Each operation of the description: method, path with names filled in, and what its `security` says.
fn operations() -> Vec<(String, String, Value)> {
    let document: Value = serde_json::from_str(&pvcapid::openapi().unwrap()).unwrap();
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path: Vec<&str> = path
            .split('/')
            .map(|part| if part.starts_with('{') { "hv1" } else { part })
            .collect();
        for (method, operation) in methods.as_object().unwrap() {
            operations.push((
                method.to_uppercase(),
                path.join("/"),
                operation["security"].clone(),
            ));
        }
    }
    operations
}

/// The role that a `security` asks for; `None` where it asks for nothing.
fn role(security: &Value) -> Option<Role> {
    let alternatives = security.as_array().unwrap();
    assert!(!alternatives.is_empty());
    if alternatives.contains(&json!({})) {
        return None;
    }
    let roles: Vec<Role> = alternatives
        .iter()
        .flat_map(|one| one.as_object().unwrap().values())
        .map(|scopes| scopes[0].as_str().unwrap().parse().unwrap())
        .collect();
    assert!(roles.iter().all(|role| *role == roles[0]), "{security}");
    Some(roles[0])
}

#[test]
fn every_route_declares_its_role_and_keeps_to_it() {
    let cluster = Cluster::impatient(Duration::from_millis(50));
    let agent = agent();
    let status = |method: &str, path: &str, token: &str| {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}/api/v1{path}", cluster.url()))
            .header("X-Api-Key", token);
        // The body is not read: that of an event stream has no end.
        agent.run(request.body(()).unwrap()).unwrap().status().as_u16()
    };
    let mut open = Vec::new();
    for (method, path, security) in operations() {
        let Some(needed) = role(&security) else {
            open.push(path);
            continue;
        };
        // A route that looks must be open to those who may only look, and one that changes must not.
        assert_eq!(status(&method, &path, ""), 401, "{method} {path}");
        for (role, token) in [
            (Role::Viewer, VIEWER_TOKEN),
            (Role::Operator, OPERATOR_TOKEN),
            (Role::Admin, TOKEN),
        ] {
            let refused = status(&method, &path, token) == 403;
            assert_eq!(refused, !role.covers(needed), "{method} {path} as {role}");
        }
        if method != "GET" {
            assert_ne!(needed, Role::Viewer, "{method} {path} changes something");
        }
    }
    // Metrics are open as a whole, as in PVC 1.0.3, and can be switched off.
    open.retain(|path| path != "/metrics" && !path.starts_with("/metrics/"));
    open.sort();
    assert_eq!(open, ["/", "/login", "/logout", "/status/primary_node"]);
}

#[test]
fn who_may_not_is_told_which_role_it_needs() {
    let cluster = Cluster::start();
    let reply = ask_with(
        &cluster,
        VIEWER_TOKEN,
        "POST",
        "/status",
        Some(&[("state", "true")]),
    );
    assert_eq!((reply.status, reply.code()), (403, "forbidden"));
    assert!(reply.message().contains("needs the role operator"), "{reply:?}");
    assert_eq!(get(&cluster, "/status").body["maintenance"], json!("false"));
    let reply = ask_with(
        &cluster,
        OPERATOR_TOKEN,
        "POST",
        "/status",
        Some(&[("state", "true")]),
    );
    assert_eq!(reply.status, 200);
}

#[test]
fn guessing_is_slowed_down() {
    let cluster = Cluster::start();
    let refused = |token: &str| ask_with(&cluster, token, "GET", "/node", None);
    // A dashboard with an old token guesses nothing and locks nobody out.
    for _ in 0..30 {
        assert_eq!(refused("an-old-token").status, 401);
    }
    let last = (0..30)
        .map(|guess| refused(&format!("guess-{guess}")))
        .find(|reply| reply.status != 401)
        .expect("a limit");
    assert_eq!((last.status, last.code()), (429, "too_many_failures"));
    let wait: u64 = last.retry_after.parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    // The right one is not looked at either: otherwise guessing would go on unseen.
    assert_eq!(get(&cluster, "/node").status, 429);
    assert_eq!(ask_with(&cluster, "", "GET", "/", None).status, 200);
}

// Thousands of connections that are not let in must not fill the daemon's memory.
#[test]
fn somebody_unknown_can_not_send_much() {
    let cluster = Cluster::start();
    let token = "x".repeat(9000);
    let reply = ask_with(&cluster, "", "POST", "/login", Some(&[("token", &token)]));
    assert_eq!(reply.status, 413, "{reply:?}");
}

// Load balancers and monitors ask with HEAD, as `curl -I` does. Where it was refused they took the daemon for dead; where it went past
// the checks of GET it would tell who has no token what there is.
#[test]
fn head_is_answered_as_get_without_the_body() {
    let cluster = Cluster::start();
    assert_eq!(define(&cluster, &guest_xml("a", vm_id(1), ""), &[]).status, 200);
    let agent = agent();
    let ask = |method: &str, path: &str, token: &str| {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", cluster.url()))
            .header("X-Api-Key", token);
        let mut response = agent.run(request.body(()).unwrap()).unwrap();
        let header = |name: &str| {
            let value = response.headers().get(name);
            value.map(|value| value.to_str().unwrap().to_owned())
        };
        let (length, tag) = (header("Content-Length"), header("ETag"));
        let status = response.status().as_u16();
        // An event stream has no end.
        let body = if method == "HEAD" || !path.ends_with("/events") {
            response.body_mut().read_to_string().unwrap()
        } else {
            String::new()
        };
        (status, length, tag, body)
    };
    for (path, token, status) in [
        ("/healthz", "", 200),
        ("/readyz", "", 200),
        ("/api/v1/metrics/health", "", 200),
        ("/api/v1/vm", "", 401),
        ("/api/v1/vm", VIEWER_TOKEN, 200),
        ("/api/v1/vm/a", VIEWER_TOKEN, 200),
        ("/api/v1/vm/none", VIEWER_TOKEN, 404),
        ("/api/v1/audit", VIEWER_TOKEN, 403),
        ("/api/v1/vm/a/rename", OPERATOR_TOKEN, 405),
        ("/api/v1/events", VIEWER_TOKEN, 200),
    ] {
        let (found, length, tag, body) = ask("HEAD", path, token);
        assert_eq!((found, &*body), (status, ""), "{path}");
        let whole = ask("GET", path, token);
        assert_eq!((found, &tag), (whole.0, &whole.2), "{path}");
        if status == 200 && path.starts_with("/api/v1/vm") {
            assert!(tag.is_some(), "{path}");
            assert_eq!(length, Some(whole.3.len().to_string()), "{path}");
        }
    }
    let text = ask("GET", "/api/v1/metrics/daemon", "").3;
    assert!(text.contains("method=\"HEAD\",route=\"/healthz\"} 1"), "{text}");
}
