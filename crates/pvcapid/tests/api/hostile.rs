//! What no client should send, and what must never come back.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use proptest::prelude::*;
use pvc_common::keys;
use pvc_common::secret::Secret;
use serde_json::Value;
use ureq::Agent;

use crate::client::{agent, ask_with, define, get};
use crate::common::{Cluster, TOKEN, commit, guest_xml, node, parameters, vm_id};

/// Values that programs have stumbled over.
const HOSTILE: [&str; 14] = [
    "",
    " ",
    "..",
    "../../config",
    "/",
    "%",
    "-1",
    "99999999999999999999999",
    "(a+)+$",
    "[",
    "a\u{0}b",
    "\u{202e}ünï¢ödé\u{1f4a3}",
    "'; DROP TABLE vm; --",
    "<!DOCTYPE a [<!ENTITY b \"bb\">]><a>&b;</a>",
];

/// An operation of the description: its method, its path, and the names of its parameters.
struct Operation {
    method: String,
    path: String,
    parameters: Vec<String>,
}

fn operations() -> Vec<Operation> {
    let document: Value = serde_json::from_str(&pvcapid::openapi().unwrap()).unwrap();
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            operations.push(Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                parameters: parameters(operation)
                    .into_iter()
                    .map(|(name, _)| name)
                    .filter(|name| !path.contains(&format!("{{{name}}}")))
                    .collect(),
            });
        }
    }
    operations
}

/// As a part of a path or of a query.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

/// `path` with `value` in place of each of its names.
fn filled(path: &str, value: &str) -> String {
    path.split('/')
        .map(|part| {
            if part.starts_with('{') {
                encoded(value)
            } else {
                part.to_owned()
            }
        })
        .collect::<Vec<_>>()
        .join("/")
}

/// The status of the reply. Bodies of good replies are not read: that of an event stream has no end.
fn status(agent: &Agent, method: &str, url: &str, form: Option<(&str, String)>) -> u16 {
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(url)
        .header("X-Api-Key", TOKEN);
    let reply = match form {
        None => agent.run(request.body(()).unwrap()),
        Some((kind, body)) => agent.run(request.header("Content-Type", kind).body(body).unwrap()),
    };
    reply.unwrap().status().as_u16()
}

/// Whether the server takes that for its own fault. 501 is honest, and a wait may end without what it waited for.
fn is_fault(status: u16) -> bool {
    status >= 500 && !matches!(status, 501 | 504)
}

