//! BMCs in virtual time: they switch machines, and they can be slow, dead, lying, refusing or swapped.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pvc_common::clock::Clock;
use pvc_core::time::BootTime;

use super::{VirtualClock, locked};
use crate::host::power::{BmcAccess, PowerControl, PowerError, PowerState};

/// As `ipmitool` is run: nothing for so long, and it gives up.
const SILENCE: Duration = Duration::from_secs(2);
/// It is killed after this time.
const DEADLINE: Duration = Duration::from_secs(3);

/// What happens to a machine when its BMC switches it.
type Switch = Arc<dyn Fn(PowerState) + Send + Sync>;

/// How a BMC behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BmcMood {
    /// As it should.
    Works,
    /// It says nothing: it has lost its power or its network.
    Dead,
    /// It takes orders and says what was ordered, but its machine stays as it is.
    Lies,
    /// It tells the state, and refuses every order.
    Refuses,
    /// It answers something that is not understood.
    Babbles,
}

/// A BMC with the machine behind it. Clones are the same.
#[derive(Clone)]
pub struct FakeBmc {
    clock: VirtualClock,
    state: Arc<Mutex<State>>,
}

struct State {
    machine: PowerState,
    /// What a lying BMC was told last.
    claims: Option<PowerState>,
    mood: BmcMood,
    guid: String,
    latency: Duration,
    takes_effect_after: Duration,
    pending: Vec<(BootTime, PowerState)>,
    switch: Option<Switch>,
    orders: Vec<(BootTime, PowerState)>,
}

impl fmt::Debug for FakeBmc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = locked(&self.state);
        f.debug_struct("FakeBmc")
            .field("machine", &state.machine)
            .field("mood", &state.mood)
            .field("guid", &state.guid)
            .finish_non_exhaustive()
    }
}

impl FakeBmc {
    /// A working BMC of a machine that is on.
    pub fn new(clock: VirtualClock, guid: &str) -> FakeBmc {
        FakeBmc {
            clock,
            state: Arc::new(Mutex::new(State {
                machine: PowerState::On,
                claims: None,
                mood: BmcMood::Works,
                guid: guid.to_owned(),
                latency: Duration::ZERO,
                takes_effect_after: Duration::ZERO,
                pending: Vec::new(),
                switch: None,
                orders: Vec::new(),
            })),
        }
    }

    /// What it does to the machine: called each time that its power really changes, with no lock held.
    pub fn on_switch(&self, switch: impl Fn(PowerState) + Send + Sync + 'static) {
        locked(&self.state).switch = Some(Arc::new(switch));
    }

    /// From now on it behaves so.
    pub fn set_mood(&self, mood: BmcMood) {
        locked(&self.state).mood = mood;
    }

    /// Every answer takes so long from now on. Beyond 3 s the caller gives up, but an order is carried out all the same.
    pub fn set_latency(&self, latency: Duration) {
        locked(&self.state).latency = latency;
    }

    /// The machine goes off or on so long after the order was taken.
    pub fn set_takes_effect_after(&self, delay: Duration) {
        locked(&self.state).takes_effect_after = delay;
    }

    /// The GUID that it answers.
    pub fn guid(&self) -> String {
        locked(&self.state).guid.clone()
    }

    /// The machine's power changes without the BMC: a cable is pulled, somebody presses a button.
    pub fn set_machine(&self, power: PowerState) {
        self.apply(power);
    }

    /// The machine's real power, whatever the BMC says.
    pub fn machine(&self) -> PowerState {
        self.settle();
        locked(&self.state).machine
    }

    /// The orders that reached it: when, and which.
    pub fn orders(&self) -> Vec<(BootTime, PowerState)> {
        locked(&self.state).orders.clone()
    }

    /// When an order that was taken is carried out next; then somebody should call [`FakeBmc::settle`].
    pub fn next_effect(&self) -> Option<BootTime> {
        locked(&self.state).pending.iter().map(|(at, _)| *at).min()
    }

    /// Carries out the orders that have come due. Every question does so too.
    pub fn settle(&self) {
        let now = self.clock.now();
        loop {
            let due = {
                let mut state = locked(&self.state);
                let place = state.pending.iter().position(|(at, _)| *at <= now);
                place.map(|place| state.pending.remove(place).1)
            };
            match due {
                Some(power) => self.apply(power),
                None => return,
            }
        }
    }

    fn apply(&self, power: PowerState) {
        let switch = {
            let mut state = locked(&self.state);
            let changed = state.machine != power;
            state.machine = power;
            state.switch.clone().filter(|_| changed)
        };
        if let Some(switch) = switch {
            switch(power);
        }
    }

    /// Takes an order, `late` after now.
    fn take(&self, power: PowerState, late: Duration) {
        let now = self.clock.now();
        {
            let mut state = locked(&self.state);
            state.orders.push((now, power));
            if state.mood == BmcMood::Lies {
                state.claims = Some(power);
                return;
            }
            let at = now + late + state.takes_effect_after;
            state.pending.push((at, power));
        }
        self.settle();
    }

