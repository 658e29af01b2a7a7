//! What changes, told as it happens.

use std::io::{BufRead, BufReader, Read};

use pvc_common::clock::HostClock;
use pvc_common::faults::{self, Fault};
use pvc_common::keys;
use pvc_core::states::VmState;
use serde_json::{Value, json};

use crate::client::{agent, ask_with, define, get, post};
use crate::common::{Cluster, TOKEN, guest_xml, vm_id};

/// A client that listens.
struct Listener(BufReader<Box<dyn Read>>);

#[derive(Debug)]
struct Event {
    id: String,
    name: String,
    data: Value,
}

impl Listener {
    fn start(cluster: &Cluster, query: &str, last: &str) -> Listener {
        Listener::with(cluster, TOKEN, query, last)
    }

    fn with(cluster: &Cluster, token: &str, query: &str, last: &str) -> Listener {
        let mut request = agent()
            .get(format!("{}/api/v1/events{query}", cluster.url()))
            .header("X-Api-Key", token);
        if !last.is_empty() {
            request = request.header("Last-Event-ID", last);
        }
        let response = request.call().unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["Content-Type"], "text/event-stream");
        Listener(BufReader::new(Box::new(response.into_body().into_reader())))
    }

    /// The next event; heartbeats are passed over.
    fn next(&mut self) -> Event {
        let mut event = Event {
            id: String::new(),
            name: String::new(),
            data: Value::Null,
        };
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream has ended");
            match line.trim_end().split_once(": ") {
                Some(("id", id)) => event.id = id.to_owned(),
                Some(("event", name)) => event.name = name.to_owned(),
                Some(("data", data)) => event.data = serde_json::from_str(data).unwrap(),
                _ if event.name.is_empty() => {}
                _ => return event,
            }
        }
    }

    fn until(&mut self, fits: impl Fn(&Event) -> bool) -> Event {
        loop {
            let event = self.next();
            if fits(&event) {
                return event;
            }
        }
    }
}

#[test]
fn what_changes_is_told_and_a_client_goes_on_where_it_was() {
    let cluster = Cluster::start();
    assert_eq!(define(&cluster, &guest_xml("web", vm_id(1), ""), &[]).status, 200);
    let mut listener = Listener::start(&cluster, "", "");
    let begin = listener.next();
    assert_eq!(begin.name, "begin");
    cluster.set(&keys::domain(vm_id(1)).state(), &VmState::Start);
    let started = listener.until(|event| event.data["state"] == json!("start"));
    assert_eq!(started.name, "vm");
    assert_eq!(started.data["name"], json!("web"));
    assert_eq!(started.data["action"], json!("changed"));
    // Figures that are measured all the time are no events.
    let hv1 = keys::node(&crate::common::node("hv1"));
    cluster.set(&hv1.memory_free_mib(), &1);
    cluster.own(vm_id(1), Some("hv1"));
    let owned = listener.next();
    assert_eq!((owned.name.as_str(), &owned.data["owner"]), ("vm", &json!("hv1")));
    drop(listener);

    // It was cut off after it had begun: nothing is missing.
    let mut again = Listener::start(&cluster, "", &begin.id);
    let first = again.until(|event| event.name == "vm" && event.data["state"] == json!("start"));
    assert_eq!(first.id, started.id);
    assert_eq!(again.next().id, owned.id);
    // Only what it asks for, also of what it missed; and a client that can't set headers.
    let mut faults_only = Listener::start(
        &cluster,
        &format!("?types=fault,task&last_event_id={}", begin.id),
        "",
    );
    let fault = Fault::new(&["bmc", "hv1"], 10, "is wrong");
    futures::executor::block_on(faults::raise(&cluster.store, &HostClock, &fault)).unwrap();
    let told = faults_only.next();
    assert_eq!(
        (told.name.as_str(), &told.data["id"]),
        ("fault", &json!("BMC_HV1"))
    );
}

#[test]
fn a_client_that_can_not_be_told_the_rest_is_told_so() {
    let cluster = Cluster::start();
    // Of another daemon, of the future, and no id at all.
    for gone in ["00000000-5", "ffffffff-99999999", "yesterday"] {
        assert_eq!(Listener::start(&cluster, "", gone).next().name, "reset", "{gone}");
    }
    let reply = get(&cluster, "/events?types=node,weather");
    assert_eq!(reply.status, 400);
    assert!(reply.message().contains("weather"), "{}", reply.message());
}

// Who watches a list sees what it shows change at once.
#[test]
fn what_lists_show_of_a_guest_is_told() {
    let cluster = Cluster::start();
    assert_eq!(define(&cluster, &guest_xml("web", vm_id(1), ""), &[]).status, 200);
    let mut listener = Listener::start(&cluster, "?types=vm", "");
    assert_eq!(listener.next().name, "begin");
    let form = [("action", "add"), ("tag", "production")];
    assert_eq!(post(&cluster, "/vm/web/tags", &form).status, 200);
    listener.until(|event| event.data["tags"] == json!(["production"]));
    let form = [("limit", "hv1,hv2"), ("autostart", "true")];
    assert_eq!(post(&cluster, "/vm/web/meta", &form).status, 200);
    let told = listener.until(|event| event.data["node_limit"] == json!(["hv1", "hv2"]));
    assert_eq!(told.data["node_autostart"], json!(true));
}

#[test]
fn who_is_let_in_no_longer_is_told_nothing_more() {
    let cluster = Cluster::start();
    let form = [("name", "kiosk"), ("role", "viewer")];
    let token = post(&cluster, "/token", &form).body["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut listener = Listener::with(&cluster, &token, "", "");
    assert_eq!(listener.next().name, "begin");
    assert_eq!(
        ask_with(&cluster, TOKEN, "DELETE", "/token/kiosk", None).status,
        200
    );
    assert_eq!(define(&cluster, &guest_xml("web", vm_id(1), ""), &[]).status, 200);
    let mut rest = String::new();
    listener.0.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains("web"), "{rest}");
}

#[test]
fn the_number_of_clients_is_bounded() {
    let cluster = Cluster::start();
    let all: Vec<Listener> = (0..64).map(|_| Listener::start(&cluster, "", "")).collect();
    assert_eq!(get(&cluster, "/events").status, 503);
    drop(all);
}