// A 5xx makes people look for what is broken in the cluster. It must not be for what a client sent.
#[test]
fn no_input_is_a_fault_of_the_server() {
    let agent = agent();
    let mut faults = Vec::new();
    for Operation {
        method,
        path,
        parameters,
    } in operations()
    {
        let mut ask = |url: &str, form: Option<(&str, String)>, what: &str| {
            let status = status(&agent, &method, url, form);
            if is_fault(status) {
                faults.push(format!("{status} for {what}"));
            }
        };
        // Each begins with a whole cluster: some remove things.
        let cluster = Cluster::impatient(Duration::from_millis(20));
        assert_eq!(
            define(&cluster, &guest_xml("web1", vm_id(1), ""), &[]).status,
            200
        );
        for value in HOSTILE.into_iter().chain([&*"x".repeat(5_000)]) {
            let form = parameters
                .iter()
                .chain([&"unknown".to_owned()])
                .map(|name| format!("{name}={}", encoded(value)))
                .collect::<Vec<_>>()
                .join("&");
            let there = if path.starts_with("/vm") { "web1" } else { "hv1" };
            let names = if path.contains('{') {
                vec![there, value]
            } else {
                vec![there]
            };
            for name in names {
                let url = format!("{}/api/v1{}", cluster.url(), filled(&path, name));
                let what = format!("{method} {path} of {name:?} with {value:?}");
                ask(&format!("{url}?{form}"), None, &what);
                if method == "GET" || method == "DELETE" {
                    continue;
                }
                for kind in ["application/x-www-form-urlencoded", "application/json"] {
                    ask(&url, Some((kind, form.clone())), &what);
                }
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

fn raw(cluster: &Cluster, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(cluster.url().strip_prefix("http://").unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    // It may refuse to read on.
    let _ = socket.write_all(bytes);
    let _ = socket.shutdown(Shutdown::Write);
    let mut reply = Vec::new();
    let _ = socket.read_to_end(&mut reply);
    reply
}

#[test]
fn what_is_no_http_ends_nothing() {
    let cluster = Cluster::start();
    let head = "GET /api/v1/node HTTP/1.1\r\nHost: x\r\n";
    for text in [
        "\r\n\r\n".to_owned(),
        "GET\r\n\r\n".to_owned(),
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
        format!("{head}Content-Length: -1\r\n\r\n"),
        format!("{head}Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
        format!("{head}X-Api-Key: {}\r\n\r\n", "k".repeat(200_000)),
        format!("{head}Cookie: {}\r\n\r\n", "pvc_session=a;".repeat(2_000)),
        format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a/".repeat(40_000)),
        "GET /api/v1/%zz%/%ff HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
    ] {
        let reply = String::from_utf8_lossy(&raw(&cluster, text.as_bytes())).into_owned();
        assert!(!reply.starts_with("HTTP/1.1 5"), "{reply} for {:.60}", text);
        assert_eq!(get(&cluster, "/node").status, 200, "after {text:.60}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_is_sent_ends_the_daemon(bytes in proptest::collection::vec(any::<u8>(), 1..400)) {
        thread_local! {
            static CLUSTER: Cluster = Cluster::start();
        }
        CLUSTER.with(|cluster| {
            let mut request = b"POST /api/v1/login HTTP/1.1\r\nHost: x\r\nConnection: close\r\n".to_vec();
            request.extend_from_slice(
                format!(
                    "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
                    bytes.len()
                )
                .as_bytes(),
            );
            request.extend_from_slice(&bytes);
            for sent in [&request, &bytes] {
                let reply = String::from_utf8_lossy(&raw(cluster, sent)).into_owned();
                assert!(!reply.starts_with("HTTP/1.1 5"), "{reply}");
            }
        });
    }
}

// Whoever may look must not learn how to switch the nodes off, or how to get in.
#[test]
fn secrets_are_in_no_reply() {
    let cluster = Cluster::start();
    assert_eq!(
        define(&cluster, &guest_xml("web1", vm_id(1), ""), &[]).status,
        200
    );
    let form = [
        ("username", "ann"),
        ("role", "viewer"),
        ("password", "correct horse battery"),
    ];
    assert_eq!(
        ask_with(&cluster, TOKEN, "POST", "/user", Some(&form)).status,
        200
    );
    let form = [("name", "grafana"), ("role", "viewer")];
    assert_eq!(
        ask_with(&cluster, TOKEN, "POST", "/token", Some(&form)).status,
        200
    );
    let bmc = keys::node(&node("hv1")).ipmi_password();
    commit(
        &cluster.store,
        pvc_common::store::Txn::new().create(&bmc, &Secret::new("the-password-of-the-bmc")),
    );
    // All that is secret by the rule that backups keep to, as it stands in the store.
    let mut secrets = vec![
        "the-password-of-the-bmc".to_owned(),
        "correct horse battery".to_owned(),
    ];
    let tree = |path: &str| {
        futures::executor::block_on(pvc_common::store::StoreExt::read_tree(&cluster.store, path)).unwrap()
    };
    for (path, znode) in tree("/access") {
        assert!(keys::holds_secret(&path), "{path}");
        let record: Value = serde_json::from_slice(&znode.data).unwrap_or(Value::Null);
        let digests = [
            &record["digest"],
            &record["password"]["hash"],
            &record["password"]["salt"],
        ];
        secrets.extend(
            digests
                .iter()
                .filter_map(|digest| Some(digest.as_str()?.to_owned())),
        );
    }
    assert!(secrets.len() >= 5, "{secrets:?}");
    let agent = agent();
    for Operation { method, path, .. } in operations() {
        if method != "GET" {
            continue;
        }
        for name in ["web1", "hv1"] {
            let url = format!("{}/api/v1{}", cluster.url(), filled(&path, name));
            let mut reply = agent.get(&url).header("X-Api-Key", TOKEN).call().unwrap();
            let kind = reply.headers().get("Content-Type");
            if kind.is_some_and(|kind| kind.to_str().unwrap().starts_with("text/event-stream")) {
                continue;
            }
            let text = reply.body_mut().read_to_string().unwrap();
            for secret in &secrets {
                assert!(!text.contains(secret), "GET {path} tells {secret}");
            }
        }
    }
}
