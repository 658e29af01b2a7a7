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
use pvc_common::keys::values::RunningDomains;
use pvc_common::schema::{self, Prepared};
use pvc_common::secret::Secret;
use pvc_common::store::{Store as _, Txn, Watch as _};
use pvc_core::bmc::{FailingBmc, IdentityPolicy};
use pvc_core::fence::{RecoveryPolicy, SuspicionSettings};
use pvc_core::ids::{Incarnation, NodeName};
use pvc_core::records::NodeAddresses;
use pvc_core::role::RoleTiming;
use pvc_core::states::{DaemonMode, DaemonState};
use pvcnoded::agent::{AgentPhase, AgentState, Pulse};
use pvcnoded::bmc::{BmcSettings, BmcWatch};
use pvcnoded::drain::{DrainParts, DrainRounds};
use pvcnoded::fence::{FenceParts, FenceSettings, Fencer, OwnFence, StorageProof};
use pvcnoded::hold::{HoldKeeper, HoldParts, MemoryFile};
use pvcnoded::host::fake::VirtualClock;
use pvcnoded::host::fake::upstream::FakeUpstream;
use pvcnoded::host::power::BmcAccess;
use pvcnoded::host::power::machine::MachineGuid;
use pvcnoded::host::{HostNetwork as _, Hypervisor as _, RoleAddress};
use pvcnoded::node_lease::{Hearing, NodeLeaseKeeper};
use pvcnoded::registration::{Registrant, RegistrationError, register, wall_seconds};
use pvcnoded::role::{RoleKeeper, RoleParts, RoleServices, TenureFile};
use pvcnoded::upstream::UpstreamWatcher;
use pvcnoded::vm::{VmParts, VmRounds, carry_out};

use crate::executor::Spawner;
use crate::hooks::{Demand, Gate};
use crate::seams::{SimHypervisor, SimNetwork, SimPower, SimStorage, SimStore};
use crate::{bmc_name, cluster_ip, machine_guid};

/// As in the daemon's loop of the guests.
const POLL: Duration = Duration::from_secs(5);
const SETTLE: Duration = Duration::from_millis(50);
/// Guests here shut down in 2 s, or never.
const SHUTDOWN: Duration = Duration::from_secs(20);
/// As the daemon's heartbeat.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The settings of the daemons' defaults.
const FENCE_SETTINGS: FenceSettings = FenceSettings {
    suspicion: SuspicionSettings::after(Duration::from_millis(5900)),
    recovery: RecoveryPolicy::Move,
    storage_proof: StorageProof::Allowed,
    bmc_identity: IdentityPolicy::Lenient,
    failing_bmc: FailingBmc::IsTried,
};

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
    pub(crate) power: SimPower,
    pub(crate) upstream: FakeUpstream,
    pub(crate) gate: Gate,
    pub(crate) runtime_directory: PathBuf,
    pub(crate) state_directory: PathBuf,
    pub(crate) agent: AgentState,
}

/// What the host's firmware says of itself.
#[derive(Debug, Clone)]
struct Machine(String);

