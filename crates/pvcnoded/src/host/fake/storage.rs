//! A Ceph cluster in virtual time, as far as guests and fencing see it: watchers that linger, locks that are handed
//! over on request, a blocklist whose entries end, OSDs that learn it late. What it does was observed on Ceph 16.2.
//!
//! Without OSDs (as it is made) every map is known everywhere as soon as it is committed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pvc_common::clock::Clock;
use pvc_core::ids::{CephClient, VolumeId};
use pvc_core::time::BootTime;

use super::osds::{OsdMap, Verdict};
use super::{VirtualClock, locked};
use crate::host::{Changed, MapEpoch, OsdDown, OsdState, RbdLock, Storage, StorageError, VolumeUse};

/// How long the watch of a client that died without a word is listed (`osd_client_watch_timeout`).
const WATCH_LINGERS: Duration = Duration::from_secs(30);
/// How long the entry lasts that librbd makes when it breaks a dead owner's lock by itself.
const ENTRY_OF_LIBRBD: Duration = Duration::from_secs(3600);
/// How long a call of the seam tries, and between two of its tries.
const CALL_LIMIT: Duration = Duration::from_secs(8);
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// The storage cluster, shared by all nodes.
#[derive(Debug, Clone)]
pub struct FakeCeph {
    clock: VirtualClock,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    volumes: BTreeMap<VolumeId, Volume>,
    map: OsdMap,
    next_nonce: u64,
}

#[derive(Debug, Default)]
struct Volume {
    /// With the instant at which the client died, if it did.
    watchers: Vec<(CephClient, Option<BootTime>)>,
    lock: Option<RbdLock>,
    writes: Vec<(BootTime, CephClient)>,
    /// Whether nobody is shown as a watcher.
    hides_watchers: bool,
}

impl State {
    fn settle(&mut self, now: BootTime) {
        self.map.settle(now);
        for volume in self.volumes.values_mut() {
            volume
                .watchers
                .retain(|(_, died)| died.is_none_or(|died| now.since(died) < WATCH_LINGERS));
        }
    }

    fn drop_watches(&mut self, client: &CephClient) {
        for volume in self.volumes.values_mut() {
            volume.watchers.retain(|(watcher, _)| watcher != client);
        }
    }
}

/// What came of a guest's write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// It is on disk.
    Written,
    /// The client is barred: the guest sees an I/O error.
    Blocklisted,
    /// It hangs: a dead client holds the lock and is still listed as watching, or an OSD is silent and not marked down.
    Hangs,
}

impl FakeCeph {
    /// A cluster without volumes.
    pub fn new(clock: VirtualClock) -> FakeCeph {
        FakeCeph {
            clock,
            state: Arc::default(),
        }
    }

    /// Makes a volume. There already: nothing happens.
    pub fn add_volume(&self, volume: &VolumeId) {
        locked(&self.state).volumes.entry(volume.clone()).or_default();
    }

    /// Whether the volume's clients have not come so far as to watch it: QEMU opens one disk after another.
    pub fn hide_watchers(&self, volume: &VolumeId, hidden: bool) {
        if let Some(volume) = locked(&self.state).volumes.get_mut(volume) {
            volume.hides_watchers = hidden;
        }
    }

    /// A node's connection to the cluster.
    pub fn connection(&self) -> FakeStorage {
        FakeStorage {
            ceph: self.clone(),
            link: Arc::default(),
        }
    }

    /// A process on the host with address `ip` opens a volume, and watches it from then on. `None` if there is no
    /// such volume.
    pub fn open(&self, volume: &VolumeId, ip: IpAddr) -> Option<CephClient> {
        let mut state = locked(&self.state);
        state.next_nonce += 1;
        let client = CephClient::new(SocketAddr::new(ip, 0), state.next_nonce);
        state
            .volumes
            .get_mut(volume)?
            .watchers
            .push((client.clone(), None));
        Some(client)
    }

