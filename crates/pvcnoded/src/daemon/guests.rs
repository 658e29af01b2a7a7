//! The loop of the guests: look, carry out, look again.

use std::time::Duration;

use anyhow::Context as _;
use pvc_common::clock::{Clock as _, HostClock};
use pvc_common::command::HostCommandRunner;
use pvc_common::config::Config;
use pvc_common::faults::{self, Fault, fault_id};
use pvc_common::keys;
use pvc_common::store::zookeeper::ZooKeeperStore;
use pvc_common::store::{Store as _, Watch as _};
use pvc_core::ids::Incarnation;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::addresses;
use crate::agent::AgentState;
use crate::host::Hypervisor as _;
use crate::host::ceph::{CephAccess, CephCommands};
use crate::host::libvirt::{Libvirt, Security, Transport};
use crate::measures::Duty;
use crate::vm::{TaskOutcome, VmParts, VmRounds, VmTask, carry_out};

/// The safety net under events and watches.
const POLL: Duration = Duration::from_secs(5);
/// The shortest time between two looks: watches and events come in bursts.
const SETTLE: Duration = Duration::from_millis(50);
/// How long the guests that run already may take to be confirmed before the node runs all the same.
const CONFIRM_WITHIN: Duration = Duration::from_secs(20);

type Parts = VmParts<ZooKeeperStore, HostClock, Libvirt, CephCommands<HostCommandRunner>>;

/// The guests of this node.
pub(super) struct Guests {
    /// `None` on a node that runs no guests.
    inner: Option<Inner>,
}

struct Inner {
    parts: Parts,
    rounds: VmRounds<ZooKeeperStore, HostClock, Libvirt, CephCommands<HostCommandRunner>>,
    tasks: JoinSet<(VmTask, TaskOutcome)>,
    failing: bool,
}

impl Guests {
    pub(super) fn new(
        config: &Config,
        incarnation: &Incarnation,
        agent: &AgentState,
        store: ZooKeeperStore,
    ) -> anyhow::Result<Guests> {
        if !config.subsystems.hypervisor {
            return Ok(Guests { inner: None });
        }
        let ceph = CephAccess::new(config.ceph.config_file.clone(), config.ceph.keyring_file.clone());
        let parts = VmParts {
            store,
            clock: HostClock,
            hypervisor: Libvirt::open(
                "qemu:///system",
                Transport::detect(&config.cluster.networks.cluster.domain),
            )
            .context("failed to start the libvirt threads")?,
            storage: CephCommands::new(HostCommandRunner::from_system(), ceph),
            me: config.node.clone(),
            incarnation: incarnation.clone(),
            storage_addresses: addresses::storage(config),
            floating_addresses: addresses::floating(config),
            shutdown_timeout: config.timers.vm_shutdown_timeout,
            agent: agent.clone(),
        };
        let rounds = VmRounds::new(parts.clone());
        Ok(Guests {
            inner: Some(Inner {
                parts,
                rounds,
                tasks: JoinSet::new(),
                failing: false,
            }),
        })
    }

    /// Where statistics of guests come from.
    pub(super) fn statistics(&self) -> Option<Libvirt> {
        self.inner.as_ref().map(|inner| inner.parts.hypervisor.clone())
    }

