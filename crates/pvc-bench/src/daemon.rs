//! `pvcapid` as a process.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use pvc_common::config;
use tempfile::TempDir;

use crate::zookeeper::free_port;

/// The token that clients send.
pub(crate) const TOKEN: &str = "a-token-for-the-benchmark";
/// Clock ticks a second in /proc, which Linux has fixed for user space.
const TICKS: f64 = 100.0;

/// The daemon, ended when this is dropped.
pub(crate) struct Daemon {
    process: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Daemon {
    /// Starts the daemon on the store at that port of this host.
    pub(crate) fn start(program: &Path, zookeeper: u16) -> Result<Daemon> {
        let port = free_port()?;
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("pvc.conf");
        std::fs::write(&file, configuration(zookeeper, port)?)?;
        let process = Command::new(program)
            .arg("--config")
            .arg(&file)
            .args(["--log-format", "text"])
            .env("PVC_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Daemon {
            process,
            address: SocketAddr::from(([127, 0, 0, 250], port)),
            _folder: folder,
        })
    }

    /// Where it answers.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its resident memory, in millions of bytes.
    pub(crate) fn memory_mb(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let kib: f64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next())
            .context("no VmRSS")?
            .parse()?;
        Ok(kib * 1024.0 / 1_000_000.0)
    }

    /// Processor time that it has used, in seconds.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let (_, fields) = stat.rsplit_once(')').context("no process name")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks = |place: usize| -> Result<f64> {
            Ok(fields.get(place).context("too few fields")?.parse::<f64>()?)
        };
        // utime and stime are the 14th and 15th of all, of which two are before the name's end.
        Ok((ticks(11)? + ticks(12)?) / TICKS)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A cluster of this host alone, whose API listens on loopback.
fn configuration(zookeeper: u16, api: u16) -> Result<String> {
    let host = config::host_node_name().context("this host's name can not be that of a node")?;
    let network = |last: u8| {
        format!(
            "{{domain: a.example, device: e0, mtu: 1500, node_ip_selection: 127.0.0.1, ipv4: {{network_address: \
             127.0.0.0, netmask: 24, floating_address: 127.0.0.{last}, gateway_address: 127.0.0.254}}}}"
        )
    };
    Ok(format!(
        "subsystem: {{enable_networking: no}}\nfencing: {{actions: {{failed_fence: migrate}}}}\n\
         cluster:\n  name: bench\n  all_nodes: [{host}]\n  coordinator_nodes: [{host}]\n  networks:\n    \
         upstream: {}\n    cluster: {}\n    storage: {}\n\
         database: {{zookeeper: {{port: {zookeeper}}}}}\n\
         api:\n  listen: {{address: 127.0.0.250, port: {api}}}\n  authentication: {{enabled: yes}}\n  \
         token: [{{description: bench, token: {TOKEN}}}]\n",
        network(250),
        network(251),
        network(252),
    ))
}