    /// The client ends in order: its watch and its lock go with it.
    pub fn close(&self, client: &CephClient) {
        for volume in locked(&self.state).volumes.values_mut() {
            volume.watchers.retain(|(watcher, _)| watcher != client);
            if volume.lock.as_ref().is_some_and(|lock| lock.client == *client) {
                volume.lock = None;
            }
        }
    }

    /// The client dies without a word: its watch lingers, its lock stays.
    pub fn abandon(&self, client: &CephClient) {
        let now = self.clock.now();
        for volume in locked(&self.state).volumes.values_mut() {
            for (watcher, died) in &mut volume.watchers {
                if watcher == client {
                    died.get_or_insert(now);
                }
            }
        }
    }

    /// The client writes. As librbd does, it asks for the lock and gets it from a living owner; the lock of a dead one
    /// is broken, and its owner barred, once its watch has ended.
    pub fn write(&self, volume: &VolumeId, client: &CephClient) -> WriteOutcome {
        let now = self.clock.now();
        let mut state = locked(&self.state);
        state.settle(now);
        match state.map.verdict(client, now) {
            Verdict::Taken => {}
            Verdict::Barred => return WriteOutcome::Blocklisted,
            Verdict::Hangs => return WriteOutcome::Hangs,
        }
        let Some(target) = state.volumes.get_mut(volume) else {
            return WriteOutcome::Blocklisted;
        };
        let mut broken = None;
        if let Some(lock) = &target.lock
            && lock.client != *client
        {
            let owner = target
                .watchers
                .iter()
                .find(|(watcher, _)| *watcher == lock.client);
            match owner {
                Some((_, Some(_))) => return WriteOutcome::Hangs,
                Some((_, None)) => {}
                None => broken = Some(lock.client.clone()),
            }
        }
        target.lock = Some(lock_of(client));
        target.writes.push((now, client.clone()));
        if let Some(owner) = broken {
            state.map.bar_until(&owner, now, now + ENTRY_OF_LIBRBD);
            state.drop_watches(&owner);
        }
        WriteOutcome::Written
    }

    /// Whether a process with this client could write, whatever it or the network is doing now.
    pub fn takes_writes_of(&self, client: &CephClient) -> bool {
        locked(&self.state).map.takes_writes_of(client, self.clock.now())
    }

    /// A client that was taken for dead is heard of again: it watches the volume as before, unless it is barred.
    pub fn come_back(&self, volume: &VolumeId, client: &CephClient) {
        if !self.takes_writes_of(client) {
            return;
        }
        let mut state = locked(&self.state);
        state.settle(self.clock.now());
        let Some(volume) = state.volumes.get_mut(volume) else {
            return;
        };
        match volume.watchers.iter_mut().find(|(watcher, _)| watcher == client) {
            Some((_, died)) => *died = None,
            None => volume.watchers.push((client.clone(), None)),
        }
    }

    /// Every write to the volume so far: when, and by whom.
    pub fn writes(&self, volume: &VolumeId) -> Vec<(BootTime, CephClient)> {
        let state = locked(&self.state);
        state
            .volumes
            .get(volume)
            .map(|volume| volume.writes.clone())
            .unwrap_or_default()
    }

    /// How many locks a volume has.
    pub fn locks(&self, volume: &VolumeId) -> usize {
        let state = locked(&self.state);
        state
            .volumes
            .get(volume)
            .map_or(0, |volume| volume.lock.iter().count())
    }

    /// The clients that are barred.
    pub fn blocklisted(&self) -> BTreeSet<CephClient> {
        let mut state = locked(&self.state);
        state.settle(self.clock.now());
        state.map.barred()
    }

    /// Bars a client for `lasts` only, as an entry with Ceph's default of one hour does. As long as it is there no longer
    /// one can be made.
    pub fn blocklist_for(&self, client: &CephClient, lasts: Duration) {
        let now = self.clock.now();
        let mut state = locked(&self.state);
        state.map.bar_until(client, now, now + lasts);
        state.drop_watches(client);
    }

