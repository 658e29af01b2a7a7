//! The agent as a process: its threads, its loops, its start and its end.
//!
//! | thread | what runs there |
//! |---|---|
//! | `lease` | node lease, primary role and the watchdog, over a store client of their own |
//! | main runtime | registration, guests, statistics |
//! | others | libvirt calls, the log writer |
//!
//! Nothing that can hang (Ceph, libvirt, disks, the log) runs on the lease thread (I6).
//!
//! Start: configuration, the host's bridges, services, store, schema, registration (`init`), guests that run already
//! are confirmed, `run`. Stop: `shutdown`, the role is handed over, `stop`. Guests are never touched by either (I8).

mod addresses;
mod adopt;
mod drop_role;
mod ensemble;
mod guests;
mod lease_thread;
mod services;

pub use adopt::order_adoption;
pub use drop_role::drop_role;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use pvc_common::clock::{Clock as _, HostClock};
use pvc_common::command::HostCommandRunner;
use pvc_common::config::{Config, NetworkKind, UpstreamProbeKind};
use pvc_common::keys;
use pvc_common::schema::{self, Prepared, SchemaError};
use pvc_common::store::zookeeper::{ZooKeeperOptions, ZooKeeperStore};
use pvc_common::store::{Store as _, StoreExt as _, Txn};
use pvc_common::telemetry::RecentLines;
use pvc_core::ids::{Incarnation, NodeName};
use pvc_core::records::PrimaryRecord;
use pvc_core::states::{DaemonMode, DaemonState};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::agent::{AgentPhase, AgentState};
use crate::bmc::{BmcSettings, BmcWatch};
use crate::cluster_faults::ClusterFaults;
use crate::console::Consoles;
use crate::drain::{DrainParts, DrainRounds};
use crate::fence::{FenceParts, FenceSettings, Fencer, OwnFence};
use crate::health::{HealthFiles, HealthKeeper, HealthParts};
use crate::heartbeat::Heartbeat;
use crate::hold::{HoldKeeper, HoldParts, MemoryFile, adopt_earlier_release};
use crate::host::BmcAccess;
use crate::host::ceph::{CephAccess, CephCommands};
use crate::host::identity::{IdentityFiles, begin_life, skip_used_lives};
use crate::host::libvirt::Libvirt;
use crate::host::network::{KernelNetwork, ensure_bridges};
use crate::host::power::Ipmitool;
use crate::host::power::machine::HostGuid;
use crate::host::reach::Monitors;
use crate::host::upstream::HostUpstream;
use crate::lock_flush::LockFlusher;
use crate::node_lease::Hearing;
use crate::node_log::NodeLog;
use crate::registration::{Registrant, RegistrationError, register};
use crate::storage_loss::StorageWatcher;
use crate::upstream::UpstreamWatcher;
use guests::Guests;
use lease_thread::LeaseThread;

/// What outlasts a reboot.
const STATE_DIRECTORY: &str = "/var/lib/pvc";
/// A new node takes guests at once if this file is there (as with PVC 1.0.3).
const AUTOREADY_FILE: &str = "/etc/pvc/autoready";
/// Between two tries to reach a store that does not answer.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// How long an orderly stop waits for the role to be handed over.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(12);
/// How long it waits for another node to be named, once the addresses are off.
const SUCCESSOR_WITHIN: Duration = Duration::from_secs(3);
/// How long it waits for what is being done to guests.
const GUESTS_WITHIN: Duration = Duration::from_secs(10);
/// How long it waits until the end of its log is published.
const LOG_WITHIN: Duration = Duration::from_secs(2);

/// The runtime directory of the configuration, which is made by the unit.
pub fn runtime_directory(config: &Config) -> PathBuf {
    config.paths.dynamic_directory.clone()
}

