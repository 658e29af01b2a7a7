//! The lab with everything that observes it, and what all cases need.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use pvc_common::keys;
use pvc_core::ids::NodeName;
use pvc_core::records::RoleLease;
use pvc_core::states::{CoordinatorState, DaemonState, DomainState};
use pvc_lab::{Lab, Network, Node, Power, ceph, wait_for};

use crate::addresses::{AddressLog, floating};
use crate::observer::Observer;
use crate::store::{Sampler, StoreView};
use crate::{agent, guests};

/// Boot, Ceph's recovery and a change of the role, on two busy cores.
const HEALTHY: Duration = Duration::from_secs(120);
/// A move of the role, as an administrator waits for it.
const MOVE: Duration = Duration::from_secs(30);
/// A fence that can be done is done within this: proof, recovery, and the order to switch on.
const FENCES: Duration = Duration::from_secs(60);
/// Until a node that is made ready has its guests back.
const READY_AGAIN: Duration = Duration::from_secs(90);
/// Locked by whoever tests or measures on the lab.
const TURN: &str = "/run/pvc-lab-tests.lock";
/// All cases with all their waits, and some more.
const TURN_DEADLINE: Duration = Duration::from_secs(20 * 60);

/// The cluster under test.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// The lab.
    pub(crate) lab: Lab,
    /// The coordination store.
    pub(crate) store: StoreView,
    /// Who had which floating address when.
    pub(crate) addresses: AddressLog,
    /// Watches everything else, in a process of its own.
    pub(crate) observer: Observer,
    /// Held for as long as this lives.
    turn: File,
}

