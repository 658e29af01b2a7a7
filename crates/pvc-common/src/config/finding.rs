//! What is wrong, or worth a word, in a configuration file.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use pvc_core::ids::NodeName;

/// One thing found in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The key it is about, with dots between its parts (`api.token[1].token`); empty for the file as a whole.
    pub path: String,
    /// The line of the value, counted from 1, if there is one.
    pub line: Option<u64>,
    /// What it is.
    pub problem: Problem,
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The daemons refuse to start.
    Error,
    /// The daemons start; the administrator should know.
    Warning,
}

/// What can be found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file is not YAML.
    #[error("this is not valid YAML: {0}")]
    Syntax(String),
    /// No key of this name exists.
    #[error("unknown key{}", match similar { Some(key) => format!(" (is {key:?} meant?)"), None => String::new() })]
    UnknownKey {
        /// A key of this section that is spelt much alike.
        similar: Option<&'static str>,
    },
    /// The same key stands twice in one section.
    #[error("this key is given twice")]
    DuplicateKey,
    /// A value is needed.
    #[error("missing; expected {expected}")]
    Missing {
        /// What is expected, in words.
        expected: &'static str,
    },
    /// A list where a text should be, or the like.
    #[error("expected {expected}, found {found}")]
    WrongKind {
        /// What is expected, in words.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// The text is not a value of this key.
    #[error("{value:?} is not {expected}{}", if reason.is_empty() { String::new() } else { format!(": {reason}") })]
    BadValue {
        /// The text. Never one of a secret.
        value: String,
        /// What is expected, in words.
        expected: &'static str,
        /// Which rule it breaks, if that adds something.
        reason: String,
    },
    /// A list that must not be empty is.
    #[error("the list is empty")]
    EmptyList,
    /// One node stands twice in a list.
    #[error("node {0} is listed twice")]
    NodeTwice(NodeName),
    /// This host is no node of the cluster.
    #[error("this host's name is {0}, which is not in the list")]
    HostNotListed(NodeName),
    /// A coordinator is no node.
    #[error("coordinator {0} is not in cluster.all_nodes")]
    CoordinatorNotANode(NodeName),
    /// `by-id` needs a number in the name.
    #[error("addresses are chosen by-id, but the name of node {0} contains no number above 0")]
    NodeWithoutNumber(NodeName),
    /// `by-id` gives both the same address.
    #[error("addresses are chosen by-id, but nodes {0} and {1} have the same number")]
    SameNodeNumber(NodeName, NodeName),
    /// The network has no such address for a node.
    #[error(
        "node {node} would have the address number {number} of {network}, which is not a host address there"
    )]
    NodeOutsideNetwork {
        /// The node.
        node: NodeName,
        /// Its number.
        number: u32,
        /// The network, as `address/prefix`.
        network: String,
    },
    /// Bits below the prefix are set.
    #[error("{address} is not the address of a network with prefix {prefix}; that would be {network}")]
    NotANetworkAddress {
        /// What is given.
        address: IpAddr,
        /// The prefix length.
        prefix: u8,
        /// What it would have to be.
        network: IpAddr,
    },
    /// An address of another network.
    #[error("{address} is outside {network}")]
    OutsideNetwork {
        /// The address.
        address: IpAddr,
        /// The network, as `address/prefix`.
        network: String,
    },
    /// The network's own address.
    #[error("{0} is the address of the network itself")]
    IsNetworkAddress(IpAddr),
    /// The network's broadcast address.
    #[error("{0} is the broadcast address of the network")]
    IsBroadcastAddress(IpAddr),
    /// A floating address must be able to leave its node.
    #[error("{address} is the own address of node {node}; a floating address must be one that no node has")]
    FloatingIsNodeAddress {
        /// The address.
        address: IpAddr,
        /// Whose it is.
        node: NodeName,
    },
    /// The gateway is the floating address.
    #[error("{0} is the floating address too")]
    GatewayIsFloating(IpAddr),
    /// The gateway is a node.
    #[error("{address} is the own address of node {node} too")]
    GatewayIsNodeAddress {
        /// The address.
        address: IpAddr,
        /// Whose it is.
        node: NodeName,
    },
    /// Two host networks overlap without being one and the same.
    #[error(
        "{network} overlaps the {other} network; host networks are either apart, or one network on one device with \
         the same prefix"
    )]
    OverlappingNetworks {
        /// This network, as `address/prefix`.
        network: String,
        /// The other network.
        other: &'static str,
    },
    /// A key that another key needs.
    #[error("needed because {because}")]
    NeededBecause {
        /// The other setting, in words.
        because: &'static str,
    },
    /// No kind of proof of a node's death is allowed, so that no guest would ever be recovered.
    #[error(
        "no proof of a node's death is possible: there is no BMC (fencing.ipmi) and failed_fence is none, which rules \
         out the proof by storage. Guests of a dead node would never be recovered"
    )]
    NoPossibleProof,
    /// The destination does not exist.
    #[error("{0:?} is not one of the destinations")]
    NoSuchDestination(String),
    /// Two API keys are the same.
    #[error("this token is the same as that of entry {0}")]
    SameToken(usize),

    /// A key that PVC 1.0.3 took, but that does nothing here.
    #[error("has no effect: {0}")]
    WithoutEffect(&'static str),
    /// A name that is still understood.
    #[error("this is an old name; write {0:?}")]
    OldName(&'static str),
    /// An even number of coordinators.
    #[error("{count} coordinators bear the loss of no more of them than {} would; use an odd number", count - 1)]
    EvenCoordinators {
        /// How many there are.
        count: usize,
    },
    /// The API is open to everyone.
    #[error("the API answers everyone who can reach it")]
    NoAuthentication,
    /// Guests on Ceph need it.
    #[error("without it guests with volumes on Ceph cannot start")]
    NoCephSecret,
    /// A secret that everyone knows.
    #[error("this is still the value of the sample file, which everyone knows")]
    SampleSecret,
    /// Users other than root can read the secrets.
    #[error("the file contains passwords but every user can read it (mode {mode:03o}); use chmod 640")]
    WorldReadable {
        /// Its permission bits.
        mode: u32,
    },
    /// ZooKeeper's own configuration is too slow for the promised times.
    #[error(
        "a leader of ZooKeeper that falls silent is only replaced after about {limit_ms} ms (tickTime {tick_time_ms} \
         times syncLimit {sync_limit}): every such loss will drop the floating addresses, and a dead primary is not \
         replaced within 8 s. Set tickTime=500 and syncLimit=4"
    )]
    SlowZooKeeper {
        /// tickTime in milliseconds.
        tick_time_ms: u64,
        /// syncLimit in ticks.
        sync_limit: u64,
        /// Their product.
        limit_ms: u64,
    },
}

