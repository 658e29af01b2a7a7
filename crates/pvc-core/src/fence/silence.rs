//! Silence: for how long a node has not renewed its lease, as one observer knows it.
//!
//! The observer judges in rounds. It renews its own lease; once that is acknowledged it reads all leases in the same
//! session, which ZooKeeper's order makes at least as new as its own write: what it reads then is no old copy from a
//! server that has lost the quorum. A node is silent for the time between the first and the last of *consecutive*
//! rounds that all showed the same version of its lease. A gap in the observer's own rounds (it was frozen, had no
//! quorum, had to reconnect) sets every silence to zero: whoever could not hear says nothing about others.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::{NodeName, ZnodeVersion};
use crate::protection::{Protection, stands};
use crate::records::NodeLease;
use crate::time::BootTime;

/// The longest time from one round to the next at which the two still are consecutive.
pub const LONGEST_STEP: Duration = Duration::from_secs(2);

/// A lease as one round showed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenLease {
    /// Its version.
    pub version: ZnodeVersion,
    /// What it said; `None` before the node's first life under this schema, or when it can't be read.
    pub lease: Option<NodeLease>,
}

/// One round: all leases, read after an acknowledged renewal of the own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseLook {
    /// When the reading was asked for.
    pub sent: BootTime,
    /// When it was answered.
    pub answered: BootTime,
    /// The leases.
    pub leases: BTreeMap<NodeName, SeenLease>,
}

#[derive(Debug, Clone)]
struct Heard {
    seen: SeenLease,
    /// When the first of the rounds that showed this version was answered.
    since: BootTime,
    /// Whether the version has ever moved while this observer looked.
    moved: bool,
    /// Whether it was seen to move since the last gap in the own rounds: only then is it known to be renewed.
    renewed: bool,
}

/// Counts silences.
#[derive(Debug, Clone, Default)]
pub struct SilenceJudge {
    last: Option<(BootTime, BootTime)>,
    /// Whether there has been a round at all.
    begun: bool,
    heard: BTreeMap<NodeName, Heard>,
}

impl SilenceJudge {
    /// Takes a round in. Answers whether it was consecutive to the one before.
    pub fn look(&mut self, look: LeaseLook) -> bool {
        let mut consecutive = self
            .last
            .is_some_and(|(_, answered)| look.answered.since(answered) <= LONGEST_STEP);
        if !stands(Protection::SilenceInConsecutiveRounds) {
            consecutive = self.last.is_some();
        }
        self.last = Some((look.sent, look.answered));
        self.heard.retain(|node, _| look.leases.contains_key(node));
        for (node, seen) in look.leases {
            match self.heard.get_mut(&node) {
                Some(heard) if heard.seen.version == seen.version => {
                    if !consecutive {
                        heard.since = look.answered;
                        heard.renewed = false;
                    }
                }
                Some(heard) => {
                    *heard = Heard {
                        seen,
                        since: look.answered,
                        moved: true,
                        // Over a gap: it was renewed some time in between, and that may be long ago.
                        renewed: consecutive,
                    };
                }
                None => {
                    self.heard.insert(
                        node,
                        Heard {
                            seen,
                            since: look.answered,
                            // A node that was not there before has registered since.
                            moved: self.begun,
                            renewed: self.begun && consecutive,
                        },
                    );
                }
            }
        }
        self.begun = true;
        consecutive
    }

    /// Counts every silence anew from here, as at the end of a maintenance.
    pub fn forget_silences(&mut self) {
        self.last = None;
    }

    /// For how long `node` has been silent, as far as that is known at `now`. The last round says nothing any more once
    /// the next is overdue: whoever asks may have stood still in between, and then has not heard anybody since.
    pub fn silence(&self, node: &NodeName, now: BootTime) -> Duration {
        match (self.last, self.heard.get(node)) {
            (Some((sent, answered)), Some(heard))
                if now.since(answered) <= LONGEST_STEP || !stands(Protection::SilenceInConsecutiveRounds) =>
            {
                sent.since(heard.since)
            }
            (Some(_), Some(_)) | (None, _) | (_, None) => Duration::ZERO,
        }
    }

    /// Whether it was seen to renew in the own rounds since the last gap in them, as far as that is known at `now`. That no
    /// silence is known of it is not enough: an observer that has just begun, or could not hear, knows nothing of anybody.
    pub fn was_heard(&self, node: &NodeName, now: BootTime) -> bool {
        self.last
            .is_some_and(|(_, answered)| now.since(answered) <= LONGEST_STEP)
            && self.heard.get(node).is_some_and(|heard| heard.renewed)
    }

