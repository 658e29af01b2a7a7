//! Seeking a proof: by the node's BMC and by the storage cluster, both at once.
//!
//! Whichever comes first suffices. Each is tried with limits of its own, so that a BMC which has died with its server, or
//! a storage cluster without quorum, costs seconds and nothing more.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use futures::future::{Either, join, join_all, pending, select};
use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::store::{ReadError, Store, StoreExt as _, Txn, Versioned};
use pvc_core::bmc::power_proof;
use pvc_core::fence::{FencePhase, FencePolicy, Means, PowerTrack, StorageTrack};
use pvc_core::guest_xml::{self, DiskAccess, DiskSource};
use pvc_core::ids::{CephClient, Incarnation, NodeName, VmId, VolumeId, ZnodeVersion};
use pvc_core::protection::{Protection, stands};
use pvc_core::records::CephClients;
use pvc_core::states::DaemonState;
use tokio::sync::watch;
use tracing::{info, warn};

use super::book::{FenceBook, FenceError};
use super::{COMMAND_LIMIT, FenceParts, StorageProof};
use crate::definition::Stored;
use crate::host::{BmcAccess, MapEpoch, OsdDown, PowerControl, PowerError, Storage, power_off_and_see};

/// How long a BMC may take from the order to the word "off". Some press the button and wait for the supply.
const OFF_WITHIN: Duration = Duration::from_secs(8);
/// How much longer than the power proof the storage cluster may take: its entries make the recovery quicker.
const STORAGE_AFTER_POWER: Duration = Duration::from_secs(4);
/// How long the whole storage proof may take.
const STORAGE_WITHIN: Duration = Duration::from_secs(60);
/// How long the look for clients that are not on record may take.
const LIST_WITHIN: Duration = Duration::from_secs(3);
/// How often the OSDs are asked whether they know the map.
const OSD_ROUNDS: u32 = 3;

/// What is known of the dead node.
#[derive(Debug, Clone)]
pub(super) struct Victim {
    pub(super) node: NodeName,
    pub(super) incarnation: Incarnation,
    /// Its fixed address on the storage network, if it is on record.
    pub(super) storage_address: Option<IpAddr>,
    /// Its BMC, if it may give a proof.
    pub(super) bmc: Result<BmcAccess, String>,
    /// Whether another machine has its name now: what is on record under the name is that machine's.
    pub(super) replaced: bool,
}

/// A guest that the dead boot owns or receives.
#[derive(Debug, Clone)]
pub(super) struct Belonging {
    pub(super) vm: VmId,
    clients: Vec<CephClient>,
    volumes: Vec<VolumeId>,
    covered: bool,
}

impl<S: Store, C: Clock, P: PowerControl, T: Storage> FenceParts<S, C, P, T> {
    /// Reads what is known of a node. If it was `replaced`, neither the BMC nor the address on record is its own: those of
    /// another machine, which lives.
    pub(super) async fn know(
        &self,
        node: &NodeName,
        incarnation: &Incarnation,
        replaced: bool,
    ) -> Result<Victim, FenceError> {
        if replaced {
            return Ok(Victim {
                node: node.clone(),
                incarnation: incarnation.clone(),
                storage_address: None,
                bmc: Err("another machine has its name, and the BMC on record is that machine's".to_owned()),
                replaced,
            });
        }
        let own = keys::node(node);
        let addresses = tolerant(self.store.get(&own.addresses()).await)?;
        let host = self.store.require(&own.ipmi_hostname()).await?.value;
        let user = self.store.require(&own.ipmi_username()).await?.value;
        let password = self.store.require(&own.ipmi_password()).await?.value;
        let report = tolerant(self.store.get(&own.bmc()).await)?;
        let bmc = if host.is_empty() {
            Err("no BMC is on record".to_owned())
        } else {
            power_proof(
                report.as_ref(),
                self.settings.bmc_identity,
                self.settings.failing_bmc,
            )
            .map(|()| BmcAccess { host, user, password })
            .map_err(|none| none.to_string())
        };
        Ok(Victim {
            node: node.clone(),
            incarnation: incarnation.clone(),
            storage_address: addresses.map(|addresses| addresses.storage),
            bmc,
            replaced,
        })
    }

