//! The real rounds on the in-memory store; a stand-in for the guests' own rounds does what the records ask for.

mod random;

use std::collections::BTreeMap;

use pvc_common::faults::fault_id;
use pvc_common::keys::{self, Key, Value};
use pvc_core::drain::{MOVES_AT_ONCE, PLACE_WITHIN, UNFLUSH_STALLS_AFTER};
use pvc_core::fence::{FencePhase, FenceRecord, ProofKind};
use pvc_core::hold::HoldReason;
use pvc_core::records::DrainReport;
use pvc_core::states::{DaemonState, VmState};

use super::*;
use crate::host::fake::VirtualClock;
use crate::placement::testing::{TestStore, incarnation, name, owner, vm};

/// How a guest behaves when something is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nature {
    /// It moves, stops and starts within so many seconds.
    Takes(u32),
    /// A live migration of it never comes to its end: it is called off after 5 s.
    NeverMoves,
    /// It is being moved for ever.
    MovesForEver,
    /// It ignores shutdowns.
    NeverShutsDown,
}

struct World {
    cluster: TestStore,
    clock: VirtualClock,
    rounds: DrainRounds<pvc_common::store::memory::MemoryStore, VirtualClock>,
    agent: AgentState,
    natures: BTreeMap<VmId, Nature>,
    /// Since when each guest has been at what it does, in seconds.
    busy: BTreeMap<VmId, u32>,
    most_moves: usize,
    moves_ordered: BTreeMap<VmId, u32>,
}

impl World {
    async fn new(nodes: &[&str]) -> World {
        let cluster = TestStore::with_nodes(nodes).await;
        let clock = VirtualClock::default();
        let agent = AgentState::new();
        agent.enter(AgentPhase::Running);
        let rounds = DrainRounds::new(World::parts(&cluster, &clock, &agent));
        World {
            cluster,
            clock,
            rounds,
            agent,
            natures: BTreeMap::new(),
            busy: BTreeMap::new(),
            most_moves: 0,
            moves_ordered: BTreeMap::new(),
        }
    }

    fn parts(
        cluster: &TestStore,
        clock: &VirtualClock,
        agent: &AgentState,
    ) -> DrainParts<pvc_common::store::memory::MemoryStore, VirtualClock> {
        DrainParts {
            store: cluster.store.clone(),
            clock: clock.clone(),
            me: name("hv1"),
            agent: agent.clone(),
            shutdown_timeout: Duration::from_secs(180),
        }
    }

    /// The agent starts anew.
    fn restart(&mut self) {
        self.rounds = DrainRounds::new(World::parts(&self.cluster, &self.clock, &self.agent));
    }

    async fn guest(&mut self, number: u32, state: VmState, nature: Nature) -> VmId {
        let vm = self.cluster.guest(number, "hv1", state).await;
        self.natures.insert(vm, nature);
        vm
    }

    async fn order(&self, state: DomainState) {
        self.set(&keys::node(&name("hv1")).domain_state(), &state).await;
    }

    async fn domain_state(&self) -> DomainState {
        self.get(&keys::node(&name("hv1")).domain_state()).await
    }

    async fn get<T: Value>(&self, key: &Key<T>) -> T {
        self.cluster.get(key).await
    }

    async fn set<T: Value + Sync>(&self, key: &Key<T>, value: &T) {
        self.cluster.set(key, value).await;
    }

    async fn state(&self, vm: VmId) -> VmState {
        self.get(&keys::domain(vm).state()).await
    }

    async fn node(&self, vm: VmId) -> NodeName {
        self.get(&keys::domain(vm).node()).await
    }

    async fn home(&self, vm: VmId) -> Option<NodeName> {
        self.get(&keys::domain(vm).last_node()).await
    }

    async fn owner_of(&self, vm: VmId) -> Option<NodeName> {
        self.get(&keys::domain(vm).owner()).await.map(|owner| owner.node)
    }