    /// An OSD on the host with address `ip`, up and knowing every map at once.
    pub fn add_osd(&self, id: u32, ip: IpAddr) {
        locked(&self.state).map.add(id, ip, self.clock.now());
    }

    /// From now on this OSD learns each map so long after its commit. A write of a barred client still goes through as
    /// long as an OSD that is up does not know that it is.
    pub fn set_osd_lag(&self, id: u32, lag: Duration) {
        locked(&self.state).map.set_lag(id, lag, self.clock.now());
    }

    /// The OSD dies or is frozen. It stays up in the map until the others have missed it for 6 s; I/O hangs meanwhile.
    pub fn silence_osd(&self, id: u32) {
        locked(&self.state).map.silence(id, true, self.clock.now());
    }

    /// As [`FakeCeph::silence_osd`], but the others still reach it: nobody marks it down by himself.
    pub fn silence_osd_unnoticed(&self, id: u32) {
        locked(&self.state).map.silence(id, false, self.clock.now());
    }

    /// The OSD answers again.
    pub fn wake_osd(&self, id: u32) {
        locked(&self.state).map.answer(id, self.clock.now());
    }

    /// The number of the present OSD map.
    pub fn epoch(&self) -> MapEpoch {
        locked(&self.state).map.epoch()
    }
}

fn lock_of(client: &CephClient) -> RbdLock {
    let nonce = client.to_string().rsplit('/').next().unwrap_or("0").to_owned();
    RbdLock {
        id: format!("auto {nonce}"),
        locker: format!("client.{nonce}"),
        client: client.clone(),
    }
}

/// One node's way to the cluster. Clones are the same way.
#[derive(Debug, Clone)]
pub struct FakeStorage {
    ceph: FakeCeph,
    link: Arc<Mutex<Link>>,
}

#[derive(Debug, Default)]
struct Link {
    cut: bool,
    latency: Duration,
    failures: VecDeque<String>,
    refuses_blocklist: bool,
}

impl FakeStorage {
    /// From now on every call fails, as when no monitor answers within its deadline.
    pub fn cut(&self) {
        locked(&self.link).cut = true;
    }

    /// From now on no client can be barred from here, as when the key's rights don't suffice.
    pub fn refuse_blocklist(&self) {
        locked(&self.link).refuses_blocklist = true;
    }

    /// Ends [`FakeStorage::cut`] and [`FakeStorage::refuse_blocklist`].
    pub fn heal(&self) {
        let mut link = locked(&self.link);
        link.cut = false;
        link.refuses_blocklist = false;
    }

    /// Every call takes that long from now on.
    pub fn set_latency(&self, latency: Duration) {
        locked(&self.link).latency = latency;
    }

    /// The next call fails and does nothing. Orders queue up.
    pub fn fail_next(&self, reason: &str) {
        locked(&self.link).failures.push_back(reason.to_owned());
    }

    async fn reach(&self, action: &str) -> Result<(), StorageError> {
        let (latency, failure) = {
            let mut link = locked(&self.link);
            let failure = if link.cut {
                Some("no answer within the deadline".to_owned())
            } else {
                link.failures.pop_front()
            };
            (link.latency, failure)
        };
        self.ceph.clock.sleep(latency).await;
        match failure {
            Some(reason) => Err(StorageError::Failed {
                action: action.to_owned(),
                reason,
            }),
            None => Ok(()),
        }
    }
}