impl MachineGuid for Machine {
    async fn read(&self) -> Result<String, String> {
        Ok(self.0.clone())
    }
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
    let mut hold = HoldKeeper::new(HoldParts {
        store: parts.store.clone(),
        clock: clock.clone(),
        hypervisor: Some(parts.hypervisor.clone()),
        me: me.clone(),
        incarnation: parts.incarnation.clone(),
        agent: agent.clone(),
        file: MemoryFile::in_directory(&parts.state_directory),
    });
    let version = loop {
        match schema::prepare(&parts.store, clock, me).await {
            Ok(Prepared::Initialised | Prepared::Migrated { .. } | Prepared::AlreadySo)
                if hold.before_registration().await.is_ok() =>
            {
                match register(&parts.store, clock, &registrant, agent.node_right()).await {
                    Ok(version) => break version,
                    Err(
                        error @ (RegistrationError::NameTaken { .. }
                        | RegistrationError::Copied { .. }
                        | RegistrationError::LifeUsed { .. }
                        | RegistrationError::SecondAgent { .. }
                        | RegistrationError::MachineIdChanged { .. }),
                    ) => {
                        parts.gate.hooks.say(|| format!("{me} is refused: {error}"));
                        // The service manager starts it again.
                        parts.gate.hooks.demand(Demand::Kill {
                            host: parts.gate.host,
                        });
                        return;
                    }
                    Err(
                        RegistrationError::Read(_)
                        | RegistrationError::Write(_)
                        | RegistrationError::OtherProtocol { .. }
                        | RegistrationError::Contended,
                    ) => {}
                }
            }
            Ok(_) | Err(_) => {}
        }
        clock.sleep(Duration::from_secs(1)).await;
    };
    let hearing = Hearing::new();
    let mut lease = NodeLeaseKeeper::new(
        parts.lease_store.clone(),
        clock.clone(),
        me.clone(),
        parts.incarnation.clone(),
        version,
        agent.node_right().clone(),
        Pulse::default(),
    );
    let coordinator = parts.mode == DaemonMode::Coordinator;
    if coordinator {
        lease = lease.hearing(hearing.clone());
    }
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
    if coordinator {
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
    }
    while hold.after_registration().await.is_err() {
        clock.sleep(Duration::from_secs(1)).await;
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
        shutdown_timeout: SHUTDOWN,
        agent: agent.clone(),
    };
    let mut guests = Guests::new(vms);
    clock.timeout(Duration::from_secs(20), guests.settle()).await;
    let hypervisor = parts.hypervisor.clone();
    let own_fence = OwnFence::new(
        parts.store.clone(),
        clock.clone(),
        me.clone(),
        parts.incarnation.clone(),
        agent.clone(),
        move || hypervisor.processes().is_ok_and(|processes| processes.is_empty()),
    );
    spawner.spawn(own_fence.run());
    let drain = DrainRounds::new(DrainParts {
        store: parts.store.clone(),
        clock: clock.clone(),
        me: me.clone(),
        agent: agent.clone(),
        shutdown_timeout: SHUTDOWN,
    });
    spawner.spawn(drain.run());
    let gate = parts.gate.clone();
    let bmc = BmcWatch::new(
        parts.store.clone(),
        clock.clone(),
        parts.power.clone(),
        Machine(machine_guid(gate.host)),
        me.clone(),
        BmcSettings {
            access: Some(BmcAccess {
                host: bmc_name(gate.host),
                user: "admin".to_owned(),
                password: Secret::new("secret"),
            }),
            identity: IdentityPolicy::Lenient,
            failing: FailingBmc::IsTried,
        },
    );
    spawner.spawn(bmc.run());
    spawner.spawn(hold.run(move |status| {
        gate.hooks.say(|| format!("hv{} says: {status}", gate.host + 1));
    }));
    if coordinator {
        let watcher = UpstreamWatcher::new(
            parts.store.clone(),
            clock.clone(),
            parts.upstream.clone(),
            me.clone(),
            agent.clone(),
        );
        spawner.spawn(watcher.run());
        let fencer = Fencer::new(FenceParts {
            store: parts.store.clone(),
            clock: clock.clone(),
            power: parts.power.clone(),
            storage: parts.storage.clone(),
            me: me.clone(),
            incarnation: parts.incarnation.clone(),
            agent: agent.clone(),
            hearing: hearing.clone(),
            floating_addresses: parts.floating.clone(),
            settings: FENCE_SETTINGS,
        });
        spawner.spawn(fencer.run());
    }
    spawner.spawn(async move { guests.run().await });
    heartbeat(&parts).await;
}

/// What the heartbeat does: it says `run`, whatever others have written, and tells figures of a host with much room.
async fn heartbeat(parts: &AgentParts) {
    let own = keys::node(&parts.me);
    loop {
        let state = match parts.agent.phase() {
            AgentPhase::Starting => DaemonState::Init,
            AgentPhase::Running => DaemonState::Run,
            AgentPhase::ShuttingDown => DaemonState::Shutdown,
        };
        let txn = Txn::new()
            .overwrite(&own.daemon_state(), &state)
            .overwrite(&own.keepalive(), &wall_seconds(&parts.clock))
            .overwrite(&own.memory_total_mib(), &65_536)
            .overwrite(&own.memory_used_mib(), &1024)
            .overwrite(&own.memory_free_mib(), &64_512);
        let txn = match parts.hypervisor.domains().await {
            Ok(domains) => txn.overwrite(
                &own.running_domains(),
                &RunningDomains(domains.keys().copied().collect()),
            ),
            Err(_) => txn,
        };
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
            if !self.rounds.unsettled() {
                return;
            }
            while self.rounds.unsettled()
                && let Some((task, outcome)) = self.tasks.next().await
            {
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
