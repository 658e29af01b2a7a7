//! The agent of one host: the real loops, put together as the daemon does.

use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{Either, select, select_all};
use futures::stream::{FuturesUnordered, StreamExt as _};
use pvc_common::clock::Clock as _;
use pvc_common::keys;
use pvc_common::schema::{self, Prepared};
use pvc_common::secret::Secret;
use pvc_common::store::{Store as _, Txn, Watch as _};
use pvc_core::ids::{Incarnation, NodeName};
use pvc_core::records::NodeAddresses;
use pvc_core::role::RoleTiming;
use pvc_core::states::{DaemonMode, DaemonState};
use pvcnoded::agent::{AgentPhase, AgentState, Pulse};
use pvcnoded::host::fake::VirtualClock;
use pvcnoded::host::fake::upstream::FakeUpstream;
use pvcnoded::host::{HostNetwork as _, Hypervisor as _, RoleAddress};
use pvcnoded::node_lease::NodeLeaseKeeper;
use pvcnoded::registration::{Registrant, RegistrationError, register};
use pvcnoded::role::{RoleKeeper, RoleParts, RoleServices, TenureFile};
use pvcnoded::upstream::UpstreamWatcher;
use pvcnoded::vm::{VmParts, VmRounds, carry_out};

use crate::executor::Spawner;
use crate::hooks::{Demand, Gate};
use crate::seams::{SimHypervisor, SimNetwork, SimPower, SimStorage, SimStore};
use crate::{bmc_name, cluster_ip};

/// As in the daemon's loop of the guests.
const POLL: Duration = Duration::from_secs(5);
const SETTLE: Duration = Duration::from_millis(50);
/// As the daemon's heartbeat.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// What one life of an agent is made of.
pub(crate) struct AgentParts {
    pub(crate) me: NodeName,
    pub(crate) incarnation: Incarnation,
    pub(crate) mode: DaemonMode,
    pub(crate) coordinators: Vec<NodeName>,
    pub(crate) addresses: Vec<RoleAddress>,
    pub(crate) storage_ip: IpAddr,
    pub(crate) floating: Vec<IpAddr>,
    pub(crate) clock: VirtualClock,
    pub(crate) lease_store: SimStore,
    pub(crate) store: SimStore,
    pub(crate) network: SimNetwork,
    pub(crate) hypervisor: SimHypervisor,
    pub(crate) storage: SimStorage,
    #[allow(dead_code, reason = "for the loop that looks after the BMC")]
    pub(crate) power: SimPower,
    pub(crate) upstream: FakeUpstream,
    pub(crate) gate: Gate,
    pub(crate) runtime_directory: PathBuf,
    pub(crate) agent: AgentState,
}

/// The API answers at once.
struct Services;

impl RoleServices for Services {
    async fn answer(&self) -> Result<(), String> {
        Ok(())
    }
}

/// The life of an agent, from its start on. It ends when the agent must not act any more.
pub(crate) async fn live(parts: AgentParts, spawner: Spawner) {
    let AgentParts { clock, agent, me, .. } = &parts;
    for address in &parts.addresses {
        // As the daemon does first: nothing of an earlier life may answer.
        drop(parts.network.remove(address));
    }
    let registrant = Registrant {
        node: me.clone(),
        mode: parts.mode,
        incarnation: parts.incarnation.clone(),
        ready_when_new: true,
        bmc: Some((
            bmc_name(parts.gate.host),
            "admin".to_owned(),
            Secret::new("secret"),
        )),
        addresses: NodeAddresses {
            cluster: cluster_ip(parts.gate.host),
            storage: parts.storage_ip,
            upstream: None,
        },
    };
    let version = loop {
        match schema::prepare(&parts.store, clock, me).await {
            Ok(Prepared::Initialised | Prepared::Migrated { .. } | Prepared::AlreadySo) => {
                match register(&parts.store, clock, &registrant, agent.node_right()).await {
                    Ok(version) => break version,
                    Err(RegistrationError::NameTaken { .. } | RegistrationError::Copied { .. }) => {
                        parts
                            .gate
                            .hooks
                            .say(|| format!("{me} is refused: its name is taken"));
                        // The service manager starts it again.
                        parts.gate.hooks.demand(Demand::Kill {
                            host: parts.gate.host,
                        });
                        return;
                    }
                    Err(
                        RegistrationError::Read(_)
                        | RegistrationError::Write(_)
                        | RegistrationError::Contended,
                    ) => {}
                }
            }
            Ok(Prepared::WaitingFor { .. }) | Err(_) => {}
        }
        clock.sleep(Duration::from_secs(1)).await;
    };
    let mut lease = NodeLeaseKeeper::new(
        parts.lease_store.clone(),
        clock.clone(),
        me.clone(),
        parts.incarnation.clone(),
        version,
        agent.node_right().clone(),
        Pulse::default(),
    );
    let (gate, network, addresses) = (parts.gate.clone(), parts.network.clone(), parts.addresses.clone());
    spawner.spawn(async move {
        while lease.round().await.is_ok() {}
        for address in &addresses {
            drop(network.remove(address));
        }
        gate.hooks
            .say(|| format!("hv{} has lost its lease", gate.host + 1));
        gate.hooks.demand(Demand::Kill { host: gate.host });
    });
    if parts.mode == DaemonMode::Coordinator {
        let mut role = RoleKeeper::new(
            RoleParts {
                store: parts.lease_store.clone(),
                clock: clock.clone(),
                network: parts.network.clone(),
                services: Services,
                me: me.clone(),
                incarnation: parts.incarnation.clone(),
                coordinators: parts.coordinators.clone(),
                addresses: parts.addresses.clone(),
                upstream_ip: "10.100.0.250/24".to_owned(),
                agent: agent.clone(),
                tenure_file: TenureFile::in_directory(&parts.runtime_directory),
                pulse: Pulse::default(),
            },
            RoleTiming::DEFAULT,
        );
        spawner.spawn(async move {
            loop {
                role.round().await;
            }
        });
        let watcher = UpstreamWatcher::new(
            parts.store.clone(),
            clock.clone(),
            parts.upstream.clone(),
            me.clone(),
            agent.clone(),
        );
        spawner.spawn(watcher.run());
    }
    let vms = VmParts {
        store: parts.store.clone(),
        clock: clock.clone(),
        hypervisor: parts.hypervisor.clone(),
        storage: parts.storage.clone(),
        me: me.clone(),
        incarnation: parts.incarnation.clone(),
        storage_addresses: vec![parts.storage_ip],
        floating_addresses: parts.floating.clone(),
        shutdown_timeout: Duration::from_secs(20),
        agent: agent.clone(),
    };
    let mut guests = Guests::new(vms);
    clock.timeout(Duration::from_secs(20), guests.settle()).await;
    agent.enter(AgentPhase::Running);
    spawner.spawn(async move { guests.run().await });
    heartbeat(&parts).await;
}