    /// How a proof about a node can be had.
    pub(super) fn means(&self, victim: &Victim) -> (Means, Means) {
        let power = match &victim.bmc {
            Ok(_) => Means::Available,
            Err(reason) => Means::Unavailable(reason.clone()),
        };
        let storage = match self.settings.storage_proof {
            StorageProof::Allowed => Means::Available,
            StorageProof::Refused => {
                Means::Unavailable("the setting failed_fence does not allow it".to_owned())
            }
            StorageProof::NoStorage => Means::Unavailable("this cluster has no storage subsystem".to_owned()),
        };
        (power, storage)
    }

    /// Writes the intent, acts, writes the results. Answers whether a proof has come of it.
    pub(super) async fn seek(
        &self,
        book: &mut FenceBook<'_, S, C>,
        victim: &Victim,
        seen: &Seen,
        policy: &FencePolicy,
        (power, storage): (bool, bool),
    ) -> Result<bool, FenceError> {
        self.may_act()?;
        let lease_version = seen.lease;
        let first = !book.record.as_ref().is_some_and(|record| record.past_return());
        if stands(Protection::IntentBeforeAction) {
            book.change(|record| {
                if !first {
                    record.attempt += 1;
                }
                if matches!(record.phase, FencePhase::Suspected | FencePhase::Proving) {
                    record.phase = FencePhase::Proving;
                }
                record.waits_for.clear();
                record.next_try_at = None;
                if power {
                    record.power = PowerTrack::Ordered;
                } else if let Means::Unavailable(reason) = &policy.power {
                    record.power.can_not_be_had(reason);
                }
                if storage {
                    record.storage = StorageTrack::Barring;
                } else if let Means::Unavailable(reason) = &policy.storage {
                    record.storage.can_not_be_had(reason);
                }
            });
            book.note(match (power, storage) {
                (true, true) => "ordering it off and barring its Ceph clients",
                (true, false) => "ordering it off",
                (false, _) => "barring its Ceph clients",
            });
            let mut more = Txn::new();
            if !victim.replaced {
                more = more.overwrite(&keys::node(&victim.node).daemon_state(), &DaemonState::Dead);
            }
            if first {
                // Before the point of no return: if it has renewed its lease, it lives, and nothing is done.
                // The same for a maintenance that somebody has just switched on.
                more = more
                    .check(&keys::lease_node(&victim.node), lease_version)
                    .check(&keys::config().maintenance(), seen.maintenance);
            }
            book.write(more).await?;
            // The write may have taken seconds.
            self.may_act()?;
        }
        pvc_common::pause::point("fence-intent");
        let (power, storage) = self.act(book, victim, lease_version, (power, storage)).await;
        pvc_common::pause::point("fence-acted");
        // The version from before the order: a renewal after it, whenever it comes, shows that the node lives on.
        let power = power.map(|outcome| outcome.map(|()| lease_version));
        self.write_results(book, victim, power, storage).await
    }

