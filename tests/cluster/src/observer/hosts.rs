//! Nodes, addresses and processes, read from this machine's /proc: nothing of ours on a node is asked, and a frozen node
//! is seen as well as any other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use pvc_lab::{Node, Power};

use super::event::{Event, Life, Purpose, Qemu, What};
use crate::addresses::floating;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// A process that is that old does not turn into QEMU any more; libvirtd's children do within milliseconds.
const SETTLED: Duration = Duration::from_secs(2);

/// A vCPU thread that has had this much time has run its guest; setting the thread up takes less.
const RUNNING_TICKS: u64 = 3;

/// Who has which address.
type Holders = BTreeMap<IpAddr, BTreeSet<String>>;

/// A process of a node that is no QEMU, or is.
#[derive(Debug)]
enum Known {
    /// Not QEMU so far; first seen then.
    Other(Instant),
    /// It is.
    Qemu {
        /// Whose.
        process: Qemu,
        /// Whether its vCPUs were seen to have run.
        ran: bool,
    },
}

/// Looks at all nodes until nobody listens any more.
#[derive(Debug)]
pub(crate) struct Hosts {
    nodes: Vec<Node>,
    leaders: BTreeMap<String, u32>,
    lives: BTreeMap<String, Life>,
    holders: Holders,
    processes: BTreeMap<u32, Known>,
}

impl Hosts {
    /// Knows nothing yet.
    pub(crate) fn new(nodes: &[Node]) -> Hosts {
        Hosts {
            nodes: nodes.to_vec(),
            leaders: BTreeMap::new(),
            lives: BTreeMap::new(),
            holders: Holders::new(),
            processes: BTreeMap::new(),
        }
    }

    /// Looks and tells, again and again.
    pub(crate) fn run(mut self, tell: &Sender<Event>) {
        loop {
            let begun = Instant::now();
            let seen = self.look().unwrap_or_else(|error| {
                vec![Event::now(What::Trouble {
                    text: format!("{error:#}"),
                })]
            });
            for event in seen {
                if tell.send(event).is_err() {
                    return;
                }
            }
            thread::sleep(LOOK.saturating_sub(begun.elapsed()));
        }
    }

    fn look(&mut self) -> Result<Vec<Event>> {
        let mut seen = Vec::new();
        let mut holders = Holders::new();
        let mut alive = BTreeSet::new();
        let mut began = Vec::new();
        for node in self.nodes.clone() {
            let name = node.name();
            let life = life(&node);
            if self.lives.insert(name.clone(), life) != Some(life) {
                seen.push(Event::now(What::Node {
                    node: name.clone(),
                    life,
                }));
            }
            if life == Life::Off {
                self.leaders.remove(&name);
                continue;
            }
            let pids = node.processes();
            if let Some(leader) = self.leader(&node, &pids)? {
                for address in addresses(leader) {
                    holders.entry(address).or_default().insert(name.clone());
                }
            }
            for pid in pids {
                alive.insert(pid);
                began.extend(self.process(&name, pid));
            }
        }
        // What has ended first: a process may have made room for another.
        let gone: Vec<u32> = self
            .processes
            .keys()
            .copied()
            .filter(|pid| !alive.contains(pid) || self.has_ended(*pid))
            .collect();
        for pid in gone {
            if let Some(Known::Qemu { process, .. }) = self.processes.remove(&pid) {
                seen.push(Event::now(What::Ended { process }));
            }
        }
        seen.extend(began);
        seen.extend(self.ran());
        seen.extend(changes(&self.holders, &holders));
        self.holders = holders;
        Ok(seen)
    }

    fn leader(&mut self, node: &Node, pids: &[u32]) -> Result<Option<u32>> {
        let known = self.leaders.get(&node.name()).copied();
        if let Some(leader) = known.filter(|leader| pids.contains(leader)) {
            return Ok(Some(leader));
        }
        self.leaders.remove(&node.name());
        // A node that boots has none yet.
        let leader = node.leader()?;
        if let Some(leader) = leader {
            self.leaders.insert(node.name(), leader);
        }
        Ok(leader)
    }