    /// Its lease at the last round.
    pub fn lease(&self, node: &NodeName) -> Option<&SeenLease> {
        self.heard.get(node).map(|heard| &heard.seen)
    }

    /// Whether it was seen to renew since this observer began.
    pub fn has_moved(&self, node: &NodeName) -> bool {
        self.heard.get(node).is_some_and(|heard| heard.moved)
    }

    /// All nodes of the last round.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeName> {
        self.heard.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeName {
        NodeName::new("hv2").unwrap()
    }

    fn at(seconds: f64) -> BootTime {
        BootTime::from_duration(Duration::from_secs_f64(1000.0 + seconds))
    }

    fn look(seconds: f64, version: i32) -> LeaseLook {
        LeaseLook {
            sent: at(seconds),
            answered: at(seconds + 0.01),
            leases: [(
                node(),
                SeenLease {
                    version: ZnodeVersion(version),
                    lease: None,
                },
            )]
            .into(),
        }
    }

    #[test]
    fn silence_is_the_time_over_which_own_rounds_showed_one_version() {
        let mut judge = SilenceJudge::default();
        for second in 0..7 {
            judge.look(look(f64::from(second), 4));
        }
        // From the first answer to the last question: never more than what was really observed.
        assert_eq!(judge.silence(&node(), at(6.5)), Duration::from_secs_f64(5.99));
        assert!(!judge.has_moved(&node()));
        judge.look(look(7.0, 5));
        assert_eq!(judge.silence(&node(), at(7.5)), Duration::ZERO);
        assert!(judge.has_moved(&node()));
    }

    #[test]
    fn a_gap_in_the_own_rounds_sets_every_silence_to_zero() {
        // A fencer that was frozen, or had no quorum, has heard nobody: it must not take that for their silence.
        let mut judge = SilenceJudge::default();
        for second in 0..5 {
            judge.look(look(f64::from(second), 4));
        }
        assert!(!judge.look(look(60.0, 4)));
        assert_eq!(judge.silence(&node(), at(60.5)), Duration::ZERO);
        judge.look(look(61.0, 4));
        assert_eq!(judge.silence(&node(), at(61.5)), Duration::from_secs_f64(0.99));
    }

    // An agent that stood still asks before its next round: what it knew before that is too old to act upon.
    #[test]
    fn what_an_overdue_round_showed_says_nothing() {
        let mut judge = SilenceJudge::default();
        for second in 0..7 {
            judge.look(look(f64::from(second), 4));
        }
        assert_eq!(judge.silence(&node(), at(8.0)), Duration::from_secs_f64(5.99));
        assert_eq!(judge.silence(&node(), at(8.02)), Duration::ZERO);
    }

    #[test]
    fn a_store_that_shows_an_older_version_breaks_the_silence_too() {
        let mut judge = SilenceJudge::default();
        for second in 0..5 {
            judge.look(look(f64::from(second), 4));
        }
        judge.look(look(5.0, 3));
        assert_eq!(judge.silence(&node(), at(5.5)), Duration::ZERO);
    }

    #[test]
    fn nobody_is_known_to_live_before_it_was_seen_to_renew_since_the_last_gap() {
        let mut judge = SilenceJudge::default();
        judge.look(look(0.0, 4));
        assert!(!judge.was_heard(&node(), at(0.5)));
        judge.look(look(1.0, 5));
        assert!(judge.was_heard(&node(), at(1.5)));
        judge.look(look(2.0, 5));
        assert!(judge.was_heard(&node(), at(2.5)));
        // Overdue, and then a gap over which it has moved: that may have been right after the last look.
        assert!(!judge.was_heard(&node(), at(9.0)));
        judge.look(look(60.0, 9));
        assert!(!judge.was_heard(&node(), at(60.5)));
        judge.look(look(61.0, 10));
        assert!(judge.was_heard(&node(), at(61.5)));
    }

    #[test]
    fn maintenance_that_ends_counts_anew() {
        let mut judge = SilenceJudge::default();
        for second in 0..5 {
            judge.look(look(f64::from(second), 4));
        }
        judge.forget_silences();
        assert_eq!(judge.silence(&node(), at(4.5)), Duration::ZERO);
        judge.look(look(5.0, 4));
        assert_eq!(judge.silence(&node(), at(5.5)), Duration::ZERO);
    }
}
