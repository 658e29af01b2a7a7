//! The thread of the leases: nothing else runs there, so nothing else can delay them.

use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use pvc_common::clock::{Clock as _, HostClock};
use pvc_common::config::Config;
use pvc_common::store::zookeeper::ZooKeeperStore;
use pvc_core::ids::{Incarnation, ZnodeVersion};
use pvc_core::role::RoleTiming;
use pvc_core::states::DaemonMode;
use sd_notify::NotifyState;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::{error, info, warn};

use super::services::ApiProbe;
use super::{addresses, lease_store_options, runtime_directory, tell_systemd};
use crate::agent::{AgentState, Pulse};
use crate::host::network::KernelNetwork;
use crate::node_lease::{Hearing, NodeLeaseKeeper};
use crate::role::{RoleKeeper, RoleParts, TenureFile};

/// A loop that made no progress for so long keeps the watchdog from being fed; it bites 6 s after the last time.
const STUCK_AFTER: Duration = Duration::from_secs(5);
/// How often the watchdog is fed.
const FEED_EVERY: Duration = Duration::from_secs(1);

/// The thread, and what it says.
pub(super) struct LeaseThread {
    handle: Handle,
    store: ZooKeeperStore,
    out: watch::Receiver<bool>,
    say_out: Option<watch::Sender<bool>>,
    pulses: watch::Sender<Vec<Pulse>>,
    /// The thread ends when this is dropped.
    _end: oneshot::Sender<()>,
}

impl LeaseThread {
    /// Starts the thread; from now on the service manager's watchdog is fed from it.
    pub(super) fn start(config: &Config) -> anyhow::Result<LeaseThread> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("failed to start the lease runtime")?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        let (pulses, watched) = watch::channel(Vec::new());
        thread::Builder::new()
            .name("lease".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        _ = ended => {}
                        () = feed_watchdog(watched) => {}
                    }
                });
                runtime.shutdown_background();
            })
            .context("failed to start the lease thread")?;
        let (say_out, out) = watch::channel(false);
        // Connected by the time that registration has made a lease to renew.
        let store = {
            let _within = handle.enter();
            ZooKeeperStore::connect(lease_store_options(config))
        };
        Ok(LeaseThread {
            handle,
            store,
            out,
            say_out: Some(say_out),
            pulses,
            _end: end,
        })
    }

    /// Begins to renew the lease that registration has left at `version`, and to take part in the primary role. The
    /// answer says when this agent must stop acting, and why.
    pub(super) fn hold(
        &mut self,
        config: &Config,
        incarnation: &Incarnation,
        agent: &AgentState,
        version: ZnodeVersion,
        hearing: &Hearing,
    ) -> anyhow::Result<mpsc::Receiver<String>> {
        let (tell, lost) = mpsc::channel(1);
        let (lease_pulse, role_pulse) = (Pulse::default(), Pulse::default());
        let now = HostClock.now();
        lease_pulse.beat(now);
        role_pulse.beat(now);
        let coordinator = config.mode == DaemonMode::Coordinator;
        let mut pulses = vec![lease_pulse.clone()];
        if coordinator {
            pulses.push(role_pulse.clone());
        }
        let store = self.store.clone();
        let mut node_lease = NodeLeaseKeeper::new(
            store.clone(),
            HostClock,
            config.node.clone(),
            incarnation.clone(),
            version,
            agent.node_right().clone(),
            lease_pulse,
        )
        .measured(agent.measures().clone());
        if coordinator {
            node_lease = node_lease.hearing(hearing.clone());
        }
        let floating = addresses::floating(config);
        self.handle.spawn(async move {
            let lost = loop {
                if let Err(lost) = node_lease.round().await {
                    break lost;
                }
            };
            error!(error = %lost, "the node lease is lost: taking the addresses of the role off");
            if let Err(error) = KernelNetwork::new(HostClock).drop_role_addresses(&floating) {
                error!(%error, "failed to take an address off");
            }
            // Nobody listens only when the agent is ending anyway.
            let _ = tell.send(lost.to_string()).await;
        });
        let say_out = self.say_out.take();
        if !coordinator {
            if let Some(say_out) = say_out {
                say_out.send_replace(true);
            }
            self.pulses.send_replace(pulses);
            return Ok(lost);
        }
        let upstream = &config.cluster.networks.upstream.ipv4;
        let mut role = RoleKeeper::new(
            RoleParts {
                store,
                clock: HostClock,
                network: KernelNetwork::new(HostClock),
                services: ApiProbe::new(config),
                me: config.node.clone(),
                incarnation: incarnation.clone(),
                coordinators: config.cluster.coordinator_nodes.clone(),
                addresses: addresses::of_role(config),
                upstream_ip: format!("{}/{}", upstream.floating_address, upstream.prefix_length),
                agent: agent.clone(),
                tenure_file: TenureFile::in_directory(&runtime_directory(config)),
                pulse: role_pulse,
            },
            RoleTiming::DEFAULT,
        );
        self.handle.spawn(async move {
            loop {
                role.round().await;
                if let Some(say_out) = &say_out {
                    let out = role.is_out();
                    say_out.send_if_modified(|said| std::mem::replace(said, out) != out);
                }
            }
        });
        self.pulses.send_replace(pulses);
        info!("leases are kept");
        Ok(lost)
    }

    /// Returns when nothing of the role is left on this node.
    pub(super) async fn out_of_role(&mut self) {
        if self.out.wait_for(|out| *out).await.is_err() {
            warn!("the lease thread has ended");
        }
    }
}

/// Feeds the service manager's watchdog while every loop makes progress. An agent that stands still is killed, and its
/// addresses are taken off by `--drop-role`.
async fn feed_watchdog(pulses: watch::Receiver<Vec<Pulse>>) {
    let mut stuck = false;
    let mut feeding: Option<JoinHandle<()>> = None;
    loop {
        let now = HostClock.now();
        let alive = pulses
            .borrow()
            .iter()
            .all(|pulse| pulse.silent_for(now) < STUCK_AFTER);
        if alive {
            // Not on this thread: the send waits when the service manager does not take its mail (a systemd that has
            // crashed stands still for ever), and the leases must not wait with it.
            if feeding.as_ref().is_none_or(JoinHandle::is_finished) {
                feeding = Some(spawn_blocking(|| tell_systemd(&[NotifyState::Watchdog])));
            }
        } else if !stuck {
            error!("a loop of the leases makes no progress; the watchdog is not fed any more");
        }
        stuck = !alive;
        HostClock.sleep(FEED_EVERY).await;
    }
}
