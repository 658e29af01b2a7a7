//! Publishes the last lines of the consoles of guests that run here, for `pvc vm log`.
//!
//! libvirt writes each guest's serial console to a file; while the guest runs here its end is kept in the guest's record.
//! A guest that talks without end costs the store no more than a bounded text every few seconds, and all guests of a node
//! together no more than some of them each second.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::store::{Store, StoreError, StoreExt as _, Txn};
use pvc_core::ids::{VmId, VmName};
use pvc_core::time::BootTime;
use tracing::debug;

use crate::agent::{AgentPhase, AgentState};
use crate::host::Hypervisor;

/// Between two looks. A look at a file that has not changed is one system call.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two writes for one guest: who follows a console sees it a little late, and the store is not kept busy by it.
const WRITE_EVERY: Duration = Duration::from_secs(2);
/// Writes in one look, for all guests of this node; the others have their turn in the next.
const WRITES_AT_ONCE: usize = 8;
/// Bytes that are published of one console, whatever the number of lines. Beyond this the text is no end of a log any more.
const BYTES: usize = 64 * 1024;
/// How long reading the end of one file may take: a disk that hangs must not hold the others up for ever.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// Publishes consoles.
#[derive(Debug)]
pub struct Consoles<S, C, H> {
    /// The store.
    pub store: S,
    /// Time.
    pub clock: C,
    /// The hypervisor: whose guests run here.
    pub hypervisor: H,
    /// Where libvirt writes the consoles, one file for each guest, by its name.
    pub directory: PathBuf,
    /// Lines that are kept.
    pub lines: usize,
    /// How this agent is.
    pub agent: AgentState,
}

/// What is remembered of a guest's console. All of it may be lost at any time.
#[derive(Debug)]
struct Seen {
    /// Tells the process from another one of the same guest, which may have another name.
    process: (u32, u64),
    name: VmName,
    /// The file as it was when it was last read.
    mark: Option<Mark>,
    /// What stands in the store.
    text: Option<String>,
    written: Option<BootTime>,
}

/// Tells a file that has changed from one that has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    length: u64,
    modified: Option<SystemTime>,
}

/// What was remembered of all guests.
#[derive(Debug, Default)]
pub struct Memory(BTreeMap<VmId, Seen>);

impl<S: Store, C: Clock, H: Hypervisor> Consoles<S, C, H> {
    /// Looks again and again until dropped. Dropping it is no harm.
    pub async fn run(self) {
        let mut memory = Memory::default();
        loop {
            if let Err(error) = self.look(&mut memory).await {
                debug!(%error, "consoles can't be published now");
            }
            self.clock.sleep(LOOK_EVERY).await;
        }
    }

    /// One round.
    ///
    /// # Errors
    /// When the store does not answer: the next round goes on.
    pub async fn look(&self, memory: &mut Memory) -> Result<(), StoreError> {
        if self.agent.phase() != AgentPhase::Running || self.agent.hold().is_on() {
            return Ok(());
        }
        let Ok(processes) = self.hypervisor.processes() else {
            return Ok(());
        };
        memory
            .0
            .retain(|vm, _| processes.iter().any(|process| process.vm == *vm));
        let mut writes = 0;
        for process in processes {
            let id = (process.pid, process.start_ticks);
            if memory.0.get(&process.vm).is_none_or(|seen| seen.process != id) {
                match self.store.get(&keys::domain(process.vm).name()).await {
                    Ok(Some(name)) => {
                        memory.0.insert(process.vm, Seen::new(id, name.value));
                    }
                    // Not a guest of ours, or one whose name nobody can read.
                    Ok(None) | Err(pvc_common::store::ReadError::Value { .. }) => continue,
                    Err(error) => {
                        debug!(vm = %process.vm, %error, "a guest's name can't be read now");
                        continue;
                    }
                }
            }
            let Some(seen) = memory.0.get_mut(&process.vm) else {
                continue;
            };
            if writes < WRITES_AT_ONCE && self.publish(process.vm, seen).await? {
                writes += 1;
            }
        }
        Ok(())
    }

    /// Publishes the console if it has changed and it is time. Says whether it has written.
    async fn publish(&self, vm: VmId, seen: &mut Seen) -> Result<bool, StoreError> {
        let now = self.clock.now();
        if seen
            .written
            .is_some_and(|written| now.since(written) < WRITE_EVERY)
        {
            return Ok(false);
        }
        let path = self.directory.join(format!("{}.log", seen.name));
        let before = seen.mark;
        let reading = tokio::task::spawn_blocking(move || read_if_changed(&path, before));
        // The thread ends when the disk answers.
        let Some(Ok(Ok(Some((mark, bytes))))) = self.clock.timeout(READ_WITHIN, reading).await else {
            return Ok(false);
        };
        let text = last_lines(&bytes, self.lines);
        seen.mark = Some(mark);
        if seen.text.as_ref() == Some(&text) {
            return Ok(false);
        }
        // Blind: this node runs the guest, and nothing is decided by what stands there. Whoever runs it next overwrites it.
        let txn = Txn::new().overwrite(&keys::domain(vm).console_log(), &text);
        seen.written = Some(now);
        match self.store.commit(txn).await {
            Ok(_) => {
                seen.text = Some(text);
                Ok(true)
            }
            // It was removed meanwhile.
            Err(StoreError::NoNode { .. }) => Ok(true),
            Err(error) => {
                // Read again next time.
                seen.mark = None;
                Err(error)
            }
        }
    }
}

impl Seen {
    fn new(process: (u32, u64), name: VmName) -> Seen {
        Seen {
            process,
            name,
            mark: None,
            text: None,
            written: None,
        }
    }
}

/// The end of the file, unless it is as it was. A file that is not there is empty.
fn read_if_changed(path: &Path, before: Option<Mark>) -> io::Result<Option<(Mark, Vec<u8>)>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    let mark = Mark {
        length: metadata.len(),
        modified: metadata.modified().ok(),
    };
    if before == Some(mark) {
        return Ok(None);
    }
    let wanted = u64::try_from(BYTES).unwrap_or(u64::MAX);
    file.seek(SeekFrom::Start(mark.length.saturating_sub(wanted)))?;
    let mut bytes = Vec::new();
    file.take(wanted).read_to_end(&mut bytes)?;
    Ok(Some((mark, bytes)))
}

/// The last lines of what a console has printed, whole ones if there is more than one. What is no text is replaced, and
/// so are the characters that would end a line or the text in its middle.
fn last_lines(bytes: &[u8], lines: usize) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.replace(['\r', '\0'], "");
    let mut kept: Vec<&str> = Vec::new();
    let mut size = 0_usize;
    for line in text.split_inclusive('\n').rev().take(lines) {
        size = size.saturating_add(line.len());
        // Text grows when what is no text is replaced.
        if size > BYTES {
            break;
        }
        kept.push(line);
    }
    kept.reverse();
    // The first is a piece of a line when the file is longer than what was read of it.
    let cut = bytes.len() >= BYTES && kept.len() > 1 && kept.len() < lines;
    kept.iter().skip(usize::from(cut)).copied().collect()
}

#[cfg(test)]
mod tests;
