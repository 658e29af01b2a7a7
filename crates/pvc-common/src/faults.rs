//! Faults: what is wrong in the cluster, for administrators, in the store under `/faults` in the format of PVC 1.0.3.
//!
//! Whoever sees something that a person must look at raises a fault, again and again while it lasts, and clears it when
//! it is over. A fault that was acknowledged stays so as long as it lasts. Under maintenance none is raised.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::clock::Clock;
use crate::keys::values::{Maintenance, Nothing};
use crate::keys::{self, FaultKeys};
use crate::store::{ReadError, Store, StoreError, StoreExt as _, Txn};

/// How the times of faults are written: local time, as PVC 1.0.3 writes it.
const TIME_FORMAT: &str = "%Y-%m-%d %H:%M:%S";
/// How much of a time must be another before an unchanged fault is written anew: the part up to the minute.
const MINUTE_OF_TIME: usize = "YYYY-MM-DD HH:MM".len();
/// How often a write that met another writer is tried.
const TRIES: usize = 3;
/// The status of a fault that nobody has acknowledged.
const NEW: &str = "new";
/// The status of one that somebody has.
const ACKNOWLEDGED: &str = "ack";

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What it is and where, in capitals: `NODE_PLUGIN_IPMI_HV1`. One fault has one id for as long as it lasts.
    pub id: String,
    /// What it takes from the cluster's health, in percent.
    pub delta: u32,
    /// What is wrong and what to do about it.
    pub message: String,
}

impl Fault {
    /// A fault whose id is made of these words: in capitals, with an underscore between them and in place of whatever
    /// is neither a letter, a digit nor a hyphen.
    pub fn new(words: &[&str], delta: u32, message: impl Into<String>) -> Fault {
        Fault {
            id: fault_id(words),
            delta,
            message: message.into(),
        }
    }
}

/// The id of a fault, as [`Fault::new`] makes it.
pub fn fault_id(words: &[&str]) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '-' {
            c.to_ascii_uppercase()
        } else {
            '_'
        }
    };
    words.join("_").chars().map(plain).collect()
}

/// What came of raising a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Raised {
    /// It was not there before.
    New,
    /// It was there, and what is known of it has been renewed.
    Renewed,
    /// It was there as it is, reported in this minute.
    AlreadySo,
    /// The cluster is under maintenance: nothing was written.
    HeldBack,
}

/// A fault that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// The store could not be read.
    #[error("failed to read the fault {id}")]
    Read {
        /// The fault.
        id: String,
        /// What the store said.
        #[source]
        source: ReadError,
    },
    /// The store could not be written.
    #[error("failed to write the fault {id}")]
    Write {
        /// The fault.
        id: String,
        /// What the store said.
        #[source]
        source: StoreError,
    },
}

/// Records a fault, or that it still lasts. The first report is kept, and whether it was acknowledged.
///
/// # Errors
/// [`FaultError`]. It may be written all the same; raise it again in the next round.
///
/// # Idempotence
/// An unchanged fault is written once a minute.
pub async fn raise<S: Store, C: Clock>(store: &S, clock: &C, fault: &Fault) -> Result<Raised, FaultError> {
    let id = &fault.id;
    let mut last = None;
    for _ in 0..TRIES {
        let maintenance = store.require(&keys::config().maintenance()).await;
        match maintenance.map_err(|source| read_failed(id, source))?.value {
            Maintenance::On => return Ok(Raised::HeldBack),
            Maintenance::Off => {}
        }
        let now = local_time(clock);
        let keys = keys::fault(id);
        let known = known(store, &keys)
            .await
            .map_err(|source| read_failed(id, source))?;
        let (txn, outcome) = match known {
            None => (creation(&keys, fault, &now), Raised::New),
            Some(known) if known.tells(fault, &now) => return Ok(Raised::AlreadySo),
            Some(_) => (renewal(&keys, fault, &now), Raised::Renewed),
        };
        match store.commit(txn).await {
            Ok(_) => return Ok(outcome),
            // Somebody else raised or cleared it.
            Err(error @ (StoreError::NodeExists { .. } | StoreError::NoNode { .. })) => last = Some(error),
            Err(source) => return Err(write_failed(id, source)),
        }
    }
    Err(write_failed(id, last.unwrap_or_else(contended)))
}

/// Removes a fault that is over. None there is success.
///
/// # Errors
/// [`FaultError`]. Clear it again in the next round.
pub async fn clear<S: Store>(store: &S, id: &str) -> Result<(), FaultError> {
    let mut last = None;
    for _ in 0..TRIES {
        match store.delete_recursive(keys::fault(id).root().path()).await {
            Ok(()) => return Ok(()),
            // Somebody renewed, acknowledged or cleared it meanwhile.
            Err(
                error @ (StoreError::BadVersion { .. }
                | StoreError::NoNode { .. }
                | StoreError::NotEmpty { .. }),
            ) => last = Some(error),
            Err(source) => return Err(write_failed(id, source)),
        }
    }
    Err(write_failed(id, last.unwrap_or_else(contended)))
}