    async fn act(
        &self,
        book: &FenceBook<'_, S, C>,
        victim: &Victim,
        lease_version: ZnodeVersion,
        (power, storage): (bool, bool),
    ) -> (Option<Result<(), Failed>>, Option<Result<Barred, Failed>>) {
        let (says_off, is_off) = watch::channel(false);
        let power = async {
            match &victim.bmc {
                Ok(bmc) if power => Some(self.order_off(book, victim, bmc, lease_version, &says_off).await),
                Ok(_) | Err(_) => None,
            }
        };
        let storage = async {
            if !storage {
                return None;
            }
            let barring = self.bar_clients(book, victim, is_off.clone());
            Some(match self.clock.timeout(STORAGE_WITHIN, barring).await {
                Some(outcome) => outcome,
                None => Err(Failed::after(format!(
                    "not done within {} s",
                    STORAGE_WITHIN.as_secs()
                ))),
            })
        };
        match select(std::pin::pin!(power), std::pin::pin!(storage)).await {
            Either::Left((power, storage)) if matches!(power, Some(Ok(_))) => {
                let storage = match self.clock.timeout(STORAGE_AFTER_POWER, storage).await {
                    Some(outcome) => outcome,
                    None => Some(Err(Failed::after(
                        "it did not answer in time; the node is off all the same",
                    ))),
                };
                (power, storage)
            }
            Either::Left((power, storage)) => (power, storage.await),
            Either::Right((storage, power)) => (power.await, storage),
        }
    }

