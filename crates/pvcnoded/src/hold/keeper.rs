//! Compares the store with what was seen of it, and keeps the hold.

use std::collections::BTreeMap;
use std::time::Duration;

use pvc_common::clock::Clock;
use pvc_common::faults::{self, Fault, fault_id};
use pvc_common::keys;
use pvc_common::store::{ReadError, Store, StoreError, StoreExt as _, Txn, Znode, ZnodeVersion};
use pvc_core::hold::{
    HeldNote, HoldPhase, HoldReason, HoldRecord, RestoreRecord, RestoreSeen, StoreMemory, StoreReading,
    judge_store,
};
use pvc_core::ids::{Incarnation, NodeName, VmId};
use pvc_core::records::Owner;
use pvc_core::time::BootTime;
use tracing::{debug, error, info, warn};

use super::adopt::{Adopting, PeerWatch};
use super::memory_file::{Durability, MemoryFile};
use crate::agent::AgentState;
use crate::host::Hypervisor;
use crate::registration::wall_seconds;

/// What the service manager is told of an agent that is not on hold.
const RUNNING: &str = "running";
/// The fault of a node on hold, before its name.
const FAULT: &str = "NODE_ON_HOLD";
/// What it takes from the cluster's health, in percent.
const FAULT_DELTA: u32 = 50;
/// Between two comparisons while all is well.
const PERIOD: Duration = Duration::from_secs(5);
/// Between two looks while on hold: an administrator waits.
const HELD_PERIOD: Duration = Duration::from_secs(1);
/// An unchanged memory is made durable this often.
const SYNC_EVERY: Duration = Duration::from_secs(60);
/// How often a store that seems to be behind is asked again: a new session may have begun at another server meanwhile.
const CONFIRMATIONS: u32 = 2;

/// What a [`HoldKeeper`] is made of.
#[derive(Debug, Clone)]
pub struct HoldParts<S, C, H> {
    /// The store.
    pub store: S,
    /// Time.
    pub clock: C,
    /// Where this host's guests are seen; `None` on a node that runs none.
    pub hypervisor: Option<H>,
    /// This node.
    pub me: NodeName,
    /// This life of its agent.
    pub incarnation: Incarnation,
    /// How this agent is.
    pub agent: AgentState,
    /// What was seen before.
    pub file: MemoryFile,
}

/// Keeps the hold.
#[derive(Debug)]
pub struct HoldKeeper<S, C, H> {
    pub(super) parts: HoldParts<S, C, H>,
    pub(super) memory: StoreMemory,
    /// Whether anything was seen before.
    known: bool,
    synced_at: Option<BootTime>,
    synced: Option<StoreMemory>,
    pub(super) published: Option<HoldRecord>,
    pub(super) adopting: Option<Adopting>,
    pub(super) peers: PeerWatch,
    failing: bool,
    fault_cleared: bool,
}

/// What is read in a comparison, all as of one moment.
struct Marks {
    reading: StoreReading,
    /// The znode by whose version the quorum confirms the reading.
    witness: (String, ZnodeVersion),
    owners: BTreeMap<VmId, Owner>,
    order: Option<String>,
}

impl<S: Store, C: Clock, H: Hypervisor> HoldKeeper<S, C, H> {
    /// Begins with what is on disk. A file that can't be read is as good as none, and says so.
    pub fn new(parts: HoldParts<S, C, H>) -> Self {
        let before = parts.file.read().unwrap_or_else(|error| {
            error!(error = %chain(&error), "what this node has seen of the store before is lost: a store that went back in time would not be noticed");
            None
        });
        Self {
            known: before.is_some(),
            synced: before.clone(),
            memory: before.unwrap_or_default(),
            parts,
            synced_at: None,
            published: None,
            adopting: None,
            peers: PeerWatch::default(),
            failing: false,
            fault_cleared: false,
        }
    }

    /// The store still has the schema of PVC 1.0.3, whose guests may be running: this agent does nothing to any guest
    /// until they have owners, also if another node migrates the store meanwhile.
    pub async fn found_earlier_release(&mut self, guests: u32) {
        self.go_on_hold(HoldReason::EarlierRelease { guests }, None).await;
    }

