//! Guests under test, seen by the API, by the store, by libvirt, by the processes and by Ceph.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use pvc_common::keys::{self, DomainKeys};
use pvc_core::ids::VmId;
use pvc_core::records::Owner;
use pvc_core::states::VmState;
use pvc_lab::guest::Kind;
use pvc_lab::{Network, Node, Power, wait_for};
use serde_json::Value;

use crate::api;
use crate::cluster::Cluster;
use crate::observer::timeline::Followed;

/// What the names of all test guests begin with.
pub(crate) const PREFIX: &str = "ct-";
/// The first start on a fresh libvirtd probes what QEMU can do, which takes 11 s.
pub(crate) const START: Duration = Duration::from_secs(40);
/// An orderly shutdown of the tiny guest.
const SHUTDOWN: Duration = Duration::from_secs(45);
const CEPH: Duration = Duration::from_secs(30);

/// A guest that is defined.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    /// Its name.
    pub(crate) name: String,
    /// Its id.
    pub(crate) id: VmId,
    /// Its volume, `pool/image`.
    pub(crate) image: String,
    console: String,
}

/// A lock or watcher of a volume, as Ceph lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    /// Its address with port and nonce.
    pub(crate) address: String,
    /// The lock's id; none for a watcher.
    pub(crate) lock: Option<String>,
}

/// Makes the volume of a tiny guest and defines it on a node through `pvc`.
pub(crate) fn define(cluster: &Cluster, name: &str, on: &Node) -> Result<Guest> {
    define_kind(cluster, Kind::Tiny, name, on)
}

/// The same with a guest of some kind.
pub(crate) fn define_kind(cluster: &Cluster, kind: Kind, name: &str, on: &Node) -> Result<Guest> {
    let name = format!("{PREFIX}{name}");
    let made = cluster.lab.make_guest(kind, &name)?;
    let file = cluster.lab.folder().join(format!("{name}.xml"));
    std::fs::write(&file, &made.xml).with_context(|| format!("cannot write {}", file.display()))?;
    cluster.pvc(&[
        "vm",
        "define",
        "--target",
        &on.name(),
        &file.display().to_string(),
    ])?;
    let console = made.console_log();
    for node in cluster.lab.nodes() {
        // What an earlier guest of this name said is not this one's word.
        node.exec(&["rm", "--force", &console])?.ok()?;
    }
    Ok(Guest {
        id: made.uuid.parse()?,
        console,
        name,
        image: made.image,
    })
}

impl Guest {
    /// What the observer knows it by.
    pub(crate) fn followed(&self) -> Followed {
        Followed {
            id: self.id,
            image: self.image.clone(),
        }
    }

    /// Its keys.
    pub(crate) fn keys(&self) -> DomainKeys {
        keys::domain(self.id)
    }

    /// Its state in the store.
    pub(crate) fn stored_state(&self, cluster: &Cluster) -> Result<VmState> {
        Ok(cluster.store.require(&self.keys().state())?.value)
    }

    /// Why it failed; empty while it is well.
    pub(crate) fn failed_reason(&self, cluster: &Cluster) -> Result<String> {
        Ok(cluster.store.require(&self.keys().failed_reason())?.value)
    }

    /// Who owns it.
    pub(crate) fn owner(&self, cluster: &Cluster) -> Result<Option<Owner>> {
        Ok(cluster.store.require(&self.keys().owner())?.value)
    }

    /// The API's description of it.
    pub(crate) fn described(&self, cluster: &Cluster) -> Result<Value> {
        let path = format!("/api/v1/vm/{}", self.name);
        api::get(&path, &cluster.lab.state().api_token)?.json()
    }

    /// Its state as the API tells it.
    pub(crate) fn api_state(&self, cluster: &Cluster) -> Result<String> {
        let reply = self.described(cluster)?;
        let object = reply.get(0).unwrap_or(&reply);
        let state = object.get("state").and_then(Value::as_str);
        Ok(state.context("the API tells no state")?.to_owned())
    }

    /// Its state as libvirt on a node tells it; none if libvirt there does not know it.
    pub(crate) fn libvirt_state(&self, node: &Node) -> Result<Option<String>> {
        let output = node.exec(&["virsh", "--quiet", "domstate", &self.id.to_string()])?;
        Ok(output.success().then(|| output.stdout.trim().to_owned()))
    }

