//! The safeguards of the high-availability protocol, each by name.
//!
//! A safeguard that nothing misses when it is gone protects nothing. Each rule that stands between a failure and two
//! writers or two primaries has a name here, and the code that keeps it asks [`stands`]. In every product build that is
//! the constant `true`, and the compiler removes the question. With the feature `mutations`, which only the simulator
//! turns on, one safeguard at a time can be taken away, and the simulator must then find a schedule that breaks an
//! invariant.

macro_rules! protections {
    ($( $(#[$doc:meta])* $name:ident = $text:literal ),+ $(,)?) => {
        /// A safeguard that can be taken out by the simulator.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Protection {
            $( $(#[$doc])* $name ),+
        }

        impl Protection {
            /// All of them.
            pub const ALL: &'static [Protection] = &[ $( Protection::$name ),+ ];

            /// Its name, as the simulator's commands and reports write it.
            pub const fn name(self) -> &'static str {
                match self {
                    $( Protection::$name => $text ),+
                }
            }
        }
    };
}

protections! {
    /// A claim of the role checks the version of the record that was seen.
    ContentionVersionCheck = "contention-version-check",
    /// A claim of the role checks that the old holder's lease has not moved.
    ClaimLeaseCheck = "claim-lease-check",
    /// A fence writes only while its lock is held.
    LockGuard = "lock-guard",
    /// A renewal of the role lease checks that the record still names this node.
    RoleRenewalRecordCheck = "role-renewal-record-check",
    /// A refresh of an address never adds it.
    RefreshNeverAdds = "refresh-never-adds",
    /// After a refresh the clock is read again, and an address that is too late is taken off.
    RefreshRecheck = "refresh-recheck",
    /// The end of a wait in a hand-over gives nobody a right.
    HandOverDeadlineGrantsNothing = "hand-over-deadline-grants-nothing",
    /// A guest is started only by who has just made itself its owner.
    StartNeedsOwner = "start-needs-owner",
    /// A guest's vCPUs run only once its Ceph clients are on record.
    ResumeAfterClientsRecorded = "resume-after-clients-recorded",
    /// A volume that is attached to a running guest has its Ceph client on record before the vCPUs run again.
    AttachedClientsRecorded = "attached-clients-recorded",
    /// Recovery needs a proof.
    FenceNeedsProof = "fence-needs-proof",
    /// The storage fence bars every client on record, not only those that watch now.
    BlocklistRecordedClients = "blocklist-recorded-clients",
    /// A blocklist entry outlives every pause of the client that it bars.
    LongBlocklistExpiry = "long-blocklist-expiry",
    /// The storage proof waits until every OSD knows the map with the entries.
    EveryOsdKnows = "every-osd-knows",
    /// The intent of an irreversible action is on record before the action.
    IntentBeforeAction = "intent-before-action",
    /// Recovery goes by the guests' own records, not by the dead node's last list.
    RecoverFromOwnRecords = "recover-from-own-records",
    /// Only locks and watchers of the dead node are removed.
    OnlyVictimsLocks = "only-victims-locks",
    /// `dead` in a node's state is no evidence that it is.
    DeadIsNoEvidence = "dead-is-no-evidence",
    /// A migration's source that has handed over is never resumed.
    SourceNeverResumed = "source-never-resumed",
    /// A migration's target takes over only when the source has said that its process is gone: a proof of its death does
    /// not say that it wrote nothing after the switch-over.
    TakeOverOnlyAfterSourceGone = "take-over-only-after-source-gone",
    /// A migration's source says that its process is gone only if that ended because it had been sent: one that ended by
    /// itself may have run on after the switch-over.
    SourceGoneOnlyIfSent = "source-gone-only-if-sent",
    /// Silence is counted in consecutive own rounds only.
    SilenceInConsecutiveRounds = "silence-in-consecutive-rounds",
    /// Liveness is judged by the observer's own clock.
    OwnClockOnly = "own-clock-only",
    /// When many nodes fall silent at once nobody is fenced.
    Brake = "brake",
    /// A fenced node is powered on only after its guests have other owners.
    ReownBeforePowerOn = "reown-before-power-on",
}

/// Whether a safeguard stands. Always so in a product build.
#[cfg(not(feature = "mutations"))]
#[inline(always)]
pub const fn stands(_protection: Protection) -> bool {
    true
}

#[cfg(feature = "mutations")]
mod switch {
    use std::cell::Cell;

    use super::Protection;

    thread_local! {
        static REMOVED: Cell<Option<Protection>> = const { Cell::new(None) };
    }

    /// Takes one safeguard out on this thread, or puts all back.
    pub fn remove(protection: Option<Protection>) {
        REMOVED.with(|removed| removed.set(protection));
    }

    /// Whether a safeguard stands on this thread.
    pub fn stands(protection: Protection) -> bool {
        REMOVED.with(|removed| removed.get() != Some(protection))
    }
}

#[cfg(feature = "mutations")]
pub use switch::{remove, stands};