    /// Compares before this agent registers, since a registration writes.
    ///
    /// # Errors
    /// When the store can't be read: try again, do not register.
    pub async fn before_registration(&mut self) -> Result<(), ReadError> {
        if let Some(held) = self.memory.held.clone() {
            if matches!(held.reason, HoldReason::EarlierRelease { .. }) && self.read_order().await?.is_none()
            {
                // The store was migrated while no guest could be running: nobody had to say what runs where.
                info!("the store was migrated with no guest running");
                self.lift().await;
                return Ok(());
            }
            self.parts.agent.hold().place(held.reason, self.parts.clock.now());
            return Ok(());
        }
        if let Some((reason, order)) = self.compare().await? {
            self.go_on_hold(reason, order).await;
        }
        Ok(())
    }

    /// Says in the store how this life begins. Must succeed before it acts: others take a life that has said nothing
    /// for one that may be on hold.
    ///
    /// # Errors
    /// When the store does not take it: try again.
    pub async fn after_registration(&mut self) -> Result<(), ReadError> {
        let phase = self.phase();
        self.publish(phase).await
    }

    /// Keeps the hold until dropped. `tell` is told how it is, whenever that changes.
    pub async fn run(mut self, tell: impl Fn(&str) + Send) {
        // Of an agent that is not on hold others tell.
        let mut told = RUNNING.to_owned();
        loop {
            self.round().await;
            let now = self.status();
            if now != told {
                tell(&now);
                told = now;
            }
        }
    }

    /// How it is, in words.
    pub fn status(&self) -> String {
        match (self.parts.agent.hold().reason(), &self.adopting) {
            (None, _) => RUNNING.to_owned(),
            (Some((_, reason)), None) => {
                format!("on hold: {reason}; see what runs where, then `pvc cluster adopt`")
            }
            (Some(_), Some(adopting)) => adopting.status(),
        }
    }

    /// One comparison, or one step of a hold; then the wait for the next.
    pub async fn round(&mut self) {
        let outcome = if self.parts.agent.hold().is_on() {
            self.held_round().await
        } else {
            self.free_round().await
        };
        match outcome {
            Ok(()) => self.failing = false,
            Err(error) => {
                if !self.failing {
                    warn!(%error, "the store can't be compared with what was seen of it before");
                }
                self.failing = true;
            }
        }
        let period = if self.parts.agent.hold().is_on() {
            HELD_PERIOD
        } else {
            PERIOD
        };
        self.parts.clock.sleep(period).await;
    }

    async fn free_round(&mut self) -> Result<(), ReadError> {
        if !self.fault_cleared {
            // Left by this hold, or by one of an earlier life.
            let cleared = faults::clear(&self.parts.store, &fault_id(&[FAULT, self.parts.me.as_str()])).await;
            self.fault_cleared = cleared.is_ok();
        }
        if let Some((reason, order)) = self.compare().await? {
            self.go_on_hold(reason, order).await;
            let phase = self.phase();
            self.publish(phase).await?;
        } else {
            self.save().await;
        }
        Ok(())
    }

    async fn held_round(&mut self) -> Result<(), ReadError> {
        if self.memory.held.is_none() {
            // Placed by another part of this agent, which saw it first.
            if let Some((_, reason)) = self.parts.agent.hold().reason() {
                let order = self.read_order().await?.map(|order| order.id);
                self.go_on_hold(reason, order).await;
            }
        }
        self.raise_fault().await;
        self.held_step().await
    }

    /// A node on hold is something that a person must look at. What can't be written now is written in the next round.
    async fn raise_fault(&self) {
        let Some((_, reason)) = self.parts.agent.hold().reason() else {
            return;
        };
        let message = format!(
            "Node {} is on hold: {reason}. It starts, ends and fences nothing; see what runs where, then order \
             'pvc cluster adopt'",
            self.parts.me
        );
        let fault = Fault::new(&[FAULT, self.parts.me.as_str()], FAULT_DELTA, message);
        if let Err(error) = faults::raise(&self.parts.store, &self.parts.clock, &fault).await {
            debug!(%error, "the fault of the hold was not written");
        }
    }

    /// The processes of guests on this host, as `/proc` shows them; `None` if it can't be read.
    pub(super) fn processes(&self) -> Option<Vec<VmId>> {
        let Some(hypervisor) = &self.parts.hypervisor else {
            return Some(Vec::new());
        };
        let mut vms: Vec<VmId> = hypervisor
            .processes()
            .ok()?
            .iter()
            .map(|process| process.vm)
            .collect();
        vms.sort();
        vms.dedup();
        Some(vms)
    }

