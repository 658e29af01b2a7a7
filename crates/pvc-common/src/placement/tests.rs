use pvc_core::fence::FenceRecord;
use pvc_core::ids::{BootId, Incarnation, MachineId, TagName, VmName};
use pvc_core::states::{DaemonMode, DaemonState, DomainState, MigrationMethod, NodeSelector};

use super::*;
use crate::keys::values::{CommaList, StaticData};
use crate::schema::{NewDomain, NewNode, domain_keys, node_keys};
use crate::store::StoreError;
use crate::store::memory::{MemoryServer, MemoryStore};

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

fn vm(number: u32) -> VmId {
    format!("5d0e8c58-1d2b-4a30-9d6c-{number:012}").parse().unwrap()
}

/// A store with nodes of 1000 MiB.
async fn cluster(nodes: &[&str]) -> MemoryStore {
    let store = MemoryServer::new().client();
    let mut txn = Txn::new();
    for path in [
        "/nodes",
        "/domains",
        "/config",
        "/fences",
        "/leases",
        "/leases/nodes",
        "/logs",
    ] {
        txn = txn.create_path(path, "");
    }
    txn = txn.create(
        &keys::config().migration_target_selector(),
        &Some(NodeSelector::Vms),
    );
    store.commit(txn).await.unwrap();
    for node in nodes {
        store
            .commit(node_keys(&NewNode {
                name: name(node),
                mode: DaemonMode::Hypervisor,
                domain_state: DomainState::Ready,
                keepalive: 0,
            }))
            .await
            .unwrap();
        let keys = keys::node(&name(node));
        let data = StaticData {
            cpus: 8,
            kernel: "k".into(),
            os: "o".into(),
            arch: "a".into(),
        };
        let txn = Txn::new()
            .overwrite(&keys.daemon_state(), &DaemonState::Run)
            .overwrite(&keys.static_data(), &Some(data))
            .overwrite(&keys.memory_total_mib(), &1000)
            .overwrite(&keys.memory_free_mib(), &1000);
        store.commit(txn).await.unwrap();
    }
    store
}

async fn define(store: &MemoryStore, number: u32, node: &str, state: VmState, memory: u64) -> VmId {
    let id = vm(number);
    let txn = domain_keys(&NewDomain {
        id,
        name: VmName::new(format!("vm{number}")).unwrap(),
        xml: format!("<domain><memory unit='MiB'>{memory}</memory><vcpu>1</vcpu></domain>"),
        state,
        node: name(node),
        profile: None,
        volumes: Vec::new(),
        node_limit: Vec::new(),
        node_selector: NodeSelector::None,
        autostart: false,
        migration_method: MigrationMethod::None,
        migration_max_downtime_ms: 300,
        tags: Vec::new(),
    });
    store.commit(txn).await.unwrap();
    id
}

async fn read(store: &MemoryStore) -> Places {
    read_candidates(store, &BTreeSet::new()).await.unwrap()
}

async fn moved(store: &MemoryStore, places: &Places, choice: &Choice) -> Result<(), StoreError> {
    let key = keys::domain(choice.wish.vm).node();
    let seen = store.require(&key).await.unwrap();
    let txn = places.reserve(Txn::new().set(&key, &choice.node, seen.version), choice);
    store.commit(txn).await.map(|_| ())
}

#[tokio::test]
async fn two_who_place_at_a_time_never_give_the_same_memory_away() {
    let store = cluster(&["hv1", "hv2"]).await;
    let first = define(&store, 1, "hv1", VmState::Start, 600).await;
    let second = define(&store, 2, "hv1", VmState::Start, 600).await;
    let (mine, theirs) = (read(&store).await, read(&store).await);
    let my_choice = mine
        .choose(&mine.wish(first, vec![name("hv1")]).unwrap())
        .unwrap();
    let their_choice = theirs
        .choose(&theirs.wish(second, vec![name("hv1")]).unwrap())
        .unwrap();
    assert_eq!(
        (&my_choice.node, &their_choice.node),
        (&name("hv2"), &name("hv2"))
    );
    moved(&store, &mine, &my_choice).await.unwrap();
    // In a datacentre: hv2 would have to run 1200 MiB of guests on 1000 MiB, and the kernel would kill one.
    let lost = moved(&store, &theirs, &their_choice).await.unwrap_err();
    assert!(
        matches!(&lost, StoreError::BadVersion { path, .. } if path == "/nodes/hv2/reserved"),
        "{lost}"
    );
    let again = read(&store).await;
    let wish = again.wish(second, vec![name("hv1")]).unwrap();
    assert!(matches!(
        again.choose(&wish).unwrap_err().refusals[1].1[..],
        [Obstacle::Full { running: 600, .. }]
    ));
}

