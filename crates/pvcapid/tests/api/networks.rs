//! Virtual networks and SR-IOV functions, as the store holds them.

use pvc_common::keys;
use pvc_common::keys::Direction;
use pvc_common::keys::values::{CommaList, Nothing, OrNone};
use pvc_common::store::Txn;
use serde_json::json;

use crate::client::get;
use crate::common::{Cluster, commit, node};

fn some(text: &str) -> OrNone<String> {
    OrNone(Some(text.to_owned()))
}

/// A managed network with one address kept, one given out and two rules, and a bridged one.
fn fill(cluster: &Cluster) {
    let network = keys::network(100);
    let mut txn = Txn::new()
        .create(&network.description(), &"web".to_owned())
        .create(&network.kind(), &"managed".to_owned())
        .create(&network.mtu(), &"1400".to_owned())
        .create(&network.domain(), &some("web.local"))
        .create(
            &network.name_servers(),
            &CommaList(vec!["10.0.0.53".to_owned(), "10.0.0.54".to_owned()]),
        )
        .create(&network.ip4_network(), &some("10.100.0.0/24"))
        .create(&network.ip4_gateway(), &some("10.100.0.1"))
        .create(&network.dhcp4(), &OrNone(Some(true)))
        .create(&network.dhcp4_start(), &some("10.100.0.10"))
        .create(&network.dhcp4_end(), &some("10.100.0.99"))
        .create(&network.ip6_network(), &OrNone(None))
        .create(&network.ip6_gateway(), &OrNone(None))
        .create(&network.dhcp6(), &OrNone(Some(false)))
        .create(&network.rules(), &Nothing)
        .create(&network.rules_in(), &Nothing)
        .create(&network.rules_out(), &Nothing)
        .create(&network.reservations(), &Nothing)
        .create(&network.leases(), &Nothing);
    let kept = keys::network_reservation(100, "52:54:00:00:00:01");
    let given = keys::network_lease(100, "52:54:00:00:00:02");
    txn = txn
        .create(&kept.root(), &"static".to_owned())
        .create(&kept.address(), &"10.100.0.5".to_owned())
        .create(&kept.hostname(), &some("db"))
        .create(&given.root(), &Nothing)
        .create(&given.address(), &"10.100.0.11".to_owned())
        .create(&given.hostname(), &OrNone(None))
        .create(&given.expiry(), &1_800_000_000);
    for (direction, description, order) in [
        (Direction::In, "ssh", 1),
        (Direction::In, "http", 0),
        (Direction::Out, "all", 0),
    ] {
        let rule = keys::network_rule(100, direction, description);
        txn = txn
            .create(&rule.root(), &Nothing)
            .create(&rule.rule(), &format!("{description} accept"))
            .create(&rule.order(), &order);
    }
    let bridged = keys::network(9);
    txn = txn
        .create(&bridged.description(), &"office".to_owned())
        .create(&bridged.kind(), &"bridged".to_owned())
        .create(&bridged.mtu(), &String::new());
    commit(&cluster.store, txn);
}

#[test]
fn networks_are_listed_and_found_by_number_and_description() {
    let cluster = Cluster::start();
    assert_eq!(get(&cluster, "/network").body, json!([]));
    fill(&cluster);
    let all = get(&cluster, "/network").body;
    assert_eq!((&all[0]["vni"], &all[1]["vni"]), (&json!(9), &json!(100)));
    assert_eq!(
        all[1],
        json!({
            "vni": 100, "description": "web", "type": "managed", "mtu": "1400", "domain": "web.local",
            "name_servers": ["10.0.0.53", "10.0.0.54"],
            "ip4": {"network": "10.100.0.0/24", "gateway": "10.100.0.1", "dhcp_flag": "True",
                "dhcp_start": "10.100.0.10", "dhcp_end": "10.100.0.99"},
            "ip6": {"network": "None", "gateway": "None", "dhcp_flag": "False"},
        })
    );
    assert_eq!(
        all[0]["ip4"]["network"],
        json!("None"),
        "what is not there is not set"
    );
    assert_eq!(
        get(&cluster, "/network?limit=^we").body.as_array().unwrap().len(),
        1
    );
    assert_eq!(get(&cluster, "/network?limit=(").status, 400);
    assert_eq!(get(&cluster, "/network/100").body, json!([all[1]]));
    assert_eq!(get(&cluster, "/network/web").body, json!([all[1]]));
    for unknown in ["/network/10", "/network/we", "/network/-1", "/network/100%2Fmtu"] {
        assert_eq!(get(&cluster, unknown).status, 404, "{unknown}");
    }
}

