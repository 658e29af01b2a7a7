//! Ceph on the coordinators: a monitor, a manager and an OSD on each, and one replicated pool.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::node::Node;
use crate::process::wait_for;
use crate::state::{State, random, random_uuid};
use crate::topology::{Network, PREFIX_V4};

/// What every coordinator gets at /usr/lib/pvc-lab.
pub(crate) const PREPARE: &str = include_str!("../assets/node/ceph-prepare");
/// The pool for the guests' volumes.
pub const POOL: &str = "vms";
/// From the boot of the nodes until Ceph says HEALTH_OK.
const DEADLINE: Duration = Duration::from_secs(240);
/// A command while the cluster forms.
const COMMAND_DEADLINE: Duration = Duration::from_secs(60);

/// Keys of everybody who talks to Ceph. Not kept: each node has those that it needs.
pub(crate) struct Keys {
    mon: String,
    admin: String,
    mgrs: Vec<String>,
    osds: Vec<String>,
    libvirt: String,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(..)")
    }
}

impl Keys {
    pub(crate) fn new(state: &State) -> Result<Keys> {
        Ok(Keys {
            mon: new_key()?,
            admin: new_key()?,
            mgrs: state.coordinators().map(|_| new_key()).collect::<Result<_>>()?,
            osds: state.coordinators().map(|_| new_key()).collect::<Result<_>>()?,
            libvirt: new_key()?,
        })
    }

    /// The key of `client.libvirt`, as libvirt's secret wants it.
    pub(crate) fn libvirt(&self) -> &str {
        &self.libvirt
    }

    /// Everybody's keys and rights; the monitors take them over when they are made.
    fn seed(&self) -> String {
        let mut text = format!(
            "[mon.]\n key = {}\n caps mon = \"allow *\"\n{}",
            self.mon,
            self.admin_keyring()
        );
        for (id, key) in self.osds.iter().enumerate() {
            write!(
                text,
                "[osd.{id}]\n key = {key}\n caps mgr = \"allow profile osd\"\n caps mon = \"allow profile osd\"\n \
                 caps osd = \"allow *\"\n"
            )
            .ok();
        }
        for (index, key) in self.mgrs.iter().enumerate() {
            write!(
                text,
                "[mgr.hv{}]\n key = {key}\n caps mon = \"allow profile mgr\"\n caps osd = \"allow *\"\n \
                 caps mds = \"allow *\"\n",
                index + 1
            )
            .ok();
        }
        write!(
            text,
            "[client.libvirt]\n key = {}\n caps mon = \"profile rbd\"\n caps osd = \"profile rbd pool={POOL}\"\n",
            self.libvirt
        )
        .ok();
        text
    }

    fn admin_keyring(&self) -> String {
        format!(
            "[client.admin]\n key = {}\n caps mds = \"allow *\"\n caps mgr = \"allow *\"\n caps mon = \"allow *\"\n \
             caps osd = \"allow *\"\n",
            self.admin
        )
    }
}

/// A cephx key: little-endian type 1 (AES), creation time, length, 16 random bytes; in base64.
fn new_key() -> Result<String> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the machine's clock is before 1970")?;
    let seconds = u32::try_from(now.as_secs()).context("the machine's clock is after 2106")?;
    let secret = random(16)?;
    let mut bytes = Vec::with_capacity(28);
    bytes.extend_from_slice(&1_u16.to_le_bytes());
    bytes.extend_from_slice(&seconds.to_le_bytes());
    bytes.extend_from_slice(&now.subsec_nanos().to_le_bytes());
    bytes.extend_from_slice(&16_u16.to_le_bytes());
    bytes.extend_from_slice(&secret);
    Ok(base64(&bytes))
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for position in 0..4 {
            let index = (word >> (18 - 6 * position)) & 0x3f;
            text.push(if position <= chunk.len() {
                char::from(ALPHABET[index as usize])
            } else {
                '='
            });
        }
    }
    text
}

