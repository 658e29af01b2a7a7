//! The checks of a host whose files are made up, over a store in memory.

use pvc_common::clock::HostClock;
use pvc_common::command::{CommandError, CommandOutput, Invocation};
use pvc_common::keys;
use pvc_common::keys::values::{OrNone, SpaceList};
use pvc_common::schema::{NewNode, base_keys, node_keys};
use pvc_common::store::StoreExt as _;
use pvc_common::store::memory::{MemoryServer, MemoryStore};
use pvc_core::states::{DaemonMode, DomainState};

use super::*;
use crate::host::fake::FakeHypervisor;

/// A host on which nothing is installed.
#[derive(Debug, Clone)]
struct Bare;

impl CommandRunner for Bare {
    async fn run(&self, invocation: &Invocation) -> Result<CommandOutput, CommandError> {
        Err(CommandError::NotFound {
            program: invocation.program,
        })
    }
}

struct Host {
    store: MemoryStore,
    directory: tempfile::TempDir,
    keeper: HealthKeeper<MemoryStore, HostClock, FakeHypervisor, Bare>,
}

fn me() -> NodeName {
    NodeName::new("hv1").unwrap()
}

impl Host {
    async fn new() -> Host {
        let store = MemoryServer::new().client();
        let node = node_keys(&NewNode {
            name: me(),
            mode: DaemonMode::Hypervisor,
            domain_state: DomainState::Ready,
            keepalive: 0,
        });
        store.commit(base_keys().and(node)).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let below = |name: &str| directory.path().join(name);
        let keeper = HealthKeeper::new(HealthParts {
            store: store.clone(),
            clock: HostClock,
            hypervisor: None,
            commands: Bare,
            files: HealthFiles {
                proc: directory.path().to_owned(),
                sys: below("sys"),
                etc: below("etc"),
                dpkg_status: below("status"),
                ipmi_device: below("ipmi0"),
            },
            me: me(),
            zookeeper: None,
            devices: Vec::new(),
            interval: Duration::from_secs(15),
        });
        let host = Host {
            store,
            directory,
            keeper,
        };
        host.load("0.10");
        host
    }

    fn load(&self, load: &str) {
        std::fs::write(
            self.directory.path().join("loadavg"),
            format!("{load} 0.0 0.0 1/1 1\n"),
        )
        .unwrap();
    }

    async fn read<T: keys::Value>(&self, key: &keys::Key<T>) -> T {
        self.store.require(key).await.unwrap().value
    }

    async fn faults(&self) -> Vec<String> {
        self.store.children_as(&keys::faults()).await.unwrap()
    }
}

#[tokio::test]
async fn what_a_check_finds_lowers_the_health_and_is_a_fault_until_it_is_over() {
    let mut host = Host::new().await;
    host.keeper.round().await;
    let node = keys::node(&me());
    assert_eq!(host.read(&node.monitoring_health()).await, OrNone(Some(100)));
    let SpaceList(names) = host.read(&node.monitoring_plugins()).await;
    assert_eq!(names.len(), 12);
    // What can't be looked at is no flaw, and says so.
    let disk = keys::monitoring_plugin(&me(), "disk");
    let message = host.read(&disk.message()).await;
    assert!(message.starts_with("not checked: "), "{message}");

    host.load("100000.00");
    host.keeper.round().await;
    assert_eq!(host.read(&node.monitoring_health()).await, OrNone(Some(50)));
    let load = keys::monitoring_plugin(&me(), "load");
    assert_eq!(host.read(&load.health_delta()).await, 50);
    assert_eq!(host.faults().await, ["NODE_PLUGIN_LOAD_HV1"]);
    let fault = keys::fault("NODE_PLUGIN_LOAD_HV1");
    assert_eq!(host.read(&fault.delta()).await, 25);

    host.load("0.10");
    host.keeper.round().await;
    assert_eq!(host.read(&node.monitoring_health()).await, OrNone(Some(100)));
    assert_eq!(host.faults().await, Vec::<String>::new());
}

// Everybody who watches the store is told of each write: checks of a hundred nodes must not keep all of them busy.
#[tokio::test]
async fn what_has_not_changed_is_not_written_again_at_once() {
    let mut host = Host::new().await;
    host.keeper.round().await;
    let key = keys::monitoring_plugin(&me(), "edac").last_run();
    let before = host.store.require(&key).await.unwrap().version;
    host.keeper.round().await;
    assert_eq!(host.store.require(&key).await.unwrap().version, before);
}

#[tokio::test]
async fn results_that_were_removed_are_made_again() {
    let mut host = Host::new().await;
    host.keeper.round().await;
    let plugin = keys::monitoring_plugin(&me(), "load").root();
    host.store.delete_recursive(plugin.path()).await.unwrap();
    host.load("100000.00");
    // The first finds that they are gone.
    host.keeper.round().await;
    host.keeper.round().await;
    let delta = keys::monitoring_plugin(&me(), "load").health_delta();
    assert_eq!(host.read(&delta).await, 50);
}