    /// Its QEMU processes on a node.
    pub(crate) fn processes(&self, node: &Node) -> Result<Vec<u32>> {
        let pattern = format!("^[^ ]*qemu-system-x86_64 .*-uuid {}", self.id);
        let output = node.exec(&["pgrep", "--full", &pattern])?;
        Ok(output
            .stdout
            .lines()
            .filter_map(|line| line.trim().parse().ok())
            .collect())
    }

    /// How many lines of ticks its console on a node has: one for each second it ran there.
    pub(crate) fn ticks(&self, node: &Node) -> Result<usize> {
        let output = node.exec(&["grep", "--text", "--count", "TICK", &self.console])?;
        Ok(output.stdout.trim().parse().unwrap_or(0))
    }

    /// The counter in its volume.
    pub(crate) fn counter(&self, cluster: &Cluster) -> Result<u32> {
        let node = any_node(cluster)?;
        let script =
            "rbd export --no-progress \"$0\" - 2>/dev/null | head -c 516 | tail -c 4 | od -A n -t u4";
        let text = node.exec_within(CEPH, &["sh", "-c", script, &self.image])?.ok()?;
        text.trim()
            .parse()
            .with_context(|| format!("the counter on {} is {text:?}", self.image))
    }

    /// Who uses its volume: locks and watchers.
    pub(crate) fn users(&self, cluster: &Cluster) -> Result<Vec<User>> {
        users(cluster, &self.image)
    }

    /// Makes an empty volume beside its own, for a second disk. It goes with the guest.
    pub(crate) fn second_volume(&self, cluster: &Cluster) -> Result<String> {
        let volume = format!("{}/{}_disk1", pvc_lab::ceph::POOL, self.name);
        any_node(cluster)?
            .exec_within(CEPH, &["rbd", "create", "--size", "64M", &volume])?
            .ok()?;
        Ok(volume)
    }

    /// Waits until a [`Kind::Demo`] guest has counted on.
    pub(crate) fn wait_counting(&self, node: &Node, deadline: Duration) -> Result<()> {
        let counted = || -> Result<usize> {
            let output = node.exec(&["grep", "--text", "--count", "demo: count", &self.console])?;
            Ok(output.stdout.trim().parse().unwrap_or(0))
        };
        let before = counted()?;
        wait_for(
            &format!("{} to count on {}", self.name, node.id()),
            deadline,
            || Ok((counted()? > before).then_some(())),
        )
    }

    /// Waits until store, API and libvirt agree that it is in this state on this node.
    pub(crate) fn wait_agreed(
        &self,
        cluster: &Cluster,
        node: &Node,
        state: VmState,
        deadline: Duration,
    ) -> Result<()> {
        let runs = state == VmState::Start;
        let mut seen = String::new();
        wait_for(
            &format!("store, API and libvirt to agree that {} is {state}", self.name),
            deadline,
            || {
                let stored = self.stored_state(cluster)?;
                let told = self.api_state(cluster)?;
                let libvirt = self.libvirt_state(node)?;
                let processes = self.processes(node)?.len();
                seen = format!(
                    "store {stored}, API {told}, libvirt {libvirt:?}, {processes} processes, reason {:?}",
                    self.failed_reason(cluster)?
                );
                let libvirt_agrees = if runs {
                    libvirt.as_deref() == Some("running") && processes == 1
                } else {
                    libvirt.is_none() && processes == 0
                };
                Ok((stored == state && told == state.as_str() && libvirt_agrees).then_some(()))
            },
        )
        .with_context(|| format!("last seen: {seen}"))
    }

    /// Starts it through `pvc` and waits until it runs there and writes.
    pub(crate) fn start(&self, cluster: &Cluster, node: &Node) -> Result<()> {
        cluster.pvc(&["vm", "start", &self.name])?;
        self.wait_agreed(cluster, node, VmState::Start, START)?;
        self.wait_ticking(node, Duration::from_secs(15))
    }

    /// Waits until it has written once more on this node.
    pub(crate) fn wait_ticking(&self, node: &Node, deadline: Duration) -> Result<()> {
        let before = self.ticks(node)?;
        wait_for(
            &format!("{} to write on {}", self.name, node.id()),
            deadline,
            || Ok((self.ticks(node)? > before).then_some(())),
        )
    }

