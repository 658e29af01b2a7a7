//! Defining a guest, and replacing its definition.
//!
//! Names and volumes must be unique over all guests, which no version of one guest's keys can tell. So every write
//! here also writes the container of all guests, at the version that was there before the others were looked at: of
//! two definitions at a time one fails and looks again.

use std::collections::BTreeSet;

use pvc_api::message::ErrorCode;
use pvc_common::keys;
use pvc_common::keys::values::CommaList;
use pvc_common::placement::{Choice, Places, Unplaced, read_candidates};
use pvc_common::schema::{self, NewDomain, NewTag};
use pvc_common::store::{Store, StoreError, Txn, Znode, ZnodeVersion};
use pvc_core::guest_xml::{self, GuestXml, InterfaceKind, secrets};
use pvc_core::ids::{NodeName, TagName, VmId, VmName, VolumeId};
use pvc_core::placement::{Obstacle, Wish};
use pvc_core::states::{MigrationMethod, NodeSelector, VmState};

use super::record::{self, Record};
use super::{RETRIES, functions, needs, volumes};
use crate::adopt;
use crate::error::ApiError;
use crate::snapshot::{Reading, Snapshot, Wanted, children_of};

/// The longest XML that is stored, in bytes: it is written in one transaction with the guest's other keys, and the
/// store takes 1 MiB in all.
const XML_LIMIT: usize = 900 * 1024;

/// What a client asks to be defined.
#[derive(Debug)]
pub(crate) struct Definition {
    pub(crate) xml: String,
    pub(crate) node: Option<NodeName>,
    pub(crate) limit: Vec<NodeName>,
    pub(crate) selector: NodeSelector,
    pub(crate) autostart: bool,
    pub(crate) migration_method: MigrationMethod,
    pub(crate) migration_max_downtime_ms: u32,
    pub(crate) tags: Vec<NewTag>,
    pub(crate) recovery_priority: i32,
    pub(crate) anti_affinity: Vec<TagName>,
}

/// The guest that `xml` describes.
pub(crate) fn parse_xml(xml: &str) -> Result<GuestXml, ApiError> {
    if xml.len() > XML_LIMIT {
        return Err(ApiError::new(
            ErrorCode::TooLarge,
            format!("The XML has {} bytes; at most {XML_LIMIT} are taken", xml.len()),
        ));
    }
    guest_xml::check(xml).map_err(|findings| ApiError::invalid("xml", findings))
}