    async fn report(&self) -> DrainReport {
        self.get(&keys::node(&name("hv1")).drain()).await.unwrap()
    }

    async fn fault(&self) -> Option<String> {
        let key = keys::fault(&fault_id(&["NODE_DRAIN", "hv1"])).message();
        self.cluster
            .store
            .get(&key)
            .await
            .unwrap()
            .map(|found| found.value)
    }

    /// A second passes: guests do what their records ask for, then the drain looks.
    async fn second(&mut self) {
        let mut moves = 0;
        for (vm, nature) in self.natures.clone() {
            let before = (self.state(vm).await, self.node(vm).await);
            self.guest_acts(vm, nature).await;
            let under_way = matches!(before.0, VmState::Migrate | VmState::Unmigrate);
            moves += usize::from(under_way && self.owner_of(vm).await.as_ref() != Some(&before.1));
        }
        self.most_moves = self.most_moves.max(moves);
        let before = self.states().await;
        self.rounds.look().await.unwrap();
        for (vm, state) in self.states().await {
            if state == VmState::Migrate && before[&vm] != VmState::Migrate {
                *self.moves_ordered.entry(vm).or_default() += 1;
            }
        }
        self.clock.advance(Duration::from_secs(1));
    }

    async fn states(&self) -> BTreeMap<VmId, VmState> {
        let mut states = BTreeMap::new();
        for vm in self.natures.keys() {
            states.insert(*vm, self.state(*vm).await);
        }
        states
    }

    async fn seconds(&mut self, count: u32) {
        for _ in 0..count {
            self.second().await;
        }
    }

    /// Runs until the node's domain state is `state`. Answers after how many seconds.
    async fn until(&mut self, state: DomainState, at_most: u32) -> u32 {
        for seconds in 0..at_most {
            if self.domain_state().await == state {
                return seconds;
            }
            self.second().await;
        }
        panic!(
            "not {state} within {at_most} s but {}: {:?}",
            self.domain_state().await,
            self.report().await
        );
    }

    async fn takes_guests(&self, node: &NodeName) -> bool {
        let keys = keys::node(node);
        let ready = matches!(
            self.get(&keys.domain_state()).await,
            DomainState::Ready | DomainState::Unflush
        );
        ready && self.get(&keys.daemon_state()).await == DaemonState::Run
    }

    async fn guest_acts(&mut self, vm: VmId, nature: Nature) {
        let domain = keys::domain(vm);
        let (state, node, holder) = (self.state(vm).await, self.node(vm).await, self.owner_of(vm).await);
        let at_rest = match state {
            VmState::Start => holder.as_ref() == Some(&node),
            VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate | VmState::Restart => false,
            VmState::Shutdown => false,
            VmState::Stop
            | VmState::Disable
            | VmState::Fail
            | VmState::Provision
            | VmState::Import
            | VmState::Restore
            | VmState::Mirror
            | VmState::Delete => holder.is_none(),
        };
        if at_rest {
            self.busy.remove(&vm);
            return;
        }
        let seconds = *self
            .busy
            .entry(vm)
            .and_modify(|seconds| *seconds += 1)
            .or_insert(1);
        let moving = matches!(
            state,
            VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate
        );
        let target_fit = self.takes_guests(&node).await;
        let (due, fails) = match nature {
            Nature::Takes(time) => (seconds >= time, moving && !target_fit),
            Nature::NeverMoves => (seconds >= 5, moving),
            Nature::MovesForEver => (!moving, false),
            Nature::NeverShutsDown => (state != VmState::Shutdown, false),
        };
        if !due {
            return;
        }
        self.busy.remove(&vm);
        let (state_key, owner_key) = (domain.state(), domain.owner());
        match (state, holder) {
            (VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate, Some(holder))
                if holder != node =>
            {
                if fails {
                    let record = (self.home(vm).await, state);
                    let home = match record {
                        (Some(home), _) if home == holder => None,
                        (Some(home), _) => Some(home),
                        (None, VmState::Unmigrate) => Some(node),
                        (None, _) => None,
                    };
                    self.set(&domain.node(), &holder).await;
                    self.set(&domain.last_node(), &home).await;
                    let reason = "a migration was called off".to_owned();
                    self.set(&domain.failed_reason(), &reason).await;
                } else {
                    self.set(&owner_key, &Some(owner(node.as_str()))).await;
                    self.set(&domain.failed_reason(), &String::new()).await;
                }
                self.set(&state_key, &VmState::Start).await;
            }
            (VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate, _) => {
                self.set(&state_key, &VmState::Start).await;
            }
            (VmState::Start, None) => self.set(&owner_key, &Some(owner(node.as_str()))).await,
            (VmState::Start, Some(_)) => self.set(&owner_key, &None).await,
            (VmState::Restart, _) => {
                self.set(&owner_key, &None).await;
                self.set(&state_key, &VmState::Start).await;
            }
            (VmState::Shutdown, _) => {
                self.set(&owner_key, &None).await;
                self.set(&state_key, &VmState::Stop).await;
            }
            _ => self.set(&owner_key, &None).await,
        }
    }
}