    /// A QEMU process that was not known as one.
    fn process(&mut self, node: &str, pid: u32) -> Option<Event> {
        match self.processes.get(&pid) {
            Some(Known::Qemu { .. }) => return None,
            Some(Known::Other(since)) if since.elapsed() > SETTLED => return None,
            Some(Known::Other(_)) | None => {}
        }
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<String> = line
            .split(|byte| *byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        let Some((guest, name, purpose, volumes)) = parse(&words) else {
            self.processes
                .entry(pid)
                .or_insert_with(|| Known::Other(Instant::now()));
            return None;
        };
        let process = Qemu {
            guest,
            name,
            node: node.to_owned(),
            pid,
        };
        self.processes.insert(
            pid,
            Known::Qemu {
                process: process.clone(),
                ran: false,
            },
        );
        Some(Event::now(What::Began {
            process,
            purpose,
            volumes,
        }))
    }

    /// Those whose vCPUs have run since the last look.
    fn ran(&mut self) -> Vec<Event> {
        self.processes
            .iter_mut()
            .filter_map(|(pid, known)| match known {
                Known::Qemu { process, ran } if !*ran && vcpu_ticks(*pid) >= RUNNING_TICKS => {
                    *ran = true;
                    Some(Event::now(What::Ran {
                        process: process.clone(),
                    }))
                }
                Known::Qemu { .. } | Known::Other(_) => None,
            })
            .collect()
    }

    /// A process that is ending has no memory any more, so it writes nothing.
    fn has_ended(&self, pid: u32) -> bool {
        matches!(self.processes.get(&pid), Some(Known::Qemu { .. }))
            && fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.is_empty())
    }
}

/// Processor time of a QEMU's vCPU threads, in ticks of 10 ms. libvirt has QEMU name them: `CPU 0/TCG`, `CPU 0/KVM`.
fn vcpu_ticks(pid: u32) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return 0;
    };
    threads
        .flatten()
        .filter(|thread| {
            fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name.contains("CPU"))
        })
        .filter_map(|thread| {
            let stat = fs::read_to_string(thread.path().join("stat")).ok()?;
            // The name may have spaces and brackets; utime and stime are the 12th and 13th field after it.
            let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
            let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
            Some(ticks(11)? + ticks(12)?)
        })
        .sum()
}

fn life(node: &Node) -> Life {
    match node.power() {
        Power::Off => Life::Off,
        Power::On if node.is_frozen() => Life::Frozen,
        Power::On => Life::On,
    }
}

/// The guest, its name, what for, and its volumes, from the words of a QEMU of libvirt's.
fn parse(words: &[String]) -> Option<(pvc_core::ids::VmId, String, Purpose, Vec<String>)> {
    if !words.first()?.contains("qemu-system-") {
        return None;
    }
    let after = |option: &str| {
        let position = words.iter().position(|word| word == option)?;
        words.get(position + 1)
    };
    let guest = after("-uuid")?.parse().ok()?;
    let name = after("-name")?
        .split(',')
        .find_map(|part| part.strip_prefix("guest="))?
        .to_owned();
    let purpose = if words.iter().any(|word| word == "-incoming") {
        Purpose::Incoming
    } else {
        Purpose::Start
    };
    let volumes = words
        .iter()
        .filter_map(|word| {
            let device: serde_json::Value = serde_json::from_str(word).ok()?;
            let text = |field: &str| device.get(field)?.as_str();
            (text("driver")? == "rbd").then_some(())?;
            Some(format!("{}/{}", text("pool")?, text("image")?))
        })
        .collect();
    Some((guest, name, purpose, volumes))
}

/// The floating addresses among those of a process's network.
fn addresses(pid: u32) -> Vec<IpAddr> {
    let trie = fs::read_to_string(format!("/proc/{pid}/net/fib_trie")).unwrap_or_default();
    let six = fs::read_to_string(format!("/proc/{pid}/net/if_inet6")).unwrap_or_default();
    let local: BTreeSet<IpAddr> = local_v4(&trie)
        .into_iter()
        .map(IpAddr::V4)
        .chain(local_v6(&six).into_iter().map(IpAddr::V6))
        .collect();
    floating()
        .into_iter()
        .filter(|address| local.contains(address))
        .collect()
}

