//! The program that looks at Ceph (assets/eye.py), and what it says.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout};
use std::sync::mpsc::Sender;

use anyhow::{Context, Result};
use pvc_lab::{Background, Lab};
use serde::Deserialize;
use serde_json::json;

use super::event::{Event, What, Written};

const PROGRAM: &str = include_str!("../../assets/eye.py");

/// The eye, as whoever gives it orders has it.
#[derive(Debug)]
pub(crate) struct Eye {
    orders: ChildStdin,
    /// Names of the volumes whose logs were asked for, by number of the question.
    audits: u32,
    /// Ends it with this.
    _program: Background,
}

#[derive(Debug, Deserialize)]
struct OsdMap {
    epoch: u64,
    up: Vec<u32>,
    barred: Vec<String>,
}

/// A line of the eye's.
#[derive(Debug, Deserialize)]
struct Line {
    t: f64,
    f: f64,
    osdmap: Option<OsdMap>,
    #[serde(default)]
    same: bool,
    quorum: Option<Vec<String>>,
    image: Option<String>,
    volume: Option<String>,
    record: Option<Written>,
    locks: Option<Vec<String>>,
    watchers: Option<Vec<String>>,
    #[serde(default)]
    gone: bool,
    audit: Option<String>,
    records: Option<Vec<[u32; 4]>>,
    trouble: Option<String>,
}

impl Eye {
    /// Opens it; what it says is read by [`listen`].
    pub(crate) fn open(lab: &Lab) -> Result<(Eye, ChildStdout)> {
        let configuration = format!("{}\n", lab.ceph_client()?);
        let mut program = lab.spawn_ceph_client(PROGRAM, &configuration)?;
        let orders = program.stdin().context("the eye takes no orders")?;
        let output = program.stdout().context("the eye says nothing")?;
        Ok((
            Eye {
                orders,
                audits: 0,
                _program: program,
            },
            output,
        ))
    }

    /// From now on look at this volume.
    pub(crate) fn watch(&mut self, image: &str) -> Result<()> {
        writeln!(self.orders, "{}", json!({ "watch": image }))?;
        Ok(self.orders.flush()?)
    }

    /// Read the log in this volume.
    pub(crate) fn audit(&mut self, image: &str) -> Result<()> {
        self.audits += 1;
        writeln!(self.orders, "{}", json!({ "audit": image, "id": image }))?;
        Ok(self.orders.flush()?)
    }
}

/// Passes on what the eye says until it ends.
pub(crate) fn listen(output: ChildStdout, tell: &Sender<Event>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        for event in parse(&line) {
            if tell.send(event).is_err() {
                return;
            }
        }
    }
    tell.send(Event::now(What::Breach {
        text: "the eye on Ceph has ended: what was not seen may have been wrong".to_owned(),
    }))
    .ok();
}

fn parse(text: &str) -> Vec<Event> {
    let line: Line = match serde_json::from_str(text) {
        Ok(line) => line,
        Err(error) => {
            return vec![Event::now(What::Trouble {
                text: format!("the eye said {text:?}: {error}"),
            })];
        }
    };
    let what = if let Some(text) = line.trouble {
        What::Trouble { text }
    } else if line.same {
        What::MapSame { asked: line.f }
    } else if let Some(map) = line.osdmap {
        What::Map {
            epoch: map.epoch,
            up: map.up,
            barred: map.barred,
            asked: line.f,
        }
    } else if let Some(members) = line.quorum {
        What::Quorum { members }
    } else if let (Some(image), Some(records)) = (line.audit, line.records) {
        let records = records
            .into_iter()
            .map(|[n, tag, base, alien]| Written { n, tag, base, alien })
            .collect();
        What::Audit { image, records }
    } else if let Some(image) = line.image {
        if line.gone {
            What::Gone { image }
        } else if let (Some(record), Some(volume)) = (line.record, line.volume) {
            What::Wrote {
                image,
                volume,
                record,
                asked: line.f,
            }
        } else {
            What::Users {
                image,
                locks: line.locks.unwrap_or_default(),
                watchers: line.watchers.unwrap_or_default(),
            }
        }
    } else {
        return Vec::new();
    };
    vec![Event { at: line.t, what }]
}

/// Storage addresses of the nodes: by them Ceph's clients are told apart.
pub(crate) fn storage_addresses(lab: &Lab) -> BTreeMap<String, String> {
    lab.nodes()
        .iter()
        .map(|node| (node.name(), crate::guests::storage_address(node)))
        .collect()
}