    /// Tells whether no process of any guest is on this host. A host whose processes can't be read is not empty.
    pub(super) fn is_empty(&self) -> impl Fn() -> bool + Send + 'static {
        let hypervisor = self.statistics();
        move || match &hypervisor {
            None => true,
            Some(hypervisor) => hypervisor.processes().is_ok_and(|processes| processes.is_empty()),
        }
    }

    /// Puts this life of the agent on record for every guest that runs here already, and gives up those that an
    /// earlier boot had. Nothing is started: the agent has not reached `run`.
    pub(super) async fn prepare(mut self) -> Guests {
        if let Some(inner) = &mut self.inner
            && HostClock.timeout(CONFIRM_WITHIN, inner.settle()).await.is_none()
        {
            warn!("not all guests of earlier lives could be confirmed yet");
        }
        if let Some(inner) = &self.inner {
            inner.tell_how_guests_travel().await;
        }
        self
    }

    /// Looks after the guests until told to stop; then what is under way is carried to its end.
    pub(super) async fn run(&mut self, mut stop: watch::Receiver<bool>) {
        let Some(inner) = &mut self.inner else {
            return;
        };
        let mut changes = inner.parts.store.watch_tree(keys::domains().path());
        let agent = inner.parts.agent.clone();
        let hypervisor = inner.parts.hypervisor.clone();
        loop {
            inner.look().await;
            let now = HostClock.now();
            let until = inner
                .rounds
                .next_deadline()
                .map_or(now + POLL, |deadline| deadline.min(now + POLL));
            // Every branch is only a hint to look again, and cancel-safe.
            tokio::select! {
                () = changes.changed() => {}
                () = hypervisor.changed() => {}
                () = agent.phase_changed() => {}
                () = HostClock.sleep_until(until.max(now + SETTLE)) => {}
                Some(done) = inner.tasks.join_next() => inner.take_in(done),
                _ = stop.wait_for(|stop| *stop) => break,
            }
            HostClock.sleep(SETTLE).await;
        }
        while let Some(done) = inner.tasks.join_next().await {
            inner.take_in(done);
        }
        info!("guests are left as they are");
    }
}

impl Inner {
    /// Guests' memory in clear text on the cluster network is said once, as long as it is so. Nothing waits for it.
    async fn tell_how_guests_travel(&self) {
        let node = self.parts.me.to_string();
        let words = ["NODE_MIGRATION_PLAIN", node.as_str()];
        let told = match self.parts.hypervisor.migration_security() {
            Security::Plain => {
                let text = format!(
                    "Guests leave {node} unencrypted: libvirt and QEMU have no certificates there. The memory of a guest \
                     that is migrated can be read on the cluster network"
                );
                faults::raise(&self.parts.store, &HostClock, &Fault::new(&words, 0, text))
                    .await
                    .map(|_| ())
            }
            Security::Tls => faults::clear(&self.parts.store, &fault_id(&words)).await,
        };
        if let Err(error) = told {
            warn!(%error, "how guests travel could not be said");
        }
    }

    /// Looks until there is nothing to do.
    async fn settle(&mut self) {
        loop {
            self.look().await;
            if self.failing {
                HostClock.sleep(SETTLE * 4).await;
                continue;
            }
            if !self.rounds.unsettled() {
                return;
            }
            while self.rounds.unsettled()
                && let Some(done) = self.tasks.join_next().await
            {
                self.take_in(done);
            }
        }
    }

    async fn look(&mut self) {
        let measures = self.parts.agent.measures();
        measures.began(Duty::Guests, HostClock.now());
        let looked = self.rounds.look().await;
        measures.ended(Duty::Guests, HostClock.now());
        match looked {
            Ok(tasks) => {
                if self.failing {
                    self.failing = false;
                    info!("the guests' records can be read again");
                }
                for task in tasks {
                    let parts = self.parts.clone();
                    self.tasks.spawn(async move {
                        let outcome = carry_out(&parts, &task).await;
                        (task, outcome)
                    });
                }
            }
            Err(error) => {
                if !self.failing {
                    warn!(%error, "the guests' records can't be read; guests go on as they are");
                }
                self.failing = true;
            }
        }
    }

    fn take_in(&mut self, done: Result<(VmTask, TaskOutcome), tokio::task::JoinError>) {
        match done {
            Ok((task, outcome)) => self.rounds.finished(&task, &outcome),
            // A panic ends the process, and nothing cancels these tasks but its end.
            Err(error) => warn!(%error, "a task ended without an outcome"),
        }
    }
}
