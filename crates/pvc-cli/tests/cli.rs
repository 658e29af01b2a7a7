//! The `pvc` program against a real API server over a store in memory.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../../pvcapid/tests/common/mod.rs"]
mod common;
mod program;

use common::{Agents, Cluster, TOKEN, guest_xml, node, rbd_disk, vm_id};
use program::{Said, done, program, pvc};
use pvc_common::keys;
use pvc_core::records::PrimaryRecord;
use pvc_core::states::{DaemonState, DomainState, VmState};
use serde_json::{Value, json};

fn define(cluster: &Cluster, name: &str, index: u8, devices: &str) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("guest.xml");
    std::fs::write(&file, guest_xml(name, vm_id(index), devices)).unwrap();
    let out = done(
        cluster,
        &[
            "vm",
            "define",
            file.to_str().unwrap(),
            "-t",
            "hv1",
            "-g",
            "web",
            "-G",
            "keep",
            "-m",
            "live",
        ],
    );
    assert!(out.contains(name), "{out}");
}

#[test]
fn nodes_are_shown_in_every_format() {
    let cluster = Cluster::start();
    let table = done(&cluster, &["node", "list"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    // Columns are aligned: what stands below a title begins where the title does.
    let column = lines[0].find("Daemon").unwrap();
    assert!(
        lines[1..].iter().all(|line| line[column..].starts_with("run ")),
        "{table}"
    );
    assert!(!table.contains('\x1b'), "no colours without a terminal");
    assert_eq!(done(&cluster, &["node", "list", "-f", "raw"]), "hv1\nhv2\nhv3\n");
    assert_eq!(
        done(&cluster, &["node", "list", "-f", "raw", "-cs", "primary"]),
        "hv1\n"
    );
    let json: Value =
        serde_json::from_str(&done(&cluster, &["node", "list", "v[12]", "-f", "json"])).unwrap();
    assert_eq!(json[1]["name"], json!("hv2"));
    assert!(done(&cluster, &["node", "list", "-f", "json-pretty"]).starts_with("[\n"));
    assert!(done(&cluster, &["node", "info", "hv2"]).contains("secondary"));
    assert!(done(&cluster, &["node", "info", "hv2", "-f", "long"]).contains("6.1.0-18-amd64"));
    let json: Value = serde_json::from_str(&done(&cluster, &["node", "info", "hv2", "-f", "json"])).unwrap();
    assert_eq!(json["name"], json!("hv2"));

    let coloured = pvc(&cluster, &["--colour", "node", "list"]);
    assert!(coloured.out.contains("\x1b["), "{coloured:?}");
}

#[test]
fn exit_codes_tell_apart_what_scripts_do_differently() {
    let cluster = Cluster::start();
    let check = |args: &[&str], code: i32, words: &str| {
        let said = pvc(&cluster, args);
        assert_eq!(said.code, code, "{args:?}: {said:?}");
        assert!(said.err.contains(words), "{args:?}: {said:?}");
        assert_eq!(said.out, "", "{args:?}");
    };
    check(&["node", "info", "hv9"], 3, "hv9");
    check(&["vm", "info", "none"], 3, "none");
    check(&["node", "list", "("], 1, "limit");
    check(&["node", "list", "-f", "yaml"], 2, "json-pretty");
    check(&["nodes"], 2, "node");
    check(&["vm", "stop", "none"], 2, "-y");
    check(&["-c", "none", "node", "list"], 3, "none");
    check(&["--url", "here", "node", "list"], 2, "http://");
    check(&["-v", "node", "info", "hv9"], 3, "/api/v1/node/hv9 answered 404");
    cluster.set(&keys::node(&node("hv2")).daemon_state(), &DaemonState::Stop);
    check(&["node", "primary", "hv2"], 1, "not run");
    cluster.server.lose_quorum();
    // What was known is shown for a while.
    while pvc(&cluster, &["cluster", "status"]).code == 0 {
        std::thread::yield_now();
    }
    check(&["cluster", "status"], 4, "quorum");
    let home = tempfile::tempdir().unwrap();
    let nobody: Said = program(home.path())
        .args(["--url", "http://127.0.0.1:1", "node", "list"])
        .output()
        .unwrap()
        .into();
    assert_eq!(nobody.code, 4, "{nobody:?}");
    let stranger: Said = program(home.path())
        .args(["--url", cluster.url(), "node", "list"])
        .output()
        .unwrap()
        .into();
    assert_eq!(stranger.code, 1, "{stranger:?}");
    assert!(stranger.err.contains("token"), "{stranger:?}");
    let nowhere: Said = program(home.path())
        .args(["node", "list"])
        .output()
        .unwrap()
        .into();
    assert_ne!(nowhere.code, 0);
    assert!(nowhere.err.contains("connection"), "{nowhere:?}");
}

#[test]
fn the_primary_role_is_moved_and_waited_for() {
    let cluster = Cluster::start();
    assert_eq!(pvc(&cluster, &["node", "is-primary", "hv1"]).code, 0);
    let said = pvc(&cluster, &["node", "is-primary", "hv2"]);
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (1, "", ""));
    done(&cluster, &["node", "primary", "hv2"]);
    assert_eq!(
        cluster.value(&keys::config().primary_node()),
        PrimaryRecord::Node(node("hv2"))
    );
    let _agents = Agents::start(&cluster, Vec::new());
    assert!(done(&cluster, &["node", "primary", "hv3", "--wait"]).contains("primary"));
    assert!(done(&cluster, &["node", "secondary", "hv3", "-w"]).contains("secondary"));
    let domain_state = keys::node(&node("hv2")).domain_state();
    cluster.set(&domain_state, &DomainState::Flushed);
    assert!(done(&cluster, &["node", "ready", "hv2"]).contains("being made ready"));
    assert_eq!(cluster.value(&domain_state), DomainState::Unflush);
    assert!(done(&cluster, &["node", "flush", "hv2"]).contains("being emptied"));
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| done(&cluster, &["node", "unflush", "hv2", "--wait"]));
        while cluster.value(&domain_state) != DomainState::Unflush {
            std::thread::yield_now();
        }
        cluster.set(&domain_state, &DomainState::Ready);
        assert!(asked.join().unwrap().contains("hv2 is ready"));
    });
}

