//! Every operation of PVC 1.0.3, asked as no sane client would: missing, wrong, repeated, unknown and hostile parameters,
//! names and bodies. Whatever comes in, the daemon answers soon, in the form of an error, without an error of its own, and
//! goes on serving.
//!
//! The operations and their parameters are facts recorded from that release (`fixtures/parameters-1.0.3.json`); those that
//! this release does not carry out answer 501. `cargo test -p pvcapid --test reference_operations -- --nocapture` prints the list.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{Cluster, TOKEN, commit, guest_xml, rbd_disk, vm_id};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use pvc_common::clock::{Clock, HostClock};
use pvc_common::keys;
use pvc_common::keys::values::Nothing;
use pvc_common::store::Txn;
use serde_json::Value;
use ureq::Agent;

/// No request of these may take longer, those that wait for guests included: they are told to wait for less.
const SOON: Duration = Duration::from_secs(8);
/// How long requests wait for guests here. Nobody carries out what they wait for.
const PATIENCE: Duration = Duration::from_millis(50);

/// An operation of the earlier release.
#[derive(Debug, Clone)]
struct Operation {
    method: String,
    path: String,
    parameters: Vec<Parameter>,
}

#[derive(Debug, Clone)]
struct Parameter {
    name: String,
    kind: String,
    choices: Vec<String>,
}

fn operations() -> Vec<Operation> {
    let all: Value = serde_json::from_str(include_str!("fixtures/parameters-1.0.3.json")).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    all.as_array()
        .unwrap()
        .iter()
        .map(|operation| Operation {
            method: text(&operation["method"]),
            path: text(&operation["path"]),
            parameters: list(&operation["parameters"])
                .iter()
                .map(|parameter| Parameter {
                    name: text(&parameter["name"]),
                    kind: text(&parameter["type"]),
                    choices: list(&parameter["choices"]).iter().map(text).collect(),
                })
                .collect(),
        })
        .collect()
}

/// What no parameter should be, and some client will send.
fn hostile() -> Vec<String> {
    let mut values: Vec<String> = [
        "",
        " ",
        "\0",
        "a\nb",
        "../../config/primary_node",
        "/config",
        "%2e%2e%2f",
        "'; DROP TABLE vm; --",
        "<domain/>",
        "<!DOCTYPE d [<!ENTITY a \"b\"><!ENTITY c \"&a;&a;&a;&a;\">]><domain>&c;</domain>",
        "{\"a\":1}",
        "-1",
        "99999999999999999999999",
        "1e309",
        "NaN",
        "True",
        "maybe",
        "(a+)+$",
        "[",
        "*",
        "\u{202e}\u{1f4a9}",
        "None",
        "hv1,hv2,,hv9",
    ]
    .map(str::to_owned)
    .into();
    values.push("x".repeat(5_000));
    values.push(format!("{}(", "(".repeat(300)));
    values
}

/// The same, for a part of the path.
const HOSTILE_NAMES: [&str; 12] = [
    "no-such-thing",
    "%00",
    "..%2F..%2Fconfig",
    "a%0Ab",
    "%F0%9F%92%A9",
    "%ff%fe",
    "%25",
    "%3Cx%3E",
    "-1",
    "99999999999999999999",
    "00000000-0000-0000-0000-000000000000",
    "%20",
];

/// A cluster with one of everything that the API knows by name.
fn cluster() -> Cluster {
    let cluster = Cluster::impatient(PATIENCE);
    let xml = guest_xml("web", vm_id(1), &rbd_disk("vms/web", ""));
    let defined = ureq::post(format!("{}/api/v1/vm", cluster.url()))
        .header("X-Api-Key", TOKEN)
        .send_form([("xml", xml.as_str()), ("node", "hv1")])
        .unwrap();
    assert_eq!(defined.status(), 200);
    let fault = keys::fault("F1");
    commit(
        &cluster.store,
        Txn::new()
            .create(&fault.root(), &Nothing)
            .create(&fault.delta(), &5)
            .create(&fault.status(), &"new".to_owned())
            .create(&fault.message(), &"something".to_owned()),
    );
    cluster
}

