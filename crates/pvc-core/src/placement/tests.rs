use proptest::prelude::*;

use super::*;
use crate::states::VmState;

const UUID: &str = "5d0e8c58-1d2b-4a30-9d6c-0f7d3f6f6a00";

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

fn vm(number: u128) -> VmId {
    VmId::new(uuid::Uuid::from_u128(
        UUID.parse::<uuid::Uuid>().unwrap().as_u128() + number,
    ))
}

fn tag(text: &str) -> TagName {
    TagName::new(text).unwrap()
}

fn node(node: &str) -> Candidate {
    Candidate {
        name: name(node),
        daemon_state: DaemonState::Run,
        domain_state: DomainState::Ready,
        silent: false,
        memory_total_mib: 1000,
        memory_free_mib: 500,
        committed_mib: 0,
        running_mib: 0,
        load: 1.0,
        cpus: 8,
        vcpus_allocated: 4,
        vms: 4,
        groups: BTreeSet::new(),
    }
}

fn small() -> Wish {
    Wish {
        vm: vm(0),
        memory_mib: 100,
        vcpus: 1,
        limit: Vec::new(),
        groups: BTreeSet::new(),
        selector: NodeSelector::Mem,
        exclude: Vec::new(),
    }
}

#[test]
fn each_selector_has_its_own_best_node() {
    let with = |text, free, committed, load, vcpus_allocated, vms| Candidate {
        memory_free_mib: free,
        committed_mib: committed,
        load,
        vcpus_allocated,
        vms,
        ..node(text)
    };
    let nodes = [
        with("a", 900, 700, 3.0, 4, 5),
        with("b", 500, 100, 2.0, 5, 4),
        with("c", 400, 600, 1.0, 6, 6),
        with("d", 300, 800, 4.0, 2, 7),
        with("e", 200, 1900, 5.0, 3, 2),
    ];
    for (selector, best) in [
        (NodeSelector::Mem, "a"),
        (NodeSelector::None, "a"),
        (NodeSelector::Memprov, "b"),
        (NodeSelector::Load, "c"),
        (NodeSelector::Vcpus, "d"),
        (NodeSelector::Vms, "e"),
    ] {
        let wish = Wish { selector, ..small() };
        assert_eq!(place(&wish, &nodes), Ok(name(best)), "{selector}");
    }
    let limited = Wish {
        limit: vec![name("d"), name("e")],
        ..small()
    };
    assert_eq!(place(&limited, &nodes), Ok(name("d")));
    // More promised than it has is ranked below all others, not as if nothing were promised.
    let promised = Wish {
        selector: NodeSelector::Memprov,
        limit: vec![name("d"), name("e")],
        ..small()
    };
    assert_eq!(place(&promised, &nodes), Ok(name("d")));
}

/// What stands against a node that would be the best but for that change.
fn against(change: impl Fn(&mut Candidate, &mut Wish)) -> Vec<Obstacle> {
    let mut wish = small();
    let mut bad = Candidate {
        memory_free_mib: 900,
        ..node("a")
    };
    change(&mut bad, &mut wish);
    // In a datacentre: a guest sent to a node that can't run it is down until someone looks.
    assert_eq!(place(&wish, &[bad.clone(), node("z")]), Ok(name("z")), "{bad:?}");
    assert_eq!(place(&wish, &[node("z"), bad.clone()]), Ok(name("z")), "{bad:?}");
    let no_place = place(&wish, &[bad]).unwrap_err();
    assert_eq!(no_place.refusals.len(), 1);
    no_place.refusals[0].1.clone()
}

#[test]
fn a_node_that_can_not_take_the_guest_is_never_chosen_and_says_why() {
    for state in DaemonState::ALL {
        if *state != DaemonState::Run {
            let found = against(|node, _| node.daemon_state = *state);
            assert_eq!(found, [Obstacle::NotRunning { state: *state }]);
        }
    }
    for state in DomainState::ALL {
        if *state != DomainState::Ready {
            let found = against(|node, _| node.domain_state = *state);
            assert_eq!(found, [Obstacle::NotReady { state: *state }]);
        }
    }
    assert_eq!(against(|node, _| node.silent = true), [Obstacle::Silent]);
    assert_eq!(
        against(|node, wish| wish.exclude = vec![node.name.clone()]),
        [Obstacle::Excluded]
    );
    assert_eq!(
        against(|_, wish| wish.limit = vec![name("z")]),
        [Obstacle::Limited]
    );
    assert_eq!(against(|node, _| node.memory_total_mib = 0), [Obstacle::Unknown]);
    assert_eq!(against(|node, _| node.cpus = 0), [Obstacle::Unknown]);
    let together = against(|node, wish| {
        node.groups = BTreeSet::from([tag("dns"), tag("web")]);
        wish.groups = BTreeSet::from([tag("mail"), tag("web")]);
    });
    assert_eq!(together, [Obstacle::Together { group: tag("web") }]);
    let both = against(|node, wish| {
        node.domain_state = DomainState::Flushed;
        node.running_mib = 950;
        wish.limit = vec![name("z")];
    });
    assert_eq!(both.len(), 3, "{both:?}");
}