#[tokio::test]
async fn a_flush_moves_every_guest_two_at_a_time_and_an_unflush_brings_them_home() {
    let mut world = World::new(&["hv1", "hv2", "hv3"]).await;
    for number in 0..7 {
        world.guest(number, VmState::Start, Nature::Takes(3)).await;
    }
    world.order(DomainState::Flush).await;
    world.second().await;
    assert_eq!(world.report().await.total, 7);
    world.until(DomainState::Flushed, 60).await;
    assert_eq!(world.most_moves, MOVES_AT_ONCE);
    let mut on = BTreeMap::new();
    for number in 0..7 {
        assert_eq!(world.state(vm(number)).await, VmState::Start);
        assert_eq!(world.home(vm(number)).await, Some(name("hv1")));
        assert_eq!(
            world.owner_of(vm(number)).await,
            Some(world.node(vm(number)).await)
        );
        *on.entry(world.node(vm(number)).await).or_insert(0) += 1;
    }
    assert!(on.len() == 2 && on.values().all(|count| *count >= 3), "{on:?}");
    let report = world.report().await;
    assert_eq!((report.left, report.total), (0, 7));
    assert!(report.ended_at.is_some() && report.guests.is_empty());
    // Nothing more is done to anybody.
    world.seconds(30).await;

    world.order(DomainState::Unflush).await;
    world.until(DomainState::Ready, 60).await;
    assert_eq!(world.most_moves, MOVES_AT_ONCE);
    for number in 0..7 {
        assert_eq!(world.node(vm(number)).await, name("hv1"));
        assert_eq!(world.owner_of(vm(number)).await, Some(name("hv1")));
        assert_eq!(world.home(vm(number)).await, None);
    }
    assert_eq!(world.fault().await, None);
}

