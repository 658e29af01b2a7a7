//! Devices that are plugged into fake guests and pulled out again.

use pvc_core::guest_xml::{Attachment, Device, DiskAccess, parse_device};
use pvc_core::ids::VmId;
use pvc_core::time::BootTime;

use super::{FakeHypervisor, GuestEvent, HypervisorError, locked, unavailable};

fn refused(message: impl std::fmt::Display) -> HypervisorError {
    HypervisorError::Refused {
        message: message.to_string(),
    }
}

/// Plugs it in: a volume that can be written to is opened, which makes a client of its own.
pub(super) fn attach(
    host: &FakeHypervisor,
    vm: VmId,
    xml: &str,
    now: BootTime,
) -> Result<(), HypervisorError> {
    let device = parse_device(xml).map_err(refused)?;
    {
        let mut state = locked(&host.state);
        state.answer()?;
        let guest = state.known(vm)?;
        match device.in_guest(&guest.xml).map_err(refused)? {
            Attachment::Absent => {}
            Attachment::Present => return Err(refused(format!("{} exists already", device.describe()))),
            Attachment::Taken { by } => return Err(refused(format!("there is {by}"))),
        }
    }
    let opened = match device.volume() {
        Some((volume, DiskAccess::ReadWrite | DiskAccess::Shared)) => {
            let client = host.ceph.open(volume, host.ip);
            let client = client.ok_or_else(|| refused(format!("error reading header from {volume}")))?;
            Some((volume.clone(), client))
        }
        Some((_, DiskAccess::ReadOnly)) | None => None,
    };
    let mut state = locked(&host.state);
    let guest = state.known(vm)?;
    guest.clients.extend(opened);
    guest.xml = guest.xml.replacen("</devices>", &format!("{xml}</devices>"), 1);
    state.journal.push((now, vm, GuestEvent::Attached));
    if state.lost_answers > 0 {
        state.lost_answers -= 1;
        return Err(unavailable());
    }
    Ok(())
}

/// Pulls it out, unless the guest clings to it: then only the request is taken, as libvirt does.
pub(super) fn detach(
    host: &FakeHypervisor,
    vm: VmId,
    xml: &str,
    now: BootTime,
) -> Result<(), HypervisorError> {
    let device = parse_device(xml).map_err(refused)?;
    let closed = {
        let mut state = locked(&host.state);
        state.answer()?;
        let clings = state.clinging.contains(&vm);
        let guest = state.known(vm)?;
        if device.in_guest(&guest.xml).map_err(refused)? != Attachment::Present {
            return Err(refused(format!("there is no {}", device.describe())));
        }
        if clings {
            return Ok(());
        }
        guest.xml = without(&guest.xml, &device).ok_or_else(|| refused("the domain XML can't be changed"))?;
        let closed = device.volume().and_then(|(volume, _)| {
            let at = guest.clients.iter().position(|(opened, _)| opened == volume)?;
            Some(guest.clients.remove(at).1)
        });
        state.journal.push((now, vm, GuestEvent::Detached));
        closed
    };
    if let Some(client) = closed {
        host.ceph.close(&client);
    }
    Ok(())
}

fn without(xml: &str, device: &Device) -> Option<String> {
    use pvc_core::guest_xml::edit;
    let edited = match device {
        Device::Disk(disk) => edit::remove_disk(xml, &disk.target),
        Device::Interface(interface) => {
            let which = edit::InterfaceMatch {
                kind: None,
                mac: Some(interface.mac.clone()),
            };
            edit::remove_interface(xml, &which)
        }
    };
    edited.ok().map(|edited| edited.xml)
}
