//! Recovery: the guests of a dead boot run elsewhere, each by itself.
//!
//! Of each guest, by its own record: what the dead node left on its volumes is barred and removed (what anybody else
//! left there is not, and stops this guest's recovery alone); then one transaction takes its owner away, places it with
//! a reservation, and lets it start. Volumes are cleared for several guests at a time, highest priority first.

use std::collections::BTreeSet;

use futures::stream::{self, StreamExt as _};
use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::lock::LockGuard;
use pvc_common::pause;
use pvc_common::placement::{Places, read_candidates};
use pvc_common::store::{ReadError, Store, StoreError, StoreExt as _, Txn, Znode, ZnodeVersion};
use pvc_core::fence::{FencePhase, GuestFate, GuestRecords, Proof, StorageTrack, guest_fate};
use pvc_core::guest_xml::{self, DiskAccess};
use pvc_core::ids::{CephClient, Incarnation, NodeName, VmId, VolumeId};
use pvc_core::protection::{Protection, stands};
use pvc_core::records::{CephClients, Incoming, Owner};
use pvc_core::states::VmState;
use tracing::{info, warn};

use super::book::{FenceBook, FenceError};
use super::seek::{Victim, all_writable_disks_on_ceph};
use super::{FenceParts, PARALLEL_RECOVERIES};
use crate::definition::{Stored, volumes_of};
use crate::host::{PowerControl, RbdLock, Storage, StorageError};

/// How often a placement is tried when others place at the same time.
const PLACE_TRIES: u32 = 5;
/// How often a volume is looked at that somebody else uses: short openers come and go.
const FOREIGN_LOOKS: u32 = 4;
const FOREIGN_LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(1250);
/// Guests read in one request.
const GUESTS_PER_READ: usize = 200;

/// A guest's records with their versions.
#[derive(Debug, Clone)]
pub(super) struct Guest {
    pub(super) vm: VmId,
    pub(super) node: NodeName,
    node_version: ZnodeVersion,
    pub(super) state: VmState,
    state_version: ZnodeVersion,
    pub(super) owner: Option<Owner>,
    owner_version: ZnodeVersion,
    pub(super) incoming: Option<Incoming>,
    incoming_version: ZnodeVersion,
    priority: i32,
}

impl Guest {
    pub(super) fn records(&self, bound: bool) -> GuestRecords<'_> {
        GuestRecords {
            bound,
            vm: self.vm,
            node: &self.node,
            state: self.state,
            owner: self.owner.as_ref(),
            incoming: self.incoming.as_ref(),
        }
    }
}

/// What came of one round of recovery.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// Guests that have a new home.
    pub(super) moved: usize,
    /// Guests that found no node: stopped, and tried again.
    pub(super) parked: Vec<VmId>,
    /// Guests that the proof does not cover.
    pub(super) left: Vec<VmId>,
    /// Guests that could not be recovered now.
    pub(super) again: usize,
    /// Why the first of them could not.
    pub(super) reason: String,
}

impl Recovered {
    fn not_now(&mut self, vm: VmId, reason: &str) {
        self.again += 1;
        if self.again == 1 {
            self.reason = format!("guest {vm}: {reason}");
        }
    }
}

/// What the clearing of volumes goes by.
struct Hold<'a, S: Store> {
    /// The fence lock.
    lock: &'a LockGuard<S>,
    /// Whether the storage proof has barred every client on record already.
    recorded_are_barred: bool,
}

enum Cleared {
    /// Nothing of the dead node is on its volumes.
    Clear,
    /// It can't be started anywhere until somebody has done something about this: state `fail`.
    Never(String),
    /// It can't be said now.
    Later(String),
}

impl<S: Store, C: Clock, P: PowerControl, T: Storage> FenceParts<S, C, P, T> {
    /// All guests. One whose record can't be read is left out with a line in the log: it must not keep the others down.
    pub(super) async fn read_guests(&self) -> Result<Vec<Guest>, FenceError> {
        Ok(self.read_all_guests().await?.0)
    }

