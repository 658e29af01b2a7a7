//! The storage cluster, by processes that run many commands of Ceph at once ([`batch`]); what different parts of the agent
//! ask about volumes at about the same time is put together ([`gather`]).
//!
//! Each is a process with a deadline, so a cluster that does not answer costs time and nothing else. A new Ceph client
//! now and then picks a monitor that is dead; it is told to try the next after half a second, not after three.

mod batch;
mod gather;
mod parse;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pvc_common::clock::{Clock, HostClock};
use pvc_common::command::{CommandRunner, Invocation};
use pvc_core::cluster_faults::CephHealth;
use pvc_core::ids::{CephClient, VolumeId};
use pvc_core::time::BootTime;

use self::batch::{Answer, Command, Owners};
use self::gather::Gathering;
use super::{
    Changed, MapEpoch, OsdDown, OsdState, RbdLock, Storage, StorageError, StorageHealth, VolumeUse,
    blocklist_lasts,
};

/// How long a new client tries one monitor before it goes to the next, in seconds, and by how much longer each time.
const HUNT_INTERVAL: &str = "0.5";
const HUNT_BACKOFF: &str = "1.0";
/// How long one OSD may take to say which map it knows, and one run that asks them.
const TELL_LIMIT: Duration = Duration::from_secs(2);
const TELL_RUN_LIMIT: Duration = Duration::from_secs(4);
/// Between two rounds of asking OSDs that did not know a map yet.
const TELL_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How long it is taken for granted that an entry that was seen in the map is still there: recovery asks once more for
/// clients that the proof has just barred, and each question costs 0.3 s of a processor.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Between two changes of the OSD map.
const MAP_PACE: Duration = Duration::from_secs(1);
/// For how many more of these a long list is waited for.
const MOST_ROUNDS: u32 = 40;

/// How to reach the cluster, and for how long to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CephAccess {
    /// `ceph.conf`.
    pub config_file: PathBuf,
    /// The keyring of `client.admin`.
    pub keyring: PathBuf,
    /// Limit of one command.
    pub command_limit: Duration,
    /// Limit of one call of the seam, which may take several commands.
    pub call_limit: Duration,
}

impl CephAccess {
    /// These files, with 4 s for a command and 8 s for a call.
    pub fn new(config_file: PathBuf, keyring: PathBuf) -> CephAccess {
        CephAccess {
            config_file,
            keyring,
            command_limit: Duration::from_secs(4),
            call_limit: Duration::from_secs(8),
        }
    }
}

/// Ceph by its command line.
#[derive(Debug, Clone)]
pub struct CephCommands<R> {
    runner: R,
    access: CephAccess,
    /// Lasting blocklist entries that this process has seen in a map, and when.
    barred: Arc<Mutex<BTreeMap<CephClient, (MapEpoch, BootTime)>>>,
    /// Commands about volumes that are run together.
    volumes: Gathering,
    /// Removals of locks whose owners are barred, likewise.
    unlocks: Gathering,
}

