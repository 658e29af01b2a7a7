//! Commands of Ceph, run side by side in one process.
//!
//! Each run of the program `ceph` costs half a second of processor time before it has said anything, and barring the
//! clients of ten guests takes ten commands: 8 s on two busy cores, against 1 s in one process. It is a process all the
//! same, killed at its deadline, since a call of librados can't be.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use pvc_common::command::{Invocation, Program};
use serde::Serialize;
use serde_json::{Value, json};

use super::{CephAccess, OsdDown};

/// What is run: needs `python3-rados`, on which the program `ceph` depends too.
const PROGRAM: &str = include_str!("batch.py");

/// How many commands go out together, as the program has it.
pub(super) const AT_ONCE: usize = 64;

/// One command.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Command {
    /// The OSD that it is for; none: the monitors.
    osd: Option<u32>,
    command: Value,
}

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
}

/// `osd blocklist add` of one client.
pub(super) fn bar(client: &str, lasts: Duration) -> Command {
    Command {
        osd: None,
        command: json!({
            "prefix": "osd blocklist", "blocklistop": "add", "addr": client, "expire": lasts.as_secs_f64(),
        }),
    }
}

/// `osd dump`: the committed map.
pub(super) fn dump() -> Command {
    Command {
        osd: None,
        command: json!({"prefix": "osd dump", "format": "json"}),
    }
}

/// `osd down`, for all of them at once.
pub(super) fn mark_down(osds: &[u32], how: OsdDown) -> Command {
    let ids: Vec<String> = osds.iter().map(u32::to_string).collect();
    let command = match how {
        OsdDown::Plain => json!({"prefix": "osd down", "ids": ids}),
        OsdDown::DefinitelyDead => json!({"prefix": "osd down", "ids": ids, "definitely_dead": true}),
    };
    Command { osd: None, command }
}

/// `tell osd.N status`.
pub(super) fn status_of(osd: u32) -> Command {
    Command {
        osd: Some(osd),
        command: json!({"prefix": "status", "format": "json"}),
    }
}

/// The run of all of `first` at once, and then of all of `then`; one that gets no answer within `each` fails. The files'
/// options and ours reach librados in the text on standard input, so that no argument is longer than a line.
pub(super) fn invocation(
    access: &CephAccess,
    first: &[Command],
    then: &[Command],
    each: Duration,
    deadline: Duration,
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