/// Defines a guest in state `stop`. Answers in words.
pub(crate) async fn define<S: Store>(store: &S, definition: &Definition) -> Result<String, ApiError> {
    let guest = parse_xml(&definition.xml)?;
    let id = guest.uuid;
    // Nothing is known of this guest yet that a mask could stand for.
    secrets::unmask(&definition.xml, None).map_err(|error| ApiError::invalid("xml", error))?;
    for _ in 0..RETRIES {
        let nodes = children_of(store, &keys::nodes()).await?;
        // What each node has to carry is read before the other guests' names: the reservation's versions come first.
        let places = read_candidates(store, &BTreeSet::new()).await?;
        let choice = target(&places, &nodes, definition, &guest)?;
        let others = Others::read(store).await?;
        check_names(&others, &guest)?;
        needs::check(store, &guest, None).await?;
        functions::check(store, &guest, &choice.node).await?;
        let freed = volumes::check(store, &others.names, &guest).await?;
        let target = &choice.node;
        let txn = places.reserve(creation(definition, &guest, target), &choice);
        match store.commit(others.touch(txn.and(freed))).await {
            Ok(_) => {
                tracing::info!(vm = %id, name = %guest.name, node = %target, "VM defined");
                return Ok(format!("VM {} is defined on node {target}", guest.name));
            }
            Err(StoreError::BadVersion { .. } | StoreError::NodeExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::busy("The list of VMs"))
}

/// Whether the guest is restarted so that a change applies now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Apply {
    Now,
    AtNextStart,
}

/// A new definition for a guest.
#[derive(Debug)]
pub(crate) struct Modification {
    /// As the client sends it: perhaps with masks in the place of secrets.
    pub(crate) xml: String,
    pub(crate) apply: Apply,
    /// The version that the client has changed; any if it does not say.
    pub(crate) read: Option<ZnodeVersion>,
}

/// Replaces a guest's XML. Answers in words.
pub(crate) async fn modify<S: Store>(
    store: &S,
    id: VmId,
    modification: &Modification,
) -> Result<String, ApiError> {
    let guest = parse_xml(&modification.xml)?;
    if guest.uuid != id {
        return Err(ApiError::invalid(
            "xml",
            format!(
                "<domain><uuid> is {}, but the VM has {id}; a VM keeps its UUID",
                guest.uuid
            ),
        ));
    }
    let keys = keys::domain(id);
    for _ in 0..RETRIES {
        let record = Record::require(store, id).await?;
        if guest.name != record.name {
            return Err(ApiError::invalid(
                "xml",
                format!(
                    "<domain><name> is {}, but the VM is named {}; renaming a VM is a request of its own",
                    guest.name, record.name
                ),
            ));
        }
        let places = read_candidates(store, &BTreeSet::new()).await?;
        let wish = wish(&guest, &[], NodeSelector::None);
        match on_named_node(&places, &wish, &record.node.value, &guest) {
            Ok(_) => {}
            // Its node has been removed from the cluster: it has to move anyway.
            Err(_) if !places.knows(&record.node.value) => {}
            Err(error) => return Err(error),
        }
        let others = Others::read(store).await?;
        let mut wanted = Wanted::default();
        wanted.key(&keys.name()).key(&keys.xml()).key(&keys.volumes());
        let seen = Snapshot::read(store, wanted).await?;
        let name = record::present(store, id, seen.require(&keys.name())).await?;
        if name.value != record.name {
            // Renamed before the others were looked at: the write would not notice.
            continue;
        }
        adopt::refuse_on_hold(store).await?;
        let before = record::present(store, id, seen.require(&keys.xml())).await?;
        let had = record::present(store, id, seen.require(&keys.volumes())).await?;
        if modification.read.is_some_and(|read| read != before.version) {
            return Err(ApiError::conflict(format!(
                "The XML of VM {} has changed since it was read; look at it again",
                record.name
            )));
        }
        let xml = secrets::unmask(&modification.xml, Some(&before.value))
            .map_err(|error| ApiError::invalid("xml", error))?;
        needs::check(store, &guest, Some(&before.value)).await?;
        functions::check(store, &guest, &record.node.value).await?;
        let freed = volumes::check(store, &others.names, &guest).await?;
        let kept = volumes::kept(&record, &guest, &before.value, &had.value.0)?;
        let mut txn = Txn::new()
            .check(&keys.owner(), record.owner.version)
            .set(&keys.xml(), &xml.into_owned(), before.version)
            .set(&keys.volumes(), &CommaList(kept), had.version);
        // Whoever moves it meanwhile has looked for a node by its size before: he has to look again.
        txn = if has_same_size(&guest, &before.value) {
            txn.check(&keys.node(), record.node.version)
        } else {
            txn.set(&keys.node(), &record.node.value, record.node.version)
        };
        let restarts = modification.apply == Apply::Now && record.state.value == VmState::Start;
        if restarts {
            txn = txn.set(&keys.state(), &VmState::Restart, record.state.version);
        }
        match store.commit(others.touch(txn.and(freed))).await {
            Ok(_) => {
                tracing::info!(vm = %id, name = %guest.name, restarts, "VM modified");
                let name = &guest.name;
                return Ok(if restarts {
                    format!("VM {name} is modified and restarting")
                } else if record.owner.value.is_some() {
                    format!("VM {name} is modified; the change applies when it is started the next time")
                } else {
                    format!("VM {name} is modified")
                });
            }
            Err(StoreError::BadVersion { .. } | StoreError::NoNode { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::busy("The VM"))
}

fn has_same_size(guest: &GuestXml, before: &str) -> bool {
    guest_xml::parse_size(before)
        .is_ok_and(|size| size.memory_mib == guest.memory_mib && size.vcpus == guest.vcpus)
}

fn volume_list(guest: &GuestXml) -> Vec<VolumeId> {
    guest.volumes().map(|(volume, _)| volume.clone()).collect()
}

fn wish(guest: &GuestXml, limit: &[NodeName], selector: NodeSelector) -> Wish {
    Wish {
        vm: guest.uuid,
        memory_mib: guest.memory_mib,
        vcpus: guest.vcpus,
        limit: limit.to_vec(),
        groups: BTreeSet::new(),
        selector,
        exclude: Vec::new(),
    }
}

/// Whether a stopped guest can be put on the node that was named for it. Only what it could never run with stands against
/// that: it is started later, when the node may be ready and have room.
fn passed_over_while_stopped(obstacle: &Obstacle) -> bool {
    match obstacle {
        Obstacle::Unknown | Obstacle::TooLarge { .. } | Obstacle::Vcpus { .. } => false,
        Obstacle::Excluded
        | Obstacle::Limited
        | Obstacle::Silent
        | Obstacle::NotRunning { .. }
        | Obstacle::NotReady { .. }
        | Obstacle::Full { .. }
        | Obstacle::Together { .. } => true,
    }
}

/// That node for the guest, if it is large enough for it.
fn on_named_node(
    places: &Places,
    wish: &Wish,
    node: &NodeName,
    guest: &GuestXml,
) -> Result<Choice, ApiError> {
    places
        .named(wish, node, passed_over_while_stopped)
        .map_err(|refused| match &refused {
            Unplaced::NotOpen { .. } => ApiError::conflict(format!("VM {}: {refused}", guest.name)),
            Unplaced::Refused { obstacles, .. } if obstacles.contains(&Obstacle::Unknown) => {
                ApiError::conflict(format!("VM {}: {refused}; try again in some seconds", guest.name))
            }
            Unplaced::Refused { .. } | Unplaced::NoPlace(_) => {
                ApiError::invalid("xml", format!("VM {}: {refused}", guest.name))
            }
        })
}

/// The node that was asked for, or the best one.
fn target(
    places: &Places,
    nodes: &[NodeName],
    definition: &Definition,
    guest: &GuestXml,
) -> Result<Choice, ApiError> {
    let known = |name: &NodeName| nodes.contains(name);
    for name in &definition.limit {
        if !known(name) {
            return Err(ApiError::invalid("limit", format!("there is no node {name}")));
        }
    }
    let selector = places.survey.selector(definition.selector);
    let wish = Wish {
        groups: definition.anti_affinity.iter().cloned().collect(),
        ..wish(guest, &definition.limit, selector)
    };
    if let Some(name) = &definition.node {
        if !known(name) {
            return Err(ApiError::invalid("node", format!("there is no node {name}")));
        }
        if !definition.limit.is_empty() && !definition.limit.contains(name) {
            return Err(ApiError::invalid(
                "node",
                format!("{name} is not among the nodes that the VM is limited to"),
            ));
        }
        return on_named_node(places, &wish, name, guest);
    }
    places.choose(&wish).map_err(|no_place| {
        ApiError::conflict(format!(
            "No node can take VM {}: {no_place}. See 'node list', or name a node",
            guest.name
        ))
    })
}

/// All guests' names and volumes, with the version of their container.
pub(super) struct Others {
    container: Znode,
    names: Vec<(VmId, Option<String>)>,
}

impl Others {
    pub(super) async fn read<S: Store>(store: &S) -> Result<Others, ApiError> {
        // The container's version first: whatever is defined after this makes the write fail.
        let mut wanted = Wanted::default();
        wanted.container(&keys::domains());
        let seen = Snapshot::read(store, wanted).await?;
        let container = seen.container(&keys::domains()).cloned().ok_or_else(|| {
            ApiError::new(
                ErrorCode::StoreUnavailable,
                "The cluster's store is not set up yet: start pvcnoded on a coordinator",
            )
        })?;
        Ok(Others {
            container,
            names: record::names(store).await?,
        })
    }

    /// Whether no guest but `id` has that name.
    pub(super) fn check_name(&self, id: VmId, name: &VmName) -> Result<(), ApiError> {
        let taken = self
            .names
            .iter()
            .find(|(other, found)| *other != id && found.as_deref() == Some(name.as_str()));
        match taken {
            Some((other, _)) => Err(ApiError::conflict(format!(
                "There is a VM named {name} already (UUID {other})"
            ))),
            None => Ok(()),
        }
    }

    /// `txn`, which holds only if nobody has defined or modified a guest since.
    pub(super) fn touch(&self, txn: Txn) -> Txn {
        let version: ZnodeVersion = self.container.version;
        Txn::new()
            .set_path(keys::domains().path(), self.container.data.clone(), version)
            .and(txn)
    }
}

fn check_names(others: &Others, guest: &GuestXml) -> Result<(), ApiError> {
    for (id, name) in &others.names {
        if *id == guest.uuid {
            return Err(ApiError::conflict(format!(
                "There is a VM with UUID {id} already: {}",
                name.as_deref().unwrap_or("its name can not be read")
            )));
        }
    }
    others.check_name(guest.uuid, &guest.name)
}

/// Every key of a new guest.
fn creation(definition: &Definition, guest: &GuestXml, target: &NodeName) -> Txn {
    let hands_device_over = guest
        .interfaces
        .iter()
        .any(|interface| matches!(interface.kind, InterfaceKind::Hostdev { .. }));
    let method = if hands_device_over {
        // A device of the node can not move with the guest.
        MigrationMethod::Shutdown
    } else {
        definition.migration_method
    };
    let keys = keys::domain(guest.uuid);
    let groups = CommaList(definition.anti_affinity.clone());
    schema::domain_keys(&NewDomain {
        id: guest.uuid,
        name: guest.name.clone(),
        xml: definition.xml.clone(),
        state: VmState::Stop,
        node: target.clone(),
        profile: None,
        volumes: volume_list(guest),
        node_limit: definition.limit.clone(),
        node_selector: definition.selector,
        autostart: definition.autostart,
        migration_method: method,
        migration_max_downtime_ms: definition.migration_max_downtime_ms,
        tags: definition.tags.clone(),
    })
    // Created in the same transaction, so that there is no version to name.
    .overwrite(&keys.recovery_priority(), &definition.recovery_priority)
    .overwrite(&keys.anti_affinity(), &groups)
}