    /// All guests, and those whose record can't be read.
    pub(super) async fn read_all_guests(&self) -> Result<(Vec<Guest>, Vec<VmId>), FenceError> {
        let mut unreadable = Vec::new();
        let vms: Vec<VmId> = self.store.children_as(&keys::domains()).await?;
        let mut guests = Vec::with_capacity(vms.len());
        for part in vms.chunks(GUESTS_PER_READ) {
            let paths: Vec<String> = part
                .iter()
                .map(|vm| keys::domain(*vm))
                .flat_map(|domain| {
                    [
                        domain.node().path(),
                        domain.state().path(),
                        domain.owner().path(),
                        domain.incoming().path(),
                        domain.recovery_priority().path(),
                    ]
                    .map(str::to_owned)
                })
                .collect();
            let znodes = self.store.read_many(&paths).await.map_err(ReadError::from)?;
            for (vm, znodes) in part.iter().zip(znodes.chunks_exact(5)) {
                match decode(*vm, znodes) {
                    Ok(guest) => guests.push(guest),
                    Err(error) => {
                        warn!(%vm, %error, "a guest's record can't be read; it is not recovered");
                        unreadable.push(*vm);
                    }
                }
            }
        }
        guests.sort_by_key(|guest| (std::cmp::Reverse(guest.priority), guest.vm));
        Ok((guests, unreadable))
    }

    /// How many guests have still to be recovered with this proof.
    pub(super) async fn guests_left(&self, proof: &Proof, victim: &NodeName) -> Result<usize, FenceError> {
        let mut left = 0;
        for guest in self.read_guests().await? {
            left += match self.fate(proof, victim, &guest).await? {
                GuestFate::NotConcerned | GuestFate::NotCovered => 0,
                GuestFate::TargetDecides
                | GuestFate::ClearIncoming
                | GuestFate::Replace
                | GuestFate::Restart
                | GuestFate::AwaitNode
                | GuestFate::Settle(_) => 1,
            };
        }
        Ok(left)
    }

    /// What becomes of the guest. Its definition is read only where it matters.
    async fn fate(&self, proof: &Proof, victim: &NodeName, guest: &Guest) -> Result<GuestFate, FenceError> {
        match guest_fate(proof, victim, &guest.records(false)) {
            GuestFate::Restart | GuestFate::Replace => {
                let bound = self.is_bound(guest.vm).await?;
                Ok(guest_fate(proof, victim, &guest.records(bound)))
            }
            fate @ (GuestFate::NotConcerned
            | GuestFate::NotCovered
            | GuestFate::TargetDecides
            | GuestFate::ClearIncoming
            | GuestFate::AwaitNode
            | GuestFate::Settle(_)) => Ok(fate),
        }
    }

    /// Whether the guest can write to a disk that only its own node has. One whose definition can't be read can be
    /// started nowhere, and its recovery says so.
    async fn is_bound(&self, vm: VmId) -> Result<bool, FenceError> {
        let xml = match self.store.require(&keys::domain(vm).xml()).await {
            Ok(xml) => xml.value,
            Err(error @ ReadError::Store(_)) => return Err(error.into()),
            Err(ReadError::Missing { .. } | ReadError::Value { .. } | ReadError::Child { .. }) => {
                return Ok(false);
            }
        };
        Ok(guest_xml::parse(&xml).is_ok_and(|guest| !all_writable_disks_on_ceph(&guest)))
    }

    /// How many guests the boot of `incarnation` owns or receives.
    pub(super) async fn belonging_to(
        &self,
        node: &NodeName,
        incarnation: &Incarnation,
    ) -> Result<usize, FenceError> {
        let (guests, unreadable) = self.read_all_guests().await?;
        let belonging = guests.iter().filter(|guest| {
            let owned = guest
                .owner
                .as_ref()
                .is_some_and(|owner| owner.node == *node && owner.incarnation.same_boot(incarnation));
            let received = guest.incoming.as_ref().is_some_and(|incoming| {
                incoming.target == *node && incoming.incarnation.same_boot(incarnation)
            });
            owned || received
        });
        // Whoever a guest belongs to whose record can't be read: it may be this one.
        Ok(belonging.count() + unreadable.len())
    }