impl Problem {
    /// How bad it is.
    pub fn severity(&self) -> Severity {
        match self {
            Problem::Syntax(_)
            | Problem::UnknownKey { .. }
            | Problem::DuplicateKey
            | Problem::Missing { .. }
            | Problem::WrongKind { .. }
            | Problem::BadValue { .. }
            | Problem::EmptyList
            | Problem::NodeTwice(_)
            | Problem::HostNotListed(_)
            | Problem::CoordinatorNotANode(_)
            | Problem::NodeWithoutNumber(_)
            | Problem::SameNodeNumber(_, _)
            | Problem::NodeOutsideNetwork { .. }
            | Problem::NotANetworkAddress { .. }
            | Problem::OutsideNetwork { .. }
            | Problem::IsNetworkAddress(_)
            | Problem::IsBroadcastAddress(_)
            | Problem::FloatingIsNodeAddress { .. }
            | Problem::GatewayIsFloating(_)
            | Problem::GatewayIsNodeAddress { .. }
            | Problem::OverlappingNetworks { .. }
            | Problem::NeededBecause { .. }
            | Problem::NoPossibleProof
            | Problem::NoSuchDestination(_)
            | Problem::SameToken(_) => Severity::Error,
            Problem::WithoutEffect(_)
            | Problem::OldName(_)
            | Problem::EvenCoordinators { .. }
            | Problem::NoAuthentication
            | Problem::NoCephSecret
            | Problem::SampleSecret
            | Problem::WorldReadable { .. }
            | Problem::SlowZooKeeper { .. } => Severity::Warning,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.problem.severity() {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{word}: ")?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}", self.problem)?;
        match self.line {
            Some(line) => write!(f, " (line {line})"),
            None => Ok(()),
        }
    }
}

/// Everything found in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    file: PathBuf,
    findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(file: &Path, findings: Vec<Finding>) -> Report {
        Report {
            file: file.to_owned(),
            findings,
        }
    }

    /// The file it is about.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// All findings, in the order of the file.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// How many there are of one severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.problem.severity() == severity)
            .count()
    }

    /// What `--check-config` exits with: 0 if the daemons would start, 1 if not.
    pub fn exit_code(&self) -> u8 {
        u8::from(self.count(Severity::Error) > 0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted =
            |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
        let (errors, warnings) = (self.count(Severity::Error), self.count(Severity::Warning));
        write!(f, "{}: ", self.file.display())?;
        match (errors, warnings) {
            (0, 0) => write!(f, "no errors"),
            (_, _) => write!(
                f,
                "{}, {}",
                counted(errors, "error"),
                counted(warnings, "warning")
            ),
        }?;
        for finding in &self.findings {
            write!(f, "\n  {finding}")?;
        }
        Ok(())
    }
}