impl<R: CommandRunner + Clone + 'static> CephCommands<R> {
    /// The cluster that `access` leads to.
    pub fn new(runner: R, access: CephAccess) -> CephCommands<R> {
        CephCommands {
            runner,
            access,
            barred: Arc::default(),
            volumes: Gathering::default(),
            unlocks: Gathering::default(),
        }
    }

    async fn within_limit<T: Send>(
        &self,
        action: &str,
        work: impl Future<Output = Result<T, StorageError>> + Send,
    ) -> Result<T, StorageError> {
        let limit = self.access.call_limit;
        match HostClock.timeout(limit, work).await {
            Some(outcome) => outcome,
            None => Err(failed(action, format_args!("no answer within {limit:?}"))),
        }
    }

    /// Runs a command about a volume, together with others that come at the same time.
    async fn on_volume(&self, command: Command, owners: Owners) -> Result<Answer, StorageError> {
        let ceph = self.clone();
        let run = move |commands: Vec<Command>| async move {
            let limit = ceph.access.call_limit;
            let limits = (limit.mul_f64(0.7), limit.mul_f64(0.9));
            let invocation = batch::invocation(&ceph.access, &commands, &[], owners, limits);
            ceph.run("look at volumes", invocation, commands.len()).await
        };
        match owners {
            Owners::AreBarred => &self.unlocks,
            Owners::MayNotBeBarred => &self.volumes,
        }
        .run(command, run)
        .await
    }

    async fn users(&self, volume: &VolumeId) -> Result<VolumeUse, StorageError> {
        let action = format!("list the users of {volume}");
        let answer = self
            .on_volume(batch::users_of(volume), Owners::MayNotBeBarred)
            .await?;
        if answer.is_no_volume() {
            return Err(StorageError::NoVolume {
                volume: volume.clone(),
            });
        }
        let text = answer.output().map_err(|reason| failed(&action, reason))?;
        parse::volume_use(text).map_err(|error| failed(&action, error))
    }

    /// Runs commands side by side in one process, and then others.
    async fn batch(
        &self,
        action: &str,
        first: &[Command],
        then: &[Command],
        limits: (Duration, Duration),
    ) -> Result<Vec<Answer>, StorageError> {
        let invocation = batch::invocation(&self.access, first, then, Owners::MayNotBeBarred, limits);
        self.run(action, invocation, first.len() + then.len()).await
    }

    async fn run(
        &self,
        action: &str,
        invocation: Invocation,
        commands: usize,
    ) -> Result<Vec<Answer>, StorageError> {
        let output = self
            .runner
            .run(&invocation)
            .await
            .map_err(|error| failed(action, said(&error)))?;
        batch::answers(&output.text(), commands).map_err(|error| failed(action, error))
    }

    /// The clients whose entries have to be asked for, and the newest epoch in which one of the others was seen.
    fn to_bar(&self, clients: &[CephClient]) -> (Vec<CephClient>, Option<MapEpoch>) {
        let now = HostClock.now();
        let mut barred = self.barred.lock().unwrap_or_else(PoisonError::into_inner);
        barred.retain(|_, (_, seen)| now.since(*seen) < REMEMBERED);
        let missing = clients
            .iter()
            .filter(|client| !barred.contains_key(client))
            .cloned()
            .collect();
        let epoch = clients
            .iter()
            .filter_map(|client| barred.get(client).map(|(epoch, _)| *epoch))
            .max();
        (missing, epoch)
    }

    async fn bar_all(&self, clients: &[CephClient], limit: Duration) -> Result<MapEpoch, StorageError> {
        let (missing, epoch) = self.to_bar(clients);
        if missing.is_empty()
            && let Some(epoch) = epoch
        {
            return Ok(epoch);
        }
        let seen = HostClock.now();
        let adds: Vec<Command> = missing
            .iter()
            .map(|client| batch::bar(&client.to_string(), blocklist_lasts()))
            .collect();
        // One run for the whole call: while the monitors elect a leader there is nothing better than to wait for them.
        let limits = (limit.mul_f64(0.8), limit);
        let answers = self
            .batch("blocklist clients", &adds, &[batch::dump()], limits)
            .await?;
        // All of them were tried, whatever became of one.
        for (client, answer) in missing.iter().zip(&answers) {
            if let Err(reason) = answer.output() {
                return Err(failed(&format!("blocklist {client}"), reason));
            }
        }
        // What the map says now is the proof; an acknowledgement is only a claim. Above all Ceph keeps the first entry
        // for a client and its end, and acknowledges a second one all the same.
        let action = "read the blocklist back";
        let map = map_of(action, &answers)?;
        for client in clients {
            match map.blocklist.get(client) {
                Some(entry) if entry.lasts() => {}
                Some(entry) => {
                    return Err(failed(
                        action,
                        format_args!(
                            "{client} is barred only until {}, by somebody else: that entry must go first (ceph osd \
                             blocklist rm {client})",
                            entry.until
                        ),
                    ));
                }
                None => {
                    return Err(failed(
                        action,
                        format_args!("{client} is not in the map {}", map.epoch),
                    ));
                }
            }
        }
        let mut barred = self.barred.lock().unwrap_or_else(PoisonError::into_inner);
        for client in clients {
            barred.insert(client.clone(), (map.epoch, seen));
        }
        Ok(map.epoch)
    }

    async fn map(&self, action: &str) -> Result<parse::OsdMap, StorageError> {
        let limits = (self.access.command_limit, self.access.command_limit);
        let answers = self.batch(action, &[], &[batch::dump()], limits).await?;
        map_of(action, &answers)
    }

    async fn ask_health(&self) -> Result<CephHealth, StorageError> {
        let action = "ask Ceph how it is";
        let limits = (self.access.command_limit, self.access.command_limit);
        let questions = [batch::health(), batch::dump()];
        let answers = self.batch(action, &questions, &[], limits).await?;
        let text = |place: usize| {
            let answer = answers.get(place).ok_or_else(|| failed(action, "no answer"))?;
            answer.output().map_err(|reason| failed(action, reason))
        };
        Ok(CephHealth {
            checks: parse::health(text(0)?).map_err(|error| failed(action, error))?,
            osds_out: parse::osds_out(text(1)?).map_err(|error| failed(action, error))?,
        })
    }

    async fn until_every_osd_knows(
        &self,
        epoch: MapEpoch,
        left: &Mutex<BTreeSet<u32>>,
    ) -> Result<(), StorageError> {
        let action = "ask the OSDs for their maps";
        let mut told: BTreeSet<u32> = BTreeSet::new();
        let mut map = self.map(action).await?;
        loop {
            let silent: Vec<u32> = map
                .osds
                .iter()
                .filter(|osd| osd.up && !told.contains(&osd.id))
                .map(|osd| osd.id)
                .collect();
            // An older map may lack an OSD that has come up since.
            if silent.is_empty() && map.epoch >= epoch {
                return Ok(());
            }
            remember(left, &silent);
            let questions: Vec<Command> = silent.iter().copied().map(batch::status_of).collect();
            let limits = (TELL_LIMIT, TELL_RUN_LIMIT);
            match self.batch(action, &questions, &[batch::dump()], limits).await {
                Ok(answers) => {
                    for (osd, answer) in silent.iter().zip(&answers) {
                        match newest_map(answer) {
                            Ok(newest) if newest >= epoch => {
                                told.insert(*osd);
                            }
                            Ok(newest) => {
                                tracing::debug!(osd, %newest, wanted = %epoch, "the OSD does not know the map yet");
                            }
                            Err(reason) => {
                                tracing::debug!(osd, reason, "the OSD did not say which map it knows");
                            }
                        }
                    }
                    map = map_of(action, &answers)?;
                }
                // Nobody has said anything; the limit of the call ends this.
                Err(error) => tracing::debug!(%error, "the OSDs were not asked"),
            }
            HostClock.sleep(TELL_AGAIN_AFTER).await;
        }
    }

    async fn mark_down(&self, osds: &[u32], how: OsdDown) -> Result<(), StorageError> {
        let action = "mark OSDs down";
        let limits = (self.access.command_limit, self.access.command_limit);
        let answers = self
            .batch(action, &[batch::mark_down(osds, how)], &[], limits)
            .await?;
        for answer in &answers {
            answer.output().map_err(|reason| failed(action, reason))?;
        }
        Ok(())
    }

    async fn unlock(&self, volume: &VolumeId, lock: &RbdLock) -> Result<Changed, StorageError> {
        let action = format!("remove the lock {:?} of {volume}", lock.id);
        let (not_known_barred, _) = self.to_bar(std::slice::from_ref(&lock.client));
        let owners = if not_known_barred.is_empty() {
            Owners::AreBarred
        } else {
            Owners::MayNotBeBarred
        };
        let outcome = self.on_volume(batch::unlock(volume, lock), owners).await;
        let reason = match outcome.as_ref().map(Answer::output) {
            Ok(Ok(_)) => return Ok(Changed::Done),
            Ok(Err(reason)) => reason,
            Err(error) => error.to_string(),
        };
        // Gone already, or removed by a command that was killed before it could say so.
        if self.users(volume).await?.locks.contains(lock) {
            return Err(failed(&action, reason));
        }
        Ok(Changed::AlreadySo)
    }
}