    /// One round over all guests of the dead boot.
    pub(super) async fn recover(
        &self,
        book: &mut FenceBook<'_, S, C>,
        victim: &Victim,
        proof: &Proof,
        silent: &BTreeSet<NodeName>,
    ) -> Result<Recovered, FenceError> {
        if book
            .record
            .as_ref()
            .is_some_and(|record| matches!(record.phase, FencePhase::Proven { .. }))
        {
            book.change(|record| record.phase = FencePhase::Recovering { by: proof.kind() });
            book.write(Txn::new()).await?;
        }
        pause::point("fence-recovering");
        let mut recovered = Recovered::default();
        let guests = self.read_guests().await?;
        let listed = self.dead_nodes_own_list(&victim.node).await;
        let mut concerned: Vec<(Guest, GuestFate)> = Vec::new();
        for guest in guests {
            // Lesson H: the dead node's last list names guests that moved away since, and lacks those started since.
            let fate = if stands(Protection::RecoverFromOwnRecords) {
                self.fate(proof, &victim.node, &guest).await?
            } else if listed.contains(&guest.vm) {
                GuestFate::Restart
            } else {
                GuestFate::NotConcerned
            };
            if fate != GuestFate::NotConcerned {
                concerned.push((guest, fate));
            }
        }
        if concerned.is_empty() {
            return Ok(recovered);
        }
        let mut places = None;
        let lock = book.lock;
        let hold = &Hold {
            lock,
            recorded_are_barred: book.record.as_ref().is_some_and(|record| {
                matches!(
                    record.storage,
                    StorageTrack::Barred { .. } | StorageTrack::Entered { .. }
                )
            }),
        };
        let mut cleared = stream::iter(concerned)
            .map(|(guest, fate)| async move {
                let cleared = match fate {
                    // One that a later boot has given up has left its lock and watcher behind all the same.
                    GuestFate::Restart
                    | GuestFate::Replace
                    | GuestFate::AwaitNode
                    | GuestFate::Settle(_)
                    | GuestFate::ClearIncoming => self.clear_volumes(&guest, victim, hold).await,
                    GuestFate::NotConcerned | GuestFate::NotCovered | GuestFate::TargetDecides => {
                        Cleared::Clear
                    }
                };
                (guest, fate, cleared)
            })
            .buffered(PARALLEL_RECOVERIES);
        while let Some((guest, fate, cleared)) = cleared.next().await {
            let vm = guest.vm;
            let outcome = self
                .carry_over(book, victim, proof, silent, &mut places, &guest, fate, cleared)
                .await;
            match outcome {
                Ok(Outcome::Moved) => recovered.moved += 1,
                Ok(Outcome::Settled) => {}
                Ok(Outcome::Parked) => recovered.parked.push(vm),
                Ok(Outcome::Left) => recovered.left.push(vm),
                Ok(Outcome::Again(reason)) => {
                    warn!(%vm, node = %victim.node, reason, "a guest of a dead node is not recovered yet");
                    recovered.not_now(vm, &reason);
                }
                // The lock is gone or the store does not answer: that is no matter of one guest.
                Err(FenceError::Write(
                    error @ (StoreError::LockLost { .. }
                    | StoreError::Unavailable { .. }
                    | StoreError::SessionExpired
                    | StoreError::Unknown { .. }),
                )) => return Err(error.into()),
                Err(error) => {
                    warn!(%vm, node = %victim.node, %error, "a guest of a dead node is not recovered yet");
                    recovered.not_now(vm, &error.to_string());
                }
            }
        }
        Ok(recovered)
    }

    async fn dead_nodes_own_list(&self, victim: &NodeName) -> Vec<VmId> {
        if stands(Protection::RecoverFromOwnRecords) {
            return Vec::new();
        }
        match self.store.require(&keys::node(victim).running_domains()).await {
            Ok(list) => list.value.0,
            Err(_) => Vec::new(),
        }
    }

