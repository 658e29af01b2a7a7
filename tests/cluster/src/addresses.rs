//! When each node had which floating address: one netlink monitor on each node, all on the machine's one clock.
//!
//! The monitors run inside the nodes and end with them. One that entered from outside would keep the network namespace
//! of a dead node alive, and the kernel would go on answering for its addresses.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use pvc_lab::{Background, Network, Node, wait_for};

use crate::clock::Moment;

/// An address of no use, to see that a monitor listens.
const PROBE: &str = "127.9.9.9";
const MONITOR_DEADLINE: Duration = Duration::from_secs(10);

/// What happened to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// It was set, or set again.
    Up,
    /// It went: taken off, or its lifetime ended, or its node did.
    Down,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// The node.
    pub(crate) node: String,
    /// The address.
    pub(crate) address: IpAddr,
    /// When its monitor heard of it.
    pub(crate) at: Moment,
    /// What happened.
    pub(crate) what: What,
}

/// A time during which a node had an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    /// The node.
    pub(crate) node: String,
    /// From then on.
    pub(crate) from: Moment,
    /// Until then; none: still.
    pub(crate) until: Option<Moment>,
}

/// All events of all nodes since the monitors were attached.
#[derive(Debug, Default)]
pub(crate) struct AddressLog {
    events: Arc<Mutex<Vec<Event>>>,
    monitors: BTreeMap<String, Background>,
}

/// The six floating addresses.
pub(crate) fn floating() -> Vec<IpAddr> {
    Network::ALL
        .into_iter()
        .flat_map(|network| {
            [
                IpAddr::V4(network.floating_v4()),
                IpAddr::V6(network.floating_v6()),
            ]
        })
        .collect()
}

