//! Figures of guests, as PVC 1.0.3 keeps them in `/domains/U/stats`.
//!
//! libvirt numbers disks and interfaces and names them by their device; the names by which PVC knows them (volume,
//! bridge) come from the live XML.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// libvirt's figures of one domain, by their names, for example `block.0.rd.bytes`.
pub(super) type Parameters = BTreeMap<String, Value>;

/// What the live XML says of a domain's devices, by device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// `sda` → `pool/volume`, or a path.
    disks: BTreeMap<String, String>,
    /// `vnet0` → bridge and hardware address.
    interfaces: BTreeMap<String, (String, String)>,
}

impl Layout {
    /// Reads the live XML; what it does not say is left out.
    pub(super) fn of(xml: &str) -> Layout {
        let mut layout = Layout::default();
        let Ok(document) = roxmltree::Document::parse(xml) else {
            return layout;
        };
        for device in document.descendants() {
            let child = |name| device.children().find(|child| child.has_tag_name(name));
            let Some(target) = child("target").and_then(|target| target.attribute("dev")) else {
                continue;
            };
            let source = |names: &[&str]| {
                let source = child("source")?;
                names
                    .iter()
                    .find_map(|name| source.attribute(*name))
                    .map(str::to_owned)
            };
            if device.has_tag_name("disk") {
                if let Some(name) = source(&["name", "file", "dev"]) {
                    layout.disks.insert(target.to_owned(), name);
                }
            } else if device.has_tag_name("interface") {
                let bridge = source(&["bridge", "dev", "network"]).unwrap_or_default();
                let mac = child("mac").and_then(|mac| mac.attribute("address"));
                let mac = mac.unwrap_or_default().to_owned();
                layout.interfaces.insert(target.to_owned(), (bridge, mac));
            }
        }
        layout
    }

    /// Whether every device of the figures is known: a device that was plugged in since is not.
    pub(super) fn covers(&self, parameters: &Parameters) -> bool {
        let known = |kind, has: &dyn Fn(&str) -> bool| {
            (0..count(parameters, kind)).all(|index| has(name(parameters, kind, index)))
        };
        known("block", &|name| self.disks.contains_key(name))
            && known("net", &|name| self.interfaces.contains_key(name))
    }
}

fn count(parameters: &Parameters, kind: &str) -> u64 {
    // No guest has more devices than this; the number comes from outside.
    number(parameters, &format!("{kind}.count"))
        .as_u64()
        .unwrap_or(0)
        .min(1024)
}

fn name<'a>(parameters: &'a Parameters, kind: &str, index: u64) -> &'a str {
    let name = parameters.get(&format!("{kind}.{index}.name"));
    name.and_then(Value::as_str).unwrap_or_default()
}

/// A figure, 0 if libvirt gives none.
fn number(parameters: &Parameters, name: &str) -> Value {
    parameters.get(name).cloned().unwrap_or_else(|| json!(0))
}

