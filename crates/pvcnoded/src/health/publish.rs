//! What is written of health checks.

use std::collections::BTreeMap;
use std::time::Duration;

use pvc_common::clock::Clock;
use pvc_common::faults::{self, Fault, fault_id};
use pvc_common::keys;
use pvc_common::keys::values::{Json, Load, OrNone, SpaceList};
use pvc_common::store::{ReadError, Store, Txn};
use pvc_core::time::BootTime;
use tracing::debug;

use super::{Check, CheckResult, Finding, HealthParts};

/// When checks ran is written this often where nothing else has changed: everybody who watches the store is told of it.
const TIMES_EVERY: Duration = Duration::from_secs(60);

/// Remembers what was written.
#[derive(Debug, Default)]
pub(super) struct Publisher {
    /// Whether every check has its keys.
    prepared: bool,
    written: BTreeMap<Check, Finding>,
    times_at: Option<BootTime>,
    /// Whether faults of an earlier life were cleared.
    faults_known: BTreeMap<Check, bool>,
}

impl Publisher {
    pub(super) async fn publish<S: Store, C: Clock, H, R>(
        &mut self,
        parts: &HealthParts<S, C, H, R>,
        results: &BTreeMap<Check, CheckResult>,
    ) {
        if let Err(error) = self.write(parts, results).await {
            debug!(%error, "results of health checks could not be published");
            // Whatever was removed is made again.
            self.prepared = false;
            self.written.clear();
        }
        self.tell_faults(parts, results).await;
    }

    async fn write<S: Store, C: Clock, H, R>(
        &mut self,
        parts: &HealthParts<S, C, H, R>,
        results: &BTreeMap<Check, CheckResult>,
    ) -> Result<(), ReadError> {
        if !self.prepared {
            self.prepare(parts).await?;
        }
        let now = parts.clock.now();
        let times_due = self
            .times_at
            .is_none_or(|written| now.since(written) >= TIMES_EVERY);
        let mut txn = Txn::new();
        for (check, result) in results {
            let keys = keys::monitoring_plugin(&parts.me, check.name());
            let changed = self.written.get(check) != Some(&result.finding);
            if changed {
                txn = txn
                    .overwrite(&keys.health_delta(), &result.finding.delta)
                    .overwrite(&keys.message(), &result.finding.message)
                    .overwrite(&keys.data(), &Some(Json(result.finding.data.clone())));
            }
            if changed || times_due {
                txn = txn
                    .overwrite(&keys.last_run(), &result.at_wall)
                    .overwrite(&keys.runtime_seconds(), &Load(result.took.as_secs_f64()));
            }
        }
        if txn.ops.is_empty() {
            return Ok(());
        }
        let node = keys::node(&parts.me);
        let txn = txn.overwrite(&node.monitoring_health(), &OrNone(Some(health(results))));
        parts.store.commit(txn).await?;
        self.written = results
            .iter()
            .map(|(check, result)| (*check, result.finding.clone()))
            .collect();
        self.times_at = Some(now);
        Ok(())
    }

    /// Makes the keys of each check, and names the checks.
    async fn prepare<S: Store, C: Clock, H, R>(
        &mut self,
        parts: &HealthParts<S, C, H, R>,
    ) -> Result<(), ReadError> {
        let node = keys::node(&parts.me);
        let names: Vec<String> = Check::ALL.iter().map(|check| check.name().to_owned()).collect();
        let creations = names.iter().fold(Txn::new(), |txn, name| {
            let keys = keys::monitoring_plugin(&parts.me, name);
            txn.create(&keys.root(), name)
                .create(&keys.last_run(), &0)
                .create(&keys.health_delta(), &0)
                .create(&keys.message(), &"has not run yet".to_owned())
                .create(&keys.data(), &None)
                .create(&keys.runtime_seconds(), &Load(0.0))
        });
        let missing = pvc_common::schema::missing(&parts.store, creations).await?;
        let txn = missing.overwrite(&node.monitoring_plugins(), &SpaceList(names));
        parts.store.commit(txn).await?;
        self.prepared = true;
        Ok(())
    }

    /// What lowers the node's health is a fault of the cluster, at half the points. That of the BMC is raised by who tests
    /// it.
    async fn tell_faults<S: Store, C: Clock, H, R>(
        &mut self,
        parts: &HealthParts<S, C, H, R>,
        results: &BTreeMap<Check, CheckResult>,
    ) {
        for (check, result) in results {
            if *check == Check::Ipmi {
                continue;
            }
            let words = ["NODE_PLUGIN", check.name(), parts.me.as_str()];
            let finding = &result.finding;
            let outcome = if finding.delta > 0 {
                let message = format!("Node {}: {}: {}", parts.me, check.name(), finding.message);
                let fault = Fault::new(&words, finding.delta / 2, message);
                faults::raise(&parts.store, &parts.clock, &fault)
                    .await
                    .map(|_| true)
            } else if self.faults_known.get(check) == Some(&false) {
                continue;
            } else {
                faults::clear(&parts.store, &fault_id(&words))
                    .await
                    .map(|()| false)
            };
            match outcome {
                Ok(raised) => {
                    self.faults_known.insert(*check, raised);
                }
                Err(error) => debug!(%error, "a fault of a health check was not written"),
            }
        }
    }
}

/// What the checks leave of 100.
fn health(results: &BTreeMap<Check, CheckResult>) -> u32 {
    let lost = results
        .values()
        .fold(0_u32, |sum, result| sum.saturating_add(result.finding.delta));
    100_u32.saturating_sub(lost)
}