/// The path with a name for each part in braces: of something that is there, or `name`.
fn path_of(operation: &Operation, name: Option<&str>) -> String {
    operation
        .path
        .split('/')
        .map(|part| match (part.strip_prefix('{'), name) {
            (None, _) => part,
            (Some(_), Some(name)) => name,
            (Some("vm}"), None) => "web",
            (Some("node}"), None) => "hv1",
            (Some("fault_id}"), None) => "F1",
            (Some(_), None) => "1",
        })
        .collect::<Vec<_>>()
        .join("/")
}

struct Client {
    url: String,
    agent: Agent,
    asked: usize,
    /// What the last answer said.
    said: String,
}

impl Client {
    fn new(cluster: &Cluster) -> Client {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(SOON))
            .build()
            .new_agent();
        Client {
            url: cluster.url().to_owned(),
            agent,
            asked: 0,
            said: String::new(),
        }
    }

    /// Asks, and sees that the answer is one. Gives its status.
    fn ask(&mut self, method: &str, path: &str, query: &str, body: Option<(&str, &[u8])>) -> u16 {
        self.asked += 1;
        let separator = if query.is_empty() { "" } else { "?" };
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}/api/v1{path}{separator}{query}", self.url))
            .header("X-Api-Key", TOKEN);
        let (kind, bytes) = body.unwrap_or(("text/plain", b""));
        let request = request.header("Content-Type", kind).body(bytes).unwrap();
        let what = || {
            let shown: String = String::from_utf8_lossy(bytes).chars().take(200).collect();
            let query: String = query.chars().take(200).collect();
            format!("{method} {path}?{query} with {kind} {shown:?}")
        };
        let begun = HostClock.now();
        let mut response = self
            .agent
            .run(request)
            .unwrap_or_else(|error| panic!("{}: {error}", what()));
        let status = response.status().as_u16();
        let text = response
            .body_mut()
            .read_to_string()
            .unwrap_or_else(|error| panic!("{}: {error}", what()));
        assert!(HostClock.now().since(begun) < SOON, "{}: too slow", what());
        // 501: not carried out by this release. 504: nobody did what was waited for. Everything else that begins with 5
        // would be a fault of the daemon's that input has caused.
        assert!(
            status < 500 || matches!(status, 501 | 504),
            "{}: {status} {text}",
            what()
        );
        if status >= 400 {
            let error: Value =
                serde_json::from_str(&text).unwrap_or_else(|_| panic!("{}: {status} {text}", what()));
            let has = |field: &str| error[field].as_str().is_some_and(|text| !text.is_empty());
            assert!(has("message") && has("code"), "{}: {status} {text}", what());
        }
        self.said = text;
        status
    }

    fn form(&mut self, method: &str, path: &str, fields: &[(String, String)]) -> [u16; 2] {
        let encoded = serde_html_form::to_string(fields).unwrap();
        let form = "application/x-www-form-urlencoded";
        [
            self.ask(method, path, &encoded, None),
            self.ask(method, path, "", Some((form, encoded.as_bytes()))),
        ]
    }
}

fn plausible(parameter: &Parameter) -> String {
    match (parameter.choices.first(), parameter.kind.as_str()) {
        (Some(choice), _) => choice.clone(),
        (None, "boolean") => "false".to_owned(),
        (None, "integer" | "number") => "1".to_owned(),
        (None, _) => match parameter.name.as_str() {
            "xml" => guest_xml("other", vm_id(2), ""),
            "node" | "target" => "hv2".to_owned(),
            other => other.to_owned(),
        },
    }
}

