//! What must never be seen. Pure: from events to breaches.
//!
//! * A second QEMU process of a guest, while the first is there (running, frozen or cut off) and is not barred from
//!   Ceph. The target of a live migration is no second one: whether both ran is told by the guest's records.
//! * A volume that is written by two: a counter that goes back, a boot that writes again after another has, a boot that
//!   began before the one before it had written its last, a guest that itself found what it had not written.

use std::collections::{BTreeMap, BTreeSet};

use pvc_core::ids::VmId;

use super::event::{Event, Purpose, Qemu, What, Written};

/// A process of a guest.
#[derive(Debug)]
struct Process {
    id: Qemu,
    image: Option<String>,
    is_alive: bool,
    /// Ceph clients that appeared from its node on its volumes while it was there.
    clients: BTreeSet<String>,
}

/// A process that began beside another one.
#[derive(Debug)]
struct Pair {
    old: Qemu,
    new: Qemu,
    /// When the second one's vCPUs were first seen to have run.
    ran_at: Option<f64>,
}

/// A volume, as its records tell its story.
#[derive(Debug)]
struct Story {
    volume: String,
    last: Written,
    tags: BTreeSet<u32>,
}

/// Everything seen that breaches are judged by.
#[derive(Debug)]
pub(crate) struct Judge {
    /// Storage address of each node.
    addresses: BTreeMap<String, String>,
    processes: Vec<Process>,
    pairs: Vec<Pair>,
    barred: BTreeSet<String>,
    /// Clients ever seen, with the volume.
    seen: BTreeSet<(String, String)>,
    stories: BTreeMap<String, Story>,
}

impl Judge {
    /// Knows the nodes by their addresses in the storage network.
    pub(crate) fn new(addresses: BTreeMap<String, String>) -> Judge {
        Judge {
            addresses,
            processes: Vec::new(),
            pairs: Vec::new(),
            barred: BTreeSet::new(),
            seen: BTreeSet::new(),
            stories: BTreeMap::new(),
        }
    }

    /// Takes an event in; answers with what it makes a breach, or with what can't be told.
    pub(crate) fn see(&mut self, event: &Event) -> Vec<What> {
        match &event.what {
            What::Began {
                process,
                purpose,
                volumes,
            } => {
                self.began(process, *purpose, volumes);
                Vec::new()
            }
            What::Ended { process } => {
                for known in self.processes.iter_mut().filter(|known| known.id == *process) {
                    known.is_alive = false;
                }
                // What has ended before the other one ran was never beside it.
                self.pairs
                    .retain(|pair| pair.ran_at.is_some() || (pair.old != *process && pair.new != *process));
                Vec::new()
            }
            What::Ran { process } => {
                for pair in self.pairs.iter_mut().filter(|pair| pair.new == *process) {
                    pair.ran_at.get_or_insert(event.at);
                }
                Vec::new()
            }
            What::Users {
                image,
                locks,
                watchers,
            } => {
                self.users(image, locks.iter().chain(watchers));
                Vec::new()
            }
            What::Map { barred, asked, .. } => {
                self.barred = barred.iter().cloned().collect();
                self.judge_pairs(*asked)
            }
            What::MapSame { asked } => self.judge_pairs(*asked),
            What::Wrote {
                image,
                volume,
                record,
                ..
            } => self.wrote(image, volume, *record),
            What::Gone { image } => {
                self.stories.remove(image);
                self.seen.retain(|(name, _)| name != image);
                Vec::new()
            }
            What::Audit { image, records } => audit(image, records),
            What::Ready
            | What::Node { .. }
            | What::AddressUp { .. }
            | What::AddressDown { .. }
            | What::Quorum { .. }
            | What::Agent { .. }
            | What::Fence { .. }
            | What::Guest { .. }
            | What::Breach { .. }
            | What::Trouble { .. } => Vec::new(),
        }
    }

    fn began(&mut self, process: &Qemu, purpose: Purpose, volumes: &[String]) {
        match purpose {
            Purpose::Start => {
                for old in self.alive(process.guest) {
                    self.pairs.push(Pair {
                        old,
                        new: process.clone(),
                        ran_at: None,
                    });
                }
            }
            Purpose::Incoming => {}
        }
        self.processes.push(Process {
            id: process.clone(),
            image: volumes.first().cloned(),
            is_alive: true,
            clients: BTreeSet::new(),
        });
    }

    fn alive(&self, guest: VmId) -> Vec<Qemu> {
        self.processes
            .iter()
            .filter(|known| known.is_alive && known.id.guest == guest)
            .map(|known| known.id.clone())
            .collect()
    }

