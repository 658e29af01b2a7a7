//! Tests this node's own BMC, at start and every few minutes, over the network as a fencer would use it.
//!
//! A BMC that does not work is found out on the day that it is needed, unless somebody looks before. Each node looks at
//! its own: does it answer, does it say "on", and is it this machine's? The outcome goes to `/nodes/N/bmc`, where fencers
//! and administrators find it, and what a person must look at becomes a fault. No power order is ever sent from here.

use std::time::Duration;

use pvc_common::clock::Clock;
use pvc_common::faults::{self, Fault, FaultError, fault_id};
use pvc_common::keys;
use pvc_common::store::{Store, StoreError, Txn};
use pvc_core::bmc::{FailingBmc, IdentityPolicy, identity};
use pvc_core::ids::NodeName;
use pvc_core::records::{BmcIdentity, BmcReport};
use tracing::{debug, info, warn};

use crate::host::power::machine::MachineGuid;
use crate::host::{BmcAccess, PowerControl, PowerState};

/// Between two tests of a BMC that works: few enough not to fill its log of sessions, often enough that hardly any
/// BMC fails unseen before its server does.
const PERIOD: Duration = Duration::from_secs(300);
/// The same for one that does not, so that an administrator who mends it sees that he has.
const PERIOD_OF_TROUBLE: Duration = Duration::from_secs(60);
/// When the store did not take what was found.
const PERIOD_UNTOLD: Duration = Duration::from_secs(10);
/// Pauses between the tries of one test; as many tries as these and one. One lost packet is no fault.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];
/// What a BMC that does not work takes from the cluster's health, in percent: as with PVC 1.0.3, half of what its
/// health plugin `ipmi` takes from the node's.
const SILENT_DELTA: u32 = 5;
/// What the BMC of another machine takes: an administrator mixed something up.
const MISMATCH_DELTA: u32 = 25;
/// What an unverified one takes under the strict policy.
const UNVERIFIED_DELTA: u32 = 5;

/// How the node's settings take what is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BmcSettings {
    /// The BMC; `None`: the node has none.
    pub access: Option<BmcAccess>,
    /// What is asked of its identity.
    pub identity: IdentityPolicy,
    /// What follows when it fails.
    pub failing: FailingBmc,
}

/// Watches the BMC of this node.
#[derive(Debug)]
pub struct BmcWatch<S, C, P, G> {
    store: S,
    clock: C,
    power: P,
    machine: G,
    node: NodeName,
    settings: BmcSettings,
    last: Option<BmcReport>,
}

impl<S: Store, C: Clock, P: PowerControl, G: MachineGuid> BmcWatch<S, C, P, G> {
    /// Nothing is known yet.
    pub fn new(store: S, clock: C, power: P, machine: G, node: NodeName, settings: BmcSettings) -> Self {
        BmcWatch {
            store,
            clock,
            power,
            machine,
            node,
            settings,
            last: None,
        }
    }

    /// Watches until dropped.
    pub async fn run(mut self) {
        loop {
            let pause = self.round().await;
            self.clock.sleep(pause).await;
        }
    }

    /// One test and its publication; gives the time until the next.
    pub async fn round(&mut self) -> Duration {
        let report = match &self.settings.access {
            Some(access) => Some(self.test(access).await),
            None => None,
        };
        self.log_change(report.as_ref());
        let well = report.as_ref().is_none_or(|report| report.works);
        if let Err(error) = self.tell(report.as_ref()).await {
            debug!(%error, "the report on the BMC could not be published");
            return PERIOD_UNTOLD;
        }
        self.last = report;
        if well { PERIOD } else { PERIOD_OF_TROUBLE }
    }

    /// Tests the BMC, with a few tries.
    async fn test(&self, access: &BmcAccess) -> BmcReport {
        let mut state = self.power.state(access).await;
        for pause in PAUSES {
            if state.is_ok() {
                break;
            }
            self.clock.sleep(pause).await;
            state = self.power.state(access).await;
        }
        let identity = match &state {
            // We run: whoever this BMC speaks of, it is not this machine. A fencer would take its word for a proof.
            Ok(PowerState::Off) => BmcIdentity::Mismatch {
                inside: "a machine that runs".to_owned(),
                outside: "a machine that is off".to_owned(),
            },
            Ok(PowerState::On) => {
                let inside = self.machine.read().await;
                let outside = self.power.guid(access).await;
                identity(inside, outside.map_err(|error| error.to_string()))
            }
            // What this life saw of it while it answered still stands: it has not become another machine's by falling
            // silent. An earlier life may have had another BMC configured.
            Err(error) => match &self.last {
                Some(last) => last.identity.clone(),
                None => BmcIdentity::Unverified {
                    reason: error.to_string(),
                },
            },
        };
        let (works, reason) = match state {
            Ok(PowerState::On) => (true, String::new()),
            Ok(PowerState::Off) => (false, "it says that this machine is off".to_owned()),
            Err(error) => (false, error.to_string()),
        };
        BmcReport {
            works,
            reason,
            identity,
            tried_at: self.unix_seconds(),
        }
    }

