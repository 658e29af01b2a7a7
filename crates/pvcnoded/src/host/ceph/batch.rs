//! Commands of Ceph, run side by side in one process.
//!
//! Each run of the programs `ceph` and `rbd` costs a third of a second of processor time and more before it has said anything.
//! Barring the clients of ten guests takes ten commands: 8 s on two busy cores, against 1 s in one process. It is a process
//! all the same, killed at its deadline, since a call of librados can't be.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use pvc_common::command::{Invocation, Program};
use pvc_core::ids::VolumeId;
use serde::Serialize;
use serde_json::{Value, json};

use super::{CephAccess, OsdDown};
use crate::host::{RbdLock, blocklist_lasts};

/// What is run: needs `python3-rados` and `python3-rbd`, on which `ceph-common` depends too.
const PROGRAM: &str = include_str!("batch.py");

/// How many commands go out together, as the program has it.
pub(super) const AT_ONCE: usize = 64;

/// One command, as the program reads it.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub(super) struct Command(Value);

/// What came of one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    code: i64,
    output: String,
    words: String,
}

impl Answer {
    /// What it printed, or in words why it failed.
    pub(super) fn output(&self) -> Result<&str, String> {
        match self.code {
            0 => Ok(&self.output),
            code => Err(format!("{} (error {code})", self.words.trim())),
        }
    }

    /// Whether it said that there is no such volume.
    pub(super) fn is_no_volume(&self) -> bool {
        self.code == i64::from(libc::ENOENT)
    }
}

/// What is known of the owners of locks that are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owners {
    /// All of them have been seen in the map as barred for long.
    AreBarred,
    /// Nothing.
    MayNotBeBarred,
}

/// `osd blocklist add` of one client.
pub(super) fn bar(client: &str, lasts: Duration) -> Command {
    to_monitors(json!({
        "prefix": "osd blocklist", "blocklistop": "add", "addr": client, "expire": lasts.as_secs_f64(),
    }))
}

/// `osd dump`: the committed map.
pub(super) fn dump() -> Command {
    to_monitors(json!({"prefix": "osd dump", "format": "json"}))
}

/// `health`: what Ceph complains of.
pub(super) fn health() -> Command {
    to_monitors(json!({"prefix": "health", "format": "json"}))
}

/// `osd down`, for all of them at once.
pub(super) fn mark_down(osds: &[u32], how: OsdDown) -> Command {
    let ids: Vec<String> = osds.iter().map(u32::to_string).collect();
    let command = match how {
        OsdDown::Plain => json!({"prefix": "osd down", "ids": ids}),
        OsdDown::DefinitelyDead => json!({"prefix": "osd down", "ids": ids, "definitely_dead": true}),
    };
    to_monitors(command)
}

/// `tell osd.N status`.
pub(super) fn status_of(osd: u32) -> Command {
    Command(json!({"osd": osd, "command": {"prefix": "status", "format": "json"}}))
}

/// Watchers and locks of a volume.
pub(super) fn users_of(volume: &VolumeId) -> Command {
    Command(json!({"volume": volume.to_string()}))
}

/// The removal of a lock.
pub(super) fn unlock(volume: &VolumeId, lock: &RbdLock) -> Command {
    Command(json!({"volume": volume.to_string(), "unlock": {"id": lock.id, "locker": lock.locker}}))
}

fn to_monitors(command: Value) -> Command {
    Command(json!({"mon": command}))
}

/// The run of all of `first` at once, and then of all of `then`; one that gets no answer within `each` fails. The files'
/// options and ours reach librados in the text on standard input, so that no argument is longer than a line.
pub(super) fn invocation(
    access: &CephAccess,
    first: &[Command],
    then: &[Command],
    owners: Owners,
    (each, deadline): (Duration, Duration),
) -> Invocation {
    let path = |path: &Path| path.display().to_string();
    // These options take whole seconds; 0 would be no limit.
    let seconds = each.as_secs().max(1).to_string();
    let order = json!({
        "file": path(&access.config_file),
        "config": {
            "keyring": path(&access.keyring),
            "rados_mon_op_timeout": seconds,
            "rados_osd_op_timeout": seconds,
            "client_mount_timeout": seconds,
            "mon_client_hunt_interval": super::HUNT_INTERVAL,
            "mon_client_hunt_interval_backoff": super::HUNT_BACKOFF,
            // The removal of a lock bars its owner first, for one hour if nothing else is said, and nobody could make that
            // longer. For one that is barred already that would only mean to wait for another map, up to a second.
            "rbd_blocklist_on_break_lock": (owners == Owners::MayNotBeBarred).to_string(),
            "rbd_blocklist_expire_seconds": blocklist_lasts().as_secs().to_string(),
        },
        "first": first,
        "then": then,
    });
    // A JSON string is a Python string as well.
    let text = Value::String(order.to_string());
    let args: [OsString; 3] = ["-I".into(), "-B".into(), "-".into()];
    Invocation::new(Program::Python3, deadline)
        .args(args)
        .stdin(format!("{PROGRAM}\n\nmain({text})\n"))
}

/// The answers, in the order of the commands.
pub(super) fn answers(text: &str, expected: usize) -> Result<Vec<Answer>, serde_json::Error> {
    let answers: Vec<(i64, String, String)> = serde_json::from_str(text)?;
    if answers.len() != expected {
        return Err(serde::de::Error::custom(format_args!(
            "{} answers to {expected} commands",
            answers.len()
        )));
    }
    Ok(answers
        .into_iter()
        .map(|(code, output, words)| Answer { code, output, words })
        .collect())
}
