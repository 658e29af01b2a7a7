//! How a fault went: when it was noticed, proven, made good, and when the guests wrote again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use pvc_core::ids::VmId;
use pvc_lab::Network;

use super::Observer;
use super::event::{Event, Purpose, What, Written};
use crate::clock::Moment;

/// A guest after a fault.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Revival {
    /// Seconds from the fault until a process of it was there on another node.
    pub(crate) runs: Option<f64>,
    /// Seconds from the fault until another boot of it had written.
    pub(crate) wrote: Option<f64>,
}

/// The steps of a failover, in seconds from the fault.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Failover {
    /// The fence was recorded.
    pub(crate) detected: Option<f64>,
    /// The death was proven.
    pub(crate) proven: Option<f64>,
    /// The last guest had another owner or none.
    pub(crate) given: Option<f64>,
    /// The guests.
    pub(crate) guests: BTreeMap<VmId, Revival>,
}

impl Failover {
    /// When the first and the last guest ran again; none unless all do.
    pub(crate) fn running(&self) -> Option<(f64, f64)> {
        self.spread(|revival| revival.runs)
    }

    /// When the first and the last guest had written again; none unless all have.
    pub(crate) fn written(&self) -> Option<(f64, f64)> {
        self.spread(|revival| revival.wrote)
    }

    fn spread(&self, value: impl Fn(&Revival) -> Option<f64>) -> Option<(f64, f64)> {
        let values: Option<Vec<f64>> = self.guests.values().map(value).collect();
        let values = values?;
        let first = values.iter().copied().min_by(f64::total_cmp)?;
        let last = values.iter().copied().max_by(f64::total_cmp)?;
        Some((first, last))
    }
}

/// A guest that is followed through a fault.
#[derive(Debug, Clone)]
pub(crate) struct Followed {
    /// Its id.
    pub(crate) id: VmId,
    /// Its volume.
    pub(crate) image: String,
}

/// The steps of the failover of these guests from a node, as far as they were seen.
pub(crate) fn failover(observer: &Observer, victim: &str, guests: &[Followed], fault: Moment) -> Failover {
    steps(&observer.since(None), victim, guests, fault.seconds())
}

fn steps(events: &[Event], victim: &str, guests: &[Followed], fault: f64) -> Failover {
    let mut found = Failover {
        guests: guests
            .iter()
            .map(|guest| (guest.id, Revival::default()))
            .collect(),
        ..Failover::default()
    };
    // Who had written last before the fault.
    let mut tags: BTreeMap<&str, u32> = BTreeMap::new();
    let mut owners: BTreeMap<VmId, f64> = BTreeMap::new();
    for event in events {
        let after = event.at - fault;
        match &event.what {
            What::Wrote { image, record, .. } if after <= 0.0 => {
                tags.insert(image, record.tag);
            }
            What::Wrote { image, record, .. } => {
                let Some(guest) = guests.iter().find(|guest| guest.image == *image) else {
                    continue;
                };
                let revival = found.guests.entry(guest.id).or_default();
                if tags.get(image.as_str()) != Some(&record.tag) && revival.wrote.is_none() {
                    revival.wrote = Some(after);
                }
            }
            What::Fence {
                node,
                phase: Some(phase),
                ..
            } if after > 0.0 && node == victim => {
                found.detected.get_or_insert(after);
                if ["proven", "recovering", "done"].contains(&phase.as_str()) {
                    found.proven.get_or_insert(after);
                }
            }
            What::Began {
                process,
                purpose: Purpose::Start,
                ..
            } if after > 0.0 && process.node != victim => {
                if let Some(revival) = found.guests.get_mut(&process.guest) {
                    revival.runs.get_or_insert(after);
                }
            }
            What::Guest { guest, owner, .. }
                if after > 0.0 && found.guests.contains_key(guest) && owner.as_deref() != Some(victim) =>
            {
                owners.entry(*guest).or_insert(after);
            }
            _ => {}
        }
    }
    if owners.len() == guests.len() {
        found.given = owners.values().copied().max_by(f64::total_cmp);
    }
    found
}

/// The longest time without a new record in a volume between two moments.
pub(crate) fn longest_silence(observer: &Observer, image: &str, from: Moment, until: Moment) -> Duration {
    let (from, until) = (from.seconds(), until.seconds());
    let mut before = from;
    let mut longest: f64 = 0.0;
    for event in observer.since(None) {
        if let What::Wrote { image: written, .. } = &event.what
            && written == image
            && event.at > from
        {
            longest = longest.max(event.at.min(until) - before);
            before = event.at.min(until);
        }
    }
    Duration::from_secs_f64(longest.max(until - before).max(0.0))
}