#[tokio::test]
async fn guests_that_no_node_takes_are_shut_down_and_start_again_afterwards() {
    let mut world = World::new(&["hv1", "hv2"]).await;
    let large = world.guest(1, VmState::Start, Nature::Takes(2)).await;
    world.cluster.sized(large, 850).await;
    let there = world.cluster.guest(9, "hv2", VmState::Start).await;
    world.cluster.sized(there, 200).await;
    let alone = world.guest(2, VmState::Start, Nature::Takes(2)).await;
    world.cluster.grouped(alone, "web").await;
    let other = world.cluster.guest(3, "hv2", VmState::Start).await;
    world.cluster.grouped(other, "web").await;
    world.order(DomainState::Flush).await;
    let took = world.until(DomainState::Flushed, 60).await;
    assert!(
        took < 20,
        "what stands against hv2 does not pass, so that nothing is waited for: {took} s"
    );
    for vm in [large, alone] {
        assert_eq!(world.state(vm).await, VmState::Stop);
        assert_eq!(world.node(vm).await, name("hv1"));
        assert!(world.get(&keys::domain(vm).autostart()).await);
        let reason = world.get(&keys::domain(vm).failed_reason()).await;
        assert!(reason.starts_with("It was shut down to empty hv1"), "{reason}");
    }
    let reason = world.get(&keys::domain(alone).failed_reason()).await;
    assert!(
        reason.contains("only its anti-affinity keeps it from hv2"),
        "{reason}"
    );
    assert_eq!(world.report().await.shut_down, 2);

    world.order(DomainState::Unflush).await;
    world.until(DomainState::Ready, 20).await;
    world.seconds(3).await;
    for vm in [large, alone] {
        assert_eq!(world.owner_of(vm).await, Some(name("hv1")));
        assert!(!world.get(&keys::domain(vm).autostart()).await);
        assert_eq!(world.get(&keys::domain(vm).failed_reason()).await, "");
    }
}

#[tokio::test]
async fn a_guest_that_can_not_be_moved_runs_on_and_the_node_says_so_and_does_not_lie() {
    // In a datacentre: a node that is `flushed` with a guest on it gets its plug pulled.
    let mut world = World::new(&["hv1", "hv2"]).await;
    let stubborn = world.guest(1, VmState::Start, Nature::NeverMoves).await;
    for number in 2..6 {
        world.guest(number, VmState::Start, Nature::Takes(2)).await;
    }
    world.order(DomainState::Flush).await;
    world.seconds(210).await;
    assert_eq!(world.domain_state().await, DomainState::Flush);
    assert_eq!(world.state(stubborn).await, VmState::Start);
    assert_eq!(world.owner_of(stubborn).await, Some(name("hv1")));
    for number in 2..6 {
        assert_eq!(
            world.owner_of(vm(number)).await,
            Some(name("hv2")),
            "one guest holds up others"
        );
    }
    let tries = world.moves_ordered[&stubborn];
    assert!((4..=5).contains(&tries), "once a minute: {tries} times in 210 s");
    let fault = world.fault().await.unwrap();
    assert!(
        fault.contains("4 of 5 VMs are done") && fault.contains("vm1 could not be moved"),
        "{fault}"
    );
    assert!(fault.contains("a migration was called off"), "{fault}");

    // The order is taken back: the others come home, and the fault goes.
    world.order(DomainState::Unflush).await;
    world.until(DomainState::Ready, 30).await;
    assert_eq!(world.owner_of(stubborn).await, Some(name("hv1")));
    assert_eq!(world.fault().await, None);
    for number in 1..6 {
        assert_eq!(
            world.state(vm(number)).await,
            VmState::Start,
            "no mark is left behind"
        );
        assert_eq!(world.home(vm(number)).await, None);
    }
}

#[tokio::test]
async fn moves_that_take_for_ever_do_not_keep_the_others() {
    let mut world = World::new(&["hv1", "hv2"]).await;
    for number in 0..2 {
        world.guest(number, VmState::Start, Nature::MovesForEver).await;
    }
    for number in 2..5 {
        world.guest(number, VmState::Start, Nature::Takes(2)).await;
    }
    world.order(DomainState::Flush).await;
    world.seconds(350).await;
    for number in 2..5 {
        assert_eq!(world.owner_of(vm(number)).await, Some(name("hv2")));
    }
    assert_eq!(world.domain_state().await, DomainState::Flush);
    let fault = world.fault().await.unwrap();
    assert!(fault.contains("vm0 moving for 3"), "{fault}");
}

