use super::*;

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

fn at(seconds: u64) -> BootTime {
    BootTime::from_duration(Duration::from_secs(seconds))
}

fn guest(state: VmState, node: &str, owner: Option<&str>) -> DrainGuest {
    DrainGuest {
        vm: VmId::new(uuid::Uuid::from_u128(7)),
        state,
        node: name(node),
        last_node: None,
        owner: owner.map(name),
        moving: false,
        autostart: false,
    }
}

fn flush(guest: &DrainGuest, memory: &DrainMemory, moves: usize) -> FlushStep {
    next_flush_step(&FlushView {
        now: at(1000),
        me: &name("hv1"),
        guest,
        memory,
        moves_under_way: moves,
        moves_in_all: moves,
    })
}

/// A step as a word of the tables below.
fn word(step: &FlushStep) -> &'static str {
    match step {
        FlushStep::Nothing => "-",
        FlushStep::Move { .. } => "move",
        FlushStep::PlaceElsewhere => "place",
        FlushStep::Wait(Waiting::Moves) => "moves",
        FlushStep::Wait(Waiting::Arrives) => "arrives",
        FlushStep::Wait(Waiting::ShutsDown) => "shuts",
        FlushStep::Wait(Waiting::Restarts) => "restarts",
        FlushStep::Wait(Waiting::Ends) => "ends",
        FlushStep::Wait(Waiting::Queues | Waiting::TriesAgain | Waiting::LacksPlace) => "later",
    }
}

#[test]
fn a_flush_has_a_step_for_every_state_wherever_the_guest_is() {
    // Lesson 50: a drain covers every state of a guest and never waits for one that failed.
    // start restart shutdown stop disable fail migrate migrate-live unmigrate provision import restore mirror delete
    for (node, owner, expected) in [
        (
            "hv1",
            Some("hv1"),
            "move restarts shuts ends ends ends moves moves moves ends ends ends ends ends",
        ),
        (
            "hv1",
            None,
            "place restarts shuts - - - arrives arrives arrives - - - - -",
        ),
        (
            "hv1",
            Some("hv2"),
            "place restarts shuts - - - arrives arrives arrives - - - - -",
        ),
        (
            "hv2",
            Some("hv1"),
            "moves restarts shuts ends ends ends moves moves moves ends ends ends ends ends",
        ),
        ("hv2", None, "- - - - - - - - - - - - - -"),
        ("hv2", Some("hv2"), "- - - - - - - - - - - - - -"),
    ] {
        let row: Vec<&str> = VmState::ALL
            .iter()
            .map(|state| word(&flush(&guest(*state, node, owner), &DrainMemory::default(), 0)))
            .collect();
        assert_eq!(row.join(" "), expected, "node {node}, owner {owner:?}");
    }
    let mut moving = guest(VmState::Start, "hv1", Some("hv1"));
    moving.moving = true;
    assert_eq!(word(&flush(&moving, &DrainMemory::default(), 0)), "moves");
}

#[test]
fn a_flush_moves_a_few_at_a_time() {
    let here = guest(VmState::Start, "hv1", Some("hv1"));
    let none = DrainMemory::default();
    for (moves, expected) in [(0, "move"), (MOVES_AT_ONCE - 1, "move"), (MOVES_AT_ONCE, "later")] {
        assert_eq!(word(&flush(&here, &none, moves)), expected, "{moves}");
    }
    // Moves that take for ever let others pass, but not without a limit.
    let step = next_flush_step(&FlushView {
        now: at(1000),
        me: &name("hv1"),
        guest: &here,
        memory: &none,
        moves_under_way: 0,
        moves_in_all: MOVES_AT_MOST,
    });
    assert_eq!(step, FlushStep::Wait(Waiting::Queues));
    let mut memory = DrainMemory::default();
    memory.waits(at(0), Some(Waiting::Moves));
    let limit = MOVE_HOLDS_PLACE.as_secs();
    assert!(memory.holds_place(at(limit - 1)) && !memory.holds_place(at(limit)));
}

#[test]
fn a_move_that_came_to_nothing_is_tried_again_elsewhere_first_and_then_each_minute() {
    let me = name("hv1");
    let here = guest(VmState::Start, "hv1", Some("hv1"));
    let mut memory = DrainMemory {
        ordered: Some((name("hv2"), at(990))),
        ..DrainMemory::default()
    };
    let away = guest(VmState::Migrate, "hv2", Some("hv1"));
    memory.observe(at(995), &me, &away);
    assert_eq!(memory.failures, 0, "it is still under way");
    let mut on_record = here.clone();
    on_record.moving = true;
    memory.observe(at(996), &me, &on_record);
    assert_eq!(memory.failures, 0, "its end is still on record");

    memory.observe(at(1000), &me, &here);
    assert_eq!((memory.failures, memory.retry_at), (1, None));
    let after = BTreeSet::from([name("hv2")]);
    assert_eq!(flush(&here, &memory, 0), FlushStep::Move { after });
    assert_eq!(memory.trouble(at(1000), Duration::ZERO), None);

    memory.ordered = Some((name("hv3"), at(1000)));
    memory.observe(at(1000), &me, &here);
    assert_eq!((memory.failures, memory.retry_at), (2, Some(at(1060))));
    assert_eq!(flush(&here, &memory, 0), FlushStep::Wait(Waiting::TriesAgain));
    memory.retry_at = Some(at(1000));
    let after = BTreeSet::from([name("hv2"), name("hv3")]);
    assert_eq!(flush(&here, &memory, 0), FlushStep::Move { after });
    assert!(
        memory
            .trouble(at(1000), Duration::ZERO)
            .unwrap()
            .contains("2 tries")
    );
}