/// The processor time of a guest: with its emulator, or that of its vCPUs where libvirt has no control group to ask.
fn cpu_time(parameters: &Parameters) -> Value {
    let time = number(parameters, "cpu.time");
    if time.as_u64().unwrap_or(0) > 0 {
        return time;
    }
    let is_time = |name: &str| {
        let number = name
            .strip_prefix("vcpu.")
            .and_then(|name| name.strip_suffix(".time"));
        number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let times = parameters.iter().filter(|(name, _)| is_time(name));
    let times = times.filter_map(|(_, time)| time.as_u64());
    json!(times.fold(0_u64, u64::saturating_add))
}

/// The figures under the names and in the units of PVC 1.0.3: memory in KiB, times in ns.
pub(super) fn figures(state: &str, parameters: &Parameters, layout: &Layout) -> Value {
    let at = |name: &str| number(parameters, name);
    let mut memory = Map::new();
    for (name, value) in parameters {
        let Some(name) = name.strip_prefix("balloon.") else {
            continue;
        };
        let name = match name {
            "current" => "actual".to_owned(),
            "maximum" => continue,
            other => other.replace('-', "_"),
        };
        memory.insert(name, value.clone());
    }
    let disks: Vec<Value> = (0..count(parameters, "block"))
        .map(|index| {
            let of = |figure: &str| at(&format!("block.{index}.{figure}"));
            let device = name(parameters, "block", index);
            json!({
                "name": layout.disks.get(device).map_or("", String::as_str),
                "dev": device,
                "rd_req": of("rd.reqs"),
                "rd_bytes": of("rd.bytes"),
                "wr_req": of("wr.reqs"),
                "wr_bytes": of("wr.bytes"),
                "err": of("errors"),
            })
        })
        .collect();
    let interfaces: Vec<Value> = (0..count(parameters, "net"))
        .map(|index| {
            let of = |figure: &str| at(&format!("net.{index}.{figure}"));
            let device = name(parameters, "net", index);
            let (bridge, mac) = layout.interfaces.get(device).cloned().unwrap_or_default();
            json!({
                "bridge": bridge,
                "dev": device,
                "mac": mac,
                "rd_bytes": of("rx.bytes"),
                "rd_packets": of("rx.pkts"),
                "rd_errors": of("rx.errs"),
                "rd_drops": of("rx.drop"),
                "wr_bytes": of("tx.bytes"),
                "wr_packets": of("tx.pkts"),
                "wr_errors": of("tx.errs"),
                "wr_drops": of("tx.drop"),
            })
        })
        .collect();
    json!({
        "state": state,
        "maxmem": at("balloon.maximum"),
        "livemem": at("balloon.current"),
        "cpus": at("vcpu.current"),
        "cputime": cpu_time(parameters),
        "mem_stats": memory,
        "cpu_stats": {
            "cpu_time": cpu_time(parameters),
            "user_time": at("cpu.user"),
            "system_time": at("cpu.system"),
        },
        "disk_stats": disks,
        "net_stats": interfaces,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = "<domain><devices>
        <disk type='network'><source protocol='rbd' name='vms/web_sda'/><target dev='sda' bus='scsi'/></disk>
        <disk type='file' device='cdrom'><target dev='sdb'/></disk>
        <interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='vmbr100'/><target dev='vnet0'/></interface>
        </devices></domain>";

    fn parameters() -> Parameters {
        let recorded = json!({
            "state.state": 1, "state.reason": 1, "cpu.time": 1_500_000_000_u64, "cpu.user": 5, "cpu.system": 6,
            "balloon.current": 262_144, "balloon.maximum": 524_288, "balloon.rss": 99, "balloon.last-update": 7,
            "balloon.hugetlb_pgalloc": 1, "vcpu.current": 2, "vcpu.maximum": 4,
            "net.count": 1, "net.0.name": "vnet0", "net.0.rx.bytes": 10, "net.0.rx.pkts": 11, "net.0.tx.drop": 3,
            "block.count": 1, "block.0.name": "sda", "block.0.rd.reqs": 20, "block.0.wr.bytes": 512,
        });
        recorded.as_object().unwrap().clone().into_iter().collect()
    }

    #[test]
    fn figures_have_the_names_that_clients_read() {
        let found = figures("running", &parameters(), &Layout::of(XML));
        let expected = json!({
            "state": "running", "maxmem": 524_288, "livemem": 262_144, "cpus": 2, "cputime": 1_500_000_000_u64,
            "mem_stats": {"actual": 262_144, "rss": 99, "last_update": 7, "hugetlb_pgalloc": 1},
            "cpu_stats": {"cpu_time": 1_500_000_000_u64, "user_time": 5, "system_time": 6},
            "disk_stats": [{"name": "vms/web_sda", "dev": "sda", "rd_req": 20, "rd_bytes": 0, "wr_req": 0,
                "wr_bytes": 512, "err": 0}],
            "net_stats": [{"bridge": "vmbr100", "dev": "vnet0", "mac": "52:54:00:00:00:01", "rd_bytes": 10,
                "rd_packets": 11, "rd_errors": 0, "rd_drops": 0, "wr_bytes": 0, "wr_packets": 0, "wr_errors": 0,
                "wr_drops": 3}],
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn a_device_that_was_plugged_in_is_noticed() {
        let layout = Layout::of(XML);
        let mut parameters = parameters();
        assert!(layout.covers(&parameters));
        parameters.insert("net.0.name".to_owned(), json!("vnet7"));
        assert!(!layout.covers(&parameters));
        assert!(!Layout::of("<domain").covers(&self::parameters()));
    }

    #[test]
    fn without_control_groups_the_vcpus_are_summed_up() {
        let mut parameters = parameters();
        parameters.insert("cpu.time".to_owned(), json!(0));
        for (name, time) in [("vcpu.0.time", 3), ("vcpu.1.time", 4), ("vcpu.0.wait", 100)] {
            parameters.insert(name.to_owned(), json!(time));
        }
        let found = figures("running", &parameters, &Layout::of(XML));
        assert_eq!(found["cputime"], json!(7));
    }

    #[test]
    fn without_figures_there_are_zeros() {
        let found = figures("paused", &Parameters::new(), &Layout::default());
        assert_eq!(found["cputime"], json!(0));
        assert_eq!(found["disk_stats"], json!([]));
    }
}
