//! Carrying notes and results to the audit log's pages, beside the requests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix_web::http::StatusCode;
use pvc_common::clock::{Clock, HostClock};
use pvc_common::keys;
use pvc_common::store::{ReadError, Store, StoreError, StoreExt, Txn};
use pvc_core::access::{AuditEntry, AuditPage, PAGE_ENTRIES, PAGES, Source};
use pvc_core::time::BootTime;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinHandle;

use super::super::containers;
use super::super::uses::LastUses;
use super::note::Note;
use crate::snapshot::children_of;

/// Entries that wait to be written. One takes about half a kilobyte.
const QUEUE: usize = 1024;

/// How long a reply waits for a place in the queue before its entry goes to the journal alone.
const PLACE: Duration = Duration::from_secs(1);

/// Entries that are written at once.
const BATCH: usize = 32;

/// How often an entry is tried again, and after which pause, before it goes to the journal alone.
const TRIES: u32 = 60;
const PAUSE: Duration = Duration::from_secs(1);

/// How often the uses of tokens are written and notes without a result are looked for.
const ROUND: Duration = Duration::from_secs(30);

/// After which time of its own a daemon takes a note for one whose daemon ended: far longer than any request.
const ORPHANED: Duration = Duration::from_secs(15 * 60);

/// How long a stop waits for the queue.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// In which time one entry tells of what somebody unknown at one address tries: whoever has no token must not be able to
/// push out what others did.
const STRANGER: Duration = Duration::from_secs(600);

/// Addresses of which that is told in that time. With a thousand addresses it would still take a day to fill the log.
const STRANGERS: usize = 64;

/// An entry for the log, and the names under which the note of its request may stand.
#[derive(Debug)]
struct Finished {
    entry: AuditEntry,
    notes: Vec<String>,
}

/// The audit log as requests see it: a queue.
#[derive(Debug)]
pub(in crate::access) struct Log {
    sender: Mutex<Option<Sender<Finished>>>,
    receiver: Mutex<Option<Receiver<Finished>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    strangers: Mutex<HashMap<Source, BootTime>>,
}

impl Log {
    /// A log that nobody writes yet.
    pub(in crate::access) fn new() -> Log {
        let (sender, receiver) = mpsc::channel(QUEUE);
        Log {
            sender: Mutex::new(Some(sender)),
            receiver: Mutex::new(Some(receiver)),
            writer: Mutex::default(),
            strangers: Mutex::default(),
        }
    }

    /// Begins to write; once. Ends when the log is dropped or finished.
    pub(in crate::access) fn start<S: Store>(&self, store: S, uses: Arc<LastUses>) {
        if let Some(receiver) = lock(&self.receiver).take() {
            let writer = Writer {
                store,
                uses,
                page: None,
                seen: HashMap::new(),
            };
            *lock(&self.writer) = Some(tokio::spawn(writer.run(receiver)));
        }
    }

    /// Takes no more, and waits until what was taken is written, for a short time.
    pub(in crate::access) async fn finish(&self) {
        drop(lock(&self.sender).take());
        let writer = lock(&self.writer).take();
        if let Some(writer) = writer
            && HostClock.timeout(LAST_WORDS, writer).await.is_none()
        {
            tracing::warn!("the last entries of the audit log are not written; changes among them are noted");
        }
    }

    /// Enters a request from there that was answered with that status.
    pub(in crate::access) async fn note(&self, note: Note, status: StatusCode, source: Option<Source>) {
        if note.is_of_a_stranger()
            && let Some(source) = source
            && self.was_told(source)
        {
            return;
        }
        let (entry, notes) = note.finished(status.as_u16());
        let sender = lock(&self.sender).clone();
        let left = match sender {
            None => Some(Finished { entry, notes }),
            Some(sender) => match HostClock.timeout(PLACE, sender.reserve()).await {
                Some(Ok(place)) => {
                    place.send(Finished { entry, notes });
                    None
                }
                Some(Err(_)) | None => Some(Finished { entry, notes }),
            },
        };
        if let Some(finished) = left {
            journal(&finished);
        }
    }