impl AddressLog {
    /// Begins to listen on a node that is on.
    pub(crate) fn attach(&mut self, node: &Node) -> Result<()> {
        self.end(&node.name());
        // Ahead of everything else on a busy machine: what it hears late it also stamps late.
        let mut monitor = node.spawn(&["nice", "-n", "-20", "ip", "-o", "-ts", "monitor", "address"])?;
        let output = monitor.stdout().context("the monitor has no output")?;
        let (events, name) = (Arc::clone(&self.events), node.name());
        let heard = Arc::new(Mutex::new(false));
        let probe = Arc::clone(&heard);
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some((address, at, what)) = parse(&line) {
                    if address.to_string() == PROBE {
                        *lock(&probe) = true;
                    } else {
                        lock(&events).push(Event {
                            node: name.clone(),
                            address,
                            at,
                            what,
                        });
                    }
                }
            }
            // The monitor has ended, and its node with it: a fencer may have switched it off.
            note_end(&mut lock(&events), &name);
        });
        wait_for(
            &format!("the address monitor of {}", node.id()),
            MONITOR_DEADLINE,
            || {
                let probe = format!("{PROBE}/32");
                node.exec(&["ip", "address", "replace", &probe, "dev", "lo"])?
                    .ok()?;
                node.exec(&["ip", "address", "delete", &probe, "dev", "lo"])?
                    .ok()?;
                Ok((*lock(&heard)).then_some(()))
            },
        )?;
        // What was there before the monitor listened.
        let listed = node.exec(&["ip", "-o", "address", "show"])?.ok()?;
        let at = Moment::now();
        for address in floating() {
            if listed
                .split_whitespace()
                .any(|word| word.split('/').next() == Some(&address.to_string()))
            {
                lock(&self.events).push(Event {
                    node: node.name(),
                    address,
                    at,
                    what: What::Up,
                });
            }
        }
        self.monitors.insert(node.name(), monitor);
        Ok(())
    }

    /// The node has lost its power: its addresses went with it.
    pub(crate) fn end(&mut self, node: &str) {
        if let Some(monitor) = self.monitors.remove(node) {
            monitor.stop();
        }
        note_end(&mut lock(&self.events), node);
    }

    /// Whether the monitor of a node runs.
    pub(crate) fn listens(&mut self, node: &str) -> Result<bool> {
        match self.monitors.get_mut(node) {
            Some(monitor) => monitor.is_running(),
            None => Ok(false),
        }
    }

    /// When which node had the address, in the order of the beginnings.
    pub(crate) fn spans(&self, address: IpAddr) -> Vec<Span> {
        spans(&lock(&self.events), address)
    }

    /// The nodes that have the address now.
    pub(crate) fn holders(&self, address: IpAddr) -> Vec<String> {
        self.spans(address)
            .into_iter()
            .filter(|span| span.until.is_none())
            .map(|span| span.node)
            .collect()
    }

    /// When the node got the address for the first time after that moment.
    pub(crate) fn appeared(&self, address: IpAddr, node: &str, after: Moment) -> Option<Moment> {
        self.spans(address)
            .into_iter()
            .find(|span| span.node == node && span.from >= after)
            .map(|span| span.from)
    }

    /// When any other node than this got the address for the first time after that moment, and which.
    pub(crate) fn appeared_elsewhere(
        &self,
        address: IpAddr,
        node: &str,
        after: Moment,
    ) -> Option<(String, Moment)> {
        self.spans(address)
            .into_iter()
            .find(|span| span.node != node && span.from >= after)
            .map(|span| (span.node, span.from))
    }

    /// When the node lost the address for the first time after that moment.
    pub(crate) fn vanished(&self, address: IpAddr, node: &str, after: Moment) -> Option<Moment> {
        self.spans(address)
            .into_iter()
            .filter(|span| span.node == node)
            .find_map(|span| span.until.filter(|until| *until >= after))
    }

    /// Fails if an address was on two nodes at once at any time.
    pub(crate) fn must_never_overlap(&self) -> Result<()> {
        for address in floating() {
            if let Some((one, other)) = overlap(&self.spans(address)) {
                let until = one.until.map_or("for ever".to_owned(), |until| {
                    format!(
                        "until {:.3} s after {} got it",
                        until.since(other.from).as_secs_f64(),
                        other.node
                    )
                });
                bail!("{address} was on two nodes at once: {} had it {until}", one.node);
            }
        }
        Ok(())
    }

    /// The longest time without the address between two of its holders since that moment.
    pub(crate) fn longest_gap(&self, address: IpAddr, since: Moment) -> Duration {
        let spans = self.spans(address);
        spans
            .windows(2)
            .filter_map(|pair| match pair {
                [one, other] if other.from >= since => Some(other.from.since(one.until?)),
                _ => None,
            })
            .max()
            .unwrap_or_default()
    }

    /// The changes of the API's address since a moment, and of all others that are on two nodes, for people.
    pub(crate) fn tell(&self, since: Moment) -> String {
        let mut text = String::new();
        let api = IpAddr::V4(Network::Upstream.floating_v4());
        for address in floating() {
            if address != api && overlap(&self.spans(address)).is_none() {
                continue;
            }
            for span in self
                .spans(address)
                .iter()
                .filter(|span| span.until.is_none_or(|until| until >= since))
            {
                let until = span.until.map_or("still".to_owned(), |until| {
                    format!("{:+.3} s", until.seconds_after(since))
                });
                writeln!(
                    text,
                    "{address:<16} {:<4} {:+.3} s to {until}",
                    span.node,
                    span.from.seconds_after(since)
                )
                .ok();
            }
        }
        text
    }
}

