//! Every command of PVC 1.0.3 is run against a real API server: what it ends with and what it says.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../../pvcapid/tests/common/mod.rs"]
mod common;
#[path = "../../pvc-common/tests/ensemble/mod.rs"]
#[allow(dead_code, reason = "nothing is spoilt here: a server that runs is enough")]
mod ensemble;
mod program;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use common::{Agents, Cluster, guest_xml, rbd_disk, serve_api, vm_id};
use ensemble::Server;
use program::{Said, pvc, pvc_at};
use pvc_common::clock::{Clock, HostClock};
use pvc_common::store::memory::MemoryServer;
use pvc_common::store::zookeeper::{ZooKeeperOptions, ZooKeeperStore};
use pvcapid::app::Waits;
use serde_json::Value;
use zookeeper_client as zk;

/// Facts about the client of PVC 1.0.3.
const COMMANDS: &str = include_str!("fixtures/commands-1.0.3.json");

/// What has arrived: how a command is called, what it ends with, and what it says then. In this order, on one cluster
/// whose agents work. `XML` stands for a file with a guest's definition, `FILE` for one that may be written.
const CALLS: &[(&str, i32, &str)] = &[
    ("node list", 0, "hv2"),
    (
        "node list hv[12] -ds run -cs secondary -vs ready -f raw",
        0,
        "hv2\n",
    ),
    ("node list none", 3, "No node fits"),
    ("node info hv1", 0, "primary"),
    ("node info hv1 -f long", 0, "x86_64"),
    ("node info hv9", 3, "hv9"),
    ("node is-primary hv1", 0, ""),
    ("node is-primary hv2", 1, ""),
    ("node primary hv2 -w", 0, "hv2 is primary"),
    ("node secondary hv2 -w", 0, "hv2 is secondary"),
    ("node log hv9", 3, "hv9"),
    ("node flush hv3", 0, "hv3"),
    ("node ready hv3", 0, "hv3"),
    ("vm list", 0, "There are no VMs"),
    ("vm list -f json", 0, "[]"),
    (
        "vm define XML -t hv1 -l hv1,hv2 -s mem -A -m live -d 200 -g web -G keep",
        0,
        "web1",
    ),
    ("vm define XML", 1, "web1"),
    ("vm list web -t hv1 -s stop -g web -f raw", 0, "web1\n"),
    ("vm list -g web -n", 3, ""),
    ("vm info web1", 0, "stop"),
    ("vm info web1 -f long", 0, "keep (protected)"),
    ("vm info none", 3, "none"),
    (
        "vm meta web1 -l hv1,hv2,hv3 -s load -a -m none -d 300 -p small",
        0,
        "web1",
    ),
    ("vm meta web1", 0, "load"),
    ("vm modify web1 XML -y", 0, "Nothing has changed"),
    ("vm start web1 --wait", 0, "runs on node"),
    ("vm start web1", 0, "already"),
    ("vm restart web1", 2, "--yes"),
    ("vm restart web1 -y -w", 0, "runs on node"),
    ("vm migrate web1 -t hv2 -w --force-live", 0, "hv2"),
    ("vm unmigrate web1 -w", 0, "runs on node"),
    ("vm move web1 -t hv3 -w", 0, "hv3"),
    ("vm shutdown web1 -y -w", 0, "stopped"),
    ("vm stop web1 -y", 0, "already"),
    ("vm disable web1 -y", 0, "web1"),
    ("vm vcpu get web1", 0, "2"),
    ("vm vcpu set web1 3 -y", 0, "web1"),
    ("vm vcpu set web1 3", 0, "already"),
    ("vm memory get web1 -f raw", 0, "512\n"),
    ("vm memory set web1 768 -y -R", 0, "web1"),
    ("vm network get web1", 0, "no network interfaces"),
    (
        "vm network add web1 upstream -a 52:54:00:aa:aa:aa -m virtio -y",
        0,
        "web1",
    ),
    ("vm network add web1 4000 -y", 3, "4000"),
    (
        "vm network remove web1 upstream -m 52:54:00:aa:aa:aa -y",
        0,
        "web1",
    ),
    ("vm volume get web1 -f raw", 0, "vms/web1\n"),
    (
        "vm volume add web1 vms/none -d sdb -b virtio -y",
        0,
        "vms/none was not looked for",
    ),
    ("vm volume remove web1 vms/web1 -y", 0, "web1"),
    ("vm dump web1", 0, "<name>web1</name>"),
    ("vm dump web1 -f FILE", 0, "Saved"),
    ("vm dump web1 --secrets", 0, "<name>web1</name>"),
    ("vm tag get web1 -f raw", 0, "web"),
    ("vm tag add web1 db", 0, "db"),
    ("vm tag get web1", 0, "db"),
    ("vm tag remove web1 db", 0, "db"),
    ("vm tag remove web1 keep", 1, "keep"),
    ("vm log web1", 0, ""),
    ("vm log none -l 5", 3, "none"),
    ("vm rename web1 web2", 2, "--yes"),
    ("vm rename none web2 -y", 3, "none"),
    ("cluster task", 0, "There are no tasks"),
    ("vm flush-locks web1 --no-wait", 0, "web1"),
    ("cluster task", 0, "vm.flush_locks"),
    ("cluster task list", 0, "vm.flush_locks"),
    ("vm flush-locks none --no-wait", 3, "none"),
    ("vm remove web1", 2, "--yes"),
    ("vm remove web1 -y", 1, "can not remove volumes yet"),
    ("vm remove none -y", 3, "none"),
    ("vm undefine web1", 2, "--yes"),
    ("vm undefine web1 -y", 0, "web1"),
    ("network list", 0, "There are no networks"),
    ("network list -f raw", 0, ""),
    ("network info 100", 3, "100"),
    ("network dhcp list 100", 3, "100"),
    ("network acl list 100 --in", 3, "100"),
    ("network sriov pf list hv1", 0, ""),
    ("network sriov vf list hv1", 0, ""),
    ("network sriov vf info hv1 ens1v0", 3, "ens1v0"),
    ("storage status", 0, ""),
    ("storage util", 0, ""),
    ("storage osd list", 0, "There are no OSDs"),
    ("storage pool list", 0, "There are no pools"),
    ("storage volume list", 0, "There are no volumes"),
    ("storage volume snapshot list", 0, "There are no snapshots"),
    ("cluster status", 0, "Primary node"),
    ("cluster status -f short", 0, "Health"),
    ("cluster fault list", 0, "There are no faults"),
    ("cluster fault list nothing", 3, "nothing"),
    ("cluster fault ack nothing", 3, "nothing"),
    ("cluster fault ack-all -y", 0, ""),
    ("cluster fault delete nothing", 3, "nothing"),
    ("cluster fault delete-all", 2, "--yes"),
    ("cluster fault delete-all -y", 0, ""),
    ("cluster maintenance on", 0, ""),
    ("cluster maintenance off", 0, ""),
    // It went with its guest.
    ("cluster task", 0, "There are no tasks"),
    ("cluster task list -f json", 0, "{"),
    ("cluster task ffffffff --no-wait", 3, "ffffffff"),
    ("cluster backup -f FILE", 0, "keys of the store"),
    ("cluster restore -f XML -y", 1, "is not a backup"),
    ("cluster init", 2, "--yes"),
    ("cluster init -y", 1, ""),
    ("connection list -f json", 0, "[]"),
    ("connection add lab -a 127.0.0.1 -p 7370 -d lab -s", 0, "lab"),
    ("connection detail -f json", 0, "["),
    ("connection remove none", 3, "none"),
];

