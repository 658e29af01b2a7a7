//! (a), (b), (c): who is primary, and how the role moves while all is well.

use std::time::Duration;

use anyhow::{Result, bail};
use pvc_common::keys;
use pvc_common::store::Txn;
use pvc_core::ids::NodeName;
use pvc_core::records::PrimaryRecord;
use pvc_core::states::{CoordinatorState, DaemonState};
use pvc_lab::Network;

use crate::addresses::floating;
use crate::api;
use crate::clock::Moment;
use crate::cluster::{Cluster, within};

/// How many moves in a row.
const MOVES: usize = 20;
/// Of these, each third is forced contention.
const CONTENTION_EVERY: usize = 3;
/// Longest time without a node in takeover or primary.
const WITHOUT_PRIMARY: Duration = Duration::from_secs(3);
const MOVE: Duration = Duration::from_secs(30);

/// A cluster that has no primary serves nobody; one that has two corrupts whatever hangs on a floating address.
pub(super) fn one_primary(cluster: &mut Cluster) -> Result<()> {
    for name in cluster.names()? {
        let state = cluster.store.require(&keys::node(&name).daemon_state())?.value;
        if state != DaemonState::Run {
            bail!("{name} says {state}");
        }
    }
    let primary = cluster.wait_primary()?;
    crate::say(&format!("{primary} is primary"));
    for address in floating() {
        let holders = cluster.addresses.holders(address);
        if holders != [primary.to_string()] {
            bail!("{address} is on {holders:?}, not on {primary} alone");
        }
    }
    // From where it is used: users are upstream, nodes on the other two networks.
    let other = cluster.secondary_node()?;
    for network in Network::ALL {
        for address in [
            network.floating_v4().to_string(),
            network.floating_v6().to_string(),
        ] {
            if !cluster.pings(&other, &address)? {
                bail!("{address} ({network}) does not answer {}", other.id());
            }
        }
    }
    let reply = api::get("/api/v1/status/primary_node", "")?.json()?;
    if reply.get("primary_node").and_then(|name| name.as_str()) != Some(primary.as_str()) {
        bail!("the API on the floating address says {reply}, not {primary}");
    }
    Ok(())
}

/// An administrator moves the role before maintenance: users must hardly notice, and must never reach two nodes.
pub(super) fn move_by_command(cluster: &mut Cluster) -> Result<()> {
    for _ in 0..2 {
        let from = cluster.wait_primary()?;
        let target = cluster.secondary_node()?;
        let to = NodeName::new(target.name())?;
        let sampler = cluster.sample_role()?;
        let poller = api::Poller::start("/api/v1/");
        cluster.wait_for("the API to be polled", MOVE, || {
            Ok((poller.answers() > 0).then_some(()))
        })?;
        let relinquishing = keys::node(&from).coordinator_state();
        let before = cluster.store.require(&relinquishing)?;
        let begun = Moment::now();
        cluster.move_primary(&target)?;
        let whole = begun.elapsed();
        // `relinquish` lasts for some 10 ms, too short for a poller to be sure to meet it: it is one of the two writes
        // that led from primary to secondary.
        let after = cluster.store.require(&relinquishing)?;
        if after.version.0 != before.version.0 + 2
            && sampler
                .first_seen(&from, CoordinatorState::Relinquish, begun)
                .is_none()
        {
            bail!(
                "{from} did not go through relinquish: version {} to {}",
                before.version,
                after.version
            );
        }
        let expected = [
            (&to, CoordinatorState::Takeover),
            (&to, CoordinatorState::Primary),
            (&from, CoordinatorState::Secondary),
        ];
        for (node, state) in expected {
            cluster.wait_for(&format!("{node} to be seen in {state}"), MOVE, || {
                Ok(sampler.first_seen(node, state, begun).map(|_| ()))
            })?;
        }
        sampler.must_never_see_two_primaries()?;
        cluster.wait_for("the API to answer after the move", MOVE, || {
            let moved = cluster
                .addresses
                .appeared(cluster.api_address(), to.as_str(), begun);
            Ok(moved.and_then(|at| poller.first_good(at)))
        })?;
        crate::say(&format!(
            "{from} to {to}: {:.2} s in all, {:.2} s without the address, {:.2} s between answers of the API",
            whole.as_secs_f64(),
            cluster
                .addresses
                .longest_gap(cluster.api_address(), begun)
                .as_secs_f64(),
            poller.longest_gap(begun).as_secs_f64()
        ));
        cluster.addresses.must_never_overlap()?;
    }
    Ok(())
}

/// Many moves, some of them contests: what goes wrong once in a hundred hand-overs goes wrong every week somewhere.
pub(super) fn twenty_moves(cluster: &mut Cluster) -> Result<()> {
    cluster.wait_primary()?;
    let sampler = cluster.sample_role()?;
    let begun = Moment::now();
    for number in 0..MOVES {
        if number % CONTENTION_EVERY == CONTENTION_EVERY - 1 {
            contend(cluster)?;
        } else {
            let target = cluster.secondary_node()?;
            cluster.move_primary(&target)?;
        }
    }
    let took = begun.elapsed();
    crate::say(&format!(
        "{MOVES} moves in {:.1} s, at most {:.2} s without the address",
        took.as_secs_f64(),
        cluster
            .addresses
            .longest_gap(cluster.api_address(), begun)
            .as_secs_f64()
    ));
    cluster.wait_for("the last samples", MOVE, || {
        let newest = sampler.samples().last().map(|sample| sample.at);
        Ok(newest.filter(|at| at.since(begun) >= took).map(|_| ()))
    })?;
    sampler.must_never_see_two_primaries()?;
    within(
        "longest time without a node in takeover or primary",
        sampler.longest_without_primary(),
        WITHOUT_PRIMARY,
    )
}

/// Sets the record to none, as a fence or a dying primary does, and waits until somebody has won.
fn contend(cluster: &Cluster) -> Result<()> {
    let key = keys::config().primary_node();
    let record = cluster.store.require(&key)?;
    cluster
        .store
        .commit(Txn::new().set(&key, &PrimaryRecord::None, record.version))?;
    cluster.wait_for("somebody to win the contest", MOVE, || {
        let now = cluster.store.require(&key)?;
        let is_won = now.version > record.version && now.value != PrimaryRecord::None;
        Ok(if is_won {
            cluster
                .primary()?
                .filter(|primary| now.value.names(primary))
                .map(|_| ())
        } else {
            None
        })
    })
}
