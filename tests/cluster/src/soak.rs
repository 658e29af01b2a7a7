//! Chaos: daemons are killed and guests are started, stopped and moved at random, while the observer looks on. What is
//! done and when follows from a seed; what comes of it does not, for the cluster has a timing of its own.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use pvc_core::states::VmState;
use pvc_lab::Node;

use crate::cases::ha;
use crate::clock::Moment;
use crate::cluster::Cluster;
use crate::guests::{self, Guest};
use crate::observer::timeline;

/// How many guests there are.
const GUESTS: usize = 4;
/// Longest pause between two actions.
const PAUSE_MS: u64 = 2500;
/// Until every guest is at rest after the last action: a shutdown and three tries of a migration.
const SETTLED: Duration = Duration::from_secs(180);
/// The last lines of the story that an error tells.
const TOLD: usize = 40;

/// What can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Action {
    KillAgent,
    KillApi,
    KillLibvirt,
    Start,
    Stop,
    ShutDown,
    Move,
}

impl Action {
    /// Each with how often it comes.
    const ALL: [(Action, u64); 7] = [
        (Action::KillAgent, 4),
        (Action::KillApi, 2),
        (Action::KillLibvirt, 1),
        (Action::Start, 6),
        (Action::Stop, 2),
        (Action::ShutDown, 1),
        (Action::Move, 5),
    ];

    fn draw(random: &mut Random) -> Action {
        let all: u64 = Action::ALL.iter().map(|(_, weight)| weight).sum();
        let mut left = random.below(all);
        for (action, weight) in Action::ALL {
            if left < weight {
                return action;
            }
            left -= weight;
        }
        Action::Start
    }
}

/// SplitMix64: the same numbers for the same seed, everywhere.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        let index = usize::try_from(self.below(all.len() as u64)).ok()?;
        all.get(index)
    }
}

/// Mistreats the cluster for so long.
pub(crate) fn run(how_long: Duration, seed: Option<u64>) -> Result<()> {
    let seed = match seed {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    };
    crate::say(&format!("seed {seed}, {} s", how_long.as_secs()));
    let mut cluster = Cluster::attach()?;
    cluster.restore()?;
    let begun = Moment::now();
    let mut story = Vec::new();
    let result = chaos(&mut cluster, how_long, seed, &mut story);
    if result.is_err() {
        crate::say(&format!(
            "the story:\n{}\nas it was seen:\n{}",
            story[story.len().saturating_sub(TOLD)..].join("\n"),
            timeline::tell(&cluster.observer, begun)
        ));
    }
    cluster.restore()?;
    result.with_context(|| format!("seed {seed}"))
}

fn chaos(cluster: &mut Cluster, how_long: Duration, seed: u64, story: &mut Vec<String>) -> Result<()> {
    let nodes = cluster.lab.nodes().to_vec();
    let mut defined = Vec::new();
    for number in 0..GUESTS {
        let node = nodes.get(number % nodes.len()).context("the lab has no nodes")?;
        defined.push(guests::define(cluster, &format!("soak{number}"), node)?);
    }
    ha::start_all(cluster, &defined)?;
    let begun = Moment::now();
    let mut random = Random(seed);
    let mut done: BTreeMap<Action, (u32, u32)> = BTreeMap::new();
    while begun.elapsed() < how_long {
        let action = Action::draw(&mut random);
        let (Some(node), Some(guest)) = (random.one_of(&nodes), random.one_of(&defined)) else {
            bail!("there is nothing to mistreat");
        };
        let pause = Duration::from_millis(random.below(PAUSE_MS));
        let refused = act(cluster, action, node, guest)?;
        story.push(format!(
            "{:>+8.2} s  {action:?} {} {}{}",
            begun.elapsed().as_secs_f64(),
            node.id(),
            guest.name,
            refused.as_deref().map_or(String::new(), |why| format!(": {why}"))
        ));
        let counts = done.entry(action).or_default();
        if refused.is_some() {
            counts.1 += 1;
        } else {
            counts.0 += 1;
        }
        cluster.observer.must_be_clean(Some(begun))?;
        cluster.addresses.must_never_overlap()?;
        thread::sleep(pause);
    }
    for (action, (taken, refused)) in &done {
        crate::say(&format!("{action:?}: {taken} done, {refused} refused"));
    }
    cluster.wait_healthy()?;
    for guest in &defined {
        settle(cluster, guest)?;
    }
    // Whatever was done to it, a guest can be started.
    let late = Moment::now();
    for guest in &defined {
        if guest.stored_state(cluster)? != VmState::Start {
            cluster.pvc(&["vm", "start", &guest.name])?;
        }
    }
    for guest in &defined {
        ha::wait_written(cluster, guest, late, SETTLED)?;
    }
    // An agent that is killed is back before anybody takes its node for dead.
    ha::must_not_have_fenced(cluster, begun)?;
    ha::audit(cluster, begun)
}

/// Does it; tells why it was refused, which the cluster may well do.
fn act(cluster: &Cluster, action: Action, node: &Node, guest: &Guest) -> Result<Option<String>> {
    let kill = |unit: &str| -> Result<Option<String>> {
        let output = node.exec(&["systemctl", "kill", "--kill-whom=main", "--signal=SIGKILL", unit])?;
        Ok((!output.success()).then(|| output.stderr.trim().to_owned()))
    };
    let pvc = |words: &[&str]| -> Result<Option<String>> {
        let mut all = vec!["--quiet", "--unsafe"];
        all.extend(words);
        let output = cluster.lab.pvc(&all)?;
        Ok((!output.success()).then(|| output.stderr.trim().to_owned()))
    };
    match action {
        Action::KillAgent => kill("pvcnoded.service"),
        Action::KillApi => kill("pvcapid.service"),
        Action::KillLibvirt => kill("libvirtd.service"),
        Action::Start => pvc(&["vm", "start", &guest.name]),
        Action::Stop => pvc(&["vm", "stop", &guest.name]),
        Action::ShutDown => pvc(&["vm", "shutdown", &guest.name]),
        Action::Move => pvc(&["vm", "move", "--target", &node.name(), &guest.name]),
    }
}

/// Waits until the guest is what the store says: at rest without a process, or with one where its owner is.
fn settle(cluster: &Cluster, guest: &Guest) -> Result<()> {
    let mut seen = String::new();
    cluster
        .wait_for(&format!("{} to settle", guest.name), SETTLED, || {
            let state = guest.stored_state(cluster)?;
            let owner = guest.owner(cluster)?.map(|owner| owner.node.to_string());
            let mut places = Vec::new();
            for node in cluster.lab.nodes() {
                places.extend(guest.processes(node)?.into_iter().map(|_| node.name()));
            }
            seen = format!("state {state}, owner {owner:?}, processes on {places:?}");
            let is_settled = match state {
                VmState::Start => places.len() == 1 && owner.as_ref() == places.first(),
                VmState::Stop | VmState::Disable | VmState::Fail => places.is_empty() && owner.is_none(),
                VmState::Restart
                | VmState::Shutdown
                | VmState::Migrate
                | VmState::MigrateLive
                | VmState::Unmigrate
                | VmState::Provision
                | VmState::Import
                | VmState::Restore
                | VmState::Delete
                | VmState::Mirror => false,
            };
            Ok(is_settled.then_some(()))
        })
        .with_context(|| seen.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_chaos_each_time() {
        let draw = |seed| {
            let mut random = Random(seed);
            (0..50).map(|_| Action::draw(&mut random)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        for (action, _) in Action::ALL {
            assert!(
                draw(7).contains(&action) || draw(8).contains(&action),
                "{action:?}"
            );
        }
    }
}