#[test]
fn the_cluster_s_status_is_shown() {
    let cluster = Cluster::start();
    let text = done(&cluster, &["cluster", "status"]);
    for words in ["test", "100%", "hv1", "3 (3 run,ready)", "10.0.0.250/24"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(
        done(&cluster, &["cluster", "status", "-f", "short"])
            .lines()
            .count()
            < text.lines().count()
    );
    let json: Value = serde_json::from_str(&done(&cluster, &["cluster", "status", "-f", "json"])).unwrap();
    assert_eq!(json["primary_node"], json!("hv1"));
    assert!(done(&cluster, &["cluster", "adopt", "--show"]).contains("unknown"));
    assert!(
        pvc(&cluster, &["cluster", "adopt", "-y"])
            .err
            .contains("No node is on hold")
    );
    done(&cluster, &["cluster", "maintenance", "on"]);
    assert!(done(&cluster, &["cluster", "status"]).contains("Maintenance"));
    done(&cluster, &["cluster", "maintenance", "off"]);
    assert!(!done(&cluster, &["cluster", "status"]).contains("Maintenance"));
}

#[test]
fn a_guest_lives_through_every_command() {
    let cluster = Cluster::start();
    define(&cluster, "web1", 1, &rbd_disk("vms/web1", ""));
    define(&cluster, "web2", 2, "");
    let _agents = Agents::start(&cluster, vec![vm_id(1), vm_id(2)]);
    let state = keys::domain(vm_id(1)).state();

    assert_eq!(done(&cluster, &["vm", "list", "-f", "raw"]), "web1\nweb2\n");
    assert_eq!(
        done(
            &cluster,
            &[
                "vm", "list", "2", "-s", "stop", "-t", "hv1", "-g", "web", "-f", "raw"
            ]
        ),
        "web2\n"
    );
    assert_eq!(pvc(&cluster, &["vm", "list", "-g", "web", "-n"]).code, 3);
    assert!(
        done(&cluster, &["vm", "list"])
            .lines()
            .nth(1)
            .unwrap()
            .starts_with("web1")
    );
    let json: Value = serde_json::from_str(&done(&cluster, &["vm", "info", "web1", "-f", "json"])).unwrap();
    assert_eq!(json["disks"][0]["name"], json!("vms/web1"));
    assert!(done(&cluster, &["vm", "info", "web1", "-f", "long"]).contains("keep (protected)"));

    assert!(done(&cluster, &["vm", "start", "web1", "--wait"]).contains("runs on node hv1"));
    assert!(done(&cluster, &["vm", "start", "web1"]).contains("already"));
    assert!(done(&cluster, &["vm", "restart", "web1", "-y", "--wait"]).contains("runs on node hv1"));
    assert!(done(&cluster, &["vm", "shutdown", "web1", "-y", "-w"]).contains("stopped"));
    assert_eq!(cluster.value(&state), VmState::Stop);
    done(&cluster, &["-u", "vm", "start", "web1", "-w"]);
    assert!(done(&cluster, &["-u", "vm", "stop", "web1", "-w"]).contains("stopped"));
    done(&cluster, &["-u", "vm", "start", "web1", "-w"]);
    assert!(done(&cluster, &["vm", "disable", "web1", "-y"]).contains("disabled"));
    assert_eq!(cluster.value(&state), VmState::Disable);
    done(
        &cluster,
        &[
            "vm",
            "meta",
            "web1",
            "--recovery-priority",
            "-2",
            "--anti-affinity",
            "db",
            "-s",
            "load",
        ],
    );
    let meta = done(&cluster, &["vm", "meta", "web1"]);
    assert!(
        meta.contains("-2") && meta.contains("db") && meta.contains("method live"),
        "{meta}"
    );
    assert!(done(&cluster, &["vm", "info", "web1"]).contains("priority -2"));
    let said = pvc(&cluster, &["vm", "restart", "web1", "-y"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("state disable"), "{said:?}");

    assert!(done(&cluster, &["vm", "undefine", "web1", "-y"]).contains("web1"));
    assert_eq!(done(&cluster, &["vm", "list", "-f", "raw"]), "web2\n");
    assert!(cluster.get(&state).is_none());
}

#[test]
fn a_guest_that_fails_to_start_says_why() {
    let cluster = Cluster::start();
    define(&cluster, "web1", 1, "");
    let keys = keys::domain(vm_id(1));
    std::thread::scope(|scope| {
        let started = scope.spawn(|| pvc(&cluster, &["vm", "start", "web1", "--wait"]));
        while cluster.value(&keys.state()) != VmState::Start {
            std::thread::yield_now();
        }
        cluster.set(
            &keys.failed_reason(),
            &"volume vms/web1 is locked by 10.0.2.9".to_owned(),
        );
        cluster.set(&keys.state(), &VmState::Fail);
        let said = started.join().unwrap();
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains("locked by 10.0.2.9"), "{said:?}");
    });
}

#[test]
fn a_definition_is_dumped_and_modified() {
    let cluster = Cluster::start();
    define(&cluster, "web1", 1, "");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("web1.xml");
    let path = file.to_str().unwrap();
    let printed = done(&cluster, &["vm", "dump", "web1"]);
    done(&cluster, &["vm", "dump", "web1", "-f", path]);
    let dumped = std::fs::read_to_string(&file).unwrap();
    assert_eq!(printed, dumped);
    assert!(done(&cluster, &["vm", "modify", "web1", path, "-y"]).contains("Nothing has changed"));
    std::fs::write(&file, dumped.replace(">512<", ">1024<")).unwrap();
    let refused = pvc(&cluster, &["vm", "modify", "web1", path]);
    assert_eq!(refused.code, 2, "nobody is there to confirm: {refused:?}");
    assert!(refused.err.contains("- <memory unit=\"MiB\">512"), "{refused:?}");
    done(&cluster, &["vm", "modify", "web1", path, "-y"]);
    assert!(done(&cluster, &["vm", "dump", "web1"]).contains(">1024<"));

    // An editor that changes one number.
    let editor = directory.path().join("editor");
    std::fs::write(&editor, "#!/bin/sh\n/bin/sed -i 's/>1024</>2048</' \"$1\"\n").unwrap();
    let mut permissions = std::fs::metadata(&editor).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o700);
    std::fs::set_permissions(&editor, permissions).unwrap();
    let edited: Said = program(directory.path())
        .env("PVC_URL", cluster.url())
        .env("PVC_API_KEY", TOKEN)
        .env("EDITOR", &editor)
        .args(["-q", "vm", "modify", "web1", "-e", "-y"])
        .output()
        .unwrap()
        .into();
    assert_eq!(edited.code, 0, "{edited:?}");
    assert!(done(&cluster, &["vm", "dump", "web1"]).contains(">2048<"));
}