/// Own addresses from the text of /proc/PID/net/fib_trie: a leaf, `|-- 10.0.0.1`, above `/32 host LOCAL`.
fn local_v4(trie: &str) -> Vec<Ipv4Addr> {
    let mut leaf: Option<Ipv4Addr> = None;
    let mut found = Vec::new();
    for line in trie.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse().ok();
        } else if line == "/32 host LOCAL" {
            found.extend(leaf);
        }
    }
    found
}

/// Own addresses from the text of /proc/PID/net/if_inet6.
fn local_v6(text: &str) -> Vec<Ipv6Addr> {
    text.lines()
        .filter_map(|line| {
            let digits = line.split_whitespace().next()?;
            Some(Ipv6Addr::from(u128::from_str_radix(digits, 16).ok()?))
        })
        .collect()
}

/// What is new, and addresses that two nodes had in two looks one after the other: the nodes are not looked at in one
/// moment, so only what holds over both looks was certainly on both at once.
fn changes(before: &Holders, now: &Holders) -> Vec<Event> {
    let nobody = BTreeSet::new();
    let mut seen = Vec::new();
    for address in floating() {
        let then = before.get(&address).unwrap_or(&nobody);
        let here = now.get(&address).unwrap_or(&nobody);
        for node in then.difference(here) {
            seen.push(Event::now(What::AddressDown {
                address,
                node: node.clone(),
            }));
        }
        for node in here.difference(then) {
            seen.push(Event::now(What::AddressUp {
                address,
                node: node.clone(),
            }));
        }
        let both: Vec<&String> = then.intersection(here).collect();
        if both.len() > 1 {
            seen.push(Event::now(What::Breach {
                text: format!("{address} is on {both:?} at once"),
            }));
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_proc() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.100.0.0\n        /24 link UNICAST\n     |-- 10.100.0.250\n        \
                    /32 host LOCAL\nLocal:\n     |-- 10.100.0.255\n        /32 link BROADCAST\n";
        assert_eq!(local_v4(trie), [Ipv4Addr::new(10, 100, 0, 250)]);
        let six = "fd000101000000000000000000000250 05 80 00 20 brcluster\n";
        assert_eq!(local_v6(six), ["fd00:101::250".parse::<Ipv6Addr>().unwrap()]);
    }

    fn holders(nodes: &[&str]) -> Holders {
        let address = floating().remove(0);
        Holders::from([(address, nodes.iter().map(|node| (*node).to_owned()).collect())])
    }

    #[test]
    fn an_address_on_two_nodes_over_two_looks_is_a_breach() {
        let is_breach = |before: &[&str], now: &[&str]| {
            changes(&holders(before), &holders(now))
                .iter()
                .any(|event| matches!(event.what, What::Breach { .. }))
        };
        assert!(is_breach(&["hv1", "hv2"], &["hv1", "hv2"]));
        // It may have moved between the look at the one and the look at the other.
        assert!(!is_breach(&["hv1"], &["hv1", "hv2"]));
        assert!(!is_breach(&["hv1", "hv2"], &["hv2"]));
    }

    #[test]
    fn a_process_of_libvirt_is_known_by_its_words() {
        let words = |incoming: &str| {
            [
                "/usr/bin/qemu-system-x86_64",
                "-name",
                "guest=ct-a,debug-threads=on",
                "-uuid",
                "6f3c0d2e-58a6-4d3b-a5a5-6f3c0d2e58a6",
                "-blockdev",
                r#"{"driver":"rbd","pool":"vms","image":"ct-a_disk0","server":[]}"#,
                incoming,
            ]
            .map(str::to_owned)
        };
        let (_, name, purpose, volumes) = parse(&words("-S")).unwrap();
        assert_eq!((name.as_str(), purpose), ("ct-a", Purpose::Start));
        assert_eq!(volumes, ["vms/ct-a_disk0"]);
        assert_eq!(parse(&words("-incoming")).unwrap().2, Purpose::Incoming);
        assert!(parse(&["/usr/sbin/libvirtd".to_owned()]).is_none());
    }
}
