//! Disks.

use roxmltree::Node;

use super::error::InvalidGuestXml;
use super::model::{Disk, DiskAccess, DiskDevice, DiskSource, RbdSource};
use super::read::{attribute, child, each, elements, invalid, missing};
use crate::ids::{ImageName, PoolName, VolumeId};

pub(super) fn parse_disks(devices: Option<Node<'_, '_>>) -> Result<Vec<Disk>, InvalidGuestXml> {
    let mut disks: Vec<Disk> = Vec::new();
    for (index, node) in each(devices, "disk").enumerate() {
        let disk = parse_disk(index, node)?;
        if disks.iter().any(|other| other.target == disk.target) {
            return Err(invalid(
                node,
                format!("<disk {}><target dev>", index + 1),
                disk.target,
                "another disk of this guest has the same",
            ));
        }
        if let DiskSource::Rbd(rbd) = &disk.source {
            let twice = disks
                .iter()
                .any(|other| matches!(&other.source, DiskSource::Rbd(other) if other.volume == rbd.volume));
            if twice {
                return Err(invalid(
                    node,
                    format!("<disk dev='{}'><source name>", disk.target),
                    rbd.volume.to_string(),
                    "another disk of this guest is the same volume",
                ));
            }
        }
        disks.push(disk);
    }
    Ok(disks)
}

pub(super) fn parse_disk(index: usize, node: Node<'_, '_>) -> Result<Disk, InvalidGuestXml> {
    let target = child(node, "target");
    let dev = target
        .map(|target| attribute(target, "dev"))
        .filter(|dev| !dev.is_empty())
        .ok_or_else(|| missing(node, format!("<disk {}><target dev>", index + 1)))?;
    let place = |part: &str| format!("<disk dev='{dev}'>{part}");
    let device = match node.attribute("device").unwrap_or("disk") {
        "disk" => DiskDevice::Disk,
        "cdrom" => DiskDevice::Cdrom,
        "floppy" => DiskDevice::Floppy,
        "lun" => DiskDevice::Lun,
        other => {
            return Err(invalid(
                node,
                format!("<disk {} device>", index + 1),
                other,
                "it must be disk, cdrom, floppy or lun",
            ));
        }
    };
    let source = child(node, "source");
    let source = match node.attribute("type").unwrap_or_default() {
        "network" => {
            let source = source.ok_or_else(|| missing(node, place("<source>")))?;
            let protocol = attribute(source, "protocol");
            if protocol != "rbd" {
                return Err(invalid(
                    source,
                    place("<source protocol>"),
                    protocol,
                    "network disks must be rbd",
                ));
            }
            DiskSource::Rbd(parse_rbd(&place, node, source)?)
        }
        kind @ ("file" | "block") => {
            let name = if kind == "file" { "file" } else { "dev" };
            match source
                .map(|source| attribute(source, name))
                .filter(|path| !path.is_empty())
            {
                Some(path) => DiskSource::File { path },
                None if matches!(device, DiskDevice::Cdrom | DiskDevice::Floppy) => DiskSource::Empty,
                None => {
                    return Err(missing(
                        source.unwrap_or(node),
                        place(&format!("<source {name}>")),
                    ));
                }
            }
        }
        other => {
            return Err(invalid(
                node,
                format!("<disk dev='{dev}' type>"),
                other,
                "it must be network (rbd), file or block",
            ));
        }
    };
    let has = |name: &str| child(node, name).is_some();
    let access = if has("readonly") || device == DiskDevice::Cdrom {
        DiskAccess::ReadOnly
    } else if has("shareable") {
        DiskAccess::Shared
    } else {
        DiskAccess::ReadWrite
    };
    Ok(Disk {
        device,
        source,
        bus: target.map(|target| attribute(target, "bus")).unwrap_or_default(),
        target: dev,
        access,
    })
}

fn parse_rbd(
    place: &dyn Fn(&str) -> String,
    disk: Node<'_, '_>,
    source: Node<'_, '_>,
) -> Result<RbdSource, InvalidGuestXml> {
    let name = attribute(source, "name");
    if name.is_empty() {
        return Err(missing(source, place("<source name>")));
    }
    let (pool, image) = name.split_once('/').ok_or_else(|| {
        invalid(
            source,
            place("<source name>"),
            &name,
            "it must be written pool/volume",
        )
    })?;
    let wrong = |error: crate::ids::InvalidId| {
        invalid(
            source,
            place("<source name>"),
            &name,
            format!("not a valid {}: {}", error.kind, error.reason),
        )
    };
    let volume = VolumeId {
        pool: PoolName::new(pool).map_err(wrong)?,
        image: ImageName::new(image).map_err(wrong)?,
    };
    let monitors = elements(source)
        .filter(|host| host.has_tag_name("host"))
        .map(|host| {
            let port = host
                .attribute("port")
                .map(|port| {
                    port.parse().map_err(|_| {
                        invalid(
                            host,
                            place("<source><host port>"),
                            port,
                            "it must be a port number",
                        )
                    })
                })
                .transpose()?;
            Ok((attribute(host, "name"), port))
        })
        .collect::<Result<_, _>>()?;
    // libvirt puts <auth> beside the source, since 3.9 also into it.
    let auth = child(disk, "auth").or_else(|| child(source, "auth"));
    let secret = auth.and_then(|auth| child(auth, "secret"));
    Ok(RbdSource {
        volume,
        monitors,
        user: auth
            .and_then(|auth| auth.attribute("username"))
            .map(ToOwned::to_owned),
        secret: secret
            .and_then(|secret| secret.attribute("uuid").or_else(|| secret.attribute("usage")))
            .map(ToOwned::to_owned),
    })
}

/// Whether there is storage among the devices that is no disk and can be written to.
pub(super) fn has_other_storage(devices: Node<'_, '_>) -> bool {
    elements(devices).any(|device| match device.tag_name().name() {
        "filesystem" => child(device, "readonly").is_none(),
        "hostdev" => matches!(device.attribute("type"), Some("scsi" | "scsi_host")),
        _ => false,
    })
}
