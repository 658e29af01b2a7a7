//! Live migration.

use std::time::Duration;

use anyhow::{Result, bail};
use pvc_core::states::VmState;
use pvc_lab::Node;
use pvc_lab::guest::Kind;

use super::{PATIENCE, audit, wait_written};
use crate::clock::Moment;
use crate::cluster::Cluster;
use crate::guests::{self, Guest};
use crate::observer::timeline;

/// How often the guest moves.
const MOVES: usize = 50;

/// Moves a guest live and waits until it is there and has written.
pub(crate) fn move_live(cluster: &Cluster, guest: &Guest, to: &Node) -> Result<Duration> {
    let begun = Moment::now();
    cluster.pvc(&["vm", "move", "--target", &to.name(), "--force-live", &guest.name])?;
    let mut seen = String::new();
    let result = cluster.wait_for(&format!("{} to be on {}", guest.name, to.id()), PATIENCE, || {
        let state = guest.stored_state(cluster)?;
        let owner = guest.owner(cluster)?.map(|owner| owner.node.to_string());
        seen = format!("state {state}, owner {owner:?}");
        let is_there = state == VmState::Start && owner.as_deref() == Some(&to.name());
        Ok(is_there.then_some(()))
    });
    if let Err(error) = result {
        bail!(
            "{error:#}; last seen: {seen}; reason {:?}",
            guest.failed_reason(cluster)?
        );
    }
    let whole = begun.elapsed();
    wait_written(cluster, guest, Moment::now(), PATIENCE)?;
    Ok(whole)
}

/// A guest goes to and fro fifty times. It is never started anew, and never misses a tick that it has counted.
pub(in crate::cases) fn back_and_forth(cluster: &mut Cluster) -> Result<()> {
    let home = cluster.primary_node()?;
    let away = cluster.secondary_node()?;
    let guest = guests::define_kind(cluster, Kind::Fast, "shuttle", &home)?;
    guest.start(cluster, &home)?;
    let begun = Moment::now();
    wait_written(cluster, &guest, begun, PATIENCE)?;
    let Some(first) = timeline::last_record(&cluster.observer, &guest.image) else {
        bail!("the guest has not written");
    };
    let mut longest = Duration::ZERO;
    for number in 0..MOVES {
        let to = if number % 2 == 0 { &away } else { &home };
        let from = Moment::now();
        move_live(cluster, &guest, to)?;
        longest = longest.max(timeline::longest_silence(
            &cluster.observer,
            &guest.image,
            from,
            Moment::now(),
        ));
    }
    let Some(last) = timeline::last_record(&cluster.observer, &guest.image) else {
        bail!("the guest has not written");
    };
    if last.tag != first.tag {
        bail!("the guest was started anew: {first:?}, then {last:?}");
    }
    crate::say(&format!(
        "{MOVES} moves, {:.1} s each, longest standstill {:.2} s",
        begun.elapsed().as_secs_f64() / MOVES as f64,
        longest.as_secs_f64()
    ));
    guest.wait_agreed(cluster, &home, VmState::Start, guests::START)?;
    audit(cluster, begun)
}
