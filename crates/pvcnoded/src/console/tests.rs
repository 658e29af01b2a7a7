//! Real files, the in-memory store and the fake hypervisor.

use std::io::Write as _;
use std::net::IpAddr;

use pvc_common::store::memory::MemoryStore;
use pvc_core::states::VmState;

use super::*;
use crate::host::fake::{FakeCeph, FakeHypervisor, VirtualClock};
use crate::placement::testing::TestStore;

struct World {
    cluster: TestStore,
    consoles: Consoles<MemoryStore, VirtualClock, FakeHypervisor>,
    memory: Memory,
    vms: Vec<VmId>,
    directory: tempfile::TempDir,
}

async fn world(guests: u32) -> World {
    let cluster = TestStore::with_nodes(&["hv1"]).await;
    let clock = VirtualClock::default();
    let hypervisor = FakeHypervisor::new(
        clock.clone(),
        FakeCeph::new(clock.clone()),
        IpAddr::from([10, 102, 0, 1]),
    );
    let mut vms = Vec::new();
    for number in 1..=guests {
        let vm = cluster.guest(number, "hv1", VmState::Start).await;
        hypervisor.create_paused(vm, "<domain/>").await.unwrap();
        vms.push(vm);
    }
    let directory = tempfile::tempdir().unwrap();
    let agent = AgentState::new();
    agent.enter(AgentPhase::Running);
    World {
        consoles: Consoles {
            store: cluster.store.clone(),
            clock,
            hypervisor,
            directory: directory.path().to_owned(),
            lines: 3,
            agent,
        },
        cluster,
        memory: Memory::default(),
        vms,
        directory,
    }
}

impl World {
    async fn prints(&self, guest: usize, text: &[u8]) {
        let name = self.cluster.get(&keys::domain(self.vms[guest]).name()).await;
        let path = self.directory.path().join(format!("{name}.log"));
        let mut file = File::options().create(true).append(true).open(path).unwrap();
        file.write_all(text).unwrap();
    }

    async fn look(&mut self) {
        self.consoles.look(&mut self.memory).await.unwrap();
    }

    async fn shown(&self, guest: usize) -> String {
        self.cluster
            .get(&keys::domain(self.vms[guest]).console_log())
            .await
    }
}

#[tokio::test]
async fn the_last_lines_are_published_while_the_guest_runs_here() {
    let mut world = world(1).await;
    world.look().await;
    assert_eq!(world.shown(0).await, "", "there is no file yet");
    world.prints(0, b"one\r\ntwo\nthree\n").await;
    world.look().await;
    assert_eq!(world.shown(0).await, "one\ntwo\nthree\n");
    world.prints(0, b"four\n").await;
    world.look().await;
    assert_eq!(world.shown(0).await, "one\ntwo\nthree\n", "not so soon");
    world.consoles.clock.advance(WRITE_EVERY);
    world.look().await;
    assert_eq!(world.shown(0).await, "two\nthree\nfour\n");
    // Elsewhere by now: what its node publishes there stays.
    world.consoles.hypervisor.kill_process(world.vms[0]);
    world.prints(0, b"five\n").await;
    world.consoles.clock.advance(WRITE_EVERY);
    world.look().await;
    assert_eq!(world.shown(0).await, "two\nthree\nfour\n");
}

#[tokio::test]
async fn guests_that_print_all_at_once_have_their_turns() {
    // A hundred guests that boot after an outage must not keep the store from what matters then.
    let mut world = world(20).await;
    for guest in 0..20 {
        world.prints(guest, b"hello\n").await;
    }
    let mut rounds = 0;
    loop {
        world.look().await;
        rounds += 1;
        let mut shown = 0;
        for guest in 0..20 {
            shown += usize::from(!world.shown(guest).await.is_empty());
        }
        assert!(shown <= rounds * WRITES_AT_ONCE, "{shown} in {rounds}");
        if shown == 20 {
            break;
        }
        world.consoles.clock.advance(LOOK_EVERY);
    }
    assert_eq!(rounds, 3);
}

#[tokio::test]
async fn nothing_is_published_on_hold_or_for_a_guest_that_was_removed() {
    let mut world = world(1).await;
    world.prints(0, b"hello\n").await;
    world.consoles.agent.enter(AgentPhase::Starting);
    world.look().await;
    assert_eq!(world.shown(0).await, "");
    world.consoles.agent.enter(AgentPhase::Running);
    let key = keys::domain(world.vms[0]).console_log();
    let txn = Txn::new().delete_path(key.path(), None);
    world.cluster.store.commit(txn).await.unwrap();
    world.look().await;
}

#[test]
fn what_is_no_text_and_what_is_too_long_is_cut() {
    assert_eq!(last_lines(b"a\nb\nc\nd", 2), "c\nd");
    assert_eq!(last_lines(b"a\xffb\0c\n", 5), "a\u{fffd}bc\n");
    assert_eq!(last_lines(b"", 5), "");
    // The file was longer than what was read of it: the first line is a piece.
    let long = format!("{}\n", "x".repeat(99)).repeat(BYTES / 100 + 1);
    let read = &long.as_bytes()[long.len() - BYTES..];
    let shown = last_lines(read, 10_000);
    assert!(shown.len() <= BYTES && shown.lines().all(|line| line.len() == 99));
    // One line without an end.
    assert!(last_lines(&vec![b'x'; BYTES], 10).len() <= BYTES);
    assert!(last_lines(&vec![0xff; BYTES], 10).len() <= BYTES);
}