    /// Bars what the dead boot left on the volumes of a guest, and removes its locks.
    async fn clear_volumes(&self, guest: &Guest, victim: &Victim, hold: &Hold<'_, S>) -> Cleared {
        let stored = match Stored::read(&self.store, guest.vm).await {
            Ok(stored) => stored,
            Err(ReadError::Store(error)) => return Cleared::Later(error.to_string()),
            Err(error) => return Cleared::Never(error.to_string()),
        };
        // A guest whose definition can't be read can't be started anywhere; it keeps no other down.
        let parsed = match guest_xml::parse(&stored.xml.value) {
            Ok(parsed) => parsed,
            Err(error) => return Cleared::Never(format!("its definition: {error}")),
        };
        // It is not started with what was taken out of the definition while it ran, so others on that are no obstacle.
        let volumes = stored.with_listed(volumes_of(&parsed), DiskAccess::Shared);
        let mut recorded: Vec<CephClient> = Vec::new();
        let on_record = [
            guest
                .owner
                .as_ref()
                .map(|owner| (&owner.node, &owner.ceph_clients)),
            guest
                .incoming
                .as_ref()
                .map(|incoming| (&incoming.target, &incoming.ceph_clients)),
        ];
        for (node, clients) in on_record.into_iter().flatten() {
            if *node == victim.node
                && let CephClients::Recorded(list) = clients
            {
                recorded.extend(list.iter().cloned());
            }
        }
        let others_may = guest.incoming.is_some();
        for look in 0..FOREIGN_LOOKS {
            let mut theirs: Vec<CephClient> = Vec::new();
            let mut locks: Vec<(VolumeId, RbdLock)> = Vec::new();
            let mut foreign = None;
            for (volume, access) in &volumes {
                let seen = match self.storage.volume_use(volume).await {
                    Ok(seen) => seen,
                    // Its start will say so.
                    Err(StorageError::NoVolume { .. }) => continue,
                    Err(error @ StorageError::Failed { .. }) => return Cleared::Later(error.to_string()),
                };
                let users = seen.watchers.iter().map(|client| (client.clone(), None)).chain(
                    seen.locks
                        .iter()
                        .map(|lock| (lock.client.clone(), Some(lock.clone()))),
                );
                for (client, lock) in users {
                    let is_victims = recorded.contains(&client)
                        || (victim.storage_address == Some(client.ip())
                            && !self.floating_addresses.contains(&client.ip()));
                    if is_victims || !stands(Protection::OnlyVictimsLocks) {
                        theirs.push(client);
                        locks.extend(lock.map(|lock| (volume.clone(), lock)));
                    } else if *access != DiskAccess::Shared && !others_may {
                        foreign = Some(format!(
                            "volume {volume} is in use by {client}, which is not of {}",
                            victim.node
                        ));
                    }
                }
            }
            if let Some(reason) = foreign {
                if look + 1 < FOREIGN_LOOKS {
                    self.clock.sleep(FOREIGN_LOOK_EVERY).await;
                    continue;
                }
                return Cleared::Never(reason);
            }
            if hold.recorded_are_barred {
                theirs.retain(|client| !recorded.contains(client));
            } else {
                // A watch lapses after 30 s while its process is only frozen: what is not listed is barred all the same.
                theirs.extend(recorded.iter().cloned());
            }
            theirs.sort();
            theirs.dedup();
            return match self.bar_and_unlock(guest, &theirs, &locks, hold).await {
                Ok(()) => Cleared::Clear,
                Err(reason) => Cleared::Later(reason),
            };
        }
        Cleared::Clear
    }

