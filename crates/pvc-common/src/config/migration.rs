//! How guests are moved between nodes.

use std::path::PathBuf;

use pvc_core::states::NodeSelector;

use super::finding::Problem;
use super::section::Section;

/// The `migration` section.
pub(super) struct Migration {
    pub(super) target_selector: NodeSelector,
    pub(super) tls: Option<MigrationTls>,
}

/// The certificates by which the nodes' libvirt daemons know each other. Each node has its own certificate, which names
/// the node's address on the cluster network; all are signed by one authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationTls {
    /// The authority's certificate, PEM.
    pub ca_certificate: PathBuf,
    /// This node's certificate, PEM: for both ends of a connection.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub private_key: PathBuf,
}

pub(super) fn read(section: &mut Section<'_>) -> Migration {
    let target_selector = section.or("target_selector", NodeSelector::Mem);
    let tls = section.optional_section("tls", read_tls);
    Migration { target_selector, tls }
}

fn read_tls(section: &mut Section<'_>) -> Option<MigrationTls> {
    let enabled = section.or("enabled", false);
    let ca_certificate = section.optional::<PathBuf>("ca_certificate");
    let certificate = section.optional::<PathBuf>("certificate");
    let private_key = section.optional::<PathBuf>("private_key");
    if !enabled {
        return None;
    }
    for key in ["ca_certificate", "certificate", "private_key"] {
        if !section.has(key) {
            let because = "migration.tls.enabled is yes";
            section.report(key, Problem::NeededBecause { because });
        }
    }
    Some(MigrationTls {
        ca_certificate: ca_certificate?,
        certificate: certificate?,
        private_key: private_key?,
    })
}
