//! Virtual networks and SR-IOV functions.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A virtual network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Network {
    /// Its number.
    pub vni: u32,
    /// Its description; it can be asked for by this as well.
    pub description: String,
    /// `managed` (VXLAN, with addresses of its own) or `bridged` (VLAN).
    #[serde(rename = "type")]
    pub kind: String,
    /// Its MTU; empty for the largest that is possible.
    pub mtu: String,
    /// Its DNS domain; `None` if it has none.
    pub domain: String,
    /// Name servers of its domain.
    pub name_servers: Vec<String>,
    /// IPv6.
    pub ip6: Ip6Network,
    /// IPv4.
    pub ip4: Ip4Network,
}

/// The IPv6 side of a network. What is not set is the text `None`, as in PVC 1.0.3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ip6Network {
    /// `ADDRESS/PREFIX`.
    pub network: String,
    /// The address that follows the primary.
    pub gateway: String,
    /// `True` or `False`: whether addresses are given out.
    pub dhcp_flag: String,
}

/// The IPv4 side of a network. What is not set is the text `None`, as in PVC 1.0.3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ip4Network {
    /// `ADDRESS/PREFIX`.
    pub network: String,
    /// The address that follows the primary.
    pub gateway: String,
    /// `True` or `False`: whether addresses are given out.
    pub dhcp_flag: String,
    /// The first address that is given out.
    pub dhcp_start: String,
    /// The last one.
    pub dhcp_end: String,
}

/// An address that a network has given to a MAC address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DhcpLease {
    /// The name that the client gave, or that goes with the reservation; may be empty.
    pub hostname: String,
    /// The address.
    pub ip4_address: String,
    /// The client's MAC address.
    pub mac_address: String,
    /// When it ends, in seconds since 1970; `static` for a reservation.
    pub timestamp: String,
}

/// A firewall rule of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Acl {
    /// `in` or `out`.
    pub direction: String,
    /// Its place among the rules of its direction, from 0.
    pub order: u32,
    /// What it is for; tells it from the others of its direction.
    pub description: String,
    /// The nftables statement.
    pub rule: String,
}

/// A physical SR-IOV function of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SriovPf {
    /// Its name.
    pub phy: String,
    /// Its MTU.
    pub mtu: String,
    /// Its virtual functions.
    pub vfs: Vec<String>,
}

/// A virtual SR-IOV function of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SriovVf {
    /// Its name.
    pub phy: String,
    /// The physical function that it belongs to.
    pub pf: String,
    /// Its MTU.
    pub mtu: String,
    /// Its MAC address.
    pub mac: String,
    /// Its settings.
    pub config: SriovVfConfig,
    /// Where it is on the PCI bus.
    pub pci: SriovVfPci,
    /// Who has it.
    pub usage: SriovVfUsage,
}

/// Settings of a virtual function, as they are stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SriovVfConfig {
    /// VLAN; `0` for none.
    pub vlan_id: String,
    /// Priority in the VLAN.
    pub vlan_qos: String,
    /// Least rate of sending, in Mbit/s.
    pub tx_rate_min: String,
    /// Largest rate of sending, in Mbit/s.
    pub tx_rate_max: String,
    /// `auto`, `enable` or `disable`.
    pub link_state: String,
    /// `True` or `False`.
    pub spoof_check: String,
    /// `True` or `False`.
    pub trust: String,
    /// `True` or `False`.
    pub query_rss: String,
}

/// A PCI address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SriovVfPci {
    /// Domain.
    pub domain: String,
    /// Bus.
    pub bus: String,
    /// Slot.
    pub slot: String,
    /// Function.
    pub function: String,
}

/// Who has a virtual function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SriovVfUsage {
    /// `True` or `False`.
    pub used: String,
    /// The guest's UUID; empty for none.
    pub domain: String,
}
