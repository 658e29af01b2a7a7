//! The cluster that is measured.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};
use pvc_common::clock::{Clock, HostClock};
use pvc_common::config;
use pvc_common::keys;
use pvc_common::keys::values::{Json, Load, RunningDomains};
use pvc_common::schema::{self, NewDomain, NewNode, NewTag};
use pvc_common::store::{Store, StoreExt, Txn};
use pvc_core::ids::{NodeName, VmId};
use pvc_core::states::{DaemonMode, DaemonState, DomainState, MigrationMethod, NodeSelector, VmState};
use serde_json::{Value, json};

/// Guests that are created in one transaction: with five kilobytes of XML each, far below a request's limit.
const AT_ONCE: usize = 40;
/// Bytes of a guest's XML: that of a guest made by the reference's provisioner.
const XML_BYTES: usize = 5 * 1024;

/// How large the cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) nodes: usize,
    pub(crate) guests: usize,
}

impl Size {
    /// As many nodes as such a number of guests needs.
    pub(crate) fn with_guests(guests: usize) -> Size {
        let nodes = match guests {
            0..=50 => 3,
            51..=2000 => 12,
            _ => 100,
        };
        Size { nodes, guests }
    }

    /// What ZooKeeper needs for it.
    pub(crate) fn zookeeper_heap_mib(self) -> u32 {
        if self.guests > 2000 { 1024 } else { 256 }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} nodes, {} guests", self.nodes, self.guests)
    }
}

/// The name of a guest.
pub(crate) fn guest_name(number: usize) -> String {
    format!("vm{number:05}")
}

fn guest_id(number: usize) -> Result<VmId> {
    format!("5d0e8c58-1d2b-4a30-9d6c-{number:012x}")
        .parse()
        .context("not a UUID")
}

fn node_name(number: usize) -> Result<NodeName> {
    if number == 0 {
        return config::host_node_name().context("this host's name can not be that of a node");
    }
    Ok(NodeName::new(format!("bench{number}"))?)
}

/// Makes the cluster in an empty store.
pub(crate) async fn fill<S: Store>(store: &S, size: Size) -> Result<()> {
    schema::prepare(store, &HostClock, &node_name(0)?).await?;
    for number in 0..size.nodes {
        store.commit(node(number, size)?).await?;
    }
    for first in (0..size.guests).step_by(AT_ONCE) {
        let mut txn = Txn::new();
        for number in first..(first + AT_ONCE).min(size.guests) {
            txn = txn.and(guest(number, size)?);
        }
        store.commit(txn).await?;
    }
    Ok(())
}

fn node(number: usize, size: Size) -> Result<Txn> {
    let name = node_name(number)?;
    let keys = keys::node(&name);
    let running: Vec<VmId> = guests_of(number, size).map(guest_id).collect::<Result<_>>()?;
    let txn = schema::node_keys(&NewNode {
        name,
        mode: DaemonMode::Coordinator,
        domain_state: DomainState::Ready,
        keepalive: 0,
    });
    Ok(txn
        .overwrite(&keys.daemon_state(), &DaemonState::Run)
        .overwrite(
            &keys.static_data(),
            &Some(
                "64 6.1.0-32-amd64 GNU/Linux x86_64"
                    .parse()
                    .map_err(anyhow::Error::msg)?,
            ),
        )
        .overwrite(&keys.domains_count(), &u32::try_from(running.len())?)
        .overwrite(&keys.running_domains(), &RunningDomains(running))
        .overwrite(&keys.cpu_load(), &Load(3.5))
        .overwrite(&keys.memory_total_mib(), &512_000)
        .overwrite(&keys.memory_used_mib(), &256_000)
        .overwrite(&keys.memory_free_mib(), &256_000))
}

/// The guests on a node.
fn guests_of(node: usize, size: Size) -> impl Iterator<Item = usize> {
    (node..size.guests).step_by(size.nodes)
}

fn guest(number: usize, size: Size) -> Result<Txn> {
    let id = guest_id(number)?;
    let name = guest_name(number);
    let keys = keys::domain(id);
    let new = NewDomain {
        id,
        xml: xml(&name, id),
        name: name.parse()?,
        state: VmState::Start,
        node: node_name(number % size.nodes)?,
        profile: None,
        volumes: vec![
            format!("vms/{name}_root").parse()?,
            format!("vms/{name}_data").parse()?,
        ],
        node_limit: Vec::new(),
        node_selector: NodeSelector::None,
        autostart: true,
        migration_method: MigrationMethod::Live,
        migration_max_downtime_ms: 300,
        tags: vec![NewTag {
            name: "bench".parse()?,
            protected: false,
        }],
    };
    Ok(schema::domain_keys(&new).overwrite(&keys.stats(), &Some(Json(stats(&name, 0)))))
}

