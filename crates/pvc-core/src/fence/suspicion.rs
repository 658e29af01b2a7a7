//! Who is suspect, and the brakes on it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::record::{FencePhase, FenceRecord};
use super::silence::SilenceJudge;
use crate::ids::NodeName;
use crate::lease::LeaseTiming;
use crate::protection::{Protection, stands};
use crate::records::NodeLease;
use crate::states::DaemonState;
use crate::time::BootTime;

/// The waits of suspicion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuspicionSettings {
    /// A node that was silent for this long is suspect.
    pub suspected_after: Duration,
    /// For how long a node that was not seen alive since this observer began is given time to come up: after a power
    /// failure of the whole site, servers take minutes, each its own time.
    pub cold_start_grace: Duration,
    /// Nodes that fell silent within this time of one another fell silent together.
    pub together_within: Duration,
}

impl SuspicionSettings {
    /// The settings of the daemons, for a number of renewals missed.
    ///
    /// Rounds are a renewal's period apart, and a silence is counted from the answer of one to the question of another:
    /// with `n` renewals missed it is a little less than `n` periods. A tenth of a period makes up for that; without it
    /// each suspicion would come a whole round late.
    pub fn missed(renewals: u32) -> SuspicionSettings {
        let period = LeaseTiming::DEFAULT.period;
        SuspicionSettings::after(period * renewals - period / 10)
    }

    /// The settings of the daemons, for a silence.
    pub const fn after(suspected_after: Duration) -> SuspicionSettings {
        SuspicionSettings {
            suspected_after,
            cold_start_grace: Duration::from_secs(300),
            together_within: Duration::from_secs(60),
        }
    }
}

/// How a node stands with this observer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It renews its lease: that was seen in this observer's own rounds.
    Alive,
    /// This observer has neither seen it renew nor heard it be silent: it has just begun, or could not hear. A moment
    /// later it knows. Nothing is concluded from this, neither that the node lives nor that it does not.
    Unknown,
    /// It has been silent, but not for long enough.
    Quiet {
        /// For how long.
        silence: Duration,
    },
    /// It has never registered under this schema.
    NeverRegistered,
    /// It has said that it stops: nobody expects it to renew.
    Stopped,
    /// It was not seen alive since this observer began, and still has time.
    ComingUp {
        /// How much.
        left: Duration,
    },
    /// It has been silent for long enough.
    Suspect {
        /// For how long.
        silence: Duration,
    },
}

/// The most nodes that may fall silent together before nobody is fenced: with more than these, it is more likely that
/// something between the nodes has failed than that they all died.
pub fn brake_limit(nodes: usize) -> usize {
    (nodes / 4).max(2)
}

/// Many nodes fell silent at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrakeOn {
    /// How many.
    pub silent: usize,
    /// Of how many.
    pub nodes: usize,
    /// How many would be tolerated.
    pub limit: usize,
}

/// Judges all nodes, and remembers when each fell silent.
#[derive(Debug, Clone)]
pub struct SuspicionJudge {
    settings: SuspicionSettings,
    begun: BootTime,
    fell_silent: BTreeMap<NodeName, BootTime>,
    /// Since when each that is alive has been so without a break.
    alive_since: BTreeMap<NodeName, BootTime>,
    /// Those that were alive at any time since this observer began.
    once_alive: BTreeSet<NodeName>,
}

impl SuspicionJudge {
    /// An observer that begins at `now`.
    pub fn new(settings: SuspicionSettings, now: BootTime) -> SuspicionJudge {
        SuspicionJudge {
            settings,
            begun: now,
            fell_silent: BTreeMap::new(),
            alive_since: BTreeMap::new(),
            once_alive: BTreeSet::new(),
        }
    }