#[test]
fn the_memory_of_running_guests_is_a_limit_and_the_promised_one_is_not() {
    // Lesson 52: committed memory counts stopped guests, where nodes are ranked; a guest bigger than any node is refused.
    let check = |total, running, committed, needed| {
        let candidate = Candidate {
            memory_total_mib: total,
            running_mib: running,
            committed_mib: committed,
            ..node("a")
        };
        let wish = Wish {
            memory_mib: needed,
            ..small()
        };
        place(&wish, &[candidate]).map_err(|no_place| no_place.refusals[0].1.clone())
    };
    assert_eq!(check(1000, 899, 5000, 100), Ok(name("a")));
    assert_eq!(
        check(1000, 900, 900, 100),
        Err(vec![Obstacle::Full {
            needed: 100,
            total: 1000,
            running: 900
        }])
    );
    assert_eq!(check(1000, 0, 0, 999), Ok(name("a")));
    assert_eq!(
        check(1000, 0, 0, 1000),
        Err(vec![Obstacle::TooLarge {
            needed: 1000,
            total: 1000
        }])
    );
    assert!(check(1000, u64::MAX, u64::MAX, 1).is_err());
    assert!(check(1000, 0, 0, u64::MAX).is_err());
}

#[test]
fn two_cpus_are_kept_for_the_node() {
    let check = |cpus, vcpus| {
        let candidate = Candidate { cpus, ..node("a") };
        place(&Wish { vcpus, ..small() }, &[candidate]).is_ok()
    };
    assert!(check(8, 6) && !check(8, 7));
    // On the smallest nodes one vCPU is always possible, else they could run nothing.
    assert!(check(2, 1) && check(1, 1) && !check(2, 2));
}

#[test]
fn whoever_reads_why_there_is_no_place_knows_what_to_do() {
    assert_eq!(place(&small(), &[]).unwrap_err().to_string(), "there is no node");
    let nodes = [
        Candidate {
            groups: BTreeSet::from([tag("web")]),
            ..node("hv3")
        },
        Candidate {
            domain_state: DomainState::Flushed,
            running_mib: 950,
            ..node("hv2")
        },
        node("hv1"),
    ];
    let wish = Wish {
        groups: BTreeSet::from([tag("web")]),
        exclude: vec![name("hv1")],
        ..small()
    };
    let no_place = place(&wish, &nodes).unwrap_err();
    assert_eq!(no_place.only_apart(), [&name("hv3")]);
    assert_eq!(
        no_place.to_string(),
        "no node takes it (only its anti-affinity keeps it from hv3): hv1: it is the node to be left; hv2: it is \
         flushed, not ready for guests, and the guest needs 100 MiB of memory, and of its 1000 MiB the guests that run \
         or should run there have 950 MiB; hv3: another guest of the anti-affinity group web is there"
    );
}

#[test]
fn a_refusal_that_may_pass_is_told_from_one_that_will_not() {
    let check = |change: &dyn Fn(&mut Candidate)| {
        let mut candidate = node("a");
        change(&mut candidate);
        place(&small(), &[candidate]).unwrap_err().may_pass()
    };
    assert!(check(&|node| node.silent = true));
    assert!(check(&|node| node.daemon_state = DaemonState::Init));
    assert!(check(&|node| node.memory_total_mib = 0));
    assert!(check(&|node| node.domain_state = DomainState::Unflush));
    assert!(!check(&|node| node.domain_state = DomainState::Flushed));
    assert!(!check(&|node| node.daemon_state = DaemonState::Stop));
    assert!(!check(&|node| node.running_mib = 950));
    assert!(!check(&|node| {
        node.silent = true;
        node.running_mib = 950;
    }));
    assert!(!place(&small(), &[]).unwrap_err().may_pass());
}