#[tokio::test]
async fn a_target_that_dies_in_the_middle_is_followed_by_another() {
    let mut world = World::new(&["hv1", "hv2", "hv3"]).await;
    let vm = world.guest(1, VmState::Start, Nature::Takes(10)).await;
    world.order(DomainState::Flush).await;
    world.seconds(3).await;
    let first = world.node(vm).await;
    assert_ne!(first, name("hv1"));
    world
        .set(&keys::node(&first).daemon_state(), &DaemonState::Dead)
        .await;
    world.until(DomainState::Flushed, 120).await;
    let second = world.node(vm).await;
    assert!(second != first && second != name("hv1"), "{first} {second}");
    assert_eq!(world.home(vm).await, Some(name("hv1")));
}

#[tokio::test]
async fn while_a_node_may_come_back_guests_wait_for_it_a_minute() {
    // In a datacentre: nodes are emptied one after another, and the one before is still starting.
    for comes_back in [true, false] {
        let mut world = World::new(&["hv1", "hv2"]).await;
        let vm = world.guest(1, VmState::Start, Nature::Takes(2)).await;
        let state = keys::node(&name("hv2")).daemon_state();
        world.set(&state, &DaemonState::Init).await;
        world.order(DomainState::Flush).await;
        world.seconds(30).await;
        assert_eq!(world.state(vm).await, VmState::Start);
        if comes_back {
            world.set(&state, &DaemonState::Run).await;
        }
        let took = world.until(DomainState::Flushed, 60).await;
        if comes_back {
            assert_eq!(world.owner_of(vm).await, Some(name("hv2")));
        } else {
            assert_eq!(world.state(vm).await, VmState::Stop);
            assert!(took + 30 >= u32::try_from(PLACE_WITHIN.as_secs()).unwrap());
        }
    }
}

#[tokio::test]
async fn guests_at_rest_never_hold_up_and_those_on_their_way_down_are_waited_for() {
    // Lesson 50: a drain that waits for a failed guest never ends.
    let mut world = World::new(&["hv1", "hv2"]).await;
    for (number, state) in (0..).zip([
        VmState::Stop,
        VmState::Disable,
        VmState::Fail,
        VmState::Mirror,
        VmState::Provision,
        VmState::Import,
        VmState::Restore,
    ]) {
        world.guest(number, state, Nature::Takes(1)).await;
    }
    world.order(DomainState::Flush).await;
    assert!(world.until(DomainState::Flushed, 10).await <= 2);
    for number in 0..7 {
        assert_eq!(world.node(vm(number)).await, name("hv1"));
    }

    let mut world = World::new(&["hv1", "hv2"]).await;
    let stops = world.guest(1, VmState::Shutdown, Nature::Takes(20)).await;
    let restarts = world.guest(2, VmState::Restart, Nature::Takes(20)).await;
    world.order(DomainState::Flush).await;
    let took = world.until(DomainState::Flushed, 60).await;
    assert!(took >= 20, "{took}");
    assert_eq!(world.state(stops).await, VmState::Stop);
    assert!(
        !world.get(&keys::domain(stops).autostart()).await,
        "somebody else wanted it down"
    );
    world.seconds(25).await;
    assert_eq!(world.owner_of(restarts).await, Some(name("hv2")));
}

#[tokio::test]
async fn a_newer_order_takes_the_place_of_an_older_one_at_once() {
    let mut world = World::new(&["hv1", "hv2"]).await;
    for number in 0..8 {
        world.guest(number, VmState::Start, Nature::Takes(4)).await;
    }
    world.order(DomainState::Flush).await;
    world.seconds(6).await;
    // Made ready by hand: nobody else leaves, and those that are on their way arrive.
    world.order(DomainState::Ready).await;
    let ordered: u32 = world.moves_ordered.values().sum();
    world.seconds(30).await;
    assert_eq!(world.moves_ordered.values().sum::<u32>(), ordered);
    assert!(ordered < 8);
    assert!(world.report().await.ended_at.is_some());

    world.order(DomainState::Flush).await;
    world.seconds(6).await;
    world.order(DomainState::Unflush).await;
    world.seconds(2).await;
    world.order(DomainState::Flush).await;
    world.until(DomainState::Flushed, 60).await;
    for number in 0..8 {
        assert_eq!(world.owner_of(vm(number)).await, Some(name("hv2")));
        assert_eq!(world.home(vm(number)).await, Some(name("hv1")));
    }
}