impl Storage for FakeStorage {
    async fn volume_use(&self, volume: &VolumeId) -> Result<VolumeUse, StorageError> {
        let action = format!("list the users of {volume}");
        self.reach(&action).await?;
        let began = self.ceph.clock.now();
        // While an OSD is silent and not marked down the listing hangs.
        while locked(&self.ceph.state).map.hangs(self.ceph.clock.now()) {
            if self.ceph.clock.now().since(began) >= CALL_LIMIT {
                return Err(StorageError::Failed {
                    action,
                    reason: format!("no answer within {CALL_LIMIT:?}"),
                });
            }
            self.ceph.clock.sleep(TRY_AGAIN_AFTER).await;
        }
        let now = self.ceph.clock.now();
        let mut state = locked(&self.ceph.state);
        state.settle(now);
        let found = state.volumes.get(volume).ok_or_else(|| StorageError::NoVolume {
            volume: volume.clone(),
        })?;
        Ok(VolumeUse {
            watchers: found
                .watchers
                .iter()
                .filter(|_| !found.hides_watchers)
                .map(|(client, _)| client.clone())
                .collect(),
            locks: found.lock.iter().cloned().collect(),
        })
    }

    async fn blocklist(&self, clients: &[CephClient]) -> Result<MapEpoch, StorageError> {
        self.reach("blocklist clients").await?;
        if locked(&self.link).refuses_blocklist {
            return Err(StorageError::Failed {
                action: "blocklist clients".to_owned(),
                reason: "access denied".to_owned(),
            });
        }
        let now = self.ceph.clock.now();
        let mut state = locked(&self.ceph.state);
        if clients.is_empty() {
            return Ok(state.map.epoch());
        }
        let (epoch, too_soon) = state.map.bar(clients, now);
        for client in clients {
            state.drop_watches(client);
        }
        if too_soon.is_empty() {
            Ok(epoch)
        } else {
            Err(StorageError::Failed {
                action: "blocklist clients".to_owned(),
                reason: format!("{too_soon:?} are barred already, by entries that end too soon"),
            })
        }
    }

    async fn osds(&self) -> Result<Vec<OsdState>, StorageError> {
        self.reach("list the OSDs").await?;
        let now = self.ceph.clock.now();
        Ok(locked(&self.ceph.state).map.states(now))
    }

    async fn every_osd_knows(&self, epoch: MapEpoch) -> Result<(), StorageError> {
        let action = format!("wait until every OSD knows the map {epoch}");
        self.reach(&action).await?;
        let began = self.ceph.clock.now();
        loop {
            let now = self.ceph.clock.now();
            let left = locked(&self.ceph.state).map.ignorant(epoch, now);
            if left.is_empty() {
                return Ok(());
            }
            if now.since(began) >= CALL_LIMIT {
                return Err(StorageError::Failed {
                    action,
                    reason: format!("not within {CALL_LIMIT:?} from OSDs {left:?}"),
                });
            }
            self.ceph.clock.sleep(TRY_AGAIN_AFTER).await;
            if locked(&self.link).cut {
                self.reach(&action).await?;
            }
        }
    }

    async fn osd_down(&self, osds: &[u32], how: OsdDown) -> Result<(), StorageError> {
        self.reach("mark OSDs down").await?;
        let now = self.ceph.clock.now();
        locked(&self.ceph.state).map.mark_down(osds, how, now);
        Ok(())
    }

