//! The words in which nodes, coordinators and guests say how they are: exactly those of PVC 1.0.3, since its clients
//! and dashboards compare them as text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that is not a word of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {kind}; it must be one of {choices}")]
pub struct UnknownWord {
    /// What the text was meant to be.
    pub kind: &'static str,
    /// The text as it was given.
    pub text: String,
    /// The words that would do, separated by commas.
    pub choices: String,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $kind:literal { $( $(#[$vdoc:meta])* $variant:ident = $word:literal ),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub enum $name { $( $(#[$vdoc])* $variant ),+ }

        impl $name {
            /// Every word of this kind.
            pub const ALL: &'static [$name] = &[ $( $name::$variant ),+ ];

            /// The word as it stands in the store and in the API.
            pub const fn as_str(self) -> &'static str {
                match self { $( $name::$variant => $word ),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text {
                    $( $word => Ok($name::$variant), )+
                    _ => Err(UnknownWord {
                        kind: $kind,
                        text: text.to_owned(),
                        choices: [ $( $word ),+ ].join(", "),
                    }),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = UnknownWord;

            fn try_from(text: String) -> Result<Self, UnknownWord> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(word: $name) -> String {
                word.as_str().to_owned()
            }
        }
    };
}

pub(crate) use words;

words!(
    /// What a node is for; recomputed from the configuration at each start of its agent.
    DaemonMode, "daemon mode" {
        /// Runs guests and may be primary.
        Coordinator = "coordinator",
        /// Runs guests only.
        Hypervisor = "hypervisor",
    }
);
words!(
    /// How a node's agent is.
    DaemonState, "daemon state" {
        /// Starting: registered, not taking part.
        Init = "init",
        /// Taking part.
        Run = "run",
        /// Asked to stop, still renewing its lease.
        Shutdown = "shutdown",
        /// Stopped in order: the last word before its exit.
        Stop = "stop",
        /// Silent for too long, as another coordinator saw it. No proof of anything.
        Dead = "dead",
        /// Proven dead.
        Fenced = "fenced",
    }
);
words!(
    /// A node's part in the primary role.
    CoordinatorState, "coordinator state" {
        /// A hypervisor: never primary.
        Client = "client",
        /// Standing by.
        Secondary = "secondary",
        /// Becoming primary.
        Takeover = "takeover",
        /// Holds the role.
        Primary = "primary",
        /// Giving the role up.
        Relinquish = "relinquish",
    }
);
words!(
    /// Whether a node takes guests.
    DomainState, "domain state" {
        /// Guests accepted.
        Ready = "ready",
        /// Being emptied.
        Flush = "flush",
        /// No guests accepted.
        Flushed = "flushed",
        /// Being filled again.
        Unflush = "unflush",
        /// Its guests are being recovered after a fence.
        FenceFlush = "fence-flush",
    }
);
words!(
    /// A guest's state: request, progress and result in one word, as PVC stores them.
    VmState, "VM state" {
        /// Should run, or does.
        Start = "start",
        /// Shut down, then start.
        Restart = "restart",
        /// Being shut down in order.
        Shutdown = "shutdown",
        /// Does not run.
        Stop = "stop",
        /// Does not run and stays out of start-up and health.
        Disable = "disable",
        /// Could not be started or received; `failedreason` says why.
        Fail = "fail",
        /// Moves, live if possible.
        Migrate = "migrate",
        /// Moves live or not at all.
        MigrateLive = "migrate-live",
        /// Accepted in filters; PVC 1.0.3 never writes it.
        Unmigrate = "unmigrate",
        /// Being built by the provisioner.
        Provision = "provision",
        /// Being imported from a snapshot.
        Import = "import",
        /// Being restored from a backup.
        Restore = "restore",
        /// A copy of another cluster's guest.
        Mirror = "mirror",
        /// Being removed.
        Delete = "delete",
    }
);
words!(
    /// How a target node is chosen.
    NodeSelector, "node selector" {
        /// Most free memory.
        Mem = "mem",
        /// Most memory not provisioned.
        Memprov = "memprov",
        /// Lowest load.
        Load = "load",
        /// Fewest allocated vCPUs.
        Vcpus = "vcpus",
        /// Fewest guests.
        Vms = "vms",
        /// The cluster's default.
        None = "none",
    }
);
words!(
    /// How a guest may be moved.
    MigrationMethod, "migration method" {
        /// Live only.
        Live = "live",
        /// By shutdown and start.
        Shutdown = "shutdown",
        /// Live if possible.
        None = "none",
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T>(all: &[T], words: &[&str])
    where
        T: Copy + fmt::Debug + PartialEq + FromStr<Err = UnknownWord> + ToString + Serialize,
        T: for<'de> Deserialize<'de>,
    {
        // A dashboard that compares a word we spell differently shows a healthy cluster as broken.
        assert_eq!(all.iter().map(ToString::to_string).collect::<Vec<_>>(), words);
        for state in all {
            assert_eq!(state.to_string().parse::<T>().as_ref(), Ok(state));
            let json = serde_json::to_string(state).unwrap();
            assert_eq!(serde_json::from_str::<T>(&json).unwrap(), *state);
        }
        let refused = "Start ".parse::<T>().unwrap_err();
        assert!(refused.to_string().contains(words[0]), "{refused}");
    }

    #[test]
    fn every_word_is_that_of_the_reference_and_round_trips() {
        check(DaemonMode::ALL, &["coordinator", "hypervisor"]);
        check(
            DaemonState::ALL,
            &["init", "run", "shutdown", "stop", "dead", "fenced"],
        );
        check(
            CoordinatorState::ALL,
            &["client", "secondary", "takeover", "primary", "relinquish"],
        );
        check(
            DomainState::ALL,
            &["ready", "flush", "flushed", "unflush", "fence-flush"],
        );
        check(
            VmState::ALL,
            &[
                "start",
                "restart",
                "shutdown",
                "stop",
                "disable",
                "fail",
                "migrate",
                "migrate-live",
                "unmigrate",
                "provision",
                "import",
                "restore",
                "mirror",
                "delete",
            ],
        );
        check(
            NodeSelector::ALL,
            &["mem", "memprov", "load", "vcpus", "vms", "none"],
        );
        check(MigrationMethod::ALL, &["live", "shutdown", "none"]);
    }
}
