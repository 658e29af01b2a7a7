//! Figures of nodes, guests, OSDs and pools, under the names of PVC 1.0.3.
//!
//! Where that release names a sample otherwise than its family, so do we: dashboards read the samples.

use pvc_api::node::Node;
use pvc_api::storage::{Osd, Pool};
use pvc_api::vm::Vm;

use super::exposition::Exposition;

mod cluster;
mod guests;
mod nodes;
mod storage;

/// What the figures are of.
#[derive(Debug)]
pub(crate) struct Resources<'a> {
    pub(crate) nodes: &'a [Node],
    pub(crate) vms: &'a [Vm],
    pub(crate) osds: &'a [Osd],
    pub(crate) pools: &'a [Pool],
}

/// All families of `/metrics/resource`.
pub(crate) fn resource(of: &Resources<'_>) -> String {
    let mut text = Exposition::default();
    cluster::write(&mut text, of);
    nodes::write(&mut text, of.nodes);
    guests::write(&mut text, of.vms);
    storage::write(&mut text, of.osds, of.pools);
    text.finish()
}

/// How much `part` is of `whole`, in percent; nothing of nothing is 0.
fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole * 100.0 } else { 0.0 }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "figures for people, far below 2^52 in their units"
)]
fn precise(number: u64) -> f64 {
    number as f64
}
