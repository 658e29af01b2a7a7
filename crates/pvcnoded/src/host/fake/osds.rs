//! The OSD map of [`FakeCeph`](super::FakeCeph): its epochs, the blocklist in it, and OSDs that learn it late.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use pvc_core::ids::CephClient;
use pvc_core::time::BootTime;

use crate::host::{MapEpoch, OsdDown, OsdState, blocklist_lasts};

/// For how long the others miss an OSD until the monitors mark it down (`osd_heartbeat_grace` as we ship it).
const GRACE: Duration = Duration::from_secs(6);

#[derive(Debug, Default)]
pub(super) struct OsdMap {
    /// When each epoch was committed; the last is the present one.
    commits: BTreeMap<MapEpoch, BootTime>,
    osds: BTreeMap<u32, Osd>,
    blocklist: BTreeMap<CephClient, Entry>,
    /// Clients that were told of their entry. Their processes never write again.
    told: BTreeSet<CephClient>,
}

#[derive(Debug)]
struct Osd {
    ip: IpAddr,
    up: bool,
    /// How long after its commit it learns a map.
    lag: Duration,
    /// It knows these, however late it is by now.
    learnt: MapEpoch,
    /// Since when it does nothing at all, if so.
    silent_since: Option<BootTime>,
    /// Whether the others report it when it is silent.
    missed_by_others: bool,
}

#[derive(Debug)]
struct Entry {
    epoch: MapEpoch,
    expires: BootTime,
}

/// What the OSDs do with a client's write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is carried out.
    Taken,
    /// Its client is barred.
    Barred,
    /// Nobody answers for now.
    Hangs,
}

impl OsdMap {
    /// Carries out what has come due: silent OSDs that are marked down, entries that have ended.
    pub(super) fn settle(&mut self, now: BootTime) {
        self.blocklist.retain(|_, entry| now < entry.expires);
        let missed: Vec<u32> = self
            .osds
            .iter()
            .filter(|(_, osd)| {
                let silent = osd.silent_since.is_some_and(|since| now.since(since) >= GRACE);
                osd.up && osd.missed_by_others && silent
            })
            .map(|(id, _)| *id)
            .collect();
        self.mark_down(&missed, OsdDown::Plain, now);
    }

    fn commit(&mut self, now: BootTime) -> MapEpoch {
        let epoch = MapEpoch(self.epoch().0 + 1);
        self.commits.insert(epoch, now);
        epoch
    }

    pub(super) fn epoch(&self) -> MapEpoch {
        self.commits
            .last_key_value()
            .map_or(MapEpoch(0), |(epoch, _)| *epoch)
    }