/// Tests and benchmarks mistreat the whole cluster: two at once would measure each other.
fn take_turn() -> Result<File> {
    let file = File::create(TURN).with_context(|| format!("cannot open {TURN}"))?;
    let mut is_told = false;
    wait_for("the test or benchmark that uses the lab", TURN_DEADLINE, || {
        match file.try_lock() {
            Ok(()) => return Ok(Some(())),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        if !is_told {
            crate::say("another test or benchmark uses the lab; waiting for its end");
            is_told = true;
        }
        Ok(None)
    })?;
    Ok(file)
}

impl Cluster {
    /// Takes the lab that is up, when nobody else does, and begins to observe it.
    pub(crate) fn attach() -> Result<Cluster> {
        Cluster::observe(take_turn()?)
    }

    /// Ends all observation without leaving the lab to others.
    pub(crate) fn look_away(self) -> File {
        self.turn
    }

    /// Begins to observe the lab again.
    pub(crate) fn observe(turn: File) -> Result<Cluster> {
        let lab = Lab::attach()?;
        let store = StoreView::open(&lab)?;
        let mut addresses = AddressLog::default();
        for node in lab.nodes() {
            if node.power() == Power::Off {
                node.power_on()?;
            }
            addresses.attach(node)?;
        }
        Ok(Cluster {
            lab,
            store,
            addresses,
            observer: Observer::start()?,
            turn,
        })
    }

    /// The names of the nodes, as the store has them.
    pub(crate) fn names(&self) -> Result<Vec<NodeName>> {
        self.lab
            .nodes()
            .iter()
            .map(|node| Ok(NodeName::new(node.name())?))
            .collect()
    }

    /// A node by its name.
    pub(crate) fn node(&self, name: &str) -> Result<Node> {
        self.lab.node(name).cloned()
    }

    /// Begins to sample the primary role.
    pub(crate) fn sample_role(&self) -> Result<Sampler> {
        Ok(self.store.sample_role(&self.names()?))
    }

    /// Runs the `pvc` command; wants success.
    pub(crate) fn pvc(&self, arguments: &[&str]) -> Result<String> {
        let mut words = vec!["--quiet", "--unsafe"];
        words.extend(arguments);
        self.lab
            .pvc(&words)?
            .ok()
            .with_context(|| format!("`pvc {}` failed", arguments.join(" ")))
    }

    /// What each node says of its part in the role.
    pub(crate) fn coordinator_states(&self) -> Result<BTreeMap<NodeName, CoordinatorState>> {
        self.names()?
            .into_iter()
            .map(|name| {
                let state = self.store.require(&keys::node(&name).coordinator_state())?;
                Ok((name, state.value))
            })
            .collect()
    }

    /// The one node that is primary, has the role's lease and all of its addresses; none if there is no such node.
    pub(crate) fn primary(&self) -> Result<Option<NodeName>> {
        let states = self.coordinator_states()?;
        let mut primaries = states
            .iter()
            .filter(|(_, state)| **state == CoordinatorState::Primary)
            .map(|(name, _)| name.clone());
        let (Some(primary), None) = (primaries.next(), primaries.next()) else {
            return Ok(None);
        };
        let others_wait = states
            .iter()
            .all(|(name, state)| *name == primary || *state == CoordinatorState::Secondary);
        let holds = matches!(
            self.store.require(&keys::lease_primary())?.value,
            Some(RoleLease::Held { holder, .. }) if holder == primary
        );
        let has_addresses = floating()
            .into_iter()
            .all(|address| self.addresses.holders(address) == [primary.to_string()]);
        Ok((others_wait && holds && has_addresses).then_some(primary))
    }

    /// The primary, waited for.
    pub(crate) fn wait_primary(&self) -> Result<NodeName> {
        wait_for("exactly one whole primary", HEALTHY, || self.primary()).with_context(|| self.describe())
    }

    /// The node that is primary.
    pub(crate) fn primary_node(&self) -> Result<Node> {
        self.node(self.wait_primary()?.as_str())
    }

    /// A node that is not primary: the first by name.
    pub(crate) fn secondary_node(&self) -> Result<Node> {
        let primary = self.wait_primary()?;
        let other = self
            .lab
            .nodes()
            .iter()
            .find(|node| node.name() != primary.as_str());
        other.cloned().context("there is no other node")
    }

    /// Moves the role through `pvc` and waits until it is there.
    pub(crate) fn move_primary(&self, to: &Node) -> Result<()> {
        let name = to.name();
        if self.primary()?.is_some_and(|primary| primary.as_str() == name) {
            return Ok(());
        }
        self.pvc(&["node", "primary", &name])?;
        wait_for(&format!("{name} to be primary"), MOVE, || {
            Ok(self
                .primary()?
                .filter(|primary| primary.as_str() == name)
                .map(|_| ()))
        })
        .with_context(|| self.describe())
    }

    /// Waits until everything is as it should be between two cases: all nodes run, one primary, Ceph whole.
    pub(crate) fn wait_healthy(&self) -> Result<()> {
        self.store.wait_connected()?;
        let mut why = String::new();
        wait_for("a healthy cluster", HEALTHY, || {
            why = match self.ill() {
                Ok(None) => return Ok(Some(())),
                Ok(Some(reason)) => reason,
                // The store may be electing a leader.
                Err(error) => format!("{error:#}"),
            };
            Ok(None)
        })
        .with_context(|| format!("{why}\n{}", self.describe()))
    }

    /// What is not as it should be; none if all is well.
    fn ill(&self) -> Result<Option<String>> {
        for node in self.lab.nodes() {
            if node.power() == Power::Off || node.is_frozen() {
                return Ok(Some(format!("{} is off or frozen", node.id())));
            }
        }
        for name in self.names()? {
            let state = self.store.require(&keys::node(&name).daemon_state())?.value;
            if state != DaemonState::Run {
                return Ok(Some(format!("the agent of {name} says {state}")));
            }
        }
        if self.primary()?.is_none() {
            return Ok(Some("there is no whole primary".to_owned()));
        }
        if let Some(node) = self.lab.nodes().first() {
            let health = ceph::health(node).unwrap_or_else(|| "nothing".to_owned());
            if health == "HEALTH_ERR" || health == "nothing" || ceph_osds_up(node) < self.lab.nodes().len() {
                return Ok(Some(format!("Ceph says {health}, or misses an OSD")));
            }
        }
        Ok(None)
    }

    /// Ends what a case may have left behind, whatever it was.
    pub(crate) fn restore(&mut self) -> Result<()> {
        self.repair()?;
        // A node is not made ready over guests that are about to go.
        guests::remove_all(self)?;
        self.make_ready()
    }

    /// Ends partitions and frosts, switches on what is off, and waits until every node runs and takes guests.
    pub(crate) fn mend_nodes(&mut self) -> Result<()> {
        self.repair()?;
        self.make_ready()
    }

    fn repair(&mut self) -> Result<()> {
        self.lab.heal()?;
        self.lab.start_bmcs()?;
        for node in self.lab.nodes().to_vec() {
            if node.power() == Power::On && !node.is_frozen() && node.id().is_coordinator() {
                // Nothing to do where it runs.
                node.exec(&["systemctl", "start", "--no-block", "zookeeper.service"])?;
            }
        }
        if let Err(error) = self.wait_fences_closed() {
            crate::say(&format!("{error:#}"));
        }
        for node in self.lab.nodes().to_vec() {
            if node.power() == Power::Off {
                if let Err(error) = self.wait_fenced(&node) {
                    crate::say(&format!("{error:#}"));
                }
                // The fencer switches on what it has found off, if the BMC was asked at all.
                if node.power() == Power::Off {
                    self.power_on(&node)?;
                }
            }
            if node.is_frozen() {
                node.thaw()?;
            }
            // A fencer may have switched it off and on meanwhile.
            self.listen(&node)?;
            agent::restore(&node)?;
        }
        self.wait_healthy()
    }

    /// Does `work` while nobody is fenced: for cases that keep an agent silent on purpose and look at what it does when it
    /// goes on. The primary role moves as ever.
    pub(crate) fn in_maintenance(&mut self, work: impl FnOnce(&mut Cluster) -> Result<()>) -> Result<()> {
        self.pvc(&["cluster", "maintenance", "on"])?;
        let done = work(self);
        let off = self.pvc(&["cluster", "maintenance", "off"]);
        done.and(off.map(|_| ()))
    }

    /// Takes a node's power away.
    pub(crate) fn power_off(&mut self, node: &Node) -> Result<()> {
        node.power_off()?;
        self.addresses.end(&node.name());
        Ok(())
    }

    /// Boots a node and observes it again as soon as that is possible.
    pub(crate) fn power_on(&mut self, node: &Node) -> Result<()> {
        node.power_on()?;
        self.addresses.attach(node)
    }

    /// Observes the addresses of a node again that was switched off and on by somebody else.
    pub(crate) fn listen(&mut self, node: &Node) -> Result<()> {
        if !self.addresses.listens(&node.name())? {
            node.wait_running()?;
            self.addresses.attach(node)?;
        }
        Ok(())
    }

    /// Waits until no node is being fenced any more, for whom the fencer would switch off under our hands.
    fn wait_fences_closed(&self) -> Result<()> {
        wait_for("the fences to be done", FENCES, || {
            for name in self.names()? {
                // The store may be electing a leader.
                let Ok(fence) = self.store.require(&keys::fence(&name)) else {
                    return Ok(None);
                };
                if fence.value.is_some_and(|record| record.is_open()) {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
    }

    /// Waits until the last life of a node that is off has been fenced: switched on before, it would be suspected, and
    /// switched off again, in the middle of its boot.
    fn wait_fenced(&self, node: &Node) -> Result<()> {
        let name = NodeName::new(node.name())?;
        wait_for(&format!("{name} to be fenced"), FENCES, || {
            if node.power() == Power::On {
                return Ok(Some(()));
            }
            // The store may be electing a leader.
            let (Ok(lease), Ok(fence)) = (
                self.store.require(&keys::lease_node(&name)),
                self.store.require(&keys::fence(&name)),
            ) else {
                return Ok(None);
            };
            let (Some(lease), Some(fence)) = (lease.value, fence.value) else {
                return Ok(None);
            };
            let dealt_with = !fence.is_open() && fence.victim.same_boot(&lease.incarnation);
            Ok(dealt_with.then_some(()))
        })
    }

    /// Makes the nodes take guests again that were fenced.
    fn make_ready(&self) -> Result<()> {
        for name in self.names()? {
            if self.store.require(&keys::node(&name).domain_state())?.value == DomainState::Flushed {
                self.pvc(&["node", "ready", name.as_str()])?;
            }
        }
        // Its former guests are given back to it first: who places a guest meanwhile loses it again.
        for name in self.names()? {
            let state = keys::node(&name).domain_state();
            self.wait_for(&format!("{name} to be ready"), READY_AGAIN, || {
                Ok((self.store.require(&state)?.value == DomainState::Ready).then_some(()))
            })?;
        }
        Ok(())
    }

    /// Whether an address answers a ping from inside a node.
    pub(crate) fn pings(&self, from: &Node, address: &str) -> Result<bool> {
        Ok(from.exec(&["ping", "-c", "1", "-W", "2", address])?.success())
    }

    /// How the role stands, for messages.
    pub(crate) fn describe(&self) -> String {
        let states = match self.coordinator_states() {
            Ok(states) => states
                .iter()
                .map(|(name, state)| format!("{name} {state}"))
                .collect::<Vec<_>>()
                .join(", "),
            Err(error) => format!("{error:#}"),
        };
        let record = self
            .store
            .get(&keys::config().primary_node())
            .map(|record| format!("{:?}", record.map(|record| record.value)))
            .unwrap_or_else(|error| format!("{error:#}"));
        let address = std::net::IpAddr::V4(Network::Upstream.floating_v4());
        format!(
            "states: {states}; record: {record}; {address} is on {:?}",
            self.addresses.holders(address)
        )
    }

    /// The floating address by which users reach the API.
    pub(crate) fn api_address(&self) -> std::net::IpAddr {
        Network::Upstream.floating_v4().into()
    }

    /// Waits for something, with this cluster described if it does not come.
    pub(crate) fn wait_for<T>(
        &self,
        what: &str,
        deadline: Duration,
        condition: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        wait_for(what, deadline, condition).with_context(|| self.describe())
    }
}

fn ceph_osds_up(node: &Node) -> usize {
    let argv = [
        "ceph",
        "--connect-timeout",
        "5",
        "--format",
        "json",
        "osd",
        "stat",
    ];
    node.exec_within(Duration::from_secs(10), &argv)
        .ok()
        .and_then(|output| serde_json::from_str::<serde_json::Value>(&output.stdout).ok())
        .and_then(|stat| stat.get("num_up_osds")?.as_u64())
        .and_then(|count| usize::try_from(count).ok())
        .unwrap_or(0)
}

/// How many times its target a failover of the tests may take.
const TOLERATED: u32 = 4;

/// Says a figure beside its target. A test must not fail because the machine is slow, and failovers are processor time on
/// a small one: so it fails only where something was waited for that should not be. The benchmark judges by the target.
pub(crate) fn near_target(what: &str, took: Duration, target: Duration) -> Result<()> {
    let what = format!("{what} (target {:.0} s)", target.as_secs_f64());
    within(&what, took, target * TOLERATED)
}

/// Fails if a measured time is above its limit; both are shown either way.
pub(crate) fn within(what: &str, took: Duration, limit: Duration) -> Result<()> {
    crate::say(&format!(
        "{what}: {:.2} s (limit {:.1} s)",
        took.as_secs_f64(),
        limit.as_secs_f64()
    ));
    if took > limit {
        bail!(
            "{what} took {:.2} s, the limit is {:.1} s",
            took.as_secs_f64(),
            limit.as_secs_f64()
        );
    }
    Ok(())
}
