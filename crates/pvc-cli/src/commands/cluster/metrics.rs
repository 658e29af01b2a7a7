//! `pvc cluster metrics`.

use clap::{Args, ValueEnum};

use crate::error::Result;
use crate::output;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct Metrics {
    /// Only these
    subject: Option<Subject>,
}

/// What metrics are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Subject {
    /// Health of the cluster and its nodes
    Health,
    /// What nodes and virtual machines have and use
    Resource,
    /// Ceph's own
    Ceph,
    /// ZooKeeper's own
    Zookeeper,
}

impl Metrics {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        let route = match self.subject {
            None => "/metrics",
            Some(Subject::Health) => "/metrics/health",
            Some(Subject::Resource) => "/metrics/resource",
            Some(Subject::Ceph) => "/metrics/ceph",
            Some(Subject::Zookeeper) => "/metrics/zookeeper",
        };
        output::print(&session.client.text(route)?);
        Ok(())
    }
}
