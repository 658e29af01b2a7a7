//! What the nodes' agents measure of themselves and leave in the store.

use pvc_common::keys;
use pvc_common::mirror::View;
use pvc_core::ids::NodeName;
use pvc_core::records::{AgentFigures, LeaseFigures, RoundFigures};
use pvc_core::states::DaemonState;

use super::exposition::Exposition;
use crate::node;

/// What each agent measures that is at work. That of one that has ended or is silent would look like news; an agent of PVC
/// 1.0.3 tells nothing.
pub(crate) fn read(view: &View) -> Vec<(NodeName, AgentFigures)> {
    node::names(view)
        .into_iter()
        .filter_map(|name| {
            let keys = keys::node(&name);
            match view.shown(&keys.daemon_state(), DaemonState::Stop) {
                DaemonState::Init | DaemonState::Run | DaemonState::Shutdown => {}
                DaemonState::Stop | DaemonState::Dead | DaemonState::Fenced => return None,
            }
            let figures = view.shown(&keys.agent_stats(), None)?;
            Some((name, figures))
        })
        .collect()
}

/// A figure of a lease: name, help, which lease, which figure.
type LeaseFamily = (
    &'static str,
    &'static str,
    fn(&AgentFigures) -> Option<LeaseFigures>,
    fn(LeaseFigures) -> u64,
);

const LEASES: [LeaseFamily; 4] = [
    (
        "pvc_node_lease_margin_seconds",
        "How much of its lease a node had left when the last renewal was acknowledged, in seconds: a little over 4 when all is \
         well, 0 if the lease had ended",
        |figures| figures.node_lease,
        |lease| lease.left_us,
    ),
    (
        "pvc_node_lease_margin_least_seconds",
        "The least that a node had left of its lease at a renewal of the last minute, in seconds",
        |figures| figures.node_lease,
        |lease| lease.least_us,
    ),
    (
        "pvc_node_role_lease_margin_seconds",
        "How much of the lease of the primary role its holder had left when the last renewal was acknowledged, in seconds: a \
         little over 4 when all is well",
        |figures| figures.role_lease,
        |lease| lease.left_us,
    ),
    (
        "pvc_node_role_lease_margin_least_seconds",
        "The least that the holder of the primary role had left of its lease at a renewal of the last minute, in seconds",
        |figures| figures.role_lease,
        |lease| lease.least_us,
    ),
];

/// All families.
pub(crate) fn write(text: &mut Exposition, nodes: &[(NodeName, AgentFigures)]) {
    for (name, help, lease, figure) in LEASES {
        let mut samples = text.gauge(name, help);
        for (node, figures) in nodes {
            let known = lease(figures).map(|lease| seconds(figure(lease)));
            samples.put_known(&[("node", node.as_str())], known);
        }
    }
    let rounds = || {
        nodes.iter().flat_map(|(node, figures)| {
            let rounds = figures.rounds.iter();
            rounds
                .map(move |(round, figures)| ([("node", node.as_str()), ("round", round.as_str())], figures))
        })
    };
    let mut samples = text
        .summary(
            "pvc_node_round_duration_seconds",
            "Rounds of a node's agent that have ended since it began, and how long they took together, in seconds: lease (renews \
             its lease), role (its part in the primary role), fence (watches the other nodes), vm (looks after guests), drain \
             (empties and fills the node), statistics (collects and publishes figures)",
        )
        .named("pvc_node_round_duration_seconds_sum");
    for (labels, figures) in rounds() {
        samples.put(&labels, seconds(figures.total_us));
    }
    let mut samples = samples.named("pvc_node_round_duration_seconds_count");
    for (labels, figures) in rounds() {
        samples.put(&labels, figures.count);
    }
    let mut samples = text.gauge(
        "pvc_node_round_longest_seconds",
        "The longest round of that kind in the last minute on a node, in seconds, also if it has not ended yet",
    );
    for (labels, RoundFigures { longest_us, .. }) in rounds() {
        samples.put_known(&labels, longest_us.map(seconds));
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "figures for people; microseconds stay far below 2^52"
)]
fn seconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1_000_000.0
}
