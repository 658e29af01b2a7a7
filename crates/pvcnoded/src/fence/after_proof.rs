//! What follows once a node is proven dead: it is said, its guests are given away, the fence is closed, and guests that found no
//! node are tried again.

use std::time::Duration;

use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::lock::LockGuard;
use pvc_common::pause;
use pvc_common::store::{Store, StoreExt as _, Txn, ZnodeVersion};
use pvc_core::fence::{FencePhase, Proof, ProofKind, RecoveryPolicy, RestartTrack};
use pvc_core::ids::VmId;
use pvc_core::protection::{Protection, stands};
use pvc_core::states::{CoordinatorState, DaemonMode, DaemonState, DomainState};

use super::book::{FenceBook, FenceError};
use super::rounds::{Fencer, RECOVER_AGAIN};
use super::seek::Victim;
use super::sight::Sight;
use crate::host::{PowerControl, Storage};
use crate::placement::{Unparked, try_unpark};

/// After this time without progress the dead node is switched on, though guests of it are not recovered: what keeps them
/// may be that Ceph lacks its OSDs.
const SWITCH_ON_WITHOUT_PROGRESS: Duration = Duration::from_secs(60);

impl<S: Store, C: Clock, P: PowerControl, T: Storage> Fencer<S, C, P, T> {
    pub(super) async fn conclude(
        &self,
        book: &mut FenceBook<'_, S, C>,
        victim: &Victim,
        kind: ProofKind,
        lease_version: ZnodeVersion,
    ) -> Result<(), FenceError> {
        let node = keys::node(&book.victim);
        let mut txn = Txn::new();
        if !victim.replaced {
            txn = txn.overwrite(&node.domain_state(), &DomainState::FenceFlush);
        }
        if kind == ProofKind::Administrator && !victim.replaced {
            // Whoever says that it is off is believed as long as it stays silent.
            txn = txn.check(&keys::lease_node(&book.victim), lease_version);
            book.change(|record| record.lease_version_at_off = Some(lease_version.0));
        }
        book.change(|record| {
            record.phase = FencePhase::Proven { by: kind };
            record.waits_for.clear();
            record.next_try_at = None;
        });
        book.note(match kind {
            ProofKind::Power => "it is dead: its BMC says that it is off",
            ProofKind::Storage => "it can't write any more: all its Ceph clients are barred",
            ProofKind::NewBoot => "its boot has ended: the same machine has booted anew",
            ProofKind::Administrator => "it is dead: an administrator has said that the machine is off",
        });
        // What is written under the name is another machine's already, or about the next boot.
        if kind != ProofKind::NewBoot && !victim.replaced {
            // Nothing is to be placed by the figures of a dead node (lesson 33).
            txn = txn
                .overwrite(&node.daemon_state(), &DaemonState::Fenced)
                .overwrite(&node.domains_count(), &0)
                .overwrite(&node.cpu_load(), &keys::values::Load(0.0))
                .overwrite(&node.vcpu_allocated(), &0)
                .overwrite(&node.memory_used_mib(), &0)
                .overwrite(&node.memory_free_mib(), &0)
                .overwrite(&node.memory_allocated_mib(), &0)
                .overwrite(&node.memory_provisioned_mib(), &0)
                .overwrite(&node.monitoring_health(), &keys::values::OrNone(None));
            if stands(Protection::RecoverFromOwnRecords) {
                let none = keys::values::RunningDomains(Vec::new());
                txn = txn.overwrite(&node.running_domains(), &none);
            }
            let mode = self.parts.store.require(&node.daemon_mode()).await?.value;
            if mode == DaemonMode::Coordinator {
                txn = txn.overwrite(&node.coordinator_state(), &CoordinatorState::Secondary);
            }
        }
        book.write(txn).await?;
        pause::point("fence-proven");
        Ok(())
    }

