//! Network devices: bonds have all their members, and members run at one speed.
//!
//! A VLAN stands for the device below it.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::json;

use super::{Finding, HealthFiles};

/// What a bond takes that lacks members, and one whose members differ in speed.
const DELTA: u32 = 10;

pub(super) fn check(files: &HealthFiles, devices: &[String]) -> Finding {
    let devices: BTreeSet<String> = devices
        .iter()
        .map(|device| below_vlan(&files.proc, device))
        .collect();
    let (mut delta, mut flaws, mut seen) = (0, Vec::new(), serde_json::Map::new());
    for device in &devices {
        let Some(found) = look(&files.sys, device) else {
            flaws.push(format!("there is no device {device}"));
            delta += DELTA;
            continue;
        };
        for flaw in found.flaws(device) {
            flaws.push(flaw);
            delta += DELTA;
        }
        seen.insert(
            device.clone(),
            json!({
                "speed_mbps": found.speed_mbps,
                "members": found.members.iter().map(|member| json!({
                    "name": member.name, "up": member.up, "speed_mbps": member.speed_mbps,
                })).collect::<Vec<_>>(),
            }),
        );
    }
    let message = if flaws.is_empty() {
        format!("{} devices are well", devices.len())
    } else {
        flaws.join("; ")
    };
    Finding::new(delta, message, serde_json::Value::Object(seen))
}

#[derive(Debug, PartialEq, Eq)]
struct Device {
    up: bool,
    speed_mbps: Option<u32>,
    /// Empty if it is no bond.
    members: Vec<Member>,
}

#[derive(Debug, PartialEq, Eq)]
struct Member {
    name: String,
    up: bool,
    speed_mbps: Option<u32>,
}

impl Device {
    fn flaws(&self, name: &str) -> Vec<String> {
        let mut flaws = Vec::new();
        if !self.up {
            flaws.push(format!("{name} is down"));
        }
        let down: Vec<&str> = self
            .members
            .iter()
            .filter(|member| !member.up)
            .map(|member| member.name.as_str())
            .collect();
        if !down.is_empty() {
            flaws.push(format!("{name} lacks its members {}", down.join(", ")));
        }
        let fastest = self.members.iter().filter_map(|member| member.speed_mbps).max();
        let slow: Vec<String> = self
            .members
            .iter()
            .filter(|member| member.up && member.speed_mbps < fastest)
            .map(|member| format!("{} ({} Mbit/s)", member.name, member.speed_mbps.unwrap_or(0)))
            .collect();
        if !slow.is_empty() {
            flaws.push(format!(
                "members of {name} are slower than others: {}",
                slow.join(", ")
            ));
        }
        flaws
    }
}

/// The device that carries a VLAN; any other device is itself.
fn below_vlan(proc: &Path, device: &str) -> String {
    let text = std::fs::read_to_string(proc.join("net/vlan").join(device)).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("Device: "))
        .map_or_else(|| device.to_owned(), |parent| parent.trim().to_owned())
}

fn look(sys: &Path, device: &str) -> Option<Device> {
    let path = sys.join("class/net").join(device);
    if !path.exists() {
        return None;
    }
    let members = std::fs::read_to_string(path.join("bonding/slaves")).unwrap_or_default();
    Some(Device {
        up: is_up(&path),
        speed_mbps: speed_mbps(&path),
        members: members
            .split_ascii_whitespace()
            .map(|name| {
                let path = sys.join("class/net").join(name);
                Member {
                    up: is_up(&path),
                    speed_mbps: speed_mbps(&path),
                    name: name.to_owned(),
                }
            })
            .collect(),
    })
}

/// Virtual devices have no state of their own (`unknown`) and are as good as up.
fn is_up(path: &Path) -> bool {
    matches!(
        std::fs::read_to_string(path.join("operstate"))
            .as_deref()
            .map(str::trim),
        Ok("up" | "unknown")
    )
}

fn speed_mbps(path: &Path) -> Option<u32> {
    std::fs::read_to_string(path.join("speed"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(sys: &Path, name: &str, state: &str, speed: &str, members: Option<&str>) {
        let path = sys.join("class/net").join(name);
        std::fs::create_dir_all(path.join("bonding")).unwrap();
        std::fs::write(path.join("operstate"), format!("{state}\n")).unwrap();
        std::fs::write(path.join("speed"), format!("{speed}\n")).unwrap();
        if let Some(members) = members {
            std::fs::write(path.join("bonding/slaves"), format!("{members}\n")).unwrap();
        }
    }

    #[test]
    fn bonds_are_looked_into_and_vlans_through() {
        let dir = tempfile::tempdir().unwrap();
        let files = HealthFiles {
            proc: dir.path().join("proc"),
            sys: dir.path().join("sys"),
            ..HealthFiles::default()
        };
        std::fs::create_dir_all(files.proc.join("net/vlan")).unwrap();
        std::fs::write(
            files.proc.join("net/vlan/vlan7"),
            "vlan7  VID: 7\t REORDER_HDR: 1\nDevice: bond0\nINGRESS priority\n",
        )
        .unwrap();
        device(&files.sys, "bond0", "up", "20000", Some("eth0 eth1"));
        device(&files.sys, "eth0", "up", "10000", None);
        device(&files.sys, "eth1", "up", "10000", None);
        device(&files.sys, "veth", "unknown", "-1", None);
        let check = |devices: &[&str]| {
            let devices: Vec<String> = devices.iter().map(|device| (*device).to_owned()).collect();
            check(&files, &devices)
        };
        // One device under two names counts once.
        let well = check(&["vlan7", "bond0", "veth"]);
        assert_eq!((well.delta, well.message.as_str()), (0, "2 devices are well"));
        device(&files.sys, "eth1", "up", "1000", None);
        let slow = check(&["bond0"]);
        assert_eq!(slow.delta, 10);
        assert!(slow.message.contains("eth1 (1000 Mbit/s)"), "{}", slow.message);
        device(&files.sys, "eth1", "down", "-1", None);
        let down = check(&["bond0", "gone"]);
        assert_eq!(down.delta, 20);
        assert!(
            down.message.contains("lacks its members eth1"),
            "{}",
            down.message
        );
    }
}
