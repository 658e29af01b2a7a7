//! Whether a node reaches the upstream network, judged from single looks.
//!
//! One lost packet is no outage, and one that came through is no recovery: the reading goes down after two looks in a
//! row that failed and up after three that did not. A look that could not be made says nothing.

use crate::role::OwnUpstream;
use crate::time::BootTime;

/// Looks in a row that must fail before the reading goes down.
const DOWN_AFTER: u32 = 2;
/// Looks in a row that must succeed before it comes up again.
const UP_AFTER: u32 = 3;

/// What one look at the upstream network showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamLook {
    /// All that was asked for is there.
    Reached,
    /// The link has no carrier, or the interface is off or gone. No accident of a single packet: it counts at once.
    NoCarrier,
    /// The gateway does not answer.
    GatewaySilent,
    /// The look could not be made.
    CantTell {
        /// Why.
        reason: String,
    },
}

/// The reading over many looks.
#[derive(Debug, Clone, Default)]
pub struct UpstreamJudge {
    sight: OwnUpstream,
    failed: u32,
    failed_since: Option<BootTime>,
    reached: u32,
}

impl UpstreamJudge {
    /// Takes in a look that was begun at `now`; answers what is known then.
    pub fn looked(&mut self, look: &UpstreamLook, now: BootTime) -> OwnUpstream {
        match look {
            UpstreamLook::CantTell { .. } => {}
            UpstreamLook::Reached => {
                self.failed = 0;
                self.failed_since = None;
                self.reached += 1;
                let enough = match self.sight {
                    // Nothing was known: the first look tells.
                    OwnUpstream::Unknown | OwnUpstream::Up => true,
                    OwnUpstream::Down { .. } => self.reached >= UP_AFTER,
                };
                if enough {
                    self.sight = OwnUpstream::Up;
                }
            }
            UpstreamLook::NoCarrier => self.failed(DOWN_AFTER, now),
            UpstreamLook::GatewaySilent => self.failed(1, now),
        }
        self.sight
    }

    fn failed(&mut self, weight: u32, now: BootTime) {
        self.reached = 0;
        self.failed = self.failed.saturating_add(weight);
        let since = *self.failed_since.get_or_insert(now);
        if self.failed >= DOWN_AFTER && !matches!(self.sight, OwnUpstream::Down { .. }) {
            self.sight = OwnUpstream::Down { since };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(second: u64) -> BootTime {
        BootTime::from_duration(Duration::from_secs(1000 + second))
    }

    fn check(looks: &str) -> Vec<OwnUpstream> {
        let mut judge = UpstreamJudge::default();
        let look = |word| match word {
            '+' => UpstreamLook::Reached,
            '-' => UpstreamLook::GatewaySilent,
            '!' => UpstreamLook::NoCarrier,
            _ => UpstreamLook::CantTell {
                reason: "no socket".into(),
            },
        };
        (0..)
            .zip(looks.chars())
            .map(|(second, word)| judge.looked(&look(word), at(second)))
            .collect()
    }

    #[test]
    fn one_lost_answer_is_no_outage_and_one_answer_no_recovery() {
        // Each false alarm of the primary would move the role, with every connection on its addresses.
        use OwnUpstream::{Down, Unknown, Up};
        assert_eq!(check("+-+-+"), [Up; 5]);
        assert_eq!(check("+--"), [Up, Up, Down { since: at(1) }]);
        assert_eq!(check("--")[1], Down { since: at(0) });
        assert_eq!(check("+--++")[4], Down { since: at(1) });
        assert_eq!(check("+--+-++")[6], Down { since: at(1) });
        assert_eq!(check("+--+++")[5], Up);
        assert_eq!(check("+!"), [Up, Down { since: at(1) }]);
        // What could not be looked at neither proves nor refutes.
        assert_eq!(check("??"), [Unknown; 2]);
        assert_eq!(check("+??"), [Up; 3]);
        assert_eq!(check("+-?-")[3], Down { since: at(1) });
        assert_eq!(check("+--+?++")[6], Up);
    }
}