#[test]
fn addresses_and_rules_of_a_network_are_shown() {
    let cluster = Cluster::start();
    fill(&cluster);
    let all = get(&cluster, "/network/web/lease").body;
    assert_eq!(
        all,
        json!([
            {"hostname": "db", "ip4_address": "10.100.0.5", "mac_address": "52:54:00:00:00:01", "timestamp": "static"},
            {"hostname": "", "ip4_address": "10.100.0.11", "mac_address": "52:54:00:00:00:02", "timestamp": "1800000000"},
        ])
    );
    assert_eq!(
        get(&cluster, "/network/100/lease?static=true").body,
        json!([all[0]])
    );
    assert_eq!(
        get(&cluster, "/network/100/lease?limit=0.11$").body,
        json!([all[1]])
    );
    assert_eq!(
        get(&cluster, "/network/100/lease/52:54:00:00:00:01").body,
        json!([all[0]])
    );
    // PVC 1.0.3 took a part for the whole.
    assert_eq!(get(&cluster, "/network/100/lease/52:54").status, 404);
    assert_eq!(get(&cluster, "/network/7/lease").status, 404);

    let rules = get(&cluster, "/network/100/acl").body;
    let names: Vec<&str> = rules
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| rule["description"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["http", "ssh", "all"]);
    assert_eq!(
        rules[1],
        json!({"direction": "in", "order": 1, "description": "ssh", "rule": "ssh accept"})
    );
    assert_eq!(
        get(&cluster, "/network/100/acl?direction=out").body,
        json!([rules[2]])
    );
    assert_eq!(get(&cluster, "/network/100/acl?direction=up").status, 400);
    assert_eq!(get(&cluster, "/network/100/acl/ssh").body, json!([rules[1]]));
    assert_eq!(get(&cluster, "/network/100/acl/ss").status, 404);
}

#[test]
fn sriov_functions_of_a_node_are_shown() {
    let cluster = Cluster::start();
    assert_eq!(get(&cluster, "/sriov").body, json!(null));
    assert_eq!(get(&cluster, "/sriov/pf?node=hv1").body, json!([]));
    let hv1 = node("hv1");
    let (pf, vf) = (keys::sriov_pf(&hv1, "ens1"), keys::sriov_vf(&hv1, "ens1v0"));
    commit(
        &cluster.store,
        Txn::new()
            .create(&keys::node(&hv1).sriov(), &Nothing)
            .create(&keys::node(&hv1).sriov_pf(), &Nothing)
            .create(&keys::node(&hv1).sriov_vf(), &Nothing)
            .create(&pf.root(), &Nothing)
            .create(&pf.mtu(), &"9000".to_owned())
            .create(&vf.root(), &Nothing)
            .create(&vf.pf(), &"ens1".to_owned())
            .create(&vf.config(), &Nothing)
            .create(&vf.vlan_id(), &"7".to_owned())
            .create(&vf.used(), &"False".to_owned()),
    );
    let pfs = json!([{"phy": "ens1", "mtu": "9000", "vfs": ["ens1v0"]}]);
    assert_eq!(get(&cluster, "/sriov/pf?node=hv1").body, pfs);
    assert_eq!(get(&cluster, "/sriov/pf/hv1").body, pfs);
    let vfs = get(&cluster, "/sriov/vf/hv1").body;
    assert_eq!(vfs[0]["config"]["vlan_id"], json!("7"));
    assert_eq!(vfs[0]["usage"], json!({"used": "False", "domain": ""}));
    assert_eq!(get(&cluster, "/sriov/vf?node=hv1&pf=ens1").body, vfs);
    assert_eq!(get(&cluster, "/sriov/vf/hv1?pf=ens2").body, json!([]));
    assert_eq!(get(&cluster, "/sriov/vf/hv1/ens1v0").body, vfs);
    assert_eq!(get(&cluster, "/sriov/vf/hv1/ens1v9").status, 404);
    assert_eq!(get(&cluster, "/sriov/pf").status, 400, "node is required");
    assert_eq!(get(&cluster, "/sriov/pf/hv9").status, 404);
    assert_eq!(get(&cluster, "/sriov/pf/..").status, 404);
}