    /// Whether the store is one to act on; if not, why, and the order that stands in it. What is new is remembered.
    async fn compare(&mut self) -> Result<Option<(HoldReason, Option<String>)>, ReadError> {
        // What can't be read is not "none": an empty store is then judged with a guest.
        let processes = self.processes();
        let count = processes.as_ref().map_or(1, Vec::len);
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let running = processes.unwrap_or_default();
        let mut confirmations = 0;
        loop {
            let marks = self.read_marks(&running).await?;
            let memory = self.known.then_some(&self.memory);
            let Err(reason) = judge_store(memory, marks.reading.clone(), count) else {
                self.remember(marks);
                return Ok(None);
            };
            if confirmations == CONFIRMATIONS {
                let order_before = match reason {
                    // It takes away the order before it: one that stands there came after it, and counts.
                    HoldReason::Restored { .. } => None,
                    HoldReason::StoreBehind { .. }
                    | HoldReason::StoreEmpty { .. }
                    | HoldReason::EarlierRelease { .. } => marks.order,
                };
                return Ok(Some((reason, order_before)));
            }
            confirmations += 1;
            // A server that lags shows the past too. Once it has answered a write it has caught up with the quorum,
            // whether or not the version still was what we had read.
            let (path, version) = marks.witness;
            match self
                .parts
                .store
                .commit(Txn::new().check_path(path, version))
                .await
            {
                Ok(_) | Err(StoreError::BadVersion { .. } | StoreError::NoNode { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn read_marks(&self, running: &[VmId]) -> Result<Marks, ReadError> {
        let own_lease = keys::lease_node(&self.parts.me);
        let adopt = keys::config().adopt();
        let version = keys::schema().version();
        let restore = keys::config().restore();
        let mut paths: Vec<String> = vec![
            own_lease.path().to_owned(),
            version.path().to_owned(),
            keys::lease_primary().path().to_owned(),
            keys::config().primary_node().path().to_owned(),
            adopt.path().to_owned(),
            restore.path().to_owned(),
        ];
        let fixed = paths.len();
        let owners: Vec<_> = running.iter().map(|vm| keys::domain(*vm).owner()).collect();
        paths.extend(owners.iter().map(|key| key.path().to_owned()));
        let znodes = self.parts.store.read_many(&paths).await?;
        let at = |index: usize| znodes.get(index).and_then(Option::as_ref);
        let zxid = |znode: &Znode| znode.modified.0;
        let newest = (1..fixed)
            .filter_map(|index| at(index).map(zxid))
            .max()
            .unwrap_or(0);
        let witness = match (at(0), at(1)) {
            (Some(lease), _) => (own_lease.path().to_owned(), lease.version),
            (None, Some(schema)) => (version.path().to_owned(), schema.version),
            (None, None) => {
                return Err(ReadError::Missing {
                    path: version.path().to_owned(),
                });
            }
        };
        let mut known = BTreeMap::new();
        for (index, (vm, key)) in running.iter().zip(&owners).enumerate() {
            // A record that can't be read is the business of who looks after the guest.
            if let Ok(Some(owner)) = key.decode(at(fixed + index))
                && let Some(owner) = owner.value
                && owner.node == self.parts.me
            {
                known.insert(*vm, owner);
            }
        }
        let order = adopt
            .decode(at(4))
            .ok()
            .flatten()
            .and_then(|order| order.value)
            .map(|order| order.id);
        // Strictly: a restore that can't be read must not look like none.
        let restore = restore.decode(at(5))?.and_then(|restore| restore.value);
        Ok(Marks {
            reading: StoreReading {
                newest,
                own_lease: at(0).map(zxid),
                restore: restore.map(|restore| RestoreSeen {
                    id: restore.id,
                    adopted: order.is_some(),
                }),
            },
            witness,
            owners: known,
            order,
        })
    }

    fn remember(&mut self, marks: Marks) {
        self.known = true;
        self.memory.newest = marks.reading.newest;
        self.memory.own_lease = marks.reading.own_lease.unwrap_or(0);
        self.memory.guests = marks.owners;
        self.memory.restore = marks.reading.restore.map(|restore| restore.id);
    }

    /// The last restore through the API.
    pub(super) async fn read_restore(&self) -> Result<Option<RestoreRecord>, ReadError> {
        let key = keys::config().restore();
        Ok(self
            .parts
            .store
            .get(&key)
            .await?
            .and_then(|restore| restore.value))
    }

    /// Goes on hold, and keeps that over every restart until it is lifted.
    pub(super) async fn go_on_hold(&mut self, reason: HoldReason, order_before: Option<String>) {
        let now = self.parts.clock.now();
        self.parts.agent.hold().place(reason.clone(), now);
        if self.memory.held.is_some() {
            return;
        }
        error!(%reason, "on hold: nothing is started, ended or fenced by this node until `pvc cluster adopt`");
        self.memory.held = Some(HeldNote {
            reason,
            since: wall_seconds(&self.parts.clock),
            order_before,
        });
        self.write(Durability::Synced).await;
    }

    /// Goes on. What is in the store now is what counts from here on.
    pub(super) async fn lift(&mut self) {
        let restore = match self.memory.held.take().map(|held| held.reason) {
            Some(HoldReason::Restored { id }) => Some(id),
            Some(
                HoldReason::StoreBehind { .. }
                | HoldReason::StoreEmpty { .. }
                | HoldReason::EarlierRelease { .. },
            )
            | None => None,
        };
        self.memory = StoreMemory {
            restore,
            ..StoreMemory::default()
        };
        self.known = false;
        self.adopting = None;
        self.fault_cleared = false;
        self.peers = PeerWatch::default();
        self.write(Durability::Synced).await;
        self.parts.agent.hold().lift();
    }

    /// Writes the memory if it is worth it.
    async fn save(&mut self) {
        let now = self.parts.clock.now();
        let guests_changed = self
            .synced
            .as_ref()
            .is_none_or(|synced| synced.guests != self.memory.guests);
        let due = self.synced_at.is_none_or(|at| now >= at + SYNC_EVERY);
        let durability = match guests_changed || due {
            true => Durability::Synced,
            false => Durability::Soon,
        };
        self.write(durability).await;
    }

    async fn write(&mut self, durability: Durability) {
        let (file, memory) = (self.parts.file.clone(), self.memory.clone());
        // Off the runtime's threads, where there is a runtime: a disk may stand still.
        let written = match tokio::runtime::Handle::try_current() {
            Ok(_) => tokio::task::spawn_blocking(move || file.write(&memory, durability))
                .await
                .unwrap_or_else(|error| Err(std::io::Error::other(error))),
            Err(_) => file.write(&memory, durability),
        };
        match written {
            Ok(()) if durability == Durability::Synced => {
                self.synced = Some(self.memory.clone());
                self.synced_at = Some(self.parts.clock.now());
            }
            Ok(()) => {}
            Err(error) => warn!(%error, "what was seen of the store could not be kept on this host's disk"),
        }
    }

    pub(super) fn phase(&self) -> HoldPhase {
        match (self.parts.agent.hold().reason(), &self.adopting) {
            (None, _) => HoldPhase::Free,
            (Some((_, reason)), None) => HoldPhase::Held { reason },
            (Some(_), Some(adopting)) => adopting.phase(),
        }
    }

    /// This life's record as it should stand in the store.
    pub(super) fn record(&self, phase: HoldPhase) -> HoldRecord {
        let running = match &phase {
            HoldPhase::Free | HoldPhase::Lifted { .. } => Vec::new(),
            HoldPhase::Held { .. } | HoldPhase::Adopting { .. } | HoldPhase::Adopted { .. } => {
                self.processes().unwrap_or_default()
            }
        };
        let since = match (&self.memory.held, &self.published) {
            (Some(held), _) => held.since,
            (None, Some(published)) if published.phase == phase => published.since,
            (None, _) => wall_seconds(&self.parts.clock),
        };
        let adopting = self.adopting.as_ref();
        HoldRecord {
            incarnation: self.parts.incarnation.clone(),
            phase,
            since,
            running,
            adopted: adopting
                .map(|adopting| adopting.adopted.clone())
                .unwrap_or_default(),
            trouble: adopting.map(Adopting::trouble).unwrap_or_default(),
        }
    }

    /// Writes the record if it is not there as it should be. The key is this node's own.
    pub(super) async fn publish(&mut self, phase: HoldPhase) -> Result<(), ReadError> {
        let record = self.record(phase);
        if self.published.as_ref() == Some(&record) {
            return Ok(());
        }
        self.published = None;
        let key = keys::node(&self.parts.me).hold();
        self.parts
            .store
            .commit(Txn::new().overwrite(&key, &Some(record.clone())))
            .await?;
        self.published = Some(record);
        Ok(())
    }
}

/// An error with all its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