    fn unix_seconds(&self) -> u64 {
        self.clock
            .wall()
            .duration_since(std::time::SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    }

    fn log_change(&self, report: Option<&BmcReport>) {
        let Some(report) = report else { return };
        let worked = self.last.as_ref().map(|last| last.works);
        match (worked, report.works) {
            (None, true) => info!(identity = ?report.identity, "the BMC of this node works"),
            (Some(false), true) => info!("the BMC of this node works again"),
            (None | Some(true), false) => {
                warn!(reason = report.reason, "the BMC of this node does not work")
            }
            (Some(true), true) | (Some(false), false) => {}
        }
        let known = self.last.as_ref().map(|last| &last.identity);
        match &report.identity {
            BmcIdentity::Mismatch { inside, outside } if known != Some(&report.identity) => {
                warn!(
                    inside,
                    outside, "the BMC at this node's address is another machine's"
                );
            }
            BmcIdentity::Mismatch { .. } | BmcIdentity::Verified { .. } | BmcIdentity::Unverified { .. } => {}
        }
    }

    async fn tell(&self, report: Option<&BmcReport>) -> Result<(), TellError> {
        // This node's own key, and the report depends on nothing read.
        let key = keys::node(&self.node).bmc();
        let txn = Txn::new().overwrite(&key, &report.cloned());
        self.store.commit(txn).await.map_err(TellError::Report)?;
        let node = self.node.as_str();
        let host = self.settings.access.as_ref().map_or("", |access| &access.host);
        let trouble = report.and_then(|report| self.trouble(host, report));
        self.fault(trouble, &fault_id(&["node_plugin_ipmi", node]))
            .await?;
        let doubt = report.and_then(|report| self.doubt(host, report));
        self.fault(doubt, &fault_id(&["bmc_identity", node])).await?;
        Ok(())
    }

    async fn fault(&self, fault: Option<Fault>, id: &str) -> Result<(), TellError> {
        match fault {
            Some(fault) => faults::raise(&self.store, &self.clock, &fault)
                .await
                .map(|_| ())?,
            None => faults::clear(&self.store, id).await?,
        }
        Ok(())
    }

    /// The fault of a BMC that does not work.
    fn trouble(&self, host: &str, report: &BmcReport) -> Option<Fault> {
        if report.works {
            return None;
        }
        let node = self.node.as_str();
        let effect = match self.settings.failing {
            FailingBmc::GivesNoProof => "it has no proof of death by power until a test succeeds",
            FailingBmc::IsTried => "a fence by power would fail now",
        };
        Some(Fault::new(
            &["node_plugin_ipmi", node],
            SILENT_DELTA,
            format!(
                "The BMC {host} of node {node} does not work: {effect}. Check its power and network, and fencing.ipmi \
                 (hostname, username, password; the user must be an administrator): {}",
                report.reason
            ),
        ))
    }

    /// The fault of a BMC that is not known to be this node's.
    fn doubt(&self, host: &str, report: &BmcReport) -> Option<Fault> {
        let node = self.node.as_str();
        match (&report.identity, self.settings.identity) {
            (BmcIdentity::Mismatch { inside, outside }, IdentityPolicy::Strict | IdentityPolicy::Lenient) => {
                Some(Fault::new(
                    &["bmc_identity", node],
                    MISMATCH_DELTA,
                    format!(
                        "The BMC {host} is not that of node {node}: no order is sent to it, and {node} has no proof \
                         of death by power. Correct fencing.ipmi.hostname or the cabling: inside {inside}, over the \
                         network {outside}"
                    ),
                ))
            }
            (BmcIdentity::Unverified { reason }, IdentityPolicy::Strict) if report.works => Some(Fault::new(
                &["bmc_identity", node],
                UNVERIFIED_DELTA,
                format!(
                    "Nobody knows whether the BMC {host} is that of node {node}, which has no proof of death by power \
                     until then. Load the kernel module ipmi_devintf on it, or, if you have seen the right machine go \
                     off, set fencing.actions.bmc_identity to lenient: {reason}"
                ),
            )),
            // One that does not answer has its own fault, and one that is trusted unverified none.
            (BmcIdentity::Unverified { .. }, IdentityPolicy::Strict | IdentityPolicy::Lenient)
            | (BmcIdentity::Verified { .. }, IdentityPolicy::Strict | IdentityPolicy::Lenient) => None,
        }
    }
}

/// What was found could not be told.
#[derive(Debug, thiserror::Error)]
enum TellError {
    /// The report was not written.
    #[error("failed to write the report")]
    Report(#[source] StoreError),
    /// A fault was not written.
    #[error(transparent)]
    Fault(#[from] FaultError),
}

#[cfg(test)]
mod tests;