/// Puts configuration, keys and units on a node that has never run.
pub(crate) fn install(node: &Node, state: &State, keys: &Keys) -> Result<()> {
    node.write_file("/etc/ceph/ceph.conf", 0o644, configuration(state))?;
    node.write_file("/etc/ceph/ceph.client.admin.keyring", 0o600, keys.admin_keyring())?;
    node.write_file(
        "/etc/ceph/ceph.client.libvirt.keyring",
        0o600,
        format!("[client.libvirt]\n key = {}\n", keys.libvirt),
    )?;
    if !node.id().is_coordinator() {
        return Ok(());
    }
    let osd = usize::from(node.id().number()) - 1;
    let (Some(osd_key), Some(mgr_key)) = (keys.osds.get(osd), keys.mgrs.get(osd)) else {
        bail!("{} has no keys for Ceph", node.id());
    };
    let monitors: Vec<String> = state
        .coordinators()
        .map(|id| format!("{id}={}", Network::Storage.node_v4(id)))
        .collect();
    let environment = format!(
        "FSID={}\nMONITORS=\"{}\"\nOSD_UUID={}\n",
        state.ceph_fsid,
        monitors.join(" "),
        random_uuid()?
    );
    node.write_file("/etc/pvc-lab/ceph.env", 0o644, environment)?;
    node.write_file("/etc/pvc-lab/ceph.keyring", 0o600, keys.seed())?;
    node.write_file(
        "/etc/pvc-lab/osd.keyring",
        0o600,
        format!("[osd.{osd}]\n key = {osd_key}\n"),
    )?;
    let name = node.name();
    node.write_file(
        "/etc/pvc-lab/mgr.keyring",
        0o600,
        format!("[mgr.{name}]\n key = {mgr_key}\n"),
    )?;
    let daemons = [("mon", name.clone()), ("mgr", name), ("osd", osd.to_string())];
    for (kind, id) in daemons {
        node.write_file(
            &format!("/etc/systemd/system/ceph-{kind}@.service.d/lab.conf"),
            0o644,
            drop_in(kind),
        )?;
        node.enable_unit(
            &format!("ceph-{kind}@{id}.service"),
            &format!("/lib/systemd/system/ceph-{kind}@.service"),
        )?;
    }
    Ok(())
}

fn drop_in(kind: &str) -> String {
    // Ours replaces the check of the packages, which wants the data to be there already.
    format!(
        "[Unit]\nStartLimitIntervalSec=0\n\n[Service]\nExecStartPre=\nExecStartPre=+/usr/lib/pvc-lab/ceph-prepare {kind} %i\n\
         TimeoutStartSec=180\nRestart=always\nRestartSec=1\n"
    )
}

fn configuration(state: &State) -> String {
    let members: Vec<String> = state.coordinators().map(|id| id.to_string()).collect();
    let hosts: Vec<String> = state
        .coordinators()
        .map(|id| format!("[v2:{}:3300]", Network::Storage.node_v4(id)))
        .collect();
    format!(
        "[global]\n\
         fsid = {fsid}\n\
         mon_initial_members = {members}\n\
         mon_host = {hosts}\n\
         public_network = {network}/{PREFIX_V4}\n\
         ms_bind_msgr1 = false\n\
         auth_allow_insecure_global_id_reclaim = false\n\
         # A dead monitor or OSD is noticed within seconds: recovery of guests waits for it.\n\
         mon_lease = 1\n\
         mon_election_timeout = 1\n\
         osd_heartbeat_interval = 1\n\
         osd_heartbeat_grace = 5\n\
         # An OSD tells the monitors of a dead one at once, not within 5 s; and who is connected to a dead monitor looks\n\
         # for another within seconds, not within 30.\n\
         osd_mon_report_interval = 1\n\
         mon_client_ping_interval = 1\n\
         mon_client_ping_timeout = 4\n\
         mon_client_hunt_interval = 1\n\
         mon_osd_adjust_heartbeat_grace = false\n\
         mon_osd_min_down_reporters = 1\n\
         # One pool with a copy on each node.\n\
         osd_pool_default_size = 3\n\
         osd_pool_default_min_size = 2\n\
         osd_pool_default_pg_num = 8\n\
         osd_pool_default_pg_autoscale_mode = off\n\
         mon_allow_pool_delete = true\n\
         mon_max_pg_per_osd = 500\n\
         # Small: everything shares one machine, and its disk may be rather full.\n\
         mon_data_avail_warn = 2\n\
         mon_data_avail_crit = 1\n\
         mgr_initial_modules =\n\
         bluestore_block_size = 4294967296\n\
         bluestore_cache_autotune = false\n\
         bluestore_cache_size = 33554432\n\
         osd_op_num_shards = 2\n\
         mon_cluster_log_to_file = false\n",
        fsid = state.ceph_fsid,
        members = members.join(","),
        hosts = hosts.join(","),
        network = Network::Storage.network_v4(),
    )
}