    /// New entries, all in one map, each as long as [`blocklist_lasts`] says. Gives the epoch, and the clients whose
    /// entries end too soon: as in Ceph an entry that is there stays as it is.
    pub(super) fn bar<'a>(
        &mut self,
        clients: impl IntoIterator<Item = &'a CephClient>,
        now: BootTime,
    ) -> (MapEpoch, Vec<CephClient>) {
        self.settle(now);
        let epoch = self.commit(now);
        let lasts = blocklist_lasts();
        let mut too_soon = Vec::new();
        for client in clients {
            let expires = now + lasts;
            let entry = self
                .blocklist
                .entry(client.clone())
                .or_insert(Entry { epoch, expires });
            if entry.expires < now + lasts / 2 {
                too_soon.push(client.clone());
            }
        }
        (epoch, too_soon)
    }

    pub(super) fn bar_until(&mut self, client: &CephClient, now: BootTime, expires: BootTime) {
        self.settle(now);
        let epoch = self.commit(now);
        self.blocklist
            .entry(client.clone())
            .or_insert(Entry { epoch, expires });
    }

    pub(super) fn barred(&self) -> BTreeSet<CephClient> {
        self.blocklist.keys().cloned().collect()
    }

    fn knows(&self, osd: &Osd, epoch: MapEpoch, now: BootTime) -> bool {
        epoch <= osd.learnt
            || self
                .commits
                .get(&epoch)
                .is_none_or(|committed| now.since(*committed) >= osd.lag)
    }

    /// What becomes of a write of `client`. An OSD that does not know the map yet takes it: a volume is spread over all
    /// of them, so one is enough.
    pub(super) fn verdict(&mut self, client: &CephClient, now: BootTime) -> Verdict {
        self.settle(now);
        if self.told.contains(client) {
            return Verdict::Barred;
        }
        let up = || self.osds.values().filter(|osd| osd.up);
        if !self.osds.is_empty() && (up().next().is_none() || up().any(|osd| osd.silent_since.is_some())) {
            return Verdict::Hangs;
        }
        let barred = self
            .blocklist
            .get(client)
            .is_some_and(|entry| up().all(|osd| self.knows(osd, entry.epoch, now)));
        if barred {
            self.told.insert(client.clone());
            Verdict::Barred
        } else {
            Verdict::Taken
        }
    }

    /// Whether some OSD would take a write of `client`, once it answers.
    pub(super) fn takes_writes_of(&self, client: &CephClient, now: BootTime) -> bool {
        let mut up = self.osds.values().filter(|osd| osd.up);
        let barred = self
            .blocklist
            .get(client)
            .is_some_and(|entry| now < entry.expires && up.all(|osd| self.knows(osd, entry.epoch, now)));
        !self.told.contains(client) && !barred
    }

    /// Whether a listing of an image's users would hang.
    pub(super) fn hangs(&mut self, now: BootTime) -> bool {
        self.settle(now);
        let mut up = self.osds.values().filter(|osd| osd.up);
        up.any(|osd| osd.silent_since.is_some())
    }

    /// The OSDs that are up and have not learnt `epoch`, or don't answer.
    pub(super) fn ignorant(&mut self, epoch: MapEpoch, now: BootTime) -> Vec<u32> {
        self.settle(now);
        self.osds
            .iter()
            .filter(|(_, osd)| osd.up && (osd.silent_since.is_some() || !self.knows(osd, epoch, now)))
            .map(|(id, _)| *id)
            .collect()
    }

    pub(super) fn states(&mut self, now: BootTime) -> Vec<OsdState> {
        self.settle(now);
        self.osds
            .iter()
            .map(|(id, osd)| OsdState {
                id: *id,
                up: osd.up,
                ip: osd.ip,
            })
            .collect()
    }

    pub(super) fn mark_down(&mut self, osds: &[u32], how: OsdDown, now: BootTime) {
        let mut changed = false;
        for id in osds {
            if let Some(osd) = self.osds.get_mut(id) {
                // One that lives says so, and is up again with the next map.
                let stays = match how {
                    OsdDown::DefinitelyDead => true,
                    OsdDown::Plain => osd.silent_since.is_some(),
                };
                changed |= osd.up && stays;
                osd.up &= !stays;
            }
        }
        if changed {
            self.commit(now);
        }
    }

    pub(super) fn add(&mut self, id: u32, ip: IpAddr, now: BootTime) {
        let osd = Osd {
            ip,
            up: true,
            lag: Duration::ZERO,
            learnt: MapEpoch(0),
            silent_since: None,
            missed_by_others: true,
        };
        self.osds.insert(id, osd);
        self.commit(now);
    }

    pub(super) fn set_lag(&mut self, id: u32, lag: Duration, now: BootTime) {
        let learnt = self.osds.get(&id).and_then(|osd| {
            let mut epochs = self.commits.keys().rev();
            epochs.find(|epoch| self.knows(osd, **epoch, now)).copied()
        });
        if let Some(osd) = self.osds.get_mut(&id) {
            osd.learnt = learnt.unwrap_or(osd.learnt).max(osd.learnt);
            osd.lag = lag;
        }
    }

    pub(super) fn silence(&mut self, id: u32, missed_by_others: bool, now: BootTime) {
        self.settle(now);
        if let Some(osd) = self.osds.get_mut(&id) {
            osd.silent_since.get_or_insert(now);
            osd.missed_by_others = missed_by_others;
        }
    }

    pub(super) fn answer(&mut self, id: u32, now: BootTime) {
        self.settle(now);
        let Some(osd) = self.osds.get_mut(&id) else { return };
        osd.silent_since = None;
        if !osd.up {
            osd.up = true;
            let epoch = self.commit(now);
            // It serves nobody until it has read the maps that it missed, however late it is with later ones.
            if let Some(osd) = self.osds.get_mut(&id) {
                osd.learnt = epoch;
            }
        }
    }
}
