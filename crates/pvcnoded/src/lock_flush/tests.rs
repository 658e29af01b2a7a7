//! The real rounds on the in-memory store and the fake Ceph.

use std::net::IpAddr;

use pvc_common::keys::values::CommaList;
use pvc_common::store::memory::MemoryStore;
use pvc_core::records::Owner;
use pvc_core::states::VmState;

use super::*;
use crate::host::fake::{FakeCeph, FakeStorage, VirtualClock};
use crate::placement::testing::{TestStore, name, owner};

struct World {
    cluster: TestStore,
    ceph: FakeCeph,
    flusher: LockFlusher<MemoryStore, VirtualClock, FakeStorage>,
    vm: VmId,
    volume: VolumeId,
}

/// A guest with one volume, on which a client that died at 10.102.0.9 has left its lock.
async fn world(state: VmState) -> World {
    let cluster = TestStore::with_nodes(&["hv1", "hv2"]).await;
    let clock = VirtualClock::default();
    let ceph = FakeCeph::new(clock.clone());
    let vm = cluster.guest(1, "hv1", VmState::Stop).await;
    let volume: VolumeId = "vms/web1".parse().unwrap();
    ceph.add_volume(&volume);
    cluster
        .set(&keys::domain(vm).volumes(), &CommaList(vec![volume.clone()]))
        .await;
    cluster.set(&keys::domain(vm).state(), &state).await;
    let client = ceph.open(&volume, IpAddr::from([10, 102, 0, 9])).unwrap();
    ceph.write(&volume, &client);
    ceph.abandon(&client);
    assert_eq!(ceph.locks(&volume), 1);
    let agent = AgentState::new();
    agent.enter(AgentPhase::Running);
    let flusher = LockFlusher {
        store: cluster.store.clone(),
        clock,
        storage: ceph.connection(),
        me: name("hv1"),
        agent,
    };
    World {
        cluster,
        ceph,
        flusher,
        vm,
        volume,
    }
}

impl World {
    async fn order(&self, node: &str, force: bool) {
        let order = LockFlush {
            id: "1".to_owned(),
            by: "tests".to_owned(),
            at: 1,
            node: name(node),
            force,
            state: LockFlushState::Ordered,
            removed: Vec::new(),
        };
        let txn = Txn::new()
            .create_path(keys::lock_flushes().path(), "")
            .create(&keys::lock_flush(self.vm), &Some(order));
        self.cluster.store.commit(txn).await.unwrap();
    }

    async fn result(&self) -> LockFlush {
        self.flusher.look().await.unwrap();
        self.cluster.get(&keys::lock_flush(self.vm)).await.unwrap()
    }
}

#[tokio::test]
async fn a_stale_lock_goes_and_its_holder_is_barred_first() {
    let world = world(VmState::Fail).await;
    world.order("hv1", false).await;
    let result = world.result().await;
    assert_eq!(result.state, LockFlushState::Done);
    assert_eq!(result.removed.len(), 1);
    assert_eq!(result.removed[0].volume, "vms/web1");
    assert_eq!(world.ceph.locks(&world.volume), 0);
    // A holder that lives after all can't write any more.
    let barred: Vec<String> = world.ceph.blocklisted().iter().map(ToString::to_string).collect();
    assert_eq!(barred, [result.removed[0].client.clone()]);
    // Looked at again: nothing is left to do.
    assert_eq!(world.result().await, result);
}

#[tokio::test]
async fn a_live_owner_s_lock_stays_whatever_is_forced() {
    // Else a start and a flush at one time would bar a running guest from its own volume.
    for force in [false, true] {
        let world = world(VmState::Stop).await;
        let key = keys::domain(world.vm).owner();
        world.cluster.set(&key, &Some(owner("hv2"))).await;
        world.order("hv1", force).await;
        let LockFlushState::Failed { reason } = world.result().await.state else {
            panic!("it was carried out")
        };
        assert!(reason.contains("hv2 owns it"), "{reason}");
        assert_eq!(world.ceph.locks(&world.volume), 1);
    }
}

#[tokio::test]
async fn a_guest_that_should_run_needs_force_and_another_node_s_order_is_left_alone() {
    let unforced = world(VmState::Start).await;
    unforced.order("hv1", false).await;
    assert!(matches!(
        unforced.result().await.state,
        LockFlushState::Failed { .. }
    ));
    let forced = world(VmState::Start).await;
    forced.order("hv1", true).await;
    assert_eq!(forced.result().await.state, LockFlushState::Done);
    let other = world(VmState::Stop).await;
    other.order("hv2", false).await;
    assert_eq!(other.result().await.state, LockFlushState::Ordered);
    assert_eq!(other.ceph.locks(&other.volume), 1);
}

#[tokio::test]
async fn the_lock_of_a_guest_that_shares_the_volume_stays_whatever_is_forced() {
    // Its owner is another guest's, so the order's own checks don't see it; it would be barred while it runs.
    for force in [false, true] {
        let world = world(VmState::Stop).await;
        let sharing = world.cluster.guest(2, "hv2", VmState::Start).await;
        let holder = world
            .flusher
            .storage
            .volume_use(&world.volume)
            .await
            .unwrap()
            .locks[0]
            .client
            .clone();
        let owner = Owner {
            ceph_clients: CephClients::Recorded(vec![holder]),
            ..owner("hv2")
        };
        world
            .cluster
            .set(&keys::domain(sharing).owner(), &Some(owner))
            .await;
        world.order("hv1", force).await;
        let LockFlushState::Failed { reason } = world.result().await.state else {
            panic!("it was carried out")
        };
        assert!(reason.contains("shares the volume"), "{reason}");
        assert_eq!(world.ceph.locks(&world.volume), 1);
        assert!(world.ceph.blocklisted().is_empty());
    }
}
