//! The daemon around the server: from the configuration to a server that runs until it is told to stop.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use pvc_common::config::{Authentication, Config};
use pvc_common::store::Store;
use pvc_common::store::zookeeper::{ZooKeeperOptions, ZooKeeperStore};
use pvc_core::ids::NodeName;
use tokio::signal::unix::{SignalKind, signal};

use crate::access::{AuthPolicy, KnownToken, TokenDigest};
use crate::app::{App, Settings, Waits};
use crate::server::{self, ServerError};
use crate::tls::{self, Certificate, TlsError, TlsFiles};

/// How long a server of the store may be silent before another is tried. Longer than for the agents, whose lease
/// depends on it: the client pings at three eighths of this, and the daemon idles on all coordinators but one.
const STORE_SILENCE: Duration = Duration::from_millis(2500);

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The server could not be made.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The certificate of HTTPS can not be used.
    #[error("the certificate of the API can not be used")]
    Tls(#[from] TlsError),
    /// Signals can not be received.
    #[error("can not receive signals")]
    Signals(#[source] std::io::Error),
    /// The server ended by itself.
    #[error("the server ended")]
    Ended(#[source] std::io::Error),
}

/// Where the daemon listens: at the configured address; if that is a floating one, then at all floating addresses of
/// the upstream network, which come and go with the primary role, and at the node's own address, which stays.
pub fn listen_addresses(config: &Config) -> BTreeSet<SocketAddr> {
    let configured = config.api.listen_address;
    let upstream = &config.cluster.networks.upstream;
    let mut addresses = BTreeSet::from([configured]);
    if upstream
        .floating_addresses()
        .any(|floating| floating == configured)
    {
        addresses.extend(upstream.floating_addresses());
        addresses.extend(upstream.node_addresses().map(|(address, _)| address));
    }
    addresses
        .into_iter()
        .map(|address| SocketAddr::new(address, config.api.listen_port))
        .collect()
}

/// What the handlers need of the configuration.
pub fn settings(config: &Config) -> Settings {
    Settings {
        auth: match &config.api.authentication {
            Authentication::Open => AuthPolicy::Open,
            Authentication::Tokens(tokens) => AuthPolicy::Tokens(
                tokens
                    .iter()
                    .map(|token| KnownToken {
                        digest: TokenDigest::of(token.token.expose().as_bytes()),
                        description: token.description.clone(),
                        role: token.role,
                    })
                    .collect(),
            ),
        },
        waits: Waits::for_shutdown_timeout(config.timers.vm_shutdown_timeout),
        max_age: config.api.max_age,
        node: config.node.clone(),
        tls: config.api.tls.is_some(),
        metrics: config.subsystems.prometheus,
    }
}

/// Serves until SIGTERM or SIGINT. Ready as soon as it listens: without the store it answers 503.
///
/// # Errors
/// [`DaemonError`].
pub async fn run(config: &Config) -> Result<(), DaemonError> {
    let certificate = match &config.api.tls {
        Some(tls) => Some(Certificate::load(TlsFiles {
            certificate: tls.certificate.clone(),
            private_key: tls.private_key.clone(),
        })?),
        None => None,
    };
    let tls = certificate.as_ref().map(Certificate::server_config).transpose()?;
    let addresses = listen_addresses(config);
    let listeners = addresses
        .iter()
        .map(|address| server::listen(*address))
        .collect::<Result<Vec<_>, _>>()?;
    let store = ZooKeeperStore::connect(ZooKeeperOptions {
        connection_timeout: STORE_SILENCE,
        ..ZooKeeperOptions::new(config.zookeeper_servers().join(","))
    });
    let settings = settings(config);
    if let AuthPolicy::Open = settings.auth {
        tracing::warn!("authentication is off: everybody who reaches the API may do everything");
    }
    let app = Arc::new(App::new(store.clone(), settings));
    let server = server::serve(Arc::clone(&app), listeners, tls)?;
    for address in &addresses {
        tracing::info!(%address, tls = config.api.tls.is_some(), "listening");
    }
    // Without systemd nobody listens there, which is no fault.
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::debug!(%error, "readiness could not be told");
    }
    let stop = stop_on_signals(server.handle());
    let reload = reload_on_signals(certificate, store, &config.node);
    let ended = tokio::select! {
        ended = server => ended.map_err(DaemonError::Ended),
        failed = stop => failed,
        failed = reload => failed,
    };
    app.access.finish().await;
    tracing::info!("stopped");
    ended
}

/// Stops the server when the daemon is told to; returns only if signals can not be received or after the stop.
async fn stop_on_signals(server: ServerHandle) -> Result<(), DaemonError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Signals)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("asked to stop");
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Stopping]) {
        tracing::debug!(%error, "the stop could not be told");
    }
    server.stop(true).await;
    Ok(())
}

/// Takes up a new certificate when its files change or SIGHUP comes. Without one SIGHUP changes nothing, and ends
/// nothing either. Returns only if signals can not be received.
async fn reload_on_signals<S: Store>(
    certificate: Option<Arc<Certificate>>,
    store: S,
    node: &NodeName,
) -> Result<(), DaemonError> {
    let mut hangup = signal(SignalKind::hangup()).map_err(DaemonError::Signals)?;
    match certificate {
        Some(certificate) => tls::follow(&certificate, &mut hangup, &store, node).await,
        None => while hangup.recv().await.is_some() {},
    }
    // Signals come no more: go on without them.
    std::future::pending().await
}
