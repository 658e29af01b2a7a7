//! `pvc token`, `pvc user` and `pvc audit` against a real API server over a store in memory.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../../pvcapid/tests/common/mod.rs"]
mod common;
mod program;

use std::fs;

use common::Cluster;
use program::{done, pvc};
use pvc_common::clock::{Clock, HostClock};

#[test]
fn tokens_are_made_listed_and_removed() {
    let cluster = Cluster::start();
    let token = done(
        &cluster,
        &[
            "token",
            "create",
            "grafana",
            "-r",
            "viewer",
            "-d",
            "dashboards",
            "-e",
            "90d",
            "-f",
            "raw",
        ],
    );
    assert!(token.starts_with("pvc_grafana_"), "{token}");
    let list = done(&cluster, &["token", "list"]);
    assert!(list.contains("grafana") && list.contains("dashboards"), "{list}");
    assert!(list.contains("(configuration)"), "{list}");
    assert!(!list.contains(token.trim()), "its text is shown once");
    assert_eq!(
        pvc(&cluster, &["token", "create", "grafana", "-r", "viewer"]).code,
        1
    );
    assert_eq!(pvc(&cluster, &["token", "create", "x", "-r", "root"]).code, 2);
    assert_eq!(
        pvc(&cluster, &["token", "create", "x", "-r", "viewer", "-e", "soon"]).code,
        2
    );
    assert_eq!(pvc(&cluster, &["token", "remove", "grafana"]).code, 2, "it asks");
    assert!(done(&cluster, &["token", "remove", "grafana", "-y"]).contains("is removed"));
    assert_eq!(pvc(&cluster, &["token", "remove", "grafana", "-y"]).code, 3);
}

#[test]
fn users_are_added_changed_and_removed() {
    let cluster = Cluster::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    fs::write(&file, "correct horse battery\n").unwrap();
    let file = file.to_str().unwrap();
    assert!(done(&cluster, &["user", "add", "ann", "-r", "operator", "-p", file]).contains("ann"));
    assert!(done(&cluster, &["user", "list"]).contains("operator"));
    assert_eq!(
        pvc(&cluster, &["user", "modify", "ann"]).code,
        2,
        "nothing to change"
    );
    assert!(done(&cluster, &["user", "modify", "ann", "-r", "viewer"]).contains("changed"));
    assert_eq!(done(&cluster, &["user", "list", "-f", "raw"]), "ann\n");
    assert!(done(&cluster, &["user", "remove", "ann", "-y"]).contains("removed"));
    assert_eq!(pvc(&cluster, &["user", "remove", "ann", "-y"]).code, 3);
}

#[test]
fn what_was_done_is_shown() {
    let cluster = Cluster::start();
    assert!(done(&cluster, &["audit"]).contains("nothing"));
    assert_eq!(pvc(&cluster, &["vm", "start", "none"]).code, 3);
    let clock = HostClock;
    let deadline = clock.now() + std::time::Duration::from_secs(10);
    let shown = loop {
        let shown = done(&cluster, &["audit", "none", "--failed", "--since", "1h"]);
        if shown.contains("404") {
            break shown;
        }
        assert!(clock.now() < deadline, "{shown}");
    };
    assert!(shown.contains("POST /vm/none/state state=start"), "{shown}");
    let long = done(&cluster, &["audit", "-f", "long"]);
    assert!(
        long.contains("set_vm_state") && long.contains("(admin)"),
        "{long}"
    );
}