    /// One round over its guests. Answers whether the fence may go on at once.
    pub(super) async fn recover(
        &mut self,
        book: &mut FenceBook<'_, S, C>,
        victim: &Victim,
        proof: &Proof,
        sight: &Sight,
    ) -> Result<bool, FenceError> {
        let recovered = self.parts.recover(book, victim, proof, &sight.silent()).await?;
        let changed = recovered.moved > 0 || !recovered.parked.is_empty();
        let waits_for = match recovered.again {
            0 => String::new(),
            count => format!(
                "{count} of its guests can't be recovered yet ({})",
                recovered.reason
            ),
        };
        let noted = book
            .record
            .as_ref()
            .is_some_and(|record| record.left == recovered.left && record.waits_for == waits_for);
        if changed || !noted {
            book.change(|record| {
                for vm in &recovered.parked {
                    if !record.parked.contains(vm) {
                        record.parked.push(*vm);
                    }
                }
                record.left.clone_from(&recovered.left);
                record.waits_for.clone_from(&waits_for);
            });
            let mut parts = Vec::new();
            let mut say = |count: usize, what: &str| {
                if count > 0 {
                    parts.push(format!(
                        "{count} guest{} {what}",
                        if count == 1 { "" } else { "s" }
                    ));
                }
            };
            say(recovered.moved, "sent to other nodes");
            say(recovered.parked.len(), "stopped, since no node could take them");
            say(
                recovered.left.len(),
                "left where they are, since the proof says nothing about them",
            );
            if !waits_for.is_empty() {
                parts.push(waits_for.clone());
            }
            if !parts.is_empty() {
                book.note(parts.join(", "));
            }
            book.write(Txn::new()).await?;
        }
        pause::point("fence-recovered");
        let now = self.parts.clock.now();
        let memory = self.memory.entry(victim.node.clone()).or_default();
        if recovered.again == 0 {
            memory.stuck_since = None;
            return Ok(true);
        }
        memory.not_before = Some(now + RECOVER_AGAIN);
        let stuck_since = *memory.stuck_since.get_or_insert(now);
        if changed {
            memory.stuck_since = Some(now);
        } else if now.since(stuck_since) >= SWITCH_ON_WITHOUT_PROGRESS {
            self.switch_on_early(book, victim).await?;
        }
        Ok(false)
    }

    pub(super) async fn finish(
        &self,
        book: &mut FenceBook<'_, S, C>,
        victim: &Victim,
    ) -> Result<(), FenceError> {
        let Some(by) = book
            .record
            .as_ref()
            .and_then(Proof::recorded)
            .map(|proof| proof.kind())
        else {
            return Ok(());
        };
        book.change(|record| {
            record.phase = FencePhase::Done { by };
            record.waits_for.clear();
            record.next_try_at = None;
            if record.is_switched_on_when_done(by) && !victim.replaced {
                record.restart = RestartTrack::Ordered;
            }
        });
        book.note(match self.parts.settings.recovery {
            RecoveryPolicy::Move => "done: no guest belongs to it any more",
            RecoveryPolicy::Leave => "done: its guests wait for it, as the setting successful_fence says",
        });
        let txn = if victim.replaced {
            Txn::new()
        } else {
            Txn::new().overwrite(&keys::node(&book.victim).domain_state(), &DomainState::Flushed)
        };
        book.write(txn).await?;
        pause::point("fence-done");
        Ok(())
    }

    /// Guests that found no node are tried again; those that run, or that somebody has taken care of, go off the list.
    pub(super) async fn unpark(&self, lock: &LockGuard<S>, sight: &Sight) -> Result<(), FenceError> {
        let parts = &self.parts;
        for (node, record) in &sight.fences {
            if record.parked.is_empty() {
                continue;
            }
            let outcomes = try_unpark(&parts.store, &sight.silent(), &record.parked).await?;
            let gone: Vec<VmId> = outcomes
                .into_iter()
                .filter(|(_, outcome)| match outcome {
                    Unparked::Starts { .. } | Unparked::NotParked => true,
                    Unparked::StillNoPlace(_) | Unparked::Later(_) => false,
                })
                .map(|(vm, _)| vm)
                .collect();
            if gone.is_empty() {
                continue;
            }
            let mut book = FenceBook::open(&parts.store, &parts.clock, lock, &parts.me, node).await?;
            book.change(|record| record.parked.retain(|vm| !gone.contains(vm)));
            book.note(format!(
                "{} guests that had found no node are off the list",
                gone.len()
            ));
            book.write(Txn::new()).await?;
        }
        Ok(())
    }
}