    /// The power proof.
    async fn order_off(
        &self,
        book: &FenceBook<'_, S, C>,
        victim: &Victim,
        bmc: &BmcAccess,
        lease_version: ZnodeVersion,
        says_off: &watch::Sender<bool>,
    ) -> Result<(), Failed> {
        let off = match power_off_and_see(&self.power, &self.clock, bmc, OFF_WITHIN).await {
            Ok(off) => off,
            // Nothing was sent: that is no reason to go on with what could still be taken back.
            Err(error @ PowerError::NoProgram { .. }) => return Err(Failed::before(error)),
            Err(error) => return Err(Failed::after(error)),
        };
        info!(node = %victim.node, ?off, "the BMC says that it is off");
        says_off.send_replace(true);
        if self.settings.storage_proof == StorageProof::NoStorage {
            return Ok(());
        }
        // The survivors' I/O waits for its OSDs until they are marked down. That they are dead is certain only if the
        // node is the one that was switched off: then it has not renewed its lease since.
        let silent = book
            .guarded()
            .check(&keys::lease_node(&victim.node), lease_version);
        let marking = self.mark_osds_down(victim, OsdDown::DefinitelyDead, silent);
        match self.clock.timeout(COMMAND_LIMIT, marking).await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                warn!(node = %victim.node, error, "its OSDs were not marked down; Ceph will find out by itself");
            }
            None => {
                warn!(node = %victim.node, "its OSDs were not marked down in time; Ceph will find out by itself")
            }
        }
        Ok(())
    }

    /// Directly before an outside command.
    ///
    /// SAFETY(fencing): orders to a BMC and to OSDs end, or are killed, before this node's right to act does: carried out
    /// late, they would hit the next boot. Barring may take longer (the monitors may be electing a leader), and may come
    /// late: it names clients of one boot by their nonces, under an intent on record after which the fence of that boot
    /// only goes forward.
    pub(super) fn may_act(&self) -> Result<(), FenceError> {
        if self.agent.node_right().holds_for(self.clock.now(), COMMAND_LIMIT) && !self.agent.hold().is_on() {
            Ok(())
        } else {
            Err(FenceError::NoRight)
        }
    }

    /// Marks the OSDs at the victim's address down. `unchanged` is committed between the listing, which may take seconds,
    /// and the order: an OSD of the node's next boot that is said to be definitely dead could serve stale reads.
    async fn mark_osds_down(&self, victim: &Victim, how: OsdDown, unchanged: Txn) -> Result<(), String> {
        let Some(address) = victim.storage_address else {
            return Ok(());
        };
        let up: Vec<u32> = self
            .storage
            .osds()
            .await
            .map_err(|error| error.to_string())?
            .into_iter()
            .filter(|osd| osd.up && osd.ip == address)
            .map(|osd| osd.id)
            .collect();
        if up.is_empty() {
            return Ok(());
        }
        self.store
            .commit(unchanged)
            .await
            .map_err(|error| error.to_string())?;
        self.may_act().map_err(|error| error.to_string())?;
        match self
            .clock
            .timeout(COMMAND_LIMIT, self.storage.osd_down(&up, how))
            .await
        {
            Some(outcome) => outcome.map_err(|error| error.to_string()),
            None => Err(format!("not done within {} s", COMMAND_LIMIT.as_secs())),
        }
    }

    /// Every guest that the dead boot owns or receives. Read after the intent was written: that moved the version of the
    /// node's fence record, on which each of its claims depends, so that none can be added any more.
    async fn belongings(&self, victim: &Victim) -> Result<(Vec<Belonging>, Vec<VmId>), FenceError> {
        let mut belongings = Vec::new();
        let (guests, unreadable) = self.read_all_guests().await?;
        for guest in guests {
            let owner = guest.owner.as_ref().filter(|owner| {
                owner.node == victim.node && owner.incarnation.same_boot(&victim.incarnation)
            });
            let incoming = guest.incoming.as_ref().filter(|incoming| {
                incoming.target == victim.node && incoming.incarnation.same_boot(&victim.incarnation)
            });
            if owner.is_none() && incoming.is_none() {
                continue;
            }
            let stored = Stored::read(&self.store, guest.vm).await?;
            let parsed = guest_xml::parse(&stored.xml.value).ok();
            // Those that were taken out of the definition while it ran may be open as well.
            let mut volumes: BTreeSet<VolumeId> = stored.listed().cloned().collect();
            if let Some(guest) = &parsed {
                volumes.extend(guest.volumes().map(|(volume, _)| volume.clone()));
            }
            let mut belonging = Belonging {
                vm: guest.vm,
                clients: Vec::new(),
                volumes: volumes.into_iter().collect(),
                // A definition that can't be read may have any disk.
                covered: parsed.is_some_and(|guest| all_writable_disks_on_ceph(&guest)),
            };
            let on_record = owner
                .map(|owner| &owner.ceph_clients)
                .into_iter()
                .chain(incoming.map(|incoming| &incoming.ceph_clients));
            for clients in on_record {
                match clients {
                    // No vCPU ever ran with them, and the old start fails on the versions that recovery moves.
                    CephClients::Unrecorded => {}
                    CephClients::Recorded(list) => belonging.clients.extend(list.iter().cloned()),
                    CephClients::Unknown => belonging.covered = false,
                }
            }
            belongings.push(belonging);
        }
        // Whoever a guest belongs to whose record can't be read: this proof says nothing about it.
        Ok((belongings, unreadable))
    }

    /// The storage proof: bars every client on record and every one that is listed at its address, and waits until each
    /// OSD that is up knows.
    async fn bar_clients(
        &self,
        book: &FenceBook<'_, S, C>,
        victim: &Victim,
        mut is_off: watch::Receiver<bool>,
    ) -> Result<Barred, Failed> {
        let (belongings, mut not_covered) = self.belongings(victim).await.map_err(Failed::before)?;
        let mut clients: BTreeSet<CephClient> = BTreeSet::new();
        if stands(Protection::BlocklistRecordedClients) {
            clients.extend(
                belongings
                    .iter()
                    .flat_map(|belonging| belonging.clients.iter().cloned()),
            );
        }
        // Those on record at once: the listing waits until the dead node's OSDs are marked down.
        let on_record: Vec<CephClient> = clients.iter().cloned().collect();
        let at_once = async {
            if on_record.is_empty() {
                return Ok(());
            }
            book.confirm().await.map_err(Failed::before)?;
            self.may_act().map_err(Failed::before)?;
            self.storage.blocklist(&on_record).await.map_err(Failed::after)?;
            Ok(())
        };
        // What has no power writes nothing, whatever an OSD knows and whoever is listed: nobody waits for either once the BMC
        // has said "off", and then what was barred is no proof by itself.
        let mut says_off = is_off.clone();
        let off = async {
            if says_off.wait_for(|off| *off).await.is_err() {
                pending::<()>().await;
            }
        };
        let listed = async {
            let listing = std::pin::pin!(self.listed_clients(victim, &belongings));
            match select(listing, std::pin::pin!(off)).await {
                Either::Left((listed, _)) => listed,
                Either::Right(_) => Vec::new(),
            }
        };
        let (barred, listed) = join(at_once, listed).await;
        barred?;
        clients.extend(listed);
        not_covered.extend(
            belongings
                .iter()
                .filter(|belonging| !belonging.covered)
                .map(|belonging| belonging.vm),
        );
        let clients: Vec<CephClient> = clients.into_iter().collect();
        // The listing may have taken seconds.
        book.confirm().await.map_err(Failed::before)?;
        self.may_act().map_err(Failed::before)?;
        let epoch = self.storage.blocklist(&clients).await.map_err(Failed::after)?;
        info!(node = %victim.node, clients = clients.len(), ?epoch, "its Ceph clients are barred");
        let osds_know = !*is_off.borrow_and_update();
        if osds_know && stands(Protection::EveryOsdKnows) {
            self.wait_for_osds(book, victim, epoch)
                .await
                .map_err(Failed::after)?;
        }
        Ok(Barred {
            osds_know,
            epoch,
            clients: u32::try_from(clients.len()).unwrap_or(u32::MAX),
            not_covered,
        })
    }

    /// Watchers and lockers at the node's address that nobody has recorded. A second look: what it misses has no vCPU that
    /// ever ran, so a listing that does not end in time takes nothing from the proof.
    async fn listed_clients(&self, victim: &Victim, belongings: &[Belonging]) -> Vec<CephClient> {
        let Some(address) = victim.storage_address else {
            return Vec::new();
        };
        if self.floating_addresses.contains(&address) {
            return Vec::new();
        }
        let volumes: BTreeSet<&VolumeId> = belongings
            .iter()
            .flat_map(|belonging| &belonging.volumes)
            .collect();
        let looks = volumes.into_iter().map(|volume| {
            let look = self.storage.volume_use(volume);
            async move { self.clock.timeout(LIST_WITHIN, look).await }
        });
        join_all(looks)
            .await
            .into_iter()
            .flatten()
            .flatten()
            .flat_map(|seen| {
                let lockers: Vec<_> = seen.locks.into_iter().map(|lock| lock.client).collect();
                seen.watchers.into_iter().chain(lockers)
            })
            .filter(|client| client.ip() == address)
            .collect()
    }

    async fn wait_for_osds(
        &self,
        book: &FenceBook<'_, S, C>,
        victim: &Victim,
        epoch: MapEpoch,
    ) -> Result<(), String> {
        let mut said = String::new();
        for round in 0..OSD_ROUNDS {
            match self.storage.every_osd_knows(epoch).await {
                Ok(()) => return Ok(()),
                Err(error) => said = error.to_string(),
            }
            // An OSD on the dead host can't be asked: once it is marked down the others take no notice of it.
            if round == 0
                && let Err(error) = self
                    .mark_osds_down(victim, OsdDown::Plain, book.unchanged())
                    .await
            {
                said = format!("{said}; {error}");
            }
        }
        Err(said)
    }

    async fn write_results(
        &self,
        book: &mut FenceBook<'_, S, C>,
        victim: &Victim,
        power: Option<Result<ZnodeVersion, Failed>>,
        storage: Option<Result<Barred, Failed>>,
    ) -> Result<bool, FenceError> {
        // An administrator may have confirmed something meanwhile: his word is kept.
        book.reread().await?;
        book.change(|record| {
            if record.phase == FencePhase::Suspected {
                record.phase = FencePhase::Proving;
            }
        });
        let mut proven = false;
        let mut more = Txn::new();
        match power {
            None => {}
            Some(Ok(version)) => {
                proven = true;
                book.change(|record| {
                    record.power = PowerTrack::Off;
                    record.lease_version_at_off = Some(version.0);
                });
                book.note("its BMC says that it is off");
                // If its lease has moved since, that BMC is not its own.
                more = more.check(&keys::lease_node(&victim.node), version);
            }
            Some(Err(failed)) => {
                let reason = failed.reason.clone();
                book.change(|record| {
                    record.power = match failed.sent {
                        Sent::Perhaps => PowerTrack::Failed { reason },
                        Sent::No => PowerTrack::Unavailable { reason },
                    }
                });
                book.note(format!("no power proof: {}", failed.reason));
            }
        }
        match storage {
            None => {}
            Some(Ok(barred)) if !barred.osds_know => {
                let (epoch, clients) = (barred.epoch.0, barred.clients);
                book.change(|record| record.storage = StorageTrack::Entered { epoch, clients });
                book.note(format!("its {clients} Ceph clients are barred (map {epoch})"));
            }
            Some(Ok(barred)) => {
                proven = true;
                let text = format!(
                    "its {} Ceph clients are barred, and every OSD knows (map {})",
                    barred.clients, barred.epoch.0
                );
                book.change(|record| {
                    record.storage = StorageTrack::Barred {
                        epoch: barred.epoch.0,
                        clients: barred.clients,
                        not_covered: barred.not_covered,
                    };
                });
                book.note(text);
            }
            Some(Err(failed)) => {
                let reason = failed.reason.clone();
                book.change(|record| {
                    record.storage = match failed.sent {
                        Sent::Perhaps => StorageTrack::Failed { reason },
                        Sent::No => StorageTrack::Unavailable { reason },
                    }
                });
                book.note(format!("no storage proof: {}", failed.reason));
            }
        }
        book.write(more).await?;
        pvc_common::pause::point("fence-results");
        Ok(proven)
    }
}

