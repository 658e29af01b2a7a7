//! Virtual networks and SR-IOV functions, as the store holds them.

use pvc_api::network::{
    Acl, DhcpLease, Ip4Network, Ip6Network, Network, SriovPf, SriovVf, SriovVfConfig, SriovVfPci,
    SriovVfUsage,
};
use pvc_common::keys::values::{CommaList, OrNone};
use pvc_common::keys::{self, Direction, Key};
use pvc_common::mirror::View;
use pvc_core::ids::NodeName;

use crate::error::ApiError;
use crate::filter::NameFilter;
use crate::node;
use crate::unreadable::Unreadable;

/// How PVC 1.0.3 writes what is not set.
const NOT_SET: &str = "None";

/// The networks whose number or description fits.
pub(crate) fn list(view: &View, limit: Option<&NameFilter>) -> Result<Vec<Network>, ApiError> {
    let mut vnis: Vec<u32> = view.children(&keys::networks());
    vnis.sort_unstable();
    let mut networks = read(view, vnis)?;
    networks.retain(|network| {
        limit.is_none_or(|limit| {
            limit.matches(&network.vni.to_string()) || limit.matches(&network.description)
        })
    });
    Ok(networks)
}

/// One network, by number or description.
pub(crate) fn one(view: &View, name: &str) -> Result<Network, ApiError> {
    if let Ok(vni) = name.parse::<u32>()
        && let Some(found) = read(view, vec![vni])?.pop()
    {
        return Ok(found);
    }
    let mut all = list(view, None)?;
    all.retain(|network| network.description == name);
    all.pop()
        .ok_or_else(|| ApiError::not_found(format!("There is no network {name:?}")))
}

fn read(view: &View, vnis: Vec<u32>) -> Result<Vec<Network>, ApiError> {
    let mut networks = Vec::with_capacity(vnis.len());
    for vni in vnis {
        let keys = keys::network(vni);
        let Some(description) = view.get(&keys.description())? else {
            continue;
        };
        let text = |key: &Key<OrNone<String>>| or_none(view, key);
        networks.push(Network {
            vni,
            description: description.value,
            kind: view.shown(&keys.kind(), String::new()),
            mtu: view.shown(&keys.mtu(), String::new()),
            domain: text(&keys.domain()),
            name_servers: view
                .shown(&keys.name_servers(), CommaList(Vec::new()))
                .0
                .into_iter()
                .filter(|server| server != NOT_SET)
                .collect(),
            ip6: Ip6Network {
                network: text(&keys.ip6_network()),
                gateway: text(&keys.ip6_gateway()),
                dhcp_flag: flag(view, &keys.dhcp6()),
            },
            ip4: Ip4Network {
                network: text(&keys.ip4_network()),
                gateway: text(&keys.ip4_gateway()),
                dhcp_flag: flag(view, &keys.dhcp4()),
                dhcp_start: text(&keys.dhcp4_start()),
                dhcp_end: text(&keys.dhcp4_end()),
            },
        });
    }
    Ok(networks)
}

fn or_none(view: &View, key: &Key<OrNone<String>>) -> String {
    view.shown(key, OrNone(None))
        .0
        .unwrap_or_else(|| NOT_SET.to_owned())
}

fn flag(view: &View, key: &Key<OrNone<bool>>) -> String {
    match view.shown(key, OrNone(None)).0 {
        Some(true) => "True",
        Some(false) | None => "False",
    }
    .to_owned()
}

/// Which addresses of a network a list shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaseKind {
    /// Those given out for a time and those kept.
    All,
    /// Those kept for one MAC address.
    Reservations,
}

/// The addresses of a network, by MAC address; `limit` is matched against MAC address, address and name.
pub(crate) fn leases(
    view: &View,
    network: &str,
    kind: LeaseKind,
    limit: Option<&NameFilter>,
) -> Result<Vec<DhcpLease>, ApiError> {
    let vni = one(view, network)?.vni;
    let mut found = reservations(view, vni)?;
    if kind == LeaseKind::All {
        found.extend(given_out(view, vni)?);
    }
    found.retain(|lease| {
        limit.is_none_or(|limit| {
            [&lease.mac_address, &lease.ip4_address, &lease.hostname]
                .iter()
                .any(|text| limit.matches(text))
        })
    });
    found.sort_by(|a, b| (&a.mac_address, &a.timestamp).cmp(&(&b.mac_address, &b.timestamp)));
    Ok(found)
}

/// The addresses that a MAC address has in a network.
pub(crate) fn lease(view: &View, network: &str, mac: &str) -> Result<Vec<DhcpLease>, ApiError> {
    let mut found = leases(view, network, LeaseKind::All, None)?;
    found.retain(|lease| lease.mac_address.eq_ignore_ascii_case(mac));
    if found.is_empty() {
        return Err(ApiError::not_found(format!(
            "Network {network:?} has no address for {mac:?}"
        )));
    }
    Ok(found)
}

fn reservations(view: &View, vni: u32) -> Result<Vec<DhcpLease>, ApiError> {
    let macs = view.children(&keys::network_reservations(vni));
    Ok(macs
        .into_iter()
        .map(|mac| {
            let keys = keys::network_reservation(vni, &mac);
            DhcpLease {
                hostname: view.shown(&keys.hostname(), OrNone(None)).0.unwrap_or_default(),
                ip4_address: view.shown(&keys.address(), String::new()),
                timestamp: "static".to_owned(),
                mac_address: mac,
            }
        })
        .collect())
}