/// How the store is reached for leases. While the ensemble elects a leader the client tries server after server, and each
/// silent one costs it this time: with 1.5 s a renewal took up to 4.0 s then, with 0.9 s up to 3.3 s. An idle client
/// pings at three eighths of it, so that less would cost more packets.
fn lease_store_options(config: &Config) -> ZooKeeperOptions {
    ZooKeeperOptions {
        connection_timeout: Duration::from_millis(900),
        ..store_options(config)
    }
}

/// How the store is reached for everything else, where nobody's right hangs on it: fewer pings.
fn store_options(config: &Config) -> ZooKeeperOptions {
    ZooKeeperOptions {
        connection_timeout: Duration::from_secs(4),
        ..ZooKeeperOptions::new(config.zookeeper_servers().join(","))
    }
}

/// Runs the agent until it is asked to stop. What it logs is in `recent` too.
///
/// # Errors
/// What kept it from starting, or made it give up: the service manager restarts it, and it begins anew from what it
/// can read.
pub fn run(config: Config, recent: RecentLines) -> anyhow::Result<()> {
    // A task that panics would leave its duty undone and everything else going: better down than wrong.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    let files = IdentityFiles::from_environment();
    let life = begin_life(&files).context("failed to begin a life of this agent")?;
    info!(node = %config.node, incarnation = %life.incarnation, mode = %config.mode, "node agent starts");
    prepare_host(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .thread_name("agent")
        .build()
        .context("failed to start the runtime")?;
    let outcome = runtime.block_on(
        Daemon {
            config,
            incarnation: life.incarnation.clone(),
            recent,
        }
        .live(),
    );
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// Addresses first: nothing of an earlier life may answer, and the store is reached over them.
fn prepare_host(config: &Config) -> anyhow::Result<()> {
    let network = KernelNetwork::new(HostClock);
    let dropped = network
        .drop_role_addresses(&addresses::floating(config))
        .context("failed to take the addresses of the primary role off this host")?;
    if !dropped.is_empty() {
        warn!(
            ?dropped,
            "took off addresses that an earlier life of this agent had left"
        );
    }
    if config.subsystems.networking {
        let changes =
            ensure_bridges(&config.cluster.networks).context("failed to set the host's bridges up")?;
        for change in changes {
            info!(change, "host network changed");
        }
    }
    Ok(())
}

/// Tells people each time that the agent begins to take part, or is kept from it.
async fn tell_when_running(agent: AgentState) {
    loop {
        match agent.phase() {
            // On hold it takes no part; the loop of the hold says so.
            AgentPhase::Running if agent.hold().is_on() => {}
            AgentPhase::Running => {
                info!("node runs");
                tell_systemd(&[NotifyState::Status("running")]);
            }
            AgentPhase::Starting => {
                tell_systemd(&[NotifyState::Status("waiting until no fence bars this node")])
            }
            AgentPhase::ShuttingDown => return,
        }
        agent.phase_changed().await;
    }
}

fn tell_systemd(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "failed to notify the service manager");
    }
}

struct Daemon {
    config: Config,
    incarnation: Incarnation,
    recent: RecentLines,
}