/// One parameter at a time goes wrong, the others are plausible; then names, then bodies.
fn mistreat(operation: &Operation) -> (bool, usize) {
    let cluster = cluster();
    let mut client = Client::new(&cluster);
    let method = operation.method.as_str();
    let path = path_of(operation, None);
    let all: Vec<(String, String)> = operation
        .parameters
        .iter()
        .map(|parameter| (parameter.name.clone(), plausible(parameter)))
        .collect();
    for parameter in &operation.parameters {
        let others = || all.iter().filter(|(name, _)| *name != parameter.name).cloned();
        let missing: Vec<_> = others().collect();
        client.form(method, &path, &missing);
        for value in hostile() {
            let mut fields: Vec<_> = others().collect();
            fields.push((parameter.name.clone(), value));
            client.form(method, &path, &fields);
        }
        let mut twice = all.clone();
        twice.push((parameter.name.clone(), "yes".to_owned()));
        client.form(method, &path, &twice);
    }
    for name in HOSTILE_NAMES {
        let path = path_of(operation, Some(name));
        client.ask(method, &path, "", None);
        client.form(method, &path, &all);
    }
    let mut unknown = all.clone();
    unknown.push(("no-such-parameter".to_owned(), "1".to_owned()));
    client.form(method, &path, &unknown);
    let long = vec![b'a'; 3_000_000];
    let bodies: [(&str, &[u8]); 8] = [
        ("application/x-www-form-urlencoded", b"%zz=%&&==&a"),
        ("application/x-www-form-urlencoded", b"\xff\xfe\x00"),
        ("application/json", b"{\"xml\": ["),
        ("application/json", b"null"),
        ("multipart/form-data; boundary=x", b"--x\r\nnothing"),
        ("text/xml", b"<a/>"),
        ("no such type", b"?"),
        ("application/x-www-form-urlencoded", &long),
    ];
    for (kind, body) in bodies {
        client.ask(method, &path, "", Some((kind, body)));
    }
    let [_, status] = client.form(method, &path, &all);
    let what = format!("{method} {}", operation.path);
    assert!(
        !client.said.contains("There is no route"),
        "{what}: {}",
        client.said
    );
    assert_ne!(status, 405, "{what}");
    // It is still there, and tells of its store as before.
    let alive = client.ask("GET", "/version", "", None);
    assert_eq!(alive, 200, "after {what}");
    (status != 501, client.asked)
}

// A single request with a strange name, value or body would take the API of the whole cluster down.
#[test]
fn no_input_makes_any_operation_fail_or_hang() {
    let operations = operations();
    assert_eq!(operations.len(), 179);
    let mut lines = BTreeMap::new();
    let (mut served, mut asked) = (0, 0);
    for operation in &operations {
        let (is_served, requests) = mistreat(operation);
        served += usize::from(is_served);
        asked += requests;
        let state = if is_served { "served, tested" } else { "501" };
        lines.insert(format!("{} {}", operation.path, operation.method), state);
    }
    for (operation, state) in &lines {
        eprintln!("{operation:<70} {state}");
    }
    eprintln!(
        "{} operations of PVC 1.0.3: {served} served and tested, {} answer 501; {asked} requests",
        operations.len(),
        operations.len() - served
    );
    // Those of clusters, nodes and guests; it only grows.
    assert!(served >= 40, "{served}");
}

/// Any text, mostly of characters that mean something to somebody.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,40}",
        "[<>&'\"/{}\\[\\]()*+?|^$%#;:,=\\\\]{0,30}",
        any::<String>(),
        Just("true".to_owned()),
        Just("web".to_owned()),
        Just("hv2".to_owned()),
        "-?[0-9]{1,25}",
    ]
}

// What nobody thought of.
#[test]
fn no_random_request_makes_any_operation_fail_or_hang() {
    let cluster = cluster();
    let operations = operations();
    let mut runner = TestRunner::new(Config {
        cases: 1500,
        failure_persistence: None,
        ..Config::default()
    });
    let strategy = (
        prop::sample::select(operations),
        prop::collection::vec((any::<prop::sample::Index>(), text()), 0..5),
        prop::option::of(prop::sample::select(HOSTILE_NAMES.to_vec())),
        any::<bool>(),
    );
    runner
        .run(&strategy, |(operation, values, name, in_body)| {
            let mut client = Client::new(&cluster);
            let fields: Vec<(String, String)> = values
                .into_iter()
                .map(|(index, value)| match operation.parameters.is_empty() {
                    true => ("unknown".to_owned(), value),
                    false => (index.get(&operation.parameters).name.clone(), value),
                })
                .collect();
            let path = path_of(&operation, name);
            let encoded = serde_html_form::to_string(&fields).unwrap();
            if in_body {
                let form = ("application/x-www-form-urlencoded", encoded.as_bytes());
                client.ask(&operation.method, &path, "", Some(form));
            } else {
                client.ask(&operation.method, &path, &encoded, None);
            }
            Ok(())
        })
        .unwrap();
}
