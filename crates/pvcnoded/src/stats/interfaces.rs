//! Rates of the physical network interfaces, between two looks at the kernel's counters.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use pvc_core::time::BootTime;
use serde_json::{Map, Value, json};

/// Takes a sample at each look and tells the rates since the one before.
#[derive(Debug, Clone, Default)]
pub struct InterfaceSampler {
    last: Option<(BootTime, BTreeMap<String, Counters>)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counters {
    rx_bytes: u64,
    rx_packets: u64,
    tx_bytes: u64,
    tx_packets: u64,
}

impl InterfaceSampler {
    /// The rates since the last look, by interface, in the shape of PVC 1.0.3; none at the first look.
    pub(super) fn sample(&mut self, sys: &Path, now: BootTime) -> io::Result<Option<Value>> {
        let counters = read(sys)?;
        let last = self.last.replace((now, counters.clone()));
        let Some((then, before)) = last else {
            return Ok(None);
        };
        let elapsed = now.since(then);
        if elapsed.is_zero() {
            return Ok(None);
        }
        let rates: Map<String, Value> = counters
            .iter()
            .filter_map(|(name, now)| Some((name, before.get(name)?, now)))
            .map(|(name, before, now)| (name.clone(), rates(sys, name, before, now, elapsed)))
            .collect();
        Ok(Some(Value::Object(rates)))
    }
}

/// The counters of every interface with a device below it: bridges, taps and tunnels carry the same bytes again.
fn read(sys: &Path) -> io::Result<BTreeMap<String, Counters>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(sys.join("class/net"))? {
        let entry = entry?;
        let path = entry.path();
        if !path.join("device").exists() {
            continue;
        }
        // An interface may vanish between two reads.
        let counter = |name: &str| number(&path.join("statistics").join(name));
        let counters = (|| {
            Some(Counters {
                rx_bytes: counter("rx_bytes")?,
                rx_packets: counter("rx_packets")?,
                tx_bytes: counter("tx_bytes")?,
                tx_packets: counter("tx_packets")?,
            })
        })();
        if let Some(counters) = counters {
            found.insert(entry.file_name().to_string_lossy().into_owned(), counters);
        }
    }
    Ok(found)
}

fn number<T: std::str::FromStr>(path: &Path) -> Option<T> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn rates(sys: &Path, name: &str, before: &Counters, now: &Counters, elapsed: Duration) -> Value {
    let per_second = |before: u64, now: u64| {
        // A counter that went back was reset.
        let count = u128::from(now.saturating_sub(before));
        u64::try_from(count * 1000 / elapsed.as_millis().max(1)).unwrap_or(u64::MAX)
    };
    let rx_bps = per_second(before.rx_bytes, now.rx_bytes).saturating_mul(8);
    let tx_bps = per_second(before.tx_bytes, now.tx_bytes).saturating_mul(8);
    let rx_pps = per_second(before.rx_packets, now.rx_packets);
    let tx_pps = per_second(before.tx_packets, now.tx_packets);
    let path = sys.join("class/net").join(name);
    // In Mbit/s; -1, or an error, without a link.
    let speed: i64 = number(&path.join("speed")).unwrap_or(-1);
    let state = std::fs::read_to_string(path.join("operstate")).unwrap_or_default();
    json!({
        "rx_bps": rx_bps,
        "rx_pps": rx_pps,
        "tx_bps": tx_bps,
        "tx_pps": tx_pps,
        "total_bps": rx_bps.saturating_add(tx_bps),
        "total_pps": rx_pps.saturating_add(tx_pps),
        "link_speed": speed.max(0).saturating_mul(1_000_000),
        "state": state.trim(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(sys: &Path, name: &str, rx_bytes: u64) {
        let path = sys.join("class/net").join(name);
        std::fs::create_dir_all(path.join("statistics")).unwrap();
        for (counter, value) in [
            ("rx_bytes", rx_bytes),
            ("rx_packets", 10),
            ("tx_bytes", 0),
            ("tx_packets", 0),
        ] {
            std::fs::write(path.join("statistics").join(counter), format!("{value}\n")).unwrap();
        }
        std::fs::write(path.join("speed"), "1000\n").unwrap();
        std::fs::write(path.join("operstate"), "up\n").unwrap();
    }

    #[test]
    fn rates_are_told_from_the_second_look_and_of_physical_interfaces_only() {
        let dir = tempfile::tempdir().unwrap();
        let sys = dir.path();
        let mut sampler = InterfaceSampler::default();
        let at = |ms| BootTime::from_duration(Duration::from_millis(ms));
        for name in ["eth0", "brcluster"] {
            interface(sys, name, 1000);
        }
        std::fs::create_dir(sys.join("class/net/eth0/device")).unwrap();
        assert_eq!(sampler.sample(sys, at(1000)).unwrap(), None);
        interface(sys, "eth0", 6000);
        let expected = json!({"eth0": {
            "rx_bps": 16000, "rx_pps": 0, "tx_bps": 0, "tx_pps": 0, "total_bps": 16000, "total_pps": 0,
            "link_speed": 1_000_000_000_u64, "state": "up",
        }});
        assert_eq!(sampler.sample(sys, at(3500)).unwrap(), Some(expected));
        // Reset, and without a link.
        interface(sys, "eth0", 5);
        std::fs::write(sys.join("class/net/eth0/speed"), "-1\n").unwrap();
        let found = sampler.sample(sys, at(4500)).unwrap().unwrap();
        assert_eq!(found["eth0"]["rx_bps"], json!(0));
        assert_eq!(found["eth0"]["link_speed"], json!(0));
    }
}