impl Daemon {
    async fn live(self) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate()).context("failed to listen for signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for signals")?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        tokio::pin!(stop);
        services::start_needed(&self.config).await;
        let agent = AgentState::new();
        let mut leases = LeaseThread::start(&self.config)?;
        tell_systemd(&[
            NotifyState::Ready,
            NotifyState::Status("waiting for the coordination store"),
        ]);
        let store = ZooKeeperStore::connect(store_options(&self.config));
        let guests = Guests::new(&self.config, &self.incarnation, &agent, store.clone())?;

        let mut hold = HoldKeeper::new(HoldParts {
            store: store.clone(),
            clock: HostClock,
            hypervisor: guests.statistics(),
            me: self.config.node.clone(),
            incarnation: self.incarnation.clone(),
            agent: agent.clone(),
            file: MemoryFile::in_directory(std::path::Path::new(STATE_DIRECTORY)),
        });

        let registered = tokio::select! {
            biased;
            () = &mut stop => return Ok(()),
            registered = self.join_cluster(&store, &agent, &mut hold) => registered?,
        };
        let hearing = Hearing::new();
        let mut lost = leases.hold(&self.config, &self.incarnation, &agent, registered, &hearing)?;
        tokio::select! {
            biased;
            () = &mut stop => return Ok(()),
            () = say_whether_on_hold(&mut hold) => {}
        }
        let (stop_guests, guests_stop) = watch::channel(false);
        let mut guests = guests.prepare().await;
        let heartbeat = Heartbeat::new(&self.config, store.clone(), agent.clone(), guests.statistics());
        let own_fence = OwnFence::new(
            store.clone(),
            HostClock,
            self.config.node.clone(),
            self.incarnation.clone(),
            agent.clone(),
            guests.is_empty(),
        );
        // All loops go on while a fence of this node is open: guests of an earlier life are ended by them, and nothing is
        // started before the agent takes part. Each begins from what is on record and may be dropped at any moment: what
        // it was doing, the next life of this agent goes on with, or another node.
        let mut loops = JoinSet::new();
        loops.spawn(own_fence.run());
        loops.spawn(heartbeat.run());
        loops.spawn(watch_health(&self.config, &store, guests.statistics()));
        loops.spawn(self.drain(&store, &agent).run());
        loops.spawn(self.lock_flusher(&store, &agent).run());
        loops.spawn(ensemble::watch_ensemble(self.config.clone(), store.clone()));
        loops.spawn(watch_bmc(&self.config, &store));
        if let Some(faults) = self.cluster_faults(&store, &agent) {
            loops.spawn(faults.run());
        }
        loops.spawn(tell_when_running(agent.clone()));
        loops.spawn(hold.run(|status| tell_systemd(&[NotifyState::Status(status)])));
        if let Some(hypervisor) = guests.statistics() {
            loops.spawn(self.consoles(&store, &agent, hypervisor).run());
        }
        if let Some(storage) = watch_storage(&self.config, &store, &agent, guests.statistics()) {
            loops.spawn(storage);
        }
        if let Some(upstream) = watch_upstream(&self.config, &store, &agent) {
            loops.spawn(upstream);
        }
        if let Some(fencer) = self.fencer(&store, &agent, &hearing) {
            loops.spawn(fencer.run());
        }
        let mut guests = tokio::spawn(async move { guests.run(guests_stop).await });
        let (stop_log, log_stop) = watch::channel(false);
        let log = (self.recent.most() > 0).then(|| tokio::spawn(self.node_log(&store).run(log_stop)));

        tokio::select! {
            () = &mut stop => {}
            reason = lost.recv() => {
                let reason = reason.unwrap_or_else(|| "the lease thread has ended".to_owned());
                // The addresses are off already: the lease thread sees to that before it tells.
                error!(reason, "this agent must not act any more");
                anyhow::bail!(reason);
            }
        }
        info!("node agent was asked to stop");
        tell_systemd(&[NotifyState::Stopping]);
        agent.enter(AgentPhase::ShuttingDown);
        self.publish(&store, DaemonState::Shutdown).await;
        self.hand_over(&store, &mut leases).await;
        // It has been asked; the receiver may be gone already.
        let _ = stop_guests.send(true);
        if HostClock.timeout(GUESTS_WITHIN, &mut guests).await.is_none() {
            warn!("something is still being done to a guest; the next life of this agent will find out");
        }
        loops.shutdown().await;
        self.publish(&store, DaemonState::Stop).await;
        info!("node agent stops");
        // As above.
        let _ = stop_log.send(true);
        if let Some(log) = log
            && HostClock.timeout(LOG_WITHIN, log).await.is_none()
        {
            warn!("the end of the log was not published");
        }
        Ok(())
    }

    /// What empties this node and fills it again.
    fn drain(&self, store: &ZooKeeperStore, agent: &AgentState) -> DrainRounds<ZooKeeperStore, HostClock> {
        DrainRounds::new(DrainParts {
            store: store.clone(),
            clock: HostClock,
            me: self.config.node.clone(),
            agent: agent.clone(),
            shutdown_timeout: self.config.timers.vm_shutdown_timeout,
        })
    }

    /// What removes the locks of stopped guests' volumes, when that is ordered.
    fn lock_flusher(
        &self,
        store: &ZooKeeperStore,
        agent: &AgentState,
    ) -> LockFlusher<ZooKeeperStore, HostClock, CephCommands<HostCommandRunner>> {
        let ceph = CephAccess::new(
            self.config.ceph.config_file.clone(),
            self.config.ceph.keyring_file.clone(),
        );
        LockFlusher {
            store: store.clone(),
            clock: HostClock,
            storage: CephCommands::new(HostCommandRunner::from_system(), ceph),
            me: self.config.node.clone(),
            agent: agent.clone(),
        }
    }

    /// What publishes the consoles of the guests that run here.
    fn consoles(
        &self,
        store: &ZooKeeperStore,
        agent: &AgentState,
        hypervisor: Libvirt,
    ) -> Consoles<ZooKeeperStore, HostClock, Libvirt> {
        Consoles {
            store: store.clone(),
            clock: HostClock,
            hypervisor,
            directory: self.config.paths.console_log_directory.clone(),
            lines: usize::try_from(self.config.logging.console_lines).unwrap_or(usize::MAX),
            agent: agent.clone(),
        }
    }

    /// What tells of the cluster's faults while this node is primary.
    fn cluster_faults(
        &self,
        store: &ZooKeeperStore,
        agent: &AgentState,
    ) -> Option<ClusterFaults<ZooKeeperStore, HostClock, CephCommands<HostCommandRunner>>> {
        match self.config.mode {
            DaemonMode::Hypervisor => return None,
            DaemonMode::Coordinator => {}
        }
        let ceph = self.config.subsystems.storage.then(|| {
            let access = CephAccess::new(
                self.config.ceph.config_file.clone(),
                self.config.ceph.keyring_file.clone(),
            );
            CephCommands::new(HostCommandRunner::from_system(), access)
        });
        Some(ClusterFaults {
            store: store.clone(),
            clock: HostClock,
            ceph,
            me: self.config.node.clone(),
            agent: agent.clone(),
            interval: self.config.timers.monitoring_interval,
        })
    }

    /// What publishes this agent's log.
    fn node_log(&self, store: &ZooKeeperStore) -> NodeLog<ZooKeeperStore, HostClock> {
        NodeLog {
            store: store.clone(),
            clock: HostClock,
            me: self.config.node.clone(),
            recent: self.recent.clone(),
            secrets: self.config.secrets(),
        }
    }

    /// A coordinator watches all others.
    fn fencer(
        &self,
        store: &ZooKeeperStore,
        agent: &AgentState,
        hearing: &Hearing,
    ) -> Option<Fencer<ZooKeeperStore, HostClock, Ipmitool<HostCommandRunner>, CephCommands<HostCommandRunner>>>
    {
        match self.config.mode {
            DaemonMode::Hypervisor => return None,
            DaemonMode::Coordinator => {}
        }
        let ceph = CephAccess::new(
            self.config.ceph.config_file.clone(),
            self.config.ceph.keyring_file.clone(),
        );
        Some(Fencer::new(FenceParts {
            store: store.clone(),
            clock: HostClock,
            power: Ipmitool::new(HostCommandRunner::from_system()),
            storage: CephCommands::new(HostCommandRunner::from_system(), ceph),
            me: self.config.node.clone(),
            incarnation: self.incarnation.clone(),
            agent: agent.clone(),
            hearing: hearing.clone(),
            floating_addresses: addresses::floating(&self.config),
            settings: FenceSettings::new(&self.config.fencing, self.config.subsystems.storage),
        }))
    }

    /// Waits for the store, prepares its schema, registers.
    async fn join_cluster(
        &self,
        store: &ZooKeeperStore,
        agent: &AgentState,
        hold: &mut HoldKeeper<ZooKeeperStore, HostClock, Libvirt>,
    ) -> anyhow::Result<pvc_core::ids::ZnodeVersion> {
        let registrant = Registrant {
            node: self.config.node.clone(),
            mode: self.config.mode,
            incarnation: self.incarnation.clone(),
            ready_when_new: std::path::Path::new(AUTOREADY_FILE).exists(),
            addresses: addresses::of_node(&self.config),
            bmc: self
                .config
                .fencing
                .bmc
                .as_ref()
                .map(|bmc| (bmc.hostname.clone(), bmc.username.clone(), bmc.password.clone())),
        };
        let mut said = None;
        loop {
            store.wait_connected(STORE_RETRY * 5).await;
            let trouble = match self.try_join(store, agent, hold, &registrant).await {
                Ok(version) => return Ok(version),
                Err(JoinError::Final(error)) => return Err(error),
                Err(JoinError::Later(reason)) => reason,
            };
            if said.as_ref() != Some(&trouble) {
                warn!(reason = %trouble, "not part of the cluster yet");
                tell_systemd(&[NotifyState::Status(&trouble)]);
                said = Some(trouble);
            }
            HostClock.sleep(STORE_RETRY).await;
        }
    }

    async fn try_join(
        &self,
        store: &ZooKeeperStore,
        agent: &AgentState,
        hold: &mut HoldKeeper<ZooKeeperStore, HostClock, Libvirt>,
        registrant: &Registrant,
    ) -> Result<pvc_core::ids::ZnodeVersion, JoinError> {
        match schema::prepare(store, &HostClock, &self.config.node).await {
            Ok(Prepared::WaitingFor { nodes }) => {
                // Another node may migrate the store, guests and all, before this one looks again.
                hold.found_earlier_release(0).await;
                let names: Vec<_> = nodes.iter().map(NodeName::to_string).collect();
                return Err(JoinError::Later(format!(
                    "the store has the schema of an earlier release; waiting for its agents on {}",
                    names.join(", ")
                )));
            }
            Ok(Prepared::Initialised | Prepared::Migrated { .. } | Prepared::AlreadySo) => {}
            Err(SchemaError::UnownedGuests { count, .. }) => {
                hold.found_earlier_release(u32::try_from(count).unwrap_or(u32::MAX))
                    .await;
                let keepalive = self.config.timers.keepalive_interval;
                adopt_earlier_release(store, &HostClock, &self.config.node, keepalive)
                    .await
                    .map_err(JoinError::Later)?;
            }
            Err(error) => return Err(JoinError::Later(chain(&error))),
        }
        hold.before_registration()
            .await
            .map_err(|error| JoinError::Later(chain(&error)))?;
        self.name_cluster(store).await;
        self.publish_selector(store).await;
        register(store, &HostClock, registrant, agent.node_right())
            .await
            .map_err(|error| match error {
                RegistrationError::LifeUsed { used, .. } => {
                    if let Err(error) =
                        skip_used_lives(&IdentityFiles::from_environment(), &self.incarnation, used)
                    {
                        return JoinError::Later(chain(&error));
                    }
                    JoinError::Final(error.into())
                }
                RegistrationError::NameTaken { .. }
                | RegistrationError::Copied { .. }
                | RegistrationError::SecondAgent { .. }
                | RegistrationError::MachineIdChanged { .. } => JoinError::Final(error.into()),
                // The others may be upgraded at any moment.
                RegistrationError::OtherProtocol { .. } => JoinError::Later(chain(&error)),
                RegistrationError::Read(_) | RegistrationError::Write(_) | RegistrationError::Contended => {
                    JoinError::Later(chain(&error))
                }
            })
    }

    /// The cluster's name, for clients: from the configuration of whoever starts.
    async fn name_cluster(&self, store: &ZooKeeperStore) {
        let key = keys::config().cluster_name();
        let name = &self.config.cluster.name;
        let outcome = match store.require(&key).await {
            Ok(known) if known.value == *name => return,
            Ok(known) => store.commit(Txn::new().set(&key, name, known.version)).await,
            Err(error) => {
                warn!(%error, "failed to read the cluster's name");
                return;
            }
        };
        if let Err(error) = outcome {
            warn!(%error, "failed to write the cluster's name");
        }
    }

    /// By what target nodes are chosen where a guest leaves it to the cluster: from the configuration of whoever starts.
    async fn publish_selector(&self, store: &ZooKeeperStore) {
        let key = keys::config().migration_target_selector();
        let selector = Some(self.config.target_selector);
        let outcome = match store.require(&key).await {
            Ok(known) if known.value == selector => return,
            Ok(known) => store.commit(Txn::new().set(&key, &selector, known.version)).await,
            Err(error) => {
                warn!(%error, "failed to read how target nodes are chosen");
                return;
            }
        };
        if let Err(error) = outcome {
            warn!(%error, "failed to write how target nodes are chosen");
        }
    }

    async fn publish(&self, store: &ZooKeeperStore, state: DaemonState) {
        let key = keys::node(&self.config.node).daemon_state();
        match store.commit(Txn::new().overwrite(&key, &state)).await {
            Ok(_) => info!(%state, "published the daemon state"),
            Err(error) => warn!(%error, %state, "failed to publish the daemon state"),
        }
    }

    /// The role first, so that nothing of it is missing while the rest of this node winds down.
    async fn hand_over(&self, store: &ZooKeeperStore, leases: &mut LeaseThread) {
        if HostClock
            .timeout(HAND_OVER_WITHIN, leases.out_of_role())
            .await
            .is_none()
        {
            warn!(
                "the primary role was not handed over in time; others will take it once its lease has ended"
            );
            return;
        }
        let alone = !self
            .config
            .cluster
            .coordinator_nodes
            .iter()
            .any(|node| *node != self.config.node);
        if alone {
            return;
        }
        let named = async {
            let key = keys::config().primary_node();
            loop {
                match store.require(&key).await {
                    Ok(record) if record.value == PrimaryRecord::None => {
                        HostClock.sleep(STORE_RETRY / 10).await
                    }
                    Ok(_) | Err(_) => return,
                }
            }
        };
        if HostClock.timeout(SUCCESSOR_WITHIN, named).await.is_none() {
            warn!("no other node has taken the primary role yet");
        }
    }
}

