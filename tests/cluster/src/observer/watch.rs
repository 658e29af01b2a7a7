//! The observer's own process: watches everything, judges it, and tells it as JSON lines on its standard output. It ends
//! with its standard input, on which it takes one order: the name of a volume whose log is to be read.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, Write as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use pvc_common::keys;
use pvc_core::fence::FenceRecord;
use pvc_core::ids::{NodeName, VmId};
use pvc_lab::{Lab, Storage};

use super::event::{Event, What};
use super::eye::{self, Eye};
use super::hosts::Hosts;
use super::judge::Judge;
use crate::guests::PREFIX;
use crate::store::StoreView;

/// Between two looks at the store.
const LOOK: Duration = Duration::from_millis(100);
/// Between two looks at whether the caller is still there.
const ALIVE: Duration = Duration::from_millis(500);

/// Guests of which a process was ever seen: the store is asked about these.
type Guests = Arc<Mutex<BTreeSet<VmId>>>;

/// Watches until the caller closes standard input.
pub(crate) fn run() -> Result<bool> {
    let lab = Lab::attach()?;
    let (tell, heard) = channel();
    let mut judge = Judge::new(eye::storage_addresses(&lab));
    let mut eye = match lab.state().storage {
        Storage::Ceph => {
            let (eye, output) = Eye::open(&lab)?;
            let tell = tell.clone();
            thread::spawn(move || eye::listen(output, &tell));
            Some(eye)
        }
        Storage::None => None,
    };
    let hosts = Hosts::new(lab.nodes());
    let to_judge = tell.clone();
    thread::spawn(move || hosts.run(&to_judge));
    let guests = Guests::default();
    let names = lab
        .nodes()
        .iter()
        .map(|node| Ok(NodeName::new(node.name())?))
        .collect::<Result<Vec<_>>>()?;
    let store = StoreView::open(&lab)?;
    let (shared, to_judge) = (Arc::clone(&guests), tell.clone());
    thread::spawn(move || watch_store(&store, &names, &shared, &to_judge));
    let orders = take_orders();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(&Event::now(What::Ready))?)?;
    out.flush()?;
    let mut watched = BTreeSet::new();
    loop {
        for image in orders.try_iter() {
            let Some(image) = image else { return Ok(true) };
            if let Some(eye) = &mut eye {
                eye.audit(&image)?;
            }
        }
        let event = match heard.recv_timeout(ALIVE) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return Ok(false),
        };
        if let What::Began { process, volumes, .. } = &event.what {
            lock(&guests).insert(process.guest);
            for volume in volumes {
                // What other guests write is not ours to read.
                if has_our_records(volume)
                    && watched.insert(volume.clone())
                    && let Some(eye) = &mut eye
                {
                    eye.watch(volume)?;
                }
            }
        }
        let wrong = judge.see(&event);
        // That nothing has changed is of use to the judge alone.
        let told = [event]
            .into_iter()
            .filter(|event| !matches!(event.what, What::MapSame { .. }))
            .chain(wrong.into_iter().map(Event::now));
        for event in told {
            writeln!(out, "{}", serde_json::to_string(&event)?)?;
            out.flush()?;
        }
    }
}

/// Whether a volume, `pool/image`, is of a guest that these tests have defined.
fn has_our_records(volume: &str) -> bool {
    volume
        .split_once('/')
        .is_some_and(|(_, image)| image.starts_with(PREFIX))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names of volumes as they come; none at the end of standard input.
fn take_orders() -> Receiver<Option<String>> {
    let (order, orders) = channel();
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if order.send(Some(line)).is_err() {
                return;
            }
        }
        order.send(None).ok();
    });
    orders
}

/// Looks at nodes, fences and guests in the store, and tells what has changed.
fn watch_store(store: &StoreView, nodes: &[NodeName], guests: &Guests, tell: &Sender<Event>) {
    let mut before = BTreeMap::new();
    loop {
        let known: Vec<VmId> = lock(guests).iter().copied().collect();
        // Without a quorum there is nothing to tell; what has changed meanwhile is told later.
        for (key, what) in look(store, nodes, &known).unwrap_or_default() {
            if before.get(&key) != Some(&what) {
                before.insert(key, what.clone());
                if tell.send(Event::now(what)).is_err() {
                    return;
                }
            }
        }
        thread::sleep(LOOK);
    }
}

fn look(store: &StoreView, nodes: &[NodeName], guests: &[VmId]) -> Result<Vec<(String, What)>> {
    let mut paths = Vec::new();
    for name in nodes {
        paths.push(keys::node(name).daemon_state().path().to_owned());
        paths.push(keys::fence(name).path().to_owned());
    }
    for guest in guests {
        let keys = keys::domain(*guest);
        paths.extend([keys.node().path(), keys.state().path(), keys.owner().path()].map(str::to_owned));
    }
    let znodes = store.read_many(&paths)?;
    let mut found = Vec::new();
    let (of_nodes, of_guests) = znodes.split_at(nodes.len() * 2);
    for (name, pair) in nodes.iter().zip(of_nodes.chunks(2)) {
        let [state, fence] = pair else { continue };
        if let Some(state) = keys::node(name).daemon_state().decode(state.as_ref())? {
            let what = What::Agent {
                node: name.to_string(),
                state: state.value.to_string(),
            };
            found.push((format!("agent {name}"), what));
        }
        let record = keys::fence(name)
            .decode(fence.as_ref())?
            .and_then(|record| record.value);
        let what = What::Fence {
            node: name.to_string(),
            phase: record.as_ref().map(|record| record.phase.word().to_owned()),
            detail: record.as_ref().map(detail).unwrap_or_default(),
        };
        found.push((format!("fence {name}"), what));
    }
    for (guest, triple) in guests.iter().zip(of_guests.chunks(3)) {
        let [node, state, owner] = triple else { continue };
        let keys = keys::domain(*guest);
        let (Some(node), Some(state)) = (
            keys.node().decode(node.as_ref())?,
            keys.state().decode(state.as_ref())?,
        ) else {
            // Undefined.
            continue;
        };
        let owner = keys.owner().decode(owner.as_ref())?.and_then(|owner| owner.value);
        let what = What::Guest {
            guest: *guest,
            node: node.value.to_string(),
            state: state.value.to_string(),
            owner: owner.map(|owner| owner.node.to_string()),
        };
        found.push((format!("guest {guest}"), what));
    }
    Ok(found)
}

/// The tracks of a fence in a few words.
fn detail(record: &FenceRecord) -> String {
    let word = |value: serde_json::Result<serde_json::Value>| -> String {
        let value = value.unwrap_or_default();
        let text = |field: &str| {
            value
                .get(field)
                .and_then(serde_json::Value::as_str)
                .unwrap_or_default()
        };
        [text("is"), text("by"), text("reason")]
            .join(" ")
            .trim()
            .to_owned()
    };
    format!(
        "{} by {}; power {}, storage {}, restart {}{}",
        word(serde_json::to_value(&record.phase)),
        record.fencer,
        word(serde_json::to_value(&record.power)),
        word(serde_json::to_value(&record.storage)),
        word(serde_json::to_value(&record.restart)),
        if record.waits_for.is_empty() {
            String::new()
        } else {
            format!("; waits for {}", record.waits_for)
        }
    )
}