    async fn remove_lock(&self, volume: &VolumeId, lock: &RbdLock) -> Result<Changed, StorageError> {
        self.reach(&format!("remove a lock of {volume}")).await?;
        let now = self.ceph.clock.now();
        let mut state = locked(&self.ceph.state);
        let found = state
            .volumes
            .get_mut(volume)
            .ok_or_else(|| StorageError::NoVolume {
                volume: volume.clone(),
            })?;
        if found.lock.as_ref() != Some(lock) {
            return Ok(Changed::AlreadySo);
        }
        found.lock = None;
        state.map.bar([&lock.client], now);
        state.drop_watches(&lock.client);
        Ok(Changed::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn ceph() -> (VirtualClock, FakeCeph, VolumeId) {
        let clock = VirtualClock::default();
        let ceph = FakeCeph::new(clock.clone());
        let volume: VolumeId = "vms/web_disk0".parse().unwrap();
        ceph.add_volume(&volume);
        (clock, ceph, volume)
    }

    fn host(number: u8) -> IpAddr {
        IpAddr::from([10, 102, 0, number])
    }

    fn volume_use(clock: &VirtualClock, ceph: &FakeCeph, volume: &VolumeId) -> VolumeUse {
        clock
            .run(MINUTE, ceph.connection().volume_use(volume))
            .unwrap()
            .unwrap()
    }

    #[test]
    fn a_client_that_never_wrote_is_only_a_watcher_and_lingers_when_killed() {
        let (clock, ceph, volume) = ceph();
        let client = ceph.open(&volume, host(1)).unwrap();
        let used = volume_use(&clock, &ceph, &volume);
        assert_eq!((used.watchers, used.locks), (vec![client.clone()], vec![]));
        ceph.abandon(&client);
        clock.advance(Duration::from_secs(29));
        assert_eq!(volume_use(&clock, &ceph, &volume).watchers, [client]);
        clock.advance(Duration::from_secs(1));
        assert_eq!(volume_use(&clock, &ceph, &volume), VolumeUse::default());
    }

    #[test]
    fn two_living_clients_hand_the_lock_over_so_it_guards_nothing() {
        let (clock, ceph, volume) = ceph();
        let [one, two] = [1, 2].map(|number| ceph.open(&volume, host(number)).unwrap());
        for client in [&one, &two, &one] {
            assert_eq!(ceph.write(&volume, client), WriteOutcome::Written);
            let locks = volume_use(&clock, &ceph, &volume).locks;
            assert_eq!(&locks[0].client, client);
        }
    }

    #[test]
    fn a_dead_owners_lock_stalls_the_next_writer_until_its_watch_ends() {
        let (clock, ceph, volume) = ceph();
        let [old, new] = [1, 2].map(|number| ceph.open(&volume, host(number)).unwrap());
        ceph.write(&volume, &old);
        ceph.abandon(&old);
        assert_eq!(ceph.write(&volume, &new), WriteOutcome::Hangs);
        clock.advance(Duration::from_secs(30));
        assert_eq!(ceph.write(&volume, &new), WriteOutcome::Written);
        assert_eq!(ceph.write(&volume, &old), WriteOutcome::Blocklisted);
    }

    #[test]
    fn removing_a_lock_bars_its_owner() {
        let (clock, ceph, volume) = ceph();
        let client = ceph.open(&volume, host(1)).unwrap();
        ceph.write(&volume, &client);
        let storage = ceph.connection();
        let lock = volume_use(&clock, &ceph, &volume).locks.remove(0);
        let remove = || clock.run(MINUTE, storage.remove_lock(&volume, &lock)).unwrap();
        assert_eq!(remove().unwrap(), Changed::Done);
        assert_eq!(remove().unwrap(), Changed::AlreadySo);
        assert_eq!(ceph.write(&volume, &client), WriteOutcome::Blocklisted);
    }

    #[test]
    fn a_cut_link_fails_and_a_missing_volume_is_told_apart() {
        let (clock, ceph, volume) = ceph();
        let storage = ceph.connection();
        storage.cut();
        let outcome = clock.run(MINUTE, storage.volume_use(&volume)).unwrap();
        assert!(matches!(outcome, Err(StorageError::Failed { .. })));
        storage.heal();
        let missing: VolumeId = "vms/other".parse().unwrap();
        let outcome = clock.run(MINUTE, storage.volume_use(&missing)).unwrap();
        assert!(matches!(outcome, Err(StorageError::NoVolume { .. })));
    }

    fn bar(clock: &VirtualClock, ceph: &FakeCeph, client: &CephClient) -> MapEpoch {
        let storage = ceph.connection();
        let outcome = clock.run(MINUTE, storage.blocklist(std::slice::from_ref(client)));
        outcome.unwrap().unwrap()
    }

    // Observed on Ceph: a client that was frozen while it was barred writes again if the entry has ended when it thaws.
    #[test]
    fn a_client_that_noticed_never_writes_again_and_one_that_did_not_does_when_the_entry_ends() {
        let (clock, ceph, volume) = ceph();
        let [awake, frozen] = [1, 2].map(|number| ceph.open(&volume, host(number)).unwrap());
        for client in [&awake, &frozen] {
            ceph.blocklist_for(client, MINUTE);
        }
        assert_eq!(ceph.write(&volume, &awake), WriteOutcome::Blocklisted);
        clock.advance(MINUTE);
        assert!(ceph.blocklisted().is_empty());
        assert_eq!(ceph.write(&volume, &awake), WriteOutcome::Blocklisted);
        assert_eq!(ceph.write(&volume, &frozen), WriteOutcome::Written);
        // Whoever was barred by somebody else for a while can't be barred for longer until then.
        let other = ceph.open(&volume, host(2)).unwrap();
        ceph.blocklist_for(&other, MINUTE);
        let storage = ceph.connection();
        let outcome = clock.run(MINUTE, storage.blocklist(std::slice::from_ref(&other)));
        assert!(outcome.unwrap().is_err());
        // An entry of a fence outlives any pause.
        bar(&clock, &ceph, &frozen);
        clock.advance(MINUTE * 60 * 24 * 365);
        assert_eq!(ceph.write(&volume, &frozen), WriteOutcome::Blocklisted);
    }

    #[test]
    fn an_osd_that_lags_takes_a_barred_clients_write_until_it_knows_the_map() {
        let (clock, ceph, volume) = ceph();
        let client = ceph.open(&volume, host(1)).unwrap();
        for id in 0..3 {
            ceph.add_osd(id, host(1));
        }
        ceph.set_osd_lag(1, Duration::from_secs(3));
        let epoch = bar(&clock, &ceph, &client);
        assert_eq!(epoch, ceph.epoch());
        assert_eq!(ceph.write(&volume, &client), WriteOutcome::Written);
        let began = clock.now();
        let storage = ceph.connection();
        clock
            .run(MINUTE, storage.every_osd_knows(epoch))
            .unwrap()
            .unwrap();
        assert_eq!(clock.now().since(began), Duration::from_secs(3));
        assert_eq!(ceph.write(&volume, &client), WriteOutcome::Blocklisted);
    }

    #[test]
    fn a_silent_osd_stalls_all_until_it_is_marked_down() {
        let (clock, ceph, volume) = ceph();
        let client = ceph.open(&volume, host(2)).unwrap();
        for id in 0..3 {
            ceph.add_osd(id, host(1));
        }
        let storage = ceph.connection();
        let knows = |epoch| clock.run(MINUTE, storage.every_osd_knows(epoch)).unwrap();
        ceph.silence_osd_unnoticed(0);
        assert_eq!(ceph.write(&volume, &client), WriteOutcome::Hangs);
        assert!(knows(ceph.epoch()).is_err());
        assert!(clock.run(MINUTE, storage.volume_use(&volume)).unwrap().is_err());
        clock
            .run(MINUTE, storage.osd_down(&[0, 1], OsdDown::Plain))
            .unwrap()
            .unwrap();
        let up: Vec<bool> = clock
            .run(MINUTE, storage.osds())
            .unwrap()
            .unwrap()
            .iter()
            .map(|osd| osd.up)
            .collect();
        assert_eq!(up, [false, true, true], "one that lives is up again");
        assert_eq!(ceph.write(&volume, &client), WriteOutcome::Written);
        knows(ceph.epoch()).unwrap();
        // One that dies is missed by the others.
        ceph.silence_osd(1);
        assert_eq!(ceph.write(&volume, &client), WriteOutcome::Hangs);
        clock.advance(Duration::from_secs(6));
        assert_eq!(ceph.write(&volume, &client), WriteOutcome::Written);
        ceph.wake_osd(1);
        assert_eq!(ceph.write(&volume, &client), WriteOutcome::Written);
    }
}
