//! Memory and load, as `/proc` tells them.

use std::io;
use std::path::Path;

/// Memory of a host, in MiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total_mib: u64,
    /// In use by processes and the kernel.
    pub used_mib: u64,
    /// Available to new processes without swapping: what the kernel calls available, not what it calls free.
    pub free_mib: u64,
}

pub(super) fn memory(proc: &Path) -> io::Result<Memory> {
    parse_memory(&std::fs::read_to_string(proc.join("meminfo"))?).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "meminfo lacks MemTotal or MemAvailable",
        )
    })
}

pub(crate) fn load(proc: &Path) -> io::Result<f64> {
    parse_load(&std::fs::read_to_string(proc.join("loadavg"))?)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "loadavg does not begin with a number"))
}

fn parse_memory(text: &str) -> Option<Memory> {
    let kib = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    let (total, available) = (kib("MemTotal")?, kib("MemAvailable")?);
    // As PVC 1.0.3 reckons it: caches are not in use.
    let reclaimable = ["MemFree", "Buffers", "Cached", "SReclaimable"]
        .into_iter()
        .filter_map(kib)
        .sum::<u64>();
    Some(Memory {
        total_mib: total / 1024,
        used_mib: total.saturating_sub(reclaimable) / 1024,
        free_mib: available / 1024,
    })
}

fn parse_load(text: &str) -> Option<f64> {
    text.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_meminfo() {
        let text = "MemTotal:       24689408 kB\nMemFree:         1048576 kB\nMemAvailable:   10485760 kB\n\
                    Buffers:          524288 kB\nCached:          8388608 kB\nSwapCached:            0 kB\n\
                    SReclaimable:     524288 kB\n";
        let expected = Memory {
            total_mib: 24110,
            used_mib: 13870,
            free_mib: 10240,
        };
        assert_eq!(parse_memory(text), Some(expected));
        assert_eq!(parse_memory("MemTotal: 5 kB\n"), None);
    }

    #[test]
    fn load_is_the_first_number() {
        assert_eq!(parse_load("0.52 0.58 0.59 1/467 12345\n"), Some(0.52));
        assert_eq!(parse_load(""), None);
    }

    #[test]
    fn this_machine_can_be_read() {
        let proc = Path::new("/proc");
        let found = memory(proc).unwrap();
        assert!(found.total_mib >= found.used_mib && found.total_mib >= found.free_mib);
        assert!(load(proc).unwrap() >= 0.0);
    }
}
