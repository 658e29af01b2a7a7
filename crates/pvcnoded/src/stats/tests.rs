use std::net::IpAddr;

use pvc_common::store::StoreExt;
use pvc_common::store::memory::MemoryServer;
use serde_json::json;

use super::*;
use crate::host::fake::{FakeCeph, FakeHypervisor, VirtualClock};

const LIMIT: Duration = Duration::from_secs(4);
const MINUTE: Duration = Duration::from_secs(60);

fn name() -> NodeName {
    NodeName::new("hv1").unwrap()
}

fn vm() -> VmId {
    "6ba7b810-9dad-11d1-80b4-00c04fd430c8".parse().unwrap()
}

fn written(txn: &Txn) -> Vec<String> {
    let ops = txn.ops.iter().map(|op| format!("{op:?}"));
    ops.collect()
}

fn statistics() -> NodeStatistics {
    NodeStatistics {
        collected_at: 1_700_000_000,
        memory: Some(Memory {
            total_mib: 1000,
            used_mib: 400,
            free_mib: 500,
        }),
        load: Some(0.5),
        guests: Some(Guests {
            running: vec![vm()],
            allocated: Some(Allocated {
                vcpus: 2,
                memory_mib: 512,
            }),
        }),
        provisioned_mib: Some(1024),
        interfaces: Some(json!({})),
        agent: Some(AgentFigures::default()),
    }
}

#[test]
fn only_what_is_known_and_new_is_written() {
    let all = statistics();
    assert_eq!(all.writes(&name(), None).ops.len(), 12);
    // Liveness of 1.0.3's clients hangs on this one.
    let same = all.writes(&name(), Some(&all));
    assert_eq!(same.ops.len(), 1);
    assert!(written(&same)[0].contains("/nodes/hv1/keepalive"));
    let mut later = all.clone();
    if let Some(memory) = &mut later.memory {
        memory.used_mib = 401;
    }
    let changes = written(&later.writes(&name(), Some(&all)));
    assert_eq!(changes.len(), 2);
    assert!(changes[1].contains("/nodes/hv1/memused"), "{changes:?}");
    // libvirt does not answer: the list of running guests stays as it was, instead of becoming empty.
    let unknown = NodeStatistics {
        guests: None,
        ..all.clone()
    };
    let text = written(&unknown.writes(&name(), None)).join(" ");
    assert!(
        !text.contains("runningdomains") && !text.contains("vcpualloc"),
        "{text}"
    );
}

struct Host {
    clock: VirtualClock,
    hypervisor: FakeHypervisor,
}

impl Host {
    fn new() -> Host {
        let clock = VirtualClock::default();
        let ceph = FakeCeph::new(clock.clone());
        Host {
            hypervisor: FakeHypervisor::new(clock.clone(), ceph, IpAddr::from([10, 102, 0, 1])),
            clock,
        }
    }

    fn collect(&self) -> Collected {
        let mut sampler = InterfaceSampler::default();
        let files = HostFiles::default();
        let work = collect(
            &self.clock,
            Some(&self.hypervisor),
            &files,
            &mut sampler,
            Some(7),
            LIMIT,
        );
        self.clock.run(MINUTE, work).unwrap()
    }
}

#[test]
fn running_guests_are_counted_and_a_lost_libvirt_is_unknown() {
    let host = Host::new();
    let created = host.hypervisor.create_paused(vm(), "<domain/>");
    host.clock.run(MINUTE, created).unwrap().unwrap();
    let found = host.collect();
    let guests = found.node.guests.unwrap();
    assert_eq!(guests.running, [vm()]);
    let expected = Allocated {
        vcpus: 1,
        memory_mib: 1,
    };
    assert_eq!(guests.allocated, Some(expected));
    assert!(found.guests.contains_key(&vm()));
    assert!(found.node.memory.is_some() && found.node.load.is_some());
    host.hypervisor.go_away();
    let found = host.collect();
    assert_eq!(found.node.guests, None);
    assert!(found.guests.is_empty());
    assert!(found.node.memory.is_some());
}

#[test]
fn a_node_says_what_it_is_in_one_line() {
    let text = static_data().to_string();
    assert_eq!(text.split(' ').count(), 4, "{text}");
    assert_eq!(text.parse::<StaticData>().unwrap(), static_data());
}

// One guest deleted while figures were being collected must not keep those of all others from being written.
#[test]
fn a_guest_that_was_deleted_meanwhile_is_left_out() {
    let clock = VirtualClock::default();
    let store = MemoryServer::new().client();
    let vms: Vec<VmId> = (0..4)
        .map(|number| {
            format!("6ba7b810-9dad-11d1-80b4-00c04fd430c{number}")
                .parse()
                .unwrap()
        })
        .collect();
    let nodes = ["", "/hv1", "/hv1/keepalive", "/hv1/cpuload", "/hv1/daemonstate"]
        .map(|path| format!("/nodes{path}"));
    let mut txn = Txn::new().create_path("/domains", "");
    for path in nodes {
        txn = txn.create_path(path, "");
    }
    for vm in [vms[1], vms[3]] {
        txn = txn
            .create_path(format!("/domains/{vm}"), "")
            .create_path(format!("/domains/{vm}/stats"), "");
    }
    clock.run(MINUTE, store.commit(txn)).unwrap().unwrap();
    let collected = Collected {
        node: NodeStatistics {
            load: Some(0.5),
            ..NodeStatistics::default()
        },
        guests: vms.iter().map(|vm| (*vm, json!({"cpus": 1}))).collect(),
    };
    let outcome = clock
        .run(
            MINUTE,
            publish(&store, &name(), DaemonState::Run, &collected, None),
        )
        .unwrap();
    assert_eq!(outcome, Ok(()));
    let load = clock.run(MINUTE, store.read(node(&name()).cpu_load().path()));
    assert_eq!(load.unwrap().unwrap().unwrap().data, b"0.50");
    for vm in [vms[1], vms[3]] {
        let stats = clock.run(MINUTE, store.get(&domain(vm).stats())).unwrap();
        assert_eq!(stats.unwrap().unwrap().value, Some(Json(json!({"cpus": 1}))));
    }
    // The node's own entry is another matter.
    let other = NodeName::new("hv9").unwrap();
    let outcome = clock
        .run(
            MINUTE,
            publish(&store, &other, DaemonState::Run, &collected, None),
        )
        .unwrap();
    assert!(matches!(outcome, Err(StoreError::NoNode { .. })), "{outcome:?}");
}
