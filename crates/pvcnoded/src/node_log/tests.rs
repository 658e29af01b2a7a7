//! On the store in memory, in virtual time.

use pvc_common::store::memory::{MemoryServer, MemoryStore};

use super::*;
use crate::host::fake::VirtualClock;

const PATH: &str = "/logs/hv1/messages";

struct World {
    server: MemoryServer,
    store: MemoryStore,
    clock: VirtualClock,
    recent: RecentLines,
}

impl World {
    fn new(lines: usize) -> World {
        let server = MemoryServer::new();
        let clock = VirtualClock::default();
        let tree = Txn::new()
            .create_path("/logs", "")
            .create_path("/logs/hv1", "")
            .create_path(PATH, "");
        let store = server.client();
        clock
            .run(Duration::from_secs(1), store.commit(tree))
            .unwrap()
            .unwrap();
        World {
            server,
            store,
            clock,
            recent: RecentLines::new(lines),
        }
    }

    fn log(&self) -> NodeLog<MemoryStore, VirtualClock> {
        NodeLog {
            store: self.store.clone(),
            clock: self.clock.clone(),
            me: NodeName::new("hv1").unwrap(),
            recent: self.recent.clone(),
            secrets: vec![Secret::new("hunter2"), Secret::new("pvc")],
        }
    }

    fn look(&self, memory: &mut Memory) -> Result<(), ReadError> {
        let log = self.log();
        let look = log.look(memory);
        self.clock.run(Duration::from_secs(60), look).expect("it hangs")
    }

    fn published(&self) -> String {
        String::from_utf8(self.server.peek(PATH).unwrap().data).unwrap()
    }

    fn writes(&self) -> i32 {
        self.server.peek(PATH).unwrap().version.0
    }
}

#[test]
fn the_last_lines_are_published_once() {
    let world = World::new(3);
    let mut memory = Memory::default();
    for number in 1..=5 {
        world.recent.keep(&format!("line {number}\n"));
    }
    world.look(&mut memory).unwrap();
    assert_eq!(world.published(), "line 3\nline 4\nline 5");
    world.look(&mut memory).unwrap();
    assert_eq!(world.writes(), 1, "nothing is new");
}

// What an agent said before it died is what is looked for.
#[test]
fn lines_of_earlier_lives_stay_until_there_are_enough_new_ones() {
    let mut world = World::new(3);
    world.recent.keep("first life\nit dies\n");
    world.look(&mut Memory::default()).unwrap();
    world.recent = RecentLines::new(3);
    let mut memory = Memory::default();
    world.look(&mut memory).unwrap();
    assert_eq!(
        world.published(),
        "first life\nit dies",
        "a life that has said nothing"
    );
    world.recent.keep("second life\n");
    world.look(&mut memory).unwrap();
    assert_eq!(world.published(), "first life\nit dies\nsecond life");
    world.recent.keep("it runs\nand runs\n");
    world.look(&mut memory).unwrap();
    assert_eq!(world.published(), "second life\nit runs\nand runs");
}

// An agent that logs in a storm, as when the store comes back, must not keep the store busy with it.
#[test]
fn a_storm_of_lines_is_one_write_every_few_seconds_and_its_end_is_published() {
    let world = World::new(1000);
    let (stop, stopped) = watch::channel(false);
    let storm = async {
        for number in 0..200 {
            world.recent.keep(&format!("line {number}\n"));
            world.clock.sleep(Duration::from_millis(100)).await;
        }
        world.recent.keep("the end\n");
        stop.send(true).unwrap();
    };
    let both = async { tokio::join!(world.log().run(stopped), storm) };
    world.clock.run(Duration::from_secs(60), both).expect("it hangs");
    assert!(world.published().ends_with("line 199\nthe end"));
    // 20 s and the last.
    assert!((4..=6).contains(&world.writes()), "{}", world.writes());
}

#[test]
fn a_store_that_is_away_costs_old_lines_and_nothing_else() {
    let world = World::new(2);
    let mut memory = Memory::default();
    world.store.disconnect();
    world.recent.keep("one\n");
    world.look(&mut memory).unwrap_err();
    world.store.reconnect();
    world.look(&mut memory).unwrap();
    world.store.disconnect();
    world.recent.keep("two\nthree\nfour\n");
    world.look(&mut memory).unwrap_err();
    world.store.reconnect();
    world.look(&mut memory).unwrap();
    assert_eq!(world.published(), "three\nfour");
}

// Every viewer of the cluster may read the log; who has a BMC's password switches nodes off.
#[test]
fn a_line_that_holds_a_secret_is_left_out() {
    let world = World::new(10);
    world
        .recent
        .keep("pvcnoded runs\nipmitool -P hunter2 failed\nit goes on\n");
    world.look(&mut Memory::default()).unwrap();
    let text = world.published();
    assert!(!text.contains("hunter2") && !text.contains("ipmitool"), "{text}");
    assert_eq!(text, format!("pvcnoded runs\n{LEFT_OUT}\nit goes on"));
}

#[test]
fn what_is_published_stays_below_its_bound() {
    let mut world = World::new(1_000_000);
    let long = "ü".repeat(900);
    for _ in 0..2 {
        world.recent = RecentLines::new(1_000_000);
        for _ in 0..100 {
            world.recent.keep(&long);
        }
        world.look(&mut Memory::default()).unwrap();
    }
    let text = world.published();
    assert!(text.len() <= RECENT_BYTES, "{}", text.len());
    assert!(text.lines().count() > 60 && text.lines().all(|line| line == long));
}