    /// Clients first, then locks: a client without its lock, but not barred, would only take it again.
    async fn bar_and_unlock(
        &self,
        guest: &Guest,
        clients: &[CephClient],
        locks: &[(VolumeId, RbdLock)],
        hold: &Hold<'_, S>,
    ) -> Result<(), String> {
        if !clients.is_empty() {
            self.confirm_for(guest, hold).await?;
            self.storage
                .blocklist(clients)
                .await
                .map_err(|error| error.to_string())?;
        }
        for (volume, lock) in locks {
            self.confirm_for(guest, hold).await?;
            self.storage
                .remove_lock(volume, lock)
                .await
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Directly before an outside command: a fencer that stood still meanwhile must not bar the clients of a guest that
    /// others have recovered and that runs again, perhaps on the very node that had died.
    async fn confirm_for(&self, guest: &Guest, hold: &Hold<'_, S>) -> Result<(), String> {
        let domain = keys::domain(guest.vm);
        let unchanged = Txn::new()
            .guard(hold.lock)
            .check(&domain.owner(), guest.owner_version)
            .check(&domain.incoming(), guest.incoming_version)
            .check(&domain.node(), guest.node_version);
        self.store
            .commit(unchanged)
            .await
            .map_err(|error| error.to_string())?;
        self.may_act().map_err(|error| error.to_string())
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one step of one loop, with what the loop knows"
    )]
    async fn carry_over(
        &self,
        book: &mut FenceBook<'_, S, C>,
        victim: &Victim,
        proof: &Proof,
        silent: &BTreeSet<NodeName>,
        places: &mut Option<Places>,
        guest: &Guest,
        fate: GuestFate,
        cleared: Cleared,
    ) -> Result<Outcome, FenceError> {
        let domain = keys::domain(guest.vm);
        let at_off = book
            .record
            .as_ref()
            .and_then(|record| record.lease_version_at_off);
        // A renewal after "off" voids the proof, also in the middle of the recovery.
        let still_silent = match at_off {
            // Another machine has its lease: it can't renew that any more.
            Some(version) if proof.is_a_word() && !victim.replaced => {
                Txn::new().check(&keys::lease_node(&victim.node), ZnodeVersion(version))
            }
            Some(_) | None => Txn::new(),
        };
        let unchanged = book.unchanged();
        let base = || unchanged.clone().and(still_silent.clone());
        let released = |txn: Txn| {
            let txn = txn.set(&domain.owner(), &None, guest.owner_version);
            if guest.incoming.is_some() {
                txn.set(&domain.incoming(), &None, guest.incoming_version)
            } else {
                txn.check(&domain.incoming(), guest.incoming_version)
            }
        };
        let cleared = match cleared {
            Cleared::Later(reason) => return Ok(Outcome::Again(reason)),
            Cleared::Clear => None,
            Cleared::Never(reason) => Some(reason),
        };
        match fate {
            GuestFate::NotConcerned => Ok(Outcome::Settled),
            GuestFate::NotCovered => Ok(Outcome::Left),
            GuestFate::TargetDecides => Ok(Outcome::Again(
                "the node that was receiving it decides first".to_owned(),
            )),
            GuestFate::ClearIncoming => {
                let txn = base().set(&domain.incoming(), &None, guest.incoming_version);
                self.store.commit(txn).await?;
                info!(vm = %guest.vm, node = %victim.node, "a guest is not received by a dead node any more");
                Ok(Outcome::Settled)
            }
            GuestFate::Settle(state) => {
                let txn = released(base()).set(&domain.state(), &state, guest.state_version);
                self.store.commit(txn).await?;
                Ok(Outcome::Settled)
            }
            GuestFate::AwaitNode => {
                let reason = format!(
                    "{} has died; only that node has one of its disks, so it starts there once the node is back",
                    victim.node
                );
                let txn = released(base())
                    .set(&domain.node(), &victim.node, guest.node_version)
                    .set(&domain.state(), &VmState::Start, guest.state_version)
                    .overwrite(&domain.failed_reason(), &reason);
                self.store.commit(txn).await?;
                warn!(vm = %guest.vm, reason, "a guest of a dead node waits for it");
                Ok(Outcome::Settled)
            }
            GuestFate::Restart | GuestFate::Replace => {
                if let Some(reason) = cleared {
                    let txn = released(base())
                        .set(&domain.state(), &VmState::Fail, guest.state_version)
                        .overwrite(&domain.failed_reason(), &reason);
                    self.store.commit(txn).await?;
                    warn!(vm = %guest.vm, reason, "a guest of a dead node was not started elsewhere");
                    return Ok(Outcome::Settled);
                }
                self.place(book, &still_silent, released, victim, silent, places, guest)
                    .await
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the last step of the same loop")]
    async fn place(
        &self,
        book: &mut FenceBook<'_, S, C>,
        still_silent: &Txn,
        released: impl Fn(Txn) -> Txn,
        victim: &Victim,
        silent: &BTreeSet<NodeName>,
        places: &mut Option<Places>,
        guest: &Guest,
    ) -> Result<Outcome, FenceError> {
        let domain = keys::domain(guest.vm);
        for _ in 0..PLACE_TRIES {
            let known = match places.take() {
                Some(known) => known,
                None => read_candidates(&self.store, silent).await?,
            };
            let known = places.insert(known);
            let Some(wish) = known.wish(guest.vm, vec![victim.node.clone()]) else {
                let reason = "its record can't be read whole, so no node could be chosen for it".to_owned();
                let txn = released(book.unchanged().and(still_silent.clone()))
                    .set(&domain.state(), &VmState::Fail, guest.state_version)
                    .overwrite(&domain.failed_reason(), &reason);
                self.store.commit(txn).await?;
                warn!(vm = %guest.vm, reason, "a guest of a dead node was not started elsewhere");
                return Ok(Outcome::Settled);
            };
            let choice = match known.choose(&wish) {
                Ok(choice) => choice,
                Err(no_place) => {
                    let reason = format!("no node could take it after {} had died: {no_place}", victim.node);
                    let parking = released(still_silent.clone())
                        .check(&domain.node(), guest.node_version)
                        .set(&domain.state(), &VmState::Stop, guest.state_version)
                        .overwrite(&domain.autostart(), &true)
                        .overwrite(&domain.failed_reason(), &reason);
                    // In one write with the list: a guest that is stopped and on no list would be nobody's.
                    book.change(|record| {
                        if !record.parked.contains(&guest.vm) {
                            record.parked.push(guest.vm);
                        }
                    });
                    book.write(parking).await?;
                    warn!(vm = %guest.vm, reason, "a guest is stopped until a node can take it");
                    return Ok(Outcome::Parked);
                }
            };
            let txn = known.reserve(
                released(book.unchanged().and(still_silent.clone()))
                    .set(&domain.node(), &choice.node, guest.node_version)
                    .set(&domain.state(), &VmState::Start, guest.state_version)
                    .overwrite(&domain.last_node(), &Some(victim.node.clone()))
                    .overwrite(&domain.failed_reason(), &String::new()),
                &choice,
            );
            match self.store.commit(txn).await {
                Ok(_) => {
                    known.placed(&choice, VmState::Start);
                    info!(vm = %guest.vm, from = %victim.node, to = %choice.node, "a guest of a dead node goes elsewhere");
                    return Ok(Outcome::Moved);
                }
                // Somebody else has placed a guest on that node meanwhile: count again.
                Err(StoreError::BadVersion { path, .. })
                    if path == keys::node(&choice.node).reserved().path()
                        || path == keys::node(&choice.node).domain_state().path() =>
                {
                    *places = None;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Outcome::Again("others place guests at the same time".to_owned()))
    }
}

enum Outcome {
    Moved,
    Settled,
    Parked,
    Left,
    Again(String),
}

fn decode(vm: VmId, znodes: &[Option<Znode>]) -> Result<Guest, ReadError> {
    let domain = keys::domain(vm);
    let at = |index: usize| znodes.get(index).and_then(Option::as_ref);
    let node = domain.node().decode_required(at(0))?;
    let state = domain.state().decode_required(at(1))?;
    let owner = domain.owner().decode_required(at(2))?;
    let incoming = domain.incoming().decode_required(at(3))?;
    let priority = domain.recovery_priority().decode(at(4))?;
    Ok(Guest {
        vm,
        node: node.value,
        node_version: node.version,
        state: state.value,
        state_version: state.version,
        owner: owner.value,
        owner_version: owner.version,
        incoming: incoming.value,
        incoming_version: incoming.version,
        priority: priority.map_or(0, |priority| priority.value),
    })
}