#[tokio::test]
async fn a_write_by_an_order_that_was_replaced_meanwhile_is_lost() {
    let mut world = World::new(&["hv1", "hv2"]).await;
    let vm = world.guest(1, VmState::Start, Nature::Takes(1)).await;
    world.order(DomainState::Flush).await;
    let version = world
        .cluster
        .store
        .require(&keys::node(&name("hv1")).domain_state())
        .await
        .unwrap()
        .version;
    world.rounds.order = Some(Order {
        kind: OrderKind::Flush,
        version,
        moved_at: world.clock.now(),
    });
    // The agent has read, and stands still while somebody makes the node ready.
    let guests = read::guests(&world.cluster.store).await.unwrap();
    world.order(DomainState::Ready).await;
    let now = world.clock.now();
    world.rounds.flush_round(now, &guests).await.unwrap();
    assert_eq!(world.state(vm).await, VmState::Start);
    assert!(!world.rounds.finish(OrderKind::Flush, version).await.unwrap());
    assert_eq!(world.domain_state().await, DomainState::Ready);
}

#[tokio::test]
async fn an_agent_that_is_started_anew_goes_on() {
    // Lesson 51: a drain does not hang on the life of a process.
    let mut world = World::new(&["hv1", "hv2"]).await;
    for number in 0..6 {
        world.guest(number, VmState::Start, Nature::Takes(3)).await;
    }
    world.order(DomainState::Flush).await;
    for _ in 0..20 {
        world.seconds(2).await;
        world.restart();
    }
    assert_eq!(world.domain_state().await, DomainState::Flushed);
    assert_eq!(world.report().await.total, 6, "what earlier lives did counts");
    assert_eq!(world.most_moves, MOVES_AT_ONCE);
    // An agent that has not reached `run` does nothing.
    world.order(DomainState::Unflush).await;
    world.agent.enter(AgentPhase::Starting);
    world.seconds(5).await;
    assert_eq!(world.domain_state().await, DomainState::Unflush);
    // Nor does one on hold: what it reads may be of yesterday.
    world.agent.enter(AgentPhase::Running);
    world
        .agent
        .hold()
        .place(HoldReason::StoreEmpty { guests: 1 }, world.clock.now());
    world.seconds(5).await;
    assert_eq!(world.domain_state().await, DomainState::Unflush);
    world.agent.hold().lift();
    world.until(DomainState::Ready, 60).await;
}

#[tokio::test]
async fn an_unflush_ends_whatever_its_guests_do() {
    let mut world = World::new(&["hv1", "hv2", "hv3"]).await;
    let mut guests = Vec::new();
    for (number, nature) in [
        (1, Nature::Takes(2)),
        (2, Nature::Takes(2)),
        (3, Nature::Takes(2)),
    ] {
        guests.push(world.guest(number, VmState::Start, nature).await);
    }
    let waits = world.guest(4, VmState::Stop, Nature::Takes(2)).await;
    world.set(&keys::domain(waits).autostart(), &true).await;
    world.order(DomainState::Flush).await;
    world.until(DomainState::Flushed, 60).await;
    // One never comes home, one is called off each time, one has grown too large.
    world.natures.insert(guests[0], Nature::MovesForEver);
    world.natures.insert(guests[1], Nature::NeverMoves);
    world.cluster.sized(guests[2], 2000).await;
    world.order(DomainState::Unflush).await;
    world.seconds(20).await;
    assert_eq!(
        world.owner_of(waits).await,
        Some(name("hv1")),
        "started though others are stuck"
    );
    let stalls = u32::try_from(UNFLUSH_STALLS_AFTER.as_secs()).unwrap();
    world.until(DomainState::Ready, stalls + 60).await;
    assert_eq!(
        world.home(guests[1]).await,
        Some(name("hv1")),
        "it can be unmigrated by hand"
    );
    assert_eq!(world.home(guests[2]).await, Some(name("hv1")));
    let troubled: Vec<String> = world
        .report()
        .await
        .guests
        .into_iter()
        .map(|guest| guest.name)
        .collect();
    assert!(
        troubled.contains(&"vm2".to_owned()) && troubled.contains(&"vm3".to_owned()),
        "{troubled:?}"
    );
}

