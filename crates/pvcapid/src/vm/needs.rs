//! What a definition names and the cluster has to have: networks and volumes.
//!
//! Only what the store knows of is checked. A cluster whose pools or networks are looked after by other means has none in
//! the store, and its guests are defined all the same; what is not there then makes their start fail.

use std::collections::BTreeMap;

use pvc_common::keys;
use pvc_common::store::Store;
use pvc_core::guest_xml::{self, GuestXml, InterfaceKind};
use pvc_core::ids::{ImageName, PoolName, VolumeId};

use crate::error::ApiError;
use crate::snapshot::children_of;

/// Checks what `guest` names beyond what its definition `before` named already: what a guest has it may keep.
pub(crate) async fn check<S: Store>(
    store: &S,
    guest: &GuestXml,
    before: Option<&str>,
) -> Result<(), ApiError> {
    let before = before.and_then(|xml| guest_xml::parse(xml).ok());
    let networks: Vec<u32> = new_networks(guest, before.as_ref());
    if !networks.is_empty() {
        let known = children_of(store, &keys::networks()).await?;
        check_networks(&networks, &known)?;
    }
    let volumes = new_volumes(guest, before.as_ref());
    if volumes.is_empty() {
        return Ok(());
    }
    let pools: Vec<PoolName> = children_of(store, &keys::pools()).await?;
    let mut images: BTreeMap<PoolName, Vec<ImageName>> = BTreeMap::new();
    for pool in volumes.iter().map(|volume| &volume.pool) {
        if pools.contains(pool) && !images.contains_key(pool) {
            let found = children_of(store, &keys::pool_volumes(pool)).await?;
            images.insert(pool.clone(), found);
        }
    }
    check_volumes(&volumes, &pools, &images)
}

/// The number in the name of a virtual network's bridge.
fn vni(kind: &InterfaceKind) -> Option<u32> {
    match kind {
        InterfaceKind::Bridge { bridge } => bridge.strip_prefix("vmbr")?.parse().ok(),
        InterfaceKind::Direct { .. } | InterfaceKind::Hostdev { .. } => None,
    }
}

fn networks_of(guest: &GuestXml) -> Vec<u32> {
    guest
        .interfaces
        .iter()
        .filter_map(|interface| vni(&interface.kind))
        .collect()
}

fn new_networks(guest: &GuestXml, before: Option<&GuestXml>) -> Vec<u32> {
    let had = before.map(networks_of).unwrap_or_default();
    networks_of(guest)
        .into_iter()
        .filter(|network| !had.contains(network))
        .collect()
}

fn check_networks(wanted: &[u32], known: &[u32]) -> Result<(), ApiError> {
    match wanted.iter().find(|network| !known.contains(network)) {
        Some(network) if !known.is_empty() => Err(ApiError::invalid(
            "xml",
            format!("<interface><source bridge> is \"vmbr{network}\": there is no network {network}"),
        )),
        Some(_) | None => Ok(()),
    }
}

fn new_volumes(guest: &GuestXml, before: Option<&GuestXml>) -> Vec<VolumeId> {
    let had =
        |volume: &VolumeId| before.is_some_and(|before| before.volumes().any(|(found, _)| found == volume));
    guest
        .volumes()
        .map(|(volume, _)| volume)
        .filter(|volume| !had(volume))
        .cloned()
        .collect()
}

fn check_volumes(
    wanted: &[VolumeId],
    pools: &[PoolName],
    images: &BTreeMap<PoolName, Vec<ImageName>>,
) -> Result<(), ApiError> {
    if pools.is_empty() {
        return Ok(());
    }
    for volume in wanted {
        let reason = match images.get(&volume.pool) {
            None => format!("there is no pool {}", volume.pool),
            Some(images) if !images.contains(&volume.image) => "there is no such volume".to_owned(),
            Some(_) => continue,
        };
        return Err(ApiError::invalid(
            "xml",
            format!("<disk><source name> is \"{volume}\": {reason}"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(text: &str) -> VolumeId {
        text.parse().unwrap()
    }

    #[test]
    fn only_what_the_store_knows_of_is_asked_for() {
        // A cluster whose pools were made with `ceph` has none in the store: its guests must be definable.
        assert!(check_networks(&[100], &[]).is_ok());
        assert!(check_networks(&[100], &[100, 200]).is_ok());
        assert!(check_networks(&[100, 300], &[100, 200]).is_err());
        let pool: PoolName = PoolName::new("vms").unwrap();
        let images = BTreeMap::from([(pool.clone(), vec![volume("vms/a").image])]);
        assert!(check_volumes(&[volume("vms/b")], &[], &BTreeMap::new()).is_ok());
        assert!(check_volumes(&[volume("vms/a")], std::slice::from_ref(&pool), &images).is_ok());
        for missing in ["vms/b", "other/a"] {
            let error = check_volumes(&[volume(missing)], std::slice::from_ref(&pool), &images).unwrap_err();
            assert!(error.to_string().contains(missing), "{error}");
        }
    }
}
