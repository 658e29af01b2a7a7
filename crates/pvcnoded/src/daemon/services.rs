//! The services beside the agent: those that it needs, and what its primary role offers.

use std::net::SocketAddr;

use crate::host::services;
use crate::role::RoleServices;

/// Starts what this node should run. A service that does not start is told and is no reason to stop: the agent looks
/// after the rest.
pub(super) async fn start_needed(config: &Config) {
    let units = services::needed(&config.node, config.mode, &config.subsystems);
    for failure in services::start(&HostCommandRunner::from_system(), &units).await {
        warn!(unit = failure.unit, error = %failure.error, "a service did not start");
    }
}
use pvc_common::command::HostCommandRunner;
use pvc_common::config::Config;
use tracing::warn;

/// What answers on the role's addresses: the API, which runs on every coordinator and listens for the floating address
/// wherever it is.
#[derive(Debug)]
pub(super) struct ApiProbe {
    /// Where; `None` if this cluster has no API.
    pub(super) address: Option<SocketAddr>,
}

impl ApiProbe {
    pub(super) fn new(config: &Config) -> ApiProbe {
        let listen = config.api.listen_address;
        let ip = match listen.is_unspecified() {
            true => config.cluster.networks.upstream.ipv4.floating_address.into(),
            false => listen,
        };
        ApiProbe {
            address: config
                .subsystems
                .api
                .then(|| SocketAddr::new(ip, config.api.listen_port)),
        }
    }
}

impl RoleServices for ApiProbe {
    async fn answer(&self) -> Result<(), String> {
        let Some(address) = self.address else {
            return Ok(());
        };
        match tokio::net::TcpStream::connect(address).await {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("the API does not answer on {address}: {error}")),
        }
    }
}
