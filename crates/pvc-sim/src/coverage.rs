//! What the schedules reached: a simulator that never gets as far as a fence proves nothing about fences.

use std::collections::BTreeMap;

/// Every column of the table. A zero in one of them, over a whole run, fails it.
pub const COLUMNS: &[&str] = &[
    "claims",
    "hand-overs",
    "lease-takeovers",
    "restarts",
    "starts",
    "fences by power",
    "fences by storage",
    "fences by new boot",
    "resumed fences",
    "recoveries",
    "saving throws",
    "brakes",
    "migrations",
    "attachments",
    "faults in prepare",
    "faults in pre-copy",
    "faults in switch-over",
    "faults in finish",
];

/// How often each thing came about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    counts: BTreeMap<&'static str, u64>,
}

impl Coverage {
    /// It came about once more.
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// How often it came about.
    pub fn of(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    /// Takes in what another schedule reached.
    pub fn add(&mut self, other: &Coverage) {
        for (what, count) in &other.counts {
            *self.counts.entry(what).or_default() += count;
        }
    }

    /// Everything that was counted.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.counts.iter().map(|(what, count)| (*what, *count))
    }
}
