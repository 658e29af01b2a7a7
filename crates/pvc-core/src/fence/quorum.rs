//! What a power-off would leave of the coordinators.
//!
//! The coordination store and Ceph's monitors run on the coordinators, and each needs a majority of them. A coordinator
//! whose agent is silent may serve both all the same: its agent may be in a crash loop. Switching it off while others are
//! away already would take the last majority, and with it every guest's I/O and the fence's own recovery. If it really
//! is dead there is no majority, and then no fencer either: so nothing is lost by sparing it.

use std::collections::BTreeMap;
use std::fmt;

use crate::ids::NodeName;

/// How a coordinator stands with a fencer, as far as a majority is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CoordinatorLife {
    /// The fencer itself, or one that it hears and that nobody fences.
    Heard,
    /// Silent, stopped, suspect, fenced, or not known.
    NotHeard,
}

/// Too few coordinators would be left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuorumAtStake {
    /// How many would be left.
    pub left: usize,
    /// Of how many.
    pub coordinators: usize,
}

impl fmt::Display for QuorumAtStake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "switching it off would take the quorum of the coordinators: only {} of {} would be left",
            self.left, self.coordinators
        )
    }
}

/// Whether switching `victim` off would leave no majority of the coordinators.
///
/// SAFETY(fencing): judged by whom the fencer hears, since nobody can know more: a silent coordinator is not counted on.
pub fn quorum_at_stake(
    victim: &NodeName,
    coordinators: &BTreeMap<NodeName, CoordinatorLife>,
) -> Option<QuorumAtStake> {
    if !coordinators.contains_key(victim) {
        return None;
    }
    let left = coordinators
        .iter()
        .filter(|(node, life)| *node != victim && **life == CoordinatorLife::Heard)
        .count();
    let coordinators = coordinators.len();
    (left * 2 <= coordinators).then_some(QuorumAtStake { left, coordinators })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stake(victim: &str, lives: &str) -> Option<(usize, usize)> {
        let coordinators = lives
            .chars()
            .zip(1..)
            .map(|(life, number)| {
                let life = match life {
                    'h' => CoordinatorLife::Heard,
                    _ => CoordinatorLife::NotHeard,
                };
                (NodeName::new(format!("hv{number}")).unwrap(), life)
            })
            .collect();
        quorum_at_stake(&NodeName::new(victim).unwrap(), &coordinators)
            .map(|stake| (stake.left, stake.coordinators))
    }

    #[test]
    fn nobody_is_switched_off_whose_absence_leaves_no_majority_of_the_coordinators() {
        for (victim, lives, expected) in [
            // One of three dies: two are left.
            ("hv3", "hh-", None),
            // One is away for repair already.
            ("hv2", "--h", Some((1, 3))),
            // It is heard again: it counts no more than before, since it is to be switched off.
            ("hv2", "-hh", Some((1, 3))),
            // Two of five may go, a third may not.
            ("hv4", "hhh--", None),
            ("hv3", "hh---", Some((2, 5))),
            // Of two or four, half is no majority.
            ("hv2", "h-", Some((1, 2))),
            ("hv4", "hhh-", None),
            ("hv4", "hh--", Some((2, 4))),
            // A node that is no coordinator takes nothing away.
            ("hv9", "h--", None),
        ] {
            assert_eq!(stake(victim, lives), expected, "{victim} of {lives}");
        }
    }
}