#[derive(Debug)]
struct Known {
    path: String,
    arguments: Vec<(String, bool)>,
    /// Options that have to be given, with a word that they take.
    needed: Vec<(String, String)>,
    asks: bool,
}

fn known() -> Vec<Known> {
    let all: Vec<Value> = serde_json::from_str(COMMANDS).unwrap();
    all.iter()
        .filter(|command| command["kind"] == "command")
        .map(|command| Known {
            path: command["path"]
                .as_str()
                .unwrap()
                .trim_start_matches("pvc ")
                .to_owned(),
            arguments: list(&command["arguments"])
                .iter()
                .map(|argument| {
                    let name = argument["name"].as_str().unwrap().to_owned();
                    (name, argument["required"].as_bool().unwrap())
                })
                .collect(),
            needed: list(&command["options"])
                .iter()
                .filter(|option| option["required"] == true)
                .map(|option| {
                    let flag = option["flags"][1].as_str().unwrap().to_owned();
                    let word = option["choices"][0].as_str().unwrap_or("1").to_owned();
                    (flag, word)
                })
                .collect(),
            asks: command["asks_confirmation"] == true,
        })
        .collect()
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// The command of PVC 1.0.3 that these words call.
fn called(known: &[Known], words: &[String]) -> Option<String> {
    known
        .iter()
        .filter(|command| {
            let path: Vec<&str> = command.path.split(' ').collect();
            words.len() >= path.len() && words.iter().zip(&path).all(|(word, part)| word == part)
        })
        .map(|command| command.path.clone())
        .max_by_key(String::len)
}

/// How a command is called with something for all that it needs.
fn invented(command: &Known, file: &Path) -> Vec<String> {
    let mut words: Vec<String> = command.path.split(' ').map(str::to_owned).collect();
    for (name, required) in &command.arguments {
        if *required || name == "FILENAME" {
            words.push(match name.as_str() {
                "FILENAME" => file.to_str().unwrap().to_owned(),
                "DESTINATION" => "https://elsewhere.invalid:7370/api/v1".to_owned(),
                "NODE" => "hv1".to_owned(),
                _ => "1".to_owned(),
            });
        }
    }
    for (flag, word) in &command.needed {
        words.extend([flag.clone(), word.clone()]);
    }
    if command.asks {
        words.push("--yes".to_owned());
    }
    words
}

#[test]
fn every_command_of_the_reference_is_answered() {
    let cluster = Cluster::start();
    let _agents = Agents::start(&cluster, vec![vm_id(1)]);
    run_all(&|words| pvc(&cluster, words));
}

/// The same on a real ZooKeeper: what the store in memory lets pass and a server does not would be found here, as the
/// size of a transaction or the order of replies.
#[test]
fn every_command_of_the_reference_is_answered_on_a_real_store() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(Server::start());
    {
        let model = Cluster::start();
        let client = runtime.block_on(server.client(""));
        runtime.block_on(copy(&model.server, &client, ""));
    }
    let servers = format!("127.0.0.1:{}", server.port());
    let connect = move || ZooKeeperStore::connect(ZooKeeperOptions::new(servers));
    let _agents = Agents::on(connect.clone(), vec![vm_id(1)]);
    let waits = Waits::for_shutdown_timeout(Duration::from_secs(180));
    let api = serve_api(connect, None, waits);
    let url = format!("http://127.0.0.1:{}", api.port);
    // The mirror has to have read the store once.
    let deadline = HostClock.now() + Duration::from_secs(30);
    while pvc_at(&url, &["node", "list", "-f", "raw"]).out != "hv1\nhv2\nhv3\n" {
        assert!(HostClock.now() < deadline, "the API does not show the store");
    }
    run_all(&|words| pvc_at(&url, words));
    runtime.block_on(async { drop(api.handle.stop(false)) });
    api.thread.join().unwrap();
}

