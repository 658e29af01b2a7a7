//! How dead nodes are dealt with.

use std::time::Duration;

use pvc_core::bmc::{FailingBmc, IdentityPolicy};
use pvc_core::storage_loss::StorageLossPolicy;

use super::finding::Problem;
use super::section::{Section, Value};
use super::values::Host;
use crate::secret::Secret;

/// Fewest missed renewals before a node is suspected: a node's lease lasts 5 s, so a smaller number would suspect
/// nodes that still have every right to run.
const FEWEST_INTERVALS: u32 = 5;
const DEFAULT_INTERVALS: u32 = 6;
/// Time between two renewals of a node's lease.
const RENEWAL_PERIOD: Duration = Duration::from_secs(1);

/// The `fencing` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fencing {
    /// Missed renewals (one a second) after which a silent node is suspected. Default 6, at least 5.
    pub missed_renewals: u32,
    /// What becomes of the guests of a node that is proven dead by its BMC. Default: recovered elsewhere.
    pub after_power_proof: AfterPowerProof,
    /// What to do when the BMC cannot give the proof. Default: go on to the proof by storage, so that a BMC that dies with
    /// its server does not keep guests down.
    pub without_power_proof: WithoutPowerProof,
    /// This node's BMC. `None`: this node has no power proof, since no BMC is given.
    pub bmc: Option<Bmc>,
    /// What follows for a node whose BMC failed the node's own last test (`disable_on_ipmi_failure`). Default: it is
    /// tried all the same when the node is fenced.
    pub failing_bmc: FailingBmc,
    /// What is asked of a BMC before its "off" is taken for a proof (`bmc_identity`). Default `strict`: the node has
    /// verified that the BMC is its own. With `lenient` nothing must speak against it.
    pub bmc_identity: IdentityPolicy,
    /// What becomes of this node's guests when it loses the storage network alone. Default: they wait.
    pub storage_loss: StorageLossPolicy,
}

impl Fencing {
    /// How long a node must be silent until it is suspected.
    pub fn suspected_after(&self) -> Duration {
        RENEWAL_PERIOD * self.missed_renewals
    }
}

/// What becomes of the guests of a node whose power is proven off (`successful_fence`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterPowerProof {
    /// They are started on other nodes.
    Recover,
    /// They stay down until an administrator acts.
    Leave,
}

/// What to do when the BMC cannot prove a node's death (`failed_fence`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutPowerProof {
    /// Go on to the proof by storage (the node's Ceph clients are blocklisted), then recover. Never without a proof.
    StorageProof,
    /// Guests stay down until an administrator acts.
    Leave,
}

impl Value for AfterPowerProof {
    const EXPECTED: &'static str = "one of migrate, none";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "migrate" => Ok(AfterPowerProof::Recover),
            "none" => Ok(AfterPowerProof::Leave),
            _ => Err(String::new()),
        }
    }
}

impl Value for WithoutPowerProof {
    const EXPECTED: &'static str = "one of migrate, none";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "migrate" => Ok(WithoutPowerProof::StorageProof),
            "none" => Ok(WithoutPowerProof::Leave),
            _ => Err(String::new()),
        }
    }
}

impl Value for IdentityPolicy {
    const EXPECTED: &'static str = "one of strict, lenient";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "strict" => Ok(IdentityPolicy::Strict),
            "lenient" => Ok(IdentityPolicy::Lenient),
            _ => Err(String::new()),
        }
    }
}

impl Value for StorageLossPolicy {
    const EXPECTED: &'static str = "one of wait, restart";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "wait" => Ok(StorageLossPolicy::Wait),
            "restart" => Ok(StorageLossPolicy::Restart),
            _ => Err(String::new()),
        }
    }
}

/// A BMC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bmc {
    /// Its host name or address.
    pub hostname: String,
    /// The user to log in as.
    pub username: String,
    /// That user's password.
    pub password: Secret,
}

/// A count of missed renewals.
struct Intervals(u32);

impl Value for Intervals {
    const EXPECTED: &'static str = "a whole number from 5 to 3600";

    fn parse(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(count @ FEWEST_INTERVALS..=3600) => Ok(Intervals(count)),
            Ok(0..FEWEST_INTERVALS) => Err(
                "it counts missed renewals of one second, and a node may be silent for 5 s in good health"
                    .into(),
            ),
            Ok(_) | Err(_) => Err(String::new()),
        }
    }
}

pub(super) fn read(section: &mut Section<'_>, node_number: u32) -> Option<Fencing> {
    let failing_bmc = if section.or("disable_on_ipmi_failure", false) {
        FailingBmc::GivesNoProof
    } else {
        FailingBmc::IsTried
    };
    let missed_renewals = section.section_or_defaults("intervals", |section| {
        const NO_SELF_FENCING: &str =
            "a node never fences itself for losing the store; what it may do ends with its lease";
        section.without_effect("suicide_intervals", NO_SELF_FENCING);
        section.without_effect("suicide_interval", NO_SELF_FENCING);
        section.or("fence_intervals", Intervals(DEFAULT_INTERVALS)).0
    });
    let (after_power_proof, without_power_proof, bmc_identity) =
        section.section_or_defaults("actions", |section| {
            (
                section.or("successful_fence", AfterPowerProof::Recover),
                section.or("failed_fence", WithoutPowerProof::StorageProof),
                section.or("bmc_identity", IdentityPolicy::Strict),
            )
        });
    let storage_loss = section.or("storage_loss", StorageLossPolicy::Wait);
    let bmc = section.optional_section("ipmi", |section| {
        let hostname = section.required::<HostTemplate>("hostname");
        let username = section.required::<String>("username");
        let password = section.required::<Secret>("password");
        Some(Bmc {
            hostname: hostname?.filled(node_number),
            username: username?,
            password: password?,
        })
    });
    if !section.has("ipmi") && without_power_proof == WithoutPowerProof::Leave {
        section.report("ipmi", Problem::NoPossibleProof);
    }
    Some(Fencing {
        missed_renewals,
        after_power_proof,
        without_power_proof,
        bmc,
        failing_bmc,
        bmc_identity,
        storage_loss,
    })
}

/// A BMC's name, in which `{node_id}` stands for the node's number, so that one file does for all nodes.
struct HostTemplate(String);

impl HostTemplate {
    fn filled(&self, node_number: u32) -> String {
        self.0.replace("{node_id}", &node_number.to_string())
    }
}

impl Value for HostTemplate {
    const EXPECTED: &'static str =
        "a host name or an IP address, in which {node_id} stands for the node's number";

    fn parse(text: &str) -> Result<Self, String> {
        Host::parse(&text.replace("{node_id}", "1"))?;
        Ok(HostTemplate(text.to_owned()))
    }
}