#[tokio::test]
async fn one_reading_serves_many_placements() {
    let store = cluster(&["hv1", "hv2", "hv3"]).await;
    let mut vms = Vec::new();
    for number in 0..4 {
        vms.push(define(&store, number, "hv1", VmState::Start, 400).await);
    }
    let mut places = read(&store).await;
    for vm in vms {
        let choice = places
            .choose(&places.wish(vm, vec![name("hv1")]).unwrap())
            .unwrap();
        moved(&store, &places, &choice).await.unwrap();
        places.placed(&choice, VmState::Start);
    }
    // Two on each: a third would not fit.
    let fresh = read(&store).await;
    for candidate in &fresh.survey.candidates(None)[1..] {
        assert_eq!(candidate.running_mib, 800, "{candidate:?}");
    }
    let reserved = store.require(&keys::node(&name("hv2")).reserved()).await.unwrap();
    assert_eq!(reserved.value.unwrap().placements, 2);
}

#[tokio::test]
async fn a_node_that_is_emptied_meanwhile_gets_no_guest() {
    let store = cluster(&["hv1", "hv2"]).await;
    let vm = define(&store, 1, "hv1", VmState::Start, 100).await;
    let places = read(&store).await;
    let choice = places
        .choose(&places.wish(vm, vec![name("hv1")]).unwrap())
        .unwrap();
    let key = keys::node(&name("hv2")).domain_state();
    store
        .commit(Txn::new().overwrite(&key, &DomainState::Flush))
        .await
        .unwrap();
    assert!(moved(&store, &places, &choice).await.is_err());
}

#[tokio::test]
async fn records_that_can_not_be_read_keep_nobody_else_from_being_placed() {
    let store = cluster(&["hv1", "hv2", "hv3", "hv4"]).await;
    let vm = define(&store, 1, "hv1", VmState::Start, 100).await;
    let broken = define(&store, 2, "hv2", VmState::Start, 100).await;
    let sized = define(&store, 3, "hv2", VmState::Start, 100).await;
    let incarnation = Incarnation {
        machine_id: MachineId::new("0123456789abcdef0123456789abcdef").unwrap(),
        boot_id: BootId::new("6ba7b810-9dad-11d1-80b4-00c04fd430c8").unwrap(),
        counter: 3,
    };
    let fence = FenceRecord::suspected(incarnation, name("hv1"));
    let groups = CommaList(vec![TagName::new("web").unwrap()]);
    let txn = Txn::new()
        .overwrite_path(keys::domain(broken).state().path(), "nonsense")
        .overwrite_path(keys::domain(sized).xml().path(), "<domain/>")
        .overwrite(&keys::domain(sized).anti_affinity(), &groups)
        .overwrite_path(keys::node(&name("hv3")).memory_total_mib().path(), "much")
        .overwrite(&keys::fence(&name("hv4")), &Some(fence));
    store.commit(txn).await.unwrap();
    let silent = BTreeSet::from([name("hv1")]);
    let places = read_candidates(&store, &silent).await.unwrap();
    let mut wish = places.wish(vm, Vec::new()).unwrap();
    assert_eq!(wish.selector, NodeSelector::Vms, "the cluster's default");
    assert_eq!(places.choose(&wish).unwrap().node, name("hv2"));
    wish.groups = groups.0.into_iter().collect();
    let refusals = places.choose(&wish).unwrap_err().refusals;
    let nodes: Vec<_> = refusals
        .iter()
        .map(|(node, why)| (node.as_str(), why.len()))
        .collect();
    // hv3 can't be read and is no candidate at all.
    assert_eq!(nodes, [("hv1", 1), ("hv2", 1), ("hv4", 1)]);
    assert!(
        matches!(refusals[2].1[..], [Obstacle::Silent]),
        "its fence is open"
    );
    assert!(!places.knows(&name("hv3")));
}

#[tokio::test]
async fn a_named_node_is_taken_unless_something_stands_against_it_that_is_not_passed_over() {
    let store = cluster(&["hv1", "hv2"]).await;
    let vm = define(&store, 1, "hv1", VmState::Start, 100).await;
    let key = keys::node(&name("hv2")).domain_state();
    store
        .commit(Txn::new().overwrite(&key, &DomainState::Flushed))
        .await
        .unwrap();
    let places = read(&store).await;
    let wish = places.wish(vm, Vec::new()).unwrap();
    let refused = places.named(&wish, &name("hv2"), |_| false).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "node hv2 does not take it: it is flushed, not ready for guests"
    );
    let choice = places
        .named(&wish, &name("hv2"), Obstacle::may_be_overridden)
        .unwrap();
    moved(&store, &places, &choice).await.unwrap();
    assert!(matches!(
        places.named(&wish, &name("hv9"), |_| true),
        Err(Unplaced::NotOpen { .. })
    ));
}