    /// Whether a stranger's request from that address has been told lately.
    fn was_told(&self, source: Source) -> bool {
        let now = HostClock.now();
        let mut strangers = lock(&self.strangers);
        if strangers.len() >= STRANGERS {
            strangers.retain(|_, told| now.since(*told) < STRANGER);
        }
        match strangers.get(&source) {
            Some(told) if now.since(*told) < STRANGER => true,
            Some(_) | None if strangers.len() >= STRANGERS => true,
            Some(_) | None => {
                strangers.insert(source, now);
                false
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is ever half done under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The last resort: an entry that could not be stored.
fn journal(finished: &Finished) {
    let request = &finished.entry.request;
    tracing::error!(
        request = %request.request_id,
        who = %request.who,
        from = %request.from,
        operation = %request.operation,
        target = %request.target,
        parameters = %request.parameters,
        status = finished.entry.status,
        answer = %finished.entry.message,
        "an entry of the audit log could not be stored"
    );
}

/// Why entries were not written.
enum Failed {
    /// Somebody else wrote meanwhile: look again.
    Moved,
    /// The store: try again later.
    Store(String),
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Failed {
        match error {
            StoreError::NoNode { .. }
            | StoreError::NodeExists { .. }
            | StoreError::BadVersion { .. }
            | StoreError::NotEmpty { .. }
            | StoreError::LockLost { .. } => Failed::Moved,
            StoreError::Unknown { .. }
            | StoreError::Unavailable { .. }
            | StoreError::SessionExpired
            | StoreError::Refused { .. } => Failed::Store(error.to_string()),
        }
    }
}

struct Writer<S> {
    store: S,
    uses: Arc<LastUses>,
    /// The last page, as far as this daemon knows.
    page: Option<u64>,
    /// Notes, and when each was first seen here.
    seen: HashMap<String, BootTime>,
}

impl<S: Store> Writer<S> {
    async fn run(mut self, mut receiver: Receiver<Finished>) {
        let clock = HostClock;
        let mut next_round = clock.now() + ROUND;
        loop {
            let mut batch = Vec::new();
            let left = next_round.since(clock.now());
            match clock.timeout(left, receiver.recv_many(&mut batch, BATCH)).await {
                // No request can come any more.
                Some(0) => break,
                Some(_) => self.write(batch).await,
                None => {
                    self.uses.write(&self.store).await;
                    self.collect_orphans().await;
                    next_round = clock.now() + ROUND;
                }
            }
        }
        self.uses.write(&self.store).await;
    }

    /// Writes these entries, or tells the journal.
    async fn write(&mut self, mut batch: Vec<Finished>) {
        for attempt in 0..TRIES {
            match self.append(&mut batch).await {
                Ok(()) => return,
                Err(Failed::Moved) => {
                    // Perhaps since there is no place for it yet.
                    if let Err(error) = containers::ensure(&self.store).await {
                        tracing::debug!(%error, "the audit log has no place");
                    }
                    self.page = None;
                    // The next one need not wait unless others write all the time.
                    if attempt % 8 == 7 {
                        HostClock.sleep(PAUSE).await;
                    }
                }
                Err(Failed::Store(reason)) => {
                    tracing::debug!(reason, "the audit log can not be written");
                    HostClock.sleep(PAUSE).await;
                }
            }
        }
        batch.iter().for_each(journal);
    }

    /// Appends the entries page by page, removes their notes, and takes what is done out of `batch`.
    async fn append(&mut self, batch: &mut Vec<Finished>) -> Result<(), Failed> {
        while !batch.is_empty() {
            let (number, page) = self.last_page().await?;
            // After an unknown outcome they may be there already.
            if let Some((page, _)) = &page {
                batch.retain(|finished| !page.entries.contains(&finished.entry));
            }
            let room = page
                .as_ref()
                .map_or(0, |(page, _)| PAGE_ENTRIES.saturating_sub(page.entries.len()));
            let count = batch.len().min(if room == 0 { PAGE_ENTRIES } else { room });
            let now = batch.get(..count).unwrap_or_default();
            let entries = now.iter().map(|finished| finished.entry.clone());
            let txn = match page {
                Some((mut page, version)) if room > 0 => {
                    page.entries.extend(entries);
                    Txn::new().set(&keys::audit_page(number), &page, version)
                }
                Some(_) | None => {
                    let page = AuditPage {
                        entries: entries.collect(),
                    };
                    let next = number + 1;
                    let txn = Txn::new().create(&keys::audit_page(next), &page);
                    self.turn(txn, next).await?
                }
            };
            let txn = self.without_notes(txn, now).await?;
            self.store.commit(txn).await?;
            batch.drain(..count);
        }
        Ok(())
    }

    /// The last page with its version; its number is 0 and there is no page if there is none yet. One that can not be
    /// read is left alone, and the next one begun.
    async fn last_page(
        &mut self,
    ) -> Result<(u64, Option<(AuditPage, pvc_common::store::ZnodeVersion)>), Failed> {
        let number = match self.page {
            Some(number) => number,
            None => children_of(&self.store, &keys::audit_pages())
                .await?
                .into_iter()
                .max()
                .unwrap_or(0),
        };
        match self.store.get(&keys::audit_page(number)).await {
            Ok(Some(found)) if found.value.is_full() && self.page.is_some() => {
                // Somebody else may have begun the next.
                self.page = None;
                Box::pin(self.last_page()).await
            }
            Ok(Some(found)) => {
                self.page = Some(number);
                Ok((number, Some((found.value, found.version))))
            }
            Ok(None) => {
                self.page = None;
                Ok((number, None))
            }
            Err(ReadError::Store(error)) => Err(error.into()),
            Err(error @ (ReadError::Missing { .. } | ReadError::Value { .. } | ReadError::Child { .. })) => {
                tracing::warn!(%error, "a page of the audit log can not be read");
                self.page = None;
                Ok((number, None))
            }
        }
    }

    /// Removes the oldest pages when page `next` is begun.
    async fn turn(&mut self, mut txn: Txn, next: u64) -> Result<Txn, Failed> {
        let pages: Vec<u64> = children_of(&self.store, &keys::audit_pages()).await?;
        for old in pages
            .into_iter()
            .filter(|page| page.saturating_add(PAGES) <= next)
        {
            txn = txn.delete(&keys::audit_page(old), None);
        }
        self.page = None;
        Ok(txn)
    }

    /// Removes the notes of these entries.
    async fn without_notes(&self, mut txn: Txn, finished: &[Finished]) -> Result<Txn, Failed> {
        let paths: Vec<String> = finished
            .iter()
            .flat_map(|finished| &finished.notes)
            .map(|name| keys::audit_note(name).path().to_owned())
            .collect();
        if paths.is_empty() {
            return Ok(txn);
        }
        let there = self.store.read_many(&paths).await?;
        for (path, _) in paths.into_iter().zip(there).filter(|(_, znode)| znode.is_some()) {
            txn = txn.delete_path(path, None);
        }
        Ok(txn)
    }

    /// Enters the requests whose daemon ended before it could say what came of them.
    async fn collect_orphans(&mut self) {
        let now = HostClock.now();
        let names: Vec<String> = match children_of(&self.store, &keys::audit_notes()).await {
            Ok(names) => names,
            Err(error) => {
                tracing::debug!(%error, "notes of the audit log can not be listed");
                return;
            }
        };
        self.seen.retain(|name, _| names.contains(name));
        for name in names {
            let first = *self.seen.entry(name.clone()).or_insert(now);
            if now.since(first) < ORPHANED {
                continue;
            }
            match self.store.get(&keys::audit_note(&name)).await {
                Ok(Some(found)) => {
                    let entry = AuditEntry::answered(found.value, None, "");
                    self.write(vec![Finished {
                        entry,
                        notes: vec![name],
                    }])
                    .await;
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "a note of the audit log can not be read"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use pvc_common::store::memory::{MemoryServer, MemoryStore};
    use pvc_core::access::AuditRequest;

    use super::*;

    fn request(id: &str) -> AuditRequest {
        AuditRequest {
            request_id: id.to_owned(),
            at: 100,
            node: "hv1".to_owned(),
            who: "user ann".to_owned(),
            role: None,
            from: "192.0.2.7".to_owned(),
            operation: "set_vm_state".to_owned(),
            method: "POST".to_owned(),
            target: "/api/v1/vm/web1/state".to_owned(),
            parameters: "state=stop".to_owned(),
        }
    }

    fn finished(id: &str, notes: &[&str]) -> Finished {
        Finished {
            entry: AuditEntry::answered(request(id), Some(200), "done"),
            notes: notes.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn writer(store: &MemoryStore) -> Writer<MemoryStore> {
        Writer {
            store: store.clone(),
            uses: Arc::default(),
            page: None,
            seen: HashMap::new(),
        }
    }

    async fn pages(store: &MemoryStore) -> Vec<(u64, Vec<String>)> {
        let mut pages = Vec::new();
        for number in store.children_as(&keys::audit_pages()).await.unwrap() {
            let page = store.require(&keys::audit_page(number)).await.unwrap().value;
            let ids = page.entries.into_iter().map(|entry| entry.request.request_id);
            pages.push((number, ids.collect()));
        }
        pages
    }

    #[tokio::test]
    async fn entries_are_appended_in_order_and_old_pages_go() {
        let store = MemoryServer::new().client();
        let (mut one, mut other) = (writer(&store), writer(&store));
        let total = PAGE_ENTRIES * (usize::try_from(PAGES).unwrap() + 2);
        for first in (0..total).step_by(30) {
            // Two daemons write in turns.
            let writer = if first % 60 == 0 { &mut one } else { &mut other };
            let batch = (first..total.min(first + 30))
                .map(|id| finished(&id.to_string(), &[]))
                .collect();
            writer.write(batch).await;
        }
        let pages = pages(&store).await;
        assert_eq!(pages.len(), usize::try_from(PAGES).unwrap());
        assert_eq!(pages[0].0, 3, "the first two are gone");
        let ids: Vec<String> = pages.into_iter().flat_map(|(_, ids)| ids).collect();
        let expected: Vec<String> = (2 * PAGE_ENTRIES..total).map(|id| id.to_string()).collect();
        assert_eq!(ids, expected);
    }

    #[tokio::test]
    async fn notes_go_with_their_entries() {
        let store = MemoryServer::new().client();
        containers::ensure(&store).await.unwrap();
        for name in ["a-0", "b-0"] {
            let txn = Txn::new().create(&keys::audit_note(name), &request(name));
            store.commit(txn).await.unwrap();
        }
        let mut writer = writer(&store);
        // One of its names was tried and never came to stand.
        writer.write(vec![finished("a", &["a-0", "a-1"])]).await;
        assert_eq!(pages(&store).await, [(1, vec!["a".to_owned()])]);
        assert_eq!(store.children_as(&keys::audit_notes()).await.unwrap(), ["b-0"]);
        // Nobody has said what came of the other.
        writer.collect_orphans().await;
        assert_eq!(pages(&store).await.len(), 1);
        writer.seen.insert("b-0".to_owned(), BootTime::ZERO);
        writer.collect_orphans().await;
        let page = store.require(&keys::audit_page(1)).await.unwrap().value;
        assert_eq!(page.entries[1].request.request_id, "b-0");
        assert_eq!(page.entries[1].status, None);
        assert!(store.children_as(&keys::audit_notes()).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_was_written_with_an_unknown_outcome_is_not_written_twice() {
        let store = MemoryServer::new().client();
        let mut writer = writer(&store);
        writer.write(vec![finished("a", &[])]).await;
        writer.write(vec![finished("a", &[]), finished("b", &[])]).await;
        assert_eq!(pages(&store).await, [(1, vec!["a".to_owned(), "b".to_owned()])]);
    }

    #[tokio::test]
    async fn strangers_can_not_fill_the_log() {
        let log = Log::new();
        let source = |last: u32| Source::from(std::net::IpAddr::from(last.to_be_bytes()));
        assert!(!log.was_told(source(1)));
        assert!(log.was_told(source(1)));
        for last in 0..10_000 {
            log.was_told(source(last));
        }
        assert!(lock(&log.strangers).len() <= STRANGERS);
    }
}
