//! Changes of virtual networks.

use super::{Plain, plain};

pub(super) fn commands() -> Vec<Plain> {
    vec![
        settings(
            plain("network add", "Add a virtual network")
                .argument("VNI", "vni", "Its number")
                .needed(
                    ('d', "description"),
                    "description",
                    "Its name in words, without spaces",
                )
                .needed(
                    ('p', "type"),
                    "nettype",
                    "Whether PVC routes it, or it is bridged to a VLAN",
                )
                .of("type", &["managed", "bridged"]),
        )
        .post("/network"),
        settings(
            plain("network modify", "Change a virtual network")
                .name("VNI", "Its number")
                .option(
                    ('d', "description"),
                    "description",
                    "Its name in words, without spaces",
                ),
        )
        .put("/network/{VNI}"),
        plain("network remove", "Remove a virtual network")
            .name("NET", "Its number or name")
            .asks("Remove network {NET}?")
            .delete("/network/{NET}"),
        plain("network dhcp add", "Reserve an address")
            .name("NET", "The network's number or name")
            .argument("IPADDR", "ipaddress", "The address")
            .argument("HOSTNAME", "hostname", "The host's name")
            .argument("MACADDR", "macaddress", "The MAC address that it is for")
            .post("/network/{NET}/lease"),
        plain("network dhcp remove", "Remove a lease")
            .name("NET", "The network's number or name")
            .name("MACADDR", "The MAC address that it is for")
            .asks("Remove the lease of {MACADDR} in network {NET}?")
            .delete("/network/{NET}/lease/{MACADDR}"),
        plain("network acl add", "Add a rule of the firewall")
            .name("NET", "The network's number or name")
            .either(
                (
                    ('\0', "in"),
                    "in",
                    "For what comes in (this is so unless --out is given)",
                ),
                (('\0', "out"), "out", "For what goes out"),
                "direction",
                Some("in"),
            )
            .needed(
                ('d', "description"),
                "description",
                "Its name in words, without spaces",
            )
            .needed(('r', "rule"), "rule", "The rule as nftables has it")
            .option(('o', "order"), "order", "Its place; the last if none is given")
            .post("/network/{NET}/acl"),
        plain("network acl remove", "Remove a rule of the firewall")
            .name("NET", "The network's number or name")
            .name("RULE", "The rule's name")
            .asks("Remove rule {RULE} of network {NET}?")
            .delete("/network/{NET}/acl/{RULE}"),
    ]
}

/// What a network can be given.
fn settings(command: Plain) -> Plain {
    command
        .option(('m', "mtu"), "mtu", "MTU; the largest that fits if none is given")
        .option(('n', "domain"), "domain", "DNS domain")
        .repeated(
            ('\0', "dns-server"),
            "name_servers",
            "A DNS server; may be given several times",
        )
        .option(('i', "ipnet"), "ip4_network", "IPv4 network, as in 10.1.1.0/24")
        .option(('\0', "ipnet6"), "ip6_network", "IPv6 network (short: -i6)")
        .option(('g', "gateway"), "ip4_gateway", "IPv4 gateway")
        .option(('\0', "gateway6"), "ip6_gateway", "IPv6 gateway (short: -g6)")
        .either(
            (('\0', "dhcp"), "true", "Give addresses out"),
            (('\0', "no-dhcp"), "false", "Do not"),
            "dhcp4",
            None,
        )
        .option(
            ('\0', "dhcp-start"),
            "dhcp4_start",
            "The first address that is given out",
        )
        .option(
            ('\0', "dhcp-end"),
            "dhcp4_end",
            "The last address that is given out",
        )
}
