//! Whole files, good and bad.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use pvc_core::bmc::{FailingBmc, IdentityPolicy};

use super::*;

/// The file that we ship.
const SHIPPED: &str = include_str!("../../../../deploy/config/pvc.conf");
/// Every key of the sample of PVC 1.0.3.
const SAMPLE_1_0_3: &str = include_str!("../../tests/config/sample-1.0.3.yaml");
/// The least that does.
const SMALL: &str = include_str!("../../tests/config/small.yaml");

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

/// The findings of a text as `severity path problem`, without lines.
fn findings_of(text: &str) -> Vec<String> {
    let (_, findings) = parse(text, &node("hv2"));
    let plain = |finding: Finding| {
        Finding {
            line: None,
            ..finding
        }
        .to_string()
    };
    findings.into_iter().map(plain).collect()
}

fn errors_of(text: &str) -> Vec<String> {
    findings_of(text)
        .into_iter()
        .filter_map(|text| Some(text.strip_prefix("error: ")?.to_owned()))
        .collect()
}

fn config_of(text: &str, name: &str) -> Config {
    let (config, findings) = parse(text, &node(name));
    config.unwrap_or_else(|| panic!("{findings:#?}"))
}

/// `SMALL` with one piece replaced.
fn changed(from: &str, to: &str) -> String {
    assert_eq!(SMALL.matches(from).count(), 1, "{from:?} is in there once");
    SMALL.replace(from, to)
}

#[track_caller]
fn check_error(from: &str, to: &str, expected: &str) {
    assert_eq!(errors_of(&changed(from, to)), [expected]);
}

#[test]
fn the_file_that_we_ship_is_good() {
    let (config, findings) = parse(SHIPPED, &node("pvchv2"));
    let config = config.unwrap_or_else(|| panic!("{findings:#?}"));
    let remarks: Vec<Problem> = findings.into_iter().map(|finding| finding.problem).collect();
    // Every secret in it must be replaced, and nothing else is worth a word.
    assert_eq!(remarks, vec![Problem::SampleSecret; 5]);
    assert_eq!(
        config.cluster.networks.storage.ipv4.node_address,
        Ipv4Addr::new(10, 0, 2, 2)
    );
    assert_eq!(config.fencing.bmc.unwrap().hostname, "pvchv2-lom.example.com");
}

// Who removes the `#` before a block of the sample must get a file that loads.
#[test]
fn what_the_shipped_file_shows_in_comments_is_good_too() {
    // Settings stand behind `#` and an even number of spaces, words behind an odd one.
    let is_setting = |line: &str| match line.trim_start().strip_prefix('#') {
        Some(rest) => !rest.is_empty() && (rest.len() - rest.trim_start().len()) % 2 == 0,
        None => false,
    };
    let uncomment = |line: &str| {
        if is_setting(line) {
            line.replacen('#', "", 1)
        } else {
            line.to_owned()
        }
    };
    let text: String = SHIPPED.lines().map(|line| uncomment(line) + "\n").collect();
    let config = config_of(&text, "pvchv3");
    assert_eq!(
        config
            .cluster
            .networks
            .upstream
            .ipv6
            .unwrap()
            .node_address
            .to_string(),
        "2001:db8:0:1::3"
    );
    assert_eq!(config.autobackup.unwrap().full_interval, 7);
    assert_eq!(config.automirror.unwrap().destinations.len(), 1);
    assert_eq!(config.ceph.monitor_hosts.len(), 3);
}