#[test]
fn what_takes_too_long_is_told_and_what_goes_its_way_is_not() {
    let shutdown = Duration::from_secs(180);
    for (waiting, fine, told) in [
        (Some(Waiting::Moves), 299, 300),
        (Some(Waiting::ShutsDown), 239, 240),
        (Some(Waiting::Restarts), 239, 240),
        (Some(Waiting::Ends), 239, 240),
    ] {
        let mut memory = DrainMemory::default();
        memory.waits(at(0), waiting);
        memory.waits(at(5), waiting);
        assert_eq!(memory.trouble(at(fine), shutdown), None, "{waiting:?}");
        assert!(memory.trouble(at(told), shutdown).is_some(), "{waiting:?}");
        // What it waits for has changed: the time counts anew.
        memory.waits(at(told), Some(Waiting::Queues));
        assert_eq!(memory.trouble(at(told + 10_000), shutdown), None);
    }
    assert_eq!(DrainMemory::default().trouble(at(9), shutdown), None);
}

fn unflush(guest: &DrainGuest, memory: &DrainMemory, moves: usize) -> UnflushStep {
    next_unflush_step(&UnflushView {
        me: &name("hv1"),
        guest,
        memory,
        moves_under_way: moves,
    })
}

fn unflush_word(step: UnflushStep) -> &'static str {
    match step {
        UnflushStep::Nothing => "-",
        UnflushStep::Start => "start",
        UnflushStep::Forget => "forget",
        UnflushStep::ComeHome => "home",
        UnflushStep::BelongHere => "belong",
        UnflushStep::Stay => "stay",
        UnflushStep::Wait(_) => "wait",
    }
}

#[test]
fn an_unflush_has_a_step_for_every_state_wherever_the_guest_is() {
    // start restart shutdown stop disable fail migrate migrate-live unmigrate provision import restore mirror delete
    for (node, owner, home, autostart, expected) in [
        // Its own, started only if it waits for this.
        ("hv1", None, None, false, "- - - - - - wait wait wait - - - - -"),
        (
            "hv1",
            None,
            None,
            true,
            "forget forget start start - - wait wait wait - - - - -",
        ),
        (
            "hv1",
            Some("hv1"),
            None,
            true,
            "forget forget start start - - wait wait wait - - - - -",
        ),
        // It belongs here and is elsewhere.
        (
            "hv2",
            Some("hv2"),
            Some("hv1"),
            false,
            "home wait wait - - - wait wait wait - - - - -",
        ),
        (
            "hv2",
            None,
            Some("hv1"),
            false,
            "home wait wait belong belong belong wait wait wait - - - - -",
        ),
        // It was leaving when the order was replaced.
        (
            "hv2",
            Some("hv1"),
            Some("hv1"),
            false,
            "home wait wait - - - stay wait wait - - - - -",
        ),
        // It is no business of this node.
        ("hv2", Some("hv2"), None, true, "- - - - - - - - - - - - - -"),
        (
            "hv2",
            Some("hv2"),
            Some("hv3"),
            true,
            "- - - - - - - - - - - - - -",
        ),
    ] {
        let row: Vec<&str> = VmState::ALL
            .iter()
            .map(|state| {
                let guest = DrainGuest {
                    last_node: home.map(name),
                    autostart,
                    ..guest(*state, node, owner)
                };
                unflush_word(unflush(&guest, &DrainMemory::default(), 0))
            })
            .collect();
        assert_eq!(row.join(" "), expected, "{node} {owner:?} {home:?} {autostart}");
    }
}

#[test]
fn an_unflush_tries_each_guest_once_and_a_few_at_a_time() {
    // Else one guest that can't come home would keep the node from being ready for ever.
    let mut away = guest(VmState::Start, "hv2", Some("hv2"));
    away.last_node = Some(name("hv1"));
    let mut memory = DrainMemory::default();
    assert_eq!(
        unflush(&away, &memory, MOVES_AT_ONCE),
        UnflushStep::Wait(Waiting::Queues)
    );
    assert_eq!(unflush(&away, &memory, MOVES_AT_ONCE - 1), UnflushStep::ComeHome);
    memory.ordered = Some((name("hv1"), at(0)));
    assert_eq!(unflush(&away, &memory, 0), UnflushStep::Nothing);
    let mut own = guest(VmState::Stop, "hv1", None);
    own.autostart = true;
    assert_eq!(unflush(&own, &memory, 0), UnflushStep::Nothing);
}