impl<R: CommandRunner + Clone + 'static> Storage for CephCommands<R> {
    async fn volume_use(&self, volume: &VolumeId) -> Result<VolumeUse, StorageError> {
        self.within_limit(&format!("list the users of {volume}"), self.users(volume))
            .await
    }

    async fn blocklist(&self, clients: &[CephClient]) -> Result<MapEpoch, StorageError> {
        // Changes of the map are paced to about one a second, each with what has come in by then.
        let rounds = u32::try_from(clients.len() / batch::AT_ONCE).unwrap_or(u32::MAX);
        let limit = self.access.call_limit + MAP_PACE * rounds.min(MOST_ROUNDS);
        match HostClock.timeout(limit, self.bar_all(clients, limit)).await {
            Some(outcome) => outcome,
            None => Err(failed(
                "blocklist clients",
                format_args!("no answer within {limit:?}"),
            )),
        }
    }

    async fn osds(&self) -> Result<Vec<OsdState>, StorageError> {
        let action = "list the OSDs";
        let map = self.within_limit(action, self.map(action)).await?;
        Ok(map.osds)
    }

    async fn every_osd_knows(&self, epoch: MapEpoch) -> Result<(), StorageError> {
        let left = Mutex::default();
        let action = format!("wait until every OSD knows the map {epoch}");
        let limit = self.access.call_limit;
        match HostClock
            .timeout(limit, self.until_every_osd_knows(epoch, &left))
            .await
        {
            Some(outcome) => outcome,
            None => {
                let left = recall(&left);
                Err(failed(
                    &action,
                    format_args!("not within {limit:?} from {}", named(&left)),
                ))
            }
        }
    }

    async fn osd_down(&self, osds: &[u32], how: OsdDown) -> Result<(), StorageError> {
        if osds.is_empty() {
            return Ok(());
        }
        self.within_limit("mark OSDs down", self.mark_down(osds, how))
            .await
    }

    async fn remove_lock(&self, volume: &VolumeId, lock: &RbdLock) -> Result<Changed, StorageError> {
        let action = format!("remove a lock of {volume}");
        self.within_limit(&action, self.unlock(volume, lock)).await
    }
}

