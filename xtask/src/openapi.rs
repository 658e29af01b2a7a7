//! `cargo xtask openapi`: the description of the API, generated from the code and checked in.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Where the description is, below the workspace's root.
const FILE: &str = "docs/openapi/pvcapid.json";

/// Writes the file anew.
pub(crate) fn write() -> Result<()> {
    let file = path();
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    std::fs::write(&file, generated()?).with_context(|| format!("cannot write {}", file.display()))
}

/// Fails if the file is not what the code says.
pub(crate) fn check() -> Result<()> {
    let file = path();
    let checked_in =
        std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let generated = generated()?;
    if checked_in == generated {
        return Ok(());
    }
    let differing = checked_in
        .lines()
        .zip(generated.lines())
        .position(|(one, other)| one != other)
        .map_or_else(|| "its length".to_owned(), |line| format!("line {}", line + 1));
    bail!("{FILE} is stale from {differing} on: `cargo xtask openapi` writes it anew");
}

fn path() -> PathBuf {
    workspace::root().join(FILE)
}

fn generated() -> Result<String> {
    let output = Command::new(workspace::cargo())
        .current_dir(workspace::root())
        .args(["run", "--quiet", "--package", "pvcapid", "--", "--print-openapi"])
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!(
            "pvcapid does not print its description: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    String::from_utf8(output.stdout).context("the description is not UTF-8")
}
