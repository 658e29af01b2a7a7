//! Output of `rbd` and `ceph` with `--format json`, read into types.

use pvc_core::ids::CephClient;
use serde::Deserialize;

use crate::host::RbdLock;

#[derive(Deserialize)]
struct Status {
    watchers: Vec<Watcher>,
}

#[derive(Deserialize)]
struct Watcher {
    address: CephClient,
}

#[derive(Deserialize)]
struct Lock {
    id: String,
    locker: String,
    address: CephClient,
}

#[derive(Deserialize)]
struct Entry {
    addr: String,
}

/// `rbd status`: who has the image open.
pub(super) fn watchers(text: &str) -> Result<Vec<CephClient>, serde_json::Error> {
    let status: Status = serde_json::from_str(text)?;
    Ok(status
        .watchers
        .into_iter()
        .map(|watcher| watcher.address)
        .collect())
}

/// `rbd lock list`.
pub(super) fn locks(text: &str) -> Result<Vec<RbdLock>, serde_json::Error> {
    let locks: Vec<Lock> = serde_json::from_str(text)?;
    Ok(locks
        .into_iter()
        .map(|lock| RbdLock {
            id: lock.id,
            locker: lock.locker,
            client: lock.address,
        })
        .collect())
}

/// `rbd ls`: the images of a pool.
pub(super) fn images(text: &str) -> Result<Vec<String>, serde_json::Error> {
    serde_json::from_str(text)
}

/// `ceph osd blocklist ls`: the clients that are barred. The output is two JSON documents, one behind the other: single
/// addresses, then ranges. Whole hosts (`ADDRESS:0/0`) are listed too.
pub(super) fn blocklist(text: &str) -> Result<Vec<CephClient>, serde_json::Error> {
    let mut documents = serde_json::Deserializer::from_str(text).into_iter::<Vec<Entry>>();
    let Some(addresses) = documents.next().transpose()? else {
        return Ok(Vec::new());
    };
    // What is no client (a range in some later release) can't be one that we look for.
    Ok(addresses
        .into_iter()
        .filter_map(|entry| entry.addr.parse().ok())
        .collect())
}
