//! The storage cluster, as far as the store holds it.

use pvc_api::storage::{CephText, Osd, OsdState, Pool, Snapshot as VolumeSnapshot, Volume};
use pvc_common::keys::values::{Json, OrNone};
use pvc_common::keys::{self, Key};
use pvc_common::mirror::View;
use pvc_core::ids::{ImageName, PoolName};
use pvc_core::records::PrimaryRecord;
use pvc_core::size::bytes_text;
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::filter::NameFilter;

/// A text of Ceph about the whole storage cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Text {
    Status,
    Utilization,
}

/// That text, as the primary stored it last.
pub(crate) fn text(view: &View, which: Text) -> CephText {
    let (kind, key) = match which {
        Text::Status => ("status", keys::storage().status()),
        Text::Utilization => ("utilization", keys::storage().utilization()),
    };
    CephText {
        kind: kind.to_owned(),
        primary_node: view
            .shown(&keys::config().primary_node(), PrimaryRecord::None)
            .to_string(),
        ceph_data: view.shown(&key, String::new()),
    }
}

/// The OSDs whose number fits.
pub(crate) fn osds(view: &View, limit: Option<&NameFilter>) -> Result<Vec<Osd>, ApiError> {
    let mut ids: Vec<u32> = view.children(&keys::osds());
    ids.retain(|id| limit.is_none_or(|limit| limit.matches(&id.to_string())));
    ids.sort_unstable();
    read_osds(view, ids)
}

/// One OSD. `id` is what a client wrote.
pub(crate) fn osd(view: &View, id: &str) -> Result<Osd, ApiError> {
    let unknown = || ApiError::not_found(format!("There is no OSD {id:?}"));
    let number: u32 = id.parse().map_err(|_| unknown())?;
    let found = read_osds(view, vec![number])?.pop();
    found.ok_or_else(unknown)
}

fn read_osds(view: &View, ids: Vec<u32>) -> Result<Vec<Osd>, ApiError> {
    let mut osds = Vec::with_capacity(ids.len());
    for id in ids {
        let keys = keys::osd(id);
        if view.get(&keys.root())?.is_some() {
            osds.push(Osd {
                id: id.to_string(),
                fsid: view.shown(&keys.osd_fsid(), String::new()),
                node: view.shown(&keys.node(), String::new()),
                device: view.shown(&keys.device(), String::new()),
                is_split: view.shown(&keys.is_split(), OrNone(None)).0.unwrap_or(false),
                db_device: view.shown(&keys.db_device(), String::new()),
                stats: stats(view, &keys.stats()),
            });
        }
    }
    Ok(osds)
}

/// Whether an OSD takes part.
pub(crate) fn osd_state(osd: &Osd) -> OsdState {
    let flag = |field: &str| u8::from(osd.stats.get(field).and_then(Value::as_u64) == Some(1));
    OsdState {
        id: osd.id.clone(),
        in_: flag("in"),
        up: flag("up"),
    }
}

/// The pools whose name fits.
pub(crate) fn pools(view: &View, limit: Option<&NameFilter>) -> Result<Vec<Pool>, ApiError> {
    let mut names: Vec<PoolName> = view.children(&keys::pools());
    names.retain(|name| limit.is_none_or(|limit| limit.matches(name.as_str())));
    read_pools(view, names)
}

/// One pool. `name` is what a client wrote.
pub(crate) fn pool(view: &View, name: &str) -> Result<Pool, ApiError> {
    let parsed = PoolName::new(name).map_err(|_| unknown_pool(name))?;
    let found = read_pools(view, vec![parsed])?.pop();
    found.ok_or_else(|| unknown_pool(name))
}

fn unknown_pool(name: &str) -> ApiError {
    ApiError::not_found(format!("There is no pool {name:?}"))
}

fn read_pools(view: &View, names: Vec<PoolName>) -> Result<Vec<Pool>, ApiError> {
    let mut pools = Vec::with_capacity(names.len());
    for name in names {
        let keys = keys::pool(&name);
        let volumes = view.children(&keys::pool_volumes(&name));
        if view.get(&keys.root())?.is_some() {
            pools.push(Pool {
                name: name.to_string(),
                volume_count: u64::try_from(volumes.len()).unwrap_or(u64::MAX),
                tier: view.shown(&keys.tier(), "default".to_owned()),
                pgs: view.shown(&keys.pgs(), String::new()),
                stats: stats(view, &keys.stats()),
            });
        }
    }
    Ok(pools)
}

/// The volumes whose name fits, of one pool or of all.
pub(crate) fn volumes(
    view: &View,
    pool: Option<&str>,
    limit: Option<&NameFilter>,
) -> Result<Vec<Volume>, ApiError> {
    let mut pools: Vec<PoolName> = view.children(&keys::volumes());
    if let Some(pool) = pool {
        must_have(view, pool)?;
        pools.retain(|known| known.as_str() == pool);
    }
    let mut all: Vec<(PoolName, ImageName)> = Vec::new();
    for pool in pools {
        let volumes = view.children(&keys::pool_volumes(&pool));
        all.extend(volumes.into_iter().map(|volume| (pool.clone(), volume)));
    }
    all.retain(|(_, volume)| limit.is_none_or(|limit| limit.matches(volume.as_str())));
    read_volumes(view, all)
}

