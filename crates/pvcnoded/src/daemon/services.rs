//! What the primary role offers beside its addresses.

use std::net::SocketAddr;

use crate::role::RoleServices;
use pvc_common::config::Config;

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
