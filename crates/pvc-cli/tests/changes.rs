//! Changes to a guest's definition by commands, against a real API server over a store in memory.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../../pvcapid/tests/common/mod.rs"]
mod common;
mod program;

use common::{Agents, Cluster, guest_xml, rbd_disk, vm_id, volumes};
use program::{done, pvc};
use pvc_common::keys;
use pvc_core::states::VmState;
use serde_json::{Value, json};

const INTERFACES: &str = "<interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='vmbr100'/><model type='virtio'/></interface>\
                          <interface type='bridge'><mac address='52:54:00:00:00:02'/><source bridge='vmbr100'/><model type='virtio'/></interface>";

fn define(cluster: &Cluster) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("guest.xml");
    let devices = format!("{}{INTERFACES}", rbd_disk("vms/web1", ""));
    std::fs::write(&file, guest_xml("web1", vm_id(1), &devices)).unwrap();
    done(cluster, &["vm", "define", file.to_str().unwrap(), "-t", "hv1"]);
}

#[test]
fn vcpus_and_memory_are_read_and_set() {
    let cluster = Cluster::start();
    define(&cluster);
    assert_eq!(done(&cluster, &["vm", "vcpu", "get", "web1", "-f", "raw"]), "2\n");
    // The difference is shown, and nobody is there to say yes.
    let asked = pvc(&cluster, &["vm", "vcpu", "set", "web1", "3"]);
    assert_eq!(asked.code, 2, "{asked:?}");
    assert!(
        asked.err.contains("+ <vcpu>3</vcpu>") && asked.err.contains("--yes"),
        "{asked:?}"
    );
    done(&cluster, &["vm", "vcpu", "set", "web1", "4", "-t", "2,2,1", "-y"]);
    let json: Value =
        serde_json::from_str(&done(&cluster, &["vm", "vcpu", "get", "web1", "-f", "json"])).unwrap();
    assert_eq!(json, json!({"name": "web1", "vcpu": 4, "vcpu_topology": "2/2/1"}));
    assert!(done(&cluster, &["vm", "vcpu", "get", "web1"]).contains("2/2/1"));
    let wrong = pvc(&cluster, &["vm", "vcpu", "set", "web1", "4", "-t", "1,3,1", "-y"]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
    // What the cluster has no room for is refused by the API, in its words.
    let much = pvc(&cluster, &["vm", "vcpu", "set", "web1", "64", "-y"]);
    assert_eq!(much.code, 1, "{much:?}");
    assert!(much.err.contains("vCPU"), "{much:?}");

    done(&cluster, &["vm", "memory", "set", "web1", "1024", "-y"]);
    assert_eq!(
        done(&cluster, &["vm", "memory", "get", "web1", "-f", "raw"]),
        "1024\n"
    );
    assert!(done(&cluster, &["vm", "memory", "get", "web1"]).contains("1024 MiB"));
    assert!(done(&cluster, &["vm", "memory", "set", "web1", "1024", "-y"]).contains("already"));
    assert_eq!(pvc(&cluster, &["vm", "memory", "set", "web1", "much"]).code, 2);
    assert_eq!(pvc(&cluster, &["vm", "memory", "get", "none"]).code, 3);
}

/// What is confirmed for all commands of a nightly script is not that guests in production go down.
#[test]
fn a_running_guest_is_restarted_only_when_that_is_said() {
    let cluster = Cluster::start();
    define(&cluster);
    let agents = Agents::start(&cluster, vec![vm_id(1)]);
    done(&cluster, &["vm", "start", "web1", "-w"]);
    // Nobody carries out the restart, so that it is seen whether one was ordered.
    drop(agents);
    let state = || -> VmState { cluster.value(&keys::domain(vm_id(1)).state()) };
    for args in [
        &["vm", "memory", "set", "web1", "1024", "-y"][..],
        &["vm", "memory", "set", "web1", "768", "-y", "-R"],
        &["-u", "vm", "memory", "set", "web1", "640"],
        &["-u", "vm", "vcpu", "set", "web1", "1"],
    ] {
        let said = pvc(&cluster, args);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.err.contains("takes effect at its next start"), "{said:?}");
        assert_eq!(state(), VmState::Start, "{args:?}");
    }
    done(&cluster, &["vm", "memory", "set", "web1", "512", "-y", "-r"]);
    assert_eq!(state(), VmState::Restart);
}

#[test]
fn interfaces_and_disks_are_shown_and_removed_by_name() {
    let cluster = Cluster::start();
    define(&cluster);
    let table = done(&cluster, &["vm", "network", "get", "web1"]);
    assert!(table.contains("52:54:00:00:00:02"), "{table}");
    assert_eq!(
        done(&cluster, &["vm", "network", "get", "web1", "-f", "raw"]),
        "100\n100\n"
    );
    // Two fit: which one is not guessed.
    let two = pvc(&cluster, &["vm", "network", "remove", "web1", "100", "-y"]);
    assert_eq!(two.code, 2, "{two:?}");
    assert!(
        two.err.contains("52:54:00:00:00:01, 52:54:00:00:00:02"),
        "{two:?}"
    );
    done(
        &cluster,
        &["vm", "network", "remove", "web1", "-m", "52:54:00:00:00:01", "-y"],
    );
    done(&cluster, &["vm", "network", "remove", "web1", "100", "-y"]);
    assert!(done(&cluster, &["vm", "network", "get", "web1"]).contains("no network interfaces"));
    assert_eq!(
        pvc(&cluster, &["vm", "network", "remove", "web1", "100", "-y"]).code,
        3
    );
    // A network of the nodes needs no number.
    done(&cluster, &["vm", "network", "add", "web1", "upstream", "-y"]);
    let json: Value =
        serde_json::from_str(&done(&cluster, &["vm", "network", "get", "web1", "-f", "json"])).unwrap();
    assert_eq!(json[0]["source"], json!("brupstream"));
    assert!(json[0]["mac"].as_str().unwrap().starts_with("52:54:00:"));

    assert!(done(&cluster, &["vm", "volume", "get", "web1"]).contains("vms/web1"));
    done(&cluster, &["vm", "volume", "remove", "web1", "vms/web1", "-y"]);
    assert_eq!(done(&cluster, &["vm", "volume", "get", "web1", "-f", "raw"]), "");
    assert_eq!(volumes(&cluster, vm_id(1)), Vec::<String>::new());
    assert_eq!(
        pvc(&cluster, &["vm", "volume", "remove", "web1", "sdz", "-y"]).code,
        3
    );
}
