//! The store loses its quorum.

use std::time::Duration;

use anyhow::Result;

use super::{
    PATIENCE, audit, for_a_while, must_not_have_fenced, must_not_have_stopped, start_guests, wait_written,
};
use crate::clock::Moment;
use crate::cluster::Cluster;

/// How long two servers are down: ten times as long as a silent node lives.
const DOWN: Duration = Duration::from_secs(60);
/// How long everybody is watched afterwards: longer than it takes to suspect a node.
const AFTER: Duration = Duration::from_secs(15);
const UNIT: &str = "zookeeper.service";

/// Two of three servers of the store are killed for a minute: nobody knows anything of anybody, and so nobody does
/// anything to anybody.
pub(in crate::cases) fn two_servers_down(cluster: &mut Cluster) -> Result<()> {
    let nodes = cluster.lab.coordinators();
    let mut guests = Vec::new();
    for node in &nodes {
        guests.extend(start_guests(cluster, node, &format!("quorum-{}-", node.id()), 1)?);
    }
    let begun = Moment::now();
    let down: Vec<_> = nodes.iter().skip(1).collect();
    for node in &down {
        node.exec(&["systemctl", "kill", "--signal=SIGKILL", UNIT])?
            .ok()?;
        node.exec(&["systemctl", "stop", UNIT])?.ok()?;
    }
    for_a_while(cluster, DOWN, |cluster| {
        must_not_have_fenced(cluster, begun)?;
        must_not_have_stopped(cluster, &guests, begun)
    })?;
    let late = Moment::now();
    for guest in &guests {
        wait_written(cluster, guest, late, PATIENCE)?;
    }
    for node in &down {
        node.exec(&["systemctl", "start", UNIT])?.ok()?;
    }
    cluster.wait_healthy()?;
    for_a_while(cluster, AFTER, |cluster| {
        must_not_have_fenced(cluster, begun)?;
        must_not_have_stopped(cluster, &guests, begun)
    })?;
    cluster.pvc(&["vm", "list"])?;
    audit(cluster, begun)
}