/// What can't be decoded counts as absent: it must not keep a dead node from being fenced. A store that does not answer
/// is an error all the same.
fn tolerant<R>(outcome: Result<Option<Versioned<Option<R>>>, ReadError>) -> Result<Option<R>, FenceError> {
    match outcome {
        Ok(seen) => Ok(seen.and_then(|seen| seen.value)),
        Err(error @ ReadError::Value { .. }) => {
            warn!(%error, "a record of a silent node can't be read; it counts as absent");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// What the fencer saw of the node when it decided.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// Its lease.
    pub(super) lease: ZnodeVersion,
    /// Whether there is maintenance.
    pub(super) maintenance: ZnodeVersion,
}

/// An act that has not led to a proof.
#[derive(Debug)]
struct Failed {
    reason: String,
    sent: Sent,
}

/// Whether something that can't be taken back may have been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    No,
    Perhaps,
}

impl Failed {
    fn before(reason: impl ToString) -> Failed {
        Failed {
            reason: reason.to_string(),
            sent: Sent::No,
        }
    }

    fn after(reason: impl ToString) -> Failed {
        Failed {
            reason: reason.to_string(),
            sent: Sent::Perhaps,
        }
    }
}

/// What came of barring.
#[derive(Debug)]
struct Barred {
    /// Whether every OSD has said that it knows.
    osds_know: bool,
    epoch: MapEpoch,
    clients: u32,
    not_covered: Vec<VmId>,
}

/// Whether everything that a guest can write is on the storage cluster.
pub(super) fn all_writable_disks_on_ceph(guest: &guest_xml::GuestXml) -> bool {
    let on_ceph = |disk: &guest_xml::Disk| match (&disk.source, disk.access) {
        (DiskSource::Rbd(_) | DiskSource::Empty, _) | (DiskSource::File { .. }, DiskAccess::ReadOnly) => true,
        (DiskSource::File { .. }, DiskAccess::ReadWrite | DiskAccess::Shared) => false,
    };
    !guest.other_storage && guest.disks.iter().all(on_ceph)
}

/// An order to switch a node on again.
pub(super) async fn order_on<P: PowerControl>(power: &P, victim: &Victim) -> Result<(), String> {
    match &victim.bmc {
        Ok(bmc) => power
            .order_on(bmc)
            .await
            .map_err(|error: PowerError| error.to_string()),
        Err(reason) => Err(reason.clone()),
    }
}