/// Others take a life that has said nothing for one that may be on hold, so this is said before anything is done.
async fn say_whether_on_hold(hold: &mut HoldKeeper<ZooKeeperStore, HostClock, Libvirt>) {
    while let Err(error) = hold.after_registration().await {
        warn!(%error, "failed to say whether this node is on hold");
        HostClock.sleep(STORE_RETRY).await;
    }
}

/// The watch of the storage network, on a node that runs guests and knows a monitor on another host.
fn watch_storage(
    config: &Config,
    store: &ZooKeeperStore,
    agent: &AgentState,
    hypervisor: Option<Libvirt>,
) -> Option<impl Future<Output = ()> + Send + use<>> {
    if !config.subsystems.storage {
        return None;
    }
    let addresses = monitors_elsewhere(config);
    if addresses.is_empty() {
        return None;
    }
    let watcher = StorageWatcher::new(
        store.clone(),
        HostClock,
        hypervisor?,
        Monitors { addresses },
        config.node.clone(),
        agent.clone(),
        config.fencing.storage_loss,
    );
    Some(watcher.run())
}

/// The monitors that are not on this host: by address where that follows from a node's name, so that a dead name server
/// does not look like a dead storage network.
fn monitors_elsewhere(config: &Config) -> Vec<String> {
    let storage = &config.cluster.networks.storage;
    let own = storage.ipv4.node_address.to_string();
    config
        .ceph
        .monitor_hosts
        .iter()
        .filter_map(|host| {
            let node = config
                .cluster
                .coordinator_nodes
                .iter()
                .find(|node| *host == format!("{node}.{}", storage.domain));
            match node {
                Some(node) if *node == config.node => None,
                Some(node) => Some(
                    storage
                        .ipv4
                        .address_of(node)
                        .map_or(host.clone(), |ip| ip.to_string()),
                ),
                None => Some(host.clone()),
            }
        })
        .filter(|host| *host != own)
        .map(|host| match host.contains(':') {
            true => format!("[{host}]:{}", config.ceph.monitor_port),
            false => format!("{host}:{}", config.ceph.monitor_port),
        })
        .collect()
}