/// The last record in a volume.
pub(crate) fn last_record(observer: &Observer, image: &str) -> Option<Written> {
    observer
        .since(None)
        .into_iter()
        .rev()
        .find_map(|event| match event.what {
            What::Wrote {
                image: written,
                record,
                ..
            } if written == image => Some(record),
            _ => None,
        })
}

/// Everything of note since a fault, a line each.
pub(crate) fn tell(observer: &Observer, fault: Moment) -> String {
    let mut text = String::new();
    let mut tags: BTreeMap<String, u32> = BTreeMap::new();
    let api = IpAddr::V4(Network::Upstream.floating_v4());
    for event in observer.since(None) {
        let after = event.at - fault.seconds();
        let line = match event.what {
            What::Wrote { image, record, .. } => {
                if tags.insert(image.clone(), record.tag) == Some(record.tag) {
                    continue;
                }
                format!("{image}: boot {:08X} wrote {}", record.tag, record.n)
            }
            _ if after < -0.2 => continue,
            What::Node { node, life } => format!("{node} is {life:?}"),
            What::AddressUp { address, node } if address == api => format!("{address} is on {node}"),
            What::AddressDown { address, node } if address == api => format!("{address} is off {node}"),
            What::Ran { process } => {
                format!("{} runs on {} (pid {})", process.name, process.node, process.pid)
            }
            What::Began { process, purpose, .. } => {
                format!("{} has a process on {} ({purpose:?})", process.name, process.node)
            }
            What::Ended { process } => {
                format!("{} has no process on {} any more", process.name, process.node)
            }
            What::Map {
                epoch, up, barred, ..
            } => {
                format!("OSD map {epoch}: up {up:?}, {} clients barred", barred.len())
            }
            What::Quorum { members } => format!("monitors in quorum: {}", members.join(" ")),
            What::Agent { node, state } => format!("{node}'s agent is {state}"),
            What::Fence { node, phase, detail } => {
                format!(
                    "fence of {node}: {} ({detail})",
                    phase.as_deref().unwrap_or("none")
                )
            }
            What::Guest {
                guest,
                node,
                state,
                owner,
            } => format!(
                "{guest}: {state}, on {node}, owner {}",
                owner.as_deref().unwrap_or("none")
            ),
            What::Gone { image } => format!("{image} was removed"),
            What::Breach { text } => format!("BREACH: {text}"),
            What::Trouble { text } => format!("not seen: {text}"),
            What::Ready
            | What::AddressUp { .. }
            | What::AddressDown { .. }
            | What::Users { .. }
            | What::MapSame { .. }
            | What::Audit { .. } => continue,
        };
        if after >= -0.2 {
            writeln!(text, "  {after:>+8.2} s  {line}").ok();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::event::Qemu;
    use super::*;

    #[test]
    fn the_steps_are_found_and_a_guest_that_does_not_come_back_is_missed() {
        let id: VmId = "6f3c0d2e-58a6-4d3b-a5a5-6f3c0d2e58a6".parse().unwrap();
        let wrote = |at, tag, n| Event {
            at,
            what: What::Wrote {
                image: "vms/a".to_owned(),
                volume: "v".to_owned(),
                record: Written {
                    n,
                    tag,
                    base: 0,
                    alien: 0,
                },
                asked: at,
            },
        };
        let fence = |at, phase: &str| Event {
            at,
            what: What::Fence {
                node: "hv1".to_owned(),
                phase: Some(phase.to_owned()),
                detail: String::new(),
            },
        };
        let began = Event {
            at: 110.0,
            what: What::Began {
                process: Qemu {
                    guest: id,
                    name: "a".to_owned(),
                    node: "hv2".to_owned(),
                    pid: 1,
                },
                purpose: Purpose::Start,
                volumes: Vec::new(),
            },
        };
        let guests = [Followed {
            id,
            image: "vms/a".to_owned(),
        }];
        // A write of the old boot that arrives after the fault is none of the new one.
        let mut events = vec![
            wrote(99.0, 5, 1),
            wrote(100.1, 5, 2),
            fence(106.0, "suspected"),
            fence(107.0, "proven"),
        ];
        events.extend([began, wrote(111.0, 9, 3)]);
        let found = steps(&events, "hv1", &guests, 100.0);
        assert_eq!((found.detected, found.proven), (Some(6.0), Some(7.0)));
        assert_eq!(
            (found.running(), found.written()),
            (Some((10.0, 10.0)), Some((11.0, 11.0)))
        );
        assert_eq!(steps(&events[..4], "hv1", &guests, 100.0).running(), None);
    }
}