    /// How a node stands.
    pub fn standing(
        &self,
        now: BootTime,
        node: &NodeName,
        silences: &SilenceJudge,
        state: DaemonState,
    ) -> Standing {
        let Some(lease) = silences.lease(node) else {
            return Standing::NeverRegistered;
        };
        if lease.lease.is_none() {
            return Standing::NeverRegistered;
        }
        if state == DaemonState::Stop {
            return Standing::Stopped;
        }
        let silence = silences.silence(node, now);
        if silence < self.settings.suspected_after {
            return if silence >= self.settings.suspected_after / 2 {
                Standing::Quiet { silence }
            } else if silences.was_heard(node, now) {
                Standing::Alive
            } else {
                Standing::Unknown
            };
        }
        let since_begun = now.since(self.begun);
        if !silences.has_moved(node) && since_begun < self.settings.cold_start_grace {
            return Standing::ComingUp {
                left: self.settings.cold_start_grace - since_begun,
            };
        }
        Standing::Suspect { silence }
    }

    /// Takes a round in: who fell silent, and who is heard again.
    pub fn update(&mut self, now: BootTime, standings: &BTreeMap<NodeName, Standing>) {
        // A gap in the own rounds ends no silence: otherwise all that are silent would fall silent together after it.
        self.fell_silent.retain(|node, _| {
            standings
                .get(node)
                .is_some_and(|standing| is_silent(standing) || *standing == Standing::Unknown)
        });
        self.alive_since
            .retain(|node, _| standings.get(node) == Some(&Standing::Alive));
        for (node, standing) in standings {
            if is_silent(standing) {
                self.fell_silent.entry(node.clone()).or_insert(now);
            }
            if *standing == Standing::Alive {
                self.alive_since.entry(node.clone()).or_insert(now);
                self.once_alive.insert(node.clone());
            }
        }
    }

    /// For how long `node` has been alive without a break, as this observer knows.
    pub fn alive_for(&self, node: &NodeName, now: BootTime) -> Duration {
        self.alive_since
            .get(node)
            .map_or(Duration::ZERO, |since| now.since(*since))
    }

    /// Whether so many fell silent together that nobody may be fenced.
    ///
    /// Those that are dead and done with, by `fences`, count only if this observer heard them fall silent: of the others,
    /// dead for weeks perhaps, it would take the time at which it began to judge them for the time of their fall. One
    /// that it did hear counts also when it is done with: somebody who lets one of nine go on means that one.
    pub fn brake(&self, nodes: usize, fences: &BTreeMap<NodeName, FenceRecord>) -> Option<BrakeOn> {
        if !stands(Protection::Brake) {
            return None;
        }
        let mut times: Vec<BootTime> = self
            .fell_silent
            .iter()
            .filter(|(node, _)| {
                let done = fences.get(*node).is_some_and(|record| {
                    matches!(record.phase, FencePhase::Done { .. }) && record.returned.is_none()
                });
                self.once_alive.contains(*node) || !done
            })
            .map(|(_, fell)| *fell)
            .collect();
        times.sort();
        let limit = brake_limit(nodes);
        let together = times
            .iter()
            .map(|first| {
                times
                    .iter()
                    .filter(|time| *time >= first && time.since(*first) <= self.settings.together_within)
                    .count()
            })
            .max()
            .unwrap_or(0);
        (together > limit).then_some(BrakeOn {
            silent: together,
            nodes,
            limit,
        })
    }
}

fn is_silent(standing: &Standing) -> bool {
    match standing {
        // Half of the time to suspicion counts: of nodes that fell silent in the same second, the first would
        // otherwise be fenced before the others count.
        Standing::Quiet { .. } | Standing::Suspect { .. } => true,
        Standing::Alive
        | Standing::Unknown
        | Standing::NeverRegistered
        | Standing::Stopped
        | Standing::ComingUp { .. } => false,
    }
}