/// A guest's definition as the reference's provisioner makes them.
fn xml(name: &str, id: VmId) -> String {
    let disk = |volume: &str, target: &str| {
        format!(
            "    <disk type='network' device='disk'>\n      <driver name='qemu' discard='unmap'/>\n      \
             <auth username='libvirt'>\n        <secret type='ceph' uuid='c416032b-2ce9-457f-a5dc-18704a3485f4'/>\n      \
             </auth>\n      <source protocol='rbd' name='vms/{name}_{volume}'>\n        \
             <host name='hv1.pvc.local' port='6789'/>\n        <host name='hv2.pvc.local' port='6789'/>\n        \
             <host name='hv3.pvc.local' port='6789'/>\n      </source>\n      \
             <target dev='{target}' bus='scsi'/>\n    </disk>\n"
        )
    };
    let head = format!(
        "<domain type='kvm'>\n  <name>{name}</name>\n  <uuid>{id}</uuid>\n  <description>A guest</description>\n  \
         <memory unit='MiB'>4096</memory>\n  <vcpu>4</vcpu>\n  <cpu>\n    <topology sockets='1' cores='4' threads='1'/>\n  \
         </cpu>\n  <os>\n    <type arch='x86_64' machine='pc-i440fx-2.7'>hvm</type>\n    <bootmenu enable='yes'/>\n    \
         <boot dev='hd'/>\n  </os>\n  <features>\n    <acpi/>\n    <apic/>\n    <pae/>\n  </features>\n  \
         <clock offset='utc'/>\n  <on_poweroff>destroy</on_poweroff>\n  <on_reboot>restart</on_reboot>\n  \
         <on_crash>restart</on_crash>\n  <devices>\n    <emulator>/usr/bin/kvm</emulator>\n    \
         <controller type='usb' index='0'/>\n    <controller type='pci' index='0' model='pci-root'/>\n    \
         <controller type='scsi' index='0' model='virtio-scsi'/>\n    <serial type='pty'/>\n    <console type='pty'/>\n{}{}    \
         <interface type='bridge'>\n      <mac address='52:54:00:12:34:56'/>\n      <source bridge='vmbr100'/>\n      \
         <model type='virtio'/>\n    </interface>\n    <rng model='virtio'>\n      \
         <rate period='1000' bytes='2048'/>\n      <backend model='random'>/dev/random</backend>\n    </rng>\n",
        disk("root", "sda"),
        disk("data", "sdb"),
    );
    let end = "  </devices>\n</domain>\n";
    let note = XML_BYTES.saturating_sub(head.len() + end.len() + "    <!--  -->\n".len());
    format!("{head}    <!-- {} -->\n{end}", "a note ".repeat(note / 7))
}

/// A guest's statistics as its node writes them.
fn stats(name: &str, count: u64) -> Value {
    json!({
        "state": 1, "maxmem": 4_194_304, "livemem": 4_194_304, "cpus": 4, "cputime": count * 1_000_000,
        "mem_stats": {"actual": 4_194_304, "swap_in": 0, "swap_out": 0, "major_fault": count, "minor_fault": count,
            "unused": 1_000_000, "available": 4_000_000, "usable": 3_000_000, "last_update": 1_700_000_000 + count,
            "rss": 2_000_000, "disk_caches": 500_000, "hugetlb_pgalloc": 0, "hugetlb_pgfail": 0},
        "cpu_stats": {"cpu_time": count * 1_000_000, "user_time": count, "system_time": count},
        "disk_stats": [
            {"name": format!("vms/{name}_root"), "dev": "sda", "rd_req": count, "rd_bytes": count, "wr_req": count,
                "wr_bytes": count},
            {"name": format!("vms/{name}_data"), "dev": "sdb", "rd_req": count, "rd_bytes": count, "wr_req": count,
                "wr_bytes": count}],
        "net_stats": [{"mac": "52:54:00:12:34:56", "bridge": "vmbr100", "rd_bytes": count, "rd_packets": count,
            "rd_errors": 0, "rd_drops": 0, "wr_bytes": count, "wr_packets": count, "wr_errors": 0, "wr_drops": 0}],
    })
}

/// How often an agent writes its guests' statistics.
const INTERVAL: Duration = Duration::from_secs(5);

/// Writes as all agents do: each node its figures and its guests' statistics every five seconds, one node after another.
/// Returns only when it fails.
pub(crate) async fn keep_writing<S: Store>(store: &S, size: Size) -> Result<()> {
    let pause = INTERVAL / u32::try_from(size.nodes)?;
    let mut count = 0;
    loop {
        for number in 0..size.nodes {
            let next = HostClock.now() + pause;
            count += 1;
            let keys = keys::node(&node_name(number)?);
            let mut txn = Txn::new()
                .overwrite(&keys.keepalive(), &count)
                .overwrite(&keys.cpu_load(), &Load(3.5))
                .overwrite(&keys.memory_used_mib(), &(256_000 + count % 100));
            for guest in guests_of(number, size) {
                let stats = Some(Json(stats(&guest_name(guest), count)));
                txn = txn.overwrite(&keys::domain(guest_id(guest)?).stats(), &stats);
            }
            store.commit(txn).await?;
            HostClock.sleep_until(next).await;
        }
    }
}

/// Turns a guest's state between two words; answers with the new one.
pub(crate) async fn turn_state<S: Store>(store: &S, number: usize) -> Result<VmState> {
    let key = keys::domain(guest_id(number)?).state();
    let now = store.require(&key).await?;
    let wanted = if now.value == VmState::Start {
        VmState::Stop
    } else {
        VmState::Start
    };
    store.commit(Txn::new().set(&key, &wanted, now.version)).await?;
    Ok(wanted)
}
