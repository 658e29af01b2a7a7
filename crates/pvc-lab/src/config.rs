//! The configuration file of the lab's nodes: one for all of them, as an administrator would write it.

use std::fmt::Write as _;

use crate::bmc;
use crate::forward::API_PORT;
use crate::state::{State, Storage};
use crate::topology::{CLUSTER, Network, PREFIX_V4, PREFIX_V6};

/// Text of `/etc/pvc/pvc.conf`.
pub(crate) fn render(state: &State) -> String {
    let nodes =
        |ids: &mut dyn Iterator<Item = String>| ids.map(|id| format!("    - {id}\n")).collect::<String>();
    let all = nodes(&mut state.nodes.iter().map(ToString::to_string));
    let coordinators = nodes(&mut state.coordinators().map(|id| id.to_string()));
    let monitors: String = state
        .coordinators()
        .map(|id| format!("    - {}\n", Network::Storage.node_v4(id)))
        .collect();
    let networks: String = Network::ALL.into_iter().map(network).collect();
    let storage = match state.storage {
        Storage::Ceph => "yes",
        Storage::None => "no",
    };
    format!(
        "# Written by the lab.
path:
  plugin_directory: /usr/share/pvc/plugins
  dynamic_directory: /run/pvc
  system_log_directory: /var/log/pvc
  console_log_directory: /var/log/libvirt
  ceph_directory: /etc/ceph
subsystem:
  enable_hypervisor: yes
  enable_networking: yes
  enable_storage: {storage}
  enable_worker: no
  enable_api: yes
  enable_prometheus: yes
cluster:
  name: {CLUSTER}
  all_nodes:
{all}  coordinator_nodes:
{coordinators}  networks:
{networks}database:
  zookeeper:
    port: 2181
  keydb:
    hostname: {floating_cluster}
    port: 6379
    path: /0
  postgres:
    hostname: {floating_cluster}
    port: 5432
    credentials:
      api:
        database: pvcapi
        username: pvcapi
        password: unused
      dns:
        database: pvcdns
        username: pvcdns
        password: unused
timer:
  vm_shutdown_timeout: 30
  keepalive_interval: 5
  monitoring_interval: 15
fencing:
  disable_on_ipmi_failure: no
  intervals:
    fence_intervals: 6
    suicide_intervals: 0
  actions:
    successful_fence: migrate
    failed_fence: migrate
  ipmi:
    hostname: hv{{node_id}}-lom.{upstream_domain}
    username: {user}
    password: {bmc_password}
migration:
  target_selector: mem
logging:
  debug_logging: no
  zookeeper_logging: yes
  log_keepalives: no
  log_cluster_details: no
  log_monitoring_details: no
  console_log_lines: 1000
  node_log_lines: 2000
guest_networking:
  bridge_device: {upstream_device}
  bridge_mtu: 1500
  sriov_enable: no
ceph:
  ceph_config_file: ceph.conf
  ceph_keyring_file: ceph.client.admin.keyring
  monitor_port: 3300
  monitor_hosts:
{monitors}  secret_uuid: {secret_uuid}
api:
  listen:
    address: {floating_upstream}
    port: {API_PORT}
  authentication:
    enabled: yes
    source: token
    secret_key: {secret_key}
  token:
    - description: lab
      token: {token}
  ssl:
    enabled: no
autobackup:
automirror:
",
        floating_cluster = Network::Cluster.floating_v4(),
        floating_upstream = Network::Upstream.floating_v4(),
        upstream_domain = Network::Upstream.domain(),
        upstream_device = Network::Upstream.node_device(),
        user = bmc::USER,
        bmc_password = quoted(&state.bmc_password),
        secret_uuid = state.secret_uuid,
        secret_key = quoted(&state.api_secret),
        token = quoted(&state.api_token),
    )
}

fn network(network: Network) -> String {
    let mut text = format!(
        "    {network}:\n      domain: {}\n      device: {}\n      mtu: 1500\n      ipv4:\n        \
         network_address: {}\n        netmask: {PREFIX_V4}\n        floating_address: {}\n",
        network.domain(),
        network.node_device(),
        network.network_v4(),
        network.floating_v4()
    );
    if network == Network::Upstream {
        writeln!(text, "        gateway_address: {}", network.gateway_v4()).ok();
    }
    write!(
        text,
        "      ipv6:\n        network_address: \"{}\"\n        netmask: {PREFIX_V6}\n        \
         floating_address: \"{}\"\n",
        network.network_v6(),
        network.floating_v6()
    )
    .ok();
    if network == Network::Upstream {
        writeln!(text, "        gateway_address: \"{}\"", network.gateway_v6()).ok();
    }
    text.push_str("      node_ip_selection: by-id\n");
    text
}

/// Hexadecimal text may look like a number to YAML (`12e45`), and an address may end in a colon.
fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::NodeId;

    #[test]
    fn hypervisors_are_nodes_and_no_coordinators() {
        let state = State::new("/base".into(), NodeId::first(4), Storage::Ceph).unwrap();
        let text = render(&state);
        assert_eq!(text.matches("    - hv4\n").count(), 1, "{text}");
        assert_eq!(text.matches("    - hv3\n").count(), 2, "{text}");
        assert!(text.contains("hostname: hv{node_id}-lom.lab.example\n"), "{text}");
        assert!(text.contains("floating_address: \"fd00:101::250\"\n"), "{text}");
        assert_eq!(text.matches("gateway_address").count(), 2, "{text}");
    }

    // 1 of 40 random tokens of hexadecimal digits is a floating-point number to YAML unless it is quoted.
    #[test]
    fn secrets_are_quoted() {
        let mut state = State::new("/base".into(), NodeId::first(3), Storage::Ceph).unwrap();
        state.api_token = "12e45".into();
        assert!(render(&state).contains("token: \"12e45\"\n"));
    }
}