#[test]
fn guests_spread_over_equal_nodes_and_each_always_gets_the_same() {
    let nodes = ["hv1", "hv2", "hv3", "hv4"].map(node);
    let mut counts = std::collections::BTreeMap::new();
    for number in 0..400 {
        let wish = Wish {
            vm: vm(number),
            ..small()
        };
        let chosen = place(&wish, &nodes).unwrap();
        let mut turned = nodes.clone();
        turned.reverse();
        assert_eq!(place(&wish, &turned), Ok(chosen.clone()));
        *counts.entry(chosen).or_insert(0_u32) += 1;
    }
    assert!(
        counts.len() == 4 && counts.values().all(|count| *count > 60),
        "{counts:?}"
    );
}

fn figures(text: &str) -> NodeFigures {
    NodeFigures {
        name: name(text),
        daemon_state: DaemonState::Run,
        domain_state: DomainState::Ready,
        silent: false,
        memory_total_mib: 4000,
        memory_free_mib: 3000,
        load: 0.5,
        cpus: 8,
        running: BTreeSet::new(),
    }
}

fn guest(number: u128, node: &str, owner: Option<&str>, state: VmState) -> GuestFigures {
    GuestFigures {
        vm: vm(number),
        node: name(node),
        owner: owner.map(name),
        state,
        memory_mib: 100,
        vcpus: 2,
        limit: Vec::new(),
        selector: NodeSelector::None,
        groups: BTreeSet::from([tag(&format!("group{number}"))]),
    }
}

#[test]
fn what_a_node_carries_is_summed_up_from_the_guests_records() {
    let mut hv1 = figures("hv1");
    hv1.running = BTreeSet::from([vm(1), vm(3)]);
    let survey = Survey {
        nodes: vec![hv1, figures("hv2")],
        guests: vec![
            guest(1, "hv1", Some("hv1"), VmState::Start),
            // Starting there, not measured yet.
            guest(2, "hv1", None, VmState::Start),
            // Moving from hv1 to hv2: on both.
            guest(3, "hv2", Some("hv1"), VmState::Migrate),
            guest(4, "hv1", None, VmState::Stop),
            guest(5, "hv1", None, VmState::Fail),
            // Stopped by record, but its process may be there still.
            guest(6, "hv2", Some("hv2"), VmState::Stop),
        ],
        default_selector: None,
    };
    let sums = |except| -> Vec<_> {
        let list = survey.candidates(except);
        list.into_iter()
            .map(|node| {
                (
                    node.committed_mib,
                    node.running_mib,
                    node.memory_free_mib,
                    node.vcpus_allocated,
                    node.vms,
                    node.load,
                    node.groups.len(),
                )
            })
            .collect()
    };
    assert_eq!(
        sums(None),
        [(500, 300, 2900, 6, 3, 2.5, 3), (200, 200, 2800, 4, 2, 4.5, 2)]
    );
    assert_eq!(
        sums(Some(vm(3))),
        [(400, 200, 2900, 4, 2, 2.5, 2), (100, 100, 2900, 2, 1, 2.5, 1)]
    );
}

#[test]
fn a_guest_does_not_stand_in_its_own_way() {
    // Its target of a broken migration is placed on again by the recovery of the source.
    let survey = Survey {
        nodes: vec![figures("hv2")],
        guests: vec![GuestFigures {
            memory_mib: 3000,
            ..guest(1, "hv2", Some("hv1"), VmState::Migrate)
        }],
        default_selector: Some(NodeSelector::Vms),
    };
    let wish = survey.wish(vm(1), vec![name("hv1")]).unwrap();
    assert_eq!(wish.selector, NodeSelector::Vms);
    assert_eq!(survey.place(&wish), Ok(name("hv2")));
    assert_eq!(survey.obstacles(&wish, &name("hv2")), Some(Vec::new()));
    assert_eq!(survey.obstacles(&wish, &name("hv9")), None);
    assert_eq!(survey.wish(vm(2), Vec::new()), None);
}

