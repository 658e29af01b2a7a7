//! An observer in a process of its own that watches the cluster from outside: no daemon of ours is asked whether all is
//! well.
//!
//! * [`hosts`]: which node has power and stands still, has which floating address, has which QEMU processes; from
//!   this machine's /proc.
//! * [`eye`]: what is in the guests' volumes, who has them open, who is barred, which OSDs and monitors are there; over
//!   a connection to Ceph that does not hang on any node.
//! * [`watch`]: the process; it also follows fences, node states and owners in the store, for the timeline alone.
//! * [`judge`]: what must never be seen.
//! * [`timeline`]: how a fault went, for people and for figures.
//!
//! The cases hold it by an [`Observer`].

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "whoever looks for one kind of event is not concerned by a new kind"
)]

pub(crate) mod event;
mod eye;
mod hosts;
mod judge;
pub(crate) mod timeline;
pub(crate) mod watch;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use pvc_lab::wait_for;

use crate::clock::Moment;
use event::{Event, What};

/// From its start until it watches everything.
const READY: Duration = Duration::from_secs(30);
/// Reading a log of a volume.
const AUDIT: Duration = Duration::from_secs(60);
/// Breaches that are told in an error; there may be one for each look.
const TOLD: usize = 8;

/// The observer, as a case has it. It ends with this.
#[derive(Debug)]
pub(crate) struct Observer {
    events: Arc<Mutex<Vec<Event>>>,
    orders: Option<ChildStdin>,
    program: Child,
}

impl Observer {
    /// Starts the observer's process, and waits until it watches.
    pub(crate) fn start() -> Result<Observer> {
        let own = std::env::current_exe().context("cannot tell the own program's path")?;
        let mut program = Command::new(own)
            .arg("observe")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the observer")?;
        let output = program.stdout.take().context("the observer says nothing")?;
        let orders = program.stdin.take();
        let events = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&events);
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or_else(|error| {
                    Event::now(What::Trouble {
                        text: format!("the observer said {line:?}: {error}"),
                    })
                });
                lock(&shared).push(event);
            }
            lock(&shared).push(Event::now(What::Breach {
                text: "the observer has ended".to_owned(),
            }));
        });
        let observer = Observer {
            events,
            orders,
            program,
        };
        wait_for("the observer to watch", READY, || {
            observer.must_be_clean(None)?;
            Ok(observer
                .find(None, |what| matches!(what, What::Ready))
                .map(|_| ()))
        })?;
        Ok(observer)
    }

    /// All that was seen since a moment.
    pub(crate) fn since(&self, since: Option<Moment>) -> Vec<Event> {
        let since = since.map_or(0.0, Moment::seconds);
        let events = lock(&self.events);
        events.iter().filter(|event| event.at >= since).cloned().collect()
    }

    /// When something was first seen since a moment.
    pub(crate) fn find(&self, since: Option<Moment>, mut is_it: impl FnMut(&What) -> bool) -> Option<Event> {
        self.since(since).into_iter().find(|event| is_it(&event.what))
    }

    /// Fails if something was seen that must never be.
    pub(crate) fn must_be_clean(&self, since: Option<Moment>) -> Result<()> {
        let breaches: BTreeSet<String> = self
            .since(since)
            .into_iter()
            .filter_map(|event| match event.what {
                What::Breach { text } => Some(text),
                _ => None,
            })
            .collect();
        if breaches.is_empty() {
            return Ok(());
        }
        let told: Vec<&str> = breaches.iter().take(TOLD).map(String::as_str).collect();
        bail!(
            "the observer saw {} breaches:\n  {}",
            breaches.len(),
            told.join("\n  ")
        )
    }

    /// Has the logs of all volumes that guests have written to since a moment read, and judged. To be called while Ceph
    /// answers.
    pub(crate) fn audit(&mut self, since: Option<Moment>) -> Result<()> {
        let images: BTreeSet<String> =
            self.since(since)
                .into_iter()
                .fold(BTreeSet::new(), |mut images, event| {
                    match event.what {
                        What::Wrote { image, .. } => {
                            images.insert(image);
                        }
                        What::Gone { image } => {
                            images.remove(&image);
                        }
                        _ => {}
                    }
                    images
                });
        let asked = Moment::now();
        for image in &images {
            let orders = self.orders.as_mut().context("the observer takes no orders")?;
            writeln!(orders, "{image}").context("the observer takes no orders any more")?;
        }
        wait_for("the observer to read the volumes' logs", AUDIT, || {
            let read: BTreeSet<String> = self
                .since(Some(asked))
                .into_iter()
                .filter_map(|event| match event.what {
                    What::Audit { image, .. } | What::Gone { image } => Some(image),
                    _ => None,
                })
                .collect();
            Ok(images.is_subset(&read).then_some(()))
        })?;
        self.must_be_clean(since)
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        // The end of its input is the end of it; what it started ends with it.
        drop(self.orders.take());
        self.program.wait().ok();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
