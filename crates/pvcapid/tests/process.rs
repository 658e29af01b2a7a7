//! The daemon itself, on a real ZooKeeper.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(
    clippy::disallowed_methods,
    reason = "the test runs the program itself and ends it"
)]

#[path = "../../pvc-common/tests/ensemble/mod.rs"]
#[expect(dead_code, reason = "shared with the tests of the store")]
mod ensemble;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pvc_common::clock::{Clock, HostClock};
use pvc_common::config;
use pvc_common::schema::{self, NewNode};
use pvc_common::store::Store;
use pvc_common::store::zookeeper::{ZooKeeperOptions, ZooKeeperStore};
use pvc_core::states::{DaemonMode, DomainState};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use ureq::Agent;

const TOKEN: &str = "a-token-for-the-process-test";

/// The daemon, ended with the test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A configuration of a cluster of this host alone. The API listens at a floating address of the loopback network.
fn configuration(zookeeper: u16, api: u16) -> String {
    let host = config::host_node_name().unwrap();
    let network = |last: u8| {
        format!(
            "{{domain: a.example, device: e0, mtu: 1500, node_ip_selection: 127.0.0.1, ipv4: {{network_address: \
             127.0.0.0, netmask: 24, floating_address: 127.0.0.{last}, gateway_address: 127.0.0.254}}}}"
        )
    };
    format!(
        "subsystem: {{enable_networking: no}}\nfencing: {{actions: {{failed_fence: migrate}}}}\n\
         cluster:\n  name: test\n  all_nodes: [{host}]\n  coordinator_nodes: [{host}]\n  networks:\n    \
         upstream: {}\n    cluster: {}\n    storage: {}\n\
         database: {{zookeeper: {{port: {zookeeper}}}}}\n\
         api:\n  listen: {{address: 127.0.0.250, port: {api}}}\n  authentication: {{enabled: yes}}\n  \
         token: [{{description: test, token: {TOKEN}}}]\n",
        network(250),
        network(251),
        network(252),
    )
}

fn start(file: &Path) -> Daemon {
    let child = Command::new(env!("CARGO_BIN_EXE_pvcapid"))
        .arg("--config")
        .arg(file)
        .args(["--log-format", "text"])
        .env("PVC_LOG", "warn")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    Daemon(child)
}