#[test]
fn guests_placed_one_after_another_from_one_reading_spread_out() {
    // The statistics of a node are up to five seconds old: without counting what is on its way, all guests of a dead node
    // would go to the same one.
    for selector in [
        NodeSelector::Mem,
        NodeSelector::Memprov,
        NodeSelector::Load,
        NodeSelector::Vcpus,
        NodeSelector::Vms,
    ] {
        let mut survey = Survey {
            nodes: vec![figures("hv1"), figures("hv2"), figures("hv3")],
            guests: (0..9)
                .map(|number| guest(number, "hv9", Some("hv9"), VmState::Start))
                .collect(),
            default_selector: Some(selector),
        };
        for number in 0..9 {
            let wish = survey.wish(vm(number), vec![name("hv9")]).unwrap();
            let chosen = survey.place(&wish).unwrap();
            survey.placed(&wish, &chosen, VmState::Start);
        }
        for node in ["hv1", "hv2", "hv3"] {
            let count = survey
                .guests
                .iter()
                .filter(|guest| guest.node == name(node))
                .count();
            assert_eq!(count, 3, "{selector} {node}");
        }
    }
}

fn any_node() -> impl Strategy<Value = NodeFigures> {
    (
        1..8_u32,
        prop::sample::select(DaemonState::ALL),
        prop::sample::select(DomainState::ALL),
        prop::bool::weighted(0.1),
        0..4000_u64,
        0..10_u32,
    )
        .prop_map(
            |(number, daemon_state, domain_state, silent, memory, cpus)| NodeFigures {
                // Mostly usable, else hardly any case would have a choice.
                daemon_state: if number % 3 == 0 {
                    daemon_state
                } else {
                    DaemonState::Run
                },
                domain_state: if number % 4 == 0 {
                    domain_state
                } else {
                    DomainState::Ready
                },
                silent,
                memory_total_mib: memory,
                memory_free_mib: memory / 2,
                cpus,
                ..figures(&format!("hv{number}"))
            },
        )
}

fn any_guest() -> impl Strategy<Value = GuestFigures> {
    (
        0..1000_u128,
        1..8_u32,
        prop::option::weighted(0.6, 1..8_u32),
        prop::sample::select(VmState::ALL),
        1..900_u64,
        1..5_u32,
        prop::collection::vec(1..8_u32, 0..3),
        prop::collection::btree_set(prop::sample::select(vec!["web", "dns", "db"]), 0..2),
    )
        .prop_map(
            |(number, node, owner, state, memory_mib, vcpus, limit, groups)| GuestFigures {
                owner: owner.map(|owner| name(&format!("hv{owner}"))),
                memory_mib,
                vcpus,
                limit: limit.iter().map(|node| name(&format!("hv{node}"))).collect(),
                groups: groups.into_iter().map(tag).collect(),
                ..guest(number, &format!("hv{node}"), None, state)
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is placed one after another: no node ever has to carry more than it has by a choice of ours, none that
    /// takes no guests gets one, groups stay apart, and a refusal speaks of every node.
    #[test]
    fn no_sequence_of_placements_overfills_a_node(
        nodes in prop::collection::vec(any_node(), 0..7),
        guests in prop::collection::vec(any_guest(), 0..25),
        selector in prop::sample::select(NodeSelector::ALL),
    ) {
        let mut nodes = nodes;
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        nodes.dedup_by(|a, b| a.name == b.name);
        let mut seen = BTreeSet::new();
        let guests: Vec<_> = guests.into_iter().filter(|guest| seen.insert(guest.vm)).collect();
        let mut survey = Survey { nodes, guests, default_selector: Some(selector) };
        for vm in seen {
            let left = survey.guest(vm).unwrap().node.clone();
            let wish = survey.wish(vm, vec![left.clone()]).unwrap();
            let candidates = survey.candidates(Some(vm));
            match survey.place(&wish) {
                Err(no_place) => {
                    prop_assert_eq!(no_place.refusals.len(), survey.nodes.len());
                    prop_assert!(no_place.refusals.iter().all(|(_, why)| !why.is_empty()));
                }
                Ok(node) => {
                    let on = candidates.iter().find(|candidate| candidate.name == node).unwrap();
                    prop_assert!(node != left && !on.silent);
                    prop_assert_eq!((on.daemon_state, on.domain_state), (DaemonState::Run, DomainState::Ready));
                    prop_assert!(on.running_mib + wish.memory_mib < on.memory_total_mib);
                    prop_assert!(wish.limit.is_empty() || wish.limit.contains(&node));
                    prop_assert!(wish.groups.is_disjoint(&on.groups));
                    survey.placed(&wish, &node, VmState::Start);
                    let after = survey.candidates(None);
                    let on = after.iter().find(|candidate| candidate.name == node).unwrap();
                    prop_assert!(on.running_mib < on.memory_total_mib);
                }
            }
        }
    }
}
