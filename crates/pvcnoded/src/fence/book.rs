//! The record of a fence, as the fencer that holds the lock writes it.

use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::lock::LockGuard;
use pvc_common::store::{ReadError, Store, StoreError, StoreExt as _, Txn, ZnodeVersion};
use pvc_core::fence::FenceRecord;
use pvc_core::ids::{Incarnation, NodeName};
use pvc_core::protection::{Protection, stands};

use crate::registration::wall_seconds;

/// Why a fence does not go on now. Whatever was done is on record; the next round begins from there.
#[derive(Debug, thiserror::Error)]
pub(super) enum FenceError {
    /// A record could not be read.
    #[error("failed to read a record")]
    Read(#[from] ReadError),
    /// Somebody wrote meanwhile, or the lock is lost, or the store does not answer.
    #[error("failed to write a record")]
    Write(#[from] StoreError),
    /// This node's own lease does not hold for long enough to do anything.
    #[error("this node's own lease does not hold for long enough")]
    NoRight,
}

/// The record of one fence and its version, under the lock.
#[derive(Debug)]
pub(super) struct FenceBook<'a, S: Store, C> {
    store: &'a S,
    clock: &'a C,
    /// The fence lock.
    pub(super) lock: &'a LockGuard<S>,
    me: &'a NodeName,
    /// Whom it is about.
    pub(super) victim: NodeName,
    /// What is on record.
    pub(super) record: Option<FenceRecord>,
    version: ZnodeVersion,
}

impl<'a, S: Store, C: Clock> FenceBook<'a, S, C> {
    /// Opens the record of `victim`.
    pub(super) async fn open(
        store: &'a S,
        clock: &'a C,
        lock: &'a LockGuard<S>,
        me: &'a NodeName,
        victim: &NodeName,
    ) -> Result<Self, FenceError> {
        let seen = store.require(&keys::fence(victim)).await?;
        Ok(Self {
            store,
            clock,
            lock,
            me,
            victim: victim.clone(),
            record: seen.value,
            version: seen.version,
        })
    }

    /// Reads it again: an administrator or the node itself may have written.
    pub(super) async fn reread(&mut self) -> Result<(), FenceError> {
        let seen = self.store.require(&keys::fence(&self.victim)).await?;
        self.record = seen.value;
        self.version = seen.version;
        Ok(())
    }

    /// A transaction that goes through only while the lock is held.
    pub(super) fn guarded(&self) -> Txn {
        if stands(Protection::LockGuard) {
            Txn::new().guard(self.lock)
        } else {
            Txn::new()
        }
    }

    /// A transaction that goes through only while the lock is held and nobody has written the record.
    pub(super) fn unchanged(&self) -> Txn {
        self.guarded().check(&keys::fence(&self.victim), self.version)
    }

    /// Begins a fence of `incarnation`.
    pub(super) fn begin(&mut self, incarnation: Incarnation) {
        let mut record = FenceRecord::suspected(incarnation, self.me.clone());
        // Guests that found no node after an earlier fence still wait for one.
        if let Some(earlier) = &mut self.record {
            record.parked = std::mem::take(&mut earlier.parked);
        }
        self.record = Some(record);
    }

    /// Changes the record in memory; [`FenceBook::write`] puts it into the store.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut FenceRecord)) {
        if let Some(record) = &mut self.record {
            record.fencer = self.me.clone();
            change(record);
        }
    }

    /// Adds an event to the record in memory.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        let at = wall_seconds(self.clock);
        let text = text.into();
        tracing::warn!(node = %self.victim, event = text, "fence");
        if let Some(record) = &mut self.record {
            record.note(at, self.me, text);
        }
    }

    /// Puts the record into the store together with `more`, under the lock and on its version.
    ///
    /// # Errors
    /// [`FenceError::Write`]. After an unknown outcome the record in memory is not to be trusted: the round ends.
    pub(super) async fn write(&mut self, more: Txn) -> Result<(), FenceError> {
        let guards = self.guarded();
        let index = guards.ops.len();
        let txn = guards
            .set(&keys::fence(&self.victim), &self.record, self.version)
            .and(more);
        let applied = self.store.commit(txn).await?;
        if let Some(version) = applied.get(index).and_then(|applied| applied.version()) {
            self.version = version;
        }
        Ok(())
    }

    /// A quorum write that changes nothing: that the lock is held and the record is ours to carry on is known as of now.
    pub(super) async fn confirm(&self) -> Result<(), FenceError> {
        self.store.commit(self.unchanged()).await?;
        Ok(())
    }
}