/// Writes all that is below `path` in memory to a real server.
async fn copy(from: &MemoryServer, to: &zk::Client, path: &str) {
    let options = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
    for name in from.peek_children(if path.is_empty() { "/" } else { path }) {
        let below = format!("{path}/{name}");
        let znode = from.peek(&below).unwrap();
        to.create(&below, znode.data.as_ref(), &options).await.unwrap();
        Box::pin(copy(from, to, &below)).await;
    }
}

fn run_all(run: &dyn Fn(&[&str]) -> Said) {
    let run = |words: &[String]| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        run(&words)
    };
    let directory = tempfile::tempdir().unwrap();
    let xml = directory.path().join("web1.xml");
    std::fs::write(&xml, guest_xml("web1", vm_id(1), &rbd_disk("vms/web1", ""))).unwrap();
    let written = directory.path().join("written");
    let known = known();
    let mut run_so_far = BTreeSet::new();
    let mut faults = Vec::new();
    for (call, code, words) in CALLS {
        let args: Vec<String> = call
            .split(' ')
            .map(|word| match word {
                "XML" => xml.to_str().unwrap().to_owned(),
                "FILE" => written.to_str().unwrap().to_owned(),
                other => other.to_owned(),
            })
            .collect();
        let path = called(&known, &args).unwrap();
        let said = run(&args);
        let text = format!("{}{}", said.out, said.err);
        let fits = said.code == *code && text.contains(words);
        if !fits {
            faults.push(format!("{call}: {said:?}, not {code} and {words:?}"));
        }
        run_so_far.insert(path);
    }
    // The rest this release does not carry out, and says so.
    for command in known.iter().filter(|command| !run_so_far.contains(&command.path)) {
        let args = invented(command, &xml);
        let said = run(&args);
        if said.code != 1 || !said.err.contains("can not do that yet") {
            faults.push(format!("{}: {said:?}", args.join(" ")));
        }
    }
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
}