    /// A client that was never seen before belongs to the youngest process of the guest on its node; one of an earlier
    /// process is listed for half a minute after its end.
    fn users<'a>(&mut self, image: &str, users: impl Iterator<Item = &'a String>) {
        for client in users {
            if !self.seen.insert((image.to_owned(), client.clone())) {
                continue;
            }
            let owner = self.processes.iter_mut().rev().find(|known| {
                known.is_alive
                    && known.image.as_deref() == Some(image)
                    && self
                        .addresses
                        .get(&known.id.node)
                        .is_some_and(|address| client.split(':').next() == Some(address))
            });
            if let Some(owner) = owner {
                owner.clients.insert(client.clone());
            }
        }
    }

    /// Judges the pairs of which the second process ran before the map was asked for: whoever lets one run has barred the
    /// other before. One that is only there, paused, writes nothing.
    fn judge_pairs(&mut self, asked: f64) -> Vec<What> {
        let (due, later) = std::mem::take(&mut self.pairs)
            .into_iter()
            .partition::<Vec<Pair>, _>(|pair| pair.ran_at.is_some_and(|at| at <= asked));
        self.pairs = later;
        due.iter()
            .filter_map(|Pair { old, new, .. }| {
                let clients = self
                    .processes
                    .iter()
                    .find(|known| known.id == *old)
                    .map(|known| known.clients.clone())
                    .unwrap_or_default();
                let free: Vec<&String> = clients.difference(&self.barred).collect();
                let two = format!(
                    "{} has a process on {} (pid {}) and one on {} (pid {})",
                    old.name, old.node, old.pid, new.node, new.pid
                );
                if clients.is_empty() {
                    Some(What::Trouble {
                        text: format!("{two}; nobody saw the first one's Ceph clients"),
                    })
                } else if free.is_empty() {
                    None
                } else {
                    Some(What::Breach {
                        text: format!("{two}; of the first one {free:?} are not barred"),
                    })
                }
            })
            .collect()
    }

    fn wrote(&mut self, image: &str, volume: &str, record: Written) -> Vec<What> {
        let Some(story) = self.stories.get_mut(image).filter(|story| story.volume == volume) else {
            let story = Story {
                volume: volume.to_owned(),
                last: record,
                tags: BTreeSet::from([record.tag]),
            };
            self.stories.insert(image.to_owned(), story);
            return Vec::new();
        };
        let last = story.last;
        story.last = record;
        let mut wrong = Vec::new();
        if record.n < last.n {
            wrong.push(format!("the counter went back from {} to {}", last.n, record.n));
        }
        if record.tag != last.tag {
            if !story.tags.insert(record.tag) {
                wrong.push(format!(
                    "boot {:08X} wrote {} after boot {:08X} had written {}",
                    record.tag, record.n, last.tag, last.n
                ));
            } else if record.base < last.n {
                wrong.push(format!(
                    "boot {:08X} began at {}, and boot {:08X} wrote {} after that",
                    record.tag, record.base, last.tag, last.n
                ));
            }
        }
        if record.alien > last.alien {
            wrong.push(format!(
                "boot {:08X} found {} times what it had not written",
                record.tag, record.alien
            ));
        }
        wrong
            .into_iter()
            .map(|text| What::Breach {
                text: format!("{image}: {text}"),
            })
            .collect()
    }
}

