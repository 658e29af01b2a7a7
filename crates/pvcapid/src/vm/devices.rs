//! Attaching devices to guests that run, and detaching them: the node does it, this writes the order and shows what has
//! become of it.

use pvc_api::message::ErrorCode;
use pvc_api::vm::DeviceOrderStatus;
use pvc_common::keys;
use pvc_common::mirror::View;
use pvc_common::store::{Store, StoreError, StoreExt as _, Txn};
use pvc_core::device_order::{DeviceAction, DeviceOrder, DeviceOrderState};
use pvc_core::guest_xml::{Attachment, Device, parse_device};
use pvc_core::ids::VmId;
use pvc_core::states::{DaemonState, VmState};

use super::record::{self, Record, runs, unknown};
use super::{By, RETRIES, volumes};
use crate::error::ApiError;

/// The name of the task, as PVC 1.0.3 has it.
pub(crate) fn task_name(action: DeviceAction) -> &'static str {
    match action {
        DeviceAction::Attach => "vm.device_attach",
        DeviceAction::Detach => "vm.device_detach",
    }
}

/// The task's identity: the first eight digits, as in PVC 1.0.3.
pub(crate) fn task_id(order: &DeviceOrder) -> String {
    order.id.chars().take(8).collect()
}

/// Orders the node that runs the guest to attach or detach a device.
///
/// # Idempotence
/// The same order, if it is open, is answered with, without a write.
pub(crate) async fn order<S: Store>(
    store: &S,
    id: VmId,
    action: DeviceAction,
    xml: &str,
    by: &By<'_>,
) -> Result<DeviceOrder, ApiError> {
    let device = parse_device(xml).map_err(|error| ApiError::invalid("xml", error))?;
    let key = keys::device_order(id);
    for _ in 0..RETRIES {
        let record = Record::require(store, id).await?;
        let found = store.get(&key).await?;
        if let Some(Some(open)) = found.as_ref().map(|found| &found.value)
            && open.state.is_open()
            && !open.is_orphaned(record.owner.value.as_ref())
        {
            if open.action == action && open.xml == xml {
                return Ok(open.clone());
            }
            return Err(ApiError::new(
                ErrorCode::Busy,
                format!(
                    "VM {}: another device is being attached or detached (task {}); try again when that is over",
                    record.name,
                    task_id(open)
                ),
            ));
        }
        let (order, mut txn) = prepare(store, id, &record, action, &device, xml, by).await?;
        txn = match found {
            Some(found) => txn.set(&key, &Some(order.clone()), found.version),
            None => txn.create(&key, &Some(order.clone())),
        };
        match store.commit(txn).await {
            Ok(_) => {
                tracing::info!(vm = %id, name = %record.name, ?action, device = device.describe(), by = %by.who, "device order given");
                return Ok(order);
            }
            Err(
                StoreError::BadVersion { .. } | StoreError::NodeExists { .. } | StoreError::NoNode { .. },
            ) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::busy("The VM"))
}

/// The order, with checks of all that it depends on.
async fn prepare<S: Store>(
    store: &S,
    id: VmId,
    record: &Record,
    action: DeviceAction,
    device: &Device,
    xml: &str,
    by: &By<'_>,
) -> Result<(DeviceOrder, Txn), ApiError> {
    let keys = keys::domain(id);
    let conflict = |text: String| Err(ApiError::conflict(format!("VM {}: {text}", record.name)));
    let state = record.state.value;
    if state != VmState::Start {
        return conflict(format!(
            "it is in state {state}; devices are attached and detached in state start"
        ));
    }
    let Some(owner) = record.owner.value.as_ref().filter(|owner| runs(owner)) else {
        return conflict("it does not run yet; try again in some seconds".to_owned());
    };
    if let Some(incoming) = &record.incoming.value {
        return conflict(format!("it is on its way to node {}", incoming.target));
    }
    let daemon_state = store
        .require(&keys::node(&owner.node).daemon_state())
        .await?
        .value;
    if daemon_state != DaemonState::Run {
        return conflict(format!(
            "its node {} would have to do it, and its agent is in state {daemon_state}, not run",
            owner.node
        ));
    }
    let mut txn = Txn::new()
        .check(&keys.owner(), record.owner.version)
        .check(&keys.state(), record.state.version);
    if action == DeviceAction::Attach && matches!(device, Device::Disk(_)) {
        let definition = record::present(store, id, store.require(&keys.xml()).await).await?;
        match device.in_guest(&definition.value) {
            Ok(Attachment::Present) => {
                // Other guests are let in beside it by what is defined.
                if let Some((volume, access)) = device.volume()
                    && volumes::access_in(&definition.value, volume) != Some(access)
                {
                    return conflict(format!(
                        "its definition has {} with another <readonly/> or <shareable/>",
                        device.describe()
                    ));
                }
            }
            // Only what is in a definition is kept from other guests.
            Ok(Attachment::Absent) | Err(_) => {
                return conflict(format!(
                    "{} is not in its definition; add it there first, which also makes it stay after a restart",
                    device.describe()
                ));
            }
            Ok(Attachment::Taken { by }) => {
                return conflict(format!("its definition has {by} in that place"));
            }
        }
        txn = txn.check(&keys.xml(), definition.version);
    }
    let order = DeviceOrder {
        id: uuid::Uuid::new_v4().to_string(),
        by: by.who.to_string(),
        at: by.at,
        node: owner.node.clone(),
        action,
        xml: xml.to_owned(),
        state: DeviceOrderState::Ordered,
    };
    Ok((order, txn))
}

/// What has become of the last order.
pub(crate) fn show(view: &View, id: VmId) -> Result<DeviceOrderStatus, ApiError> {
    let keys = keys::domain(id);
    let name = view
        .get(&keys.name())?
        .ok_or_else(|| unknown(&id.to_string()))?
        .value;
    let order = view
        .get(&keys::device_order(id))?
        .and_then(|found| found.value)
        .ok_or_else(|| {
            ApiError::not_found(format!(
                "Nobody has attached a device to VM {name} or detached one"
            ))
        })?;
    let orphaned = order.is_orphaned(view.shown(&keys.owner(), None).as_ref());
    let (state, reason) = match &order.state {
        _ if orphaned => (
            "failed",
            format!("the guest does not run on node {} any more", order.node),
        ),
        DeviceOrderState::Ordered => ("ordered", String::new()),
        DeviceOrderState::Working { .. } | DeviceOrderState::Recorded { .. } => ("working", String::new()),
        DeviceOrderState::Done => ("done", String::new()),
        DeviceOrderState::Failed { reason } => ("failed", reason.clone()),
    };
    Ok(DeviceOrderStatus {
        id: task_id(&order),
        task_name: task_name(order.action).to_owned(),
        device: parse_device(&order.xml).map_or_else(|_| String::new(), |device| device.describe()),
        node: order.node.to_string(),
        ordered_by: order.by,
        ordered_at: order.at,
        state: state.to_owned(),
        reason,
    })
}