/// What the heartbeat does beside its figures: it says `run`, whatever others have written.
async fn heartbeat(parts: &AgentParts) {
    let key = keys::node(&parts.me).daemon_state();
    loop {
        let txn = Txn::new().overwrite(&key, &DaemonState::Run);
        let wait = match parts.store.commit(txn).await {
            Ok(_) => HEARTBEAT,
            Err(_) => HEARTBEAT / 5,
        };
        parts.clock.sleep(wait).await;
    }
}

type Parts = VmParts<SimStore, VirtualClock, SimHypervisor, SimStorage>;
type Rounds = VmRounds<SimStore, VirtualClock, SimHypervisor, SimStorage>;

/// The daemon's loop of the guests, without its runtime.
struct Guests {
    parts: Parts,
    rounds: Rounds,
    tasks: FuturesUnordered<
        futures::future::BoxFuture<'static, (pvcnoded::vm::VmTask, pvcnoded::vm::TaskOutcome)>,
    >,
    failing: bool,
}

impl Guests {
    fn new(parts: Parts) -> Guests {
        Guests {
            rounds: VmRounds::new(parts.clone()),
            parts,
            tasks: FuturesUnordered::new(),
            failing: false,
        }
    }

    async fn look(&mut self) {
        match self.rounds.look().await {
            Ok(tasks) => {
                self.failing = false;
                for task in tasks {
                    let parts = self.parts.clone();
                    self.tasks.push(
                        async move {
                            let outcome = carry_out(&parts, &task).await;
                            (task, outcome)
                        }
                        .boxed(),
                    );
                }
            }
            Err(_) => self.failing = true,
        }
    }

    async fn settle(&mut self) {
        loop {
            self.look().await;
            if self.failing {
                self.parts.clock.sleep(SETTLE * 4).await;
                continue;
            }
            if self.tasks.is_empty() {
                return;
            }
            while let Some((task, outcome)) = self.tasks.next().await {
                self.rounds.finished(&task, &outcome);
            }
        }
    }

    async fn run(mut self) {
        let mut changes = self.parts.store.watch_tree(keys::domains().path());
        let agent = self.parts.agent.clone();
        let hypervisor = self.parts.hypervisor.clone();
        let clock = self.parts.clock.clone();
        loop {
            self.look().await;
            let now = clock.now();
            let until = self
                .rounds
                .next_deadline()
                .map_or(now + POLL, |deadline| deadline.min(now + POLL))
                .max(now + SETTLE);
            let done = {
                let hints = select_all([
                    changes.changed().boxed(),
                    hypervisor.changed().boxed(),
                    agent.phase_changed().boxed(),
                    clock.sleep_until(until).boxed(),
                ]);
                if self.tasks.is_empty() {
                    hints.await;
                    None
                } else {
                    match select(pin!(self.tasks.next()), hints).await {
                        Either::Left((done, _)) => done,
                        Either::Right(_) => None,
                    }
                }
            };
            if let Some((task, outcome)) = done {
                self.rounds.finished(&task, &outcome);
            }
            // Tasks go on meanwhile, as on their own threads.
            let mut pause = pin!(clock.sleep(SETTLE));
            loop {
                if self.tasks.is_empty() {
                    pause.await;
                    break;
                }
                match select(pin!(self.tasks.next()), pause.as_mut()).await {
                    Either::Left((Some((task, outcome)), _)) => self.rounds.finished(&task, &outcome),
                    Either::Left((None, _)) => {}
                    Either::Right(_) => break,
                }
            }
        }
    }
}
