//! Running the `pvc` program. Shared by the tests of this crate.
#![allow(dead_code, reason = "each test file uses its own part of this")]
#![expect(
    clippy::disallowed_methods,
    reason = "the tests run the program itself; it ends by itself"
)]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::common::{Cluster, TOKEN};

/// What the program said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Said {
        Said {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The program with an empty environment but for what it needs.
pub(crate) fn program(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pvc"));
    command.env_clear().env("HOME", home).stdin(Stdio::null());
    command
}

pub(crate) fn pvc(cluster: &Cluster, args: &[&str]) -> Said {
    pvc_at(cluster.url(), args)
}

/// The program against the API at that URL.
pub(crate) fn pvc_at(url: &str, args: &[&str]) -> Said {
    let home = tempfile::tempdir().unwrap();
    let said: Said = program(home.path())
        .env("PVC_URL", url)
        .env("PVC_API_KEY", TOKEN)
        .arg("-q")
        .args(args)
        .output()
        .unwrap()
        .into();
    // With --nocapture the tests are a tour through what an administrator sees.
    eprintln!("$ pvc {}\n{}{}", args.join(" "), said.out, said.err);
    said
}

/// The same, which has to succeed; answers with its output.
pub(crate) fn done(cluster: &Cluster, args: &[&str]) -> String {
    let said = pvc(cluster, args);
    assert_eq!(said.code, 0, "{args:?}: {said:?}");
    assert_eq!(said.err, "", "{args:?}");
    said.out
}