#[tokio::test]
async fn an_unflush_gives_guests_of_dead_nodes_another_chance() {
    let mut world = World::new(&["hv1", "hv2"]).await;
    world.cluster.guest(1, "hv2", VmState::Stop).await;
    let parked = vm(1);
    world.set(&keys::domain(parked).autostart(), &true).await;
    let mut fence = FenceRecord::suspected(incarnation(2), name("hv1"));
    fence.phase = FencePhase::Done { by: ProofKind::Power };
    fence.parked = vec![parked];
    world.set(&keys::fence(&name("hv2")), &Some(fence)).await;
    world
        .set(&keys::node(&name("hv2")).daemon_state(), &DaemonState::Fenced)
        .await;
    world.order(DomainState::Unflush).await;
    world.until(DomainState::Ready, 10).await;
    assert_eq!(world.state(parked).await, VmState::Start);
    assert_eq!(world.node(parked).await, name("hv1"));
}

#[tokio::test]
async fn a_guest_that_another_node_shut_down_starts_at_home() {
    let mut world = World::new(&["hv1", "hv2"]).await;
    let waits = world.cluster.guest(1, "hv2", VmState::Stop).await;
    let rests = world.cluster.guest(2, "hv2", VmState::Stop).await;
    world.set(&keys::domain(waits).autostart(), &true).await;
    for vm in [waits, rests] {
        world.set(&keys::domain(vm).last_node(), &Some(name("hv1"))).await;
    }
    world.order(DomainState::Unflush).await;
    world.until(DomainState::Ready, 10).await;
    for (vm, state) in [(waits, VmState::Start), (rests, VmState::Stop)] {
        assert_eq!(world.state(vm).await, state);
        assert_eq!(world.node(vm).await, name("hv1"));
        assert_eq!(world.home(vm).await, None);
    }
}

#[tokio::test]
async fn a_guest_that_only_visits_goes_back_home_when_its_host_is_emptied() {
    let mut world = World::new(&["hv1", "hv2"]).await;
    let visitor = world.guest(1, VmState::Start, Nature::NeverMoves).await;
    world
        .set(&keys::domain(visitor).last_node(), &Some(name("hv2")))
        .await;
    world.order(DomainState::Flush).await;
    world.seconds(20).await;
    // Called off: it still knows where it belongs.
    assert_eq!(world.home(visitor).await, Some(name("hv2")));
    world.natures.insert(visitor, Nature::Takes(1));
    world.until(DomainState::Flushed, 120).await;
    assert_eq!(world.node(visitor).await, name("hv2"));
    assert_eq!(world.home(visitor).await, None);
}

#[tokio::test]
async fn a_guest_that_ignores_its_shutdown_is_told() {
    let mut world = World::new(&["hv1"]).await;
    let deaf = world.guest(1, VmState::Start, Nature::NeverShutsDown).await;
    let good = world.guest(2, VmState::Start, Nature::Takes(2)).await;
    world.order(DomainState::Flush).await;
    world.seconds(250).await;
    assert_eq!(world.state(good).await, VmState::Stop);
    assert_eq!(world.state(deaf).await, VmState::Shutdown);
    assert!(world.fault().await.unwrap().contains("vm1 shutting down for"));
    // Taken back: its shutdown is cancelled.
    world.order(DomainState::Unflush).await;
    world.until(DomainState::Ready, 20).await;
    assert_eq!(world.state(deaf).await, VmState::Start);
}