fn ask(method: &str, port: u16, path: &str, form: &str) -> Option<(u16, Value)> {
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(20)))
        .build()
        .new_agent();
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("http://127.0.0.250:{port}/api/v1{path}"))
        .header("X-Api-Key", TOKEN)
        .header("Content-Type", "application/x-www-form-urlencoded");
    let mut response = if form.is_empty() {
        agent.run(request.body(()).unwrap()).ok()?
    } else {
        agent.run(request.body(form.to_owned()).unwrap()).ok()?
    };
    let status = response.status().as_u16();
    let text = response.body_mut().read_to_string().unwrap();
    Some((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemon_serves_a_cluster_and_says_when_it_has_no_quorum() {
    let zookeeper = ensemble::Server::start().await;
    let port = ensemble::free_port();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pvc.conf");
    std::fs::write(&file, configuration(zookeeper.port(), port)).unwrap();
    let checked = Command::new(env!("CARGO_BIN_EXE_pvcapid"))
        .arg("--check-config")
        .arg("--config")
        .arg(&file)
        .output()
        .unwrap();
    assert!(checked.status.success(), "{checked:?}");

    // What the node's agent does when it registers.
    let store = ZooKeeperStore::connect(ZooKeeperOptions::new(format!("127.0.0.1:{}", zookeeper.port())));
    assert!(store.wait_connected(Duration::from_secs(10)).await);
    let name = config::host_node_name().unwrap();
    schema::prepare(&store, &HostClock, &name).await.unwrap();
    let node = schema::node_keys(&NewNode {
        name: name.clone(),
        mode: DaemonMode::Coordinator,
        domain_state: DomainState::Ready,
        keepalive: 0,
    });
    store.commit(node).await.unwrap();

    let mut daemon = start(&file);
    let clock = HostClock;
    let deadline = clock.now() + Duration::from_secs(20);
    while ask("GET", port, "/status", "").is_none_or(|(status, _)| status != 200) {
        assert!(clock.now() < deadline, "the daemon did not come up");
        clock.sleep(Duration::from_millis(50)).await;
    }
    let (status, nodes) = ask("GET", port, "/node", "").unwrap();
    assert_eq!((status, &nodes[0]["name"]), (200, &json!(name.as_str())));
    let xml = "<domain type='qemu'><name>demo</name><uuid>5d0e8c58-1d2b-4a30-9d6c-0f7d3f6f6a01</uuid>\
               <memory unit='MiB'>64</memory><vcpu>1</vcpu></domain>";
    let form = serde_html_form::to_string([("xml", xml), ("node", name.as_str())]).unwrap();
    let (status, refused) = ask("POST", port, "/vm", &form).unwrap();
    assert_eq!(status, 409, "it has reported no memory yet: {refused}");
    let keys = pvc_common::keys::node(&name);
    let cpus = "8 6.1.0 GNU/Linux x86_64".parse().unwrap();
    let reported = pvc_common::store::Txn::new()
        .overwrite(&keys.memory_total_mib(), &1000)
        .overwrite(&keys.static_data(), &Some(cpus));
    store.commit(reported).await.unwrap();
    let (status, reply) = ask("POST", port, "/vm", &form).unwrap();
    assert_eq!(status, 200, "{reply}");
    let (_, vm) = ask("GET", port, "/vm/demo", "").unwrap();
    assert_eq!(vm[0]["state"], json!("stop"), "{vm}");
    let (status, reply) = ask("DELETE", port, "/vm/demo", "").unwrap();
    assert_eq!(status, 200, "{reply}");
    let (status, made) = ask("POST", port, "/token", "name=ci&role=viewer").unwrap();
    assert_eq!(status, 200, "{made}");
    let (status, _) = ask("DELETE", port, "/token/ci", "").unwrap();
    assert_eq!(status, 200);
    // Each change is on record with its result.
    let deadline = clock.now() + Duration::from_secs(20);
    for operation in ["define_vm", "undefine_vm", "create_token", "remove_token"] {
        let path = format!("/audit?failed=false&what={operation}");
        while ask("GET", port, &path, "").unwrap().1[0]["status"] != json!(200) {
            assert!(clock.now() < deadline, "{operation} is not on record");
            clock.sleep(Duration::from_millis(50)).await;
        }
    }

    // A client must learn within 2 s that nothing can be done now, rather than hang.
    zookeeper.freeze();
    // A server with many threads stops a moment after it was told to.
    while ask("GET", port, "/vm", "").unwrap().0 != 503 {
        assert!(clock.now() < deadline, "the server goes on");
    }
    for _ in 0..3 {
        let begun = clock.now();
        let (status, reply) = ask("GET", port, "/vm", "").unwrap();
        assert_eq!((status, &reply["code"]), (503, &json!("store_unavailable")));
        assert!(clock.now().since(begun) < Duration::from_secs(2));
    }
    zookeeper.thaw();
    let deadline = clock.now() + Duration::from_secs(20);
    while ask("GET", port, "/status", "").is_none_or(|(status, _)| status != 200) {
        assert!(clock.now() < deadline, "the daemon did not come back");
        clock.sleep(Duration::from_millis(50)).await;
    }

    let pid = Pid::from_child(&daemon.0);
    kill_process(pid, Signal::TERM).unwrap();
    let ended = tokio::task::spawn_blocking(move || daemon.0.wait().unwrap())
        .await
        .unwrap();
    assert!(ended.success(), "an orderly stop is no failure: {ended}");
}