/// Whether a lease shows that the boot which `record` is about lives on.
pub fn same_boot_renews(record: &FenceRecord, lease: Option<&NodeLease>, standing: &Standing) -> bool {
    *standing == Standing::Alive && lease.is_some_and(|lease| lease.incarnation.same_boot(&record.victim))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::silence::{LeaseLook, SeenLease};
    use crate::ids::{BootId, Incarnation, MachineId, ZnodeVersion};

    const SETTINGS: SuspicionSettings = SuspicionSettings::after(Duration::from_secs(6));

    fn name(number: usize) -> NodeName {
        NodeName::new(format!("hv{number}")).unwrap()
    }

    fn at(seconds: u64) -> BootTime {
        BootTime::from_duration(Duration::from_secs(1000 + seconds))
    }

    struct Observer {
        silences: SilenceJudge,
        judge: SuspicionJudge,
        versions: Vec<i32>,
    }

    impl Observer {
        fn new(nodes: usize) -> Observer {
            Observer {
                silences: SilenceJudge::default(),
                judge: SuspicionJudge::new(SETTINGS, at(0)),
                versions: vec![0; nodes],
            }
        }

        /// A round in which those in `renewing` have renewed.
        fn round(&mut self, second: u64, renewing: impl Fn(usize) -> bool) -> BTreeMap<NodeName, Standing> {
            for (node, version) in self.versions.iter_mut().enumerate() {
                *version += i32::from(renewing(node));
            }
            let lease = Some(NodeLease {
                incarnation: Incarnation {
                    machine_id: MachineId::new("1".repeat(32)).unwrap(),
                    boot_id: BootId::new("6ba7b810-9dad-11d1-80b4-000000000001").unwrap(),
                    counter: 1,
                },
                protocol: 1,
                counter: 1,
            });
            self.silences.look(LeaseLook {
                sent: at(second),
                answered: at(second),
                leases: self
                    .versions
                    .iter()
                    .enumerate()
                    .map(|(node, version)| {
                        let version = ZnodeVersion(*version);
                        (
                            name(node),
                            SeenLease {
                                version,
                                lease: lease.clone(),
                            },
                        )
                    })
                    .collect(),
            });
            let standings = (0..self.versions.len())
                .map(|node| {
                    let standing =
                        self.judge
                            .standing(at(second), &name(node), &self.silences, DaemonState::Run);
                    (name(node), standing)
                })
                .collect();
            self.judge.update(at(second), &standings);
            standings
        }
    }

    #[test]
    fn a_node_is_suspect_after_the_configured_silence_and_not_before() {
        let mut observer = Observer::new(3);
        for second in 0..4 {
            observer.round(second, |_| true);
        }
        // Last seen to move at second 3.
        for second in 4..9 {
            let standings = observer.round(second, |node| node != 2);
            assert!(
                !matches!(standings[&name(2)], Standing::Suspect { .. }),
                "{second}"
            );
        }
        let standings = observer.round(9, |node| node != 2);
        assert_eq!(
            standings[&name(2)],
            Standing::Suspect {
                silence: Duration::from_secs(6)
            }
        );
        assert_eq!(standings[&name(1)], Standing::Alive);
    }

    #[test]
    fn a_node_that_was_never_seen_alive_has_time_to_come_up() {
        // Lesson 18, and a cold start of the whole site.
        let mut observer = Observer::new(3);
        for second in 0..300 {
            let standings = observer.round(second, |node| node != 2);
            assert!(
                !matches!(standings[&name(2)], Standing::Suspect { .. }),
                "{second}"
            );
        }
        let standings = observer.round(300, |node| node != 2);
        assert!(matches!(standings[&name(2)], Standing::Suspect { .. }));
    }

    #[test]
    fn a_stopped_node_is_never_suspect() {
        let mut observer = Observer::new(3);
        for second in 0..20 {
            observer.round(second, |node| node != 2 || second < 3);
        }
        let standing = observer
            .judge
            .standing(at(20), &name(2), &observer.silences, DaemonState::Stop);
        assert_eq!(standing, Standing::Stopped);
        for state in [
            DaemonState::Init,
            DaemonState::Run,
            DaemonState::Shutdown,
            DaemonState::Dead,
        ] {
            let standing = observer
                .judge
                .standing(at(20), &name(2), &observer.silences, state);
            assert!(matches!(standing, Standing::Suspect { .. }), "{state}");
        }
    }

    #[test]
    fn when_many_fall_silent_together_the_brake_holds_until_the_number_falls() {
        // 9 of 30 lose their switch: seven may, nine may not.
        let mut observer = Observer::new(30);
        for second in 0..3 {
            observer.round(second, |_| true);
        }
        for second in 3..5 {
            observer.round(second, |node| node < 21);
        }
        assert_eq!(observer.judge.brake(30, &BTreeMap::new()), None);
        // The brake is on before the first of them is suspect, and does not wear off.
        for second in 5..200 {
            observer.round(second, |node| node < 21);
            assert_eq!(
                observer.judge.brake(30, &BTreeMap::new()),
                Some(BrakeOn {
                    silent: 9,
                    nodes: 30,
                    limit: 7
                }),
                "{second}"
            );
        }
        observer.round(200, |node| node < 23);
        assert_eq!(observer.judge.brake(30, &BTreeMap::new()), None);
    }

    #[test]
    fn two_of_five_that_die_at_once_are_fenced() {
        let mut observer = Observer::new(5);
        for second in 0..20 {
            observer.round(second, |node| node < 3 || second < 3);
            assert_eq!(observer.judge.brake(5, &BTreeMap::new()), None);
        }
    }

    #[test]
    fn a_gap_in_the_own_rounds_neither_revives_a_node_nor_lets_the_dead_fall_silent_together() {
        let mut observer = Observer::new(6);
        // Three die, two minutes after one another.
        let alive = |second: u64, node: usize| match node {
            3 => second < 3,
            4 => second < 123,
            5 => second < 243,
            _ => true,
        };
        for second in 0..300 {
            observer.round(second, |node| alive(second, node));
        }
        assert_eq!(
            observer.judge.alive_for(&name(0), at(299)),
            Duration::from_secs(298)
        );
        // This observer stood still for a minute.
        let standings = observer.round(360, |node| alive(360, node));
        for node in 0..6 {
            assert_eq!(standings[&name(node)], Standing::Unknown, "{node}");
        }
        for second in 361..400 {
            let standings = observer.round(second, |node| alive(second, node));
            assert_eq!(standings[&name(0)], Standing::Alive);
            for node in 3..6 {
                assert_ne!(standings[&name(node)], Standing::Alive, "{node} at {second}");
            }
            assert_eq!(observer.judge.brake(6, &BTreeMap::new()), None, "{second}");
        }
        assert_eq!(
            observer.judge.alive_for(&name(0), at(399)),
            Duration::from_secs(38)
        );
    }

    #[test]
    fn nodes_that_were_dead_and_done_with_before_do_not_count_for_the_brake() {
        use crate::fence::proof::ProofKind;
        // `until`: the second up to which three of six are heard.
        let braked = |until: u64, done: bool, returned: bool| {
            let mut observer = Observer::new(6);
            for second in 0..310 {
                observer.round(second, |node| node < 3 || second < until);
            }
            let lease = observer.silences.lease(&name(3)).unwrap().lease.clone().unwrap();
            let mut record = FenceRecord::suspected(lease.incarnation.clone(), name(0));
            if done {
                record.phase = FencePhase::Done { by: ProofKind::Power };
            }
            record.returned = returned.then_some(lease.incarnation);
            observer
                .judge
                .brake(6, &BTreeMap::from([(name(3), record)]))
                .is_some()
        };
        assert!(braked(0, false, false));
        assert!(!braked(0, true, false));
        // One that has come back since, and is silent again, counts; so does one whose fall was heard.
        assert!(braked(0, true, true));
        assert!(braked(3, true, false));
    }

    #[test]
    fn nodes_that_die_one_after_another_over_hours_do_not_add_up() {
        let mut observer = Observer::new(6);
        for second in 0..400 {
            observer.round(second, |node| match node {
                3 => second < 3,
                4 => second < 150,
                5 => second < 300,
                _ => true,
            });
            assert_eq!(observer.judge.brake(6, &BTreeMap::new()), None, "{second}");
        }
    }
}