impl<R: CommandRunner + Clone + 'static> StorageHealth for CephCommands<R> {
    async fn health(&self) -> Result<CephHealth, StorageError> {
        self.within_limit("ask Ceph how it is", self.ask_health()).await
    }
}

/// The map, which was asked for last.
fn map_of(action: &str, answers: &[Answer]) -> Result<parse::OsdMap, StorageError> {
    let answer = answers
        .last()
        .ok_or_else(|| failed(action, "no map was asked for"))?;
    let text = answer.output().map_err(|reason| failed(action, reason))?;
    parse::osd_map(text).map_err(|error| failed(action, error))
}

/// The newest map that an OSD knows, from itself.
fn newest_map(answer: &Answer) -> Result<MapEpoch, String> {
    parse::newest_map(answer.output()?).map_err(|error| error.to_string())
}

fn remember(place: &Mutex<BTreeSet<u32>>, osds: &[u32]) {
    *place.lock().unwrap_or_else(PoisonError::into_inner) = osds.iter().copied().collect();
}

fn recall(place: &Mutex<BTreeSet<u32>>) -> BTreeSet<u32> {
    place.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// OSDs in words.
fn named(osds: &BTreeSet<u32>) -> String {
    if osds.is_empty() {
        return "any OSD, since the map could not be read".to_owned();
    }
    let names: Vec<String> = osds.iter().map(|osd| format!("osd.{osd}")).collect();
    names.join(", ")
}

fn failed(action: &str, reason: impl fmt::Display) -> StorageError {
    StorageError::Failed {
        action: action.to_owned(),
        reason: reason.to_string(),
    }
}

/// An error with its causes, in one line.
fn said(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