/// What came of acknowledging a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledged {
    /// It is acknowledged now.
    Done,
    /// It was before.
    AlreadySo,
    /// There is no such fault.
    Unknown,
}

/// Takes note that an administrator knows of a fault: it stays as long as it lasts, and lowers the health no more.
///
/// # Errors
/// [`FaultError`].
pub async fn acknowledge<S: Store, C: Clock>(
    store: &S,
    clock: &C,
    id: &str,
) -> Result<Acknowledged, FaultError> {
    let keys = keys::fault(id);
    let mut last = None;
    for _ in 0..TRIES {
        let status = match store.get(&keys.status()).await {
            Ok(Some(status)) => status,
            Ok(None) => return Ok(Acknowledged::Unknown),
            Err(source) => return Err(read_failed(id, source)),
        };
        if status.value == ACKNOWLEDGED {
            return Ok(Acknowledged::AlreadySo);
        }
        let txn = Txn::new()
            .set(&keys.status(), &ACKNOWLEDGED.to_owned(), status.version)
            .overwrite(&keys.ack_time(), &local_time(clock));
        match store.commit(txn).await {
            Ok(_) => return Ok(Acknowledged::Done),
            // Somebody else acknowledged or cleared it.
            Err(error @ (StoreError::BadVersion { .. } | StoreError::NoNode { .. })) => last = Some(error),
            Err(source) => return Err(write_failed(id, source)),
        }
    }
    Err(write_failed(id, last.unwrap_or_else(contended)))
}

fn read_failed(id: &str, source: ReadError) -> FaultError {
    FaultError::Read {
        id: id.to_owned(),
        source,
    }
}

fn write_failed(id: &str, source: StoreError) -> FaultError {
    FaultError::Write {
        id: id.to_owned(),
        source,
    }
}

/// Each try ended with an error, so this is only said if there was no try.
fn contended() -> StoreError {
    StoreError::Unavailable {
        reason: "others write this fault all the time".to_owned(),
    }
}

struct Known {
    last_time: String,
    delta: u32,
    message: String,
}

impl Known {
    /// Whether it tells all of `fault` already, as of this minute.
    fn tells(&self, fault: &Fault, now: &str) -> bool {
        self.delta == fault.delta
            && self.message == fault.message
            && self.last_time.get(..MINUTE_OF_TIME) == now.get(..MINUTE_OF_TIME)
    }
}

/// The fault as it is recorded. Parts of it that do not read as they should are written anew.
async fn known<S: Store>(store: &S, keys: &FaultKeys) -> Result<Option<Known>, ReadError> {
    if store.get(&keys.root()).await?.is_none() {
        return Ok(None);
    }
    let text = |found: Result<Option<crate::store::Versioned<String>>, ReadError>| match found {
        Ok(found) => Ok(found.map(|found| found.value).unwrap_or_default()),
        Err(ReadError::Value { .. }) => Ok(String::new()),
        Err(error) => Err(error),
    };
    let delta = match store.get(&keys.delta()).await {
        Ok(found) => found.map_or(u32::MAX, |found| found.value),
        Err(ReadError::Value { .. }) => u32::MAX,
        Err(error) => return Err(error),
    };
    Ok(Some(Known {
        last_time: text(store.get(&keys.last_time()).await)?,
        delta,
        message: text(store.get(&keys.message()).await)?,
    }))
}

fn creation(keys: &FaultKeys, fault: &Fault, now: &str) -> Txn {
    Txn::new()
        .create(&keys.root(), &Nothing)
        .create(&keys.last_time(), &now.to_owned())
        .create(&keys.first_time(), &now.to_owned())
        .create(&keys.ack_time(), &String::new())
        .create(&keys.status(), &NEW.to_owned())
        .create(&keys.delta(), &fault.delta)
        .create(&keys.message(), &fault.message)
}

/// Blind: several nodes may report one fault, and the last word is as good as the first.
fn renewal(keys: &FaultKeys, fault: &Fault, now: &str) -> Txn {
    Txn::new()
        .overwrite(&keys.last_time(), &now.to_owned())
        .overwrite(&keys.delta(), &fault.delta)
        .overwrite(&keys.message(), &fault.message)
}