/// The watch of the upstream network, on a coordinator that is to look.
fn watch_upstream(
    config: &Config,
    store: &ZooKeeperStore,
    agent: &AgentState,
) -> Option<impl Future<Output = ()> + Send + use<>> {
    let networks = &config.cluster.networks;
    let gateway = match networks.upstream_probe {
        UpstreamProbeKind::Off => return None,
        UpstreamProbeKind::Carrier => None,
        UpstreamProbeKind::Gateway => networks.upstream.ipv4.gateway_address,
    };
    if config.mode != DaemonMode::Coordinator || !config.subsystems.networking {
        return None;
    }
    let probe = HostUpstream {
        device: networks.upstream.device.clone(),
        bridge: networks.bridge(NetworkKind::Upstream).to_owned(),
        own: networks.upstream.ipv4.node_address,
        gateway,
        sys: "/sys".into(),
    };
    let watcher = UpstreamWatcher::new(
        store.clone(),
        HostClock,
        probe,
        config.node.clone(),
        agent.clone(),
    );
    Some(watcher.run())
}

/// The health checks of this node.
fn watch_health(
    config: &Config,
    store: &ZooKeeperStore,
    hypervisor: Option<Libvirt>,
) -> impl Future<Output = ()> + Send + use<> {
    let networks = &config.cluster.networks;
    let devices = [&networks.cluster, &networks.storage, &networks.upstream]
        .map(|network| network.device.clone())
        .into_iter();
    HealthKeeper::new(HealthParts {
        store: store.clone(),
        clock: HostClock,
        hypervisor,
        commands: HostCommandRunner::from_system(),
        files: HealthFiles::default(),
        me: config.node.clone(),
        zookeeper: match config.mode {
            DaemonMode::Coordinator => Some(SocketAddr::new(
                networks.cluster.ipv4.node_address.into(),
                config.database.zookeeper_port,
            )),
            DaemonMode::Hypervisor => None,
        },
        devices: match config.subsystems.networking {
            true => devices.collect(),
            false => Vec::new(),
        },
        interval: config.timers.monitoring_interval,
    })
    .run()
}

/// The watch of this node's own BMC.
fn watch_bmc(config: &Config, store: &ZooKeeperStore) -> impl Future<Output = ()> + Send + use<> {
    let settings = BmcSettings {
        access: config.fencing.bmc.as_ref().map(|bmc| BmcAccess {
            host: bmc.hostname.clone(),
            user: bmc.username.clone(),
            password: bmc.password.clone(),
        }),
        identity: config.fencing.bmc_identity,
        failing: config.fencing.failing_bmc,
    };
    let ipmitool = Ipmitool::new(HostCommandRunner::from_system());
    let machine = HostGuid::from_environment(ipmitool.clone());
    let node = config.node.clone();
    BmcWatch::new(store.clone(), HostClock, ipmitool, machine, node, settings).run()
}

enum JoinError {
    /// It may come right by itself.
    Later(String),
    /// It will not.
    Final(anyhow::Error),
}

/// An error with all its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