fn given_out(view: &View, vni: u32) -> Result<Vec<DhcpLease>, ApiError> {
    let macs = view.children(&keys::network_leases(vni));
    Ok(macs
        .into_iter()
        .map(|mac| {
            let keys = keys::network_lease(vni, &mac);
            DhcpLease {
                hostname: view.shown(&keys.hostname(), OrNone(None)).0.unwrap_or_default(),
                ip4_address: view.shown(&keys.address(), String::new()),
                timestamp: view.shown(&keys.expiry(), 0).to_string(),
                mac_address: mac,
            }
        })
        .collect())
}

/// The firewall rules of a network, in their order, `in` before `out`; `limit` is matched against descriptions.
pub(crate) fn rules(
    view: &View,
    network: &str,
    direction: Option<Direction>,
    limit: Option<&NameFilter>,
) -> Result<Vec<Acl>, ApiError> {
    let vni = one(view, network)?.vni;
    let mut names = Vec::new();
    for one in Direction::ALL {
        if direction.is_none_or(|wanted| wanted == one) {
            let found: Vec<String> = view.children(&keys::network_rules(vni, one));
            names.extend(found.into_iter().map(|name| (one, name)));
        }
    }
    names.retain(|(_, name)| limit.is_none_or(|limit| limit.matches(name)));
    let mut rules: Vec<(Direction, Acl)> = names
        .into_iter()
        .map(|(direction, description)| {
            let keys = keys::network_rule(vni, direction, &description);
            let rule = Acl {
                direction: direction.as_str().to_owned(),
                order: view.shown(&keys.order(), 0),
                rule: view.shown(&keys.rule(), String::new()),
                description,
            };
            (direction, rule)
        })
        .collect();
    rules.sort_by(|(a, left), (b, right)| {
        (a, left.order, &left.description).cmp(&(b, right.order, &right.description))
    });
    Ok(rules.into_iter().map(|(_, rule)| rule).collect())
}

/// The rules of a network that have this description: one for each direction at most.
pub(crate) fn rule(view: &View, network: &str, description: &str) -> Result<Vec<Acl>, ApiError> {
    let mut found = rules(view, network, None, None)?;
    found.retain(|rule| rule.description == description);
    if found.is_empty() {
        return Err(ApiError::not_found(format!(
            "Network {network:?} has no rule {description:?}"
        )));
    }
    Ok(found)
}

fn must_have_node(view: &View, name: &str) -> Result<NodeName, ApiError> {
    let name = node::parse_name(name)?;
    match node::shown_daemon_state(view, &name, &mut Unreadable::default()) {
        Some(_) => Ok(name),
        None => Err(node::unknown(name.as_str())),
    }
}

/// The physical SR-IOV functions of a node.
pub(crate) fn sriov_pfs(view: &View, node: &str) -> Result<Vec<SriovPf>, ApiError> {
    let node = must_have_node(view, node)?;
    let names: Vec<String> = view.children(&keys::sriov_pfs(&node));
    let vfs: Vec<String> = view.children(&keys::sriov_vfs(&node));
    Ok(names
        .into_iter()
        .map(|name| SriovPf {
            mtu: view.shown(&keys::sriov_pf(&node, &name).mtu(), String::new()),
            vfs: vfs
                .iter()
                .filter(|vf| view.shown(&keys::sriov_vf(&node, vf).pf(), String::new()) == name)
                .cloned()
                .collect(),
            phy: name,
        })
        .collect())
}

/// The virtual SR-IOV functions of a node, of one physical function or of all.
pub(crate) fn sriov_vfs(view: &View, node: &str, pf: Option<&str>) -> Result<Vec<SriovVf>, ApiError> {
    let node = must_have_node(view, node)?;
    let names: Vec<String> = view.children(&keys::sriov_vfs(&node));
    let mut found = read_vfs(view, &node, &names)?;
    found.retain(|vf| pf.is_none_or(|pf| vf.pf == pf));
    Ok(found)
}

/// One virtual function of a node.
pub(crate) fn sriov_vf(view: &View, node: &str, vf: &str) -> Result<SriovVf, ApiError> {
    let mut found = sriov_vfs(view, node, None)?;
    found.retain(|known| known.phy == vf);
    found
        .pop()
        .ok_or_else(|| ApiError::not_found(format!("Node {node} has no virtual function {vf:?}")))
}

fn read_vfs(view: &View, node: &NodeName, names: &[String]) -> Result<Vec<SriovVf>, ApiError> {
    let text = |key: Key<String>| view.shown(&key, String::new());
    Ok(names
        .iter()
        .map(|name| {
            let keys = keys::sriov_vf(node, name);
            SriovVf {
                phy: name.clone(),
                pf: text(keys.pf()),
                mtu: text(keys.mtu()),
                mac: text(keys.mac()),
                config: SriovVfConfig {
                    vlan_id: text(keys.vlan_id()),
                    vlan_qos: text(keys.vlan_qos()),
                    tx_rate_min: text(keys.tx_rate_min()),
                    tx_rate_max: text(keys.tx_rate_max()),
                    link_state: text(keys.link_state()),
                    spoof_check: text(keys.spoof_check()),
                    trust: text(keys.trust()),
                    query_rss: text(keys.query_rss()),
                },
                pci: SriovVfPci {
                    domain: text(keys.pci_domain()),
                    bus: text(keys.pci_bus()),
                    slot: text(keys.pci_slot()),
                    function: text(keys.pci_function()),
                },
                usage: SriovVfUsage {
                    used: text(keys.used()),
                    domain: text(keys.used_by()),
                },
            }
        })
        .collect())
}
