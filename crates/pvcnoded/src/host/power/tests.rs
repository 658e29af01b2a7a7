//! The power-off in virtual time, and `ipmitool` through a runner that remembers what it was asked.

use std::sync::{Arc, Mutex};

use pvc_common::command::{CommandError, CommandOutput, CommandRunner, Exit, HostCommandRunner, Invocation};

use super::*;
use crate::host::fake::power::{BmcMood, FakeBmcNetwork};
use crate::host::fake::{FakeBmc, FakePower, VirtualClock};

const GUID: &str = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
const LIMIT: Duration = Duration::from_secs(5);
const MINUTE: Duration = Duration::from_secs(60);

fn access(host: &str) -> BmcAccess {
    BmcAccess {
        host: host.to_owned(),
        user: "admin".to_owned(),
        password: Secret::new("hunter2"),
    }
}

struct World {
    clock: VirtualClock,
    network: FakeBmcNetwork,
    bmc: FakeBmc,
    power: FakePower,
}

fn world() -> World {
    let clock = VirtualClock::default();
    let network = FakeBmcNetwork::default();
    let bmc = FakeBmc::new(clock.clone(), GUID);
    network.attach("bmc1", bmc.clone());
    let power = network.connection(clock.clone());
    World {
        clock,
        network,
        bmc,
        power,
    }
}

impl World {
    /// Powers "bmc1" off; with the time that it took.
    fn power_off(&self) -> (Result<PowerOffSeen, PowerError>, Duration) {
        let began = self.clock.now();
        let bmc = access("bmc1");
        let work = power_off_and_see(&self.power, &self.clock, &bmc, LIMIT);
        let outcome = self.clock.run(MINUTE, work).unwrap();
        (outcome, self.clock.now().since(began))
    }
}

#[test]
fn a_machine_is_off_when_its_bmc_says_so_after_the_order() {
    let world = world();
    world.bmc.set_takes_effect_after(Duration::from_secs(2));
    let (outcome, took) = world.power_off();
    assert_eq!(outcome.unwrap().host(), "bmc1");
    assert!(
        took >= Duration::from_secs(2) && took < Duration::from_secs(3),
        "{took:?}"
    );
    assert_eq!(world.bmc.machine(), PowerState::Off);
}

// Lesson 26: broken hardware is often off before anybody orders it; and some BMCs then refuse the order.
#[test]
fn a_machine_that_was_off_already_is_seen_to_be_off() {
    for mood in [BmcMood::Works, BmcMood::Refuses] {
        let world = world();
        world.bmc.set_machine(PowerState::Off);
        world.bmc.set_mood(mood);
        assert!(world.power_off().0.is_ok(), "{mood:?}");
    }
}

// Lesson 25 and 27: an order that was sent, or was taken, is no proof.
#[test]
fn an_order_alone_proves_nothing() {
    let world = world();
    world.bmc.set_takes_effect_after(MINUTE);
    let (outcome, took) = world.power_off();
    assert!(matches!(outcome, Err(PowerError::StillOn { .. })), "{outcome:?}");
    assert!(took <= LIMIT + Duration::from_secs(3), "{took:?}");
    for mood in [BmcMood::Refuses, BmcMood::Babbles] {
        world.bmc.set_mood(mood);
        assert!(world.power_off().0.is_err(), "{mood:?}");
    }
}

// Lesson 28: while the fencer waits for a BMC that died with its server, the guests are down.
#[test]
fn a_dead_bmc_is_given_up_after_its_first_silence() {
    let world = world();
    world.bmc.set_mood(BmcMood::Dead);
    let (outcome, took) = world.power_off();
    assert!(matches!(outcome, Err(PowerError::NoAnswer { .. })), "{outcome:?}");
    assert_eq!(took, Duration::from_secs(2));
    world.bmc.set_mood(BmcMood::Works);
    world.power.cut();
    assert!(world.power_off().0.is_err());
    let other = world.network.connection(world.clock.clone());
    let state = world.clock.run(MINUTE, other.state(&access("bmc1"))).unwrap();
    assert_eq!(state, Ok(PowerState::On), "another node reaches it");
}

// The order of a command that was killed at its deadline may still be carried out: the fencer's record says "ordered".
#[test]
fn a_slow_bmc_carries_the_order_out_after_its_caller_has_gone() {
    let world = world();
    world.bmc.set_latency(Duration::from_secs(10));
    let (outcome, took) = world.power_off();
    assert!(matches!(outcome, Err(PowerError::NoAnswer { .. })), "{outcome:?}");
    assert_eq!(took, Duration::from_secs(3));
    assert_eq!(world.bmc.machine(), PowerState::On);
    world.clock.advance(Duration::from_secs(7));
    assert_eq!(world.bmc.machine(), PowerState::Off);
}