    /// What it says of its machine.
    fn says(&self) -> PowerState {
        self.settle();
        let state = locked(&self.state);
        match (state.mood, state.claims) {
            (BmcMood::Lies, Some(claimed)) => claimed,
            (BmcMood::Works | BmcMood::Dead | BmcMood::Lies | BmcMood::Refuses | BmcMood::Babbles, _) => {
                state.machine
            }
        }
    }
}

/// The network of the BMCs: which one answers at which address.
#[derive(Debug, Clone, Default)]
pub struct FakeBmcNetwork {
    bmcs: Arc<Mutex<BTreeMap<String, FakeBmc>>>,
}

impl FakeBmcNetwork {
    /// From now on `bmc` answers at `host`.
    pub fn attach(&self, host: &str, bmc: FakeBmc) {
        locked(&self.bmcs).insert(host.to_owned(), bmc);
    }

    /// Whoever plugged the cables mixed them up: each answers at the other's address from now on.
    pub fn swap(&self, one: &str, other: &str) {
        let mut bmcs = locked(&self.bmcs);
        if let (Some(first), Some(second)) = (bmcs.remove(one), bmcs.remove(other)) {
            bmcs.insert(one.to_owned(), second);
            bmcs.insert(other.to_owned(), first);
        }
    }

    /// A node's way to it.
    pub fn connection(&self, clock: VirtualClock) -> FakePower {
        FakePower {
            clock,
            network: self.clone(),
            cut: Arc::default(),
        }
    }
}

/// One node's way to the BMCs. Clones are the same way.
#[derive(Debug, Clone)]
pub struct FakePower {
    clock: VirtualClock,
    network: FakeBmcNetwork,
    cut: Arc<Mutex<bool>>,
}

impl FakePower {
    /// From now on this node reaches no BMC; others may.
    pub fn cut(&self) {
        *locked(&self.cut) = true;
    }

    /// Ends [`FakePower::cut`].
    pub fn heal(&self) {
        *locked(&self.cut) = false;
    }

    /// The BMC, once it has been reached: its latency has passed. An order is carried out though its answer comes too
    /// late.
    async fn reach(
        &self,
        access: &BmcAccess,
        action: &'static str,
        order: Option<PowerState>,
    ) -> Result<FakeBmc, PowerError> {
        let host = access.host.clone();
        let no_answer = |reason: &str| PowerError::NoAnswer {
            host: host.clone(),
            reason: reason.to_owned(),
        };
        let found = locked(&self.network.bmcs).get(&access.host).cloned();
        let cut = *locked(&self.cut);
        let Some(bmc) = found.filter(|_| !cut) else {
            self.clock.sleep(SILENCE).await;
            return Err(no_answer("no session"));
        };
        let (mood, latency) = {
            let state = locked(&bmc.state);
            (state.mood, state.latency)
        };
        if mood == BmcMood::Dead {
            self.clock.sleep(SILENCE).await;
            return Err(no_answer("no session"));
        }
        if latency > DEADLINE {
            if let Some(power) = order.filter(|_| mood != BmcMood::Refuses) {
                bmc.take(power, latency);
            }
            self.clock.sleep(DEADLINE).await;
            return Err(no_answer("nothing within 3s"));
        }
        self.clock.sleep(latency).await;
        match (mood, order) {
            (BmcMood::Refuses, Some(_)) => {
                return Err(PowerError::Refused {
                    host,
                    action,
                    reason: "Command not supported in present state".to_owned(),
                });
            }
            (BmcMood::Babbles, _) => {
                return Err(PowerError::NotUnderstood {
                    host,
                    said: "Chassis Power is perhaps".to_owned(),
                });
            }
            (BmcMood::Works | BmcMood::Lies, Some(power)) => bmc.take(power, Duration::ZERO),
            (BmcMood::Works | BmcMood::Lies | BmcMood::Refuses | BmcMood::Dead, _) => {}
        }
        Ok(bmc)
    }
}

impl PowerControl for FakePower {
    async fn state(&self, bmc: &BmcAccess) -> Result<PowerState, PowerError> {
        Ok(self.reach(bmc, "tell its state", None).await?.says())
    }

    async fn order_off(&self, bmc: &BmcAccess) -> Result<(), PowerError> {
        self.reach(bmc, "power off", Some(PowerState::Off))
            .await
            .map(|_| ())
    }

    async fn order_on(&self, bmc: &BmcAccess) -> Result<(), PowerError> {
        self.reach(bmc, "power on", Some(PowerState::On))
            .await
            .map(|_| ())
    }

    async fn guid(&self, bmc: &BmcAccess) -> Result<String, PowerError> {
        Ok(self.reach(bmc, "tell its GUID", None).await?.guid())
    }
}
