//! What a node does that has lost the storage network alone.
//!
//! Its guests wait at their I/O and go on when the network is back; it is never fenced for it, since it renews its lease
//! over the cluster network. What is wrong is raised as a fault. With `storage_loss: restart` it ends its guests itself
//! after a while and gives them up, so that they start afresh.

use std::time::Duration;

use crate::time::BootTime;

/// Looks in a row that must fail: with one each 3 s, and each with a limit of 1 s, a loss is known within 8 s.
const LOST_AFTER: u32 = 2;
/// How long a node with `restart` waits for its storage before it ends its guests.
pub const RESTART_AFTER: Duration = Duration::from_secs(60);

/// What becomes of the guests of a node that has lost the storage network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StorageLossPolicy {
    /// They wait.
    #[default]
    Wait,
    /// Their owner ends them after [`RESTART_AFTER`] and gives them up.
    Restart,
}

/// What one look at the storage cluster showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageLook {
    /// A monitor of another host answers.
    Reached,
    /// None does.
    Silent {
        /// What happened, in words.
        reason: String,
    },
}

/// Whether a node reaches its storage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StorageSight {
    /// It has not looked, or nothing here needs it.
    #[default]
    Unknown,
    /// It does.
    Reached,
    /// It does not.
    Lost {
        /// Since the first look that failed.
        since: BootTime,
    },
}

impl StorageSight {
    /// Whether this node's guests are ended and given up.
    pub fn ends_guests(&self, policy: StorageLossPolicy, now: BootTime) -> bool {
        match (self, policy) {
            (StorageSight::Lost { since }, StorageLossPolicy::Restart) => now >= *since + RESTART_AFTER,
            (StorageSight::Lost { .. }, StorageLossPolicy::Wait)
            | (StorageSight::Unknown | StorageSight::Reached, _) => false,
        }
    }
}

/// The reading over many looks.
#[derive(Debug, Clone, Default)]
pub struct StorageJudge {
    sight: StorageSight,
    failed: u32,
    failed_since: Option<BootTime>,
}

impl StorageJudge {
    /// Takes in a look that was begun at `now`. One that succeeds ends a loss: guests that go on must not be ended.
    pub fn looked(&mut self, look: &StorageLook, now: BootTime) -> StorageSight {
        match look {
            StorageLook::Reached => {
                self.failed = 0;
                self.failed_since = None;
                self.sight = StorageSight::Reached;
            }
            StorageLook::Silent { .. } => {
                self.failed = self.failed.saturating_add(1);
                let since = *self.failed_since.get_or_insert(now);
                if self.failed >= LOST_AFTER {
                    self.sight = StorageSight::Lost { since };
                }
            }
        }
        self.sight
    }

    /// Nobody looks, since nothing here needs the storage: what was known is old.
    pub fn forget(&mut self) {
        *self = StorageJudge::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> BootTime {
        BootTime::from_duration(Duration::from_secs(1000 + second))
    }

    fn silent() -> StorageLook {
        StorageLook::Silent {
            reason: "no answer".into(),
        }
    }

    #[test]
    fn one_late_answer_is_no_loss_and_one_answer_ends_it() {
        let mut judge = StorageJudge::default();
        assert_eq!(judge.looked(&silent(), at(0)), StorageSight::Unknown);
        assert_eq!(judge.looked(&StorageLook::Reached, at(3)), StorageSight::Reached);
        assert_eq!(judge.looked(&silent(), at(6)), StorageSight::Reached);
        let lost = StorageSight::Lost { since: at(6) };
        assert_eq!(judge.looked(&silent(), at(9)), lost);
        assert_eq!(judge.looked(&silent(), at(12)), lost);
        assert_eq!(judge.looked(&StorageLook::Reached, at(15)), StorageSight::Reached);
        // What was seen before a pause does not count towards a loss after it.
        judge.looked(&silent(), at(18));
        judge.forget();
        assert_eq!(judge.looked(&silent(), at(90)), StorageSight::Unknown);
    }

    #[test]
    fn guests_are_ended_only_if_that_is_set_and_not_a_moment_early() {
        let lost = StorageSight::Lost { since: at(0) };
        assert!(!lost.ends_guests(StorageLossPolicy::Wait, at(9999)));
        let almost = at(0) + RESTART_AFTER - Duration::from_millis(1);
        assert!(!lost.ends_guests(StorageLossPolicy::Restart, almost));
        assert!(lost.ends_guests(StorageLossPolicy::Restart, at(0) + RESTART_AFTER));
        for sight in [StorageSight::Unknown, StorageSight::Reached] {
            assert!(!sight.ends_guests(StorageLossPolicy::Restart, at(9999)));
        }
    }
}