// A cluster of PVC 1.0.3 must come up with its file as it is.
#[test]
fn the_sample_of_the_older_product_loads_and_dead_keys_are_named() {
    let (config, findings) = parse(SAMPLE_1_0_3, &node("pvchv1"));
    let config = config.unwrap_or_else(|| panic!("{findings:#?}"));
    let mut paths: Vec<&str> = findings.iter().map(|finding| finding.path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(
        paths,
        [
            "autobackup",
            "automirror",
            "ceph.secret_uuid",
            "fencing.intervals.suicide_intervals",
            "guest_networking.sriov_device[0].device",
            "logging.file_logging",
            "logging.log_colours",
            "logging.log_dates",
            "logging.stdout_logging",
        ]
    );
    assert_eq!(config.ceph.monitor_hosts[0], "pvchv1.storage.local");
    assert_eq!(config.database.keydb.unwrap().path, "/0");
    let automirror = config.automirror.unwrap();
    assert_eq!(
        automirror.destinations["cluster2"].transport,
        MirrorTransport::Tls
    );
}

#[test]
fn a_small_file_gets_the_defaults() {
    let config = config_of(SMALL, "hv2");
    assert_eq!(
        findings_of(SMALL),
        ["warning: ceph.secret_uuid: without it guests with volumes on Ceph cannot start"]
    );
    assert_eq!(config.mode, DaemonMode::Coordinator);
    assert_eq!(config.timers.vm_shutdown_timeout, Duration::from_secs(180));
    assert_eq!(config.timers.keepalive_interval, Duration::from_secs(5));
    assert_eq!(config.fencing.suspected_after(), Duration::from_secs(6));
    // Whoever says nothing gets the safe choice: another machine's "off" would have a guest run twice.
    assert_eq!(config.fencing.bmc_identity, IdentityPolicy::Strict);
    assert_eq!(config.fencing.failing_bmc, FailingBmc::IsTried);
    assert_eq!(config.fencing.after_power_proof, AfterPowerProof::Recover);
    // A BMC dies with its server's power: by default that must not keep guests down.
    assert_eq!(
        config.fencing.without_power_proof,
        WithoutPowerProof::StorageProof
    );
    assert_eq!(config.target_selector, NodeSelector::Mem);
    assert_eq!(config.api.listen_address, IpAddr::from([10, 100, 0, 250]));
    assert_eq!((config.api.listen_port, config.api.tls.is_none()), (7370, true));
    assert_eq!(
        config.zookeeper_servers(),
        ["10.100.1.1:2181", "10.100.1.2:2181", "10.100.1.3:2181"]
    );
    assert_eq!(config_of(SMALL, "hv4").mode, DaemonMode::Hypervisor);
}

#[test]
fn three_unknown_keys_and_three_bad_values_are_told_in_one_go() {
    let text = SMALL
        .replace("  name: lab", "  name: lab\n  nmae: lab")
        .replace(
            "cluster:\n  name",
            "timer:\n  keepalive_intervall: 5\n  vm_shutdown_timeout: soon\ncluster:\n  name",
        )
        .replace("    username: admin", "    username: admin\n    pasword: hunter2")
        .replace("device: eth-cl", "device: an-interface-with-a-long-name")
        .replace("floating_address: 10.100.2.250", "floating_address: 10.100.2");
    let (config, findings) = parse(&text, &node("hv2"));
    assert_eq!(config, None);
    let texts: Vec<String> = findings
        .iter()
        .filter(|finding| finding.problem.severity() == Severity::Error)
        .map(Finding::to_string)
        .collect();
    assert_eq!(
        texts,
        [
            "error: timer.keepalive_intervall: unknown key (is \"keepalive_interval\" meant?) (line 2)",
            "error: timer.vm_shutdown_timeout: \"soon\" is not a whole number of seconds from 1 to 86400 (line 3)",
            "error: cluster.nmae: unknown key (is \"name\" meant?) (line 6)",
            "error: cluster.networks.cluster.device: \"an-interface-with-a-long-name\" is not the name of a network \
             interface: the kernel takes at most 15 characters (line 22)",
            "error: cluster.networks.storage.ipv4.floating_address: \"10.100.2\" is not an IPv4 address (line 36)",
            "error: fencing.ipmi.pasword: unknown key (is \"password\" meant?) (line 42)",
        ]
    );
    // Not even a misspelt key may spill a password.
    assert!(!format!("{findings:?}").contains("hunter2"));
}

#[test]
fn passwords_stay_out_of_debug_output() {
    let config = config_of(SAMPLE_1_0_3, "pvchv1");
    let shown = format!("{config:?}");
    for secret in ["Passw0rd", "P4ssw0rd", "0123456789abcdef", "5f7b6f1e"] {
        assert!(
            SAMPLE_1_0_3.contains(secret) && !shown.contains(secret),
            "{secret}"
        );
    }
}

// One that is forgotten there may be published with a node's log.
#[test]
fn every_secret_of_the_file_is_known_as_one() {
    let secrets = config_of(SAMPLE_1_0_3, "pvchv1").secrets();
    let keys = ["password: ", "secret_key: ", " token: ", " key: "];
    let values: Vec<&str> = SAMPLE_1_0_3
        .lines()
        .filter_map(|line| keys.iter().find_map(|key| line.split_once(key)))
        .map(|(_, value)| value.trim())
        .collect();
    assert!(values.len() >= 6, "{values:?}");
    for value in values {
        let known = secrets.iter().any(|secret| secret.expose() == value);
        assert!(known, "a value of the sample is not known as a secret: {value}");
    }
}

// A floating address that a node keeps as its own is up twice as soon as the primary is another node.
#[test]
fn floating_addresses_must_be_free_host_addresses_of_their_network() {
    let floating = "floating_address: 10.100.0.250";
    let path = "cluster.networks.upstream.ipv4.floating_address";
    for (to, problem) in [
        (
            "10.100.0.2",
            "10.100.0.2 is the own address of node hv2; a floating address must be one that no node has",
        ),
        (
            "10.100.0.4",
            "10.100.0.4 is the own address of node hv4; a floating address must be one that no node has",
        ),
        ("10.100.1.9", "10.100.1.9 is outside 10.100.0.0/24"),
        ("10.100.0.0", "10.100.0.0 is the address of the network itself"),
        (
            "10.100.0.255",
            "10.100.0.255 is the broadcast address of the network",
        ),
    ] {
        check_error(
            floating,
            &format!("floating_address: {to}"),
            &format!("{path}: {problem}"),
        );
    }
    assert_eq!(
        errors_of(&changed(floating, "floating_address: 10.100.0.5")),
        [""; 0]
    );
}

#[test]
fn gateways_must_be_someone_else() {
    let gateway = "gateway_address: 10.100.0.254";
    let path = "cluster.networks.upstream.ipv4.gateway_address";
    for (to, problem) in [
        ("10.100.0.250", "10.100.0.250 is the floating address too"),
        ("10.100.0.1", "10.100.0.1 is the own address of node hv1 too"),
        ("10.1.0.1", "10.1.0.1 is outside 10.100.0.0/24"),
    ] {
        check_error(
            gateway,
            &format!("gateway_address: {to}"),
            &format!("{path}: {problem}"),
        );
    }
    check_error(gateway, "", &format!("{path}: missing; expected an IPv4 address"));
}

#[test]
fn networks_are_what_their_prefix_says() {
    let network = "network_address: 10.100.0.0\n        netmask: 24";
    let with = |address: &str, mask: &str| format!("network_address: {address}\n        netmask: {mask}");
    check_error(
        network,
        &with("10.100.0.1", "24"),
        "cluster.networks.upstream.ipv4.network_address: 10.100.0.1 is not the address of a network with prefix 24; \
         that would be 10.100.0.0",
    );
    check_error(
        network,
        &with("10.100.0.0", "255.0.255.0"),
        "cluster.networks.upstream.ipv4.netmask: \"255.0.255.0\" is not a prefix length from 1 to 30 or a dotted \
         mask: the bits of the mask are not in one row",
    );
    let dotted = config_of(&changed(network, &with("10.100.0.0", "255.255.255.0")), "hv2");
    assert_eq!(dotted.cluster.networks.upstream.ipv4.prefix_length, 24);
}

#[test]
fn nodes_find_their_addresses_by_number_or_are_told_why_not() {
    let nodes = "all_nodes: [hv1, hv2, hv3, hv4]";
    check_error(
        nodes,
        "all_nodes: [hv1, hv3, hv4, hv2, hv3]",
        "cluster.all_nodes[4]: node hv3 is listed twice",
    );
    check_error(
        nodes,
        "all_nodes: [hv1, hv2, hv3, rack2-02]",
        "cluster.all_nodes: addresses are chosen by-id, but nodes hv2 and rack2-02 have the same number",
    );
    check_error(
        nodes,
        "all_nodes: [hv1, hv2, hv3, big]",
        "cluster.all_nodes: addresses are chosen by-id, but the name of node big contains no number above 0",
    );
    assert_eq!(
        errors_of(&changed(nodes, "all_nodes: [hv1, hv2, hv3, hv300]")).len(),
        3,
        "one for each network"
    );
    check_error(
        nodes,
        "all_nodes: [hv1, hv2]",
        "cluster.coordinator_nodes: coordinator hv3 is not in cluster.all_nodes",
    );
    let (config, findings) = parse(SMALL, &node("hv9"));
    assert_eq!(config, None);
    assert!(
        findings
            .iter()
            .any(|finding| finding.problem == Problem::HostNotListed(node("hv9")))
    );
}

#[test]
fn fixed_addresses_are_taken_and_checked() {
    let fixed = |address: &str| {
        changed(
            "gateway_address: 10.100.0.254\n      node_ip_selection: by-id",
            &format!("gateway_address: 10.100.0.254\n      node_ip_selection: {address}"),
        )
    };
    let upstream = config_of(&fixed("10.100.0.77"), "hv2")
        .cluster
        .networks
        .upstream
        .ipv4;
    assert_eq!(upstream.node_address, Ipv4Addr::new(10, 100, 0, 77));
    assert_eq!(
        upstream.address_of(&node("hv1")),
        None,
        "other nodes' addresses are in their files"
    );
    let path = "cluster.networks.upstream";
    assert_eq!(
        errors_of(&fixed("10.100.0.250")),
        [format!(
            "{path}.ipv4.floating_address: 10.100.0.250 is the own address of node hv2; a floating address must be one \
             that no node has"
        )]
    );
    assert_eq!(
        errors_of(&fixed("10.100.7.1")),
        [format!(
            "{path}.node_ip_selection: 10.100.7.1 is outside 10.100.0.0/24"
        )]
    );
    assert_eq!(
        errors_of(&fixed("by-name")),
        [format!(
            "{path}.node_ip_selection: \"by-name\" is not by-id or an address of the network"
        )]
    );
}

#[test]
fn ipv6_stands_beside_ipv4_with_its_own_addresses() {
    let with = |block: &str| {
        changed(
            "floating_address: 10.100.1.250",
            &format!("floating_address: 10.100.1.250\n      ipv6: {{{block}}}"),
        )
    };
    let good = "network_address: 'fd00:1::', netmask: 64, floating_address: 'fd00:1::250'";
    let cluster = config_of(&with(good), "hv3").cluster.networks.cluster;
    let own: Vec<String> = cluster
        .node_addresses()
        .map(|(address, prefix)| format!("{address}/{prefix}"))
        .collect();
    assert_eq!(own, ["10.100.1.3/24", "fd00:1::3/64"]);
    let floating: Vec<String> = cluster
        .floating_addresses()
        .map(|address| address.to_string())
        .collect();
    assert_eq!(floating, ["10.100.1.250", "fd00:1::250"]);

    let path = "cluster.networks.cluster.ipv6";
    for (block, problem) in [
        (
            good.replace("::250", "::4"),
            "floating_address: fd00:1::4 is the own address of node hv4; a floating address must be one that no node has",
        ),
        (
            good.replace("'fd00:1::250'", "10.0.0.1"),
            "floating_address: \"10.0.0.1\" is not an IPv6 address",
        ),
        (
            good.replace("netmask: 64", "netmask: 127"),
            "netmask: \"127\" is not a prefix length from 1 to 126",
        ),
        (
            good.replace("netmask: 64, ", ""),
            "netmask: missing; expected a prefix length from 1 to 126",
        ),
        (format!("{good}, gateway: 'fd00:1::1'"), "gateway: unknown key"),
    ] {
        assert_eq!(errors_of(&with(&block)), [format!("{path}.{problem}")]);
    }
    let fixed = with(&format!("{good}, node_ip_selection: 'fd00:1::99'"));
    assert_eq!(
        config_of(&fixed, "hv1")
            .cluster
            .networks
            .cluster
            .ipv6
            .unwrap()
            .node_address
            .to_string(),
        "fd00:1::99"
    );
}

#[test]
fn networks_are_apart_or_one() {
    let storage = "network_address: 10.100.2.0\n        netmask: 24\n        floating_address: 10.100.2.250";
    let cluster = "network_address: 10.100.1.0\n        netmask: 24\n        floating_address: 10.100.1.250";
    // One network under two names, on one device.
    let one = changed(storage, cluster).replacen(
        "floating_address: 10.100.1.250",
        "floating_address: 10.100.1.251",
        1,
    );
    let overlap = "cluster.networks.storage.ipv4.network_address: 10.100.1.0/24 overlaps the cluster network; host \
                   networks are either apart, or one network on one device with the same prefix";
    assert_eq!(errors_of(&one), [overlap]);
    let one = one.replace("device: eth-st", "device: eth-cl");
    let networks = config_of(&one, "hv2").cluster.networks;
    assert_eq!(networks.bridge(NetworkKind::Storage), "brcluster");
    assert_eq!(networks.bridge(NetworkKind::Upstream), "brupstream");

    let wider = "network_address: 10.100.0.0\n        netmask: 22\n        floating_address: 10.100.3.250";
    assert_eq!(errors_of(&changed(storage, wider)).len(), 2);
}

#[test]
fn a_floating_address_is_not_an_own_address_on_the_same_network_under_another_name() {
    let text = changed(
        "network_address: 10.100.2.0\n        netmask: 24\n        floating_address: 10.100.2.250\n      node_ip_selection: by-id",
        "network_address: 10.100.1.0\n        netmask: 24\n        floating_address: 10.100.1.251\n      node_ip_selection: 10.100.1.250",
    )
    .replace("device: eth-st", "device: eth-cl");
    assert_eq!(
        errors_of(&text),
        [
            "cluster.networks.cluster.ipv4.floating_address: 10.100.1.250 is the own address of node hv2; a floating \
             address must be one that no node has"
        ]
    );
}

#[test]
fn fencing_needs_a_possible_proof_and_patience() {
    let intervals = |count| format!("fencing:\n  intervals: {{fence_intervals: {count}}}");
    check_error(
        "fencing:",
        &intervals("4"),
        "fencing.intervals.fence_intervals: \"4\" is not a whole number from 5 to 3600: it counts missed renewals of \
         one second, and a node may be silent for 5 s in good health",
    );
    assert_eq!(
        config_of(&changed("fencing:", &intervals("5")), "hv2")
            .fencing
            .missed_renewals,
        5
    );

    let bmc = SMALL.find("  ipmi:").unwrap()..SMALL.find("guest_networking:").unwrap();
    let without_bmc = |with: &str| SMALL.replacen(&SMALL[bmc.clone()], with, 1);
    assert!(
        errors_of(&without_bmc("  actions: {failed_fence: none}\n"))
            .iter()
            .any(|error| error.starts_with("fencing.ipmi: no proof of a node's"))
    );
    let by_storage = config_of(&without_bmc("  disable_on_ipmi_failure: no\n"), "hv2").fencing;
    assert_eq!(
        (by_storage.bmc, by_storage.without_power_proof),
        (None, WithoutPowerProof::StorageProof)
    );

    check_error(
        "fencing:",
        "fencing:\n  actions: {successful_fence: restart}",
        "fencing.actions.successful_fence: \"restart\" is not one of migrate, none",
    );
}

#[test]
fn old_names_for_losing_the_store_are_warnings() {
    for key in ["suicide_interval", "suicide_intervals"] {
        let text = changed("fencing:", &format!("fencing:\n  intervals: {{{key}: 6}}"));
        assert_eq!(errors_of(&text), [""; 0]);
        let warning = format!("warning: fencing.intervals.{key}: has no effect");
        assert!(
            findings_of(&text)
                .iter()
                .any(|finding| finding.starts_with(&warning))
        );
    }
}

#[test]
fn gateways_of_the_inner_networks_are_taken_and_do_nothing() {
    let floating = "floating_address: 10.100.1.250";
    let text = changed(
        floating,
        &format!("{floating}\n        gateway_address: 10.100.1.254"),
    );
    assert_eq!(
        config_of(&text, "hv2")
            .cluster
            .networks
            .cluster
            .ipv4
            .gateway_address,
        None
    );
    let warning = "warning: cluster.networks.cluster.ipv4.gateway_address: has no effect: only the upstream network has \
                   a default gateway";
    assert!(findings_of(&text).contains(&warning.to_owned()));
}

#[test]
fn the_api_is_not_open_by_mistake() {
    let token = "  token: [{description: test, token: abc}]\n";
    check_error(
        token,
        "",
        "api.token: needed because api.authentication.enabled is yes",
    );
    check_error(token, "  token: []\n", "api.token: the list is empty");
    check_error(
        token,
        "  token: [{token: abc}, {token: abc}]\n",
        "api.token[1]: this token is the same as that of entry 0",
    );
    check_error(
        token,
        "  token: [{description: x}]\n",
        "api.token[0].token: missing; expected a text",
    );
    check_error(
        token,
        "  token: [{token: abc, role: root}]\n",
        "api.token[0].role: \"root\" is not one of viewer, operator, admin",
    );
    let open = changed("enabled: yes", "enabled: no");
    assert!(
        findings_of(&open)
            .iter()
            .any(|finding| finding.contains("answers everyone"))
    );
    check_error(
        token,
        &format!("{token}  ssl: {{enabled: yes, certificate: /etc/ssl/a.pem}}\n"),
        "api.ssl.private_key: needed because api.ssl.enabled is yes",
    );
}

#[test]
fn jobs_are_off_when_empty_and_checked_when_not() {
    let off = format!("{SMALL}autobackup:\nautomirror:\n");
    let config = config_of(&off, "hv2");
    assert_eq!((config.autobackup, config.automirror), (None, None));
    let mirror = "automirror: {destinations: {c2: {address: a.b, key: k, ssl: no, pool: vms, prot: 1}}, \
                  default_destination: c3, mirror_tags: [m], keep_snapshots: 0}";
    assert_eq!(
        errors_of(&format!("{SMALL}{mirror}\n")),
        [
            "automirror.destinations.c2.prot: unknown key (is \"port\" meant?)",
            "automirror.keep_snapshots: \"0\" is not a whole number of at least 1",
            "automirror.default_destination: \"c3\" is not one of the destinations",
        ]
        .map(str::to_owned)
    );
}

#[test]
fn shapes_that_do_not_fit_are_told_with_their_place() {
    check_error(
        "  name: lab",
        "  name: [lab]",
        "cluster.name: expected a text, found a list",
    );
    check_error(
        "  name: lab",
        "  name: lab\n  name: lab2",
        "cluster.name: this key is given twice",
    );
    check_error(
        "coordinator_nodes: [hv1, hv2, hv3]",
        "coordinator_nodes: hv1",
        "cluster.coordinator_nodes: expected a list, found a single value",
    );
    // A missing section is told once, not key by key.
    assert_eq!(
        errors_of(
            "cluster: {name: x, all_nodes: [hv2], coordinator_nodes: [hv2]}\nsubsystem: {enable_networking: no}"
        ),
        ["cluster.networks: missing; expected a section",]
    );
    assert_eq!(
        errors_of("- a\n- b\n")[0],
        "expected a section with keys, found a list"
    );
    assert!(errors_of("a: [")[0].starts_with("this is not valid YAML"));
}

#[test]
fn users_of_older_files_are_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pvc.conf");
    let none = load(&path, &node("hv2")).unwrap_err().to_string();
    assert_eq!(none, format!("there is no configuration file {}", path.display()));
    std::fs::write(dir.path().join("pvcnoded.yaml"), "").unwrap();
    std::fs::write(dir.path().join("pvcapid.yaml"), "").unwrap();
    let both = load(&path, &node("hv2")).unwrap_err().to_string();
    assert!(
        both.contains("pvcnoded.yaml and ") && both.contains("pvcapid.yaml of an older version are not"),
        "{both}"
    );
}

#[test]
fn a_file_on_disk_is_loaded_checked_and_judged_by_its_mode() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pvc.conf");
    std::fs::write(&path, SMALL).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let loaded = load(&path, &node("hv1")).unwrap();
    assert_eq!(loaded.config.node, node("hv1"));
    assert!(
        loaded
            .warnings
            .iter()
            .any(|finding| finding.problem == Problem::WorldReadable { mode: 0o644 })
    );

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let report = check(&path, &node("hv1")).unwrap();
    assert_eq!((report.exit_code(), report.count(Severity::Error)), (0, 0));

    std::fs::write(&path, changed("  name: lab", "  nmae: lab")).unwrap();
    let report = check(&path, &node("hv1")).unwrap();
    assert_eq!((report.exit_code(), report.count(Severity::Error)), (1, 2));
    assert!(
        report
            .to_string()
            .contains("\n  error: cluster.nmae: unknown key (is \"name\" meant?) (line 2)")
    );
    let LoadError::Invalid(same) = load(&path, &node("hv1")).unwrap_err() else {
        panic!("it has errors")
    };
    assert_eq!(same.count(Severity::Error), 2);
}