/// A pool that was asked for by name as part of something else must exist.
fn must_have(view: &View, pool: &str) -> Result<(), ApiError> {
    let pools: Vec<PoolName> = view.children(&keys::pools());
    if pools.iter().any(|known| known.as_str() == pool) {
        Ok(())
    } else {
        Err(ApiError::invalid("pool", format!("there is no pool {pool:?}")))
    }
}

/// One volume. The names are what a client wrote.
pub(crate) fn volume(view: &View, pool: &str, volume: &str) -> Result<Volume, ApiError> {
    let unknown = || ApiError::not_found(format!("There is no volume {pool}/{volume}"));
    let names = (
        PoolName::new(pool).map_err(|_| unknown())?,
        ImageName::new(volume).map_err(|_| unknown())?,
    );
    let found = read_volumes(view, vec![names])?.pop();
    found.ok_or_else(unknown)
}

fn read_volumes(view: &View, names: Vec<(PoolName, ImageName)>) -> Result<Vec<Volume>, ApiError> {
    let mut volumes = Vec::with_capacity(names.len());
    for (pool, volume) in names {
        let keys = keys::volume(&pool, &volume);
        if view.get(&keys.root())?.is_some() {
            volumes.push(Volume {
                name: volume.to_string(),
                pool: pool.to_string(),
                stats: sized(stats(view, &keys.stats())),
            });
        }
    }
    Ok(volumes)
}

/// A volume's size is shown as text; that of everything else stays in bytes.
fn sized(mut stats: Value) -> Value {
    if let Some(size) = stats.get_mut("size")
        && let Some(bytes) = size.as_u64()
    {
        *size = Value::String(bytes_text(bytes));
    }
    stats
}

/// Which snapshots a list shows: those that fit everything that is named.
#[derive(Debug, Default)]
pub(crate) struct SnapshotFilter {
    pub(crate) pool: Option<String>,
    pub(crate) volume: Option<String>,
    pub(crate) name: Option<NameFilter>,
}

/// The snapshots that fit.
pub(crate) fn snapshots(view: &View, filter: &SnapshotFilter) -> Result<Vec<VolumeSnapshot>, ApiError> {
    if let Some(pool) = &filter.pool {
        must_have(view, pool)?;
    }
    let mut all = snapshot_names(view);
    all.retain(|(pool, volume, name)| {
        filter
            .pool
            .as_deref()
            .is_none_or(|wanted| wanted == pool.as_str())
            && filter
                .volume
                .as_deref()
                .is_none_or(|wanted| wanted == volume.as_str())
            && filter.name.as_ref().is_none_or(|limit| limit.matches(name))
    });
    read_snapshots(view, all)
}

/// Every snapshot of every volume.
fn snapshot_names(view: &View) -> Vec<(PoolName, ImageName, String)> {
    let mut all = Vec::new();
    for pool in view.children(&keys::snapshot_pools()) {
        for volume in view.children(&keys::snapshot_volumes(&pool)) {
            let names = view.children(&keys::volume_snapshots(&pool, &volume));
            all.extend(names.into_iter().map(|name| (pool.clone(), volume.clone(), name)));
        }
    }
    all
}

/// One snapshot. The names are what a client wrote.
pub(crate) fn snapshot(
    view: &View,
    pool: &str,
    volume: &str,
    name: &str,
) -> Result<VolumeSnapshot, ApiError> {
    let unknown = || ApiError::not_found(format!("There is no snapshot {pool}/{volume}@{name}"));
    // By the same rules as those of volumes: what can leave its place in the store is the name of none.
    ImageName::new(name).map_err(|_| unknown())?;
    let names = (
        PoolName::new(pool).map_err(|_| unknown())?,
        ImageName::new(volume).map_err(|_| unknown())?,
        name.to_owned(),
    );
    let found = read_snapshots(view, vec![names])?.pop();
    found.ok_or_else(unknown)
}

fn read_snapshots(
    view: &View,
    names: Vec<(PoolName, ImageName, String)>,
) -> Result<Vec<VolumeSnapshot>, ApiError> {
    let mut snapshots = Vec::with_capacity(names.len());
    for (pool, volume, name) in names {
        let keys = keys::volume_snapshot(&pool, &volume, &name);
        if view.get(&keys.root())?.is_some() {
            snapshots.push(VolumeSnapshot {
                pool: pool.to_string(),
                volume: volume.to_string(),
                snapshot: name,
                stats: stats(view, &keys.stats()),
            });
        }
    }
    Ok(snapshots)
}

/// How many volumes and snapshots there are.
pub(crate) fn counts(view: &View) -> (usize, usize) {
    let pools: Vec<PoolName> = view.children(&keys::volumes());
    let volumes = pools
        .iter()
        .map(|pool| view.children(&keys::pool_volumes(pool)).len())
        .sum();
    (volumes, snapshot_names(view).len())
}

/// What Ceph tells of something; an empty object where nothing is stored that can be read.
fn stats(view: &View, key: &Key<Option<Json<Value>>>) -> Value {
    match view.shown(key, None) {
        Some(Json(found @ Value::Object(_))) => found,
        Some(_) | None => Value::Object(Map::new()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sizes_of_volumes_are_texts() {
        assert_eq!(
            sized(json!({"size": 10_737_418_240_u64, "id": "a"})),
            json!({"size": "10G", "id": "a"})
        );
        assert_eq!(sized(json!({"size": "10G"})), json!({"size": "10G"}));
        assert_eq!(sized(json!({})), json!({}));
    }
}
