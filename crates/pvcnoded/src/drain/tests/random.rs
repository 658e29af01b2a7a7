//! Orders, failures and restarts in any order.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy)]
enum Event {
    Order(DomainState),
    Restart,
    Node(usize, DaemonState),
    Ask(u32, VmState),
    Wait(u32),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => prop::sample::select(vec![DomainState::Flush, DomainState::Unflush, DomainState::Ready])
            .prop_map(Event::Order),
        1 => Just(Event::Restart),
        2 => (0..2_usize, prop::sample::select(vec![DaemonState::Run, DaemonState::Dead, DaemonState::Init]))
            .prop_map(|(node, state)| Event::Node(node, state)),
        1 => (0..6_u32, prop::sample::select(vec![VmState::Start, VmState::Restart, VmState::Shutdown]))
            .prop_map(|(vm, state)| Event::Ask(vm, state)),
        4 => (1..40_u32).prop_map(Event::Wait),
    ]
}

fn nature() -> impl Strategy<Value = Nature> {
    prop_oneof![
        4 => (1..8_u32).prop_map(Nature::Takes),
        1 => Just(Nature::NeverMoves),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever happened before: once nodes and guests are well, a flush ends with no guest here and an unflush with each
    /// guest that belongs here at home, and no guest is left in the middle of a move.
    #[test]
    fn any_sequence_of_orders_and_failures_comes_to_a_good_end(
        natures in prop::collection::vec(nature(), 6),
        events in prop::collection::vec(event(), 0..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async move {
            let mut world = World::new(&["hv1", "hv2", "hv3"]).await;
            for (number, nature) in (0..).zip(&natures) {
                world.guest(number, VmState::Start, *nature).await;
            }
            for event in events {
                match event {
                    Event::Order(state) => world.order(state).await,
                    Event::Restart => world.restart(),
                    Event::Node(node, state) => {
                        let key = keys::node(&name(["hv2", "hv3"][node])).daemon_state();
                        world.set(&key, &state).await;
                    }
                    // As the API does: nothing is asked of a guest that is on its way.
                    Event::Ask(number, state) => {
                        let now = world.state(vm(number)).await;
                        if matches!(now, VmState::Start | VmState::Stop | VmState::Shutdown) {
                            world.set(&keys::domain(vm(number)).state(), &state).await;
                        }
                    }
                    Event::Wait(seconds) => world.seconds(seconds).await,
                }
                // Two that this order moves, and two of the order before that had not arrived.
                assert!(world.most_moves <= 2 * MOVES_AT_ONCE, "{}", world.most_moves);
            }
            for node in ["hv2", "hv3"] {
                world.set(&keys::node(&name(node)).daemon_state(), &DaemonState::Run).await;
            }
            for nature in world.natures.values_mut() {
                *nature = Nature::Takes(2);
            }
            world.order(DomainState::Flush).await;
            world.until(DomainState::Flushed, 400).await;
            for number in 0..6 {
                assert_ne!(world.owner_of(vm(number)).await, Some(name("hv1")));
            }
            world.order(DomainState::Unflush).await;
            world.until(DomainState::Ready, 400).await;
            world.seconds(5).await;
            for number in 0..6 {
                let state = world.state(vm(number)).await;
                assert!(matches!(state, VmState::Start | VmState::Stop), "{state}");
                assert_eq!(world.home(vm(number)).await, None);
                if state == VmState::Start {
                    assert_eq!(world.owner_of(vm(number)).await, Some(name("hv1")));
                }
            }
            assert_eq!(world.fault().await, None);
        });
    }
}