#[test]
fn connections_are_kept_and_used() {
    let cluster = Cluster::start();
    let home = tempfile::tempdir().unwrap();
    let port = cluster.url().rsplit(':').next().unwrap();
    let run = |args: &[&str]| -> Said {
        program(home.path())
            .env("PVC_API_KEY", TOKEN)
            .args(args)
            .output()
            .unwrap()
            .into()
    };
    let added = run(&[
        "connection",
        "add",
        "lab",
        "-a",
        "127.0.0.1",
        "-p",
        port,
        "-d",
        "the lab",
    ]);
    assert_eq!(added.code, 0, "{added:?}");
    let file = home.path().join(".config/pvc/pvc.json");
    let stored: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(stored["lab"]["scheme"], json!("http"));
    assert_eq!(stored["lab"]["api_key"], json!(TOKEN));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "tokens are for their owner alone");

    let listed = run(&["connection", "list"]);
    assert!(
        listed.out.contains("lab") && !listed.out.contains(TOKEN),
        "{listed:?}"
    );
    assert!(run(&["connection", "list", "-k"]).out.contains(TOKEN));
    assert!(
        run(&["connection", "list", "-f", "raw"])
            .out
            .lines()
            .any(|line| line == "lab")
    );
    let targets: Value =
        serde_json::from_str(&run(&["connection", "list", "-f", "json-prometheus"]).out).unwrap();
    assert_eq!(targets[0]["targets"][0], json!(format!("127.0.0.1:{port}")));

    let used = run(&["-c", "lab", "node", "list", "-f", "raw"]);
    assert_eq!(used.out, "hv1\nhv2\nhv3\n", "{used:?}");
    assert!(used.err.contains("lab"), "says which connection: {used:?}");
    let silent = run(&["-s", "-c", "lab", "node", "list", "-f", "raw"]);
    assert_eq!(silent.err, "");
    let detail = run(&["connection", "detail"]);
    assert!(detail.out.contains("hv1"), "{detail:?}");
    assert_eq!(run(&["-c", "gone", "node", "list"]).code, 3);
    assert_eq!(run(&["connection", "remove", "lab"]).code, 0);
    assert_eq!(run(&["connection", "remove", "lab"]).code, 3);
}