/// Waits for monitors and OSDs, makes the pool, and waits until Ceph is content.
pub(crate) fn wait_ready(first: &Node, state: &State) -> Result<()> {
    let wanted = state.coordinators().count();
    let diagnose = || {
        let status = first.exec(&["ceph", "--connect-timeout", "5", "status"]);
        let log = first.exec(&["journalctl", "--unit=ceph-*", "--lines=15", "--output=cat"]);
        let text = |result: Result<crate::Output>| {
            result
                .map(|output| output.stdout + &output.stderr)
                .unwrap_or_default()
        };
        format!(
            "ceph says: {}\nits log on {} ends with: {}",
            text(status),
            first.id(),
            text(log)
        )
    };
    wait_for("Ceph's OSDs", DEADLINE, || {
        Ok((osds_up(first) >= Some(wanted)).then_some(()))
    })
    .with_context(diagnose)?;
    let create = ["ceph", "osd", "pool", "create", POOL, "8", "8", "replicated"];
    first.exec_within(COMMAND_DEADLINE, &create)?.ok()?;
    first
        .exec_within(COMMAND_DEADLINE, &["rbd", "pool", "init", POOL])?
        .ok()?;
    wait_for("Ceph to be healthy", DEADLINE, || {
        Ok(is_healthy(first).then_some(()))
    })
    .with_context(diagnose)
}

fn osds_up(node: &Node) -> Option<usize> {
    let stat = json(node, &["osd", "stat"])?;
    usize::try_from(stat.get("num_up_osds")?.as_u64()?).ok()
}

fn is_healthy(node: &Node) -> bool {
    health(node).is_some_and(|health| health == "HEALTH_OK")
}

/// What Ceph says of itself, for example `HEALTH_OK`; none while no monitor answers.
pub fn health(node: &Node) -> Option<String> {
    Some(json(node, &["health"])?.get("status")?.as_str()?.to_owned())
}

fn json(node: &Node, arguments: &[&str]) -> Option<serde_json::Value> {
    let mut argv = vec!["ceph", "--connect-timeout", "5", "--format", "json"];
    argv.extend(arguments);
    let output = node.exec_within(Duration::from_secs(10), &argv).ok()?;
    serde_json::from_str(&output.stdout).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Storage;
    use crate::topology::NodeId;

    #[test]
    fn base64_pads_as_the_standard_says() {
        for (text, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
    }

    #[test]
    fn keys_have_the_length_that_ceph_expects_and_differ() {
        let (one, two) = (new_key().unwrap(), new_key().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.len(), 40);
        assert!(one.starts_with("AQ"), "{one}");
    }

    // Without these the survivors' guests stand still for half a minute after a node's death.
    #[test]
    fn the_configuration_has_the_timings_that_recovery_relies_on() {
        let state = State::new("/base".into(), NodeId::first(4), Storage::Ceph).unwrap();
        let text = configuration(&state);
        for line in [
            "mon_lease = 1",
            "mon_election_timeout = 1",
            "osd_heartbeat_grace = 5",
            "osd_mon_report_interval = 1",
            "mon_client_ping_timeout = 4",
            "mon_initial_members = hv1,hv2,hv3",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is missing in\n{text}"
            );
        }
        assert!(!text.contains("10.102.0.4"), "{text}");
    }
}