fn local_time<C: Clock>(clock: &C) -> String {
    let now = Timestamp::try_from(clock.wall()).unwrap_or(Timestamp::UNIX_EPOCH);
    now.to_zoned(TimeZone::system()).strftime(TIME_FORMAT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::{MemoryServer, MemoryStore};
    use std::time::{Duration, SystemTime};

    use pvc_core::time::BootTime;

    /// A clock that is set by hand; nothing here waits.
    #[derive(Debug, Clone)]
    struct At(u64);

    impl Clock for At {
        fn now(&self) -> BootTime {
            BootTime::from_duration(Duration::from_secs(self.0))
        }
        fn wall(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH + Duration::from_secs(self.0)
        }
        async fn sleep_until(&self, _deadline: BootTime) {}
    }

    const NOON: u64 = 1_795_348_800;

    async fn store(maintenance: Maintenance) -> MemoryStore {
        let store = MemoryServer::new().client();
        let config = keys::config();
        let txn = Txn::new()
            .create_path("/config", "")
            .create_path(keys::faults().path(), "")
            .create(&config.maintenance(), &maintenance);
        store.commit(txn).await.unwrap();
        store
    }

    fn fault(message: &str) -> Fault {
        Fault::new(&["bmc", "hv1"], 10, message)
    }

    async fn text(store: &MemoryStore, part: &str) -> String {
        let path = format!("/faults/BMC_HV1/{part}");
        let znode = store.read(&path).await.unwrap().unwrap();
        String::from_utf8(znode.data).unwrap()
    }

    #[test]
    fn ids_are_in_capitals_and_never_a_path() {
        assert_eq!(
            fault_id(&["NODE_PLUGIN", "ipmi", "hv-1"]),
            "NODE_PLUGIN_IPMI_HV-1"
        );
        assert_eq!(fault_id(&["vm", "a/b c"]), "VM_A_B_C");
    }

    // Clients of PVC 1.0.3 read these znodes by themselves.
    #[tokio::test]
    async fn a_fault_is_written_as_pvc_1_0_3_writes_it() {
        let store = store(Maintenance::Off).await;
        let first = raise(&store, &At(NOON), &fault("BMC is silent")).await.unwrap();
        assert_eq!(first, Raised::New);
        assert_eq!(text(&store, "status").await, "new");
        assert_eq!(text(&store, "delta").await, "10");
        assert_eq!(text(&store, "message").await, "BMC is silent");
        assert_eq!(text(&store, "ack_time").await, "");
        let time = text(&store, "first_time").await;
        assert_eq!(time, text(&store, "last_time").await);
        let shape: String = time
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        assert_eq!(shape, "0000-00-00 00:00:00");
    }

    // An acknowledgement that is lost with the next report would page the administrator every minute.
    #[tokio::test]
    async fn a_fault_that_lasts_keeps_its_first_report_and_its_acknowledgement() {
        let store = store(Maintenance::Off).await;
        raise(&store, &At(NOON), &fault("BMC is silent")).await.unwrap();
        let first = text(&store, "first_time").await;
        let keys = keys::fault("BMC_HV1");
        let ack = Txn::new().overwrite(&keys.status(), &"ack".to_owned());
        store.commit(ack).await.unwrap();
        let again = |at, message| {
            let store = store.clone();
            async move { raise(&store, &At(at), &fault(message)).await.unwrap() }
        };
        assert_eq!(again(NOON + 20, "BMC is silent").await, Raised::AlreadySo);
        assert_eq!(again(NOON + 20, "BMC is gone").await, Raised::Renewed);
        assert_eq!(again(NOON + 90, "BMC is gone").await, Raised::Renewed);
        assert_eq!(text(&store, "status").await, "ack");
        assert_eq!(text(&store, "first_time").await, first);
        assert_ne!(text(&store, "last_time").await, first);
        assert_eq!(text(&store, "message").await, "BMC is gone");
    }

    #[tokio::test]
    async fn a_fault_that_is_over_is_removed_and_comes_back_as_new() {
        let store = store(Maintenance::Off).await;
        clear(&store, "BMC_HV1").await.unwrap();
        raise(&store, &At(NOON), &fault("BMC is silent")).await.unwrap();
        clear(&store, "BMC_HV1").await.unwrap();
        assert!(store.read("/faults/BMC_HV1").await.unwrap().is_none());
        let again = raise(&store, &At(NOON), &fault("BMC is silent")).await.unwrap();
        assert_eq!(again, Raised::New);
    }

    // Lesson 19: work on the cluster is not to page anyone.
    #[tokio::test]
    async fn none_is_raised_under_maintenance() {
        let store = store(Maintenance::On).await;
        let outcome = raise(&store, &At(NOON), &fault("BMC is silent")).await.unwrap();
        assert_eq!(outcome, Raised::HeldBack);
        assert!(store.read("/faults/BMC_HV1").await.unwrap().is_none());
        clear(&store, "BMC_HV1").await.unwrap();
    }
}