#[test]
fn swapped_and_lying_bmcs_are_what_they_are_called() {
    let world = world();
    let other = FakeBmc::new(world.clock.clone(), "1f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0");
    world.network.attach("bmc2", other.clone());
    world.network.swap("bmc1", "bmc2");
    let guid = world
        .clock
        .run(MINUTE, world.power.guid(&access("bmc1")))
        .unwrap();
    assert_eq!(guid.unwrap(), other.guid());
    let killed = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&killed);
    other.on_switch(move |power| log.lock().unwrap().push(power));
    assert!(world.power_off().0.is_ok());
    assert_eq!(
        (world.bmc.machine(), other.machine()),
        (PowerState::On, PowerState::Off)
    );
    assert_eq!(*killed.lock().unwrap(), [PowerState::Off]);
    world.network.swap("bmc1", "bmc2");
    world.bmc.set_mood(BmcMood::Lies);
    assert!(world.power_off().0.is_ok());
    assert_eq!(world.bmc.machine(), PowerState::On);
}

#[derive(Debug, Clone)]
struct Scripted {
    answer: Result<&'static str, &'static str>,
    asked: Arc<Mutex<Vec<Invocation>>>,
}

impl CommandRunner for Scripted {
    async fn run(&self, invocation: &Invocation) -> Result<CommandOutput, CommandError> {
        self.asked.lock().unwrap().push(invocation.clone());
        match self.answer {
            Ok(stdout) => Ok(CommandOutput {
                stdout: stdout.into(),
                stderr: String::new(),
            }),
            Err(stderr) => Err(CommandError::Failed {
                command: invocation.command_line(),
                exit: Exit::Code(1),
                stderr: stderr.to_owned(),
            }),
        }
    }
}

fn scripted(answer: Result<&'static str, &'static str>) -> (Ipmitool<Scripted>, Scripted) {
    let runner = Scripted {
        answer,
        asked: Arc::default(),
    };
    (Ipmitool::new(runner.clone()), runner)
}

// Defect of section H: power commands ran without a deadline and with the password on the command line, where every
// user of the host could read it.
#[tokio::test]
async fn the_password_is_only_in_the_environment_and_each_command_has_a_deadline() {
    let (power, runner) = scripted(Ok(include_str!("fixtures/ipmitool-1.8.19-power-off.txt")));
    let bmc = access("10.100.0.101");
    power.order_off(&bmc).await.unwrap();
    let asked = runner.asked.lock().unwrap()[0].clone();
    assert_eq!(
        asked.command_line().to_string(),
        "ipmitool -I lanplus -N 1 -R 1 -H 10.100.0.101 -U admin -E chassis power off"
    );
    assert_eq!(asked.env, [("IPMI_PASSWORD", Secret::new("hunter2"))]);
    assert_eq!(asked.deadline, Duration::from_secs(3));
    assert!(!format!("{asked:?} {bmc:?}").contains("hunter2"));
}

// Lesson 27: success of the program says nothing about the machine.
#[tokio::test]
async fn exit_status_0_without_a_state_is_no_state() {
    for text in ["", "Chassis Power Control: Down/Off\n", "off\n"] {
        let outcome = scripted(Ok(text)).0.state(&access("bmc1")).await;
        assert!(
            matches!(outcome, Err(PowerError::NotUnderstood { .. })),
            "{text:?}: {outcome:?}"
        );
    }
    let outcome = scripted(Err("Chassis Power is off"))
        .0
        .state(&access("bmc1"))
        .await;
    assert!(outcome.is_err(), "{outcome:?}");
}

#[tokio::test]
async fn a_refusal_and_silence_are_told_apart() {
    let refused = scripted(Err(
        "Set Chassis Power Control to Off failed: Insufficient privilege level\n",
    ));
    let outcome = refused.0.order_off(&access("bmc1")).await;
    assert!(matches!(outcome, Err(PowerError::Refused { .. })), "{outcome:?}");
    let silent = scripted(Err("Error: Unable to establish IPMI v2 / RMCP+ session\n"));
    let outcome = silent.0.order_off(&access("bmc1")).await;
    assert!(matches!(outcome, Err(PowerError::NoAnswer { .. })), "{outcome:?}");
}

// Lesson 28 again, with the real program where it is installed: nobody listens at this address.
#[tokio::test]
async fn a_bmc_that_is_not_there_costs_no_more_than_the_deadline() {
    let power = Ipmitool::new(HostCommandRunner::from_system());
    let clock = pvc_common::clock::HostClock;
    let began = clock.now();
    let outcome = power_off_and_see(&power, &clock, &access("127.99.99.99"), LIMIT).await;
    assert!(
        matches!(
            outcome,
            Err(PowerError::NoAnswer { .. } | PowerError::NoProgram { .. })
        ),
        "{outcome:?}"
    );
    assert!(clock.now().since(began) < Duration::from_millis(3600));
}