/// The node has no address any more.
fn note_end(events: &mut Vec<Event>, node: &str) {
    let at = Moment::now();
    for address in floating() {
        let has_it = spans(events, address)
            .iter()
            .any(|span| span.node == node && span.until.is_none());
        if has_it {
            events.push(Event {
                node: node.to_owned(),
                address,
                at,
                what: What::Down,
            });
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Address, time and kind of a line of `ip -o -ts monitor address`.
fn parse(line: &str) -> Option<(IpAddr, Moment, What)> {
    let (stamp, rest) = line.trim_start().strip_prefix('[')?.split_once(']')?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let what = if words.first() == Some(&"Deleted") {
        What::Down
    } else {
        What::Up
    };
    let family = words
        .iter()
        .position(|word| *word == "inet" || *word == "inet6")?;
    let address = words.get(family + 1)?.split('/').next()?.parse().ok()?;
    Some((address, Moment::parse(stamp).ok()?, what))
}

fn spans(events: &[Event], address: IpAddr) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for event in events.iter().filter(|event| event.address == address) {
        let open = spans
            .iter_mut()
            .find(|span| span.node == event.node && span.until.is_none());
        match (event.what, open) {
            (What::Up, None) => spans.push(Span {
                node: event.node.clone(),
                from: event.at,
                until: None,
            }),
            (What::Down, Some(span)) => span.until = Some(event.at),
            (What::Up, Some(_)) | (What::Down, None) => {}
        }
    }
    spans.sort_by_key(|span| span.from);
    spans
}

/// Two spans of different nodes of which the second begins before the first ends.
fn overlap(spans: &[Span]) -> Option<(&Span, &Span)> {
    spans.iter().enumerate().find_map(|(index, one)| {
        spans
            .iter()
            .skip(index + 1)
            .find(|other| other.node != one.node && one.until.is_none_or(|until| other.from < until))
            .map(|other| (one, other))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: &str = "[2026-11-22T19:43:00.100000] 5: brupstream    inet 10.101.0.250/32 scope global deprecated \
                       brupstream:pvc\\       valid_lft 4sec preferred_lft 0sec";
    const GONE: &str = "[2026-11-22T19:43:04.200000] Deleted 5: brupstream    inet 10.101.0.250/32 scope global \
                        deprecated brupstream:pvc\\       valid_lft 0sec preferred_lft 0sec";
    const SET6: &str = "[2026-11-22T19:43:00.100000] 5: brupstream    inet6 fd00:101::250/128 scope global nodad \
                        deprecated \\       valid_lft 4sec preferred_lft 0sec";

    #[test]
    fn lines_of_the_monitor_are_read() {
        let (address, set, what) = parse(SET).unwrap();
        assert_eq!((address.to_string().as_str(), what), ("10.101.0.250", What::Up));
        let (_, gone, what) = parse(GONE).unwrap();
        assert_eq!((gone.since(set), what), (Duration::from_millis(4100), What::Down));
        assert_eq!(parse(SET6).unwrap().0.to_string(), "fd00:101::250");
        assert!(parse("Timestamp: Sun Nov 22").is_none());
    }

    fn event(node: &str, seconds: &str, what: What) -> Event {
        Event {
            node: node.to_owned(),
            address: "10.101.0.250".parse().unwrap(),
            at: Moment::parse(&format!("2026-11-22T19:43:{seconds}")).unwrap(),
            what,
        }
    }

    fn check(events: &[Event], overlaps: bool) {
        let spans = spans(events, "10.101.0.250".parse().unwrap());
        assert_eq!(overlap(&spans).is_some(), overlaps, "{spans:?}");
    }

    // An observer that never sees an overlap would let two primaries pass.
    #[test]
    fn two_holders_at_once_are_seen_and_one_after_the_other_is_not() {
        let up = |node, seconds| event(node, seconds, What::Up);
        let down = |node, seconds| event(node, seconds, What::Down);
        check(
            &[
                up("hv1", "01.0"),
                up("hv1", "02.0"),
                down("hv1", "03.0"),
                up("hv2", "03.001"),
            ],
            false,
        );
        check(&[up("hv1", "01.0"), up("hv2", "02.0")], true);
        check(&[up("hv1", "01.0"), down("hv1", "03.0"), up("hv2", "02.9")], true);
        // In the order in which two monitors were read, not of what happened.
        check(
            &[up("hv2", "03.1"), up("hv1", "01.0"), down("hv1", "03.0")],
            false,
        );
    }
}