    /// Shuts it down through `pvc` and waits until it has ended in order.
    pub(crate) fn shut_down(&self, cluster: &Cluster, node: &Node) -> Result<()> {
        cluster.pvc(&["vm", "shutdown", &self.name])?;
        self.wait_agreed(cluster, node, VmState::Stop, SHUTDOWN)
    }
}

/// Who uses a volume: locks and watchers.
pub(crate) fn users(cluster: &Cluster, volume: &str) -> Result<Vec<User>> {
    let node = any_node(cluster)?;
    let locks = json(&node, &["rbd", "lock", "list", "--format", "json", volume])?;
    let status = json(&node, &["rbd", "status", "--format", "json", volume])?;
    let mut users = Vec::new();
    for lock in locks.as_array().into_iter().flatten() {
        users.push(User {
            address: text(lock, "address"),
            lock: Some(text(lock, "id")),
        });
    }
    for watcher in status
        .get("watchers")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        users.push(User {
            address: text(watcher, "address"),
            lock: None,
        });
    }
    Ok(users)
}

/// Removes every test guest with its volumes.
pub(crate) fn remove_all(cluster: &Cluster) -> Result<()> {
    let Ok(reply) = api::get("/api/v1/vm", &cluster.lab.state().api_token).and_then(|reply| reply.json())
    else {
        // No primary yet: what is left is removed after the next case.
        return Ok(());
    };
    let names: Vec<String> = reply
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|vm| vm.get("name")?.as_str().map(ToOwned::to_owned))
        .filter(|name| name.starts_with(PREFIX))
        .collect();
    for name in names {
        let described = api::get(&format!("/api/v1/vm/{name}"), &cluster.lab.state().api_token)?.json()?;
        let described = described.get(0).unwrap_or(&described).clone();
        let id: VmId = text(&described, "uuid").parse()?;
        cluster.pvc(&["vm", "stop", &name])?;
        wait_for(&format!("{name} to be stopped and free"), START, || {
            let keys = keys::domain(id);
            let state = cluster.store.require(&keys.state())?.value;
            let owner = cluster.store.require(&keys.owner())?.value;
            let at_rest = matches!(state, VmState::Stop | VmState::Disable | VmState::Fail);
            Ok((at_rest && owner.is_none()).then_some(()))
        })?;
        cluster.pvc(&["vm", "undefine", &name])?;
        for disk in ["disk0", "disk1"] {
            remove_volume(cluster, &format!("{}/{name}_{disk}", pvc_lab::ceph::POOL))?;
        }
    }
    Ok(())
}

/// Removes a volume; a watcher that has just died is waited for.
fn remove_volume(cluster: &Cluster, image: &str) -> Result<()> {
    let node = any_node(cluster)?;
    wait_for(&format!("{image} to be removed"), Duration::from_secs(60), || {
        let output = node.exec_within(CEPH, &["rbd", "rm", "--no-progress", image])?;
        let is_gone = output.success() || output.stderr.contains("No such file");
        Ok(is_gone.then_some(()))
    })
}

/// A node that can be asked about Ceph.
pub(crate) fn any_node(cluster: &Cluster) -> Result<Node> {
    cluster
        .lab
        .nodes()
        .iter()
        .find(|node| node.power() == Power::On && !node.is_frozen())
        .cloned()
        .context("no node is on")
}

/// The address under which the Ceph clients of a node are listed.
pub(crate) fn storage_address(node: &Node) -> String {
    Network::Storage.node_v4(node.id()).to_string()
}

/// What a Ceph command prints as JSON.
pub(crate) fn json(node: &Node, argv: &[&str]) -> Result<Value> {
    let text = node
        .exec_within(CEPH, argv)?
        .ok()
        .with_context(|| format!("`{}` on {}", argv.join(" "), node.id()))?;
    if text.trim().is_empty() {
        bail!("`{}` printed nothing", argv.join(" "));
    }
    serde_json::from_str(&text).with_context(|| format!("`{}` printed no JSON", argv.join(" ")))
}

fn text(value: &Value, field: &str) -> String {
    value
        .get(field)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}