/// Each record has to be of the boot that had begun last when it was due.
fn audit(image: &str, records: &[Written]) -> Vec<What> {
    let begun: BTreeMap<u32, u32> = records.iter().map(|record| (record.base, record.tag)).collect();
    records
        .iter()
        .filter_map(|record| {
            let (_, tag) = begun.range(..record.n).next_back()?;
            (*tag != record.tag).then(|| What::Breach {
                text: format!(
                    "{image}: {} is of boot {:08X}, and boot {tag:08X} had begun before",
                    record.n, record.tag
                ),
            })
        })
        .take(3)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: &str = "6f3c0d2e-58a6-4d3b-a5a5-6f3c0d2e58a6";

    fn judge() -> Judge {
        Judge::new(
            [("hv1", "10.102.0.1"), ("hv2", "10.102.0.2")]
                .map(|(node, address)| (node.to_owned(), address.to_owned()))
                .into(),
        )
    }

    fn process(node: &str, pid: u32) -> Qemu {
        Qemu {
            guest: GUEST.parse().unwrap(),
            name: "ct-a".to_owned(),
            node: node.to_owned(),
            pid,
        }
    }

    fn began(at: f64, node: &str, pid: u32, purpose: Purpose) -> Event {
        Event {
            at,
            what: What::Began {
                process: process(node, pid),
                purpose,
                volumes: vec!["vms/a".to_owned()],
            },
        }
    }

    fn ran(at: f64, node: &str, pid: u32) -> Event {
        Event {
            at,
            what: What::Ran {
                process: process(node, pid),
            },
        }
    }

    fn users(clients: &[&str]) -> Event {
        Event {
            at: 0.0,
            what: What::Users {
                image: "vms/a".to_owned(),
                locks: Vec::new(),
                watchers: clients.iter().map(|client| (*client).to_owned()).collect(),
            },
        }
    }

    fn map(asked: f64, barred: &[&str]) -> Event {
        Event {
            at: asked,
            what: What::Map {
                epoch: 1,
                up: vec![0, 1, 2],
                barred: barred.iter().map(|client| (*client).to_owned()).collect(),
                asked,
            },
        }
    }

    fn breaches(events: &[Event]) -> usize {
        let mut judge = judge();
        events
            .iter()
            .flat_map(|event| judge.see(event))
            .filter(|what| matches!(what, What::Breach { .. }))
            .count()
    }

    #[test]
    fn a_second_process_is_a_breach_unless_the_first_is_barred_or_gone() {
        let first = began(1.0, "hv1", 10, Purpose::Start);
        let seen = users(&["10.102.0.1:0/77"]);
        let second = began(9.0, "hv2", 20, Purpose::Start);
        let free = map(9.1, &[]);
        let barred = map(9.1, &["10.102.0.1:0/77"]);
        let ran = ran(9.05, "hv2", 20);
        let all =
            |events: &[&Event]| breaches(&events.iter().map(|event| (*event).clone()).collect::<Vec<_>>());
        assert_eq!(all(&[&first, &seen, &second, &ran, &free]), 1);
        assert_eq!(all(&[&first, &seen, &second, &ran, &barred]), 0);
        // Paused it writes nothing: an agent that stood still makes one, and ends it again.
        assert_eq!(all(&[&first, &seen, &second, &free]), 0);
        // What is barred after the question was sent says nothing about before: it is asked once more.
        assert_eq!(all(&[&first, &seen, &second, &ran, &map(8.9, &[]), &barred]), 0);
        let gone = Event {
            at: 8.0,
            what: What::Ended {
                process: process("hv1", 10),
            },
        };
        assert_eq!(all(&[&first, &seen, &gone, &second, &ran, &free]), 0);
        let gone_later = Event { at: 9.02, ..gone };
        assert_eq!(all(&[&first, &seen, &second, &gone_later, &ran, &free]), 0);
        // The target of a migration.
        let target = began(9.0, "hv2", 20, Purpose::Incoming);
        assert_eq!(all(&[&first, &seen, &target, &ran, &free]), 0);
        // One client of two is barred.
        let two = users(&["10.102.0.1:0/77", "10.102.0.1:0/78"]);
        assert_eq!(all(&[&first, &two, &second, &ran, &barred]), 1);
    }

    fn wrote(n: u32, tag: u32, base: u32, alien: u32) -> Event {
        Event {
            at: 0.0,
            what: What::Wrote {
                image: "vms/a".to_owned(),
                volume: "rbd_data.1".to_owned(),
                record: Written { n, tag, base, alien },
                asked: 0.0,
            },
        }
    }

    #[test]
    fn a_volume_that_two_write_is_a_breach() {
        assert_eq!(
            breaches(&[
                wrote(0, 0, 0, 0),
                wrote(1, 5, 0, 0),
                wrote(4, 5, 0, 0),
                wrote(6, 9, 5, 0)
            ]),
            0
        );
        // It goes back.
        assert_eq!(breaches(&[wrote(4, 5, 0, 0), wrote(3, 5, 0, 0)]), 1);
        // The first boot writes again.
        assert_eq!(
            breaches(&[wrote(4, 5, 0, 0), wrote(5, 9, 4, 0), wrote(6, 5, 0, 0)]),
            1
        );
        // The second boot began before the first had ended.
        assert_eq!(breaches(&[wrote(6, 5, 0, 0), wrote(7, 9, 4, 0)]), 1);
        // The guest noticed.
        assert_eq!(breaches(&[wrote(4, 5, 0, 0), wrote(5, 5, 0, 1)]), 1);
    }

    // What happened between two looks is still in the log.
    #[test]
    fn the_log_shows_a_write_of_a_boot_whose_time_was_over() {
        let record = |n, tag, base| Written {
            n,
            tag,
            base,
            alien: 0,
        };
        let clean = [record(1, 5, 0), record(2, 5, 0), record(3, 9, 2), record(4, 9, 2)];
        assert!(audit("vms/a", &clean).is_empty());
        let dirty = [record(1, 5, 0), record(2, 5, 0), record(3, 5, 0), record(4, 9, 2)];
        assert_eq!(audit("vms/a", &dirty).len(), 1);
    }
}
