//! What scripts and administrators rely on beside the commands: watching, raw requests, pipes that are closed.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../../pvcapid/tests/common/mod.rs"]
mod common;
mod program;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use common::{Cluster, TOKEN, node};
use program::{done, program, pvc};
use pvc_common::keys;
use pvc_core::states::DaemonState;
use serde_json::{Value, json};

#[test]
fn a_watched_list_is_written_again_when_it_changes() {
    let cluster = Cluster::start();
    let home = tempfile::tempdir().unwrap();
    let mut watching = program(home.path())
        .env("PVC_URL", cluster.url())
        .env("PVC_API_KEY", TOKEN)
        .args(["-q", "node", "list", "-ds", "run", "-f", "raw", "--watch"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut notices = BufReader::new(watching.stderr.take().unwrap()).lines();
    let mut next = |count: usize| -> Vec<String> { lines.by_ref().take(count).map(Result::unwrap).collect() };
    assert_eq!(next(3), ["hv1", "hv2", "hv3"]);
    cluster.set(&keys::node(&node("hv2")).daemon_state(), &DaemonState::Stop);
    assert_eq!(next(2), ["hv1", "hv3"]);
    // Out of reach for a while is no end, but something to be told; not to the program that reads the names.
    cluster.server.lose_quorum();
    assert!(notices.next().unwrap().unwrap().contains("quorum"));
    watching.kill().unwrap();
    watching.wait().unwrap();
}

#[test]
fn any_request_can_be_sent() {
    let cluster = Cluster::start();
    let reply: Value = serde_json::from_str(&done(&cluster, &["api", "GET", "/node", "limit=hv1"])).unwrap();
    assert_eq!(reply[0]["name"], json!("hv1"));
    assert!(done(&cluster, &["api", "get", "api/v1/status", "-f", "json-pretty"]).starts_with("{\n"));
    let said = done(&cluster, &["api", "POST", "/status", "state=true"]);
    assert!(said.contains("message"), "{said}");
    assert!(done(&cluster, &["cluster", "status"]).contains("Maintenance"));
    // A script reads the reason as the API gave it.
    let refused = pvc(&cluster, &["api", "GET", "/node", "limit=("]);
    assert_eq!(refused.code, 1, "{refused:?}");
    let reply: Value = serde_json::from_str(&refused.out).unwrap();
    assert_eq!(reply["code"], json!("invalid_parameter"));
    assert!(
        reply["request_id"].is_string() && refused.err.contains("limit"),
        "{refused:?}"
    );
    assert_eq!(pvc(&cluster, &["api", "GET", "/node/hv9"]).code, 3);
    assert_eq!(pvc(&cluster, &["api", "GET", "/node", "limit"]).code, 2);
    assert_eq!(pvc(&cluster, &["api", "HEAD", "/node"]).code, 2);
}

#[test]
fn a_backup_goes_back_as_a_body_of_json() {
    let cluster = Cluster::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("backup.json");
    let file = file.to_str().unwrap();
    done(&cluster, &["cluster", "backup", "-f", file]);
    let at = format!("@{file}");
    let really = "yes-i-really-mean-it=yes";
    let said = done(&cluster, &["api", "POST", "/restore", really, "--json", &at]);
    assert!(said.contains("message"), "{said}");
    let wrong = pvc(&cluster, &["api", "POST", "/restore", really, "--json", "[]"]);
    assert_eq!(wrong.code, 1, "{wrong:?}");
    assert_eq!(pvc(&cluster, &["api", "GET", "/node", "--json", "{}"]).code, 2);
}

#[test]
fn events_are_printed_as_they_come() {
    let cluster = Cluster::start();
    let home = tempfile::tempdir().unwrap();
    let mut streaming = program(home.path())
        .env("PVC_URL", cluster.url())
        .env("PVC_API_KEY", TOKEN)
        .args(["-q", "api", "GET", "/events", "types=node"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(streaming.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    assert!(lines.any(|line| line == "event: begin"));
    cluster.set(&keys::node(&node("hv2")).daemon_state(), &DaemonState::Stop);
    assert!(lines.any(|line| line == "event: node"));
    assert!(lines.next().unwrap().contains("hv2"));
    streaming.kill().unwrap();
    streaming.wait().unwrap();
}

/// What the parser would end the program with is no line that says what is wrong.
#[test]
fn an_argument_that_is_no_text_is_told() {
    use std::os::unix::ffi::OsStrExt;
    let home = tempfile::tempdir().unwrap();
    let said = program(home.path())
        .args(["vm", "info"])
        .arg(std::ffi::OsStr::from_bytes(b"web\xff1"))
        .output()
        .unwrap();
    assert_eq!(said.status.code(), Some(2));
    assert!(String::from_utf8(said.stderr).unwrap().contains("is not UTF-8"));
}

/// `pvc node list | head -1` must neither crash nor print a stack trace on an administrator's terminal.
#[test]
fn a_reader_that_goes_away_ends_the_program_quietly() {
    let cluster = Cluster::start();
    let home = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = program(home.path())
        .env("PVC_URL", cluster.url())
        .env("PVC_API_KEY", TOKEN)
        .args(["-q", "node", "list"])
        .stdout(Stdio::from(writer))
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}
