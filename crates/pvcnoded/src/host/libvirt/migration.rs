//! Sending a guest by libvirt: peer to peer, the receiving half left paused, over the cluster network.
//!
//! libvirtd of this host talks to libvirtd of the target, so that neither agent need live through it.

use std::net::IpAddr;
use std::path::Path;

use virt::domain::{Domain, MigrateParameters};
use virt::error::Error;
use virt_sys as sys;

use crate::host::{Changed, JobReading, MigrationOrder};

/// What libvirt needs for TLS between hosts, and QEMU for its memory stream.
const CERTIFICATES: [&str; 4] = [
    "/etc/pki/CA/cacert.pem",
    "/etc/pki/libvirt/clientcert.pem",
    "/etc/pki/libvirt/servercert.pem",
    "/etc/pki/qemu/server-cert.pem",
];

/// How guests go from host to host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transport {
    security: Security,
    /// The domain of the nodes' names on the cluster network.
    domain: String,
}

/// Whether they are encrypted on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// By TLS, each host shown by its certificate.
    Tls,
    /// Not at all.
    Plain,
}

impl Transport {
    /// Without encryption.
    pub fn plain(domain: &str) -> Transport {
        Transport {
            security: Security::Plain,
            domain: domain.to_owned(),
        }
    }

    /// By TLS if this host has the certificates for it.
    pub fn detect(domain: &str) -> Transport {
        let configured = CERTIFICATES.iter().all(|path| Path::new(path).exists());
        Transport {
            security: if configured {
                Security::Tls
            } else {
                Security::Plain
            },
            domain: domain.to_owned(),
        }
    }

    /// Whether they are encrypted.
    pub fn security(&self) -> Security {
        self.security
    }
}

/// Where a guest goes, in libvirt's words.
#[derive(Debug, PartialEq, Eq)]
struct Route {
    daemon: String,
    memory: String,
    listen: Option<String>,
    tls_destination: Option<String>,
    flags: u32,
}

fn route(order: &MigrationOrder, transport: &Transport) -> Route {
    let name = format!("{}.{}", order.target, transport.domain);
    let host = match order.address {
        Some(IpAddr::V6(ip)) => format!("[{ip}]"),
        Some(IpAddr::V4(ip)) => ip.to_string(),
        None => name.clone(),
    };
    let flags = sys::VIR_MIGRATE_LIVE | sys::VIR_MIGRATE_PEER2PEER | sys::VIR_MIGRATE_PAUSED;
    let listen = order.address.map(|ip| ip.to_string());
    match transport.security {
        Security::Plain => Route {
            daemon: format!("qemu+tcp://{host}/system"),
            memory: format!("tcp://{host}"),
            listen,
            tls_destination: None,
            flags,
        },
        // A certificate names the host, not its address.
        Security::Tls => Route {
            daemon: format!("qemu+tls://{name}/system"),
            memory: format!("tcp://{host}"),
            listen,
            tls_destination: Some(name),
            flags: flags | sys::VIR_MIGRATE_TLS,
        },
    }
}

/// Sends a domain; returns when that is over.
pub(super) fn send(domain: &Domain, order: &MigrationOrder, transport: &Transport) -> Result<(), Error> {
    let milliseconds = u64::try_from(order.max_downtime.as_millis()).unwrap_or(u64::MAX);
    domain.migrate_set_max_downtime(milliseconds, 0)?;
    let route = route(order, transport);
    let parameters = MigrateParameters {
        uri: Some(route.memory),
        listen_address: route.listen,
        tls_destination: route.tls_destination,
        ..MigrateParameters::default()
    };
    domain.migrate_to_uri3(Some(&route.daemon), parameters, route.flags)
}

/// Whether a domain is being sent.
pub(super) fn reading(domain: &Domain) -> Result<JobReading, Error> {
    let job = domain.get_job_info()?;
    let none = i32::try_from(sys::VIR_DOMAIN_JOB_NONE).unwrap_or(0);
    Ok(if job.r#type == none {
        JobReading::Idle
    } else {
        JobReading::Sending {
            bytes_sent: job.data_processed.unwrap_or(0),
        }
    })
}

/// Stops sending a domain.
pub(super) fn cancel(domain: &Domain) -> Result<Changed, Error> {
    if reading(domain)? == JobReading::Idle {
        return Ok(Changed::AlreadySo);
    }
    // SAFETY: the domain's handle is open.
    #[expect(unsafe_code, reason = "virt has no wrapper that tells failure from success")]
    let outcome = unsafe { sys::virDomainAbortJob(domain.as_ptr()) };
    if outcome < 0 {
        return Err(Error::last_error());
    }
    Ok(Changed::Done)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn order(address: Option<&str>) -> MigrationOrder {
        MigrationOrder {
            target: "hv2".parse().unwrap(),
            address: address.map(|address| address.parse().unwrap()),
            max_downtime: Duration::from_millis(300),
        }
    }

    #[test]
    fn guests_go_over_the_cluster_network_and_arrive_paused() {
        // Over another network guests' memory would be where clients can read it; not paused, a target could run it
        // before it is on record.
        let plain = Transport::plain("pvc.local");
        let by_address = route(&order(Some("10.101.0.2")), &plain);
        assert_eq!(by_address.daemon, "qemu+tcp://10.101.0.2/system");
        assert_eq!(by_address.memory, "tcp://10.101.0.2");
        assert_eq!(by_address.listen.as_deref(), Some("10.101.0.2"));
        assert_eq!(by_address.flags, 1 | 2 | 32);
        let v6 = route(&order(Some("fd00:101::2")), &plain);
        assert_eq!(v6.memory, "tcp://[fd00:101::2]");
        let by_name = route(&order(None), &plain);
        assert_eq!(by_name.daemon, "qemu+tcp://hv2.pvc.local/system");
        assert_eq!(by_name.listen, None);
    }

    #[test]
    fn with_certificates_both_connections_are_encrypted() {
        let tls = Transport {
            security: Security::Tls,
            domain: "pvc.local".to_owned(),
        };
        let route = route(&order(Some("10.101.0.2")), &tls);
        assert_eq!(route.daemon, "qemu+tls://hv2.pvc.local/system");
        assert_eq!(route.tls_destination.as_deref(), Some("hv2.pvc.local"));
        assert_eq!(route.flags, 1 | 2 | 32 | sys::VIR_MIGRATE_TLS);
    }
}
